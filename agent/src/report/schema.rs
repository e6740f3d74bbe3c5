//! JSON Schema (2020-12) of everything that is printed, generated from the very types that are printed.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::Report;
use crate::record::{EventType, Record};

/// The schema of `analyze --format json`; the repository has it as `docs/schema/report.schema.json`.
#[must_use]
pub fn report() -> Value {
    generate::<Report>("report", "distwatch report").to_value()
}

/// The schema of one line of NDJSON; the repository has it as `docs/schema/record.schema.json`.
#[must_use]
pub fn records() -> Value {
    let mut schema = generate::<Record<'_>>("record", "distwatch record").to_value();
    // The generator knows that one object is there, not that `event_type` names it.
    let ties: Vec<Value> = EventType::ALL
        .iter()
        .map(|kind| {
            json!({
                "if": { "properties": { "event_type": { "const": kind.name() } } },
                "then": { "required": [kind.name()] },
            })
        })
        .collect();
    if let Some(object) = schema.as_object_mut() {
        object.insert("allOf".into(), ties.into());
    }
    schema
}

/// A schema as it is written to a file.
#[must_use]
pub fn to_text(schema: &Value) -> String {
    format!("{schema:#}\n")
}

/// `for_serialize`: a field that is always printed is required, also where it may be null.
fn generate<T: JsonSchema>(name: &str, title: &str) -> Schema {
    let mut schema = SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>();
    let version = distwatch_engine::model::SCHEMA_VERSION;
    schema.insert("$id".into(), format!("urn:distwatch:schema:{name}:{version}").into());
    schema.insert("title".into(), title.into());
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_report_with_something_of_everything_keeps_to_the_schema() {
        let validator = jsonschema::validator_for(&report()).unwrap();
        for report in [sample::report(), sample::hostile(), Report::default()] {
            let value = serde_json::to_value(&report).unwrap();
            let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{errors:?}");
        }
    }

    #[test]
    fn the_schema_asks_for_what_the_contract_lists() {
        let validator = jsonschema::validator_for(&report()).unwrap();
        let whole = serde_json::to_value(sample::report()).unwrap();
        for field in ["schema_version", "captures", "nodes", "links", "epmd", "activity", "alerts", "stats"] {
            let mut part = whole.clone();
            part.as_object_mut().unwrap().remove(field);
            assert!(!validator.is_valid(&part), "{field} is not asked for");
        }
        let mut unknown_word = whole;
        unknown_word["links"][0]["handshake"]["outcome"] = "fine".into();
        assert!(!validator.is_valid(&unknown_word));
    }

    #[test]
    fn schemas_say_which_draft_and_which_schema_they_are() {
        for (schema, id) in [(report(), "urn:distwatch:schema:report:1"), (records(), "urn:distwatch:schema:record:1")]
        {
            assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
            assert_eq!(schema["$id"], id);
        }
    }
}
