//! Wrong cookies, many of them, and the right one after them: `bad-cookie`, `cookie-guessing`, `cookie-guessed`.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use super::known_scanner::tool_of;
use super::memory::{ENTRIES, Memory};
use super::{Detector, Fact, Family, Findings, Parties, Report, Rule, RuleOption, Span, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody, LinkChange};
use crate::model::{Confidence, HandshakeOutcome, Link, Severity, TlsOutcome};
use crate::time::Timestamp;

pub(super) const FAMILY: Family = Family {
    rules: &[&BAD_COOKIE, &COOKIE_GUESSING, &COOKIE_GUESSED],
    detector: |_| {
        Box::new(CookieGuessing {
            failures: Memory::new(ENTRIES),
            peers: Memory::new(ENTRIES),
            judged: Memory::new(ENTRIES),
        })
    },
};

static BAD_COOKIE: Rule = Rule {
    id: "bad-cookie",
    severity: Severity::Medium,
    off_by_default: false,
    group: group::AUTHENTICATION,
    raised_when: "A handshake is cut off at the digest check, in clear, or inside TLS as far as the lengths of its records show \
                  it. A refusal for capabilities or for the name is no wrong cookie.",
    rationale: "One wrong cookie is a node with another `.erlang.cookie`. It is also the first guess of many.",
    evidence: "The packet that ends the handshake, the names and addresses, and the handshake's version.",
    remediation: "Compare `erlang:get_cookie()` on both nodes, and the `.erlang.cookie` of the users they run as. If the peer is \
                  not yours, keep it from the port.",
    references: &["G3"],
    options: &[],
};

static COOKIE_GUESSING: Rule = Rule {
    id: "cookie-guessing",
    severity: Severity::Critical,
    off_by_default: false,
    group: group::AUTHENTICATION,
    raised_when: "Handshakes that one address begins fail at the digest check more often than a threshold in a window.",
    rationale: "A node answers every attempt at full speed and locks nobody out. Short or known cookies fall in minutes, and a \
                cookie that Erlang made by itself has 36 bits only.",
    evidence: "The packets of the failures (the first and the last ones), their number, and the names that were used.",
    remediation: "Keep the address from the port at once. Let distribution be reached from the cluster's network only \
                  (`inet_dist_use_interface`, a firewall), use TLS with client certificates, and a long random cookie \
                  (`openssl rand -hex 32`).",
    references: &["G3"],
    options: &[
        RuleOption { name: "threshold", default: 5, help: "failed handshakes from one address" },
        RuleOption { name: "window_seconds", default: 60, help: "time in which they are counted, in seconds" },
    ],
};

static COOKIE_GUESSED: Rule = Rule {
    id: "cookie-guessed",
    severity: Severity::Critical,
    off_by_default: false,
    group: group::AUTHENTICATION,
    raised_when: "A peer whose wrong cookies passed the threshold of `cookie-guessing` then passes the check. Another node \
                  behind the same address is another peer.",
    rationale: "The peer has the cookie now, and with it every node that shares it.",
    evidence: "The packet of the success, and the number and the time of the failures before it.",
    remediation: "Treat the cluster as taken over: cut the peer off, change the cookie on all nodes and restart them, and look \
                  at what the peer did on this link (activity, `remote-command`, `remote-code-load`).",
    references: &["G3"],
    options: &[RuleOption {
        name: "memory_seconds",
        default: 3600,
        help: "how long after its last failure a success of the peer counts, in seconds",
    }],
};

/// Times that one address keeps: the highest threshold that makes sense.
const TIMES: usize = 1024;

/// A node behind an address: its name in a form that stays the same over attempts, or the tool that it is.
type Peer = (IpAddr, String);

#[derive(Default)]
struct Guesses {
    count: u64,
    last: Timestamp,
    worst: bool,
    times: VecDeque<Timestamp>,
}

struct CookieGuessing {
    /// Times of failures, by the initiator's address.
    failures: Memory<IpAddr, VecDeque<Timestamp>>,
    /// Failures by peer.
    peers: Memory<Peer, Guesses>,
    /// Connections whose outcome was counted.
    judged: Memory<String, ()>,
}

