//! The pass over a parsed file: it knows the keys, goes on after a mistake, and collects them all.

use std::io;
use std::ops::Range;
use std::path::Path;

use distwatch_engine::detect::Rule;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::{Mistakes, quoted};
use super::section::SECTIONS;
use crate::near::nearest;

/// A value of the file and where it stands.
pub(super) type Item<'i> = Spanned<DeValue<'i>>;

/// Reads a file that the configuration names.
pub(super) type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// What a check needs beside the text, and what it found.
pub(super) struct Checker<'a> {
    /// The rules that the file may speak of.
    pub(super) rules: &'a [&'static Rule],
    /// The directory that relative paths in the file start from.
    pub(super) directory: &'a Path,
    /// How to read a file that the configuration names.
    pub(super) read_file: ReadFile<'a>,
    /// What is wrong so far.
    pub(super) mistakes: Mistakes,
    /// The keys that lead to the value at hand.
    path: Vec<String>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(rules: &'a [&'static Rule], directory: &'a Path, read_file: ReadFile<'a>) -> Self {
        Self { rules, directory, read_file, mistakes: Mistakes::default(), path: Vec::new() }
    }

    /// Does something with the value under a key, so that what is said of it names the whole path.
    pub(super) fn within<R>(&mut self, key: &str, check: impl FnOnce(&mut Self) -> R) -> R {
        self.path.push(key.to_owned());
        let result = check(self);
        self.path.pop();
        result
    }

    /// Notes that something is wrong with the value at hand.
    pub(super) fn wrong(&mut self, span: Range<usize>, what: impl AsRef<str>, advice: impl Into<String>) {
        let path = self.path.join(".");
        let what = if path.is_empty() { what.as_ref().to_owned() } else { format!("{path}: {}", what.as_ref()) };
        self.mistakes.push(span, what, Some(advice.into()));
    }

    /// Notes that a value has the wrong type.
    pub(super) fn unexpected(&mut self, item: &Item<'_>, expected: &str, advice: impl Into<String>) {
        self.wrong(item.span(), format!("expected {expected}, found {}", kind(item.get_ref())), advice);
    }

    /// Notes a key that does not exist. `known` are those that do.
    pub(super) fn unknown_key<'k>(&mut self, key: &Spanned<impl AsRef<str>>, known: impl Iterator<Item = &'k str>) {
        if self.mistakes.is_full() {
            return self.mistakes.push(key.span(), String::new(), None);
        }
        let name = key.get_ref().as_ref();
        let known: Vec<&str> = known.collect();
        let place = match self.path.as_slice() {
            [] => "the file".to_owned(),
            path => format!("[{}]", path.join(".")),
        };
        let advice = if let Some(near) = nearest(name, known.iter().copied()) {
            format!("did you mean `{near}`?")
        } else if let Some(section) = SECTIONS.iter().find(|section| section.key_names().contains(&name)) {
            format!("it belongs in {}", section.header())
        } else {
            format!("{place} may have: {}", known.join(", "))
        };
        self.mistakes.push(key.span(), format!("{} is not a key of {place}", quoted(name)), Some(advice));
    }

    /// The value as a table; `None` after saying that it is none.
    pub(super) fn table<'t, 'i>(&mut self, item: &'t Item<'i>, advice: &str) -> Option<&'t DeTable<'i>> {
        if let DeValue::Table(table) = item.get_ref() {
            return Some(table);
        }
        self.unexpected(item, "a table", advice);
        None
    }

    /// The elements of a list; `None` after saying that it is none.
    pub(super) fn list<'t, 'i>(&mut self, item: &'t Item<'i>, advice: &str) -> Option<&'t [Item<'i>]> {
        if let DeValue::Array(list) = item.get_ref() {
            return Some(list);
        }
        self.unexpected(item, "a list", advice);
        None
    }

    /// The value as text; `None` after saying that it is none, or that there is nothing in it.
    pub(super) fn text<'t>(&mut self, item: &'t Item<'_>, advice: &str) -> Option<&'t str> {
        let DeValue::String(text) = item.get_ref() else {
            self.unexpected(item, "a string", advice);
            return None;
        };
        if text.trim().is_empty() {
            self.wrong(item.span(), "the string is empty", advice);
            return None;
        }
        Some(text)
    }

    /// The value as a whole number between the bounds; `None` after saying that it is none.
    pub(super) fn whole(&mut self, item: &Item<'_>, least: u64, most: u64) -> Option<u64> {
        let advice = match most {
            u64::MAX => format!("write a whole number, {least} or more"),
            _ => format!("write a whole number from {least} to {most}"),
        };
        let DeValue::Integer(number) = item.get_ref() else {
            self.unexpected(item, "a whole number", advice);
            return None;
        };
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(value) if (least..=most).contains(&value) => Some(value),
            _ => {
                self.wrong(item.span(), format!("{} is out of range", quoted(&number.to_string())), advice);
                None
            }
        }
    }
}

/// What a value is, in words.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
