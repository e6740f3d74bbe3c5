//! What a daemon saw, without what differs from one run or one back end to the next: times, ports of clients, counts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::text;

/// The end state of everything that a daemon told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Both nodes, the transport and the handshake's outcome of each connection, and how often.
    pub links: BTreeMap<String, usize>,
    /// Names of nodes.
    pub nodes: BTreeSet<String>,
    /// Kind, nodes, and function or target.
    pub activity: BTreeSet<String>,
    /// Rule, severity and subject.
    pub alerts: BTreeSet<String>,
    /// Requests and their answers.
    pub epmd: BTreeMap<String, usize>,
}

impl Picture {
    /// From all records of a daemon.
    #[must_use]
    pub fn of(records: &[Value]) -> Self {
        let mut picture = Self::default();
        let mut last = BTreeMap::new();
        for record in records {
            let kind = text(record, "event_type");
            let object = &record[kind];
            match kind {
                "link" => {
                    last.insert(text(record, "flow_id").to_owned(), link(object));
                    for end in ["initiator", "acceptor"] {
                        let name = text(&object[end], "node");
                        if !name.is_empty() {
                            picture.nodes.insert(name.to_owned());
                        }
                    }
                }
                "activity" => {
                    let what = object["mfa"].as_str().or_else(|| object["target"].as_str()).unwrap_or_default();
                    let fields = ["kind", "from_node", "to_node"].map(|field| text(object, field));
                    picture.activity.insert(format!("{} {what}", fields.join(" ")));
                }
                "alert" => {
                    let fields = ["rule_id", "severity", "subject"].map(|field| text(object, field));
                    picture.alerts.insert(fields.join(" "));
                }
                // Every monitor asks the EPMD of its host for names, and the other one hears it.
                "epmd" if object["local"] == true && text(object, "request") == "names" => {}
                "epmd" => {
                    let fields = ["request", "name", "result"].map(|field| object[field].to_string());
                    *picture.epmd.entry(fields.join(" ")).or_default() += 1;
                }
                _ => {}
            }
        }
        for link in last.into_values() {
            *picture.links.entry(link).or_default() += 1;
        }
        picture
    }

    /// What only one of two has, a line each.
    #[must_use]
    pub fn difference(&self, other: &Self) -> String {
        let lines = |picture: &Self| -> BTreeSet<String> {
            let text = format!("{picture:#?}");
            text.lines().map(|line| line.trim().to_owned()).collect()
        };
        let (own, others) = (lines(self), lines(other));
        let only = |who: &str, a: &BTreeSet<String>, b: &BTreeSet<String>| -> Vec<String> {
            a.difference(b).map(|line| format!("only {who}: {line}")).collect()
        };
        [only("eBPF", &own, &others), only("libpcap", &others, &own)].concat().join("\n")
    }
}

fn link(object: &Value) -> String {
    let node = |end: &str| object[end]["node"].as_str().unwrap_or("?").to_owned();
    format!(
        "{} -> {} {} {}{}",
        node("initiator"),
        node("acceptor"),
        text(object, "transport"),
        text(&object["handshake"], "outcome"),
        if object["mid_stream"] == true { " mid-stream" } else { "" }
    )
}
