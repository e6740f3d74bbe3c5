//! Distribution that anyone on the way can read: `cleartext-distribution`, `cleartext-attempt`, `tls-downgrade`.

use std::net::{IpAddr, SocketAddr};

use super::memory::{ENTRIES, Memory};
use super::{Detector, Exposure, Fact, Family, Findings, Parties, Report, Rule, Span, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody, LinkChange};
use crate::model::{Confidence, HandshakeOutcome, Link, Severity, TlsOutcome, Transport};

pub(super) const FAMILY: Family = Family {
    rules: &[&CLEARTEXT_DISTRIBUTION, &CLEARTEXT_ATTEMPT, &TLS_DOWNGRADE],
    detector: |_| Box::new(Cleartext { secured: Memory::new(ENTRIES), pairs: Memory::new(ENTRIES) }),
};

static CLEARTEXT_DISTRIBUTION: Rule = Rule {
    id: "cleartext-distribution",
    severity: Severity::High,
    off_by_default: false,
    group: group::TRANSPORT,
    raised_when: "A distribution connection is up and its handshake or its frames are read in clear, also when the \
                  capture begins in the middle of it. Info on loopback; critical where it also leaves what the policy \
                  declares isolated, or runs over a public address; low for an attempt that the acceptor answered in \
                  clear but that failed; info where `tls.required = false`.",
    rationale: "Distribution over plain TCP is neither confidential nor protected against change. Whoever reads it \
                reads every message, call and answer between the nodes, can test cookies against the handshake \
                without sending a packet, and whoever can write to it takes over a connection that has already passed \
                the cookie check. There is no other check after it: a member of the cluster may run anything \
                everywhere.",
    evidence: "The packet that showed the handshake or the frames to be readable, the handshake's version and outcome, and \
               the addresses and interfaces.",
    remediation: "Run the nodes with `-proto_dist inet_tls` (`inet6_tls` for IPv6) and `-ssl_dist_optfile FILE`, with \
                  `{verify, verify_peer}`, a `cacertfile` and, for the server side, `{fail_if_no_peer_cert, true}`. All \
                  nodes of a cluster must change together. Until then keep the traffic on a network of its own with \
                  `-kernel inet_dist_use_interface '{10,0,0,1}'`.",
    references: &["G1", "G4"],
    options: &[],
};

static CLEARTEXT_ATTEMPT: Rule = Rule {
    id: "cleartext-attempt",
    severity: Severity::Medium,
    off_by_default: false,
    group: group::TRANSPORT,
    raised_when: "A cleartext handshake is offered to a listener that speaks TLS, or TLS to one that speaks in clear, and \
                  the connection fails.",
    rationale: "One of the two nodes is set up without TLS. Most often it is a node or a tool with a forgotten \
                `-proto_dist`; it can also be somebody who tries whether the listener falls back to cleartext.",
    evidence: "The packet of the offer, what the other side answered, and the names as far as they were sent.",
    remediation: "Give both nodes the same `-proto_dist` and the same `-ssl_dist_optfile`. Tools that attach to a node \
                  need them as well: `erl -proto_dist inet_tls -ssl_dist_optfile FILE -remsh NODE`.",
    references: &["G1"],
    options: &[],
};

static TLS_DOWNGRADE: Rule = Rule {
    id: "tls-downgrade",
    severity: Severity::High,
    off_by_default: false,
    group: group::TRANSPORT,
    raised_when: "Two nodes, or a listener, that were seen on TLS are later seen connected in clear.",
    rationale: "Distribution never falls back from TLS by itself. A link that was secured and is not any more means that a \
                node was started with other settings, or that another program answers in its place.",
    evidence: "The packet that shows the cleartext connection, and when TLS was last seen there.",
    remediation: "Compare the start options of the node with those of its last start (`init:get_arguments()`): \
                  `-proto_dist inet_tls` and `-ssl_dist_optfile` must be there. Look for a second process that listens \
                  on the port.",
    references: &["G1"],
    options: &[],
};

