//! What the end-to-end tests share: where the captures are, how the program is run, what a capture's truth file says, and hosts
//! with real nodes.

pub mod live;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A shipped capture, or another file beside the captures.
#[must_use]
pub fn capture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("captures").join(name)
}

/// The path of the policy that fits the networks of the shipped captures.
///
/// # Panics
/// Where the repository's path is not UTF-8.
#[must_use]
pub fn policy() -> String {
    capture("policy.toml").to_str().expect("a path of this repository").to_owned()
}

/// The names of all shipped captures, in order.
///
/// # Panics
/// Where there are none.
#[must_use]
pub fn all_captures() -> Vec<String> {
    let files = std::fs::read_dir(capture("")).expect("tests/captures").flatten();
    let mut names: Vec<String> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| [".pcap", ".pcapng", ".pcap.gz"].iter().any(|ending| name.ends_with(ending)));
    names.sort();
    assert!(!names.is_empty(), "no captures");
    names
}

/// A shipped schema (`docs/schema`), ready to validate: `report` or `record`.
///
/// # Panics
/// Where it cannot be read or is no schema.
#[cfg(feature = "schema")]
#[must_use]
pub fn schema(name: &str) -> jsonschema::Validator {
    let path = root().join(format!("docs/schema/{name}.schema.json"));
    let text = std::fs::read(&path).expect("a shipped schema");
    let schema = serde_json::from_slice(&text).expect("JSON");
    jsonschema::validator_for(&schema).unwrap_or_else(|mistake| panic!("{}: {mistake}", path.display()))
}

/// The program: `DISTWATCH`, or the release build, made once.
///
/// # Panics
/// Where it cannot be built.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("DISTWATCH") {
            return path.into();
        }
        let mut cargo = Command::new(env!("CARGO"));
        // What cargo told this program of its own package: build scripts look at it, and would all run anew.
        for variable in std::env::vars_os().map(|(name, _)| name) {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|kind| variable.to_string_lossy().starts_with(kind)) {
                cargo.env_remove(variable);
            }
        }
        let status = cargo
            .args(["build", "--release", "--quiet", "--package", "distwatch"])
            .current_dir(root())
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the program does not build");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        target.join("release/distwatch")
    })
}

/// Runs the program.
///
/// # Panics
/// Where it cannot be started.
pub fn distwatch(arguments: &[&str], files: &[&Path]) -> Output {
    Command::new(program()).args(arguments).args(files).output().expect("the program starts")
}

/// The JSON report of a capture under the policy that fits the shipped ones.
///
/// # Panics
/// Where the program fails or prints no JSON.
#[must_use]
pub fn report(capture_file: &Path) -> Value {
    let output = distwatch(&["analyze", "--format", "json", "-c", &policy()], &[capture_file]);
    let status = output.status.code();
    assert!(matches!(status, Some(0 | 1)), "status {status:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a JSON report")
}

/// All truth files of the shipped captures, in order.
///
/// # Panics
/// Where one cannot be read.
#[must_use]
pub fn truths() -> Vec<Value> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(capture("")).expect("tests/captures").flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(".truth.json"));
    paths.sort();
    assert!(!paths.is_empty(), "no truth files");
    let read = |path: PathBuf| {
        let text = std::fs::read(&path).expect("a truth file");
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    paths.into_iter().map(read).collect()
}

/// The names of the captures that a truth file is about, as far as they are shipped.
#[must_use]
pub fn names(truth: &Value) -> Vec<String> {
    let names = match &truth["capture"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        name => vec![name.as_str().unwrap_or_default().to_owned()],
    };
    names.into_iter().filter(|name: &String| capture(name).exists()).collect()
}

/// The items of an array field.
#[must_use]
pub fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// A text field, empty where it is null or missing.
#[must_use]
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
