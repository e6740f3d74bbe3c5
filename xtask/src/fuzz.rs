//! `fuzz`: the fuzz targets through cargo-fuzz, on nightly where there is one, else on the stable toolchain told to act like it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::run::{forget_package, repository, run as run_program, text, which};
use crate::setup;

/// How long a smoke test gives each target: enough to run the whole corpus and, of what is fast, some hundred thousand mutations of it.
const SMOKE_SECONDS: u64 = 10;
/// Without `--smoke` or `--seconds`.
const DEFAULT_SECONDS: u64 = 300;
/// Memory of one target. Every decoder has its limits; passing this is a finding.
const MEMORY_MEGABYTES: &str = "2048";
/// One input may take so long; passing it is a finding.
const TIMEOUT_SECONDS: &str = "10";
/// Longest input. Fragments and inflation need room, and the corpus has whole captures.
const LONGEST_INPUT: &str = "65536";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A short run of every target, as CI does it
    #[arg(long)]
    pub(crate) smoke: bool,
    /// Seconds for each target
    #[arg(long)]
    seconds: Option<u64>,
    /// Targets; all of them where none is named
    targets: Vec<String>,
}

impl Arguments {
    pub(crate) const fn smoke() -> Self {
        Self { smoke: true, seconds: None, targets: Vec::new() }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if which("cargo-fuzz").is_none() && !setup::cargo_has("fuzz") {
        bail!("cargo-fuzz is not installed: `cargo xtask setup` does it");
    }
    let default = if arguments.smoke { SMOKE_SECONDS } else { DEFAULT_SECONDS };
    let seconds = arguments.seconds.unwrap_or(default);
    let known = targets()?;
    if let Some(unknown) = arguments.targets.iter().find(|target| !known.contains(target)) {
        bail!("there is no fuzz target {unknown}; there are: {}", known.join(", "));
    }
    let chosen = if arguments.targets.is_empty() { &known } else { &arguments.targets };
    let mut findings = Vec::new();
    for target in chosen {
        match run_target(target, seconds) {
            Ok(executions) => println!("fuzz {target}: {executions} executions in {seconds} s, no finding"),
            Err(error) => {
                println!("fuzz {target}: {error:#}");
                findings.push(target.as_str());
            }
        }
    }
    if !findings.is_empty() {
        bail!("findings in {}; the inputs are in fuzz/artifacts", findings.join(", "));
    }
    Ok(())
}

/// One file in `fuzz/fuzz_targets`, one target.
fn targets() -> anyhow::Result<Vec<String>> {
    let folder = repository().join("fuzz/fuzz_targets");
    let mut targets = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    targets.sort();
    Ok(targets)
}

/// Runs one target on a copy of its corpus, so that the repository keeps its small one. The number of executions.
fn run_target(target: &str, seconds: u64) -> anyhow::Result<u64> {
    let seeds = format!("fuzz/corpus/{target}");
    let working = format!("fuzz/target/corpus/{target}");
    fs::create_dir_all(repository().join(&working))?;
    let mut command = fuzzer();
    command.args(["run", target, &working]);
    if repository().join(&seeds).is_dir() {
        command.arg(&seeds);
    }
    // First, and apart: building may take minutes, and its output belongs on the screen.
    run_program(fuzzer().args(["build", target]))?;
    let dictionary = format!("fuzz/dictionaries/{target}.dict");
    command.args(["--", &format!("-max_total_time={seconds}"), "-print_final_stats=1"]);
    command.args([&format!("-timeout={TIMEOUT_SECONDS}"), &format!("-rss_limit_mb={MEMORY_MEGABYTES}")]);
    command.arg(format!("-max_len={LONGEST_INPUT}"));
    if repository().join(&dictionary).is_file() {
        command.arg(format!("-dict={dictionary}"));
    }
    eprintln!("$ {}", text(&command));
    let mut child = command.stderr(Stdio::piped()).spawn().context("cannot start cargo fuzz")?;
    let output = child.stderr.take().context("the fuzzer has no output")?;
    let mut executions = 0;
    let mut last_lines = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
            executions = number.trim().parse().unwrap_or(0);
        }
        // libFuzzer says every new path on a line that begins with `#`: of no use where nothing was found.
        if !line.starts_with('#') {
            last_lines.push(line);
        }
    }
    let status = child.wait()?;
    if !status.success() {
        last_lines.iter().for_each(|line| eprintln!("{line}"));
        bail!("{status} after {executions} executions");
    }
    if executions == 0 {
        bail!("the fuzzer ran nothing");
    }
    Ok(executions)
}

/// `cargo fuzz`; instrumentation needs unstable options of the compiler.
fn fuzzer() -> Command {
    let nightly = Command::new("rustup")
        .args(["run", "nightly", "cargo", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    let mut command = Command::new("cargo");
    command.current_dir(repository());
    // The toolchain that runs this chore is handed down in the environment and would win over the choice here.
    for variable in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC"] {
        command.env_remove(variable);
    }
    forget_package(&mut command);
    if nightly {
        command.arg("+nightly");
    } else {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command.arg("fuzz");
    command
}
