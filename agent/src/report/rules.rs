//! The catalogue of rules as a page: `docs/rules.md` is this text.

use std::io::{self, Write};

use distwatch_engine::detect::{Rule, rules};

const HEAD: &str = "\
# The rules

<!-- Generated from the catalogue in the program by `cargo xtask docs`; do not edit. -->

Ids are stable: they appear in alerts, metrics, configuration and dashboards, and are never renamed. The severity given
is the default; the policy may set another, silence a rule or make exceptions (`[rules.<id>]`). `G…` are the statements of
[guideline.md](guideline.md). Where the policy declares no network as isolated, only loopback counts as such.
";

/// Writes the catalogue as Markdown.
///
/// # Errors
/// What `out` says.
pub fn markdown(out: &mut impl Write) -> io::Result<()> {
    out.write_all(HEAD.as_bytes())?;
    let mut group = "";
    for rule in rules() {
        if rule.group != group {
            group = rule.group;
            writeln!(out, "\n## {group}")?;
        }
        write_rule(rule, out)?;
    }
    Ok(())
}

fn write_rule(rule: &Rule, out: &mut impl Write) -> io::Result<()> {
    let off = if rule.off_by_default { ", off unless the policy turns it on" } else { "" };
    writeln!(out, "\n### `{}`\n\n*{}{off}.* {}\n", rule.id, rule.severity.name(), rule.raised_when)?;
    writeln!(out, "{}\n", rule.rationale)?;
    writeln!(out, "**Evidence.** {}\n", rule.evidence)?;
    writeln!(out, "**What to do.** {}", rule.remediation)?;
    if !rule.references.is_empty() {
        writeln!(out, "\n**Guideline.** {}", rule.references.join(", "))?;
    }
    if !rule.options.is_empty() {
        writeln!(out, "\n| option | default | meaning |\n|---|---|---|")?;
        for option in rule.options {
            writeln!(out, "| `{}` | {} | {} |", option.name, option.default, option.help)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use distwatch_engine::detect::RuleOption;
    use distwatch_engine::model::Severity;

    use super::*;

    #[test]
    fn a_rule_is_described_with_all_that_the_catalogue_says() {
        let rule = Rule {
            id: "cookie-guessing",
            severity: Severity::Critical,
            off_by_default: false,
            group: "Authentication",
            raised_when: "Failures pass a threshold.",
            rationale: "Cookies can be guessed.",
            evidence: "The attempts.",
            remediation: "Block the address.",
            references: &["G3"],
            options: &[RuleOption { name: "threshold", default: 5, help: "failures" }],
        };
        let mut out = Vec::new();
        write_rule(&rule, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for part in
            ["### `cookie-guessing`", "*critical.* Failures", "**Guideline.** G3", "| `threshold` | 5 | failures |"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}
