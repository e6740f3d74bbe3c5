//! What is shipped for Prometheus and Alertmanager, with real ones beside the daemon and real nodes that give cause.

use std::fs;
use std::process::{Command, Stdio};

use e2e::live::{BackEnd, Host, Lab, Node, NodeOptions, Watch, eventually};
use e2e::root;
use serde_json::Value;

use crate::{ISOLATED, live};

/// The daemon's own way to Alertmanager, beside that over Prometheus.
const SINK: &str = "\n[[sink]]\ntype = \"alertmanager\"\nurl = [\"http://127.0.0.1:9093\"]\nbatch_wait = \"100ms\"\n";

#[test]
fn shipped_rules_fire_and_resolve_on_what_nodes_do() {
    live!("Prometheus and Alertmanager beside the daemon");
    for program in ["prometheus", "promtool", "prometheus-alertmanager", "amtool"] {
        if Command::new(program).arg("--version").output().is_err() {
            eprintln!("SKIPPED: shipped rules on real events: no {program} (`cargo xtask setup` installs it)");
            return;
        }
    }
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    start_servers(&b);
    let policy = format!("{ISOLATED}{SINK}");
    let daemon = Watch::new(&b, BackEnd::Ebpf).policy(&policy).words(&["--http", "127.0.0.1:9469"]).start();
    let db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
    web.join(&db.name);
    eventually("the rule fires", || (fires(&b, "DistwatchFindingHigh") == 1).then_some(()));
    for from in ["service=\"distwatch\"", "job=\"distwatch\""] {
        eventually(&format!("Alertmanager has it from {from}"), || (!held(&b, from).is_empty()).then_some(()));
    }
    let own = held(&b, "service=\"distwatch\"");
    assert_eq!(own[0]["labels"]["rule_id"], "cleartext-distribution", "{own:?}");
    assert!(own[0]["annotations"]["remediation"].as_str().is_some_and(|text| text.contains("inet_tls")), "{own:?}");

    // The condition ends with its link.
    db.stop();
    web.stop();
    eventually("the rule resolves", || (fires(&b, "DistwatchFindingHigh") == 0).then_some(()));
    // That it was raised is told for some time yet, by another rule.
    eventually("Alertmanager has it no more", || {
        let still = ["service=\"distwatch\"", "alertname=\"DistwatchFindingHigh\""].map(|from| held(&b, from));
        still.iter().flatten().all(|alert| alert["labels"]["rule_id"] != "cleartext-distribution").then_some(())
    });
    daemon.stop();
}

/// Both servers with what is shipped, but that they look every second.
fn start_servers(host: &Host) {
    let shipped = root().join("dashboards");
    let folder = host.home().join("prometheus");
    fs::create_dir(&folder).expect("a folder");
    for rules in ["alerting.rules.yml", "recording.rules.yml"] {
        fs::copy(shipped.join("prometheus").join(rules), folder.join(rules)).expect("shipped rules");
    }
    let config = fs::read_to_string(shipped.join("prometheus/prometheus.yml")).expect("the shipped configuration");
    let config = config.replace("_interval: 15s", "_interval: 1s");
    fs::write(folder.join("prometheus.yml"), config).expect("a configuration");
    let mut prometheus = host.observer("prometheus");
    prometheus.args([
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        "--web.listen-address=127.0.0.1:9090",
    ]);
    let mut alertmanager = host.observer("prometheus-alertmanager");
    let config = shipped.join("alertmanager/alertmanager.yml");
    alertmanager.arg(format!("--config.file={}", config.display()));
    alertmanager.args(["--storage.path=am", "--web.listen-address=127.0.0.1:9093", "--cluster.listen-address="]);
    for server in [&mut prometheus, &mut alertmanager] {
        server.current_dir(&folder).stdout(Stdio::null()).stderr(Stdio::null());
        // They end with the host.
        drop(host.spawn(server));
    }
    eventually("Alertmanager answers", || amtool(host, &["alert", "query"]).map(drop));
    eventually("Prometheus answers", || query(host, "vector(1)").map(drop));
}

/// How many alerts of this name Prometheus fires.
fn fires(host: &Host, name: &str) -> usize {
    query(host, &format!("ALERTS{{alertname=\"{name}\",alertstate=\"firing\"}}"))
        .map_or(usize::MAX, |found| found.len())
}

fn query(host: &Host, expression: &str) -> Option<Vec<Value>> {
    json(host.observer("promtool").args(["query", "instant", "-o", "json", "http://127.0.0.1:9090", expression]))
}

/// The alerts that Alertmanager holds with this label.
fn held(host: &Host, label: &str) -> Vec<Value> {
    amtool(host, &["alert", "query", label]).unwrap_or_default()
}

fn amtool(host: &Host, words: &[&str]) -> Option<Vec<Value>> {
    json(host.observer("amtool").args(["-o", "json", "--alertmanager.url=http://127.0.0.1:9093"]).args(words))
}

fn json(command: &mut Command) -> Option<Vec<Value>> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| serde_json::from_slice(&output.stdout).ok()).flatten()
}