struct Cleartext {
    /// Listeners that were seen to carry distribution inside TLS.
    secured: Memory<(IpAddr, u16), Secured>,
    /// The same by the initiator's address and the acceptor's name: a node that comes back has another port.
    pairs: Memory<(IpAddr, String), Secured>,
}

struct Secured {
    since: String,
}

impl Detector for Cleartext {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        match &event.body {
            EventBody::Link { change, link } => self.handle_link(event, *change, link, cluster, findings),
            EventBody::Foreign { looks_like: "TLS", .. } => offer_of_tls(event, cluster, findings),
            _ => {}
        }
    }

    fn save(&self, facts: &mut Vec<Fact>) {
        let listeners = self.secured.iter().map(|(&(ip, port), Secured { since })| Fact::SecuredListener {
            at: SocketAddr::new(ip, port),
            since: since.clone(),
        });
        let pairs = self.pairs.iter().map(|((from, to), Secured { since })| Fact::SecuredPair {
            from: *from,
            to: to.clone(),
            since: since.clone(),
        });
        facts.extend(listeners.chain(pairs));
    }

    fn restore(&mut self, fact: &Fact) {
        match fact.clone() {
            Fact::SecuredListener { at, since } => drop(self.secured.entry((at.ip(), at.port()), || Secured { since })),
            Fact::SecuredPair { from, to, since } => drop(self.pairs.entry((from, to), || Secured { since })),
            _ => {}
        }
    }
}

impl Cleartext {
    fn handle_link(
        &mut self,
        event: &Event,
        change: LinkChange,
        link: &Link,
        cluster: &Cluster,
        findings: &mut Findings<'_>,
    ) {
        let parties = Parties::of_link(link, cluster);
        if let Some(reason) = failed_attempt(link, change) {
            let report = Report::new(&CLEARTEXT_ATTEMPT, &parties, format!("{parties}: {reason}"));
            findings.raise(event, report.span(Span::OncePerLink).fact_at(reason, &link.first_packet));
            return;
        }
        let listener = (link.acceptor.ip, link.acceptor.port);
        if is_up_in_tls(link) {
            let secured = || Secured { since: event.time.to_string() };
            self.secured.entry(listener, secured);
            if let Some(name) = &parties.to.name {
                self.pairs.entry((link.initiator.ip, name.clone()), secured);
            }
        }
        let is_final = matches!(change, LinkChange::Handshake | LinkChange::Closed);
        let up = is_up_in_clear(link) && change != LinkChange::Closed;
        let tried = !is_up_in_clear(link) && was_answered(link) && is_final;
        if link.transport != Transport::Cleartext || !(up || tried) {
            return;
        }
        findings.raise(event, cleartext_report(link, &parties, findings));
        if !is_up_in_clear(link) {
            return;
        }
        let pair = parties.to.name.as_ref().map(|name| (link.initiator.ip, name.clone()));
        let (secured, what, confidence) =
            match (self.secured.get(&listener), pair.and_then(|pair| self.pairs.get(&pair))) {
                (Some(secured), _) => (secured, "the same listener was", parties.confidence()),
                // The name of a TLS listener is put together from EPMD's answer and the server name.
                (None, Some(secured)) => (secured, "the same two were", Confidence::Likely),
                (None, None) => return,
            };
        let reason = format!("{parties} runs in clear; {what} seen on TLS at {}", secured.since);
        let report =
            Report::new(&TLS_DOWNGRADE, &parties, reason.clone()).confidence(confidence).span(Span::WhileLinkOpen);
        findings.raise(event, report.fact(reason));
    }
}

