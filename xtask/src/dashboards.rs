//! `dashboards`: what is shipped for Grafana, against Grafana's own types and the grammars of its query editors.
//!
//! Both exist as packages for Node alone. What else is asked of dashboards and rules needs no Node, and stands in
//! `agent/tests/dashboards`.

use std::process::Command;

use anyhow::bail;

use crate::run::{repository, run as run_program, which};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Fail where Node is missing, instead of checking nothing
    #[arg(long)]
    strict: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    check(arguments.strict)
}

pub(crate) fn check(strict: bool) -> anyhow::Result<()> {
    let missing: Vec<&str> = ["node", "npm"].into_iter().filter(|program| which(program).is_none()).collect();
    if !missing.is_empty() {
        let missing = missing.join(" and ");
        if strict {
            bail!("{missing} is not installed: `cargo xtask setup` installs it");
        }
        eprintln!(
            "*** NOT CHECKED: {missing} is not installed, so the dashboards' types and queries were not looked at"
        );
        return Ok(());
    }
    let folder = repository().join("dashboards/check");
    let mut install = Command::new("npm");
    // Exactly what the lock file says; nothing of it runs while it is installed.
    install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]);
    run_program(install.current_dir(&folder))?;
    run_program(Command::new("node").arg("check.mjs").current_dir(&folder))
}
