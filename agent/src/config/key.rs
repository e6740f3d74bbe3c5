//! One key of the file as a row: its name, how its value is written, where it goes, and its help.
//!
//! The checker, the commented example, the JSON Schema and `config show` all read these rows, so that they
//! cannot contradict each other.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};
use toml::de::DeTable;

use super::checker::{Checker, Item};

/// A key whose value ends up in a `T`.
pub(super) struct Key<T: 'static> {
    /// Its name in the file.
    pub(super) name: &'static str,
    /// Checks a value and puts it into its place.
    pub(super) read: fn(&Item<'_>, &mut T, &mut Checker<'_>),
    /// The value that is in force as TOML; `None` where nothing is.
    pub(super) write: fn(&T) -> Option<String>,
    /// The JSON Schema of its value.
    pub(super) schema: fn() -> Json,
    /// What it means, its unit, and what it is good for.
    pub(super) help: &'static str,
    /// A value to show where there is no default that would show the form.
    pub(super) example: Option<&'static str>,
    /// What holds where nothing is set and the default is no value of the form.
    pub(super) unset: Option<&'static str>,
    /// Something to say beside the value in force.
    pub(super) note: Option<fn(&T) -> String>,
}

impl<T> Key<T> {
    /// Gives a value to show instead of the default.
    pub(super) const fn example(mut self, toml: &'static str) -> Self {
        self.example = Some(toml);
        self
    }

    /// Says what holds where nothing is set.
    pub(super) const fn unset(mut self, words: &'static str) -> Self {
        self.unset = Some(words);
        self
    }

    /// Says something beside the value in force.
    pub(super) const fn note(mut self, words: fn(&T) -> String) -> Self {
        self.note = Some(words);
        self
    }
}

/// A row: the name, the [form](super::form::Form) of the value, the field that it goes to, the help.
macro_rules! key {
    ($name:literal, $form:ty, $owner:ident.$($place:ident).+, $help:expr) => {
        $crate::config::key::Key::<$owner> {
            name: $name,
            read: |item, target: &mut $owner, checker| {
                if let Some(value) = <$form as $crate::config::form::Form>::read(item, checker) {
                    target.$($place).+ = value;
                }
            },
            write: |target: &$owner| <$form as $crate::config::form::Form>::write(&target.$($place).+),
            schema: <$form as $crate::config::form::Form>::schema,
            help: $help,
            example: None,
            unset: None,
            note: None,
        }
    };
}
pub(super) use key;

/// Checks a table whose keys are these rows.
pub(super) fn read_table<T>(keys: &[Key<T>], table: &DeTable<'_>, target: &mut T, checker: &mut Checker<'_>) {
    for (name, item) in table {
        match keys.iter().find(|key| key.name == name.get_ref()) {
            Some(key) => checker.within(key.name, |checker| (key.read)(item, target, checker)),
            None => checker.unknown_key(name, keys.iter().map(|key| key.name)),
        }
    }
}

/// Writes what is in force under these keys, one a line.
pub(super) fn show_table<T>(keys: &[Key<T>], target: &T, out: &mut String) {
    for key in keys {
        let _ = match ((key.write)(target), key.unset) {
            (Some(value), _) => writeln!(out, "{} = {value}", key.name),
            (None, Some(words)) => writeln!(out, "# {} is not set: {words}", key.name),
            (None, None) => Ok(()),
        };
        if let Some(note) = key.note {
            let _ = writeln!(out, "# {}", note(target));
        }
    }
}

/// Writes these keys as a person would want to find them in a new file: commented out, each with its help.
pub(super) fn example_table<T: Default>(keys: &[Key<T>], out: &mut String) {
    let default = T::default();
    for (number, key) in keys.iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        comment(key.help, out);
        let value = (key.write)(&default);
        let _ = match (key.example, value) {
            (Some(example), default) => {
                let words = key.unset.map(str::to_owned).or(default).unwrap_or_else(|| "not set".to_owned());
                writeln!(out, "# Default: {words}\n#{} = {example}", key.name)
            }
            (None, Some(default)) => writeln!(out, "#{} = {default}", key.name),
            (None, None) => writeln!(out, "# Default: not set"),
        };
    }
}

/// The JSON Schema of a table with these keys.
pub(super) fn schema_table<T: Default>(keys: &[Key<T>], help: &str) -> Json {
    let default = T::default();
    let mut properties = serde_json::Map::new();
    for key in keys {
        let mut schema = (key.schema)();
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".to_owned(), json!(key.help));
            if let Some(default) = (key.write)(&default).and_then(|text| as_json(&text)) {
                object.insert("default".to_owned(), default);
            }
            if let Some(example) = key.example.and_then(as_json) {
                object.insert("examples".to_owned(), json!([example]));
            }
        }
        properties.insert(key.name.to_owned(), schema);
    }
    json!({ "type": "object", "description": help, "additionalProperties": false, "properties": properties })
}

/// Writes prose as comment lines.
pub(super) fn comment(prose: &str, out: &mut String) {
    for line in crate::text::wrap(prose, 98) {
        let _ = writeln!(out, "# {line}");
    }
}

/// A value of TOML as JSON.
fn as_json(toml: &str) -> Option<Json> {
    let table: toml::Table = format!("value = {toml}").parse().ok()?;
    serde_json::to_value(table.get("value")?).ok()
}
