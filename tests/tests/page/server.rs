//! A stand-in for the daemon's HTTP interface: the page's own files under the daemon's policy, lists that a test gives, and
//! events when the test says so.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use serde_json::{Value, json};

/// What the daemon sends with every answer; a test compares it with what a running one sends.
pub(crate) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the stand-in knows; the daemon knows the same of a cluster.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) nodes: Vec<Value>,
    pub(crate) links: Vec<Value>,
    pub(crate) alerts: Vec<Value>,
    pub(crate) rules: Vec<Value>,
    pub(crate) stats: Value,
    pub(crate) sinks: Vec<Value>,
    /// Asked for, where there is one.
    pub(crate) token: Option<String>,
    pub(crate) listeners: Vec<TcpStream>,
    /// Every event since the start, or since it was forgotten; the first one has the number 1.
    pub(crate) events: Vec<String>,
    /// How often the daemon was started: what an older one said is not known to it.
    pub(crate) epoch: u64,
    /// Paths to which no answer comes: each is taken off as the connection of the one who asks is closed.
    pub(crate) silent: Vec<&'static str>,
}

/// Listens on loopback until the test ends.
pub(crate) struct Server {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}/", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A browser that goes away is no fault.
                thread::spawn(move || drop(answer(stream, &state)));
            }
        });
        Self { address, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the state")
    }

    /// Pages that listen to events.
    pub(crate) fn listeners(&self) -> usize {
        self.state().listeners.len()
    }

    /// A finding is there, and all who listen are told.
    pub(crate) fn raise(&self, alert: &Value) {
        let mut state = self.state();
        state.alerts.retain(|old| old["fingerprint"] != alert["fingerprint"]);
        state.alerts.push(alert.clone());
        state.send("alert", &json!({
            "schema_version": 1, "timestamp": alert["last_seen"], "event_type": "alert", "host": "sensor-1", "alert": alert,
        }));
    }

    /// All connections of listeners end.
    pub(crate) fn hang_up(&self) {
        for listener in self.state().listeners.drain(..) {
            let _ = listener.shutdown(std::net::Shutdown::Both);
        }
    }

    /// As when the daemon is started again: connections end, and what was said is forgotten.
    pub(crate) fn restart(&self, alerts: Vec<Value>) {
        self.hang_up();
        let mut state = self.state();
        state.epoch += 1;
        state.events.clear();
        state.alerts = alerts;
    }

    /// What is known now.
    pub(crate) fn alerts(&self) -> Vec<Value> {
        self.state().alerts.clone()
    }
}

impl State {
    fn send(&mut self, kind: &str, record: &Value) {
        let text = format!("id: {}-{}\nevent: {kind}\ndata: {record}\n\n", self.epoch, self.events.len() + 1);
        self.listeners.retain_mut(|listener| listener.write_all(text.as_bytes()).is_ok());
        self.events.push(text);
    }

    /// What somebody missed who heard of this event last.
    fn missed(&self, last: &str) -> String {
        let number = last.strip_prefix(&format!("{}-", self.epoch)).and_then(|number| number.parse().ok());
        match number.and_then(|number: usize| self.events.get(number..)) {
            Some(events) => format!("retry: 2000\nid: {last}\n\n{}", events.concat()),
            None => "event: lost\ndata: {\"records\":null}\n\n".to_owned(),
        }
    }

    fn list(&self, name: &str, query: &BTreeMap<&str, &str>) -> Value {
        let items = match name {
            "nodes" => &self.nodes,
            "links" => &self.links,
            "alerts" => &self.alerts,
            _ => &self.rules,
        };
        let number = |name: &str, default| query.get(name).and_then(|text| text.parse().ok()).unwrap_or(default);
        let part: Vec<&Value> = items.iter().skip(number("offset", 0)).take(number("limit", 100)).collect();
        json!({
            "schema_version": 1, "timestamp": "2026-11-25T12:00:00.000000000Z", "host": "sensor-1.shop.example",
            "last_event_id": format!("{}-{}", self.epoch, self.events.len()), "total": items.len(), name: part,
        })
    }

    fn status(&self) -> Value {
        let mut links = BTreeMap::<&str, usize>::new();
        for link in self.links.iter().filter(|link| link["closed"].is_null()) {
            *links.entry(link["transport"].as_str().unwrap_or_default()).or_default() += 1;
        }
        let mut findings = BTreeMap::<&str, usize>::new();
        for alert in self.alerts.iter().filter(|alert| alert["status"] != "resolved") {
            *findings.entry(alert["severity"].as_str().unwrap_or_default()).or_default() += 1;
        }
        let full = json!({ "state": "full" });
        json!({
            "state": "capturing", "version": "0.1.0", "pid": 4711, "started": "2026-11-25T08:12:31.000000000Z",
            "uptime_seconds": 13_649, "clock_step_seconds": 0, "reloads": 1,
            "sandbox": {
                "capabilities": [], "dropped": full, "no_new_privs": true, "landlock": full, "seccomp": full,
            },
            "capture": {
                "back_end": "ebpf", "attachments": ["eth0", "cluster0"], "seen": 1_284_310, "handed": 20_310,
                "handed_bytes": 9_123_456, "uninteresting": 1_100_000, "counted": 164_000, "refused": 0,
                "lost": { "ring": 0 }, "shortfalls": {}, "decisions_refused": 0,
            },
            "output": { "written": 1_204, "dropped": 0 },
            "cluster": { "nodes": self.nodes.len(), "links": links, "findings": findings },
            "stats": self.stats,
            "sinks": self.sinks,
        })
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            Some((name, value)) => drop(headers.insert(name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let target = first.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query: BTreeMap<&str, &str> = query.split('&').filter_map(|part| part.split_once('=')).collect();
    let mut state = state.lock().expect("no test panics while it holds the state");
    if let Some(place) = state.silent.iter().position(|silent| *silent == path) {
        state.silent.remove(place);
        return Ok(());
    }
    let wanted = state.token.as_ref().map(|token| format!("Bearer {token}"));
    let (status, kind, body) = match path.strip_prefix("/api/v1/") {
        Some(_) if wanted.is_some() && wanted.as_ref() != headers.get("authorization") => {
            ("401 Unauthorized", "text/plain", Vec::new())
        }
        Some("events") => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")?;
            let last = headers.get("last-event-id").map_or("", String::as_str);
            stream.write_all(state.missed(last).as_bytes())?;
            state.listeners.push(stream);
            return Ok(());
        }
        Some("status") => ("200 OK", "application/json", state.status().to_string().into_bytes()),
        Some(name @ ("nodes" | "links" | "alerts" | "rules")) => {
            ("200 OK", "application/json", state.list(name, &query).to_string().into_bytes())
        }
        _ => file(path),
    };
    drop(state);
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nContent-Security-Policy: {POLICY}\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

fn file(path: &str) -> (&'static str, &'static str, Vec<u8>) {
    let name = if path == "/" { "index.html" } else { path.trim_start_matches('/') };
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        _ => "image/svg+xml",
    };
    match std::fs::read(e2e::root().join("agent/assets/page").join(name)) {
        Ok(content) if !name.contains('/') => ("200 OK", kind, content),
        _ => ("404 Not Found", "text/plain", Vec::new()),
    }
}
