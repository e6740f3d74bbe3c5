//! Every shipped capture against what was really done when it was recorded: nodes, links, handshakes, TLS, EPMD,
//! remote actions, octet and message counts, and alerts — and nothing that nothing caused.

use std::collections::BTreeMap;

use e2e::{capture, items, names, report, text, truths};
use serde_json::Value;

/// What is missing or false in one report.
struct Findings(Vec<String>);

impl Findings {
    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }
}

/// For each capture, one kind of fact is compared; all mistakes of all captures are shown at once.
fn compare(check: fn(&Value, &Value, &mut Findings)) {
    let mut mistakes = Vec::new();
    for truth in truths() {
        for name in names(&truth) {
            let mut findings = Findings(Vec::new());
            check(&truth, &report(&capture(&name)), &mut findings);
            mistakes.extend(findings.0.into_iter().map(|mistake| format!("{name}: {mistake}")));
        }
    }
    assert!(mistakes.is_empty(), "{} mistakes:\n{}", mistakes.len(), mistakes.join("\n"));
}

fn is_cut(truth: &Value) -> bool {
    truth["recorded"]["snaplen"].as_u64().is_some_and(|len| len < 1000)
}

/// Connections that are on the captured interface, with both addresses known.
fn connections(truth: &Value) -> impl Iterator<Item = &Value> {
    items(truth, "connections").iter().filter(|connection| {
        connection["visible"] != false && connection["src_ip"].is_string() && connection["dst_ip"].is_string()
    })
}

/// The words that `handshake.outcome` may be for a truth's outcome; none where the truth is about something else.
fn outcomes(of: &str) -> &'static [&'static str] {
    const WORDS: [(&str, &[&str]); 7] = [
        ("ok", &["ok"]),
        ("bad-cookie", &["bad_cookie"]),
        ("not_allowed", &["not_allowed"]),
        ("refused: capability", &["flags_refused", "not_allowed"]),
        ("never finished: nothing", &[]),
        ("never finished: only the two", &[]),
        ("never finished", &["incomplete", "foreign"]),
    ];
    WORDS.iter().find(|(start, _)| of.starts_with(start)).map_or(&[], |(_, words)| words)
}

/// Pairs each connection of the truth with a link of the report.
fn paired<'a>(truth: &'a Value, report: &'a Value) -> Vec<(&'a Value, Option<&'a Value>)> {
    let mut free: Vec<&Value> = items(report, "links").iter().collect();
    let mut pairs = Vec::new();
    for connection in connections(truth) {
        let wanted = outcomes(text(connection, "outcome"));
        if wanted.is_empty() && !text(connection, "outcome").starts_with("tls-failed") {
            continue;
        }
        let fits = |link: &Value| {
            let (from, to) = (text(&link["initiator"], "ip"), text(&link["acceptor"], "ip"));
            let (source, target) = (text(connection, "src_ip"), text(connection, "dst_ip"));
            let port = connection["dst_port"].is_null() || connection["dst_port"] == link["acceptor"]["port"];
            // Where both sides began at once, either may be the initiator of the connection that is left.
            from == source && to == target && port
                || connection.get("round").is_some() && from == target && to == source
        };
        let rank = |link: &Value| {
            let outcome = wanted.contains(&text(&link["handshake"], "outcome"));
            (outcome, link["initiator"]["node"] == connection["initiator"])
        };
        let best = free
            .iter()
            .enumerate()
            .filter(|(_, link)| fits(link))
            .max_by_key(|(place, link)| (rank(link), usize::MAX - place));
        let place = best.map(|(place, _)| place);
        pairs.push((connection, place.map(|place| free.remove(place))));
    }
    pairs
}

#[test]
fn every_connection_is_a_link_with_its_transport_and_its_outcome() {
    compare(|truth, report, findings| {
        for (connection, link) in paired(truth, report) {
            let what = format!("{} -> {}", text(connection, "initiator"), text(connection, "target"));
            let Some(link) = link else {
                findings.expect(false, || format!("{what}: no link"));
                continue;
            };
            let tls = text(connection, "tls");
            let version = matches!(tls, "1.2" | "1.3").then_some(tls);
            let wanted = outcomes(text(connection, "outcome"));
            if wanted != ["incomplete", "foreign"] {
                let transport = if version.is_some() { "tls" } else { "cleartext" };
                findings.expect(link["transport"] == transport, || format!("{what}: {}", link["transport"]));
            }
            match version {
                Some(version) => {
                    findings.expect(link["tls"]["version"] == version, || format!("{what}: {}", link["tls"]));
                }
                None if connection["before_capture"] != true && !is_cut(truth) => {
                    let holds = wanted.contains(&text(&link["handshake"], "outcome"));
                    findings.expect(holds, || format!("{what}: {}", link["handshake"]));
                }
                None => {}
            }
        }
    });
}

