//! The catalogue: complete, unique, and written for people.

use std::collections::BTreeSet;

use super::testing::{Bench, established};
use super::*;
use crate::event::LinkChange;

/// Every rule that traffic, the loss of it, or the monitor's own state can raise. An id is never renamed.
const WIRE_RULES: [&str; 41] = [
    "cleartext-distribution",
    "cleartext-attempt",
    "tls-downgrade",
    "weak-tls",
    "tls-without-client-certificate",
    "expired-certificate",
    "expiring-certificate",
    "self-signed-certificate",
    "distribution-exposed",
    "epmd-exposed",
    "epmd-enumeration",
    "epmd-control",
    "epmd-remote-registration",
    "unexpected-peer",
    "cross-tier",
    "standalone-exposed",
    "hidden-node",
    "node-name-conflict",
    "node-restarted",
    "node-lost",
    "outdated-otp",
    "bad-cookie",
    "cookie-guessing",
    "cookie-guessed",
    "weak-cookie",
    "cookie-on-the-wire",
    "known-scanner",
    "handshake-stalled",
    "remote-shell",
    "remote-command",
    "remote-code-load",
    "remote-file-access",
    "remote-control",
    "remote-call",
    "not-distribution",
    "not-epmd",
    "protocol-violation",
    "stream-tampering",
    "capture-loss",
    "blind-sensor",
    "sink-failing",
];

#[test]
fn every_rule_of_the_wire_is_in_the_catalogue_once() {
    let ids: Vec<&str> = rules().map(|rule| rule.id).collect();
    let unique: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len());
    assert_eq!(unique, WIRE_RULES.into_iter().collect());
    assert_eq!(rule("bad-cookie").map(|rule| rule.id), Some("bad-cookie"));
}

#[test]
fn ids_are_kebab_case_and_texts_are_sentences() {
    for rule in rules() {
        let id = rule.id;
        assert!(id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{id}");
        for text in [rule.raised_when, rule.rationale, rule.evidence, rule.remediation] {
            assert!(text.len() > 40 && text.ends_with('.'), "{id}: {text}");
            assert!(!text.contains("  "), "{id}: {text}");
        }
        for option in rule.options {
            assert!(!option.help.is_empty() && option.default > 0, "{id}: {}", option.name);
        }
    }
}

#[test]
fn references_are_statements_of_the_guideline() {
    let known: BTreeSet<String> = (1..=11).map(|number| format!("G{number}")).collect();
    for rule in rules() {
        assert!(rule.references.iter().all(|reference| known.contains(*reference)), "{}", rule.id);
    }
    let used: BTreeSet<&str> = rules().flat_map(|rule| rule.references.iter().copied()).collect();
    assert_eq!(used.len(), 11, "each statement has a rule: {used:?}");
}

#[test]
fn groups_stand_together_in_the_catalogue() {
    let mut groups: Vec<&str> = rules().map(|rule| rule.group).collect();
    groups.dedup();
    let unique: BTreeSet<&str> = groups.iter().copied().collect();
    assert_eq!(groups.len(), unique.len(), "{groups:?}");
}

#[test]
fn another_policy_holds_from_then_on() {
    let mut bench = Bench::new(Policy::default());
    let settings = crate::policy::RuleSettings { enabled: Some(false), ..Default::default() };
    bench.judge.set_policy(&testing::settings("cleartext-distribution", settings));
    bench.link(LinkChange::Handshake, &established("f1"));
    bench.none("cleartext-distribution");
    bench.judge.set_policy(&Policy::default());
    bench.link(LinkChange::Handshake, &established("f2"));
    bench.only("cleartext-distribution");
}
