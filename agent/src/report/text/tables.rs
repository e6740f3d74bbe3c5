//! The tables of the text report: links, nodes, EPMD requests, remote actions.

use std::collections::HashMap;
use std::io::{self, Write};

use distwatch_engine::model::{
    Activity, ActivityKind, Answer, Confidence, End, EpmdExchange, EpmdRequest, Link, Node, Otp, PerSide, Transport,
};
use indexmap::IndexMap;

use super::layout::{Cell, Style, Table};
use super::{Printer, count, grouped, moment, octets, plural, printable};
use crate::report::Report;
use crate::report::group::{Group, Reach, address, groups, outcome, transport};

/// Rows of remote actions that a person is shown; what is left out is said, with its number.
const ACTIVITY_ROWS: usize = 40;

pub(super) fn links<W: Write>(report: &Report, printer: &mut Printer<W>) -> io::Result<()> {
    if report.links.is_empty() {
        return Ok(());
    }
    printer.section(&format!("Links ({})", count(&report.links)))?;
    let mut table = Table::new(&["from", "to", "transport", "handshake", "there / back"]);
    let releases: Releases<'_> =
        report.nodes.iter().filter_map(|node| Some((node.name.as_str(), otp(&node.otp)?))).collect();
    for group in groups(&report.links) {
        let link = group.link;
        let (from, to) = (&link.initiator, &link.acceptor);
        table.push([
            who(from, &from.ip.to_string()),
            who(to, &address(to)),
            Cell::new(carrier(link), transport_style(link.transport)),
            handshake(&group, &releases),
            traffic(&group).into(),
        ]);
    }
    printer.table(&table)
}

/// The node's name above its address; the address alone where there is no name.
fn who(end: &End, address: &str) -> Cell {
    match &end.node {
        Some(node) => format!("{}\n{address}", printable(node)).into(),
        None => address.into(),
    }
}

const fn transport_style(transport: Transport) -> Style {
    match transport {
        Transport::Cleartext => Style::RED,
        Transport::Tls => Style::GREEN,
        Transport::Unknown => Style::YELLOW,
    }
}

fn carrier(link: &Link) -> String {
    let Some(tls) = &link.tls else { return transport(link) };
    let certificate = match tls.mutual_auth {
        Answer::Yes => "with client cert",
        Answer::No => "no client cert",
        Answer::Unknown if Reach::of(link) != Reach::Established => return transport(link),
        Answer::Unknown => return format!("{}\nclient cert unknown", transport(link)),
    };
    match doubt(tls.mutual_auth_confidence) {
        "" => format!("{}\n{certificate}", transport(link)),
        doubt => format!("{}\n{doubt} {certificate}", transport(link)),
    }
}

fn handshake(group: &Group<'_>, known: &Releases<'_>) -> Cell {
    let handshake = &group.link.handshake;
    let mut text = if group.link.mid_stream { "began before capture" } else { outcome(group.link) }.to_owned();
    if let Some(version) = handshake.version {
        text.push_str(&format!(", version {version}"));
    }
    if group.count > 1 {
        text.push_str(&format!("\n{} times", grouped(group.count)));
    }
    if let Some(releases) = releases(group, known) {
        text.push_str(&format!("\nOTP {releases}"));
    }
    match group.weak_cookies.len() {
        0 => {}
        1 => text.push_str(&format!("\nweak cookie: {}", printable(group.weak_cookies[0]))),
        many => text.push_str(&format!("\n{} cookies that can be guessed", grouped(many as u64))),
    }
    let style = match group.reach {
        Reach::Established if group.weak_cookies.is_empty() => Style::PLAIN,
        _ => Style::YELLOW,
    };
    Cell::new(text, style)
}

/// What is known of nodes' releases, by name.
type Releases<'a> = HashMap<&'a str, String>;

/// `25 -> 27` by the names at both ends.
fn releases(group: &Group<'_>, known: &Releases<'_>) -> Option<String> {
    let release = |end: &End| known.get(end.node.as_deref()?).map(String::as_str);
    let ends = [release(&group.link.initiator), release(&group.link.acceptor)];
    ends.iter().any(Option::is_some).then(|| ends.map(|end| end.unwrap_or("?")).join(" -> "))
}