#[test]
fn whether_both_sides_showed_a_certificate_is_said_and_never_wrongly() {
    compare(|truth, report, findings| {
        for (connection, link) in paired(truth, report) {
            let (Some(link), Some(mutual)) = (link, connection["mutual"].as_bool()) else { continue };
            if text(connection, "tls") == "none" || text(connection, "outcome").starts_with("tls-failed") {
                continue;
            }
            let wanted = if mutual { "yes" } else { "no" };
            findings.expect(link["tls"]["mutual_auth"] == wanted, || {
                format!(
                    "mutual {mutual}: {} with {}",
                    link["tls"]["mutual_auth"], link["tls"]["mutual_auth_confidence"]
                )
            });
        }
    });
}

#[test]
fn every_node_of_a_cleartext_handshake_is_known_by_name_and_address_and_no_other() {
    compare(|truth, report, findings| {
        let reached: Vec<&str> = connections(truth)
            .filter(|connection| text(connection, "tls") == "none" && connection["before_capture"] != true)
            .filter(|connection| matches!(text(connection, "outcome"), "ok" | "bad-cookie"))
            .flat_map(|connection| [text(connection, "initiator"), text(connection, "target")])
            .collect();
        for node in items(truth, "nodes") {
            if !reached.contains(&text(node, "name")) || node["dynamic_name"] == true || is_cut(truth) {
                continue;
            }
            let seen = items(report, "nodes").iter().find(|seen| seen["name"] == node["name"]);
            let addresses =
                |value: &Value, field: &str| items(value, field).iter().map(Value::to_string).collect::<Vec<_>>();
            let here = addresses(node, "ips");
            let holds =
                seen.is_some_and(|seen| addresses(seen, "addresses").iter().any(|address| here.contains(address)));
            findings.expect(holds, || format!("node {} at {here:?}", node["name"]));
            let otp = text(node, "otp").parse::<u64>().ok();
            if let (Some(otp), Some(seen)) = (otp, seen) {
                let inside = seen["otp"]["min"].as_u64().is_none_or(|min| min <= otp)
                    && seen["otp"]["max"].as_u64().is_none_or(|max| otp <= max);
                findings.expect(inside, || format!("node {} runs OTP {otp}: {}", node["name"], seen["otp"]));
                // The scenario did not always ask the node for it.
                let creation = node["creation"].is_null()
                    || seen["creations"].as_array().is_some_and(|known| known.contains(&node["creation"]));
                findings.expect(creation, || {
                    format!("node {} has creation {}: {}", node["name"], node["creation"], seen["creations"])
                });
            }
        }
        let short = |name: &str| name.split('@').next().unwrap_or_default().to_owned();
        let mut known: Vec<String> = items(truth, "nodes").iter().map(|node| short(text(node, "name"))).collect();
        known.extend(
            items(truth, "connections").iter().flat_map(|c| [short(text(c, "initiator")), short(text(c, "target"))]),
        );
        known.extend(items(truth, "epmd_requests").iter().map(|request| short(text(request, "name"))));
        for node in items(report, "nodes") {
            let holds = node["dynamic_name"] == true || known.contains(&short(text(node, "name")));
            findings.expect(holds, || format!("nothing was named {}", node["name"]));
        }
    });
}

