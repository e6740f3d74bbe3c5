//! Who a node name stands for: `node-name-conflict` and `node-restarted`.

use std::net::IpAddr;

use super::cleartext::is_up_in_clear;
use super::memory::{ENTRIES, Memory};
use super::{Detector, Fact, Family, Findings, Parties, Report, Rule, Span, group};
use crate::cluster::{Cluster, Flag, alive_of};
use crate::event::{Event, EventBody, LinkChange};
use crate::model::{Confidence, HandshakeOutcome, Link, Severity};

pub(super) const FAMILY: Family = Family {
    rules: &[&NODE_NAME_CONFLICT, &NODE_RESTARTED],
    detector: |_| Box::new(NodeIdentity { lives: Memory::new(ENTRIES), roles: Memory::new(ENTRIES) }),
};

static NODE_NAME_CONFLICT: Rule = Rule {
    id: "node-name-conflict",
    severity: Severity::High,
    off_by_default: false,
    group: group::MEMBERSHIP,
    raised_when: "Two incarnations of one node name are connected from two addresses at once, or a name moves to another \
                  address where no EPMD registration of it was seen. Low where one address stands for both nodes of a \
                  pair: a forwarder, a tunnel, or somebody in the middle.",
    rationale: "A name is all that a peer knows of a node. Who takes it over is called and trusted in its place.",
    evidence: "The packet of the later handshake, both addresses and both creations.",
    remediation: "Find out which of the two is the real one (`net_adm:names/1`, `node()`); give every node a name of its own. \
                  With TLS and verified certificates a name cannot be taken over by an address alone.",
    references: &["G5"],
    options: &[],
};

static NODE_RESTARTED: Rule = Rule {
    id: "node-restarted",
    severity: Severity::Info,
    off_by_default: false,
    group: group::MEMBERSHIP,
    raised_when: "A node comes back under its name with another creation.",
    rationale: "A creation is one life of a node. A change that nobody planned is a crash, or another node with the name.",
    evidence: "The packet of the handshake, and both creations with their ports.",
    remediation: "Compare it with the deployment log, and with the node's crash dump (`erl_crash.dump`).",
    references: &[],
    options: &[],
};

/// The last life of a name that was seen.
struct Life {
    creation: u32,
    ip: IpAddr,
    port: Option<u16>,
    flow: String,
    /// It is from before: where it moved from there since then, its registration may have been missed.
    recalled: bool,
}

struct NodeIdentity {
    lives: Memory<String, Life>,
    /// Who an address was, towards whom, on which connection: (address, peer) -> (name, connection).
    roles: Memory<(IpAddr, String), (String, String)>,
}

impl Detector for NodeIdentity {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Link { change: LinkChange::Handshake | LinkChange::Identified, link } = &event.body else {
            return;
        };
        // Of one that an earlier run read the handshake of, names and creations are known as if it had been read now.
        let is_read = link.handshake.outcome == HandshakeOutcome::Ok || link.resumed;
        if !is_read || !is_up_in_clear(link) {
            return;
        }
        let parties = Parties::of_link(link, cluster);
        self.relay(event, link, &parties, cluster, findings);
        for initiator in [true, false] {
            self.life(event, link, initiator, &parties, cluster, findings);
        }
    }

    fn save(&self, facts: &mut Vec<Fact>) {
        facts.extend(self.lives.iter().map(|(name, life)| Fact::Life {
            name: name.clone(),
            creation: life.creation,
            ip: life.ip,
            port: life.port,
            flow: life.flow.clone(),
        }));
    }

    fn restore(&mut self, fact: &Fact) {
        if let Fact::Life { name, creation, ip, port, flow } = fact.clone() {
            self.lives.entry(name, || Life { creation, ip, port, flow, recalled: true });
        }
    }
}

impl NodeIdentity {
    fn life(
        &mut self,
        event: &Event,
        link: &Link,
        initiator: bool,
        parties: &Parties,
        cluster: &Cluster,
        findings: &mut Findings<'_>,
    ) {
        let handshake = &link.handshake;
        let (party, creation, flags) = if initiator {
            (&parties.from, handshake.initiator_creation, handshake.initiator_flags)
        } else {
            (&parties.to, handshake.acceptor_creation, handshake.acceptor_flags)
        };
        // Dynamic names count their creation up with each connection, and C nodes make one from the time.
        let counts_lives = flags.is_some_and(|flags| Flag::DIST_HDR_ATOM_CACHE.is_in(flags)) && !party.dynamic;
        let (Some(name), Some(creation), true) = (&party.name, creation.filter(|&c| c != 0), counts_lives) else {
            return;
        };
        let now = Life { creation, ip: party.ip, port: party.port, flow: link.flow_id.clone(), recalled: false };
        let Some(before) = self.lives.remove(name) else {
            self.lives.entry(name.clone(), || now);
            return;
        };
        if before.creation == creation {
            let port = now.port.or(before.port);
            self.lives.entry(name.clone(), || Life { port, ..now });
            return;
        }
        // The connection is older than the life that was seen begin since.
        if link.resumed && before.ip == party.ip {
            self.lives.entry(name.clone(), || before);
            return;
        }
        let lives = format!(
            "creation {} at {}, then creation {creation} at {}",
            before.creation,
            place(before.ip, before.port),
            place(party.ip, party.port)
        );
        if before.ip == party.ip {
            let reason = format!("{name} came back: {lives}");
            let report = Report::new(&NODE_RESTARTED, parties, reason).key(name.as_str()).subject(name.as_str());
            findings.raise(event, report.fact(lives));
        } else {
            moved(event, name, &before, party.ip, lives, parties, cluster, findings);
        }
        self.lives.entry(name.clone(), || now);
    }

