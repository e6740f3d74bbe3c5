//! What Grafana's dashboard-linter asks of a dashboard, and what those here have in common.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::page::{DASHBOARDS, markdown, read};
use crate::query::Query;

/// Units of Grafana's list that are in use here. One that is not in it would be shown as a word behind the number.
const UNITS: [&str; 8] = ["short", "percentunit", "bytes", "Bps", "pps", "cps", "s", "bool_yes_no"];

fn dashboards() -> impl Iterator<Item = (&'static str, Json)> {
    DASHBOARDS.into_iter().map(|name| (name, read(name)))
}

fn list(value: &Json) -> &[Json] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// Every panel that shows something, with where it is.
fn panels(name: &str, dashboard: &Json) -> Vec<(String, Json)> {
    let shows = list(&dashboard["panels"]).iter().filter(|panel| panel["type"] != "row");
    shows.map(|panel| (format!("{name}: {}", text(&panel["title"])), panel.clone())).collect()
}

#[test]
fn every_file_is_one_of_the_dashboards() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/grafana");
    let files: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".json").map(str::to_owned))
        .collect();
    assert_eq!(files, DASHBOARDS.map(str::to_owned).into());
}

#[test]
fn a_dashboard_can_be_provisioned_and_found_again() {
    let mut titles = BTreeSet::new();
    for (name, dashboard) in dashboards() {
        assert_eq!(dashboard["uid"], format!("distwatch-{name}"));
        assert!(dashboard["id"].is_null(), "{name}: the id is the server's");
        assert_eq!(dashboard["editable"], false, "{name}");
        assert_eq!(dashboard["tags"], serde_json::json!(["distwatch"]), "{name}");
        // Grafana 10.4 and later take it.
        assert_eq!(dashboard["schemaVersion"], 39, "{name}");
        assert!(text(&dashboard["title"]).starts_with("distwatch: "), "{name}");
        assert!(text(&dashboard["description"]).ends_with('.'), "{name}");
        assert!(titles.insert(text(&dashboard["title"]).to_owned()), "{name}: its title is taken");
        // These are for the import by hand, and stay as they are where a file is provisioned.
        for key in ["__inputs", "__requires", "__elements"] {
            assert!(dashboard.get(key).is_none(), "{name}: {key}");
        }
    }
}

#[test]
fn what_can_be_chosen_is_offered_as_everywhere() {
    for (name, dashboard) in dashboards() {
        let whole = dashboard.to_string();
        let variables: BTreeMap<&str, &Json> =
            list(&dashboard["templating"]["list"]).iter().map(|it| (text(&it["name"]), it)).collect();
        for (variable, kind) in [("datasource", "prometheus"), ("loki_datasource", "loki")] {
            let used = whole.contains(&format!("${{{variable}}}"));
            assert_eq!(used, variables.contains_key(variable), "{name}: {variable}");
            if let Some(it) = variables.get(variable) {
                assert_eq!((text(&it["type"]), text(&it["query"])), ("datasource", kind), "{name}");
            }
        }
        if let Some(it) = variables.get("datasource") {
            assert_eq!(it["label"], "Data Source", "{name}");
            for variable in ["job", "instance"] {
                assert!(variables.contains_key(variable), "{name}: {variable}");
            }
        }
        for (variable, it) in &variables {
            assert!(!text(&it["label"]).is_empty(), "{name}: {variable}");
            let used = [format!("${variable}\\\""), format!("${{{variable}}}")].iter().any(|form| whole.contains(form));
            assert!(used, "{name}: nothing uses {variable}");
            if it["type"] == "query" {
                assert!(it["multi"] == true && it["includeAll"] == true, "{name}: {variable}");
                // Of the hosts that there are in the time that is shown.
                assert_eq!((text(&it["allValue"]), &it["refresh"]), (".+", &Json::from(2)), "{name}: {variable}");
                assert!(text(&it["datasource"]["uid"]).starts_with("${"), "{name}: {variable}");
            }
        }
        // The other way round: what a query uses is there.
        for (place, panel) in panels(name, &dashboard) {
            for target in list(&panel["targets"]) {
                for part in text(&target["expr"]).split('$').skip(1) {
                    let used: String = part.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
                    let built_in = ["__rate_interval", "__range", "__auto"].contains(&used.as_str());
                    assert!(built_in || variables.contains_key(used.as_str()), "{place}: {used} is not there");
                }
            }
        }
    }
}

#[test]
fn a_panel_says_what_it_shows_and_where_it_comes_from() {
    for (name, dashboard) in dashboards() {
        let mut titles = BTreeSet::new();
        for (place, panel) in panels(name, &dashboard) {
            assert!(titles.insert(text(&panel["title"]).to_owned()), "{place}: the title is there twice");
            assert!(text(&panel["description"]).ends_with('.'), "{place}: its description");
            if panel["type"] != "logs" {
                let unit = text(&panel["fieldConfig"]["defaults"]["unit"]);
                assert!(UNITS.contains(&unit), "{place}: the unit {unit}");
            }
            let source = &panel["datasource"];
            let variable = match text(&source["type"]) {
                "prometheus" => "${datasource}",
                "loki" => "${loki_datasource}",
                other => panic!("{place}: nothing is asked of {other}"),
            };
            assert_eq!(source["uid"], variable, "{place}: the data source is for the reader to choose");
            let mut ids = BTreeSet::new();
            for target in list(&panel["targets"]) {
                assert_eq!(&target["datasource"], source, "{place}");
                assert!(ids.insert(text(&target["refId"]).to_owned()), "{place}: two queries of one id");
            }
            assert!(!ids.is_empty(), "{place}: it asks nothing");
        }
    }
}

