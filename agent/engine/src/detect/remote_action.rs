//! What one node does to another, read in clear: `remote-shell`, `remote-command`, `remote-code-load`,
//! `remote-file-access`, `remote-control`, `remote-call`.

mod table;

use std::borrow::Cow;

use super::{Detector, Exposure, Family, Findings, Parties, Report, Rule, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody};
use crate::model::{Activity, ActivityKind, Severity};
use table::{Kind, kind_of_call, kind_of_fun, kind_of_server};

pub(super) const FAMILY: Family = Family {
    rules: &[&REMOTE_SHELL, &REMOTE_COMMAND, &REMOTE_CODE_LOAD, &REMOTE_FILE_ACCESS, &REMOTE_CONTROL, &REMOTE_CALL],
    detector: |_| Box::new(RemoteAction),
};

static REMOTE_SHELL: Rule = Rule {
    id: "remote-shell",
    severity: Severity::Critical,
    off_by_default: false,
    group: group::REMOTE_ACTIONS,
    raised_when: "A remote shell is started from another node: `erl -remsh`, IEx `--remsh`, the `remote` command of a release. \
                  Medium when it comes over loopback or over what the policy declares a tunnel.",
    rationale: "A remote shell is full control of the node and of every node that it reaches. In clear, everything typed and \
                shown can be read, and the session can be taken over.",
    evidence: "The packet of the call that starts the shell, its M:F/A, and the two nodes.",
    remediation: "Open shells through SSH or a VPN: log in to the host and attach over loopback, or forward the ports of EPMD and \
                  of the node. Declare such ways under `network.tunnels`.",
    references: &["G9"],
    options: &[],
};

static REMOTE_COMMAND: Rule = Rule {
    id: "remote-command",
    severity: Severity::Critical,
    off_by_default: false,
    group: group::REMOTE_ACTIONS,
    raised_when: "A command of the operating system is run from another node: `os:cmd`, `open_port`, Elixir's `System.cmd` and the \
                  like, by rpc, erpc or spawn.",
    rationale: "This is what an intruder does first, and what few clusters do in normal operation.",
    evidence: "The packet of the call, its M:F/A, how it was carried, and the two nodes. Arguments only where the policy asks for \
               them.",
    remediation: "Find out who asked for it. If it is a deployment tool, allow it for its node and address; if not, treat both \
                  nodes as taken over and change the cookie.",
    references: &["G4", "G5"],
    options: &[],
};

static REMOTE_CODE_LOAD: Rule = Rule {
    id: "remote-code-load",
    severity: Severity::Critical,
    off_by_default: false,
    group: group::REMOTE_ACTIONS,
    raised_when: "Code is loaded, changed or evaluated from another node: `code:load_binary`, `code:load_abs`, `erl_eval`, \
                  `Code.eval_*`, `c:nl`, or a fun that was typed into a shell.",
    rationale: "Code that is sent to a node is on no disk and in no release, and stays until the node ends.",
    evidence: "The packet of the call, its M:F/A, how it was carried, and the two nodes.",
    remediation: "Deploy releases instead of pushing code. Compare what is loaded with what is on disk: \
                  `[M || M <- code:modified_modules()]`. Allow the rule for the nodes of a deployment tool, if there is one.",
    references: &["G4", "G5"],
    options: &[],
};

static REMOTE_FILE_ACCESS: Rule = Rule {
    id: "remote-file-access",
    severity: Severity::High,
    off_by_default: false,
    group: group::REMOTE_ACTIONS,
    raised_when: "A file of another node is read, written or listed: `file:*`, `filelib:*`, Elixir's `File.*`, or calls to its file \
                  server.",
    rationale: "Keys, configuration and the cookie itself can be read this way, and start scripts written.",
    evidence: "The packet of the call, its M:F/A, how it was carried, and the two nodes.",
    remediation: "Move files by other means than distribution. Run the node as a user who may read only what it needs. Allow the \
                  rule for the nodes where it is part of the application.",
    references: &["G4", "G5"],
    options: &[],
};

static REMOTE_CONTROL: Rule = Rule {
    id: "remote-control",
    severity: Severity::High,
    off_by_default: false,
    group: group::REMOTE_ACTIONS,
    raised_when: "A node is stopped, restarted or traced, or has its settings, its logging or its membership changed from another \
                  node: `init:stop`, `erlang:halt`, `application:stop`, `dbg`, `erlang:trace`, `logger:set_*`, \
                  `net_kernel:connect_node`, `erlang:set_cookie`.",
    rationale: "Tracing shows all data of a node, a changed logger hides what follows, and a changed cookie or connection lets \
                others in.",
    evidence: "The packet of the call, its M:F/A, how it was carried, and the two nodes.",
    remediation: "Find out who asked for it. Allow the rule for operators' tools by node and address (`rabbitmqcli-*`).",
    references: &["G4", "G5"],
    options: &[],
};

