//! The real thing: hosts in network namespaces, Erlang nodes, EPMD, and the daemon beside them.
//!
//! A [`Lab`] is a switch with hosts. Every host has a network namespace and a folder of its own in the hierarchy of cgroup
//! v2, so that it can have its own monitor. What a test starts is ended by its process number, and every trace of it
//! removed, when the lab is dropped, also by a panic.

mod back_end;
mod books;
mod daemon;
mod eventually;
pub mod flaps;
mod host;
mod lab;
mod node;
mod picture;
mod pki;
mod terminal;

use std::io::Write;
use std::path::{Path, PathBuf};

pub use back_end::{BackEnd, Monitors};
pub use books::{lost, unaccounted};
pub use daemon::{Daemon, Watch};
pub use eventually::{PATIENCE, eventually, in_time};
pub use host::Host;
pub use lab::Lab;
pub use node::{Node, NodeOptions};
pub use picture::Picture;
pub use pki::{Certificates, TlsOptions};
pub use terminal::Terminal;

/// What the tests against real nodes need, and why there can be none without it.
const NEEDED: [(&str, &str); 7] = [
    ("ip", "no host can be made"),
    ("nsenter", "nothing can be started on a host"),
    ("erl", "no node can be started"),
    ("erlc", "no node can be told what to do"),
    ("epmd", "no node can be registered"),
    ("openssl", "no certificate can be made"),
    ("script", "no remote shell can be opened"),
];

/// Whether this machine can do it; says loudly what it lacks where it cannot.
///
/// # Panics
/// Where standard error is closed.
#[must_use]
pub fn possible(test: &str) -> bool {
    possible_with(test, &[])
}

/// The same for a test that needs these programs besides.
///
/// # Panics
/// Where standard error is closed.
#[must_use]
pub fn possible_with(test: &str, programs: &[&str]) -> bool {
    let mut lacking = lacking();
    let more = programs.iter().filter(|program| which(program).is_none());
    lacking.extend(more.map(|program| format!("{program} is not installed")));
    if lacking.is_empty() {
        return true;
    }
    // Past the test harness, which would keep the words of a test that passes to itself.
    let words = format!("*** SKIPPED {test}: {}\n", lacking.join("; "));
    std::io::stderr().write_all(words.as_bytes()).expect("standard error");
    false
}

fn lacking() -> Vec<String> {
    let mut lacking: Vec<String> = NEEDED
        .iter()
        .filter(|(program, _)| which(program).is_none())
        .map(|(program, so)| format!("{program} is not installed, so {so}"))
        .collect();
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        lacking.push("not root, so no network namespace can be made".into());
    }
    if unified_hierarchy().is_none() {
        lacking.push("cgroup v2 is mounted nowhere, so no host can have its own monitor".into());
    }
    lacking
}

/// Where a program is.
#[must_use]
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].into_iter().map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Where cgroup v2 is mounted.
#[must_use]
pub fn unified_hierarchy() -> Option<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mounts").ok()?;
    table.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (at, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then(|| Path::new(at).to_path_buf())
    })
}
