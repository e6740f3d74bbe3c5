//! Events as the decoders make them, and a bench that runs a judge over them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::Judge;
use crate::cluster::Cluster;
use crate::event::{Event, EventBody, FlowInfo, LinkChange};
use crate::model::{
    Activity, ActivityKind, Alert, Answer, Builds, CloseReason, Confidence, End, Endpoint, EpmdExchange, EpmdNode,
    EpmdRequest, Handshake, HandshakeOutcome, Link, PerSide, Tls, TlsOutcome, Transport,
};
use crate::packet::PacketRef;
use crate::policy::{self, Patterns, Places, Policy, RuleSettings};
use crate::time::Timestamp;

/// When every bench begins (2026-11-22), in seconds.
pub(crate) const START: i64 = 1_795_406_300;

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_parts(START + seconds, 0)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn patterns(globs: &[&str]) -> Patterns {
    Patterns(globs.iter().map(|glob| globset::Glob::new(glob).unwrap().compile_matcher()).collect())
}

pub(crate) fn policy_with_isolated(interfaces: &[&str], networks: &[&str]) -> Policy {
    let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
    Policy { isolated: Some(Places { interfaces: patterns(interfaces), networks }), ..Policy::default() }
}

pub(crate) fn settings(rule: &str, settings: RuleSettings) -> Policy {
    Policy { rules: BTreeMap::from([(rule.to_owned(), settings)]), ..Policy::default() }
}

pub(crate) fn rule_option(rule: &str, name: &str, value: u64) -> Policy {
    let options = BTreeMap::from([(name.to_owned(), value)]);
    settings(rule, RuleSettings { options, ..RuleSettings::default() })
}

pub(crate) fn cluster(
    name: &str,
    tier: Option<&str>,
    nodes: &[&str],
    nets: &[&str],
    links_to: &[&str],
) -> policy::Cluster {
    policy::Cluster {
        name: name.to_owned(),
        tier: tier.map(str::to_owned),
        nodes: patterns(nodes),
        addresses: nets.iter().map(|network| network.parse().unwrap()).collect(),
        links_to: links_to.iter().map(|&other| other.to_owned()).collect(),
    }
}

/// A link of which nothing is known but its ends.
pub(crate) fn link(flow: &str, from: (&str, Option<&str>), to: (&str, Option<&str>)) -> Link {
    let end =
        |(address, node): (&str, Option<&str>), port| End { node: node.map(str::to_owned), ip: ip(address), port };
    Link {
        flow_id: flow.to_owned(),
        initiator: end(from, 50000),
        acceptor: end(to, 41000),
        transport: Transport::Unknown,
        tls: None,
        handshake: Handshake::default(),
        interfaces: vec!["eth0".to_owned()],
        mid_stream: false,
        resumed: false,
        opened: at(0),
        closed: None,
        close_reason: None,
        messages: PerSide::default(),
        bytes: PerSide::default(),
        ticks: PerSide::default(),
        gaps: 0,
        missing_bytes: 0,
        last_seen: at(0),
        first_packet: "1".to_owned(),
        builds: Builds::default(),
    }
}

/// `web@host-a` connected to `db@host-b` in clear, as two OTP 25 nodes do.
pub(crate) fn established(flow: &str) -> Link {
    let mut link = link(flow, ("10.77.0.1", Some("web@host-a")), ("10.77.0.2", Some("db@host-b")));
    link.transport = Transport::Cleartext;
    link.handshake = Handshake {
        version: Some(6),
        outcome: HandshakeOutcome::Ok,
        status: Some("ok".to_owned()),
        initiator_flags: Some(0xD_07DF_7FBD),
        acceptor_flags: Some(0xD_07DF_7FBD),
        initiator_creation: Some(1_795_406_313),
        acceptor_creation: Some(1_795_406_314),
        ..Handshake::default()
    };
    link.messages = PerSide { from_initiator: 3, from_acceptor: 3 };
    link
}

/// A handshake that was cut off at the digest check.
pub(crate) fn bad_cookie(flow: &str) -> Link {
    let mut link = established(flow);
    link.handshake.outcome = HandshakeOutcome::BadCookie;
    link
}

/// A TLS layer that came up with certificates on both sides.
pub(crate) fn tls(version: &str) -> Tls {
    Tls {
        version: Some(version.to_owned()),
        cipher: Some("TLS_AES_256_GCM_SHA384".to_owned()),
        mutual_auth: Answer::Yes,
        client_certificate_requested: Answer::Yes,
        outcome: TlsOutcome::Ok,
        ..Tls::default()
    }
}