static REMOTE_CALL: Rule = Rule {
    id: "remote-call",
    severity: Severity::Info,
    off_by_default: true,
    group: group::REMOTE_ACTIONS,
    raised_when: "Any other remote call whose module and function match the policy's list `activity.watch`. Without such a list \
                  there is nothing to raise.",
    rationale: "What is worth watching beyond the calls above only the operator knows: `ets:*`, `mnesia:*`, an application's own \
                administration.",
    evidence: "The packet of the call, its M:F/A, how it was carried, and the two nodes.",
    remediation: "This is what the policy asked to be told. Narrow `activity.watch` if it is too much.",
    references: &["G4"],
    options: &[],
};

struct RemoteAction;

impl Detector for RemoteAction {
    fn hears_actions(&self) -> bool {
        true
    }

    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Activity(activity) = &event.body else { return };
        let kind = kind_of(activity);
        let watched = kind == Kind::Nothing && is_watched(activity, findings);
        if kind == Kind::Nothing && !watched {
            return;
        }
        let Some(parties) = Parties::of_activity(activity, event, cluster) else { return };
        let what = in_words(activity);
        let (from, to) = (&parties.from, &parties.to);
        let (rule, reason) = match kind {
            Kind::Shell => (&REMOTE_SHELL, format!("{from} opened a remote shell on {to} ({what})")),
            Kind::Command => (&REMOTE_COMMAND, format!("{from} ran an operating system command on {to} ({what})")),
            Kind::Code => (&REMOTE_CODE_LOAD, format!("{from} loaded or changed code on {to} ({what})")),
            Kind::File => (&REMOTE_FILE_ACCESS, format!("{from} used the files of {to} ({what})")),
            Kind::Control => (&REMOTE_CONTROL, format!("{from} changed how {to} runs ({what})")),
            Kind::Nothing => (&REMOTE_CALL, format!("{from} called {what} on {to}")),
        };
        let mut report = Report::new(rule, &parties, reason).confidence(activity.confidence);
        report = match kind {
            Kind::Shell => report.severity(shell_severity(&parties, findings)),
            Kind::Nothing => report.asked_for(),
            _ => report,
        };
        let times = if activity.count > 1 { format!(", {} times", activity.count) } else { String::new() };
        let arguments = activity.arguments.as_ref().map(|text| format!(" with {text}")).unwrap_or_default();
        let fact = format!("{what} by {}{times}{arguments}", activity.operation);
        findings.raise(event, report.fact_at(fact, &activity.first_packet));
    }
}

/// Over loopback or a declared tunnel a shell is as the guideline wants it.
fn shell_severity(parties: &Parties, findings: &Findings<'_>) -> Severity {
    let interfaces = || parties.interfaces.iter().map(String::as_str);
    let tunnels = &findings.policy.tunnels;
    let exposure = Exposure::judge(findings.policy, interfaces(), parties.from.ip, parties.to.ip);
    let tunnelled =
        tunnels.contains_address(parties.from.ip) || interfaces().any(|name| tunnels.contains_interface(name));
    if exposure == Exposure::Loopback || tunnelled { Severity::Medium } else { REMOTE_SHELL.severity }
}

/// The start of what a request to an open file of the other node is called: `file` itself makes these, with the request
/// as the function (OTP, kernel, `file_io_server`).
const FILE_REQUEST: &str = "file:";

/// Kinds that run a function on the other node. What is sent to a process, or written to a device, is data.
const fn runs_code(kind: ActivityKind) -> bool {
    use ActivityKind::{ErpcCall, ErpcCast, RpcBlockCall, RpcCall, RpcCast, Spawn, SpawnLink, SpawnMonitor};
    matches!(kind, RpcCall | RpcCast | RpcBlockCall | ErpcCall | ErpcCast | Spawn | SpawnLink | SpawnMonitor)
}

