//! The sections of the file. A further one is a file in `section/` and a line in [`SECTIONS`].

mod activity;
mod capture;
mod cluster;
mod cookies;
mod daemon;
mod distribution;
mod epmd;
mod http;
mod limits;
mod metrics;
mod network;
mod rules;
mod sink;
mod standalone;
mod tls;

use std::fmt::Write as _;

use distwatch_engine::detect::Rule;
use serde_json::Value as Json;

pub(super) use sink::{markdown as sinks_markdown, text as sink_text};

use super::Config;
use super::checker::{Checker, Item};
use super::key::{Key, comment, example_table, read_table, schema_table, show_table};

/// A top-level table of the file, or a list of tables.
pub(super) trait Section: Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// How it is begun in the file.
    fn header(&self) -> String {
        format!("[{}]", self.name())
    }

    /// Its keys, as far as they are the same in every file.
    fn key_names(&self) -> Vec<&'static str>;

    /// Checks what stands in the file and takes it into the configuration.
    fn read(&self, item: &Item<'_>, config: &mut Config, checker: &mut Checker<'_>);

    /// Writes what is in force.
    fn show(&self, config: &Config, out: &mut String);

    /// Writes the section as it stands in a new file, with nothing in it in force.
    fn example(&self, rules: &[&'static Rule], out: &mut String);

    /// Its JSON Schema.
    fn schema(&self, rules: &[&'static Rule]) -> Json;
}

/// All sections, in the order of the example.
pub(super) const SECTIONS: &[&dyn Section] = &[
    &network::SECTION,
    &epmd::SECTION,
    &distribution::SECTION,
    &tls::SECTION,
    &cluster::Clusters,
    &standalone::SECTION,
    &cookies::SECTION,
    &activity::SECTION,
    &rules::Rules,
    &limits::SECTION,
    &capture::SECTION,
    &daemon::SECTION,
    &http::Http,
    &metrics::SECTION,
    &sink::Sinks,
];

/// A section that is nothing but keys.
struct Plain {
    name: &'static str,
    help: &'static str,
    keys: &'static [Key<Config>],
}

impl Section for Plain {
    fn name(&self) -> &'static str {
        self.name
    }

    fn key_names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name).collect()
    }

    fn read(&self, item: &Item<'_>, config: &mut Config, checker: &mut Checker<'_>) {
        if let Some(table) = checker.table(item, &format!("begin it with [{}]", self.name)) {
            read_table(self.keys, table, config, checker);
        }
    }

    fn show(&self, config: &Config, out: &mut String) {
        let _ = writeln!(out, "\n[{}]", self.name);
        show_table(self.keys, config, out);
    }

    fn example(&self, _rules: &[&'static Rule], out: &mut String) {
        out.push('\n');
        comment(self.help, out);
        let _ = writeln!(out, "[{}]", self.name);
        example_table(self.keys, out);
    }

    fn schema(&self, _rules: &[&'static Rule]) -> Json {
        schema_table(self.keys, self.help)
    }
}
