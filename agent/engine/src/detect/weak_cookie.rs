//! `weak-cookie`: cookies that a list knows, or that can be computed.

use super::{Detector, Family, Findings, Parties, Report, Rule, Span, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody, LinkChange};
use crate::model::{HandshakeOutcome, Severity};

pub(super) const FAMILY: Family = Family { rules: &[&WEAK_COOKIE], detector: |_| Box::new(WeakCookie) };

static WEAK_COOKIE: Rule = Rule {
    id: "weak-cookie",
    severity: Severity::High,
    off_by_default: false,
    group: group::AUTHENTICATION,
    raised_when: "The digest of a handshake that passed is the one of a published product default, of a word of the operator's \
                  list, or of a cookie of guessable shape. Only which entry matched is said, never the cookie.",
    rationale: "Challenge and digest are sent in clear, so whoever hears one handshake can test words against it without sending \
                a packet. A default cookie needs no test: CVE-2022-24706 was CouchDB's.",
    evidence: "The packet of the handshake, and the entry of the list that matched.",
    remediation: "Set a long random cookie on all nodes (`openssl rand -hex 32` into `.erlang.cookie`, mode 400) and restart them \
                  together. Do not pass it with `-setcookie`, where every local user reads it.",
    references: &["G3"],
    options: &[],
};

struct WeakCookie;

impl Detector for WeakCookie {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Link { change, link } = &event.body else { return };
        // A guess that failed says nothing of the node's own cookie.
        if *change == LinkChange::Closed || link.handshake.outcome != HandshakeOutcome::Ok {
            return;
        }
        let Some(entry) = &link.handshake.weak_cookie else { return };
        let parties = Parties::of_link(link, cluster);
        let reason = format!("{} and {} share a cookie that can be guessed: {entry}", parties.from, parties.to);
        let report = Report::new(&WEAK_COOKIE, &parties, reason).key(parties.undirected_key());
        findings.raise(event, report.span(Span::WhileLinkOpen).fact(format!("the digest matches: {entry}")));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, bad_cookie, established};
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn a_weak_cookie_that_passed_is_reported_and_a_weak_guess_that_failed_is_not() {
        let mut bench = Bench::new(Policy::default());
        bench.link(LinkChange::Handshake, &established("f0"));
        let mut guess = bad_cookie("f1");
        guess.handshake.weak_cookie = Some("default of Apache CouchDB".into());
        bench.link(LinkChange::Handshake, &guess);
        bench.none("weak-cookie");
        let mut weak = established("f2");
        weak.handshake.weak_cookie = Some("default of Apache CouchDB".into());
        bench.link(LinkChange::Handshake, &weak);
        let alert = bench.only("weak-cookie");
        assert_eq!((alert.subject.as_str(), alert.severity), ("web@host-a -> db@host-b", Severity::High));
        assert!(alert.reason.contains("default of Apache CouchDB"));
    }
}
