//! `[[cluster]]`: which nodes belong together, and which clusters may talk to each other.

use std::collections::HashSet;
use std::fmt::Write as _;

use distwatch_engine::detect::Rule;
use distwatch_engine::policy::Cluster;
use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::Section;
use crate::config::Config;
use crate::config::checker::{Checker, Item};
use crate::config::form::{Globs, List, Maybe, Name, Network};
use crate::config::key::{Key, comment, example_table, key, read_table, schema_table, show_table};
use crate::config::mistake::quoted;
use crate::near::nearest;

const HELP: &str = "A cluster: the nodes that may be linked with each other. Repeat the section for each one. Where \
                    none is declared, no node is unexpected and no link crosses a border.";

const KEYS: &[Key<Cluster>] = &[
    key!("name", Name, Cluster.name, "What it is called in findings.").example("\"shop\"").unset("it must be given"),
    key!(
        "tier",
        Maybe<Name>,
        Cluster.tier,
        "The tier that it belongs to. A link between two clusters or two tiers is a finding unless `links_to` allows \
         it."
    )
    .example("\"web\"")
    .unset("no tier"),
    key!("nodes", Globs, Cluster.nodes, "The names of its nodes.")
        .example(r#"["web@*.shop.internal", "worker-*@10.77.0.*"]"#),
    key!("addresses", List<Network>, Cluster.addresses, "Where its nodes are. Empty means anywhere.")
        .example(r#"["10.77.0.0/24"]"#),
    key!(
        "links_to",
        List<Name>,
        Cluster.links_to,
        "Names of other clusters, or of tiers, that it may have links with."
    ),
];

/// The section.
pub(super) struct Clusters;

impl Section for Clusters {
    fn name(&self) -> &'static str {
        "cluster"
    }

    fn header(&self) -> String {
        "[[cluster]]".to_owned()
    }

    fn key_names(&self) -> Vec<&'static str> {
        KEYS.iter().map(|key| key.name).collect()
    }

    fn read(&self, item: &Item<'_>, config: &mut Config, checker: &mut Checker<'_>) {
        let advice = "begin each cluster with [[cluster]], in double brackets";
        let Some(list) = checker.list(item, advice) else { return };
        let clusters: Vec<Cluster> = list.iter().map(|item| read_cluster(item, advice, checker)).collect();
        check_names(list, &clusters, checker);
        check_links(list, &clusters, checker);
        config.policy.clusters = clusters;
    }

    fn show(&self, config: &Config, out: &mut String) {
        for cluster in &config.policy.clusters {
            out.push_str("\n[[cluster]]\n");
            show_table(KEYS, cluster, out);
        }
    }

    fn example(&self, _rules: &[&'static Rule], out: &mut String) {
        out.push('\n');
        comment(HELP, out);
        let _ = writeln!(out, "#[[cluster]]");
        example_table(KEYS, out);
    }

    fn schema(&self, _rules: &[&'static Rule]) -> Json {
        let mut cluster = schema_table(KEYS, HELP);
        if let Some(object) = cluster.as_object_mut() {
            object.insert("required".to_owned(), json!(["name"]));
        }
        json!({ "type": "array", "items": cluster })
    }
}

fn read_cluster(item: &Item<'_>, advice: &str, checker: &mut Checker<'_>) -> Cluster {
    let mut cluster = Cluster::default();
    if let Some(table) = checker.table(item, advice) {
        read_table(KEYS, table, &mut cluster, checker);
        if !table.contains_key("name") {
            checker.wrong(item.span(), "a cluster has no name", "give it one: name = \"shop\"");
        }
        if !table.contains_key("nodes") && !table.contains_key("addresses") {
            let advice = "say which nodes belong to it: nodes = [\"web@*\"]";
            checker.wrong(item.span(), "a cluster has neither nodes nor addresses", advice);
        }
    }
    cluster
}

fn check_names(list: &[Item<'_>], clusters: &[Cluster], checker: &mut Checker<'_>) {
    let mut names = HashSet::new();
    for (item, cluster) in list.iter().zip(clusters) {
        if !cluster.name.is_empty() && !names.insert(cluster.name.as_str()) {
            let at = item.get_ref().get("name").unwrap_or(item).span();
            let what = format!("there is a cluster of the name {} already", quoted(&cluster.name));
            checker.within("name", |checker| {
                checker.wrong(at, what, "give each cluster its own name, or put the nodes of both into one");
            });
        }
    }
}

/// Each name in `links_to` must be that of a cluster or a tier, wherever in the file that stands.
fn check_links(list: &[Item<'_>], clusters: &[Cluster], checker: &mut Checker<'_>) {
    let known: HashSet<&str> = clusters
        .iter()
        .flat_map(|cluster| [Some(cluster.name.as_str()), cluster.tier.as_deref()])
        .flatten()
        .filter(|name| !name.is_empty())
        .collect();
    for item in list {
        let Some(DeValue::Array(links)) = item.get_ref().get("links_to").map(|links| links.get_ref()) else { continue };
        for link in links {
            let Some(name) = link.get_ref().as_str().filter(|name| !name.trim().is_empty()) else { continue };
            if known.contains(name) || checker.mistakes.is_full() {
                continue;
            }
            let advice = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "name a cluster or a tier of this file".to_owned(),
            };
            checker.within("links_to", |checker| {
                checker.wrong(link.span(), format!("{} is neither a cluster nor a tier", quoted(name)), advice);
            });
        }
    }
}
