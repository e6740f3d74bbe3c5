//! A report made by hand that has something of everything, and the golden files that tests compare with.

use std::path::Path;

use distwatch_engine::model::{
    Activity, ActivityKind, Alert, AlertStatus, Answer, Builds, Capture, CloseReason, Confidence, End, Endpoint,
    EpmdExchange, EpmdName, EpmdNode, EpmdRequest, Evidence, Handshake, HandshakeOutcome, Link, Node, Otp, PerSide,
    Process, ProcessEnd, Severity, Stats, Tls, TlsOutcome, Transport,
};
use distwatch_engine::time::Timestamp;

use super::Report;

/// Compares with `tests/golden/<name>`; with `UPDATE_GOLDEN` in the environment the file is written instead.
pub(crate) fn golden(name: &str, printed: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, printed).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == printed, "{} differs (UPDATE_GOLDEN=1 rewrites it); printed now:\n{printed}", path.display());
}

/// Seconds after the start of the sample.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_parts(1_795_406_329 + seconds, 333_358_001)
}

fn end(node: &str, ip: &str, port: u16) -> End {
    End { node: (!node.is_empty()).then(|| node.to_owned()), ip: ip.parse().unwrap(), port }
}

fn link(flow_id: &str, initiator: End, acceptor: End) -> Link {
    Link {
        flow_id: flow_id.into(),
        initiator,
        acceptor,
        transport: Transport::Cleartext,
        tls: None,
        handshake: Handshake {
            version: Some(6),
            outcome: HandshakeOutcome::Ok,
            status: Some("ok".into()),
            initiator_flags: Some(0xd_07df_7fbd),
            acceptor_flags: Some(0xd_07df_7fbd),
            initiator_creation: Some(1_795_000_001),
            acceptor_creation: Some(1_795_000_002),
            ..Handshake::default()
        },
        interfaces: vec!["eth0".into()],
        mid_stream: false,
        resumed: false,
        opened: at(0),
        closed: None,
        close_reason: None,
        messages: PerSide { from_initiator: 41, from_acceptor: 1_043 },
        bytes: PerSide { from_initiator: 12_345, from_acceptor: 5_027_103 },
        ticks: PerSide { from_initiator: 1, from_acceptor: 0 },
        gaps: 0,
        missing_bytes: 0,
        last_seen: at(20),
        first_packet: "4".into(),
        builds: Builds::default(),
    }
}

fn links() -> Vec<Link> {
    let web = || end("web@host-a", "10.77.0.1", 40_123);
    let mut tls = link("0000000000000002", web(), end("", "10.77.0.3", 9100));
    tls.transport = Transport::Tls;
    tls.handshake = Handshake { outcome: HandshakeOutcome::Unseen, ..Handshake::default() };
    tls.tls = Some(Box::new(Tls {
        version: Some("1.3".into()),
        cipher: Some("TLS_AES_256_GCM_SHA384".into()),
        sni: Some("host-c".into()),
        mutual_auth: Answer::No,
        mutual_auth_confidence: Confidence::Likely,
        outcome: TlsOutcome::Ok,
        distribution_inside: Answer::Yes,
        ..Tls::default()
    }));
    let mut guess =
        link("0000000000000003", end("eve@host-c", "10.77.0.9", 50_001), end("db@host-b", "10.77.0.2", 9100));
    guess.handshake.outcome = HandshakeOutcome::BadCookie;
    guess.closed = Some(at(5));
    guess.close_reason = Some(CloseReason::FinAcceptor);
    guess.messages = PerSide { from_initiator: 2, from_acceptor: 2 };
    guess.bytes = PerSide { from_initiator: 70, from_acceptor: 60 };
    guess.ticks = PerSide::default();
    let mut again = guess.clone();
    again.flow_id = "0000000000000004".into();
    again.initiator.port = 50_002;
    let mut middle = link("0000000000000005", end("", "2001:db8::5", 33_333), end("", "2001:db8::6", 40_000));
    middle.mid_stream = true;
    middle.handshake = Handshake { outcome: HandshakeOutcome::Unseen, ..Handshake::default() };
    middle.gaps = 2;
    middle.missing_bytes = 1_448;
    vec![link("0000000000000001", web(), end("db@host-b", "10.77.0.2", 9100)), tls, guess, again, middle]
}