fn cleartext_report(link: &Link, parties: &Parties, findings: &Findings<'_>) -> Report {
    let interfaces = link.interfaces.iter().map(String::as_str);
    let exposure = Exposure::judge(findings.policy, interfaces, link.initiator.ip, link.acceptor.ip);
    let severity = match exposure {
        _ if !findings.policy.tls.required => Severity::Info,
        Exposure::Loopback => Severity::Info,
        _ if !is_up_in_clear(link) => Severity::Low,
        Exposure::Declared | Exposure::Public => Severity::Critical,
        Exposure::Isolated | Exposure::Private => Severity::High,
    };
    let seen = match (link.handshake.version, link.mid_stream) {
        (Some(version), _) => format!("a handshake of version {version} was read in clear"),
        (None, true) => "distribution frames were read in clear; the capture begins after the handshake".to_owned(),
        (None, false) => "distribution frames were read in clear".to_owned(),
    };
    let state = if is_up_in_clear(link) { "runs without TLS" } else { "was tried without TLS" };
    let reason = format!("Erlang distribution {parties} {state}, {}", exposure.in_words());
    let span = if is_up_in_clear(link) { Span::WhileLinkOpen } else { Span::OncePerLink };
    Report::new(&CLEARTEXT_DISTRIBUTION, parties, reason).severity(severity).span(span).fact(seen)
}

/// Both sides go on in clear: after the handshake, or in the middle of the connection.
pub(super) fn is_up_in_clear(link: &Link) -> bool {
    link.transport == Transport::Cleartext
        && match link.handshake.outcome {
            HandshakeOutcome::Ok => true,
            HandshakeOutcome::Unseen => link.messages.from_initiator > 0 || link.messages.from_acceptor > 0,
            _ => false,
        }
}

/// Distribution goes on inside TLS, as far as that can be seen.
pub(super) fn is_up_in_tls(link: &Link) -> bool {
    let outcome = link.tls.as_ref().map(|tls| tls.outcome);
    link.transport == Transport::Tls && matches!(outcome, Some(TlsOutcome::Ok | TlsOutcome::Established))
}

/// The acceptor spoke the protocol in clear: at least its challenge was read.
fn was_answered(link: &Link) -> bool {
    is_up_in_clear(link) || link.handshake.acceptor_flags.is_some()
}

/// Why the connection is a meeting of TLS and cleartext, in words.
fn failed_attempt(link: &Link, change: LinkChange) -> Option<&'static str> {
    let tls = link.tls.as_ref()?;
    let is_final = matches!(change, LinkChange::Handshake | LinkChange::Closed);
    match link.transport {
        Transport::Cleartext if !was_answered(link) => {
            Some("a cleartext handshake was offered, and the other side answered with TLS")
        }
        Transport::Cleartext => None,
        _ if tls.outcome == TlsOutcome::NotTls => Some("TLS was offered, and the other side does not speak it"),
        _ if is_final && tls.outcome == TlsOutcome::Incomplete && link.bytes.from_acceptor == 0 => {
            (link.closed.is_some() && link.bytes.from_initiator > 0)
                .then_some("TLS was offered, and the other side never answered")
        }
        _ => None,
    }
}

