//! The `distwatch` program.
fn main() {}
