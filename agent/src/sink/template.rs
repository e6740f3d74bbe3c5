//! Text with parts of a record in it: `{{alert.reason}}`.

use distwatch_engine::text::safe;
use serde::de::IgnoredAny;
use serde_json::Value;

/// A text that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The keys that lead to a part of the record; none for all of it. Whether it stands between the quotes of a string,
    /// were the text JSON.
    Part {
        keys: Vec<String>,
        quoted: bool,
    },
}

/// What text from a record must not break out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escape {
    /// JSON: what stands in a string stays in it, and everywhere else a value is put in.
    Json,
    /// The value of a header.
    Header,
    /// Nothing.
    Plain,
}

impl Template {
    /// Checks a text. `{{` and `}}` enclose the path of a part; `{{.}}` is the whole record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        let mut quoted = false;
        while let Some((before, after)) = rest.split_once("{{") {
            if !before.is_empty() {
                quoted = ends_quoted(before, quoted);
                pieces.push(Piece::Text(before.to_owned()));
            }
            let Some((path, after)) = after.split_once("}}") else {
                return Err("a `{{` has no `}}`".to_owned());
            };
            let path = path.trim();
            let keys: Vec<String> = match path {
                "." => Vec::new(),
                _ => path.split('.').map(str::to_owned).collect(),
            };
            let is_key = |key: &String| {
                !key.is_empty() && key.bytes().all(|it| it.is_ascii_alphanumeric() || b"_@-".contains(&it))
            };
            if !keys.iter().all(is_key) {
                return Err(format!("`{{{{{}}}}}` is no path into a record, as {{{{alert.reason}}}} is", safe(path)));
            }
            pieces.push(Piece::Part { keys, quoted });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { pieces })
    }

    /// Whether it is the same for every record.
    pub(crate) fn is_fixed(&self) -> bool {
        self.pieces.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// Whether it is JSON with any record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check_json(&self) -> Result<(), String> {
        let filled = self.fill(&Value::Null, Escape::Json);
        serde_json::from_str::<IgnoredAny>(&filled).map(drop).map_err(|error| format!("it is no JSON: {error}"))
    }

    /// Puts the parts of a record in. One that is not there is empty.
    pub(crate) fn fill(&self, record: &Value, escape: Escape) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Part { keys, quoted } => {
                    let part = keys.iter().try_fold(record, |value, key| match value {
                        Value::Array(list) => list.get(key.parse::<usize>().ok()?),
                        value => value.get(key),
                    });
                    write_part(part.unwrap_or(&Value::Null), escape, *quoted, &mut out);
                }
            }
        }
        out
    }
}

fn write_part(part: &Value, escape: Escape, quoted: bool, out: &mut String) {
    match (part, escape) {
        (other, Escape::Json) if !quoted => out.push_str(&other.to_string()),
        (Value::Null, _) => {}
        (Value::String(text), Escape::Plain) => out.push_str(text),
        (Value::String(text), Escape::Header) => {
            out.extend(text.chars().map(|it| if it.is_ascii() && !it.is_ascii_control() { it } else { '?' }));
        }
        (Value::String(_), Escape::Json) => {
            // As it stands between the quotes of a string.
            let quoted = part.to_string();
            out.push_str(quoted.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or_default());
        }
        // A list or the like within a string is its text.
        (other, Escape::Json) => write_part(&Value::String(other.to_string()), escape, quoted, out),
        (other, Escape::Header) => out.extend(other.to_string().chars().filter(char::is_ascii)),
        (other, Escape::Plain) => out.push_str(&other.to_string()),
    }
}

/// Whether a string of JSON is open at the end of some text, when it was or was not at the beginning.
fn ends_quoted(text: &str, mut quoted: bool) -> bool {
    let mut escaped = false;
    for octet in text.bytes() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fill(template: &str, escape: Escape) -> String {
        let record = json!({ "alert": { "reason": "a \"b\"\r\nX: 1 ü", "count": 3, "references": ["G1"] } });
        Template::parse(template).unwrap().fill(&record, escape)
    }

    #[test]
    fn parts_of_a_record_stand_where_their_paths_stood() {
        assert_eq!(
            fill("n={{alert.count}} {{ alert.references }} {{alert.references.0}}", Escape::Plain),
            r#"n=3 ["G1"] G1"#
        );
        assert_eq!(fill("<{{alert.nothing.at.all}}>", Escape::Plain), "<>");
        assert!(fill("{{.}}", Escape::Json).starts_with("{\"alert\""));
    }

    #[test]
    fn text_from_a_record_does_not_break_out() {
        let body = fill(r#"{"text":"{{alert.reason}}"}"#, Escape::Json);
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["text"], "a \"b\"\r\nX: 1 ü");
        assert_eq!(fill("{{alert.reason}}", Escape::Header), "a \"b\"??X: 1 ?");
    }

    #[test]
    fn json_stays_json_wherever_a_part_stands() {
        let template = r#"{"a\"{{alert.references}}": "{{alert}} {{alert.none}}", "b": [{{alert.reason}}, {{alert.none}}, {{alert}}]}"#;
        Template::parse(template).unwrap().check_json().unwrap();
        let body: Value = serde_json::from_str(&fill(template, Escape::Json)).unwrap();
        assert_eq!(body["b"][0], "a \"b\"\r\nX: 1 ü");
        assert_eq!((&body["b"][1], &body["b"][2]["count"]), (&Value::Null, &json!(3)));
        assert!(body["a\"[\"G1\"]"].as_str().unwrap().contains("\"count\":3"));
        for wrong in ["{{alert.reason}} is wrong", r#"{"a": }"#, r#"{"a": "{{alert.reason}}}"#] {
            assert!(Template::parse(wrong).unwrap().check_json().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for wrong in ["{{", "{{alert.reason", "{{}}", "{{a b}}", "{{a..b}}", "{{a\"}}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Template::parse("} {").unwrap().is_fixed());
    }
}
