//! A server on a port of its own, what it tells of, and a client that reads every octet itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use distwatch::daemon::picture::{Picture, Raised};
use distwatch::daemon::status::{Capture, Cluster, Records, Status};
use distwatch::http::{Counts, Listener, Metrics, Recent, Reload, Server, Settings, Sources};
use distwatch::privilege::Sandbox;
use distwatch::sink::SinkStatus;
use distwatch_engine::model::{
    Alert, AlertStatus, Confidence, End, Evidence, Handshake, Link, Node, Severity, Stats, Transport,
};
use distwatch_engine::time::Timestamp;
use serde_json::Value;
use tokio::sync::oneshot;

/// How long anything may take here.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A moment.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_parts(1_795_406_329 + seconds, 0)
}

/// A link from this node; every tenth is closed.
pub(crate) fn link(number: usize, initiator: &str) -> Link {
    let end = |node: &str, port: u16| End { node: Some(node.to_owned()), ip: [10, 77, 0, 1].into(), port };
    Link {
        flow_id: format!("{number:016x}"),
        initiator: end(initiator, 40_000),
        acceptor: end("db@host-b", 9100),
        transport: Transport::Cleartext,
        tls: None,
        handshake: Handshake::default(),
        interfaces: vec!["eth0".into()],
        mid_stream: false,
        resumed: false,
        opened: at(0),
        closed: number.is_multiple_of(10).then(|| at(9)),
        close_reason: None,
        messages: Default::default(),
        bytes: Default::default(),
        ticks: Default::default(),
        gaps: 0,
        missing_bytes: 0,
        last_seen: at(9),
        first_packet: "1".into(),
        builds: Default::default(),
    }
}

/// A finding about this.
pub(crate) fn alert(subject: &str) -> Alert {
    Alert {
        rule_id: "cleartext-distribution".into(),
        severity: Severity::High,
        level: Severity::High.level().into(),
        status: AlertStatus::New,
        fingerprint: "f".into(),
        count: 1,
        first_seen: at(0),
        last_seen: at(0),
        told: at(0),
        subject: subject.into(),
        reason: format!("{subject} can be read."),
        evidence: vec![Evidence { fact: subject.into(), packet: None, timestamp: at(0) }],
        confidence: Confidence::Certain,
        remediation: "Use TLS.".into(),
        references: vec!["G1".into()],
        flow_id: None,
        src_ip: None,
        src_port: None,
        dest_ip: None,
        dest_port: None,
        in_iface: None,
        process: None,
        process_end: None,
    }
}

/// What the capture thread would know of so many links.
pub(crate) fn picture(links: usize) -> Picture {
    let status = Status {
        state: "capturing".into(),
        version: "0.1.0".into(),
        pid: 1,
        started: at(0),
        uptime_seconds: 1,
        clock_step_seconds: 0,
        reloads: 0,
        sandbox: Sandbox { off: true, ..Sandbox::default() }.apply().unwrap(),
        capture: Capture {
            back_end: "ebpf".into(),
            attachments: Vec::new(),
            seen: 10,
            seen_bytes: 1000,
            handed: 10,
            handed_bytes: 1000,
            uninteresting: 0,
            counted: 0,
            refused: 0,
            lost: [("ring".to_owned(), 1)].into(),
            lost_bytes: [("ring".to_owned(), 1500)].into(),
            cut_bytes: 0,
            shortfalls: [].into(),
            decisions_refused: 0,
        },
        output: Records { written: 0, dropped: 0, unkept: 0, state_failures: 0 },
        sinks: vec![SinkStatus {
            name: "loki".into(),
            kind: "loki",
            queued: 0,
            spool_bytes: 0,
            records: [("sent", 1)].into(),
            last_success: Some(at(5)),
            last_error: None,
            failing_since: None,
        }],
        http: None,
        cluster: Cluster::default(),
        stats: Stats { decode_errors: [("dist".to_owned(), 1)].into(), ..Stats::default() },
    };
    Picture {
        time: at(10),
        cost: Duration::ZERO,
        status,
        open_flows: links,
        nodes: vec![Arc::new(node("web@host-a"))],
        links: (0..links).map(|number| Arc::new(link(number, &format!("web{number}@host-a")))).collect(),
        alerts: vec![alert("web@host-a -> db@host-b")],
        raised: Raised::default(),
        rules: Arc::default(),
    }
}

/// A node of this name.
pub(crate) fn node(name: &str) -> Node {
    Node {
        name: name.into(),
        addresses: Vec::new(),
        dist_ports: Vec::new(),
        creations: Vec::new(),
        hidden: false,
        dynamic_name: false,
        otp: Default::default(),
        first_seen: at(0),
        last_seen: at(0),
    }
}

