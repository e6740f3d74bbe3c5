//! The configuration file: TOML in, a checked [`Policy`] out, or every mistake at once.
//!
//! Each key is one row (`config/key.rs`) of one section (`config/section.rs`). The check, the commented example,
//! the JSON Schema and the view of what is in force all come from these rows.

mod checker;
mod form;
mod key;
mod manual;
mod mistake;
mod section;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use distwatch_engine::detect::{self, Rule};
use distwatch_engine::policy::Policy;
use serde_json::{Value as Json, json};
use toml::de::DeTable;

use crate::{http, sink};

pub use mistake::{ConfigErrors, Mistake};

use checker::{Checker, ReadFile};
use mistake::{Mistakes, position};
use section::SECTIONS;

/// The largest file that is read. Real ones have a few kilobytes.
const LARGEST_FILE: u64 = 1 << 20;

/// The largest file that is read on behalf of the configuration; what it holds has its own, smaller limit.
const LARGEST_NAMED_FILE: u64 = 8 << 20;

/// All that can be configured, checked. The default is what holds without any file.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What the operator allows.
    pub policy: Policy,
    /// The file that the words in the policy came from.
    pub words_file: Option<PathBuf>,
    /// Where the daemon's packets come from.
    pub capture: Capture,
    /// What the daemon does beside that.
    pub daemon: Daemon,
    /// Where records go.
    pub sinks: Vec<sink::Settings>,
    /// The daemon's HTTP server.
    pub http: http::Settings,
    /// What its metrics tell.
    pub metrics: http::Metrics,
}

/// Where the daemon's packets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// How packets are captured.
    pub back_end: BackEnd,
    /// eBPF: the cgroup whose sockets are watched; `None` is all of them.
    pub cgroup: Option<PathBuf>,
    /// Interfaces by name or pattern; empty is the whole host.
    pub interfaces: Vec<String>,
    /// eBPF: octets of the ring between the kernel and the daemon.
    pub ring: usize,
    /// libpcap: the kernel's buffer for one interface, in octets.
    pub buffer: usize,
}

/// How packets are captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackEnd {
    /// By eBPF where the kernel takes it, else by libpcap.
    #[default]
    Auto,
    /// By programs in the kernel.
    Ebpf,
    /// By libpcap.
    Pcap,
}

impl Default for Capture {
    /// 24 MiB hold an eighth of a second at the highest rate that two Erlang nodes were seen to reach, and count as the daemon's
    /// own memory once they were filled. The ring holds only what
    /// is watched, and is emptied every few milliseconds.
    fn default() -> Self {
        Self { back_end: BackEnd::Auto, cgroup: None, interfaces: Vec::new(), ring: 8 << 20, buffer: 24 << 20 }
    }
}

/// What the daemon does beside capturing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// The status socket.
    pub socket: PathBuf,
    /// The folder of what is kept over a restart.
    pub state_dir: PathBuf,
    /// The name of this host in records; `None` is the host's own.
    pub host: Option<String>,
    /// Between two `stats` records.
    pub stats_interval: Duration,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/distwatch/distwatch.sock"),
            state_dir: PathBuf::from("/var/lib/distwatch"),
            host: None,
            stats_interval: Duration::from_secs(60),
        }
    }
}

/// A configuration and where it came from.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The file; `None` where the defaults hold.
    pub file: Option<PathBuf>,
    /// What it says.
    pub config: Config,
}

/// Loads a configuration file; without one the defaults hold.
///
/// # Errors
/// The file cannot be read, or anything in it is wrong.
pub fn load(path: Option<&Path>) -> Result<Loaded, ConfigErrors> {
    let Some(path) = path else { return Ok(Loaded::default()) };
    let unreadable = |error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "`distwatch config example` prints a file to begin with",
            io::ErrorKind::FileTooLarge => "it is hardly a policy; name another file",
            _ => "name a file that this user may read",
        };
        ConfigErrors::whole(path, format!("it cannot be read: {error}"), Some(advice.to_owned()))
    };
    let content = read_at_most(path, LARGEST_FILE).map_err(unreadable)?;
    let text = String::from_utf8(content).map_err(|error| {
        let mut errors = ConfigErrors::whole(path, "it is not UTF-8".to_owned(), Some("save it as UTF-8".to_owned()));
        let offset = error.utf8_error().valid_up_to();
        if let Some(mistake) = errors.mistakes.first_mut() {
            mistake.position = Some(position(error.as_bytes(), offset));
        }
        errors
    })?;
    let rules: Vec<_> = detect::rules().collect();
    let config = check(&text, path, &rules, &|path| read_at_most(path, LARGEST_NAMED_FILE))?;
    Ok(Loaded { file: Some(path.to_path_buf()), config })
}

