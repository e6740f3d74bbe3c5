//! Comparison of the engine's decoders with others, side by side on the same bytes.
//!
//! `cargo run --release -- etf [DIR]` times the term walker against the crates eetf and erltf and against
//! `binary_to_term`. DIR holds corpora (`*.bin`: terms, each with its version byte and behind a length of 32 bits);
//! without it `escript etf.escript make` makes two. Only ratios within a run mean anything.

use anyhow::{Result, bail};

mod etf;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("etf") => etf::run(arguments.next().as_deref()),
        _ => bail!("usage: distwatch-bench etf [DIR]"),
    }
}
