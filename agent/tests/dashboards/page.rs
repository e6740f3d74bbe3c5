//! The page of the dashboards: what each shows, panel by panel.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value as Json;

/// The dashboards that are shipped, in the order in which a reader wants them.
pub(crate) const DASHBOARDS: [&str; 4] = ["overview", "links", "alerts", "sensor"];

/// One dashboard.
pub(crate) fn read(name: &str) -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../dashboards/grafana/{name}.json"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The page.
pub(crate) fn markdown() -> String {
    let mut page = String::from(
        "# Dashboards\n\nWhat is in [dashboards/grafana](../dashboards/grafana), panel by panel; [grafana.md](grafana.md) says how to get them \
         into Grafana. This page is generated: `cargo xtask docs`.\n",
    );
    for name in DASHBOARDS {
        write(&read(name), name, &mut page).expect("memory takes it");
    }
    page
}

fn write(dashboard: &Json, name: &str, page: &mut String) -> std::fmt::Result {
    writeln!(page, "\n## {} (`{name}.json`)\n\n{}\n", text(&dashboard["title"]), text(&dashboard["description"]))?;
    let variables: Vec<&str> = list(&dashboard["templating"]["list"]).iter().map(|it| text(&it["label"])).collect();
    writeln!(page, "To choose: {}. Shows the time from `{}`.", variables.join(", "), text(&dashboard["time"]["from"]))?;
    for annotation in list(&dashboard["annotations"]["list"]) {
        let (name, query) = (text(&annotation["name"]), text(&annotation["expr"]));
        writeln!(page, "Marked in all panels: {} (`{query}`).", name.to_lowercase())?;
    }
    for panel in list(&dashboard["panels"]) {
        if panel["type"] == "row" {
            writeln!(
                page,
                "\n### {}\n\n| panel | form | size | shows | queries |\n|---|---|---|---|---|",
                text(&panel["title"])
            )?;
            continue;
        }
        let queries: Vec<String> = list(&panel["targets"]).iter().map(|target| code(text(&target["expr"]))).collect();
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().filter(|unit| *unit != "short");
        let form = unit.map_or(text(&panel["type"]).to_owned(), |unit| format!("{}, {unit}", text(&panel["type"])));
        let size = format!("{} × {}", panel["gridPos"]["w"], panel["gridPos"]["h"]);
        let (title, description) = (text(&panel["title"]), text(&panel["description"]));
        writeln!(page, "| **{title}** | {form} | {size} | {description} | {} |", queries.join("<br>"))?;
    }
    Ok(())
}

/// As code in a cell of a table: GitHub takes an escaped bar there as a bar.
fn code(query: &str) -> String {
    let query = query.replace('|', "\\|");
    if query.contains('`') { format!("`` {query} ``") } else { format!("`{query}`") }
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}
