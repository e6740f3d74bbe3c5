//! `distwatch doctor`: what works on this host, what does not, and what to do about it.

mod checks;

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

use super::{Exit, print};
use crate::cli::{DoctorArgs, TextOrJson};
use crate::text::wrap;

/// Where prose ends, so that it is pleasant to read on any terminal.
const WIDTH: usize = 88;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// Something works less well, or is worth knowing.
    Note,
    /// Something does not work.
    Missing,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Missing => "missing",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    /// What was looked at.
    name: &'static str,
    /// How it is.
    state: State,
    /// What is there.
    found: String,
    /// What follows from it; empty where nothing does.
    follows: Vec<String>,
    /// What to do about it; empty where nothing is to be done.
    remedy: String,
}

impl Check {
    fn new(name: &'static str, state: State, found: impl Into<String>) -> Self {
        Self { name, state, found: found.into(), follows: Vec::new(), remedy: String::new() }
    }

    fn follows(mut self, text: impl Into<String>) -> Self {
        self.follows.push(text.into());
        self
    }

    fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = text.into();
        self
    }
}

/// Which way `--capture auto` would take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Verdict {
    /// `ebpf`, `pcap`, or null where nothing can be captured.
    capture: Option<&'static str>,
    /// What it would be attached to.
    attached_to: Vec<String>,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
struct Report {
    verdict: Verdict,
    checks: Vec<Check>,
}

/// Looks at everything and tells of it.
///
/// # Errors
/// Standard output fails.
pub fn run(arguments: &DoctorArgs) -> Result<Exit> {
    let report = checks::report();
    print(|out| match arguments.format {
        TextOrJson::Json => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)
        }
        TextOrJson::Text => write_text(&report, out),
    })?;
    Ok(if report.verdict.capture.is_some() { Exit::Done } else { Exit::NoCapture })
}

fn write_text(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    match report.verdict.capture {
        Some("ebpf") => writeln!(out, "This host can be watched, by eBPF (--capture auto).")?,
        Some(_) => writeln!(out, "This host can be watched, by libpcap (--capture auto), since eBPF cannot be used.")?,
        None => writeln!(out, "This host cannot be watched as it is, or not by this user.")?,
    }
    for line in &report.verdict.attached_to {
        writeln!(out, "  {line}")?;
    }
    writeln!(out)?;
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let margin = 2 + 9 + width + 2;
    for check in &report.checks {
        let mut lines = wrap(&check.found, WIDTH - margin).into_iter();
        let first = lines.next().unwrap_or_default();
        writeln!(out, "  {:9}{:width$}  {first}", check.state.word(), check.name)?;
        let follows = check.follows.iter().flat_map(|text| wrap(text, WIDTH - margin));
        let remedy = match check.remedy.as_str() {
            "" => Vec::new(),
            text => wrap(&format!("what to do: {text}"), WIDTH - margin),
        };
        for line in lines.chain(follows).chain(remedy).filter(|line| !line.is_empty()) {
            writeln!(out, "{:margin$}{line}", "")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_comes_first_and_each_check_says_what_follows_and_what_to_do() {
        let report = Report {
            verdict: Verdict { capture: Some("pcap"), attached_to: vec!["libpcap on any".to_owned()] },
            checks: vec![
                Check::new("kernel", State::Ok, "6.1.0"),
                Check::new("eBPF", State::Missing, "refused").follows("libpcap is used").remedy("run it as root"),
            ],
        };
        let mut out = Vec::new();
        write_text(&report, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "This host can be watched, by libpcap (--capture auto), since eBPF cannot be used.\n  libpcap on any\n\n  \
             ok       kernel  6.1.0\n  missing  eBPF    refused\n                   libpcap is used\n                   \
             what to do: run it as root\n"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["verdict"]["capture"], "pcap");
        assert_eq!(json["checks"][1]["state"], "missing");
    }
}