#[test]
fn every_epmd_request_is_there() {
    const KINDS: [(&str, &str); 6] = [
        ("ALIVE2_REQ", "alive2"),
        ("PORT_PLEASE2_REQ", "port_please2"),
        ("NAMES_REQ", "names"),
        ("DUMP_REQ", "dump"),
        ("KILL_REQ", "kill"),
        ("STOP_REQ", "stop"),
    ];
    compare(|truth, report, findings| {
        let mut owed: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for request in items(truth, "epmd_requests") {
            let kind = KINDS.iter().find(|(kind, _)| *kind == text(request, "type"));
            if let (Some((_, kind)), true) = (kind, request["visible"] != false) {
                *owed.entry((kind, text(request, "name"))).or_default() +=
                    request["count"].as_u64().unwrap_or(1) as usize;
            }
        }
        for ((kind, name), count) in owed {
            let seen =
                items(report, "epmd").iter().filter(|e| text(e, "request") == kind && text(e, "name") == name).count();
            findings.expect(seen >= count, || format!("{count} x {kind} {name:?}: {seen}"));
        }
    });
}

#[test]
fn every_remote_action_in_clear_is_named() {
    const CALL: &[&str] = &["rpc_call", "erpc_call", "rpc_block_call", "spawn"];
    const CAST: &[&str] = &["rpc_cast", "erpc_cast", "spawn"];
    compare(|truth, report, findings| {
        if is_cut(truth) {
            return;
        }
        let readable = |a: &Value, b: &Value| {
            let between =
                |c: &&Value| (c["initiator"] == *a && c["target"] == *b) || (c["initiator"] == *b && c["target"] == *a);
            let mut all = items(truth, "connections").iter().filter(between).peekable();
            all.peek().is_some()
                && all.all(|c| c["tls"] == "none" && c["before_capture"] != true && c["visible"] != false)
        };
        for action in items(truth, "actions") {
            let kinds: &[&str] = match text(action, "kind") {
                "rpc:call" | "rpc:multicall" | "rpc:block_call" | "erpc:call" | "erpc:multicall"
                | "erpc:send_request" => CALL,
                "rpc:cast" | "erpc:cast" => CAST,
                "spawn" => &["spawn"],
                "spawn_link" => &["spawn_link"],
                "spawn_monitor" | "spawn_request" => &["spawn_monitor"],
                "gen_server:call" | "gen_server:multi_call" => &["gen_call"],
                "gen_server:cast" => &["gen_cast"],
                "send-to-registered-name" => &["send_named"],
                _ => continue,
            };
            if !readable(&action["from"], &action["to"]) {
                continue;
            }
            let (mfa, target) = (text(action, "mfa"), text(action, "target"));
            if mfa.contains("fun") || mfa.is_empty() && target.is_empty() {
                continue;
            }
            let same = |seen: &&Value| {
                kinds.contains(&text(seen, "kind"))
                    && seen["from_node"] == action["from"]
                    && seen["to_node"] == action["to"]
                    && if mfa.is_empty() {
                        text(seen, "target") == target
                    } else {
                        text(seen, "mfa").starts_with(&format!("{mfa}/"))
                    }
            };
            let seen: u64 =
                items(report, "activity").iter().filter(same).filter_map(|seen| seen["count"].as_u64()).sum();
            let wanted = action["count"].as_u64().unwrap_or(1);
            findings.expect(seen >= wanted, || {
                format!("{} {mfa}{target} from {}: {seen} of {wanted}", action["kind"], action["from"])
            });
        }
    });
}

#[test]
fn octets_and_messages_are_those_that_the_nodes_counted_themselves() {
    compare(|truth, report, findings| {
        for socket in items(truth, "sockets_at_end").iter().flat_map(|node| items(node, "tcp")) {
            // The sockets of distribution links in clear that were captured from their start.
            let Some(link) = link_of(truth, report, socket) else { continue };
            let (sent, received) = if link["initiator"]["port"] == port_of(socket, "local") {
                ("from_initiator", "from_acceptor")
            } else {
                ("from_acceptor", "from_initiator")
            };
            for (direction, octets, messages) in [(sent, "send_oct", "send_cnt"), (received, "recv_oct", "recv_cnt")] {
                let (seen, counted) = (link["bytes"][direction].as_u64(), socket[octets].as_u64());
                // A tick may have come after the node was asked.
                let late = seen.zip(counted).map_or(u64::MAX, |(seen, counted)| seen.wrapping_sub(counted));
                findings.expect(late <= 8, || {
                    format!("{octets} {counted:?}, seen {seen:?} ({direction} of {})", link["flow_id"])
                });
                let (seen, counted) = (link["messages"][direction].as_u64(), socket[messages].as_u64());
                let late = seen.zip(counted).map_or(u64::MAX, |(seen, counted)| seen.wrapping_sub(counted));
                findings.expect(late <= 2, || {
                    format!("{messages} {counted:?}, seen {seen:?} ({direction} of {})", link["flow_id"])
                });
            }
        }
    });
}

