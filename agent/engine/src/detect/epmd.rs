//! EPMD, as others reach and use it: `epmd-exposed`, `epmd-enumeration`, `epmd-control`, `epmd-remote-registration`.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use super::memory::{ENTRIES, Memory};
use super::{Detector, Exposure, Family, Findings, Parties, Report, Rule, RuleOption, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody};
use crate::model::{EpmdExchange, EpmdRequest, Severity};
use crate::time::Timestamp;

pub(super) const FAMILY: Family = Family {
    rules: &[&EPMD_EXPOSED, &EPMD_ENUMERATION, &EPMD_CONTROL, &EPMD_REMOTE_REGISTRATION],
    detector: |_| Box::new(Epmd { asked: Memory::new(ENTRIES) }),
};

static EPMD_EXPOSED: Rule = Rule {
    id: "epmd-exposed",
    severity: Severity::High,
    off_by_default: false,
    group: group::EXPOSURE,
    raised_when: "EPMD answers a request that came over an interface or address that is not isolated. Where the policy \
                  declares nothing, a way between private addresses is medium instead of high.",
    rationale: "EPMD answers anyone: it lists all nodes of a host with their ports. On an untrusted network it is the map to \
                the cluster, and it binds to all interfaces unless told otherwise.",
    evidence: "The packet of the request, who asked for what, and the answer in words.",
    remediation: "Start EPMD with `ERL_EPMD_ADDRESS=10.0.0.1` (or `epmd -address 10.0.0.1`); loopback is always included. Under \
                  systemd, `ListenStream` of `epmd.socket` decides. Or do without it: `-start_epmd false -erl_epmd_port \
                  PORT` on all nodes.",
    references: &["G6", "G8"],
    options: &[],
};

static EPMD_ENUMERATION: Rule = Rule {
    id: "epmd-enumeration",
    severity: Severity::Medium,
    off_by_default: false,
    group: group::EXPOSURE,
    raised_when: "Another host asks EPMD for the list of all nodes (NAMES), or for more names than a peer needs in a short \
                  time (PORT_PLEASE2): medium, and low inside an isolated network, where discovery does the same. High \
                  for DUMP, which no program asks of another host.",
    rationale: "The list of nodes and ports is the first thing that a scanner asks for.",
    evidence: "The packets of the requests, who asked, and the answers in words.",
    remediation: "Keep EPMD to the networks of the cluster (`ERL_EPMD_ADDRESS`) and its port (4369) behind a firewall. Where a \
                  discovery strategy asks for names, allow it: `allow = [{ from = [\"10.0.0.0/24\"] }]` for this rule.",
    references: &["G6"],
    options: &[
        RuleOption { name: "names", default: 10, help: "different names in PORT_PLEASE2 requests from one address" },
        RuleOption { name: "window_seconds", default: 60, help: "time in which they are counted, in seconds" },
    ],
};

static EPMD_CONTROL: Rule = Rule {
    id: "epmd-control",
    severity: Severity::Critical,
    off_by_default: false,
    group: group::EXPOSURE,
    raised_when: "EPMD is told to end (KILL) or to strike a node off its list (STOP); medium when it refuses.",
    rationale: "Without EPMD, or without its entry, no node finds the other any more, and whoever registers the name next is \
                called in its place.",
    evidence: "The packet of the request, who sent it, the name and the answer in words.",
    remediation: "Start EPMD without `-relaxed_command_check` (and without `ERL_EPMD_RELAXED_COMMAND_CHECK`), then it refuses \
                  while nodes are registered, and takes such requests from its own host only. Look for who sent it.",
    references: &["G6"],
    options: &[],
};

static EPMD_REMOTE_REGISTRATION: Rule = Rule {
    id: "epmd-remote-registration",
    severity: Severity::High,
    off_by_default: false,
    group: group::EXPOSURE,
    raised_when: "A registration (ALIVE2) comes from another host than EPMD's, isolated network or not: EPMD itself takes \
                  registrations from its own host only, so no node sends one elsewhere.",
    rationale: "Who registers a name is called in the place of the node of that name.",
    evidence: "The packet of the request, who sent it, the name and port it wanted, and the answer in words.",
    remediation: "Look at the host that sent it. A forwarder in front of EPMD makes its clients look local to EPMD: forward \
                  no registrations, and bind EPMD with `ERL_EPMD_ADDRESS`.",
    references: &["G6"],
    options: &[],
};

/// Names that one address is remembered to have asked for: more than any sensible threshold.
const NAMES: usize = 256;

struct Epmd {
    /// What an address has asked an EPMD for, lately.
    asked: Memory<(IpAddr, IpAddr), VecDeque<(Timestamp, String)>>,
}