impl Detector for CookieGuessing {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Link { change: LinkChange::Handshake | LinkChange::Closed, link } = &event.body else { return };
        let passed = match outcome(link) {
            Some(passed) if self.judged.get(&link.flow_id).is_none() => passed,
            _ => return,
        };
        self.judged.entry(link.flow_id.clone(), || ());
        let parties = Parties::of_link(link, cluster);
        let peer = (link.initiator.ip, tool_of(link).map_or_else(|| parties.from.key(), |(tool, _)| tool.to_owned()));
        if passed {
            self.success(event, &parties, &peer, findings);
        } else {
            self.failure(event, link, &parties, peer, findings);
        }
    }

    fn save(&self, facts: &mut Vec<Fact>) {
        let worst = self.peers.iter().filter(|(_, guesses)| guesses.worst);
        facts.extend(worst.map(|((from, peer), guesses)| Fact::Guesses {
            from: *from,
            peer: peer.clone(),
            count: guesses.count,
            last: guesses.last,
        }));
    }

    fn restore(&mut self, fact: &Fact) {
        if let Fact::Guesses { from, peer, count, last } = fact.clone() {
            let guesses = Guesses { count, last, worst: true, ..Guesses::default() };
            self.peers.entry((from, peer), || guesses);
        }
    }
}

/// Whether the cookie check passed; nothing where it was not reached.
fn outcome(link: &Link) -> Option<bool> {
    match (link.handshake.outcome, link.tls.as_ref().map(|tls| tls.outcome)) {
        (HandshakeOutcome::Ok, _) | (HandshakeOutcome::Unseen, Some(TlsOutcome::Ok)) => Some(true),
        (HandshakeOutcome::BadCookie, _) | (_, Some(TlsOutcome::BadCookie)) => Some(false),
        _ => None,
    }
}

fn add(times: &mut VecDeque<Timestamp>, now: Timestamp, window: Duration) -> usize {
    times.retain(|&time| now.since(time) <= window);
    if times.len() >= TIMES {
        times.pop_front();
    }
    times.push_back(now);
    times.len()
}

impl CookieGuessing {
    fn failure(&mut self, event: &Event, link: &Link, parties: &Parties, peer: Peer, findings: &mut Findings<'_>) {
        let inside_tls = link.tls.as_ref().is_some_and(|tls| tls.outcome == TlsOutcome::BadCookie);
        let (how, confidence) = if inside_tls {
            ("the lengths of the TLS records show a handshake that was cut off at the digest check", Confidence::Likely)
        } else {
            ("the handshake was cut off after the digest", Confidence::Certain)
        };
        let reason = format!("{} failed the cookie check of {}", parties.from.with_address(), parties.to);
        let report = Report::new(&BAD_COOKIE, parties, reason).confidence(confidence).span(Span::OncePerLink);
        findings.raise(event, report.fact(how));

        let threshold =
            usize::try_from(findings.option(&COOKIE_GUESSING, "threshold")).unwrap_or(usize::MAX).clamp(1, TIMES);
        let seconds = findings.option(&COOKIE_GUESSING, "window_seconds");
        let window = Duration::from_secs(seconds);
        let guesses = self.peers.entry(peer, Guesses::default);
        guesses.count = guesses.count.saturating_add(1);
        guesses.last = event.time;
        guesses.worst |= add(&mut guesses.times, event.time, window) >= threshold;
        let count = add(self.failures.entry(link.initiator.ip, VecDeque::new), event.time, window);
        if count < threshold {
            return;
        }
        let address = link.initiator.ip;
        let reason = format!("{count} failed cookie checks from {address} within {seconds} s, the last one {parties}");
        let report = Report::new(&COOKIE_GUESSING, parties, reason)
            .key(address.to_string())
            .subject(format!("{parties} (from {address})"))
            .confidence(confidence)
            .span(Span::OncePerLink);
        findings.raise(event, report.fact(format!("failed cookie check of {parties}, number {count}")));
    }

