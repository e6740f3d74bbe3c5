//! The one entry for chores; see `cargo xtask --help`.
fn main() {}