impl Detector for Epmd {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Epmd(exchange) = &event.body else { return };
        let parties = Parties::of_epmd(exchange, event, cluster);
        let interfaces = parties.interfaces.iter().map(String::as_str);
        let exposure = Exposure::judge(findings.policy, interfaces, exchange.client.ip, exchange.server.ip);
        let look = Look { event, exchange, parties: &parties, exposure };
        look.exposed(findings);
        match exchange.request {
            EpmdRequest::Kill | EpmdRequest::Stop => look.control(findings),
            EpmdRequest::Alive2 => look.registration(findings),
            EpmdRequest::Names | EpmdRequest::Dump => look.list(findings),
            EpmdRequest::PortPlease2 => self.lookup(&look, findings),
        }
    }
}

impl Epmd {
    fn lookup(&mut self, look: &Look<'_>, findings: &mut Findings<'_>) {
        if look.exposure == Exposure::Loopback {
            return;
        }
        let threshold =
            usize::try_from(findings.option(&EPMD_ENUMERATION, "names")).unwrap_or(usize::MAX).clamp(1, NAMES);
        let window = Duration::from_secs(findings.option(&EPMD_ENUMERATION, "window_seconds"));
        let EpmdExchange { client, server, name, .. } = look.exchange;
        let asked = self.asked.entry((client.ip, server.ip), VecDeque::new);
        let now = look.event.time;
        asked.retain(|(time, known)| now.since(*time) <= window && known != name);
        if asked.len() >= NAMES {
            asked.pop_front();
        }
        asked.push_back((now, name.clone()));
        if asked.len() < threshold {
            return;
        }
        let what = format!("asked for {} names within {} s", asked.len(), window.as_secs());
        let reason = format!("{} {what} at the EPMD of {}", client.ip, server.ip);
        look.enumeration(look.list_severity(), reason, findings);
    }
}

/// An exchange under judgement.
struct Look<'a> {
    event: &'a Event,
    exchange: &'a EpmdExchange,
    parties: &'a Parties,
    exposure: Exposure,
}

