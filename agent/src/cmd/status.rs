//! `distwatch status`: asks the running daemon how it is.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result};
use distwatch_engine::text::safe;
use serde_json::Value;

use crate::cli::{StatusArgs, TextOrJson};
use crate::cmd::{Exit, Explain as _};

/// How long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer that is believed.
const LONGEST: u64 = 16 << 20;

/// Runs the command.
///
/// # Errors
/// No daemon answers.
pub fn run(args: &StatusArgs) -> Result<Exit> {
    let path = match &args.socket {
        Some(path) => path.clone(),
        None => args.policy.load()?.config.daemon.socket,
    };
    let ask = || -> io::Result<String> {
        let stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.take(LONGEST).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = ask()
        .with_context(|| format!("asking the daemon at {}", path.display()))
        .hint("is it running (`systemctl status distwatch`), and may this user open its socket?")
        .or_exit(Exit::NoCapture)?;
    let status: Value = serde_json::from_str(&text)
        .with_context(|| format!("reading the answer of the daemon at {}", path.display()))
        .or_exit(Exit::NoCapture)?;
    let mut out = io::stdout().lock();
    match args.format {
        TextOrJson::Json => writeln!(out, "{status:#}")?,
        TextOrJson::Text => {
            for line in lines(&status) {
                writeln!(out, "{line}")?;
            }
        }
    }
    Ok(Exit::Done)
}

/// The answer for a person: what is well, what was lost, what was seen.
fn lines(status: &Value) -> Vec<String> {
    let text = |pointer: &str| match status.pointer(pointer) {
        Some(Value::String(text)) => safe(text).into_owned(),
        Some(value) => value.to_string(),
        None => "?".to_owned(),
    };
    let layer = |pointer: &str| match status.pointer(&format!("{pointer}/reason")) {
        Some(Value::String(reason)) => format!("{} ({})", text(&format!("{pointer}/state")), safe(reason)),
        _ => text(&format!("{pointer}/state")),
    };
    let counts = |pointer: &str| -> String {
        let counts = status.pointer(pointer).and_then(Value::as_object);
        let list: Vec<String> =
            counts.into_iter().flatten().map(|(name, count)| format!("{count} {}", safe(name))).collect();
        if list.is_empty() { "none".to_owned() } else { list.join(", ") }
    };
    let mut lines = vec![
        format!("{} since {} (version {}, pid {})", text("/state"), text("/started"), text("/version"), text("/pid")),
        format!("capture:   {}", text("/capture/back_end")),
    ];
    let attachments = status.pointer("/capture/attachments").and_then(Value::as_array);
    for attachment in attachments.into_iter().flatten().filter_map(Value::as_str) {
        lines.push(format!("           {}", safe(attachment)));
    }
    lines.extend([
        format!(
            "packets:   {} seen, {} analysed, {} only counted, {} not watched, {} refused",
            text("/capture/seen"),
            text("/capture/handed"),
            text("/capture/counted"),
            text("/capture/uninteresting"),
            text("/capture/refused")
        ),
        format!("lost:      {}", counts("/capture/lost")),
        format!(
            "not kept:  {}; {} decisions refused",
            counts("/capture/shortfalls"),
            text("/capture/decisions_refused")
        ),
        format!("records:   {} written, {} dropped", text("/output/written"), text("/output/dropped")),
    ]);
    lines.extend(sinks(status).map(|line| format!("sink:      {line}")));
    if status.get("http").is_some_and(|http| !http.is_null()) {
        lines.push(format!(
            "http:      {} connections, {} told of events; {} refused, {} gave way, {} cut off",
            text("/http/connections"),
            text("/http/streams"),
            text("/http/refused"),
            text("/http/gave_way"),
            text("/http/cut_off")
        ));
    }
    lines.extend([
        format!(
            "sandbox:   capabilities {}, Landlock {}, seccomp {}",
            layer("/sandbox/dropped"),
            layer("/sandbox/landlock"),
            layer("/sandbox/seccomp")
        ),
        format!("nodes:     {}", text("/cluster/nodes")),
        format!("links:     {}", counts("/cluster/links")),
        format!("findings:  {}", counts("/cluster/findings")),
        format!("limits:    {}", counts("/stats/limits_reached")),
    ]);
    lines
}

/// `loki: 12 sent, 3 waiting (4096 octets); fails since 2026-01-01T00:00:00Z: refused`
fn sinks(status: &Value) -> impl Iterator<Item = String> {
    let word = |value: &Value| match value {
        Value::String(text) => safe(text).into_owned(),
        value => value.to_string(),
    };
    status["sinks"].as_array().into_iter().flatten().map(move |sink| {
        let records = sink["records"].as_object();
        let counts: Vec<String> = records
            .into_iter()
            .flatten()
            .filter(|(_, count)| count.as_u64() != Some(0))
            .map(|(name, count)| format!("{count} {}, ", safe(name)))
            .collect();
        let mut line = format!("{} ({}): {}", word(&sink["name"]), word(&sink["kind"]), counts.concat());
        line += &format!("{} waiting ({} octets)", word(&sink["queued"]), word(&sink["spool_bytes"]));
        if !sink["failing_since"].is_null() {
            line += &format!("; fails since {}: {}", word(&sink["failing_since"]), word(&sink["last_error"]));
        }
        line
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_person_is_told_what_was_lost_and_text_of_peers_is_made_safe() {
        let status = json!({
            "state": "capturing", "started": "2026-01-01T00:00:00Z", "version": "1", "pid": 7,
            "capture": { "back_end": "pcap", "attachments": ["eth\u{1b}[0m"], "seen": 10, "handed": 7,
                "counted": 0, "uninteresting": 0, "refused": 0, "lost": { "kernel": 3 },
                "shortfalls": { "flow-table": 4 }, "decisions_refused": 5 },
            "output": { "written": 2, "dropped": 0 },
            "sinks": [{ "name": "loki", "kind": "loki", "records": { "sent": 8, "refused": 0 }, "queued": 3,
                "spool_bytes": 900, "failing_since": "2026-01-01T00:00:00Z", "last_error": "429\u{1b}[0m" }],
            "http": { "connections": 4, "streams": 3, "refused": 2, "gave_way": 6, "cut_off": 1, "answers": [9, 0, 0, 0] },
            "sandbox": { "dropped": { "state": "full" }, "landlock": { "state": "off", "reason": "no kernel" },
                "seccomp": { "state": "full" } },
            "cluster": { "nodes": 2, "links": { "tls": 1 }, "findings": {} },
            "stats": { "limits_reached": {} },
        });
        let text = lines(&status).join("\n");
        assert!(text.contains("lost:      3 kernel") && text.contains("links:     1 tls"), "{text}");
        assert!(text.contains("not kept:  4 flow-table; 5 decisions refused"), "{text}");
        assert!(text.contains("sink:      loki (loki): 8 sent, 3 waiting (900 octets); fails since 2026"), "{text}");
        assert!(
            text.contains("http:      4 connections, 3 told of events; 2 refused, 6 gave way, 1 cut off"),
            "{text}"
        );
        assert!(text.contains("capabilities full, Landlock off (no kernel), seccomp full"), "{text}");
        assert!(text.contains("findings:  none") && !text.contains('\u{1b}') && !text.contains('?'), "{text}");
    }
}
