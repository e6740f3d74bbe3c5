//! Every EPMD message and every handshake message that tshark decodes in the shipped captures is decoded alike.
//!
//! tshark does not know distribution on a port that it was not told of, takes EPMD's newer answers for noise and needs
//! one message a segment (`docs/protocol.md` §12.3), so the comparison goes one way: what it shows must be in our report.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use e2e::{capture, items, names, report, text, truths};
use serde_json::Value;

/// Runs tshark and returns the wanted fields of each packet that matches; `None`, said aloud, where it is not installed.
fn tshark(path: &Path, filter: &str, fields: &[&str], ports: &BTreeSet<u64>) -> Option<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(path).args([
        "-Y",
        filter,
        "-T",
        "fields",
        "-E",
        "separator=|",
        "-E",
        "occurrence=a",
    ]);
    for port in ports {
        command.args(["-d", &format!("tcp.port=={port},erldp")]);
    }
    for field in fields {
        command.args(["-e", field]);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: tshark is not installed (`cargo xtask setup` installs it)");
            return None;
        }
        Err(error) => panic!("tshark: {error}"),
    };
    assert!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect())
}

/// Whether a number of the report is the one that tshark shows.
fn is(number: &Value, shown: &str) -> bool {
    number.as_u64().is_some() && number.as_u64() == shown.parse().ok()
}

/// All shipped captures with their reports and distribution ports.
fn all() -> impl Iterator<Item = (String, Value, BTreeSet<u64>)> {
    truths().into_iter().flat_map(|truth| {
        let cut = truth["recorded"]["snaplen"].as_u64().is_some_and(|len| len < 1000);
        names(&truth).into_iter().filter(move |_| !cut).map(move |name| {
            let ports = items(&truth, "connections")
                .iter()
                .filter(|c| c["tls"] == "none")
                .filter_map(|c| c["dst_port"].as_u64());
            (name.clone(), report(&capture(&name)), ports.collect())
        })
    })
}

#[test]
fn every_epmd_message_that_tshark_decodes_is_decoded_alike() {
    let mut compared = 0;
    for (name, report, _) in all() {
        let fields = ["epmd.type", "epmd.name", "epmd.port_no", "tcp.srcport", "tcp.dstport"];
        let Some(rows) = tshark(&capture(&name), "epmd", &fields, &BTreeSet::new()) else { return };
        for row in rows {
            let [kind, node, port, source, target] = row.as_slice() else { panic!("{name}: {row:?}") };
            let client = |exchange: &Value, port: &str| is(&exchange["client"]["port"], port);
            let same = |exchange: &Value| match kind.as_str() {
                "120" => {
                    text(exchange, "request") == "alive2"
                        && text(exchange, "name") == node
                        && is(&exchange["node"]["port"], port)
                        && client(exchange, source)
                }
                "122" => {
                    text(exchange, "request") == "port_please2"
                        && text(exchange, "name") == node
                        && client(exchange, source)
                }
                "110" => text(exchange, "request") == "names" && client(exchange, source),
                "121" => {
                    text(exchange, "request") == "alive2" && exchange["creation"].is_u64() && client(exchange, target)
                }
                "119" => {
                    text(exchange, "request") == "port_please2"
                        && client(exchange, target)
                        && (port.is_empty() || is(&exchange["node"]["port"], port))
                }
                // An old-style name message that was sent to EPMD by mistake, and other noise, has no type that counts here.
                _ => true,
            };
            let noise = name.starts_with("garbage");
            assert!(noise || items(&report, "epmd").iter().any(same), "{name}: tshark shows {row:?}");
            compared += 1;
        }
    }
    assert!(compared > 200, "only {compared} EPMD messages were compared");
}

#[test]
fn every_handshake_message_that_tshark_decodes_is_decoded_alike() {
    let mut compared = 0;
    for (name, report, ports) in all() {
        let fields = [
            "erldp.tag",
            "erldp.name",
            "erldp.flags_v6",
            "erldp.creation",
            "erldp.status",
            "tcp.srcport",
            "tcp.dstport",
        ];
        let Some(rows) = tshark(&capture(&name), "erldp.tag", &fields, &ports) else { return };
        for row in rows {
            let [tag, node, flags, creation, status, source, target] = row.as_slice() else {
                panic!("{name}: {row:?}")
            };
            let tag = tag.trim_matches('\'');
            let links: Vec<&Value> = items(&report, "links")
                .iter()
                .filter(|link| {
                    let ends = [&link["initiator"]["port"], &link["acceptor"]["port"]];
                    [source, target].iter().all(|port| ends.iter().any(|end| is(end, port)))
                })
                .collect();
            if name.starts_with("garbage") {
                continue;
            }
            assert!(!links.is_empty(), "{name}: tshark shows a handshake on {source} -> {target}");
            let number = |text: &str| {
                text.strip_prefix("0x")
                    .map_or_else(|| text.parse::<u64>().ok(), |hex| u64::from_str_radix(hex, 16).ok())
            };
            let alike = |link: &Value| {
                let from_initiator = is(&link["initiator"]["port"], source);
                let (end, prefix) = if from_initiator { ("initiator", "initiator") } else { ("acceptor", "acceptor") };
                let handshake = &link["handshake"];
                match tag {
                    // tshark cannot tell a dynamic name's host from a name; the final name is the one it was given.
                    "N" | "n" => {
                        let named = handshake["dynamic_name"] == true || text(&link[end], "node") == node;
                        let flagged = number(flags)
                            .is_none_or(|flags| handshake[format!("{prefix}_flags")].as_u64() == Some(flags));
                        let created = number(creation).is_none_or(|creation| {
                            handshake["dynamic_name"] == true
                                || handshake[format!("{prefix}_creation")].as_u64() == Some(creation)
                        });
                        named && flagged && created
                    }
                    "s" => text(handshake, "status") == status.trim_end_matches(':'),
                    "r" | "a" => link["messages"]["from_initiator"].as_u64() > Some(0),
                    _ => true,
                }
            };
            assert!(links.iter().any(|link| alike(link)), "{name}: tshark shows {row:?}, not {links:#?}");
            compared += 1;
        }
    }
    assert!(compared > 150, "only {compared} handshake messages were compared");
}