impl Look<'_> {
    /// The request and its answer as a fact.
    fn fact(&self) -> String {
        let EpmdExchange { client, server, name, result, .. } = self.exchange;
        let name = if name.is_empty() { String::new() } else { format!(" {name}") };
        format!("{}{name} from {} to {}:{}: {result}", self.request(), client.ip, server.ip, server.port)
    }

    const fn request(&self) -> &'static str {
        match self.exchange.request {
            EpmdRequest::Alive2 => "ALIVE2",
            EpmdRequest::PortPlease2 => "PORT_PLEASE2",
            EpmdRequest::Names => "NAMES",
            EpmdRequest::Dump => "DUMP",
            EpmdRequest::Kill => "KILL",
            EpmdRequest::Stop => "STOP",
        }
    }

    fn exposed(&self, findings: &mut Findings<'_>) {
        let EpmdExchange { client, server, result, accepted, .. } = self.exchange;
        let answered = *accepted || !matches!(result.as_str(), "" | "none");
        if self.exposure.is_local() || !answered {
            return;
        }
        let reason = format!("EPMD at {} answers {} {}", self.parties.to, client.ip, self.exposure.in_words());
        let report = Report::new(&EPMD_EXPOSED, self.parties, reason)
            .key(format!("{}:{}", server.ip, server.port))
            .severity(self.exposure.weigh(EPMD_EXPOSED.severity));
        findings.raise(self.event, report.fact(self.fact()));
    }

    /// Names may be listed by discovery inside the cluster's own network; it is worth knowing there and no more.
    fn list_severity(&self) -> Severity {
        match self.exposure {
            Exposure::Isolated => Severity::Low,
            _ => EPMD_ENUMERATION.severity,
        }
    }

    fn list(&self, findings: &mut Findings<'_>) {
        if self.exposure == Exposure::Loopback {
            return;
        }
        let (severity, what) = match self.exchange.request {
            EpmdRequest::Dump => (Severity::High, "its dump"),
            _ => (self.list_severity(), "all names"),
        };
        let reason = format!("{} asked the EPMD of {} for {what}", self.exchange.client.ip, self.exchange.server.ip);
        self.enumeration(severity, reason, findings);
    }

    fn enumeration(&self, severity: Severity, reason: String, findings: &mut Findings<'_>) {
        let report = self.report(&EPMD_ENUMERATION, reason).severity(severity);
        findings.raise(self.event, report.fact(self.fact()));
    }

    fn control(&self, findings: &mut Findings<'_>) {
        let what = match self.exchange.request {
            EpmdRequest::Kill => "to end".to_owned(),
            _ => format!("to strike {} off its list", self.exchange.name),
        };
        let (severity, how) =
            if self.exchange.accepted { (Severity::Critical, "and did it") } else { (Severity::Medium, "and refused") };
        let EpmdExchange { client, server, .. } = self.exchange;
        let reason = format!("the EPMD of {} was told by {} {what}, {how}", server.ip, client.ip);
        let key = format!("{} {} -> {}", self.request(), client.ip, server.ip);
        let report = self.report(&EPMD_CONTROL, reason).key(key).severity(severity);
        findings.raise(self.event, report.fact(self.fact()));
    }

    fn registration(&self, findings: &mut Findings<'_>) {
        let EpmdExchange { client, server, local, name, .. } = self.exchange;
        if *local || self.exposure == Exposure::Loopback {
            return;
        }
        let reason = format!("{} wanted to register the node name {name} at the EPMD of {}", client.ip, server.ip);
        let report = self.report(&EPMD_REMOTE_REGISTRATION, reason);
        findings.raise(self.event, report.fact(self.fact()));
    }

    /// A report from one address to another, whatever the ports.
    fn report(&self, rule: &'static Rule, reason: String) -> Report {
        let ends = format!("{} -> {}", self.exchange.client.ip, self.exchange.server.ip);
        Report::new(rule, self.parties, reason).key(&*ends).subject(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, epmd, policy_with_isolated, port_please};
    use super::*;
    use crate::policy::Policy;

    fn isolated() -> Policy {
        policy_with_isolated(&["lo"], &["10.77.0.0/24"])
    }

    #[test]
    fn an_answer_to_another_network_is_exposure_and_one_inside_is_not() {
        let mut bench = Bench::new(isolated());
        bench.event(port_please("10.77.0.1", "10.77.0.2", "db", 41000));
        bench.none("epmd-exposed");
        bench.event(port_please("10.88.0.50", "10.88.0.1", "web", 41000));
        let alert = bench.only("epmd-exposed");
        assert_eq!((alert.severity, alert.subject.as_str()), (Severity::High, "10.88.0.50 -> 10.88.0.1:4369"));

        let mut bench = Bench::new(isolated());
        bench.event(epmd(EpmdRequest::Dump, "10.88.0.50", "10.88.0.1", "", false, "none"));
        bench.none("epmd-exposed");
    }

    #[test]
    fn names_from_another_host_enumerate_and_a_dump_weighs_more() {
        let mut bench = Bench::new(isolated());
        bench.event(epmd(EpmdRequest::Names, "127.0.0.1", "127.0.0.1", "", true, "db at 41000"));
        bench.none("epmd-enumeration");
        bench.event(epmd(EpmdRequest::Names, "10.77.0.1", "10.77.0.2", "", true, "db at 41000"));
        assert_eq!(bench.only("epmd-enumeration").severity, Severity::Low);
        bench.event(epmd(EpmdRequest::Dump, "10.77.0.1", "10.77.0.2", "", false, "none"));
        let alert = bench.only("epmd-enumeration");
        assert_eq!(
            (alert.severity, alert.count, alert.subject.as_str()),
            (Severity::High, 2, "10.77.0.1 -> 10.77.0.2")
        );

        let mut bench = Bench::new(isolated());
        bench.event(epmd(EpmdRequest::Names, "10.88.0.9", "10.77.0.2", "", true, "db at 41000"));
        assert_eq!(bench.only("epmd-enumeration").severity, Severity::Medium);
    }

    #[test]
    fn many_names_in_a_short_time_enumerate_and_one_name_many_times_does_not() {
        let mut bench = Bench::new(Policy::default());
        for _ in 0..30 {
            bench.event(port_please("10.77.0.1", "10.77.0.2", "db", 41000));
        }
        bench.none("epmd-enumeration");
        for number in 0..10 {
            bench.event(port_please("10.77.0.1", "10.77.0.2", &format!("n{number}"), 41000));
        }
        assert_eq!(bench.only("epmd-enumeration").severity, Severity::Medium);
    }

    #[test]
    fn kill_and_stop_are_critical_when_done_and_medium_when_refused() {
        let mut bench = Bench::new(isolated());
        bench.event(epmd(EpmdRequest::Kill, "127.0.0.1", "127.0.0.1", "", false, "refused"));
        assert_eq!(bench.only("epmd-control").severity, Severity::Medium);
        bench.event(epmd(EpmdRequest::Kill, "127.0.0.1", "127.0.0.1", "", true, "killed"));
        assert_eq!(bench.only("epmd-control").severity, Severity::Critical);
        bench.event(epmd(EpmdRequest::Stop, "10.77.0.1", "10.77.0.2", "db", false, "none"));
        assert_eq!(bench.alerts().iter().filter(|alert| alert.rule_id == "epmd-control").count(), 2);
    }

    #[test]
    fn a_registration_from_another_host_is_reported_and_one_from_its_own_is_not() {
        let mut bench = Bench::new(isolated());
        bench.event(epmd(EpmdRequest::Alive2, "127.0.0.1", "127.0.0.1", "db", true, "creation 1"));
        bench.event(epmd(EpmdRequest::Alive2, "10.77.0.2", "10.77.0.2", "db", true, "creation 1"));
        bench.none("epmd-remote-registration");
        bench.event(epmd(EpmdRequest::Alive2, "10.77.0.9", "10.77.0.2", "db", false, "none"));
        assert_eq!(bench.only("epmd-remote-registration").severity, Severity::High);
    }
}
