//! Every query asks for something that the contract says exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use distwatch_engine::detect;
use serde_json::Value as Json;

use crate::page;
use crate::query::Query;

/// What Prometheus adds to every series.
const TARGET: [&str; 2] = ["job", "instance"];

/// Labels that the contract leaves to the program.
const LEFT_OPEN: [(&str, &str); 2] = [("distwatch_build_info", "version"), ("distwatch_build_info", "capture")];

/// The labels of the `loki` sink's streams, and the structured metadata of its alerts (`docs/sinks.md`).
const STREAM: [&str; 3] = ["service_name", "host", "event_type"];
const METADATA: [&str; 8] =
    ["rule_id", "severity", "level", "status", "fingerprint", "subject", "from_node", "to_node"];

/// The metrics with their labels, as `docs/contract.md` lists them.
fn metrics() -> BTreeMap<String, BTreeSet<String>> {
    let contract = std::fs::read_to_string(repository().join("docs/contract.md")).unwrap();
    let (_, section) = contract.split_once("## Metrics\n").expect("the contract has a section of metrics");
    let section = section.split("\n## ").next().unwrap();
    let mut metrics = BTreeMap::new();
    for name in section.split('`').skip(1).step_by(2).filter(|name| name.starts_with("distwatch_")) {
        let (name, labels) = name.trim_end_matches('}').split_once('{').unwrap_or((name, ""));
        let mut labels: BTreeSet<String> = labels.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect();
        labels.extend(LEFT_OPEN.iter().filter(|(metric, _)| *metric == name).map(|(_, label)| (*label).to_owned()));
        labels.extend(TARGET.map(str::to_owned));
        metrics.insert(name.to_owned(), labels);
    }
    assert!(metrics.len() > 10, "{metrics:?}");
    metrics
}