    fn success(&mut self, event: &Event, parties: &Parties, peer: &Peer, findings: &mut Findings<'_>) {
        let Some(guesses) = self.peers.remove(peer) else { return };
        let memory = Duration::from_secs(findings.option(&COOKIE_GUESSED, "memory_seconds"));
        if !guesses.worst || event.time.since(guesses.last) > memory {
            return;
        }
        let reason = format!(
            "after {} failures {} passed the cookie check of {}",
            guesses.count,
            parties.from.with_address(),
            parties.to
        );
        // Without names, nodes behind one address cannot be told apart.
        let confidence = if parties.from.name.is_some() { Confidence::Certain } else { Confidence::Possible };
        let report = Report::new(&COOKIE_GUESSED, parties, reason).confidence(confidence).span(Span::OncePerLink);
        findings.raise(
            event,
            report.fact(format!("the last failure was at {}", guesses.last)).fact("the cookie check passed"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, bad_cookie, established, ip, link, rule_option, tls};
    use super::*;
    use crate::model::Transport;
    use crate::policy::Policy;

    fn guess(bench: &mut Bench, times: usize) {
        for number in 0..times {
            bench.link(LinkChange::Handshake, &bad_cookie(&format!("g{number}")));
        }
    }

    #[test]
    fn one_wrong_cookie_is_one_and_no_guessing() {
        let mut bench = Bench::new(Policy::default());
        let mut wrong = bad_cookie("f1");
        bench.link(LinkChange::Handshake, &wrong);
        bench.close(&mut wrong);
        assert_eq!(bench.only("bad-cookie").count, 1);
        bench.link(LinkChange::Handshake, &established("f2"));
        bench.none("cookie-guessing");
        bench.none("cookie-guessed");
    }

    #[test]
    fn refusals_that_are_not_about_the_cookie_are_no_wrong_cookies() {
        let mut bench = Bench::new(Policy::default());
        for (flow, outcome) in [
            ("f1", HandshakeOutcome::FlagsRefused),
            ("f2", HandshakeOutcome::NotAllowed),
            ("f3", HandshakeOutcome::Nok),
            ("f4", HandshakeOutcome::Alive),
            ("f5", HandshakeOutcome::Incomplete),
        ] {
            let mut link = established(flow);
            link.handshake.outcome = outcome;
            bench.link(LinkChange::Handshake, &link);
        }
        bench.none("bad-cookie");
    }

    #[test]
    fn nineteen_failures_and_a_success_are_guessing_and_guessed() {
        let mut bench = Bench::new(Policy::default());
        guess(&mut bench, 19);
        let guessing = bench.only("cookie-guessing");
        assert_eq!((guessing.severity, guessing.count), (Severity::Critical, 15));
        assert!(guessing.reason.starts_with("19 failed cookie checks from 10.77.0.1"), "{}", guessing.reason);
        assert!(guessing.subject.starts_with("web@host-a -> db@host-b"));
        bench.link(LinkChange::Handshake, &established("s"));
        assert_eq!(bench.only("cookie-guessed").subject, "web@host-a -> db@host-b");
    }

    #[test]
    fn a_success_of_another_node_behind_the_same_address_is_no_guess() {
        let mut bench = Bench::new(Policy::default());
        guess(&mut bench, 19);
        let mut neighbour = established("s");
        neighbour.initiator.node = Some("worker@host-a".into());
        bench.link(LinkChange::Handshake, &neighbour);
        bench.none("cookie-guessed");
        let mut elsewhere = established("t");
        elsewhere.initiator.ip = ip("10.77.0.9");
        bench.link(LinkChange::Handshake, &elsewhere);
        bench.none("cookie-guessed");
    }

    #[test]
    fn failures_far_apart_are_no_guessing_unless_the_policy_widens_the_window() {
        let slow = |policy| {
            let mut bench = Bench::new(policy);
            for number in 0..10 {
                bench.link(LinkChange::Handshake, &bad_cookie(&format!("g{number}")));
                bench.now += 20;
            }
            bench
        };
        slow(Policy::default()).none("cookie-guessing");
        slow(rule_option("cookie-guessing", "window_seconds", 600)).only("cookie-guessing");
        slow(rule_option("cookie-guessing", "threshold", 3)).only("cookie-guessing");
    }

    #[test]
    fn inside_tls_a_wrong_cookie_is_likely() {
        let mut bench = Bench::new(Policy::default());
        let mut hidden = link("f1", ("10.77.0.1", None), ("10.77.0.2", None));
        hidden.transport = Transport::Tls;
        hidden.handshake.outcome = HandshakeOutcome::Unseen;
        hidden.tls = Some(Box::new(tls("1.3")));
        bench.link(LinkChange::Handshake, &hidden);
        bench.none("bad-cookie");
        hidden.flow_id = "f2".into();
        hidden.tls.as_mut().unwrap().outcome = TlsOutcome::BadCookie;
        bench.link(LinkChange::Handshake, &hidden);
        assert_eq!(bench.only("bad-cookie").confidence, Confidence::Likely);
    }
}