/// A TLS ClientHello at a port where distribution in clear was expected.
fn offer_of_tls(event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
    let EventBody::Foreign { expected: crate::event::Expected::Distribution, .. } = event.body else { return };
    let Some(parties) = Parties::of_event(event, cluster) else { return };
    let reason = format!("{parties}: TLS was offered to a distribution port that speaks in clear");
    let report = Report::new(&CLEARTEXT_ATTEMPT, &parties, reason).confidence(Confidence::Likely);
    findings.raise(event, report.fact("the first octets are those of a TLS record"));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, established, ip, link, policy_with_isolated, port_please, tls};
    use super::*;
    use crate::event::Expected;
    use crate::model::AlertStatus;
    use crate::policy::Policy;

    #[test]
    fn a_node_pair_in_clear_is_one_finding_with_a_count_that_ends_with_the_link() {
        let mut bench = Bench::new(policy_with_isolated(&["lo"], &["10.77.0.0/24"]));
        let mut first = established("f1");
        bench.link(LinkChange::Handshake, &first);
        bench.link(LinkChange::Identified, &first);
        let alert = bench.only("cleartext-distribution");
        assert_eq!(
            (alert.severity, alert.count, alert.subject.as_str()),
            (Severity::High, 1, "web@host-a -> db@host-b")
        );
        bench.close(&mut first);
        assert_eq!(bench.only("cleartext-distribution").status, AlertStatus::Resolved);
        bench.link(LinkChange::Handshake, &established("f2"));
        let alert = bench.only("cleartext-distribution");
        assert_eq!((alert.count, alert.status), (2, AlertStatus::Update));
    }

    #[test]
    fn exposure_and_loopback_set_the_severity() {
        let severity = |policy: Policy, from: &str, to: &str| {
            let mut bench = Bench::new(policy);
            let mut link = established("f1");
            (link.initiator.ip, link.acceptor.ip) = (ip(from), ip(to));
            bench.link(LinkChange::Handshake, &link);
            bench.only("cleartext-distribution").severity
        };
        let isolated = || policy_with_isolated(&["lo"], &["10.77.0.0/24"]);
        assert_eq!(severity(isolated(), "10.77.0.1", "10.77.0.2"), Severity::High);
        assert_eq!(severity(isolated(), "10.88.0.50", "10.88.0.1"), Severity::Critical);
        assert_eq!(severity(isolated(), "127.0.0.1", "127.0.0.1"), Severity::Info);
        assert_eq!(severity(Policy::default(), "10.77.0.1", "10.77.0.2"), Severity::High);
        assert_eq!(severity(Policy::default(), "10.77.0.1", "8.8.8.8"), Severity::Critical);
    }

    #[test]
    fn a_link_from_before_the_capture_is_found_and_renamed_when_its_nodes_are_known() {
        let mut bench = Bench::new(Policy::default());
        let mut link = link("f1", ("10.77.0.1", None), ("10.77.0.2", None));
        link.transport = Transport::Cleartext;
        link.mid_stream = true;
        link.handshake.outcome = HandshakeOutcome::Unseen;
        link.messages.from_initiator = 3;
        bench.link(LinkChange::Classified, &link);
        assert_eq!(bench.only("cleartext-distribution").subject, "10.77.0.1 -> 10.77.0.2:41000");
        link.initiator.node = Some("web@host-a".into());
        link.acceptor.node = Some("db@host-b".into());
        bench.link(LinkChange::Identified, &link);
        let alert = bench.only("cleartext-distribution");
        assert_eq!((alert.subject.as_str(), alert.count), ("web@host-a -> db@host-b", 1));
    }

    #[test]
    fn tls_and_failed_attempts_are_no_cleartext_links() {
        let mut bench = Bench::new(Policy::default());
        let mut secured = link("f1", ("10.77.0.1", None), ("10.77.0.2", None));
        secured.transport = Transport::Tls;
        secured.tls = Some(Box::new(tls("1.3")));
        bench.link(LinkChange::Handshake, &secured);
        assert!(bench.alerts().iter().all(|alert| alert.rule_id != "cleartext-distribution"));

        let mut wrong_cookie = established("f2");
        wrong_cookie.handshake.outcome = HandshakeOutcome::BadCookie;
        bench.link(LinkChange::Handshake, &wrong_cookie);
        assert_eq!(bench.only("cleartext-distribution").severity, Severity::Low, "read in clear, but nothing is up");
    }

    #[test]
    fn cleartext_that_meets_tls_is_an_attempt_in_either_direction() {
        let mut bench = Bench::new(Policy::default());
        let mut clear = link("f1", ("10.77.0.1", Some("web@host-a")), ("10.77.0.2", None));
        clear.transport = Transport::Cleartext;
        clear.handshake.version = Some(6);
        clear.tls = Some(Box::new(tls("1.2")));
        bench.link(LinkChange::Progress, &clear);
        assert_eq!(bench.only("cleartext-attempt").subject, "web@host-a -> 10.77.0.2:41000");

        let mut bench = Bench::new(Policy::default());
        let mut secured = link("f2", ("10.77.0.1", None), ("10.77.0.2", None));
        secured.transport = Transport::Tls;
        secured.tls = Some(Box::new(tls("1.3")));
        secured.tls.as_mut().unwrap().outcome = TlsOutcome::NotTls;
        bench.link(LinkChange::Closed, &secured);
        assert_eq!(bench.only("cleartext-attempt").severity, Severity::Medium);
        assert!(bench.alerts().iter().all(|alert| alert.rule_id != "cleartext-distribution"));

        let mut bench = Bench::new(Policy::default());
        let body = EventBody::Foreign { expected: Expected::Distribution, looks_like: "TLS" };
        bench.on_flow(body);
        bench.only("cleartext-attempt");
    }

    #[test]
    fn a_listener_that_was_on_tls_and_is_in_clear_is_a_downgrade() {
        let mut bench = Bench::new(Policy::default());
        bench.link(LinkChange::Handshake, &established("f0"));
        bench.none("tls-downgrade");
        let mut secured = link("f1", ("10.77.0.1", None), ("10.77.0.2", None));
        secured.transport = Transport::Tls;
        secured.tls = Some(Box::new(tls("1.3")));
        bench.link(LinkChange::Handshake, &secured);
        bench.link(LinkChange::Handshake, &established("f2"));
        assert_eq!(bench.only("tls-downgrade").subject, "web@host-a -> db@host-b");
    }

    #[test]
    fn what_was_seen_on_tls_is_remembered_by_the_next_run_and_over_a_new_policy() {
        let mut before = Bench::new(Policy::default());
        let mut secured = link("f1", ("10.77.0.1", None), ("10.77.0.2", None));
        secured.transport = Transport::Tls;
        secured.tls = Some(Box::new(tls("1.3")));
        before.link(LinkChange::Handshake, &secured);
        let facts = serde_json::to_string(&before.judge.facts()).unwrap();
        for run in 0..3 {
            let mut after = Bench::new(Policy::default());
            if run > 0 {
                after.judge.recall(&serde_json::from_str::<Vec<Fact>>(&facts).unwrap());
            }
            if run > 1 {
                after.judge.set_policy(&Policy::default());
            }
            after.link(LinkChange::Handshake, &established("f2"));
            let raised = after.alerts().iter().filter(|alert| alert.rule_id == "tls-downgrade").count();
            assert_eq!(raised, run.min(1));
        }
        let later = "[{\"fact\":\"of_a_later_version\",\"what\":1}]";
        assert_eq!(serde_json::from_str::<Vec<Fact>>(later).unwrap(), [Fact::Unknown]);
    }

    #[test]
    fn a_node_that_comes_back_in_clear_on_another_port_is_a_downgrade_of_the_pair() {
        let mut bench = Bench::new(Policy::default());
        bench.event(port_please("10.77.0.1", "10.77.0.2", "db", 41000));
        let mut secured = link("f1", ("10.77.0.1", None), ("10.77.0.2", None));
        secured.transport = Transport::Tls;
        secured.tls = Some(Box::new(crate::model::Tls { sni: Some("host-b".into()), ..tls("1.3") }));
        bench.link(LinkChange::Handshake, &secured);
        bench.close(&mut secured);
        let mut clear = established("f2");
        clear.acceptor.port = 42000;
        let mut other = established("f3");
        (other.acceptor.port, other.initiator.ip) = (42000, ip("10.77.0.9"));
        bench.link(LinkChange::Handshake, &other);
        bench.none("tls-downgrade");
        bench.link(LinkChange::Handshake, &clear);
        let alert = bench.only("tls-downgrade");
        assert_eq!((alert.subject.as_str(), alert.confidence), ("web@host-a -> db@host-b", Confidence::Likely));
    }
}
