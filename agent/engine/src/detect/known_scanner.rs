//! `known-scanner`: handshakes that only published scanners and attack tools send.

use super::{Detector, Family, Findings, Parties, Report, Rule, Span, group};
use crate::cluster::{Cluster, alive_of, host_of};
use crate::event::{Event, EventBody};
use crate::model::{Confidence, HandshakeOutcome, Link, Severity};

pub(super) const FAMILY: Family = Family { rules: &[&KNOWN_SCANNER], detector: |_| Box::new(KnownScanner) };

static KNOWN_SCANNER: Rule = Rule {
    id: "known-scanner",
    severity: Severity::High,
    off_by_default: false,
    group: group::AUTHENTICATION,
    raised_when: "The handshake is the one of a published scanner or attack tool: nmap's probe, the erl-matter scripts and the \
                  exploits that share their handshake. They are known by the name they send, by capability flags that no \
                  release sends, and by a challenge of 0.",
    rationale: "These tools look for cookies that can be guessed and run commands with them.",
    evidence: "The packet of the handshake, the tool, and what it is known by.",
    remediation: "Find out who runs the tool. If it is not your own audit, keep the address from the ports of EPMD and distribution, \
                  and look whether `cookie-guessed` or `remote-command` follow.",
    references: &["G5"],
    options: &[],
};

/// Capability flags in the old handshake of the tools: those of nodes before OTP 17, without UTF8_ATOMS and with
/// obsolete bits, which no supported release sends (`docs/protocol.md` §3.1).
const TOOL_FLAGS: [u64; 2] = [0x3_499C, 0x7_499C];

struct KnownScanner;

impl Detector for KnownScanner {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Link { link, .. } = &event.body else { return };
        let Some((tool, known_by)) = tool_of(link) else { return };
        let parties = Parties::of_link(link, cluster);
        let passed = link.handshake.outcome == HandshakeOutcome::Ok;
        let end = if passed { "and passed the cookie check" } else { "and did not get past the handshake" };
        let reason = format!("{} is {tool} by {known_by}, {end}", parties.from.with_address());
        let report = Report::new(&KNOWN_SCANNER, &parties, reason)
            .key(format!("{tool} {} -> {}", link.initiator.ip, parties.to.key()))
            .confidence(Confidence::Likely)
            .severity(if passed { Severity::Critical } else { KNOWN_SCANNER.severity })
            .span(Span::OncePerLink);
        findings.raise(event, report.fact(format!("known by {known_by}")));
    }
}

/// The tool that a handshake is the one of, and what it is known by.
pub(super) fn tool_of(link: &Link) -> Option<(&'static str, &'static str)> {
    let name = link.initiator.node.as_deref().unwrap_or_default();
    let handshake = &link.handshake;
    let old_flags =
        handshake.version == Some(5) && handshake.initiator_flags.is_some_and(|flags| TOOL_FLAGS.contains(&flags));
    if name == "nm@p" {
        return Some(("nmap", "the node name nm@p"));
    }
    if is_random(alive_of(name)) && matches!(host_of(name), "nowhere" | "mars") {
        return Some(("an erl-matter script or a relative", "a random node name on a host that it makes up"));
    }
    if handshake.zero_challenge && old_flags {
        return Some(("an erl-matter script or a relative", "its flags and a challenge of 0"));
    }
    old_flags.then_some(("a published attack tool", "capability flags that no supported release sends"))
}

/// Six capital letters, as the tools make them.
fn is_random(alive: &str) -> bool {
    alive.len() == 6 && alive.bytes().all(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, bad_cookie, established};
    use super::*;
    use crate::event::LinkChange;
    use crate::policy::Policy;

    #[test]
    fn the_handshakes_of_published_tools_are_known() {
        let tool = |name: &str, flags, zero| {
            let mut link = bad_cookie("f1");
            link.initiator.node = Some(name.into());
            link.handshake.version = Some(5);
            link.handshake.initiator_flags = Some(flags);
            link.handshake.zero_challenge = zero;
            tool_of(&link).map(|(tool, _)| tool)
        };
        assert_eq!(tool("nm@p", 0x3_499C, false), Some("nmap"));
        assert_eq!(tool("QWERTY@nowhere", 0x3_499C, true), Some("an erl-matter script or a relative"));
        assert_eq!(tool("a8Zk1q@x", 0x7_499C, true), Some("an erl-matter script or a relative"));
        assert_eq!(tool("a8Zk1q@x", 0x7_499C, false), Some("a published attack tool"));
        assert_eq!(tool("web@host-a", 0xDF_7FBD, false), None, "an OTP 22 node speaks version 5 too");
    }

    #[test]
    fn a_tool_is_reported_once_per_pair_and_worse_when_it_gets_in() {
        let mut bench = Bench::new(Policy::default());
        bench.link(LinkChange::Handshake, &established("f0"));
        bench.none("known-scanner");
        for (flow, name) in [("f1", "QWERTY@nowhere"), ("f2", "ASDFGH@nowhere")] {
            let mut link = bad_cookie(flow);
            link.initiator.node = Some(name.into());
            bench.link(LinkChange::Progress, &link);
            bench.link(LinkChange::Handshake, &link);
        }
        let alert = bench.only("known-scanner");
        assert_eq!((alert.count, alert.severity), (2, Severity::High));
        let mut inside = established("f3");
        inside.initiator.node = Some("ZXCVBN@nowhere".into());
        bench.link(LinkChange::Handshake, &inside);
        assert_eq!(bench.only("known-scanner").severity, Severity::Critical);
    }
}
