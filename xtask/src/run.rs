//! Running other programs from the top of the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// The top of the repository.
pub(crate) fn repository() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// `cargo` with these arguments, in the repository. The toolchain is the one that runs this chore.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(repository());
    forget_package(&mut command);
    command
}

/// Keeps from a command what cargo told this chore of its own package: build scripts look at it, and would all run anew.
pub(crate) fn forget_package(command: &mut Command) {
    for variable in std::env::vars_os().map(|(name, _)| name) {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|kind| variable.to_string_lossy().starts_with(kind)) {
            command.env_remove(variable);
        }
    }
}

/// Runs it, shows what is run, and fails where it fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    eprintln!("$ {}", text(command));
    let status = command.status().with_context(|| format!("cannot start `{}`", text(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", text(command));
    }
    Ok(())
}

/// The command line, for people.
pub(crate) fn text(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Where a program is, by `PATH` and the folders in which Debian keeps those of the administrator.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administrator = ["/usr/sbin", "/sbin", "/usr/local/sbin"].into_iter().map(PathBuf::from);
    std::env::split_paths(&path).chain(administrator).map(|folder| folder.join(program)).find(|file| file.is_file())
}