    /// One address that is the acceptor of one leg and the initiator of another, between the same two names.
    fn relay(&mut self, event: &Event, link: &Link, parties: &Parties, cluster: &Cluster, findings: &mut Findings<'_>) {
        let (Some(from), Some(to)) = (&parties.from.name, &parties.to.name) else { return };
        if parties.from.ip == parties.to.ip {
            return;
        }
        for (party, own, peer) in [(&parties.from, from, to), (&parties.to, to, from)] {
            *self.roles.entry((party.ip, peer.clone()), Default::default) = (own.clone(), link.flow_id.clone());
            let Some((other, flow)) = self.roles.get(&(party.ip, own.clone())) else { continue };
            let is_open = cluster.link(flow).is_some_and(|link| link.closed.is_none());
            if other != peer || *flow == link.flow_id || !is_open {
                continue;
            }
            let reason = format!(
                "{} stands for both {own} and {peer}: it forwards the connection, or sits in its middle",
                party.ip
            );
            let report = Report::new(&NODE_NAME_CONFLICT, parties, reason.clone())
                .key(format!("relay {}", party.ip))
                .subject(format!("{} ({parties})", party.ip))
                .severity(Severity::Low)
                .confidence(Confidence::Likely)
                .span(Span::OncePerLink);
            findings.raise(event, report.fact(reason));
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "one call site; the parts are one sentence")]
fn moved(
    event: &Event,
    name: &str,
    before: &Life,
    ip: IpAddr,
    lives: String,
    parties: &Parties,
    cluster: &Cluster,
    findings: &mut Findings<'_>,
) {
    let at_once = cluster.link(&before.flow).is_some_and(|link| link.closed.is_none());
    let registered = cluster.is_registered(ip, alive_of(name));
    let (reason, confidence) = match (at_once, registered) {
        (true, _) => (format!("{name} is claimed from {} and from {ip} at once", before.ip), Confidence::Certain),
        (false, false) if !before.recalled => {
            (format!("{name} moved from {} to {ip} without an EPMD registration", before.ip), Confidence::Possible)
        }
        (false, _) => return,
    };
    let report = Report::new(&NODE_NAME_CONFLICT, parties, reason)
        .key(name)
        .subject(format!("{name} ({parties})"))
        .confidence(confidence)
        .span(Span::OncePerLink);
    findings.raise(event, report.fact(lives));
}

fn place(ip: IpAddr, port: Option<u16>) -> String {
    port.map_or_else(|| ip.to_string(), |port| std::net::SocketAddr::new(ip, port).to_string())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, established, ip, port_please};
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn another_creation_at_the_same_address_is_a_restart_and_the_same_one_is_not() {
        let mut bench = Bench::new(Policy::default());
        let mut first = established("f1");
        bench.link(LinkChange::Handshake, &first);
        bench.close(&mut first);
        bench.link(LinkChange::Handshake, &established("f2"));
        bench.none("node-restarted");
        let mut second_life = established("f3");
        second_life.handshake.acceptor_creation = Some(1_795_406_438);
        second_life.acceptor.port = 42219;
        bench.link(LinkChange::Handshake, &second_life);
        let alert = bench.only("node-restarted");
        assert_eq!((alert.subject.as_str(), alert.severity), ("db@host-b", Severity::Info));
        bench.none("node-name-conflict");
    }

    #[test]
    fn two_incarnations_at_two_addresses_at_once_are_a_conflict() {
        let mut bench = Bench::new(Policy::default());
        bench.link(LinkChange::Handshake, &established("f1"));
        let mut impostor = established("f2");
        impostor.initiator.ip = ip("10.77.0.66");
        impostor.handshake.initiator_creation = Some(99);
        bench.link(LinkChange::Handshake, &impostor);
        let alert = bench.only("node-name-conflict");
        assert_eq!((alert.severity, alert.confidence), (Severity::High, Confidence::Certain));
        bench.none("node-restarted");
    }

    /// `db@host-b` as `link` has it, but at another address and in another life.
    fn elsewhere(mut link: Link) -> Link {
        link.acceptor.ip = ip("10.77.0.9");
        link.handshake.acceptor_creation = Some(77);
        link
    }