/// A server at work.
pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) recent: Arc<Recent>,
    pub(crate) counts: Arc<Counts>,
}

impl Bench {
    /// With the defaults, on a free port.
    pub(crate) fn with(picture: Picture) -> Self {
        Self::start(&settings(), picture)
    }

    pub(crate) fn start(settings: &Settings, picture: Picture) -> Self {
        Self::asking(settings, Some(picture))
    }

    /// Where the capture thread has ended if there is no picture.
    pub(crate) fn asking(settings: &Settings, picture: Option<Picture>) -> Self {
        Self::asking_of(settings, move |answer| picture.clone().is_some_and(|picture| answer.send(picture).is_ok()))
    }

    /// Where the capture thread answers as it likes.
    pub(crate) fn asking_of(
        settings: &Settings,
        ask: impl Fn(oneshot::Sender<Picture>) -> bool + Send + Sync + 'static,
    ) -> Self {
        let (recent, counts) = (Arc::new(Recent::new(7)), Arc::<Counts>::default());
        let sources = Sources {
            ask: Box::new(ask),
            recent: Arc::clone(&recent),
            reload: Arc::new(Mutex::new(Reload { successful: true, last_success: at(0) })),
            counts: Arc::clone(&counts),
            metrics: Metrics { per_link: true },
            host: "sensor".into(),
        };
        let server = Listener::open(settings).unwrap().start(sources).unwrap();
        Self { server, recent, counts }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Asks for a path with further lines in the head.
    pub(crate) fn get(&self, path: &str, lines: &[&str]) -> Answer {
        ask(connect(self.address()), "GET", path, lines)
    }

    /// Asks for a path that must be there, and takes the answer for JSON.
    pub(crate) fn json(&self, path: &str) -> Value {
        let answer = self.get(path, &[]);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }
}

/// The defaults, on a free port.
pub(crate) fn settings() -> Settings {
    Settings { listen: "127.0.0.1:0".parse().unwrap(), ..Settings::default() }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a line of the head.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Sends one request, and reads what comes.
pub(crate) fn ask(mut stream: impl Read + Write, method: &str, path: &str, lines: &[&str]) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    lines.iter().for_each(|line| head += &format!("{line}\r\n"));
    head += "\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    read_answer(stream)
}

/// Reads an answer that ends with its connection.
pub(crate) fn read_answer(stream: impl Read) -> Answer {
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut rest = Vec::new();
    // A peer that does not say goodbye over TLS is one that has said all.
    let _ = reader.read_to_end(&mut rest);
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Answer { status, head, body: if is_chunked { joined(&rest) } else { rest } }
}

pub(crate) fn read_head(reader: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "the connection ended in {head:?}");
    }
    head
}

fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = chunks.windows(2).position(|two| two == b"\r\n").expect("a chunk has a length");
        let length = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).unwrap(), 16).unwrap();
        let start = end + 2;
        whole.extend_from_slice(&chunks[start..start + length]);
        chunks = &chunks[start + length + 2..];
        if length == 0 {
            return whole;
        }
    }
}

/// A client that is told events.
pub(crate) struct Told {
    reader: BufReader<TcpStream>,
}

/// An event as it came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) event: String,
    pub(crate) data: String,
}

impl Told {
    pub(crate) fn begin(address: SocketAddr, query: &str, last_id: Option<&str>) -> Self {
        let mut stream = connect(address);
        let last_id = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        write!(stream, "GET /api/v1/events{query} HTTP/1.1\r\nHost: localhost\r\n{last_id}\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let head = read_head(&mut reader);
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-type: text/event-stream"), "{head}");
        let mut told = Self { reader };
        // Where it begins: from here on nothing is missed.
        while told.line() != "" {}
        told
    }

    /// The next event.
    pub(crate) fn next(&mut self) -> Event {
        let mut event = Event::default();
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("id", value)) => event.id = value.into(),
                Some(("event", value)) => event.event = value.into(),
                Some(("data", value)) => event.data = value.into(),
                _ if line.is_empty() && !event.data.is_empty() => return event,
                _ => {}
            }
        }
    }

    /// The next line of an event, whatever the chunks.
    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.reader.read_line(&mut line).unwrap() > 0, "the stream has ended");
            // Lines of the chunked encoding end otherwise.
            if !line.ends_with("\r\n") {
                return line.trim_end_matches('\n').to_owned();
            }
        }
    }
}

/// Waits for something of the world outside to become so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {} s", DEADLINE.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}
