//! What this process may do, and giving up all of it that is not needed any more.
//!
//! [`Sandbox::apply`] is called once everything is open and before any thread is started: what it takes away, it takes from
//! the calling thread and from those that come of it. Four layers, each of which holds alone:
//!
//! 1. capabilities: all but [`Needs::keep`], from every set;
//! 2. `no_new_privs`: no program that is executed gets more than this process has;
//! 3. Landlock: files outside of what is named, and TCP ports that are not named, cannot be opened;
//! 4. seccomp: no program can be executed, no process started or traced, no BPF program loaded, nothing mounted.
//!
//! Landlock has a consequence that nobody expects: a process within it may not look into one outside, whatever its
//! capabilities. `/proc/PID/fd`, `exe` and `ns` of others are closed then, so whose a socket is must be found out before; see
//! [`crate::host`].

mod capabilities;
mod landlock;
mod seccomp;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

pub(crate) use self::capabilities::kernel_version;
pub use self::capabilities::{BackEnd, Capability, Missing, Needs, held, missing_for};
pub use self::landlock::abi as landlock_abi;
pub use self::seccomp::is_available as seccomp_is_available;

/// The folder of a file, and that of the file that it leads to where it is a link. One that is replaced is another file, so it is
/// folders that the sandbox leaves open.
#[must_use]
pub fn folders(path: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut folders = vec![parent(path)];
    // Where there is no link, the same folder once more does no harm, and is left out.
    let behind = std::fs::read_link(path).ok().and_then(|_| std::fs::canonicalize(path).ok());
    folders.extend(behind.map(|file| parent(&file)));
    folders
}

/// What is still needed once everything is open.
#[derive(Clone, Debug, Default)]
pub struct Sandbox {
    /// No layer at all (`--no-sandbox`); capabilities are kept.
    pub off: bool,
    /// A layer that cannot be applied in full is an error (`--sandbox-strict`).
    pub strict: bool,
    /// What capabilities are needed for.
    pub needs: Needs,
    /// Files and folders that are read: configuration, policy, certificates.
    pub read: Vec<PathBuf>,
    /// Folders and files that are written: state, runtime, logs. A file must exist; one that is replaced takes its folder.
    pub write: Vec<PathBuf>,
    /// TCP ports that are connected to: those of the sinks.
    pub connect: Vec<u16>,
    /// TCP ports that are bound: the HTTP server's.
    pub bind: Vec<u16>,
}

/// How far a layer is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase", tag = "state", content = "reason")]
pub enum Layer {
    /// All of it.
    Full,
    /// A part of it; the reason says what is missing.
    Partial(String),
    /// None of it.
    Off(String),
}

impl Layer {
    fn off(reason: impl ToString) -> Self {
        Self::Off(reason.to_string())
    }

    /// For a person: `full`, `partial: …`, `off: …`.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Full => "full".to_owned(),
            Self::Partial(reason) => format!("partial: {reason}"),
            Self::Off(reason) => format!("off: {reason}"),
        }
    }
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Applied {
    /// The capabilities that are left, by name.
    pub capabilities: Vec<String>,
    /// All others were given up.
    pub dropped: Layer,
    /// No program that is executed gets more rights.
    pub no_new_privs: bool,
    /// Files and TCP ports.
    pub landlock: Layer,
    /// System calls.
    pub seccomp: Layer,
}

/// A layer could not be applied although [`Sandbox::strict`] asks for all of them.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the sandbox is not complete, and --sandbox-strict asks for all of it: {0}")]
pub struct Incomplete(String);

impl Sandbox {
    /// Gives up what is not needed, for this thread and those that it starts. There is no way back.
    ///
    /// # Errors
    /// A layer is not in force in full, and [`Sandbox::strict`] is set. What was applied stays.
    pub fn apply(&self) -> Result<Applied, Incomplete> {
        if self.off {
            let off = Layer::off("switched off by --no-sandbox");
            let no_new_privs = rustix::thread::no_new_privs().unwrap_or(false);
            let capabilities = capabilities::names(held());
            return Ok(Applied {
                capabilities,
                dropped: off.clone(),
                no_new_privs,
                landlock: off.clone(),
                seccomp: off,
            });
        }
        let dropped = capabilities::drop_all_but(&self.needs.keep());
        let no_new_privs = rustix::thread::set_no_new_privs(true).is_ok();
        let landlock = landlock::restrict(self);
        let seccomp = seccomp::restrict(&self.needs);
        let applied = Applied { capabilities: capabilities::names(held()), dropped, no_new_privs, landlock, seccomp };
        match applied.gaps() {
            gaps if self.strict && !gaps.is_empty() => Err(Incomplete(gaps.join("; "))),
            _ => Ok(applied),
        }
    }
}

impl Applied {
    /// What is not in force in full, one sentence each.
    #[must_use]
    pub fn gaps(&self) -> Vec<String> {
        let layers = [("capabilities", &self.dropped), ("Landlock", &self.landlock), ("seccomp", &self.seccomp)];
        let mut gaps: Vec<String> = layers
            .iter()
            .filter(|(_, layer)| **layer != Layer::Full)
            .map(|(name, layer)| format!("{name} {}", layer.words()))
            .collect();
        if !self.no_new_privs {
            gaps.push("no_new_privs off: the kernel refuses it".to_owned());
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_that_is_off_changes_nothing_and_says_so() {
        let before = held();
        let applied = Sandbox { off: true, strict: true, ..Sandbox::default() }.apply().unwrap();
        assert_eq!(held(), before);
        assert_eq!(applied.seccomp, Layer::Off("switched off by --no-sandbox".to_owned()));
        let json = serde_json::to_value(&applied).unwrap();
        assert_eq!(json["landlock"]["state"], "off");
        assert_eq!(json["landlock"]["reason"], "switched off by --no-sandbox");
    }

    #[test]
    fn what_is_missing_is_told_in_sentences() {
        let applied = Applied {
            capabilities: Vec::new(),
            dropped: Layer::Full,
            no_new_privs: true,
            landlock: Layer::Partial("TCP ports are open".to_owned()),
            seccomp: Layer::Full,
        };
        assert_eq!(applied.gaps(), ["Landlock partial: TCP ports are open"]);
    }

    #[test]
    fn a_file_behind_a_link_is_reached_by_both_folders() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().canonicalize().unwrap();
        let [live, archive] = ["live", "archive"].map(|name| at.join(name));
        for folder in [&live, &archive] {
            std::fs::create_dir(folder).unwrap();
        }
        std::fs::write(archive.join("key1.pem"), "").unwrap();
        std::os::unix::fs::symlink("../archive/key1.pem", live.join("key.pem")).unwrap();
        assert_eq!(folders(&live.join("key.pem")), [live.clone(), archive.clone()]);
        assert_eq!(folders(&archive.join("key1.pem")), [archive]);
        assert_eq!(folders(Path::new("key.pem")), [Path::new(".")]);
    }
}