    /// The link as it is met in its middle by the run after the one that read its handshake.
    fn met_again(mut link: Link) -> Link {
        (link.mid_stream, link.resumed) = (true, true);
        link.handshake.outcome = HandshakeOutcome::Unseen;
        link
    }

    /// A run that remembers what another one saw.
    fn run_after(before: &Bench) -> Bench {
        let mut after = Bench::new(Policy::default());
        after.judge.recall(&before.judge.facts());
        after
    }

    #[test]
    fn a_move_without_a_registration_is_a_conflict_and_so_it_is_with_a_new_policy_between() {
        for reload in [false, true] {
            let mut bench = Bench::new(Policy::default());
            let mut first = established("f1");
            bench.link(LinkChange::Handshake, &first);
            bench.close(&mut first);
            if reload {
                bench.judge.set_policy(&Policy::default());
            }
            bench.link(LinkChange::Handshake, &elsewhere(established("f2")));
            assert_eq!(bench.only("node-name-conflict").confidence, Confidence::Possible, "{reload}");
        }
    }

    #[test]
    fn a_move_while_nothing_ran_is_no_conflict_for_its_registration_was_missed_as_well() {
        let mut before = Bench::new(Policy::default());
        before.link(LinkChange::Handshake, &established("f1"));
        let mut after = run_after(&before);
        after.link(LinkChange::Handshake, &elsewhere(established("f2")));
        after.none("node-name-conflict");
        // From here on everything is seen again.
        after.close(&mut elsewhere(established("f2")));
        after.link(LinkChange::Handshake, &established("f3"));
        assert_eq!(after.only("node-name-conflict").confidence, Confidence::Possible);
    }

    #[test]
    fn a_link_of_an_earlier_run_and_a_new_one_are_a_conflict_whichever_is_met_first() {
        let mut before = Bench::new(Policy::default());
        before.link(LinkChange::Handshake, &established("f1"));
        let old = met_again(established("f2"));
        let mut new = elsewhere(established("f3"));
        new.initiator.port = 50_001;
        for order in [[&old, &new], [&new, &old]] {
            let mut after = run_after(&before);
            for link in order {
                after.none("node-name-conflict");
                after.link(LinkChange::Handshake, link);
            }
            // What names a link that is met again is only likely to be right.
            assert!(after.only("node-name-conflict").confidence >= Confidence::Likely);
            after.none("node-restarted");
        }
    }

    #[test]
    fn a_link_of_an_earlier_run_that_lingers_makes_no_restart_of_the_life_that_began_since() {
        let mut before = Bench::new(Policy::default());
        before.link(LinkChange::Handshake, &established("f1"));
        let mut after = run_after(&before);
        let mut restarted = established("f2");
        restarted.handshake.acceptor_creation = Some(77);
        restarted.acceptor.port = 42_219;
        after.link(LinkChange::Handshake, &restarted);
        assert_eq!(after.only("node-restarted").count, 1);
        after.link(LinkChange::Handshake, &met_again(established("f3")));
        after.link(LinkChange::Handshake, &restarted);
        assert_eq!(after.only("node-restarted").count, 1);
    }

    #[test]
    fn a_move_with_a_registration_is_no_conflict() {
        let mut bench = Bench::new(Policy::default());
        let mut first = established("f1");
        bench.link(LinkChange::Handshake, &first);
        bench.close(&mut first);
        bench.event(port_please("10.77.0.1", "10.77.0.9", "db", 41000));
        let mut moved = established("f2");
        moved.acceptor.ip = ip("10.77.0.9");
        moved.handshake.acceptor_creation = Some(77);
        bench.link(LinkChange::Handshake, &moved);
        bench.none("node-name-conflict");
    }

    #[test]
    fn a_node_with_two_addresses_is_no_conflict_and_a_forwarder_is_a_small_one() {
        let mut bench = Bench::new(Policy::default());
        bench.link(LinkChange::Handshake, &established("f1"));
        let mut desk = established("f2");
        desk.initiator.node = Some("desk@host-c".into());
        desk.handshake.initiator_creation = Some(5);
        desk.acceptor.node = Some("web@host-a".into());
        desk.handshake.acceptor_creation = desk.handshake.initiator_creation.map(|_| 1_795_406_313);
        (desk.initiator.ip, desk.acceptor.ip) = (ip("10.88.0.50"), ip("10.88.0.1"));
        bench.link(LinkChange::Handshake, &desk);
        bench.none("node-name-conflict");

        let mut bench = Bench::new(Policy::default());
        let mut leg = established("f1");
        leg.acceptor.ip = ip("10.77.0.3");
        bench.link(LinkChange::Handshake, &leg);
        let mut second = established("f2");
        second.initiator.ip = ip("10.77.0.3");
        bench.link(LinkChange::Handshake, &second);
        let alert = bench.only("node-name-conflict");
        assert_eq!(alert.severity, Severity::Low);
        assert!(alert.subject.starts_with("10.77.0.3"));
    }
}
