//! `[rules.<id>]`: what is said of single rules.

use std::fmt::Write as _;

use distwatch_engine::detect::{Rule, RuleOption};
use distwatch_engine::model::Severity;
use distwatch_engine::policy::{Allow, RuleSettings};
use serde_json::{Value as Json, json};
use toml::de::DeTable;

use super::Section;
use crate::config::Config;
use crate::config::checker::{Checker, Item};
use crate::config::form::{Form, Globs, List, Maybe, Network, Switch, Word};
use crate::config::key::{Key, comment, example_table, key, read_table, schema_table, show_table};
use crate::config::mistake::quoted;
use crate::near::nearest;

const HELP: &str = "What is said of a single rule, by its id; `distwatch rules` lists them. What is not said keeps the \
                    rule's own default.";

/// The keys that every rule has; its own numeric options stand beside them.
const KEYS: &[Key<RuleSettings>] = &[
    key!("enabled", Maybe<Switch>, RuleSettings.enabled, "Switches the rule on or off.")
        .example("true")
        .unset("the rule's own"),
    key!(
        "severity",
        Maybe<Word<Severity>>,
        RuleSettings.severity,
        "Replaces the rule's severity: \"info\", \"low\", \"medium\", \"high\" or \"critical\"."
    )
    .example("\"low\"")
    .unset("the rule's own"),
    key!(
        "allow",
        List<Exception>,
        RuleSettings.allow,
        "Where the rule is silent. Within one exception, every part that is given must match: nodes (globs, either \
         end), from (addresses or networks that it comes from), interfaces (globs)."
    )
    .example(r#"[{ nodes = ["rabbitmqcli-*"], from = ["10.77.0.0/24"] }]"#),
];

const EXCEPTION_KEYS: &[Key<Allow>] = &[
    key!("nodes", Globs, Allow.nodes, "Node names of either end."),
    key!("from", List<Network>, Allow.from, "Addresses or networks that it comes from."),
    key!("interfaces", Globs, Allow.interfaces, "Interfaces."),
];

/// The rule that the example speaks of, where the catalogue has it.
const SHOWN: &str = "hidden-node";

/// An exception, as an inline table.
struct Exception;

impl Form for Exception {
    type Value = Allow;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Allow> {
        let advice = "write an exception as { nodes = [\"name-*\"], from = [\"10.77.0.0/24\"] }";
        let table = checker.table(item, advice)?;
        let mut allow = Allow::default();
        read_table(EXCEPTION_KEYS, table, &mut allow, checker);
        if table.is_empty() {
            let advice = "say which nodes, from or interfaces it is for; `enabled = false` silences the whole rule";
            checker.wrong(item.span(), "the exception is empty, so it would allow everything", advice);
        }
        // An empty list would be no condition at all, and so the opposite of what it looks like.
        for (name, part) in table {
            if part.get_ref().as_array().is_some_and(|list| list.is_empty()) {
                let what = format!("{} is empty, so it would allow everything", quoted(name.get_ref()));
                checker.wrong(part.span(), what, "name something, or leave the part out");
            }
        }
        Some(allow)
    }

    fn write(value: &Allow) -> Option<String> {
        let parts: Vec<String> = EXCEPTION_KEYS
            .iter()
            .filter_map(|key| {
                (key.write)(value).filter(|list| list != "[]").map(|list| format!("{} = {list}", key.name))
            })
            .collect();
        Some(format!("{{ {} }}", parts.join(", ")))
    }

    fn schema() -> Json {
        let mut schema = schema_table(EXCEPTION_KEYS, "An exception: every part that is given must match.");
        if let Some(object) = schema.as_object_mut() {
            object.insert("minProperties".to_owned(), json!(1));
        }
        schema
    }
}

/// The section.
pub(super) struct Rules;

impl Section for Rules {
    fn name(&self) -> &'static str {
        "rules"
    }

    fn header(&self) -> String {
        "[rules.<id>]".to_owned()
    }

    fn key_names(&self) -> Vec<&'static str> {
        KEYS.iter().map(|key| key.name).collect()
    }

    fn read(&self, item: &Item<'_>, config: &mut Config, checker: &mut Checker<'_>) {
        let advice = "begin the settings of each rule with [rules.<id>]";
        let Some(table) = checker.table(item, advice) else { return };
        for (id, item) in table {
            let Some(rule) = checker.rules.iter().find(|rule| rule.id == id.get_ref()) else {
                unknown_rule(id.get_ref(), id.span(), checker);
                continue;
            };
            let settings = checker.within(rule.id, |checker| {
                checker.table(item, advice).map(|table| read_settings(rule, table, checker))
            });
            config.policy.rules.extend(settings.map(|settings| (rule.id.to_owned(), settings)));
        }
    }

    fn show(&self, config: &Config, out: &mut String) {
        for (id, settings) in &config.policy.rules {
            let _ = writeln!(out, "\n[rules.{id}]");
            show_table(KEYS, settings, out);
            for (name, value) in &settings.options {
                let _ = writeln!(out, "{name} = {value}");
            }
        }
    }

    fn example(&self, rules: &[&'static Rule], out: &mut String) {
        out.push('\n');
        comment(HELP, out);
        let shown = rules.iter().find(|rule| rule.id == SHOWN).or(rules.first());
        for rule in rules {
            let is_shown = shown.is_some_and(|shown| shown.id == rule.id);
            if !is_shown && rule.options.is_empty() {
                continue;
            }
            let _ = writeln!(out, "\n#[rules.{}]", rule.id);
            if is_shown {
                example_table(KEYS, out);
            }
            for (number, option) in rule.options.iter().enumerate() {
                if is_shown || number > 0 {
                    out.push('\n');
                }
                comment(option.help, out);
                let _ = writeln!(out, "#{} = {}", option.name, option.default);
            }
        }
    }

    fn schema(&self, rules: &[&'static Rule]) -> Json {
        let properties: serde_json::Map<String, Json> =
            rules.iter().map(|rule| (rule.id.to_owned(), rule_schema(rule))).collect();
        json!({ "type": "object", "description": HELP, "additionalProperties": false, "properties": properties })
    }
}

fn rule_schema(rule: &Rule) -> Json {
    let mut schema = schema_table(KEYS, rule.raised_when);
    if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        for RuleOption { name, default, help } in rule.options {
            let option = json!({ "type": "integer", "minimum": 0, "default": default, "description": help });
            properties.insert((*name).to_owned(), option);
        }
    }
    schema
}

fn read_settings(rule: &Rule, table: &DeTable<'_>, checker: &mut Checker<'_>) -> RuleSettings {
    let mut settings = RuleSettings::default();
    for (name, item) in table {
        if let Some(key) = KEYS.iter().find(|key| key.name == name.get_ref()) {
            checker.within(key.name, |checker| (key.read)(item, &mut settings, checker));
        } else if let Some(option) = rule.options.iter().find(|option| option.name == name.get_ref()) {
            let value = checker.within(option.name, |checker| checker.whole(item, 0, u64::MAX));
            settings.options.extend(value.map(|value| (option.name.to_owned(), value)));
        } else {
            let names = KEYS.iter().map(|key| key.name).chain(rule.options.iter().map(|option| option.name));
            checker.unknown_key(name, names);
        }
    }
    settings
}

fn unknown_rule(id: &str, span: std::ops::Range<usize>, checker: &mut Checker<'_>) {
    let near = if checker.mistakes.is_full() { None } else { nearest(id, checker.rules.iter().map(|rule| rule.id)) };
    let advice = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`distwatch rules` lists all of them".to_owned(),
    };
    checker.wrong(span, format!("there is no rule {}", quoted(id)), advice);
}
