//! `test`: all tests of the workspace, and what could not be tested.

use crate::run::{cargo, run as run_program};
use crate::setup;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Fail where a tool is missing, instead of testing less
    #[arg(long)]
    strict: bool,
    /// Install first what tests need and the machine lacks
    #[arg(long)]
    setup: bool,
    /// Only tests whose name contains this
    filter: Option<String>,
}

impl Arguments {
    /// All tests.
    pub(crate) const fn all(strict: bool) -> Self {
        Self { strict, setup: false, filter: None }
    }
}

/// Installs nothing unless told to. Tests that need a missing tool say so and pass; what they are is said again at the end, where it is seen.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.setup {
        setup::for_tests()?;
    }
    let missing = setup::missing();
    if arguments.strict && !missing.is_empty() {
        report(&missing);
        anyhow::bail!("tools are missing, and nothing may be skipped: run `cargo xtask setup`");
    }
    let mut command = cargo(&["test", "--workspace"]);
    command.args(&arguments.filter);
    let result = run_program(&mut command);
    report(&missing);
    result
}

fn report(missing: &[&setup::Tool]) {
    if missing.is_empty() {
        return;
    }
    eprintln!("\n*** NOT EVERYTHING WAS TESTED: this machine lacks some tools (`cargo xtask setup` installs them)");
    missing.iter().for_each(|tool| eprintln!("***   {} (package {}): {}", tool.needs, tool.package, tool.without));
}