fn kind_of(activity: &Activity) -> Kind {
    match activity.kind {
        ActivityKind::Shell => Kind::Shell,
        ActivityKind::GenCall => activity.target.as_deref().map_or(Kind::Nothing, kind_of_server),
        ActivityKind::IoRequest if activity.mfa.as_deref().is_some_and(|mfa| mfa.starts_with(FILE_REQUEST)) => {
            Kind::File
        }
        kind if runs_code(kind) => match activity.mfa.as_deref().map(split) {
            Some(Called::Fun { module }) => kind_of_fun(&module),
            Some(Called::Function { module, function }) => kind_of_call(&module, &function),
            None => Kind::Nothing,
        },
        _ => Kind::Nothing,
    }
}

fn is_watched(activity: &Activity, findings: &Findings<'_>) -> bool {
    let watch = &findings.policy.watch;
    if watch.is_empty() || !runs_code(activity.kind) {
        return false;
    }
    match activity.mfa.as_deref().map(split) {
        Some(Called::Function { module, function }) => watch.matches(&format!("{module}:{function}")),
        _ => false,
    }
}

/// What is called, taken apart.
enum Called<'a> {
    Fun { module: Cow<'a, str> },
    Function { module: Cow<'a, str>, function: Cow<'a, str> },
}

/// Takes `module:function/arity` or `fun Module:-name-/arity-` apart; quotes around atoms are dropped.
fn split(mfa: &str) -> Called<'_> {
    let unquoted = |text: &str| -> String { text.trim_matches('\'').to_owned() };
    if let Some(fun) = mfa.strip_prefix("fun ") {
        let module = fun.split_once(':').map_or(fun, |(module, _)| module);
        return Called::Fun { module: unquoted(module).into() };
    }
    let without_arity = match mfa.rsplit_once('/') {
        Some((before, arity)) if arity.bytes().all(|byte| byte.is_ascii_digit()) => before,
        _ => mfa,
    };
    let (module, function) = without_arity.split_once(':').unwrap_or((without_arity, ""));
    Called::Function { module: unquoted(module).into(), function: unquoted(function).into() }
}

