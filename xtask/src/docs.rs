//! `docs`: writes the generated files anew, or checks them. What they are stands in `agent/tests/generated.rs`.

use crate::run::{cargo, run as run_program};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail where a file is not what the program generates
    #[arg(long)]
    pub(crate) check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut command = cargo(&["test", "--quiet", "--package", "distwatch", "--test", "generated"]);
    if !arguments.check {
        command.env("UPDATE_GENERATED", "1");
    }
    run_program(&mut command)
}
