//! `tidy`: what the compiler does not check. Every rule is a row in a table, with its reason.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::run::repository;

/// The README's commands, a line each; CI runs what they run.
pub(crate) const README_COMMANDS: [&str; 2] = [
    ".ci/compiler && cargo run --release -- analyze -c tests/captures/policy.toml tests/captures/apps-otp25.pcap",
    ".ci/compiler && cargo xtask test --setup",
];

/// Files that a user or a newcomer looks for.
const PRESENT: [&str; 8] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "deny.toml",
    "docs/contract.md",
    "docs/protocol.md",
];

/// A longer file is two files.
const LONGEST_FILE: usize = 800;

/// Words that stand only in some files.
struct Fence {
    /// What is looked for, outside of comments and tests' own modules.
    words: &'static [&'static str],
    /// Files that the fence is around, by the start of their path; all Rust files where empty.
    within: &'static str,
    /// Files that may have it, by the start of their path.
    allowed: &'static [&'static str],
    reason: &'static str,
}

const FENCES: &[Fence] = &[
    Fence {
        words: &["etherparse"],
        within: "",
        allowed: &["agent/engine/src/net"],
        reason: "one external crate, one room: link layers and IP are read in net",
    },
    Fence {
        words: &["tls_parser", "x509_parser"],
        within: "",
        allowed: &["agent/engine/src/tls"],
        reason: "one external crate, one room: TLS is read in tls",
    },
    Fence {
        words: &["pcap::Capture", "pcap::Device", "pcap::{"],
        within: "agent/",
        allowed: &["agent/src/source/pcap_live"],
        reason: "one external crate, one room: libpcap is spoken to in source/pcap_live",
    },
    Fence {
        words: &["aya::"],
        within: "",
        allowed: &["agent/src/source/ebpf"],
        reason: "one external crate, one room: the kernel's programs are loaded in source/ebpf",
    },
    Fence {
        words: &["aya_ebpf"],
        within: "",
        allowed: &["ebpf/src"],
        reason: "one external crate, one room: the kernel's programs are in ebpf",
    },
    Fence {
        words: &["landlock::{", "seccompiler"],
        within: "agent/",
        allowed: &["agent/src/privilege"],
        reason: "one external crate, one room: what this process may do is decided in privilege",
    },
    Fence {
        words: &["hyper::"],
        within: "agent/src/",
        allowed: &["agent/src/http"],
        reason: "one external crate, one room: requests are answered in http",
    },
    Fence {
        words: &["reqwest"],
        within: "agent/src/",
        allowed: &["agent/src/sink/http"],
        reason: "one external crate, one room: requests are made in sink/http",
    },
    Fence {
        words: &["clap"],
        within: "",
        allowed: &["agent/src/cli", "xtask/"],
        reason: "the command line is read in cli, and everything else takes values",
    },
    Fence {
        words: &[
            "std::fs",
            "std::net::Tcp",
            "std::net::Udp",
            "std::thread",
            "std::process",
            "std::env",
            "Instant::now",
            "SystemTime",
            "tokio",
            "anyhow",
            "println!",
        ],
        within: "agent/engine/src/",
        allowed: &[],
        reason: "the engine is sans-IO: bytes and time in, events out",
    },
    Fence {
        words: &["std::collections::HashMap", "std::collections::HashSet"],
        within: "agent/engine/src/",
        allowed: &[],
        reason: "the order of a std map differs from run to run: same capture, same output",
    },
];

/// What must stand in no file at all: the repository speaks of the product alone.
const NOWHERE: &[(&str, &str)] = &[
    (concat!("..", "/shared"), "a path outside of the repository"),
    (concat!("/", "work/"), "a path of one machine"),
    (concat!("/", "farm/"), "a path of one machine"),
    (concat!("/", "root/"), "a path of one machine"),
    (concat!("/home", "/"), "a path of one machine"),
];

pub(crate) fn run() -> anyhow::Result<()> {
    let repository = repository();
    let mut faults = Vec::new();
    let mut files = Vec::new();
    collect(&repository, Path::new(""), &mut files)?;
    for path in &files {
        let content = fs::read(repository.join(path)).with_context(|| format!("cannot read {path}"))?;
        // Captures and corpora are bytes; the rest is text.
        if let Ok(text) = String::from_utf8(content) {
            check_text(path, &text, &mut faults);
            if path.ends_with(".rs") {
                check_rust(path, &text, &mut faults);
            }
        }
    }
    for path in PRESENT {
        if !files.iter().any(|file| file == path) {
            faults.push(format!("{path}: is missing"));
        }
    }
    let readme = fs::read_to_string(repository.join("README.md")).unwrap_or_default();
    for command in README_COMMANDS {
        if !readme.lines().any(|line| line == command) {
            faults.push(format!("README.md: the line `{command}` is missing"));
        }
    }
    if !faults.is_empty() {
        faults.sort();
        bail!("{} untidy places:\n  {}", faults.len(), faults.join("\n  "));
    }
    Ok(())
}

