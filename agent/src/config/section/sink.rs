//! `[[sink]]`: where records go.

mod form;
mod keys;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

use distwatch_engine::detect::Rule;
use serde_json::{Value as Json, json};
use toml::de::DeTable;

use super::Section;
use crate::config::Config;
use crate::config::checker::{Checker, Item};
use crate::config::key::{Key, comment, schema_table, show_table};
use crate::config::mistake::quoted;
use crate::near::nearest;
use crate::record::EventType;
use crate::sink::settings::{Format, Protocol};
use crate::sink::template::Template;
use crate::sink::{self, Settings, http};

use keys::{COMMON, NEEDS, ONE_OF, ROWS, Row};

const HELP: &str = "Where records go. Repeat the section for each place; any number of each type. Records that a place \
                    has not taken wait on disk, and are sent in order.";

/// The section.
pub(super) struct Sinks;

impl Section for Sinks {
    fn name(&self) -> &'static str {
        "sink"
    }

    fn header(&self) -> String {
        "[[sink]]".to_owned()
    }

    fn key_names(&self) -> Vec<&'static str> {
        let mut names: Vec<&str> =
            ROWS.iter().flat_map(|row| row.all().map(|key| key.name).filter(|name| !row.hides(name))).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn read(&self, item: &Item<'_>, config: &mut Config, checker: &mut Checker<'_>) {
        let Some(list) = checker.list(item, ADVICE) else { return };
        config.sinks = list.iter().filter_map(|item| read_sink(item, checker)).collect();
        let mut names = HashSet::new();
        for (item, sink) in list.iter().zip(&config.sinks) {
            if !names.insert(sink.name.as_str()) {
                let at = item.get_ref().get("name").unwrap_or(item).span();
                let what = format!("there is a sink of the name {} already", quoted(&sink.name));
                checker.wrong(at, what, "give each sink its own name: name = \"loki-2\"");
            }
        }
    }

    fn show(&self, config: &Config, out: &mut String) {
        for settings in &config.sinks {
            out.push('\n');
            // Somebody may have put a secret there although there are files for it.
            let mut shown = settings.clone();
            shown.headers.values_mut().for_each(|value| NOT_SHOWN.clone_into(value));
            out.push_str(&text(&shown));
        }
    }

    fn example(&self, _rules: &[&'static Rule], out: &mut String) {
        out.push('\n');
        comment(HELP, out);
        for (number, row) in ROWS.iter().enumerate() {
            let Some(kind) = sink::kind(row.kind) else { continue };
            if number > 0 {
                out.push('\n');
                comment(&format!("{}.", kind.help), out);
            }
            let _ = writeln!(out, "#[[sink]]");
            let common = COMMON.iter().filter(|_| number == 0);
            if number > 0 {
                let _ = writeln!(out, "# Default: it must be given\n#type = \"{}\"", row.kind);
            }
            for key in common.chain(row.own()).filter(|key| !row.hides(key.name)) {
                example_key(key, out);
            }
        }
    }

    fn schema(&self, _rules: &[&'static Rule]) -> Json {
        let kinds: Vec<Json> = ROWS.iter().map(schema_of).collect();
        json!({ "type": "array", "description": HELP, "items": { "oneOf": kinds } })
    }
}

/// What stands in place of a header's value.
const NOT_SHOWN: &str = "(not shown)";

const ADVICE: &str = "begin each sink with [[sink]], in double brackets";

impl Row {
    fn own(&self) -> impl Iterator<Item = &'static Key<Settings>> + use<> {
        self.keys.iter().flat_map(|keys| keys.iter())
    }

    fn all(&self) -> impl Iterator<Item = &'static Key<Settings>> + use<> {
        COMMON.iter().chain(self.own())
    }

    fn hides(&self, name: &str) -> bool {
        self.not_shown.contains(&name)
    }
}

/// What is configured of one sink, as it would stand in the file.
pub(in crate::config) fn text(settings: &Settings) -> String {
    let mut out = "[[sink]]\n".to_owned();
    show_table(COMMON, settings, &mut out);
    let row = ROWS.iter().find(|row| row.kind == settings.kind);
    for keys in row.into_iter().flat_map(|row| row.keys) {
        show_table(keys, settings, &mut out);
    }
    out
}

