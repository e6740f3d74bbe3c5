//! `ci`: every check, cheapest first, the same on a desk and in CI.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::run::{cargo, repository, run as run_program, which};
use crate::{dashboards, dist, docs, ebpf, fixtures, fuzz, kernels, setup, test, tidy};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave out packages, kernels and fuzzers, which take minutes
    #[arg(long)]
    quick: bool,
    /// Leave out the tests, which were just run
    #[arg(long)]
    tested: bool,
    /// Fail where a tool is missing, instead of checking less; cargo-deny, which takes minutes to install, is let off
    #[arg(long)]
    strict: bool,
    /// Install first what checks need and the machine lacks
    #[arg(long)]
    setup: bool,
}

type Step<'a> = (&'static str, Box<dyn Fn() -> anyhow::Result<()> + 'a>);

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.setup {
        setup::for_tests()?;
        setup::for_checks()?;
    }
    let mut steps: Vec<Step<'_>> = vec![
        ("format", Box::new(|| run_program(&mut cargo(&["fmt", "--all", "--", "--check"])))),
        ("tidy", Box::new(tidy::run)),
        ("fixtures", Box::new(|| fixtures::run(&fixtures::Arguments { check: true }))),
        ("the kernel's programs", Box::new(|| ebpf::check(arguments.strict))),
        ("dependencies", Box::new(dependencies)),
        ("dashboards", Box::new(|| dashboards::check(arguments.strict))),
        ("lints", Box::new(lints)),
        ("documents", Box::new(|| docs::run(&docs::Arguments { check: true }))),
    ];
    if !arguments.tested {
        steps.push(("tests", Box::new(|| test::run(&test::Arguments::all(arguments.strict)))));
    }
    steps.push(("the README's first command", Box::new(first_command)));
    if !arguments.quick {
        steps.push(("packages", Box::new(|| dist::check(arguments.strict))));
        steps.push(("kernels", Box::new(|| kernels::run(&kernels::Arguments::smoke(arguments.strict)))));
        steps.push(("fuzzing", Box::new(|| fuzz::run(&fuzz::Arguments::smoke()))));
    }
    for (name, check) in steps {
        eprintln!("\n=== {name}");
        let start = Instant::now();
        check().map_err(|error| error.context(format!("ci stopped at: {name}")))?;
        eprintln!("=== {name}: ok, {:.1} s", start.elapsed().as_secs_f64());
    }
    eprintln!("\nci: all checks passed");
    Ok(())
}

fn lints() -> anyhow::Result<()> {
    run_program(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// Licences, origins and advisories; `deny.toml` says what is allowed.
fn dependencies() -> anyhow::Result<()> {
    if which("cargo-deny").is_none() && !setup::cargo_has("deny") {
        eprintln!(
            "*** NOT CHECKED: cargo-deny is not installed, so licences and advisories were not looked at (`cargo xtask setup` does it)"
        );
        return Ok(());
    }
    run_program(&mut cargo(&["deny", "check", "bans", "licenses", "sources"]))?;
    // The one check whose data is neither here nor in a registry of packages.
    if run_program(&mut cargo(&["deny", "fetch", "db"])).is_err() {
        eprintln!("*** NOT CHECKED: the database of advisories is out of reach, so they were not looked at");
        return Ok(());
    }
    run_program(&mut cargo(&["deny", "check", "advisories"]))
}

/// What a newcomer types first must work. Exit status 1 would mean findings above `--fail-on`, which it does not have.
fn first_command() -> anyhow::Result<()> {
    let readme = std::fs::read_to_string(repository().join("README.md"))?;
    let line = tidy::README_COMMANDS[0];
    anyhow::ensure!(readme.lines().any(|found| found == line), "README.md no longer has the line `{line}`");
    let mut shell = Command::new("sh");
    run_program(shell.args(["-c", line]).current_dir(repository()).stdout(Stdio::null()))
}
