//! Who may take part, and with whom: `unexpected-peer`, `cross-tier`, `standalone-exposed`.

use super::exposed_link::is_answered_distribution;
use super::{Detector, Exposure, Family, Findings, Parties, Party, Report, Rule, Span, group};
use crate::cluster::{Cluster, Flag};
use crate::event::{Event, EventBody, LinkChange};
use crate::model::{HandshakeOutcome, Link, Severity};
use crate::policy::{self, Policy};

pub(super) const FAMILY: Family =
    Family { rules: &[&UNEXPECTED_PEER, &CROSS_TIER, &STANDALONE_EXPOSED], detector: |_| Box::new(Membership) };

static UNEXPECTED_PEER: Rule = Rule {
    id: "unexpected-peer",
    severity: Severity::High,
    off_by_default: false,
    group: group::MEMBERSHIP,
    raised_when: "A node name or address takes part, or tries to, that no cluster of the policy lists; nothing is said where \
                  the policy declares no cluster. Also when a node itself refuses another as not allowed, unless a missing \
                  capability explains the refusal.",
    rationale: "A member of the cluster reaches every node and may run anything there. Nobody who is not a member may get in.",
    evidence: "The packet of the handshake, the name and the address, and how far it got.",
    remediation: "If the node belongs to the cluster, list it: `[[cluster]] nodes = [\"web@*\"], addresses = \
                  [\"10.0.0.0/24\"]`. If not, change the cookie on all nodes (it is known to the peer when the handshake \
                  passed), and restrict who may connect with `net_kernel:allow/1` and a firewall.",
    references: &["G5"],
    options: &[],
};

static CROSS_TIER: Rule = Rule {
    id: "cross-tier",
    severity: Severity::High,
    off_by_default: false,
    group: group::MEMBERSHIP,
    raised_when: "A link joins two declared clusters or tiers that are not declared to have links (`links_to`).",
    rationale: "Distribution removes the isolation between the layers of an architecture: who takes over a node of the outer \
                layer has the inner one as well.",
    evidence: "The packet of the handshake, the two nodes, and the cluster and tier of each.",
    remediation: "Let layers talk over HTTP, a message broker or a database protocol. Give each its own cookie and CA, so that a \
                  link cannot come about by accident. Where the link is wanted, name the other under `links_to`.",
    references: &["G11"],
    options: &[],
};

static STANDALONE_EXPOSED: Rule = Rule {
    id: "standalone-exposed",
    severity: Severity::Medium,
    off_by_default: false,
    group: group::MEMBERSHIP,
    raised_when: "A node that the policy declares standalone has a distribution connection, or is looked up at EPMD, off \
                  loopback.",
    rationale: "A node without peers needs no distribution that others can reach. What listens there serves only those who \
                should not be there.",
    evidence: "The packet of the connection or of the EPMD answer, and where it came from.",
    remediation: "Start it without `-name` and `-sname`, or bind it to loopback: `-kernel inet_dist_use_interface '{127,0,0,1}'` \
                  and `ERL_EPMD_ADDRESS=127.0.0.1`. For Elixir releases `RELEASE_DISTRIBUTION=none`.",
    references: &["G10"],
    options: &[],
};

struct Membership;

impl Detector for Membership {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        match &event.body {
            EventBody::Link { change, link }
                if *change != LinkChange::Closed && is_answered_distribution(*change, link) =>
            {
                judge_link(event, link, &Parties::of_link(link, cluster), findings);
            }
            EventBody::Epmd(exchange) if exchange.accepted && exchange.node.is_some() => {
                let mut parties = Parties::of_epmd(exchange, event, cluster);
                parties.to.name = Some(format!("{}@{}", exchange.name, exchange.server.ip));
                let what = format!("EPMD told {} where to reach it", exchange.client.ip);
                standalone(event, &parties, &what, Span::Moment, findings);
            }
            _ => {}
        }
    }
}

fn judge_link(event: &Event, link: &Link, parties: &Parties, findings: &mut Findings<'_>) {
    let policy = findings.policy;
    if !policy.clusters.is_empty() {
        for party in [&parties.from, &parties.to] {
            stranger(event, link, parties, party, findings);
        }
        tiers(event, link, parties, findings);
    }
    if link.handshake.outcome == HandshakeOutcome::NotAllowed && !lacks_capabilities(link) {
        let reason = format!("{} refuses {} as not allowed", parties.to, parties.from);
        let report = Report::new(&UNEXPECTED_PEER, parties, reason).span(Span::OncePerLink);
        findings.raise(event, report.fact("status not_allowed; the capabilities do not explain it"));
    }
    standalone(event, parties, "it has a distribution connection", Span::WhileLinkOpen, findings);
}