/// Checks the text of a configuration file. `path` is its name in messages and the start of relative paths,
/// `rules` the rules that it may speak of.
///
/// # Errors
/// Anything in it is wrong.
fn check(text: &str, path: &Path, rules: &[&'static Rule], read_file: ReadFile<'_>) -> Result<Config, ConfigErrors> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What a parser makes of the rest is a guess, so nothing is said of it.
        let mut mistakes = Mistakes::default();
        for error in &errors {
            let advice = "the text is not TOML here; see https://toml.io, or `distwatch config example`";
            mistakes.push(error.span().unwrap_or_default(), error.message().to_owned(), Some(advice.to_owned()));
        }
        return mistakes.into_errors(path, text).map_or_else(|| Ok(Config::default()), Err);
    }
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut checker = Checker::new(rules, directory, read_file);
    let mut config = Config::default();
    for (name, item) in document.get_ref() {
        match SECTIONS.iter().find(|section| section.name() == name.get_ref()) {
            Some(section) => checker.within(section.name(), |checker| section.read(item, &mut config, checker)),
            None => checker.unknown_key(name, SECTIONS.iter().map(|section| section.name())),
        }
    }
    checker.mistakes.into_errors(path, text).map_or(Ok(config), Err)
}

/// What is in force, as a file that says the same. Secrets are counted, not shown.
#[must_use]
pub fn show(loaded: &Loaded) -> String {
    let mut out = String::new();
    let _ = match &loaded.file {
        Some(file) => writeln!(out, "# In force: {} over the defaults.", file.display()),
        None => writeln!(out, "# In force: the defaults."),
    };
    for section in SECTIONS {
        section.show(&loaded.config, &mut out);
    }
    out
}

/// The keys of all sinks, as tables of Markdown.
#[must_use]
pub fn sinks_markdown() -> String {
    section::sinks_markdown()
}

/// What is configured of one sink, as it would stand in the file: two that are written alike are alike.
#[must_use]
pub fn sink_text(settings: &sink::Settings) -> String {
    section::sink_text(settings)
}

/// A new file in which every key is explained, and nothing is set.
#[must_use]
pub fn example() -> String {
    example_for(&detect::rules().collect::<Vec<_>>())
}

fn example_for(rules: &[&'static Rule]) -> String {
    let mut out = String::from(
        "# The configuration of distwatch: the policy, and what the daemon needs beside it. Every key is here with what\n\
         # it means. A key that is commented out shows its default, or an example where the line above says what the\n\
         # default is. Remove the `#` to set it.\n",
    );
    for section in SECTIONS {
        section.example(rules, &mut out);
    }
    out
}

/// The manual page of the file, `distwatch.toml(5)`.
#[must_use]
pub fn manual() -> String {
    manual::manual(&example())
}

/// The JSON Schema of the file, for editors that check and complete TOML.
#[must_use]
pub fn schema() -> Json {
    schema_for(&detect::rules().collect::<Vec<_>>())
}

fn schema_for(rules: &[&'static Rule]) -> Json {
    let sections: serde_json::Map<String, Json> =
        SECTIONS.iter().map(|section| (section.name().to_owned(), section.schema(rules))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "distwatch configuration",
        "type": "object",
        "additionalProperties": false,
        "properties": sections,
    })
}

/// Reads a whole file, but never more than a limit.
fn read_at_most(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {} MiB", limit >> 20)));
    }
    Ok(content)
}

#[cfg(test)]
mod tests;