fn port_of(socket: &Value, end: &str) -> Value {
    text(socket, end).rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).map_or(Value::Null, Value::from)
}

fn link_of<'a>(truth: &Value, report: &'a Value, socket: &Value) -> Option<&'a Value> {
    let (local, peer) = (port_of(socket, "local"), port_of(socket, "remote"));
    if local.is_null() || peer.is_null() || is_cut(truth) || text(truth, "scenario").contains("mid-stream") {
        return None;
    }
    items(report, "links").iter().find(|link| {
        let ports = (&link["initiator"]["port"], &link["acceptor"]["port"]);
        link["transport"] == "cleartext" && (ports == (&local, &peer) || ports == (&peer, &local))
    })
}

#[test]
fn what_a_good_monitor_raises_is_raised_and_nothing_false() {
    /// Rules that follow from a scenario as a whole, beside those that its truth names.
    const ALSO_RIGHT: &[&str] = &[
        "weak-tls",
        "node-restarted",
        "unexpected-peer",
        "known-scanner",
        "node-name-conflict",
        "node-lost",
        "hidden-node",
        "handshake-stalled",
        "not-distribution",
        "not-epmd",
        "protocol-violation",
        "bad-cookie",
        "epmd-enumeration",
        "cleartext-attempt",
        "outdated-otp",
        "expiring-certificate",
        "remote-control",
        "tls-without-client-certificate",
        "capture-loss",
        "epmd-exposed",
    ];
    compare(|truth, report, findings| {
        let rule_of = |word: &str| match word {
            "distribution-on-client-network" => "distribution-exposed".to_owned(),
            "default-cookie" => "weak-cookie".to_owned(),
            "epmd-dump" => "epmd-enumeration".to_owned(),
            "epmd-kill" | "epmd-stop" => "epmd-control".to_owned(),
            "address-mismatch" => "node-name-conflict".to_owned(),
            "old-tls" => "weak-tls".to_owned(),
            other => other.to_owned(),
        };
        let owed: Vec<(String, &str)> = items(truth, "expected_alerts")
            .iter()
            .map(|alert| (rule_of(text(alert, "rule")), text(alert, "subject")))
            .collect();
        for (rule, subject) in &owed {
            // TLS 1.2 is the policy's minimum here, and one address behind a forwarder is a matter of policy.
            if ["weak-tls", "node-name-conflict"].contains(&rule.as_str())
                || rule.starts_with("remote-") && is_cut(truth)
            {
                continue;
            }
            let whom: Vec<&str> =
                subject.split([' ', ',']).filter(|word| word.contains('@') || word.matches('.').count() == 3).collect();
            // Nobody can know a port for distribution that no answer of EPMD told of.
            let told = |port: &str| items(report, "epmd").iter().any(|e| text(e, "result") == format!("port {port}"));
            if rule == "not-distribution" && !subject.rsplit(':').next().is_some_and(told) {
                continue;
            }
            let raised = items(report, "alerts").iter().filter(|alert| text(alert, "rule_id") == rule);
            let said: String = raised.map(Value::to_string).collect();
            // Inside TLS and after the handshake, the wire has addresses for names.
            let is_said = |name: &&str| {
                let node = items(truth, "nodes").iter().find(|node| text(node, "name") == *name);
                let mut addresses = node.into_iter().flat_map(|node| items(node, "ips")).filter_map(Value::as_str);
                said.contains(name) || addresses.any(|address| said.contains(address))
            };
            findings.expect(!said.is_empty() && whom.iter().all(is_said), || format!("{rule} for {subject}"));
        }
        for alert in items(report, "alerts") {
            let rule = text(alert, "rule_id");
            let right = owed.iter().any(|(owed, _)| owed == rule) || ALSO_RIGHT.contains(&rule);
            let matters = matches!(text(alert, "severity"), "medium" | "high" | "critical");
            findings.expect(right || !matters, || {
                format!("false: {rule} ({}) {}", text(alert, "severity"), text(alert, "subject"))
            });
        }
    });
}