fn node(name: &str, ip: &str, ports: &[u16], otp: Otp) -> Node {
    Node {
        name: name.into(),
        addresses: vec![ip.parse().unwrap()],
        dist_ports: ports.to_vec(),
        creations: vec![1_795_000_001],
        hidden: false,
        dynamic_name: false,
        otp,
        first_seen: at(0),
        last_seen: at(20),
    }
}

fn nodes() -> Vec<Node> {
    let release = |min, max| Otp { min, max, flags: Some(0xd_07df_7fbd), ..Otp::default() };
    let mut eve =
        node("eve@host-c", "10.77.0.9", &[], Otp { implementation: Some("erl_interface".into()), ..Otp::default() });
    eve.hidden = true;
    vec![
        node("web@host-a", "10.77.0.1", &[], release(Some(25), Some(27))),
        node("db@host-b", "10.77.0.2", &[9100], release(Some(25), Some(25))),
        eve,
    ]
}

fn epmd() -> Vec<EpmdExchange> {
    let exchange = |request, name: &str, result: &str, accepted| EpmdExchange {
        timestamp: at(0),
        client: Endpoint { ip: "10.77.0.1".parse().unwrap(), port: 41_000 },
        server: Endpoint { ip: "10.77.0.2".parse().unwrap(), port: 4369 },
        request,
        name: name.into(),
        result: result.into(),
        local: false,
        flow_id: "00000000000000e1".into(),
        node: None,
        creation: None,
        names: Vec::new(),
        accepted,
    };
    let mut alive = exchange(EpmdRequest::Alive2, "db", "creation 1795000002", true);
    alive.client.ip = alive.server.ip;
    alive.local = true;
    alive.creation = Some(1_795_000_002);
    alive.node = Some(EpmdNode { port: 9100, node_type: 77, protocol: 0, highest_version: 6, lowest_version: 5 });
    let mut names = exchange(EpmdRequest::Names, "", "db 9100", true);
    names.names = vec![EpmdName { name: "db".into(), port: 9100 }];
    vec![
        alive,
        exchange(EpmdRequest::PortPlease2, "db", "port 9100", true),
        exchange(EpmdRequest::PortPlease2, "db", "port 9100", true),
        names,
        exchange(EpmdRequest::Kill, "", "refused", false),
    ]
}

fn activity() -> Vec<Activity> {
    let action = |kind, mfa: Option<&str>, target: Option<&str>, count, operation: &str| Activity {
        kind,
        from_node: Some("web@host-a".into()),
        to_node: Some("db@host-b".into()),
        mfa: mfa.map(str::to_owned),
        target: target.map(str::to_owned),
        count,
        first_seen: at(2),
        last_seen: at(9),
        flow_id: "0000000000000001".into(),
        operation: operation.into(),
        from_initiator: true,
        confidence: Confidence::Certain,
        arguments: None,
        first_packet: "57".into(),
    };
    vec![
        action(ActivityKind::RpcCall, Some("os:cmd/1"), None, 2, "SPAWN_REQUEST"),
        action(ActivityKind::GenCall, None, Some("orders"), 1_200, "REG_SEND"),
    ]
}

fn alert(rule_id: &str, severity: Severity, subject: &str, reason: &str, facts: &[(&str, Option<&str>)]) -> Alert {
    Alert {
        rule_id: rule_id.into(),
        severity,
        level: severity.level().into(),
        status: AlertStatus::New,
        fingerprint: format!("{rule_id}-0001"),
        count: 1,
        first_seen: at(2),
        last_seen: at(9),
        told: at(9),
        subject: subject.into(),
        reason: reason.into(),
        evidence: facts
            .iter()
            .map(|(fact, packet)| Evidence {
                fact: (*fact).into(),
                packet: packet.map(str::to_owned),
                timestamp: at(2),
            })
            .collect(),
        confidence: Confidence::Certain,
        remediation: "Run distribution over TLS: -proto_dist inet_tls with a certificate on both sides.".into(),
        references: vec!["G1".into(), "G4".into()],
        flow_id: Some("0000000000000001".into()),
        src_ip: Some("10.77.0.1".parse().unwrap()),
        src_port: Some(40_123),
        dest_ip: Some("10.77.0.2".parse().unwrap()),
        dest_port: Some(9100),
        in_iface: Some("eth0".into()),
        process: None,
        process_end: None,
    }
}