pub(crate) fn flow_of(link: &Link) -> Arc<FlowInfo> {
    Arc::new(FlowInfo {
        id: link.flow_id.clone(),
        initiator: SocketAddr::new(link.initiator.ip, link.initiator.port),
        acceptor: SocketAddr::new(link.acceptor.ip, link.acceptor.port),
        interface: link.interfaces.first().cloned().unwrap_or_default(),
    })
}

pub(crate) fn event(body: EventBody, flow: Option<Arc<FlowInfo>>) -> Event {
    Event { time: at(0), packet: PacketRef { capture: 0, number: 7 }, flow, body }
}

pub(crate) fn epmd(
    request: EpmdRequest,
    client: &str,
    server: &str,
    name: &str,
    accepted: bool,
    result: &str,
) -> Event {
    let exchange = EpmdExchange {
        timestamp: at(0),
        client: Endpoint { ip: ip(client), port: 50001 },
        server: Endpoint { ip: ip(server), port: 4369 },
        request,
        name: name.to_owned(),
        result: result.to_owned(),
        local: client == server,
        flow_id: "e1".to_owned(),
        node: None,
        creation: None,
        names: Vec::new(),
        accepted,
    };
    event(EventBody::Epmd(Box::new(exchange)), None)
}

pub(crate) fn port_please(client: &str, server: &str, name: &str, port: u16) -> Event {
    let mut event = epmd(EpmdRequest::PortPlease2, client, server, name, true, &format!("port {port}"));
    if let EventBody::Epmd(exchange) = &mut event.body {
        exchange.node = Some(EpmdNode { port, node_type: 77, protocol: 0, highest_version: 6, lowest_version: 5 });
    }
    event
}

pub(crate) fn activity(kind: ActivityKind, mfa: Option<&str>, target: Option<&str>) -> Activity {
    Activity {
        kind,
        from_node: Some("web@host-a".to_owned()),
        to_node: Some("db@host-b".to_owned()),
        mfa: mfa.map(str::to_owned),
        target: target.map(str::to_owned),
        count: 1,
        first_seen: at(0),
        last_seen: at(0),
        flow_id: "f1".to_owned(),
        operation: "SPAWN_REQUEST".to_owned(),
        from_initiator: true,
        confidence: Confidence::Certain,
        arguments: None,
        first_packet: "12".to_owned(),
    }
}

/// A cluster and a judge, with a clock that a test turns.
pub(crate) struct Bench {
    pub(crate) cluster: Cluster,
    pub(crate) judge: Judge,
    pub(crate) now: i64,
    packet: u64,
}

impl Bench {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { cluster: Cluster::new(&policy.limits), judge: Judge::new(&policy), now: 0, packet: 0 }
    }

    pub(crate) fn event(&mut self, mut event: Event) {
        self.packet += 1;
        event.time = at(self.now);
        event.packet = PacketRef { capture: 0, number: self.packet };
        self.cluster.handle_event(&event);
        self.judge.handle_event(&event, &self.cluster);
    }

    pub(crate) fn link(&mut self, change: LinkChange, link: &Link) {
        self.event(event(EventBody::Link { change, link: link.clone().into() }, Some(flow_of(link))));
    }

    /// Ends a link with a FIN.
    pub(crate) fn close(&mut self, link: &mut Link) {
        link.closed = Some(at(self.now));
        link.close_reason = Some(CloseReason::FinInitiator);
        self.link(LinkChange::Closed, link);
    }

    /// Something that happens on the connection of [`established`] with the flow id `f1`.
    pub(crate) fn on_flow(&mut self, body: EventBody) {
        self.event(event(body, Some(flow_of(&established("f1")))));
    }

    pub(crate) fn activity(&mut self, activity: Activity) {
        self.on_flow(EventBody::Activity(Box::new(activity)));
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        self.now += i64::try_from(duration.as_secs()).unwrap();
        self.judge.handle_timeout(at(self.now), &self.cluster);
    }

    pub(crate) fn alerts(&self) -> Vec<Alert> {
        self.judge.alerts()
    }

    /// The one alert of this rule.
    pub(crate) fn only(&self, rule: &str) -> Alert {
        let mut alerts: Vec<Alert> = self.alerts().into_iter().filter(|alert| alert.rule_id == rule).collect();
        assert_eq!(alerts.len(), 1, "alerts of {rule}: {alerts:#?}");
        alerts.remove(0)
    }

    pub(crate) fn none(&self, rule: &str) {
        let alerts: Vec<Alert> = self.alerts().into_iter().filter(|alert| alert.rule_id == rule).collect();
        assert!(alerts.is_empty(), "{alerts:#?}");
    }
}
