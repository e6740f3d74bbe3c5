//! `cookie-on-the-wire`: cookies that travel where anyone on the way can read them.

use super::{Detector, Family, Findings, Parties, Report, Rule, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody};
use crate::model::{Activity, ActivityKind, Severity};

pub(super) const FAMILY: Family = Family { rules: &[&COOKIE_ON_THE_WIRE], detector: |_| Box::new(CookieOnTheWire) };

static COOKIE_ON_THE_WIRE: Rule = Rule {
    id: "cookie-on-the-wire",
    severity: Severity::Critical,
    off_by_default: false,
    group: group::AUTHENTICATION,
    raised_when: "A term that is a cookie travels in clear: `erlang:get_cookie`, `erlang:set_cookie` or a function of `auth` is \
                  called on another node, or its answer is read.",
    rationale: "The handshake takes care not to send the cookie. A call that fetches or sets it sends it to everyone on the way.",
    evidence: "The packets of the call and of the answer, and the two nodes. The cookie itself is never shown.",
    remediation: "Change the cookie on all nodes: take it as known. Set cookies by file (`.erlang.cookie`) and not by remote calls, \
                  and run distribution over TLS.",
    references: &["G3", "G4"],
    options: &[],
};

struct CookieOnTheWire;

impl Detector for CookieOnTheWire {
    fn hears_actions(&self) -> bool {
        true
    }

    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let (parties, reason, fact, packet) = match &event.body {
            EventBody::CookieSent { how, from_initiator } => {
                let Some(parties) = Parties::of_event(event, cluster) else { return };
                let sender = if *from_initiator { &parties.from } else { &parties.to };
                let reason = format!("{sender} sent a cookie in clear ({parties}): {how}");
                let fact = format!("a term that is a cookie, sent by {sender}: {how}");
                (parties, reason, fact, None)
            }
            EventBody::Activity(activity) if carries_cookie(activity) => {
                let Some(parties) = Parties::of_activity(activity, event, cluster) else { return };
                let what = activity.mfa.as_deref().or(activity.target.as_deref()).unwrap_or("auth");
                let reason = format!("{} called {what} on {}: the cookie travels in clear", parties.from, parties.to);
                let fact = format!("{what} was called by {}", activity.operation);
                (parties, reason, fact, Some((activity.first_packet.clone(), activity.confidence)))
            }
            _ => return,
        };
        // The question and its answer are one condition.
        let report = Report::new(&COOKIE_ON_THE_WIRE, &parties, reason).key(parties.undirected_key());
        let report = match packet {
            Some((packet, confidence)) => report.confidence(confidence).fact_at(fact, packet),
            None => report.fact(fact),
        };
        findings.raise(event, report);
    }
}

fn carries_cookie(activity: &Activity) -> bool {
    use ActivityKind::{ErpcCall, ErpcCast, GenCall, RpcBlockCall, RpcCall, RpcCast, Spawn, SpawnLink, SpawnMonitor};
    match activity.kind {
        GenCall => activity.target.as_deref() == Some("auth"),
        RpcCall | RpcCast | RpcBlockCall | ErpcCall | ErpcCast | Spawn | SpawnLink | SpawnMonitor => {
            let mfa = activity.mfa.as_deref().unwrap_or_default();
            let starts = [
                "erlang:get_cookie/",
                "erlang:set_cookie/",
                "auth:",
                "Elixir.Node:get_cookie/",
                "Elixir.Node:set_cookie/",
            ];
            starts.iter().any(|start| mfa.starts_with(start))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, activity, established};
    use super::*;
    use crate::event::LinkChange;
    use crate::policy::Policy;

    #[test]
    fn the_question_and_the_answer_are_one_finding_about_both_nodes() {
        let mut bench = Bench::new(Policy::default());
        bench.link(LinkChange::Handshake, &established("f1"));
        bench.activity(activity(ActivityKind::ErpcCall, Some("erlang:node/0"), None));
        bench.none("cookie-on-the-wire");
        bench.activity(activity(ActivityKind::ErpcCall, Some("erlang:get_cookie/0"), None));
        bench.on_flow(EventBody::CookieSent { how: "answer to erlang:get_cookie/0".into(), from_initiator: false });
        let alert = bench.only("cookie-on-the-wire");
        assert_eq!((alert.subject.as_str(), alert.count), ("web@host-a -> db@host-b", 2));
        assert!(alert.evidence[1].fact.contains("sent by db@host-b"));
    }

    #[test]
    fn setting_a_cookie_sends_it_too() {
        let mut bench = Bench::new(Policy::default());
        bench.activity(activity(ActivityKind::RpcCall, Some("erlang:set_cookie/2"), None));
        assert_eq!(bench.only("cookie-on-the-wire").severity, Severity::Critical);
    }
}