/// Every file below, by its path with forward slashes; what is built or fetched is left out.
fn collect(repository: &Path, folder: &Path, files: &mut Vec<String>) -> anyhow::Result<()> {
    const LEFT_OUT: [&str; 6] = ["target", ".git", "artifacts", "bench-data", "coverage", "node_modules"];
    let mut entries: Vec<PathBuf> = fs::read_dir(repository.join(folder))?
        .map(|entry| entry.map(|entry| folder.join(entry.file_name())))
        .collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if LEFT_OUT.contains(&name.as_ref()) {
            continue;
        }
        if repository.join(&path).is_dir() {
            collect(repository, &path, files)?;
        } else {
            files.push(path.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(())
}

fn check_text(path: &str, text: &str, faults: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate() {
        for (words, what) in NOWHERE {
            if line.contains(words) {
                faults.push(format!("{path}:{}: names {what} ({words})", number + 1));
            }
        }
    }
}

fn check_rust(path: &str, text: &str, faults: &mut Vec<String>) {
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!"));
    if !first.is_some_and(|line| line.starts_with("//! ")) {
        faults.push(format!("{path}:1: does not begin with `//!` and a sentence that says what it is"));
    }
    let lines = text.lines().count();
    if lines > LONGEST_FILE {
        faults.push(format!("{path}: has {lines} lines; split it by name below {LONGEST_FILE}"));
    }
    for fence in FENCES.iter().filter(|fence| is_around(fence, path)) {
        for (number, line) in product_lines(text) {
            if let Some(word) = fence.words.iter().find(|word| has_word(line, word)) {
                faults.push(format!("{path}:{number}: uses {word}; {}", fence.reason));
            }
        }
    }
}

fn is_around(fence: &Fence, path: &str) -> bool {
    path.starts_with(fence.within)
        && !is_test_file(path)
        && !path.starts_with("xtask/src/tidy")
        && !fence.allowed.iter().any(|start| path.starts_with(start))
}

/// Modules of tests in files of their own, and what only tests use.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.ends_with("/captured.rs")
}

/// The lines with code of the product: no comments, and nothing from the tests' module on (it stands last).
fn product_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line))
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]" && !line.starts_with("mod tests"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The word, and not just a part of a longer one at its start.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(place, _)| {
        let before = line.get(..place).and_then(|before| before.chars().next_back());
        !before.is_some_and(|character| character.is_alphanumeric() || character == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        check_text(path, text, &mut faults);
        check_rust(path, text, &mut faults);
        faults
    }

    #[test]
    fn a_crate_outside_of_its_room_is_found_and_inside_of_it_is_not() {
        let text = "//! Reads.\nuse etherparse::SlicedPacket;\n";
        assert_eq!(faults("agent/engine/src/net/ip.rs", text), [""; 0]);
        assert_eq!(faults("agent/engine/src/flow.rs", text).len(), 1);
    }

    #[test]
    fn the_engine_reads_no_clock_but_its_tests_and_comments_may_speak_of_it() {
        let clock = "//! Time.\nlet now = Instant::now();\n";
        assert_eq!(faults("agent/engine/src/time.rs", clock).len(), 1);
        assert_eq!(faults("agent/src/pipeline.rs", clock), [""; 0]);
        let spoken = "//! Time.\n// never Instant::now\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert_eq!(faults("agent/engine/src/time.rs", spoken), [""; 0]);
    }

    #[test]
    fn a_file_says_what_it_is_and_stays_short() {
        assert_eq!(faults("a.rs", "fn main() {}\n").len(), 1);
        assert_eq!(faults("a.rs", "#![no_main]\n//! Fuzzes.\n"), [""; 0]);
        let long = format!("//! Long.\n{}", "\n".repeat(LONGEST_FILE));
        assert_eq!(faults("a.rs", &long).len(), 1);
    }

    #[test]
    fn paths_of_one_machine_are_found_in_any_text() {
        let mut found = Vec::new();
        check_text("docs/a.md", concat!("see ..", "/shared/x\n"), &mut found);
        assert_eq!(found.len(), 1);
    }
}
