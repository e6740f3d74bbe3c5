//! The commands, how each of them can end, and how an error is told.

pub mod analyze;
pub mod assets;
pub mod config;
pub mod doctor;
pub mod rules;
pub mod run;
pub mod schema;
pub mod status;

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::process::{ExitCode, Termination};

use crate::cli::{self, Cli, Command};

/// How the program ends (the exit status of `docs/contract.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Done, and a finding reached `--fail-on`.
    Findings = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// No permission, or nothing to capture from.
    NoCapture = 3,
    /// An input file is damaged.
    Damaged = 4,
    /// Interrupted.
    Interrupted = 130,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// An error that knows how the program ends because of it, or what to do about it.
#[derive(Debug)]
struct Explained {
    error: anyhow::Error,
    exit: Option<Exit>,
    hint: Option<String>,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Explained {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Says more of an error than its text.
pub trait Explain<T> {
    /// The program ends like this because of it. The last one said of an error holds.
    ///
    /// # Errors
    /// The same error, if there is one.
    fn or_exit(self, exit: Exit) -> anyhow::Result<T>;

    /// What to do about it, printed below the error. The last one said of an error holds.
    ///
    /// # Errors
    /// The same error, if there is one.
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Explain<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> anyhow::Result<T> {
        self.map_err(|error| explained(error.into(), |known| known.exit = Some(exit)))
    }

    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| explained(error.into(), |known| known.hint = Some(hint.into())))
    }
}

fn explained(error: anyhow::Error, say: impl FnOnce(&mut Explained)) -> anyhow::Error {
    // What was said of it further in still holds, unless it is said anew.
    let (exit, hint) = match error.downcast_ref::<Explained>() {
        Some(known) => (known.exit, known.hint.clone()),
        None => (None, None),
    };
    let mut known = Explained { error, exit, hint };
    say(&mut known);
    known.into()
}

/// Does what the command line asks for.
///
/// # Errors
/// Whatever kept it from being done.
pub fn run(cli: Cli) -> anyhow::Result<Exit> {
    let globals = &cli.globals;
    match cli.command {
        Command::Analyze(arguments) => analyze::run(&arguments, globals),
        Command::Run(arguments) => run::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Config(command) => config::run(&command),
        Command::Rules(arguments) => rules::run(&arguments),
        Command::Assets(command) => assets::run(&command),
        Command::Schema(arguments) => schema::run(arguments),
        Command::Completions { shell } => print(|out| cli::write_completions(shell, out)),
        Command::Man { dir: None } => print(cli::write_manual),
        Command::Man { dir: Some(directory) } => {
            cli::write_manuals(&directory)?;
            std::fs::write(directory.join("distwatch.toml.5"), crate::config::manual())?;
            Ok(Exit::Done)
        }
    }
}

/// Writes data to standard output.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<Exit> {
    let mut out = BufWriter::new(io::stdout().lock());
    write(&mut out)?;
    out.flush()?;
    Ok(Exit::Done)
}

/// Tells how it went: prints the error, if there is one, and finds the exit status.
#[must_use]
pub fn conclude(result: anyhow::Result<Exit>, color: bool) -> Exit {
    match result {
        Ok(exit) => exit,
        // Whoever reads our output may stop whenever they have read enough.
        Err(error) if is_broken_pipe(&error) => Exit::Done,
        Err(error) => {
            // Nobody is left to tell where standard error is closed too.
            let _ = write_error(&error, color, &mut io::stderr().lock());
            exit_of(&error)
        }
    }
}

fn write_error(error: &anyhow::Error, color: bool, out: &mut dyn Write) -> io::Result<()> {
    let (red, cyan, plain) = if color { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
    writeln!(out, "{red}error:{plain} {error}")?;
    for cause in error.chain().skip(1) {
        writeln!(out, "  because: {cause}")?;
    }
    if let Some(hint) = error.downcast_ref::<Explained>().and_then(|known| known.hint.as_deref()) {
        writeln!(out, "{cyan}hint:{plain} {hint}")?;
    }
    Ok(())
}

fn exit_of(error: &anyhow::Error) -> Exit {
    let said = error.downcast_ref::<Explained>().and_then(|known| known.exit);
    said.unwrap_or_else(|| match io_kinds(error).any(|kind| kind == io::ErrorKind::PermissionDenied) {
        true => Exit::NoCapture,
        false => Exit::Usage,
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    io_kinds(error).any(|kind| kind == io::ErrorKind::BrokenPipe)
}

/// The kinds of I/O error that an error comes from.
fn io_kinds(error: &anyhow::Error) -> impl Iterator<Item = io::ErrorKind> {
    // A chain goes past the error that an `Explained` holds, from its text to its cause.
    fn held(error: &anyhow::Error) -> Option<&anyhow::Error> {
        error.downcast_ref::<Explained>().map(|known| &known.error)
    }
    let all = std::iter::successors(Some(error), |error| held(error)).flat_map(anyhow::Error::chain);
    all.filter_map(|cause| {
        let own = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        own.or_else(|| cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind))
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn failed(kind: io::ErrorKind) -> anyhow::Result<Exit> {
        Err(io::Error::from(kind).into())
    }

    fn printed(error: &anyhow::Error) -> String {
        let mut out = Vec::new();
        write_error(error, false, &mut out).expect("memory takes it");
        String::from_utf8(out).expect("it is text")
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_a_hint() {
        let error = failed(io::ErrorKind::NotFound)
            .context("a.pcap cannot be opened")
            .hint("name a file that exists")
            .or_exit(Exit::NoCapture)
            .context("the captures cannot be read")
            .expect_err("it failed");
        assert_eq!(
            printed(&error),
            "error: the captures cannot be read\n  because: a.pcap cannot be opened\n  because: entity not found\n\
             hint: name a file that exists\n"
        );
        assert_eq!(exit_of(&error), Exit::NoCapture);
    }

    #[test]
    fn what_is_said_last_of_an_error_holds() {
        let error =
            failed(io::ErrorKind::Other).or_exit(Exit::Damaged).or_exit(Exit::NoCapture).expect_err("it failed");
        assert_eq!(exit_of(&error), Exit::NoCapture);
        assert_eq!(printed(&error), "error: other error\n");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        assert_eq!(conclude(failed(io::ErrorKind::BrokenPipe).context("writing"), false), Exit::Done);
        assert_eq!(conclude(failed(io::ErrorKind::BrokenPipe).or_exit(Exit::Damaged).hint("x"), false), Exit::Done);
        let json = serde_json::Error::io(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(conclude(Err(json.into()), false), Exit::Done);
    }

    #[test]
    fn without_a_word_on_it_a_missing_permission_has_its_own_status() {
        assert_eq!(exit_of(&failed(io::ErrorKind::PermissionDenied).expect_err("it failed")), Exit::NoCapture);
        assert_eq!(exit_of(&failed(io::ErrorKind::NotFound).expect_err("it failed")), Exit::Usage);
    }
}
