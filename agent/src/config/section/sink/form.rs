//! The forms of values that only sinks have.

use std::path::PathBuf;

use distwatch_engine::policy::Patterns;
use serde_json::{Value as Json, json};

use crate::config::checker::{Checker, Item};
use crate::config::form::{Form, Globs, Name, Words, string};
use crate::config::mistake::quoted;
use crate::record::EventType;
use crate::sink::settings::{Format, Fsync};

impl Words for Format {
    const WORDS: &'static [(&'static str, Self)] =
        &[("native", Self::Native), ("ocsf", Self::Ocsf), ("ecs", Self::Ecs)];
}

impl Words for Fsync {
    const WORDS: &'static [(&'static str, Self)] =
        &[("never", Self::Never), ("interval", Self::Interval), ("always", Self::Always)];
}

/// What a sink is called: a folder has this name, and a label of a metric this value.
pub(super) struct SinkName;

/// The longest name.
const LONGEST_NAME: usize = 64;

impl Form for SinkName {
    type Value = String;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<String> {
        let advice = "write up to 64 small letters, digits, `-` and `_`, as \"loki-eu\"";
        let text = checker.text(item, advice)?;
        let fits = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-' || it == b'_';
        if text.len() <= LONGEST_NAME && text.bytes().all(fits) {
            return Some(text.to_owned());
        }
        checker.wrong(item.span(), format!("{} is no name for a sink", quoted(text)), advice);
        None
    }

    fn write(value: &String) -> Option<String> {
        Name::write(value)
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[a-z0-9_-]{1,64}$" })
    }
}

/// Patterns of kinds of record, each of which matches some.
pub(super) struct Events;

impl Form for Events {
    type Value = Patterns;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Patterns> {
        let known: Vec<&str> = EventType::ALL.iter().map(|kind| kind.name()).collect();
        matching(item, checker, &known, "kind of record", &known.join(", "))
    }

    fn write(value: &Patterns) -> Option<String> {
        Globs::write(value)
    }

    fn schema() -> Json {
        Globs::schema()
    }
}

/// Patterns of rules, each of which matches some.
pub(super) struct RuleIds;

impl Form for RuleIds {
    type Value = Patterns;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Patterns> {
        let known: Vec<&str> = checker.rules.iter().map(|rule| rule.id).collect();
        matching(item, checker, &known, "rule", "`distwatch rules` lists all of them")
    }

    fn write(value: &Patterns) -> Option<String> {
        Globs::write(value)
    }

    fn schema() -> Json {
        Globs::schema()
    }
}

/// A pattern that matches nothing is a slip of the pen that would silence a sink.
fn matching(
    item: &Item<'_>,
    checker: &mut Checker<'_>,
    known: &[&str],
    what: &str,
    there_are: &str,
) -> Option<Patterns> {
    let patterns = Globs::read(item, checker)?;
    for pattern in &patterns.0 {
        if !known.iter().any(|name| pattern.is_match(name)) {
            let text = pattern.glob().glob();
            let advice = match crate::near::nearest(text, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are: {there_are}"),
            };
            checker.wrong(item.span(), format!("{} matches no {what}", quoted(text)), advice);
        }
    }
    Some(patterns)
}

/// The path of a file; a relative one starts from the directory of the configuration.
pub(super) struct FilePath;

impl Form for FilePath {
    type Value = PathBuf;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<PathBuf> {
        let text = checker.text(item, "write the path of a file in quotes")?;
        Some(checker.directory.join(text))
    }

    fn write(value: &PathBuf) -> Option<String> {
        (!value.as_os_str().is_empty()).then(|| string(&value.to_string_lossy()))
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}