/// A node under systemd.
pub(crate) fn process() -> Process {
    Process {
        pid: 4711,
        exe: Some("/usr/lib/erlang/erts-13.1.5/bin/beam.smp".into()),
        user: Some("shop".into()),
        unit: Some("shop.service".into()),
        container: None,
        node: Some("db@host-b".into()),
    }
}

fn alerts() -> Vec<Alert> {
    let mut shell = alert(
        "remote-command",
        Severity::Critical,
        "web@host-a -> db@host-b",
        "web@host-a ran a command of the operating system on db@host-b.",
        &[("SPAWN_REQUEST of os:cmd/1", Some("57")), ("SPAWN_REPLY", Some("59"))],
    );
    shell.count = 2;
    (shell.process, shell.process_end) = (Some(process()), Some(ProcessEnd::Acceptor));
    shell.remediation = "Find out who did it. Do not let nodes that need not trust each other be connected.".into();
    let clear = |subject: &str| {
        let reason = "The handshake and all messages can be read and changed by anyone on the way.";
        alert("cleartext-distribution", Severity::High, subject, reason, &[("handshake version 6 in clear", Some("4"))])
    };
    let mut lost = alert("node-lost", Severity::Low, "eve@host-c", "eve@host-c went away.", &[("no ticks", None)]);
    lost.status = AlertStatus::Resolved;
    lost.confidence = Confidence::Likely;
    lost.references.clear();
    (lost.flow_id, lost.src_ip, lost.src_port) = (None, None, None);
    (lost.dest_ip, lost.dest_port, lost.in_iface) = (None, None, None);
    vec![lost, clear("web@host-a -> db@host-b"), shell, clear("2001:db8::5 -> 2001:db8::6")]
}

/// Something of everything.
pub(crate) fn report() -> Report {
    Report {
        captures: vec![
            Capture {
                path: "shop.pcap".into(),
                format: "pcap".into(),
                link_types: vec!["ethernet".into()],
                packets: 382,
                bytes: 52_867,
                first: Some(at(0)),
                last: Some(at(20)),
                truncated_packets: 3,
                ..Capture::default()
            },
            Capture {
                path: "cut.pcapng.gz".into(),
                format: "pcapng+gzip".into(),
                link_types: vec!["linux_sll2".into()],
                interfaces: vec!["eth0".into(), "lo".into()],
                dropped: Some(7),
                damaged: Some("The file ends inside packet 1.".into()),
                ..Capture::default()
            },
        ],
        nodes: nodes(),
        links: links(),
        epmd: epmd(),
        activity: activity(),
        alerts: alerts(),
        stats: Stats {
            packets: 382,
            bytes: 52_867,
            flows: 9,
            gaps: 2,
            missing_bytes: 1_448,
            decode_errors: [("etf".to_owned(), 1)].into(),
            limits_reached: [("reorder_bytes".to_owned(), 1)].into(),
            packets_not_used: [("udp".to_owned(), 12)].into(),
            control_messages: [("REG_SEND".to_owned(), 1_200), ("SPAWN_REQUEST".to_owned(), 2)].into(),
            duration_seconds: 20.0,
        },
        ..Report::default()
    }
}

/// A report in which every text that a peer can choose is hostile.
pub(crate) fn hostile() -> Report {
    let name = "a\"]-->x[\"<b onclick='x'>\u{202e}\u{1b}[31m\r\n\\\"; }\u{200b}`|#quot;@h";
    let mut report = report();
    for link in &mut report.links {
        link.initiator.node = Some(name.into());
        link.handshake.weak_cookie = Some(name.into());
        link.interfaces = vec![name.into()];
    }
    for node in &mut report.nodes {
        node.name = name.into();
        node.otp.implementation = Some(name.into());
    }
    for exchange in &mut report.epmd {
        (exchange.name, exchange.result) = (name.into(), name.into());
    }
    for action in &mut report.activity {
        (action.from_node, action.mfa) = (Some(name.into()), Some(name.into()));
    }
    for alert in &mut report.alerts {
        (alert.subject, alert.reason) = (name.into(), name.into());
        alert.evidence[0].fact = name.into();
    }
    for capture in &mut report.captures {
        (capture.path, capture.damaged) = (name.into(), Some(name.into()));
    }
    report
}
