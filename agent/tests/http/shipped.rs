//! What is shipped for Prometheus and Grafana asks for nothing but what a scrape of the server has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::harness::{Bench, picture};

#[test]
fn every_metric_that_dashboards_and_rules_name_is_in_a_scrape() {
    let scrape = Bench::with(picture(3)).get("/metrics", &[]).text();
    let scraped: BTreeSet<&str> =
        scrape.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards");
    let mut asked = BTreeSet::new();
    for file in files(&folder).iter().filter(|file| is_query(file)) {
        let text = fs::read_to_string(file).unwrap();
        for name in names(&text) {
            assert!(scraped.contains(name), "{}: no scrape has {name}", file.display());
            asked.insert(name.to_owned());
        }
    }
    // The most important ones are asked for at all.
    for name in ["distwatch_links", "distwatch_alerts_active", "distwatch_capture_dropped_total"] {
        assert!(asked.contains(name), "{asked:?}");
    }
}

/// Names of metrics in a text; those of recorded series have a colon and are not scraped.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == ':';
    let words = text.split(move |it: char| !is_part(it));
    words.filter(|word| word.starts_with("distwatch_") && !word.contains(':'))
}

fn is_query(file: &Path) -> bool {
    let name = file.to_string_lossy();
    ["/grafana/", "/prometheus/"].iter().any(|part| name.contains(part))
        && [".json", ".yml", ".yaml"].iter().any(|ending| name.ends_with(ending))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        match path.file_name().is_some_and(|name| name == "node_modules") {
            true => {}
            false if path.is_dir() => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}