#[test]
fn panels_have_ids_of_their_own_and_lie_beside_each_other() {
    for (name, dashboard) in dashboards() {
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in list(&dashboard["panels"]) {
            let title = text(&panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title}: the id is taken");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(w > 0 && h > 0 && x + w <= 24, "{name}: {title}: does not fit");
            for column in x..x + w {
                for line in y..y + h {
                    assert!(taken.insert((column, line)), "{name}: {title}: lies over another panel");
                }
            }
        }
    }
}

#[test]
fn queries_of_metrics_are_of_the_chosen_sensors_and_of_the_right_range() {
    let chosen = [("job", "$job"), ("instance", "$instance")];
    for (name, dashboard) in dashboards() {
        for (place, panel) in panels(name, &dashboard) {
            for target in list(&panel["targets"]).iter().filter(|it| it["datasource"]["type"] == "prometheus") {
                let query = Query::read(text(&target["expr"]));
                for selector in query.selectors() {
                    for (label, value) in chosen {
                        let matcher = (label.to_owned(), "=~".to_owned(), value.to_owned());
                        assert!(selector.matchers.contains(&matcher), "{place}: {} of every {label}", selector.metric);
                    }
                    let rates = matches!(selector.function.as_deref(), Some("rate" | "increase"));
                    let counter = selector.metric.ends_with("_total");
                    assert_eq!(rates, counter, "{place}: a counter is shown by its increase, and nothing else is");
                    if let Some(range) = selector.range {
                        let whole = target["instant"] == true && range == "$__range";
                        assert!(whole || range == "$__rate_interval", "{place}: the range {range}");
                    }
                }
            }
        }
    }
}

#[test]
fn queries_of_records_are_of_the_chosen_hosts_and_of_the_right_range() {
    for (name, dashboard) in dashboards() {
        for (place, panel) in panels(name, &dashboard) {
            for target in list(&panel["targets"]).iter().filter(|it| it["datasource"]["type"] == "loki") {
                let expression = text(&target["expr"]);
                let selectors = Query::read(expression).selectors();
                let has = |label: &str, operator: &str, value: &str| {
                    let matcher = (label.to_owned(), operator.to_owned(), value.to_owned());
                    selectors.iter().all(|selector| selector.matchers.contains(&matcher))
                };
                assert!(has("service_name", "=", "distwatch") && has("host", "=~", "$host"), "{place}: {expression}");
                let range = if target["queryType"] == "instant" { "[$__range]" } else { "[$__auto]" };
                let counts = expression.contains("_over_time(");
                assert_eq!(counts, expression.contains(range), "{place}: {expression}");
                assert_eq!(counts, panel["type"] != "logs", "{place}: {expression}");
            }
        }
    }
}

#[test]
fn what_is_drawn_is_named_by_what_it_is_grouped_by() {
    for (name, dashboard) in dashboards() {
        for (place, panel) in panels(name, &dashboard) {
            if panel["type"] == "logs" || panel["type"] == "table" {
                continue;
            }
            for target in list(&panel["targets"]) {
                let legend = text(&target["legendFormat"]);
                assert!(!legend.is_empty(), "{place}: no legend");
                let mut named: BTreeSet<String> =
                    legend.split("{{").skip(1).map(|part| part.split("}}").next().unwrap().trim().to_owned()).collect();
                let mut grouped = Query::read(text(&target["expr"])).grouped_by();
                // A series as it comes has the labels of its target.
                if grouped.is_empty() {
                    named.remove("instance");
                }
                // What is counted once more is not grouped any more.
                if text(&target["expr"]).starts_with("count(sum by") {
                    grouped.clear();
                }
                assert_eq!(named, grouped, "{place}: {legend}");
            }
        }
    }
}

#[test]
fn alerts_of_grafana_lead_to_a_panel() {
    let rules = include_str!("../../../dashboards/grafana/provisioning/alerting/distwatch.yaml");
    let value = |line: &str, key: &str| line.trim().strip_prefix(key).map(str::to_owned);
    let places = rules.lines().filter_map(|line| value(line, "dashboardUid: distwatch-"));
    let numbers = rules.lines().filter_map(|line| value(line, "panelId: "));
    let mut count = 0;
    for (dashboard, number) in places.zip(numbers) {
        let dashboard = read(&dashboard);
        let number: u64 = number.parse().unwrap();
        let shown = list(&dashboard["panels"]).iter().find(|panel| panel["id"] == number);
        assert!(shown.is_some_and(|panel| panel["type"] != "row"), "{}: no panel {number}", dashboard["uid"]);
        count += 1;
    }
    assert_eq!(count, rules.matches("- uid: ").count());
}

#[test]
fn the_page_of_the_dashboards_tells_of_every_panel_and_keeps_to_its_tables() {
    let page = markdown();
    for (name, dashboard) in dashboards() {
        for (place, panel) in panels(name, &dashboard) {
            let line = format!("| **{}** |", text(&panel["title"]));
            assert!(page.lines().any(|found| found.starts_with(&line)), "{place}");
        }
    }
    for line in page.lines().filter(|line| line.starts_with("| **")) {
        let bars = line.matches('|').count() - line.matches("\\|").count();
        assert_eq!(bars, 6, "{line}");
    }
}