fn otp(otp: &Otp) -> Option<String> {
    match (otp.min, otp.max, &otp.implementation) {
        (Some(min), Some(max), _) if min == max => Some(min.to_string()),
        (Some(min), Some(max), _) => Some(format!("{min}-{max}")),
        (Some(min), None, _) => Some(format!(">={min}")),
        (None, Some(max), _) => Some(format!("<={max}")),
        (None, None, Some(implementation)) => Some(printable(implementation).into_owned()),
        (None, None, None) => None,
    }
}

/// The release by the flags, and below it the build that is inferred.
fn release(known: &Otp) -> String {
    let by_flags = otp(known).unwrap_or_default();
    match (&known.build, known.build_confidence) {
        (Some(build), Some(confidence)) => {
            format!("{by_flags}\n{} {}", doubt(confidence), printable(build)).trim_start().to_owned()
        }
        _ => by_flags,
    }
}

const fn doubt(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Certain => "",
        Confidence::Likely => "likely",
        Confidence::Possible => "possibly",
    }
}

fn traffic(group: &Group<'_>) -> String {
    let (messages, bytes) = (group.messages, group.bytes);
    let mut text = format!("{} / {}", octets(bytes.from_initiator), octets(bytes.from_acceptor));
    // Nobody can count messages inside TLS.
    if messages != PerSide::default() {
        let (there, back) = (grouped(messages.from_initiator), grouped(messages.from_acceptor));
        text.insert_str(0, &format!("{there} / {back} messages\n"));
    }
    if group.gaps > 0 {
        text.push_str(&format!("\n{}", plural(group.gaps, "gap", "gaps")));
    }
    text
}

pub(super) fn nodes<W: Write>(report: &Report, printer: &mut Printer<W>) -> io::Result<()> {
    if report.nodes.is_empty() {
        return Ok(());
    }
    printer.section(&format!("Nodes ({})", count(&report.nodes)))?;
    let mut table = Table::new(&["name", "address", "port", "OTP", "kind", "starts", "first seen"]);
    for node in &report.nodes {
        table.push([
            printable(&node.name).into_owned().into(),
            lines(&node.addresses).into(),
            lines(&node.dist_ports).into(),
            release(&node.otp).into(),
            kind(node).into(),
            grouped(count(&node.creations)).into(),
            moment(node.first_seen).get(..19).unwrap_or_default().into(),
        ]);
    }
    printer.table(&table)
}

fn kind(node: &Node) -> String {
    let words = [(node.hidden, "hidden"), (node.dynamic_name, "dynamic name")];
    let mut words: Vec<&str> = words.iter().filter(|(applies, _)| *applies).map(|(_, word)| *word).collect();
    // In the OTP column where the flags give no release.
    if let (Some(implementation), true) = (&node.otp.implementation, node.otp.min.or(node.otp.max).is_some()) {
        words.push(implementation);
    }
    printable(&words.join(", ")).into_owned()
}

fn lines<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("\n")
}

pub(super) fn epmd<W: Write>(report: &Report, printer: &mut Printer<W>) -> io::Result<()> {
    if report.epmd.is_empty() {
        return Ok(());
    }
    printer.section(&format!("EPMD requests ({})", count(&report.epmd)))?;
    // A client's port is a new one each time; a creation too, but that is part of the answer.
    let mut alike: IndexMap<_, (&EpmdExchange, u64)> = IndexMap::new();
    for exchange in &report.epmd {
        let key = (exchange.client.ip, exchange.server, exchange.request, &exchange.name, &exchange.result);
        alike.entry(key).or_insert((exchange, 0)).1 += 1;
    }
    let mut table = Table::new(&["request", "name", "from", "to", "answer", "times"]);
    for (exchange, times) in alike.into_values() {
        let style = match exchange.request {
            EpmdRequest::Kill | EpmdRequest::Stop => Style::RED,
            EpmdRequest::Dump => Style::YELLOW,
            _ => Style::PLAIN,
        };
        let from = format!("{}{}", exchange.client.ip, if exchange.local { " (local)" } else { "" });
        table.push([
            Cell::new(request(exchange.request), style),
            printable(&exchange.name).into_owned().into(),
            from.into(),
            std::net::SocketAddr::new(exchange.server.ip, exchange.server.port).to_string().into(),
            printable(&exchange.result).into_owned().into(),
            grouped(times).into(),
        ]);
    }
    printer.table(&table)
}

const fn request(request: EpmdRequest) -> &'static str {
    match request {
        EpmdRequest::Alive2 => "register",
        EpmdRequest::PortPlease2 => "port of",
        EpmdRequest::Names => "names",
        EpmdRequest::Dump => "dump",
        EpmdRequest::Kill => "kill",
        EpmdRequest::Stop => "stop",
    }
}

