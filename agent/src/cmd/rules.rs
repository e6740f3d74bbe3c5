//! `distwatch rules`: the catalogue, or one rule with all that is known of it.

use std::io::{self, Write};

use anyhow::anyhow;
use distwatch_engine::detect::{self, Rule};
use serde_json::{Value as Json, json};

use super::{Exit, Explain as _, print};
use crate::cli::{RulesArgs, TextOrJson};
use crate::guideline;
use crate::near::nearest;
use crate::text::wrap;

/// Where prose ends, so that it is pleasant to read on any terminal.
const WIDTH: usize = 88;

/// Prints the catalogue, or one rule.
///
/// # Errors
/// There is no such rule, or standard output fails.
pub fn run(arguments: &RulesArgs) -> anyhow::Result<Exit> {
    let rules: Vec<&Rule> = detect::rules().collect();
    let Some(id) = &arguments.id else {
        return match arguments.format {
            TextOrJson::Text => print(|out| write_list(&rules, out)),
            TextOrJson::Json => {
                let list: Vec<Json> = rules.iter().map(|rule| as_json(rule)).collect();
                print(|out| writeln!(out, "{:#}", Json::from(list)))
            }
        };
    };
    let Some(rule) = rules.iter().find(|rule| rule.id == id) else {
        return Err(anyhow!("there is no rule {id:?}")).or_exit(Exit::Usage).hint(hint(id, &rules));
    };
    match arguments.format {
        TextOrJson::Text => print(|out| write_rule(rule, out)),
        TextOrJson::Json => print(|out| writeln!(out, "{:#}", as_json(rule))),
    }
}

/// What somebody probably meant: a rule that is written much like it, or those that have it as a part.
fn hint(id: &str, rules: &[&Rule]) -> String {
    if let Some(near) = nearest(id, rules.iter().map(|rule| rule.id)) {
        return format!("did you mean {near}?");
    }
    let with_part: Vec<&str> = rules.iter().map(|rule| rule.id).filter(|rule| rule.contains(id)).collect();
    if id.len() >= 3 && !with_part.is_empty() {
        return format!("did you mean {}?", with_part.join(" or "));
    }
    "`distwatch rules` lists all of them".to_owned()
}

/// One line a rule, under the headings of the catalogue.
fn write_list(rules: &[&Rule], out: &mut dyn Write) -> io::Result<()> {
    let width = rules.iter().map(|rule| rule.id.len()).max().unwrap_or(0);
    let mut groups: Vec<&str> = Vec::new();
    for rule in rules {
        if !groups.contains(&rule.group) {
            groups.push(rule.group);
        }
    }
    for (number, group) in groups.into_iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{group}")?;
        for rule in rules.iter().filter(|rule| rule.group == group) {
            let off = if rule.off_by_default { " (off unless the policy enables it)" } else { "" };
            writeln!(out, "  {:width$}  {:8}  {}{off}", rule.id, rule.severity.name(), rule.raised_when)?;
        }
    }
    Ok(())
}

/// All that is known of a rule.
fn write_rule(rule: &Rule, out: &mut dyn Write) -> io::Result<()> {
    let off = if rule.off_by_default { ", off unless the policy enables it" } else { "" };
    writeln!(out, "{}  ({}{off})\n{}", rule.id, rule.severity.name(), rule.group)?;
    let parts = [
        ("Raised when", rule.raised_when),
        ("Why it matters", rule.rationale),
        ("Evidence", rule.evidence),
        ("What to do", rule.remediation),
    ];
    for (heading, prose) in parts.into_iter().filter(|(_, prose)| !prose.is_empty()) {
        writeln!(out, "\n{heading}")?;
        for line in wrap(prose, WIDTH) {
            writeln!(out, "  {line}")?;
        }
    }
    if !rule.options.is_empty() {
        writeln!(out, "\nOptions in [rules.{}]", rule.id)?;
        for option in rule.options {
            writeln!(out, "  {} = {}", option.name, option.default)?;
            for line in wrap(option.help, WIDTH - 4) {
                writeln!(out, "      {line}")?;
            }
        }
    }
    if !rule.references.is_empty() {
        writeln!(out, "\nFrom the guideline")?;
        for id in rule.references {
            let text = guideline::statement(id).map_or("", |statement| statement.text);
            for (number, line) in wrap(text, WIDTH - 5).into_iter().enumerate() {
                writeln!(out, "  {:4} {line}", if number == 0 { id } else { "" })?;
            }
        }
    }
    Ok(())
}

fn as_json(rule: &Rule) -> Json {
    let options: Vec<Json> = rule
        .options
        .iter()
        .map(|option| json!({ "name": option.name, "default": option.default, "help": option.help }))
        .collect();
    json!({
        "id": rule.id,
        "group": rule.group,
        "severity": rule.severity,
        "enabled": !rule.off_by_default,
        "raised_when": rule.raised_when,
        "rationale": rule.rationale,
        "evidence": rule.evidence,
        "remediation": rule.remediation,
        "references": guideline::with_statements(rule.references),
        "options": options,
    })
}

#[cfg(test)]
mod tests {
    use distwatch_engine::detect::RuleOption;
    use distwatch_engine::model::Severity;

    use super::*;

    const GUESSING: Rule = Rule {
        id: "cookie-guessing",
        severity: Severity::Critical,
        off_by_default: false,
        group: "Authentication",
        raised_when: "failures from one address pass a threshold",
        rationale: "Somebody tries cookies.",
        evidence: "The attempts.",
        remediation: "Keep the address out.",
        references: &["G3"],
        options: &[RuleOption { name: "attempts", default: 5, help: "How many failures." }],
    };

    const CALL: Rule = Rule {
        id: "remote-call",
        severity: Severity::Info,
        off_by_default: true,
        group: "Remote actions",
        options: &[],
        ..GUESSING
    };

    fn written(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).expect("memory takes it");
        String::from_utf8(out).expect("it is text")
    }

    #[test]
    fn the_list_has_a_heading_for_each_group_and_a_line_for_each_rule() {
        assert_eq!(
            written(|out| write_list(&[&GUESSING, &CALL], out)),
            "Authentication\n  cookie-guessing  critical  failures from one address pass a threshold\n\nRemote actions\n  \
             remote-call      info      failures from one address pass a threshold (off unless the policy enables it)\n"
        );
    }

    #[test]
    fn a_rule_is_explained_with_its_options_and_the_statements_that_it_is_from() {
        let text = written(|out| write_rule(&GUESSING, out));
        assert!(text.starts_with("cookie-guessing  (critical)\nAuthentication\n\nRaised when\n  failures"), "{text}");
        assert!(
            text.contains("\nOptions in [rules.cookie-guessing]\n  attempts = 5\n      How many failures.\n"),
            "{text}"
        );
        assert!(text.contains("\nFrom the guideline\n  G3   Do not rely on the cookie"), "{text}");
    }

    #[test]
    fn a_rule_that_does_not_exist_is_answered_with_those_that_were_meant() {
        let rules = [&GUESSING, &CALL];
        assert_eq!(hint("cookie-gessing", &rules), "did you mean cookie-guessing?");
        assert_eq!(hint("remote", &rules), "did you mean remote-call?");
        assert_eq!(hint("e", &rules), "`distwatch rules` lists all of them");
    }

    #[test]
    fn as_json_a_rule_has_the_same() {
        let rule = as_json(&GUESSING);
        assert_eq!(rule["severity"], "critical");
        assert_eq!(rule["references"][0]["id"], "G3");
        assert_eq!(rule["options"][0]["default"], 5);
        assert_eq!(as_json(&CALL)["enabled"], false);
    }
}