/// OTP 26 and later answer `not_allowed` also to a node that lacks a mandatory capability (`docs/protocol.md` §2.4).
fn lacks_capabilities(link: &Link) -> bool {
    link.handshake.initiator_flags.is_none_or(|flags| !Flag::UNLINK_ID.is_in(flags) || !Flag::V4_NC.is_in(flags))
}

fn stranger(event: &Event, link: &Link, parties: &Parties, party: &Party, findings: &mut Findings<'_>) {
    if memberships(findings.policy, party).next().is_some() {
        return;
    }
    let verb = match link.handshake.outcome {
        HandshakeOutcome::Ok | HandshakeOutcome::Unseen => "takes part",
        _ => "tries to take part",
    };
    let reason = format!("{} {verb} ({parties}), and no cluster of the policy lists it", party.with_address());
    let report = Report::new(&UNEXPECTED_PEER, parties, reason.clone())
        .key(format!("{} at {}", party.key(), party.ip))
        .subject(format!("{party} ({})", party.ip))
        .span(Span::WhileLinkOpen);
    findings.raise(event, report.fact_at(reason, &link.first_packet));
}

/// The declared clusters that an end belongs to: by name and address, as far as each is declared and known.
fn memberships<'p>(policy: &'p Policy, party: &Party) -> impl Iterator<Item = &'p policy::Cluster> {
    policy.clusters.iter().filter(move |cluster| {
        let ip = party.ip.to_canonical();
        let at_home = cluster.addresses.is_empty() || cluster.addresses.iter().any(|network| network.contains(&ip));
        let named = match &party.name {
            _ if cluster.nodes.is_empty() => !cluster.addresses.is_empty(),
            Some(name) => cluster.nodes.matches(name),
            // Inside TLS the name is not to be read; the address must do.
            None => !cluster.addresses.is_empty(),
        };
        at_home && named
    })
}

fn tiers(event: &Event, link: &Link, parties: &Parties, findings: &mut Findings<'_>) {
    let policy = findings.policy;
    let mut apart = None;
    for from in memberships(policy, &parties.from) {
        for to in memberships(policy, &parties.to) {
            if may_link(from, to) {
                return;
            }
            apart = apart.or(Some((from, to)));
        }
    }
    let Some((from, to)) = apart else { return };
    let (from, to) = (in_words(from), in_words(to));
    let reason = format!("{parties} joins {from} and {to}");
    let report = Report::new(&CROSS_TIER, parties, reason).span(Span::WhileLinkOpen);
    let fact = format!("{} belongs to {from}, {} to {to}", parties.from, parties.to);
    findings.raise(event, report.fact_at(fact, &link.first_packet));
}

/// A link has no direction once it is up, so either cluster may name the other.
fn may_link(a: &policy::Cluster, b: &policy::Cluster) -> bool {
    let names = |a: &policy::Cluster, b: &policy::Cluster| {
        a.links_to.iter().any(|other| *other == b.name || Some(other) == b.tier.as_ref())
    };
    (a.name == b.name && a.tier == b.tier) || names(a, b) || names(b, a)
}

fn in_words(cluster: &policy::Cluster) -> String {
    match &cluster.tier {
        Some(tier) => format!("cluster {} (tier {tier})", cluster.name),
        None => format!("cluster {}", cluster.name),
    }
}