/// Every text of the dashboards' folder in which metrics are named.
fn texts() -> Vec<(PathBuf, String)> {
    let mut texts = Vec::new();
    let mut folders = vec![repository().join("dashboards")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("check") {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml") {
                texts.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    texts
}

/// All queries in the dashboards: where they stand, the type of their data source, and their text.
fn queries() -> Vec<(String, String, String)> {
    let mut queries = Vec::new();
    for name in page::DASHBOARDS {
        let dashboard = page::read(name);
        let mut add = |title: &Json, query: &Json| {
            let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
            queries.push((format!("{name}: {title}"), text(&query["datasource"]["type"]), text(&query["expr"])));
        };
        for panel in dashboard["panels"].as_array().unwrap() {
            panel["targets"].as_array().into_iter().flatten().for_each(|target| add(&panel["title"], target));
        }
        dashboard["annotations"]["list"].as_array().unwrap().iter().for_each(|note| add(&note["name"], note));
    }
    assert!(queries.len() > 40);
    queries
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn check_metrics(place: &str, query: &Query, metrics: &BTreeMap<String, BTreeSet<String>>) {
    let mut labels: BTreeSet<&str> = TARGET.into();
    for selector in query.selectors().iter().filter(|it| it.metric.starts_with("distwatch_")) {
        let known = metrics.get(&selector.metric).unwrap_or_else(|| panic!("{place}: no metric {}", selector.metric));
        labels.extend(known.iter().map(String::as_str));
        for (label, ..) in &selector.matchers {
            assert!(known.contains(label), "{place}: {} has no label {label}", selector.metric);
        }
    }
    for label in query.grouped_by() {
        assert!(labels.contains(label.as_str()), "{place}: groups by {label}, which no metric there has");
    }
}

#[test]
fn dashboards_ask_for_metrics_and_labels_of_the_contract() {
    let metrics = metrics();
    for (place, kind, text) in queries() {
        if kind == "prometheus" {
            let query = Query::read(&text);
            check_metrics(&place, &query, &metrics);
            assert!(!query.selectors().is_empty(), "{place}: {text}");
        }
    }
}

#[test]
fn rules_and_their_tests_name_metrics_and_labels_of_the_contract() {
    let metrics = metrics();
    let mut named = 0;
    for (path, text) in texts() {
        // Alert rules for Grafana group what comes from Loki as well.
        let queries = text.split("expr: ").map(|part| part.split("{service_name=").next().unwrap());
        for query in queries.map(Query::read) {
            named += query.selectors().iter().filter(|it| it.metric.starts_with("distwatch_")).count();
            let loki = query.grouped_by().iter().any(|label| label == "subject");
            if !loki {
                check_metrics(&path.display().to_string(), &query, &metrics);
            }
        }
    }
    assert!(named > 60, "{named}");
}

#[test]
fn every_metric_of_the_contract_is_shown_somewhere() {
    let shown: BTreeSet<String> = queries()
        .iter()
        .flat_map(|(_, _, text)| Query::read(text).selectors().into_iter().map(|selector| selector.metric))
        .collect();
    for metric in metrics().keys() {
        assert!(shown.contains(metric), "no dashboard shows {metric}");
    }
}

#[test]
fn queries_of_records_name_streams_metadata_and_fields_that_exist() {
    let schema = std::fs::read(repository().join("docs/schema/record.schema.json")).unwrap();
    let schema: Json = serde_json::from_slice(&schema).unwrap();
    let kinds = schema["$defs"]["EventType"]["oneOf"].as_array().unwrap();
    let kinds: Vec<&str> = kinds.iter().filter_map(|kind| kind["const"].as_str()).collect();
    let mut fields = 0;
    for (place, _, text) in queries().into_iter().filter(|(_, kind, _)| kind == "loki") {
        let query = Query::read(&text);
        let mut names: BTreeSet<String> = STREAM.iter().chain(&METADATA).map(|name| (*name).to_owned()).collect();
        names.insert("__error__".to_owned());
        for selector in query.selectors() {
            for (label, _, value) in &selector.matchers {
                assert!(STREAM.contains(&label.as_str()), "{place}: no stream has the label {label}");
                assert!(label != "event_type" || kinds.contains(&value.as_str()), "{place}: no record is a {value}");
            }
        }
        for (name, path) in query.extracted() {
            let clash = METADATA.contains(&name.as_str()) || schema["properties"].get(&name).is_some();
            assert!(!clash, "{place}: {name} has a meaning already");
            if let Some(path) = path {
                fields += 1;
                assert!(has_field(&schema, &path), "{place}: no record has {path}");
            }
            names.insert(name);
        }
        for label in query.grouped_by().union(&query.filtered_by()) {
            assert!(names.contains(label), "{place}: {label} is neither label, metadata nor taken from the record");
        }
    }
    assert!(fields > 10, "{fields}");
}

/// Whether a record may have this field: `link.tls.version`.
fn has_field(schema: &Json, path: &str) -> bool {
    let mut parts = path.split('.');
    let object = parts.next().unwrap();
    let kinds = schema["oneOf"].as_array().unwrap();
    let Some(mut place) = kinds.iter().find_map(|kind| kind["properties"].get(object)) else { return false };
    for part in parts {
        let Some(next) = resolved(schema, place)["properties"].get(part) else { return false };
        place = next;
    }
    true
}

/// What a reference refers to; of "this or null", this.
fn resolved<'a>(schema: &'a Json, place: &'a Json) -> &'a Json {
    let choice = place["anyOf"].as_array().and_then(|choices| choices.iter().find(|it| it.get("$ref").is_some()));
    match choice.unwrap_or(place)["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap(),
        None => place,
    }
}

/// A panel about a rule that no daemon raises would say for ever that all is well.
#[test]
fn rules_that_are_named_can_be_raised() {
    let known: Vec<&str> = detect::rules().map(|rule| rule.id).collect();
    let expressions = queries().into_iter().map(|(place, _, text)| (place, text));
    let mut named = 0;
    for (place, text) in expressions.chain(texts().into_iter().map(|(path, text)| (path.display().to_string(), text))) {
        for value in Query::read(&text).values_of("rule_id") {
            let (start, pattern) = value.split_once(".+").map_or((value.as_str(), false), |(start, _)| (start, true));
            if start.starts_with('$') || start.is_empty() {
                continue;
            }
            named += 1;
            let exists = known.iter().any(|id| *id == start || pattern && id.starts_with(start));
            assert!(exists, "{place}: there is no rule {value}");
        }
    }
    assert!(named > 10, "{named}");
}
