//! `cargo xtask bench faults`: the table of what each sink loses by each fault of its server.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::run::cargo;

/// Every fault of every server, as long as is wanted.
#[derive(Args)]
pub(super) struct Faults {
    /// How long each fault lasts, in seconds, under a thousand records a second.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// The tests that print rows.
const TESTS: [&str; 4] = ["faults::", "delivery::a_full_disk", "delivery::an_alert_that_was", "real::a_stream_of_nats"];

/// Runs the tests that do it, and prints their rows as one table.
pub(super) fn run(faults: &Faults, output: Option<&Path>) -> Result<()> {
    let mut child = cargo(&["test", "--package", "distwatch", "--test", "sinks", "--", "--nocapture"])
        .args(TESTS)
        .env("DISTWATCH_FAULT_SECONDS", faults.seconds.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut rows = Vec::new();
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let line = line?;
        // What the harness prints of a test may stand before it.
        if let Some((_, row)) = line.split_once("| ") {
            eprintln!("| {row}");
            rows.push(format!("| {row}"));
        }
    }
    let ended = child.wait()?;
    // By the sink; the faults of one are in order already.
    rows.sort_by(|one, other| one.split('|').nth(1).cmp(&other.split('|').nth(1)));
    let mut text = String::from(
        "| sink | its server | sent | received | duplicated | lost | out of order | peak memory of the sender, MiB |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    rows.iter().for_each(|row| _ = writeln!(text, "{row}"));
    println!("{text}");
    if let Some(path) = output {
        std::fs::write(path, &text).with_context(|| format!("writing {}", path.display()))?;
    }
    if !ended.success() {
        bail!("a sink has lost something, or a test has failed: {ended}");
    }
    Ok(())
}