pub(super) fn activity<W: Write>(report: &Report, printer: &mut Printer<W>) -> io::Result<()> {
    if report.activity.is_empty() {
        return Ok(());
    }
    let total = report.activity.iter().fold(0_u64, |sum, action| sum.saturating_add(action.count));
    printer.section(&format!("Remote actions read in clear ({})", grouped(total)))?;
    let mut actions: Vec<_> = report.activity.iter().collect();
    actions.sort_by_key(|action| (is_everyday(action.kind), std::cmp::Reverse(action.count)));
    let mut table = Table::new(&["kind", "what", "from", "to", "times"]);
    let links: HashMap<&str, &Link> = report.links.iter().map(|link| (link.flow_id.as_str(), link)).collect();
    for action in actions.iter().take(ACTIVITY_ROWS) {
        let mut what = subject(action);
        if let Some(arguments) = &action.arguments {
            what.push('\n');
            what.push_str(&printable(arguments));
        }
        let style = if action.kind == ActivityKind::Shell { Style::RED } else { Style::PLAIN };
        table.push([
            Cell::new(word(action.kind), style),
            what.into(),
            whose(&action.from_node, action.from_initiator, action, &links).into(),
            whose(&action.to_node, !action.from_initiator, action, &links).into(),
            grouped(action.count).into(),
        ]);
    }
    printer.table(&table)?;
    let rest = actions.get(ACTIVITY_ROWS..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(());
    }
    let times = rest.iter().fold(0_u64, |sum, action| sum.saturating_add(action.count));
    let rest = plural(count(rest), "further kind", "further kinds");
    let text = format!("and {rest} of action, {} in all: --format json has every one", plural(times, "time", "times"));
    printer.paragraph(super::layout::INDENT, "", &text)
}

/// The function or the name, and how sure it is. An atom that was cached before the capture began and could not be inferred
/// has the number of its slot for a name.
fn subject(action: &Activity) -> String {
    let name = action.mfa.as_deref().or(action.target.as_deref()).unwrap_or_default();
    if let Some(slot) = name.strip_prefix('?').filter(|slot| slot.bytes().all(|byte| byte.is_ascii_digit())) {
        return format!("a name from before the capture (slot {})", printable(slot));
    }
    match action.confidence {
        Confidence::Certain => printable(name).into_owned(),
        Confidence::Likely | Confidence::Possible => format!("{} (inferred)", printable(name)),
    }
}

/// The node by name, else by its address on the connection.
fn whose(name: &Option<String>, initiator: bool, action: &Activity, links: &HashMap<&str, &Link>) -> String {
    if let Some(name) = name {
        return printable(name).into_owned();
    }
    let link = links.get(action.flow_id.as_str());
    link.map_or_else(|| "?".to_owned(), |link| if initiator { &link.initiator } else { &link.acceptor }.ip.to_string())
}

/// What nodes do all day; calls, spawns and shells stand above it.
const fn is_everyday(kind: ActivityKind) -> bool {
    use ActivityKind::{Exit, GenCall, GenCast, IoRequest, Link, Monitor, Reply, SendNamed, SendPid};
    matches!(kind, GenCall | GenCast | SendNamed | SendPid | Link | Monitor | Exit | IoRequest | Reply)
}

const fn word(kind: ActivityKind) -> &'static str {
    match kind {
        ActivityKind::RpcCall => "rpc call",
        ActivityKind::RpcCast => "rpc cast",
        ActivityKind::RpcBlockCall => "rpc block call",
        ActivityKind::ErpcCall => "erpc call",
        ActivityKind::ErpcCast => "erpc cast",
        ActivityKind::Spawn => "spawn",
        ActivityKind::SpawnLink => "spawn, link",
        ActivityKind::SpawnMonitor => "spawn, monitor",
        ActivityKind::GenCall => "gen call",
        ActivityKind::GenCast => "gen cast",
        ActivityKind::SendNamed => "send to name",
        ActivityKind::SendPid => "send to pid",
        ActivityKind::Link => "link",
        ActivityKind::Monitor => "monitor",
        ActivityKind::Exit => "exit",
        ActivityKind::Shell => "shell",
        ActivityKind::IoRequest => "io request",
        ActivityKind::Reply => "reply",
    }
}