fn in_words(activity: &Activity) -> String {
    let what = activity.mfa.as_deref().or(activity.target.as_deref()).unwrap_or("a shell");
    match activity.kind {
        ActivityKind::GenCall => format!("a call to {what}"),
        _ => what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, activity, established, ip, patterns, settings};
    use super::*;
    use crate::event::LinkChange;
    use crate::model::Confidence;
    use crate::policy::{Allow, Places, Policy, RuleSettings};

    fn bench(policy: Policy) -> Bench {
        let mut bench = Bench::new(policy);
        bench.link(LinkChange::Handshake, &established("f1"));
        bench
    }

    fn called(kind: ActivityKind, mfa: &str) -> Bench {
        let mut bench = bench(Policy::default());
        bench.activity(activity(kind, Some(mfa), None));
        bench
    }

    #[test]
    fn commands_code_files_and_control_raise_their_rules_whatever_carries_them() {
        for (kind, mfa, rule) in [
            (ActivityKind::RpcCall, "os:cmd/1", "remote-command"),
            (ActivityKind::ErpcCall, "Elixir.System:cmd/2", "remote-command"),
            (ActivityKind::ErpcCall, "'Elixir.System':cmd/2", "remote-command"),
            (ActivityKind::Spawn, "os:cmd/1", "remote-command"),
            (ActivityKind::RpcCast, "code:load_binary/3", "remote-code-load"),
            (ActivityKind::ErpcCall, "fun erl_eval:-expr/6-fun-3-/0", "remote-code-load"),
            (ActivityKind::RpcBlockCall, "file:read_file/1", "remote-file-access"),
            (ActivityKind::IoRequest, "file:pread/2", "remote-file-access"),
            (ActivityKind::SpawnMonitor, "init:stop/0", "remote-control"),
            (ActivityKind::ErpcCall, "shell:start/0", "remote-shell"),
        ] {
            let alert = called(kind, mfa).only(rule);
            assert_eq!(alert.subject, "web@host-a -> db@host-b", "{mfa}");
            assert_eq!(alert.evidence[0].packet.as_deref(), Some("12"));
        }
    }

    #[test]
    fn ordinary_traffic_raises_nothing() {
        for (kind, mfa) in [
            (ActivityKind::ErpcCall, "code:ensure_loaded/1"),
            (ActivityKind::ErpcCall, "net_kernel:get_net_ticktime/0"),
            (ActivityKind::RpcCall, "erlang:system_info/1"),
            (ActivityKind::ErpcCall, "application:get_env/3"),
            (ActivityKind::RpcCast, "erlang:garbage_collect/0"),
            (ActivityKind::Spawn, "kiosk:loop/0"),
            (ActivityKind::ErpcCall, "fun shop:-charge/2-fun-0-/0"),
            (ActivityKind::IoRequest, "filer:read/1"),
        ] {
            let bench = called(kind, mfa);
            let raised: Vec<_> =
                bench.alerts().into_iter().filter(|alert| alert.rule_id.starts_with("remote-")).collect();
            assert!(raised.is_empty(), "{mfa}: {raised:#?}");
        }
        let mut bench = bench(Policy::default());
        for (kind, target) in [
            (ActivityKind::SendNamed, "rex"),
            (ActivityKind::GenCall, "kiosk"),
            (ActivityKind::GenCall, "net_kernel"),
            (ActivityKind::SendNamed, "logger"),
        ] {
            bench.activity(activity(kind, None, Some(target)));
        }
        assert!(bench.alerts().iter().all(|alert| !alert.rule_id.starts_with("remote-")));
        bench.activity(activity(ActivityKind::GenCall, None, Some("file_server_2")));
        bench.only("remote-file-access");
    }

    #[test]
    fn repeats_are_one_finding_per_node_pair_and_direction() {
        let mut bench = called(ActivityKind::RpcCall, "os:cmd/1");
        bench.activity(activity(ActivityKind::ErpcCall, Some("os:cmd/1"), None));
        assert_eq!(bench.only("remote-command").count, 2);
        let mut back = activity(ActivityKind::ErpcCall, Some("os:cmd/1"), None);
        (back.from_node, back.to_node) = (back.to_node, back.from_node);
        back.from_initiator = false;
        back.confidence = Confidence::Likely;
        bench.activity(back);
        let alerts: Vec<_> = bench.alerts().into_iter().filter(|alert| alert.rule_id == "remote-command").collect();
        assert_eq!(alerts.len(), 2);
        let back = alerts.iter().find(|alert| alert.subject == "db@host-b -> web@host-a").unwrap();
        assert_eq!(back.confidence, Confidence::Likely);
    }

    #[test]
    fn a_shell_over_loopback_or_a_tunnel_weighs_less() {
        let shell = || activity(ActivityKind::Shell, Some("shell:start/0"), None);
        let mut open = bench(Policy::default());
        open.activity(shell());
        assert_eq!(open.only("remote-shell").severity, Severity::Critical);

        let tunnels = Places { interfaces: patterns(&["eth*"]), networks: vec![] };
        let mut tunnelled = bench(Policy { tunnels, ..Policy::default() });
        tunnelled.activity(shell());
        assert_eq!(tunnelled.only("remote-shell").severity, Severity::Medium);

        let mut local = Bench::new(Policy::default());
        let mut link = established("f1");
        (link.initiator.ip, link.acceptor.ip) = (ip("::1"), ip("::1"));
        local.link(LinkChange::Handshake, &link);
        local.activity(shell());
        assert_eq!(local.only("remote-shell").severity, Severity::Medium);
    }

    #[test]
    fn the_policy_watches_calls_and_allows_or_silences_rules() {
        let mut watching = bench(Policy { watch: patterns(&["ets:*"]), ..Policy::default() });
        watching.activity(activity(ActivityKind::RpcCall, Some("ets:tab2list/1"), None));
        watching.activity(activity(ActivityKind::RpcCall, Some("mnesia:info/0"), None));
        assert_eq!((watching.only("remote-call").count, watching.only("remote-call").severity), (1, Severity::Info));

        let allow = |nodes: &[&str], from: &str| Allow {
            nodes: patterns(nodes),
            from: vec![from.parse().unwrap()],
            ..Allow::default()
        };
        let with = |allow| settings("remote-command", RuleSettings { allow: vec![allow], ..RuleSettings::default() });
        let run = |policy| {
            let mut bench = bench(policy);
            bench.activity(activity(ActivityKind::RpcCall, Some("os:cmd/1"), None));
            bench
        };
        run(with(allow(&["web@*"], "10.77.0.0/24"))).none("remote-command");
        run(with(allow(&["*@host-b"], "10.77.0.1/32"))).none("remote-command");
        run(with(allow(&["web@*"], "10.88.0.0/24"))).only("remote-command");
        run(with(allow(&["other@*"], "10.77.0.0/24"))).only("remote-command");
        run(with(Allow::default())).only("remote-command");
        let off = RuleSettings { enabled: Some(false), ..RuleSettings::default() };
        run(settings("remote-command", off)).none("remote-command");
        let lower = RuleSettings { severity: Some(Severity::Low), ..RuleSettings::default() };
        assert_eq!(run(settings("remote-command", lower)).only("remote-command").severity, Severity::Low);
    }
}