fn standalone(event: &Event, parties: &Parties, what: &str, span: Span, findings: &mut Findings<'_>) {
    let declared = &findings.policy.standalone;
    let named = [&parties.from, &parties.to]
        .into_iter()
        .find(|party| party.name.as_ref().is_some_and(|name| declared.matches(name)));
    let Some(party) = named else { return };
    let interfaces = parties.interfaces.iter().map(String::as_str);
    if Exposure::judge(findings.policy, interfaces, parties.from.ip, parties.to.ip) == Exposure::Loopback {
        return;
    }
    let reason = format!("{party} is declared standalone, but {what} off loopback ({parties})");
    let report =
        Report::new(&STANDALONE_EXPOSED, parties, reason).key(party.key()).subject(format!("{party} ({parties})"));
    findings.raise(event, report.span(span).fact(format!("{what}: {} -> {}", parties.from.ip, parties.to.ip)));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, cluster, established, ip, patterns, port_please};
    use super::*;

    fn declared() -> Policy {
        let mut policy = Policy::default();
        policy.clusters.push(cluster("shop", Some("web"), &["web@*"], &["10.77.0.0/24"], &[]));
        policy.clusters.push(cluster("shop", Some("data"), &["db@*"], &[], &[]));
        policy
    }

    #[test]
    fn whom_no_cluster_lists_is_unexpected_by_name_or_by_address() {
        let mut bench = Bench::new(declared());
        bench.link(LinkChange::Handshake, &established("f1"));
        bench.none("unexpected-peer");
        let mut elsewhere = established("f2");
        elsewhere.initiator.ip = ip("10.99.0.1");
        bench.link(LinkChange::Handshake, &elsewhere);
        assert_eq!(bench.only("unexpected-peer").subject, "web@host-a (10.99.0.1)");

        let mut bench = Bench::new(declared());
        let mut named = established("f3");
        named.initiator.node = Some("evil@host-a".into());
        bench.link(LinkChange::Handshake, &named);
        assert!(bench.only("unexpected-peer").reason.contains("evil@host-a"));
    }

    #[test]
    fn an_acceptor_whose_name_is_still_to_come_is_not_judged_without_it() {
        let mut bench = Bench::new(declared());
        let mut link = established("f1");
        let named = link.acceptor.node.take();
        let flags = link.handshake.acceptor_flags.take();
        link.handshake.outcome = HandshakeOutcome::Incomplete;
        bench.link(LinkChange::Progress, &link);
        (link.acceptor.node, link.handshake.acceptor_flags) = (named, flags);
        link.handshake.outcome = HandshakeOutcome::Ok;
        bench.link(LinkChange::Handshake, &link);
        bench.none("unexpected-peer");
    }

    #[test]
    fn nothing_is_unexpected_where_nothing_is_declared_unless_a_node_says_so() {
        let mut bench = Bench::new(Policy::default());
        bench.link(LinkChange::Handshake, &established("f1"));
        bench.none("unexpected-peer");
        let mut refused = established("f2");
        refused.handshake.outcome = HandshakeOutcome::NotAllowed;
        refused.handshake.status = Some("not_allowed".into());
        refused.handshake.acceptor_flags = None;
        refused.handshake.initiator_flags = Some(0x1_01DF_7FBD);
        bench.link(LinkChange::Handshake, &refused);
        bench.none("unexpected-peer");
        refused.handshake.initiator_flags = Some(0xD_07DF_7FBD);
        bench.link(LinkChange::Handshake, &refused);
        assert_eq!(bench.only("unexpected-peer").subject, "web@host-a -> db@host-b");
    }

    #[test]
    fn a_link_between_tiers_is_reported_unless_one_names_the_other() {
        let mut bench = Bench::new(declared());
        bench.link(LinkChange::Handshake, &established("f1"));
        assert_eq!(bench.only("cross-tier").subject, "web@host-a -> db@host-b");
        let mut joined = declared();
        joined.clusters[1].links_to.push("web".into());
        let mut bench = Bench::new(joined);
        bench.link(LinkChange::Handshake, &established("f1"));
        bench.none("cross-tier");
    }

    #[test]
    fn a_standalone_node_must_not_be_reached_off_loopback() {
        let mut policy = Policy { standalone: patterns(&["db@*"]), ..Policy::default() };
        let mut bench = Bench::new(policy.clone());
        let mut local = established("f1");
        (local.initiator.ip, local.acceptor.ip) = (ip("127.0.0.1"), ip("127.0.0.1"));
        bench.link(LinkChange::Handshake, &local);
        bench.none("standalone-exposed");
        bench.link(LinkChange::Handshake, &established("f2"));
        assert!(bench.only("standalone-exposed").subject.starts_with("db@host-b"));

        policy.standalone = patterns(&["cron@*"]);
        let mut bench = Bench::new(policy);
        bench.event(port_please("10.77.0.1", "10.77.0.2", "db", 41000));
        bench.none("standalone-exposed");
        bench.event(port_please("10.77.0.1", "10.77.0.2", "cron", 41001));
        bench.only("standalone-exposed");
    }
}
