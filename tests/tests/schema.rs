//! Everything that the program prints as JSON for the shipped captures is as the shipped schemas say, and says the same
//! when it is printed again.

use std::collections::BTreeSet;

use e2e::{all_captures, distwatch, root, schema};
use serde_json::Value;

/// What the program prints for a capture, which must be the same twice.
fn printed(arguments: &[&str], name: &str) -> String {
    let path = e2e::capture(name);
    let policy = e2e::policy();
    let arguments: Vec<&str> = ["analyze", "-c", &policy].into_iter().chain(arguments.iter().copied()).collect();
    let output = distwatch(&arguments, &[&path]);
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let again = distwatch(&arguments, &[&path]);
    assert!(output.stdout == again.stdout, "{name}: {arguments:?} is not the same twice");
    String::from_utf8(output.stdout).expect("the output is UTF-8")
}

/// Panics with every place where the value is not as the schema says.
fn validate(schema: &jsonschema::Validator, value: &Value, what: &str) {
    let mistakes: Vec<String> =
        schema.iter_errors(value).map(|mistake| format!("{}: {mistake}", mistake.instance_path())).collect();
    assert!(mistakes.is_empty(), "{what}: {mistakes:#?}");
}

#[test]
fn every_report_is_as_its_schema_says() {
    let schema = schema("report");
    for name in all_captures() {
        let report = serde_json::from_str(&printed(&["--format", "json"], &name)).expect("JSON");
        validate(&schema, &report, &name);
    }
}

#[test]
fn every_record_is_as_its_schema_says() {
    let schema = schema("record");
    let mut kinds = BTreeSet::new();
    for name in all_captures() {
        let records = printed(&["--format", "ndjson", "--messages"], &name);
        for (number, line) in records.lines().enumerate() {
            let record: Value = serde_json::from_str(line).expect("a JSON object a line");
            validate(&schema, &record, &format!("{name}, line {}", number + 1));
            let kind = record["event_type"].as_str().expect("every record has a type").to_owned();
            assert!(record[&kind].is_object(), "{name}: the object is named like the type: {line}");
            kinds.insert(kind);
        }
        let last: Value = serde_json::from_str(records.lines().last().expect("some records")).expect("JSON");
        assert_eq!(last["event_type"], "stats", "{name} ends with the counters");
    }
    for kind in ["alert", "link", "epmd", "activity", "stats", "weird"] {
        assert!(kinds.contains(kind), "no capture gives a record of type {kind}: {kinds:?}");
    }
}

#[test]
fn the_shipped_schemas_are_those_that_the_program_prints() {
    for (argument, file) in [("report", "report"), ("records", "record")] {
        let printed: Value = serde_json::from_slice(&distwatch(&["schema", argument], &[]).stdout).expect("JSON");
        let path = root().join(format!("docs/schema/{file}.schema.json"));
        let shipped: Value = serde_json::from_slice(&std::fs::read(path).expect("a schema")).expect("JSON");
        assert!(printed == shipped, "docs/schema/{file}.schema.json: run `cargo xtask docs`");
    }
}

#[test]
fn text_and_graphs_are_the_same_twice() {
    for name in all_captures() {
        for arguments in [&["--format", "text"][..], &["--graph", "dot"], &["--graph", "mermaid"]] {
            assert!(!printed(arguments, &name).is_empty(), "{name}: {arguments:?}");
        }
    }
}
