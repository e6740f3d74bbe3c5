//! `distwatch config`: checks, shows and begins policy files.

use std::path::Path;

use anyhow::bail;

use super::{Exit, Explain as _, print};
use crate::cli::ConfigCommand;
use crate::config;

/// Runs one of the commands.
///
/// # Errors
/// A file has mistakes, or standard output fails.
pub fn run(command: &ConfigCommand) -> anyhow::Result<Exit> {
    match command {
        ConfigCommand::Check { files } => {
            let files: Vec<&Path> = files.iter().filter(|file| !file.is_empty()).map(Path::new).collect();
            check(&files)
        }
        ConfigCommand::Show(policy) => {
            let text = config::show(&policy.load()?);
            print(|out| out.write_all(text.as_bytes()))
        }
        ConfigCommand::Example => print(|out| out.write_all(config::example().as_bytes())),
        ConfigCommand::Schema => print(|out| writeln!(out, "{:#}", config::schema())),
    }
}

/// Checks all files before it says that one is wrong.
fn check(files: &[&Path]) -> anyhow::Result<Exit> {
    if files.is_empty() {
        return Err(anyhow::anyhow!("there is no policy file to check"))
            .hint("name one, or let DISTWATCH_CONFIG do it; `distwatch config example` prints one to begin with");
    }
    let mut mistakes = Vec::new();
    for file in files {
        match config::load(Some(file)) {
            Ok(_) => print(|out| writeln!(out, "{}: ok", file.display())).map(drop)?,
            Err(errors) => mistakes.push(errors.to_string()),
        }
    }
    if mistakes.is_empty() {
        return Ok(Exit::Done);
    }
    bail!(mistakes.join("\n\n"))
}
