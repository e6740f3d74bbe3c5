//! Everything in the repository that is generated from the program is what the program generates now.
//!
//! `cargo xtask docs` runs these with `UPDATE_GENERATED` in the environment, which rewrites the files instead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use distwatch::config;
use distwatch::report::{rules, schema};

#[path = "dashboards/page.rs"]
mod dashboards;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compares a file with what it should hold, or writes it.
fn current(path: &str, expected: &str) {
    let file = repository().join(path);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, expected).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(found == expected, "{path} is not what the program generates: run `cargo xtask docs`");
}

#[test]
fn the_schema_of_the_report_is_current() {
    current("docs/schema/report.schema.json", &schema::to_text(&schema::report()));
}

#[test]
fn the_schema_of_records_is_current() {
    current("docs/schema/record.schema.json", &schema::to_text(&schema::records()));
}

#[test]
fn the_schema_of_the_configuration_is_current() {
    current("docs/schema/config.schema.json", &schema::to_text(&config::schema()));
}

/// What the packages install.
#[test]
fn the_default_configuration_is_current() {
    current("packaging/distwatch.toml", &config::example());
}

#[test]
fn the_page_of_the_dashboards_is_current() {
    current("docs/dashboards.md", &dashboards::markdown());
}

#[test]
fn the_catalogue_of_rules_is_current() {
    let mut page = Vec::new();
    rules::markdown(&mut page).unwrap();
    current("docs/rules.md", &String::from_utf8(page).unwrap());
}

/// The README shows what its first command prints.
#[test]
fn the_sample_report_in_the_readme_is_current() {
    const BEGIN: &str = "<!-- sample:begin -->\n";
    const END: &str = "<!-- sample:end -->";
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("README.md has the marker sample:begin");
    let (_, after) = rest.split_once(END).expect("README.md has the marker sample:end");
    let output = Command::new(env!("CARGO_BIN_EXE_distwatch"))
        .args(["analyze", "-c", "tests/captures/policy.toml", "tests/captures/apps-otp25.pcap"])
        .current_dir(repository())
        .output()
        .unwrap();
    let sample = String::from_utf8(output.stdout).unwrap();
    current("README.md", &format!("{before}{BEGIN}```text\n{sample}```\n{END}{after}"));
}

#[test]
fn the_keys_of_sinks_are_current() {
    let path = "docs/sinks.md";
    let text = std::fs::read_to_string(repository().join(path)).unwrap();
    let (begin, end) = ("<!-- keys: written by `cargo xtask docs` -->\n", "<!-- end of keys -->\n");
    let (before, rest) = text.split_once(begin).expect("the page has a place for keys");
    let (_, after) = rest.split_once(end).expect("the place for keys has an end");
    current(path, &format!("{before}{begin}{}{end}{after}", distwatch::config::sinks_markdown()));
}

/// The builds' tables of atoms, which are by slot, as one by atom.
#[test]
fn the_table_of_slots_by_atom_is_current() {
    const BUILDS: [&str; 5] = ["23.2.6", "25.2.3", "27.3.4.1", "28.5", "29.1.2"];
    let folder = "agent/engine/data/atom-slots";
    let mut slots: BTreeMap<String, [String; BUILDS.len()]> = BTreeMap::new();
    for (build, name) in BUILDS.iter().enumerate() {
        let table = std::fs::read_to_string(repository().join(format!("{folder}/otp-{name}.txt"))).unwrap();
        for line in table.lines() {
            let (slot, atom) = line.split_once(' ').unwrap_or((line, ""));
            slots.entry(atom.to_owned()).or_insert_with(|| BUILDS.map(|_| "-".to_owned()))[build] = slot.to_owned();
        }
    }
    let lines: String = slots.iter().map(|(atom, slots)| format!("{atom}\t{}\n", slots.join(" "))).collect();
    current(&format!("{folder}/by-atom.txt"), &lines);
}