/// All keys by type, as tables of Markdown.
pub(in crate::config) fn markdown() -> String {
    let mut out = String::from("### Every type\n");
    table_of(COMMON.iter(), &mut out);
    for row in ROWS.iter().filter(|row| row.own().next().is_some()) {
        let _ = write!(out, "\n### `{}`\n", row.kind);
        table_of(row.own(), &mut out);
    }
    out
}

fn table_of(keys: impl Iterator<Item = &'static Key<Settings>>, out: &mut String) {
    out.push_str("\n| key | default | meaning |\n|---|---|---|\n");
    for key in keys {
        let default = (key.write)(&Settings::default()).map(|value| format!("`{value}`"));
        let default = key.unset.map(str::to_owned).or(default).unwrap_or_else(|| "not set".to_owned());
        let example = key.example.map(|example| format!(" Example: `{}`.", example.replace('|', "\\|")));
        let _ = writeln!(out, "| `{}` | {default} | {}{} |", key.name, key.help, example.unwrap_or_default());
    }
}

fn read_sink(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Settings> {
    let table = checker.table(item, ADVICE)?;
    let row = row_of(item, table, checker)?;
    let mut settings = Settings { name: row.kind.to_owned(), ..Settings::default() };
    for (name, item) in table {
        match row.all().find(|key| key.name == name.get_ref()) {
            Some(key) => checker.within(key.name, |checker| (key.read)(item, &mut settings, checker)),
            None => checker.unknown_key(name, row.all().map(|key| key.name)),
        }
    }
    check(item, table, row, &settings, checker);
    Some(settings)
}

/// The row of the sink's type.
fn row_of(item: &Item<'_>, table: &DeTable<'_>, checker: &mut Checker<'_>) -> Option<&'static Row> {
    let kinds = || ROWS.iter().map(|row| row.kind);
    let advice = format!("write one of {}", kinds().collect::<Vec<_>>().join(", "));
    let Some(kind) = table.get("type") else {
        checker.wrong(item.span(), "a sink has no type", format!("say where records go: {advice}"));
        return None;
    };
    checker.within("type", |checker| {
        let name = checker.text(kind, &advice)?;
        let row = ROWS.iter().find(|row| row.kind == name);
        if row.is_none() {
            let near = nearest(name, kinds()).map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
            checker.wrong(kind.span(), format!("there is no sink of the type {}", quoted(name)), near + &advice);
        }
        row
    })
}

/// What keys say together.
fn check(item: &Item<'_>, table: &DeTable<'_>, row: &Row, settings: &Settings, checker: &mut Checker<'_>) {
    for one_of in row.required {
        let given: Vec<&str> = one_of.iter().copied().filter(|name| table.contains_key(*name)).collect();
        if given.is_empty() {
            let what = format!("a sink of the type {} needs `{}`", row.kind, one_of.join("` or `"));
            let example = row.all().find(|key| Some(&key.name) == one_of.first()).and_then(|key| key.example);
            let advice = match example {
                Some(example) => format!("{} = {example}", one_of.first().unwrap_or(&"")),
                None => "give it".to_owned(),
            };
            checker.wrong(item.span(), what, advice);
        }
    }
    let place = |name: &str| table.iter().find(|(key, _)| key.get_ref() == name).map(|(key, _)| key.span());
    for one_of in ONE_OF {
        let given: Vec<&str> = one_of.iter().copied().filter(|name| table.contains_key(*name)).collect();
        if let [first, second, ..] = given.as_slice()
            && let Some(span) = place(second)
        {
            let what = format!("`{first}` and `{second}` contradict each other");
            checker.wrong(span, what, "keep one of them");
        }
    }
    for (name, others) in NEEDS {
        if let (Some(span), false) = (place(name), others.iter().any(|other| table.contains_key(*other))) {
            checker.wrong(
                span,
                format!("`{name}` means nothing alone"),
                format!("give `{}` too", others.join("` or `")),
            );
        }
    }
    if let (Some(path), true) = (table.get("path"), settings.file.path.parent() == Some(Path::new("/"))) {
        let what = "the file is in the root of the file system, all of which the daemon could write then";
        let advice = "give it a folder of its own, as \"/var/log/distwatch/records.ndjson\"";
        checker.within("path", |checker| checker.wrong(path.span(), what, advice));
    }
    let has_path = |url: &String| http::url(url).is_ok_and(|url| url.path() != "/");
    if let (Protocol::Grpc, Some(url), true) = (settings.protocol, table.get("url"), settings.url.iter().any(has_path))
    {
        let what = "an address of gRPC has no path";
        checker.within("url", |checker| checker.wrong(url.span(), what, "leave out what stands behind the port"));
    }
    let headers = ["headers", "header_files", "header_env"].map(|name| (name, table.get(name)));
    let mut seen: Vec<(String, &str)> = if table.contains_key("user") {
        vec![("authorization".to_owned(), "user")]
    } else if table.contains_key("token_file") || table.contains_key("token_env") {
        vec![("authorization".to_owned(), "token_file")]
    } else {
        Vec::new()
    };
    for (key, table) in headers.into_iter().filter_map(|(key, item)| Some((key, item?.get_ref().as_table()?))) {
        for name in table.keys() {
            let lower = name.get_ref().to_ascii_lowercase();
            if let Some((_, other)) = seen.iter().find(|(seen, _)| *seen == lower) {
                let what = format!("{} is given by `{other}` already", quoted(name.get_ref()));
                checker.within(key, |checker| checker.wrong(name.span(), what, "keep one of them"));
            } else {
                seen.push((lower, key));
            }
        }
    }
    let is_json = settings.webhook.content_type.as_deref().is_none_or(|it| it.contains("json"));
    if let (Some(body), Some(text), true) = (table.get("body"), &settings.webhook.body, is_json)
        && let Err(what) = Template::parse(text).and_then(|template| template.check_json())
    {
        let advice = "write JSON, or say what it is: content_type = \"text/plain\"";
        checker.within("body", |checker| checker.wrong(body.span(), what, advice));
    }
    let only_alerts = sink::kind(row.kind).is_some_and(|kind| kind.only_alerts) || settings.format == Format::Ocsf;
    let others = EventType::ALL.iter().find(|kind| **kind != EventType::Alert && settings.events.matches(kind.name()));
    if let (true, Some(other), Some(events)) = (only_alerts, others, table.get("events")) {
        let what = format!("records of the kind {} cannot be told here", other.name());
        checker.within("events", |checker| checker.wrong(events.span(), what, "write events = [\"alert\"]"));
    }
}

/// A key as it stands in a new file. Each is an example, for none of them means anything outside of its sink.
fn example_key(key: &Key<Settings>, out: &mut String) {
    comment(key.help, out);
    let default = (key.write)(&Settings::default());
    let words = key.unset.map(str::to_owned).or_else(|| default.clone()).unwrap_or_else(|| "not set".to_owned());
    let example = key.example.map(str::to_owned).or(default).unwrap_or_default();
    let _ = writeln!(out, "# Default: {words}\n#{} = {example}", key.name);
}

fn schema_of(row: &Row) -> Json {
    let mut schema = schema_table(COMMON, sink::kind(row.kind).map_or("", |kind| kind.help));
    if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        for keys in row.keys {
            if let Some(Json::Object(own)) = schema_table(keys, "").get_mut("properties").map(Json::take) {
                properties.extend(own);
            }
        }
        properties.insert("type".to_owned(), json!({ "const": row.kind }));
    }
    if let Some(object) = schema.as_object_mut() {
        let alone = row.required.iter().filter(|one_of| one_of.len() == 1).flat_map(|one_of| one_of.iter());
        let required: Vec<&str> = std::iter::once("type").chain(alone.copied()).collect();
        object.insert("required".to_owned(), json!(required));
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_sink_has_its_row_of_keys_and_every_row_its_kind() {
        let mut kinds: Vec<&str> = sink::KINDS.iter().map(|kind| kind.name).collect();
        let mut rows: Vec<&str> = ROWS.iter().map(|row| row.kind).collect();
        kinds.sort_unstable();
        rows.sort_unstable();
        assert_eq!(kinds, rows);
    }
}
