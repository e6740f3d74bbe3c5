//! Rules and configurations, as Prometheus's and Alertmanager's own tools see them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards").join(name)
}

/// Runs the tool in the folder; without it says so, and that is all.
fn passes(program: &str, folder: &Path, arguments: &[&str]) {
    let output = match Command::new(program).args(arguments).current_dir(folder).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!(
                "SKIPPED: {program} {}: it is not installed (`cargo xtask setup` installs it)",
                arguments.join(" ")
            );
            return;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{program} {}:\n{}", arguments.join(" "), String::from_utf8_lossy(&said));
}

#[test]
fn prometheus_takes_the_rules_and_the_configuration() {
    let prometheus = folder("prometheus");
    passes(
        "promtool",
        &prometheus,
        &["check", "rules", "--lint=all", "--lint-fatal", "recording.rules.yml", "alerting.rules.yml"],
    );
    passes("promtool", &prometheus, &["check", "config", "prometheus.yml"]);
}

#[test]
fn rules_fire_and_rest_as_their_tests_say() {
    passes("promtool", &folder("prometheus"), &["test", "rules", "recording.test.yml", "alerting.test.yml"]);
}

#[test]
fn every_rule_has_a_test() {
    for (kind, in_rule, in_test) in [("recording", "- record: ", "- expr: "), ("alerting", "- alert: ", "alertname: ")]
    {
        let values = |file: String, key: &str| -> BTreeSet<String> {
            let text = std::fs::read_to_string(folder("prometheus").join(file)).unwrap();
            let after = text.lines().filter_map(|line| line.split_once(key));
            after.map(|(_, value)| value.split(',').next().unwrap().trim().to_owned()).collect()
        };
        let rules = values(format!("{kind}.rules.yml"), in_rule);
        assert!(rules.len() > 5);
        assert_eq!(rules, values(format!("{kind}.test.yml"), in_test));
    }
}

#[test]
fn alertmanager_takes_the_example() {
    passes("amtool", &folder("alertmanager"), &["check-config", "alertmanager.yml"]);
}

#[test]
fn alertmanager_routes_what_is_urgent_to_whoever_is_on_call() {
    let routes = [
        ("on-call", &["alertname=RemoteShell", "severity=critical", "rule_id=remote-shell", "host=a"][..]),
        ("on-call", &["alertname=DistwatchFindingHigh", "severity=critical", "rule_id=weak-tls", "instance=a"]),
        ("on-call", &["alertname=DistwatchDown", "severity=critical", "instance=a"]),
        ("tickets", &["alertname=DistwatchFindingMedium", "severity=warning", "rule_id=bad-cookie", "instance=a"]),
        ("tickets", &["alertname=DistwatchReloadFailed", "severity=warning", "instance=a"]),
        ("tickets", &["alertname=NodeRestarted", "severity=info", "rule_id=node-restarted", "host=a"]),
    ];
    for (receiver, labels) in routes {
        let verify = format!("--verify.receivers={receiver}");
        let test = ["config", "routes", "test", "--config.file=alertmanager.yml", verify.as_str()];
        passes("amtool", &folder("alertmanager"), &[&test[..], labels].concat());
    }
}

#[test]
fn a_message_names_the_rule_the_host_and_what_to_do() {
    let text = r#"{{ template "distwatch.title" . }}|{{ template "distwatch.text" . }}"#;
    let folder = folder("alertmanager");
    let arguments =
        ["template", "render", "--template.glob=templates/*.tmpl", "--template.text", text, "--template.data"];
    let data = tempfile::NamedTempFile::new().unwrap();
    let alert = serde_json::json!({
        "status": "firing",
        "labels": { "severity": "critical", "alertname": "RemoteShell", "rule_id": "remote-shell", "host": "app-1" },
        "annotations": { "summary": "A shell was opened", "description": "packet 7", "remediation": "Close it." },
        "startsAt": "2026-11-25T10:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
    });
    let message = serde_json::json!({
        "status": "firing",
        "alerts": [alert],
        "commonLabels": { "rule_id": "remote-shell", "host": "app-1" },
    });
    std::fs::write(data.path(), message.to_string()).unwrap();
    let output = Command::new("amtool").args(arguments).arg(data.path()).current_dir(folder).output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: the templates of messages: amtool is not installed (`cargo xtask setup` installs it)");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        said.trim(),
        "FIRING 1 remote-shell on app-1|CRITICAL: A shell was opened\npacket 7\nWhat to do: Close it.\n\
         Since 2026-11-25 10:00:00 UTC",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
