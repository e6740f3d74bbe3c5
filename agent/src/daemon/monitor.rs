//! The capture thread: a back end, the analysis, and what goes between them, each packet to its end.

mod processes;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use distwatch_engine::analysis::{Analysis, Listener};
use distwatch_engine::cluster::SocketOwner;
use distwatch_engine::engine::INTERFACES;
use distwatch_engine::event::{Event, EventBody, Expected};
use distwatch_engine::flow::Wanted;
use distwatch_engine::model::{Alert, AlertStatus, End as LinkEnd, Weird};
use distwatch_engine::packet::{InterfaceId, LinkType, Packet, PacketRef};
use distwatch_engine::policy::Policy;
use distwatch_engine::time::Timestamp;

use super::clock::Clock;
use super::fan_out::FanOut;
use super::feed::{Batch, Writer};
use super::journal::Entry;
use super::neighbours::{Blind, Unseen};
use super::picture::{Picture, RulesInForce};
use super::state::{Keeper, State};
use super::status::{self, Status};
use crate::host::Snapshot;
use crate::http;
use crate::privilege::Applied;
use crate::sink::Sinks;
use crate::source::live::{Captured, FlowCounts, FlowEnds, LiveSource, Lost, SocketSeen, Verdict};

/// Packets that are taken before decisions are handed on and commands are looked at.
const BATCH: usize = 4096;

/// Looks at the back end before the end: a quarter of a million packets, which is more than the ring holds.
const LAST_LOOKS: usize = 64;

/// How long a look at the back end may wait where nothing comes: a command is late by no more than this. Packets and time-outs
/// end it, so that it makes no record later; each look costs a tenth of a millisecond, of which an idle daemon's cost is made.
const WAIT: Duration = Duration::from_millis(200);

/// Commands that are obeyed before packets have their turn, whoever sends more.
const COMMANDS: usize = 16;

/// Between two looks at what changes slowly: interfaces, counters, books.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Findings that are told again between two looks, where what was told of them got lost: few beside what the queue takes.
const AGAIN: usize = 1024;

/// How long the last records wait for room: those who take them have some seconds for all that waits.
const FOR_ROOM: Duration = Duration::from_secs(2);

/// What the rest of the daemon asks of the capture thread.
pub enum Command {
    /// How it is.
    Status(tokio::sync::oneshot::Sender<Status>),
    /// All that it knows.
    Picture(tokio::sync::oneshot::Sender<Picture>),
    /// Another policy from now on.
    Policy(Box<Policy>),
    /// What the host's own sockets are now.
    Host(Box<Snapshot>),
    /// Whose the sockets are that were asked about.
    Processes(Vec<SocketOwner>),
    /// Bring everything to its end.
    Stop,
}

/// How the capture ended.
#[derive(Debug)]
pub enum End {
    /// It was told to, or nobody reads the output any more.
    Stopped,
    /// The back end failed.
    Failed(io::Error),
}

/// What a monitor is made of.
pub struct Parts {
    /// Where packets come from.
    pub source: Box<dyn LiveSource>,
    /// What holds at the start.
    pub policy: Policy,
    /// Where records go.
    pub records: FanOut,
    /// The sinks among that, which the rules and the status are told of.
    pub sinks: Arc<Sinks>,
    /// How records are written.
    pub writer: Writer,
    /// The daemon's time.
    pub clock: Clock,
    /// Between two `stats` records.
    pub stats_interval: Duration,
    /// Commands from the rest of the daemon.
    pub commands: Receiver<Command>,
    /// Where is asked whose a socket is.
    pub lookups: SyncSender<Vec<SocketSeen>>,
    /// Whether sockets of all network namespaces should be seen, and not only of the daemon's own.
    pub sees_all_namespaces: bool,
    /// What was given up.
    pub sandbox: Applied,
    /// Where findings are kept over a restart, and those of the last run.
    pub state: Option<(Keeper, State)>,
    /// What the HTTP server counts, which the status is told of.
    pub http: Option<Arc<http::Counts>>,
}

/// The capture thread's own state.
pub struct Monitor {
    source: Box<dyn LiveSource>,
    analysis: Analysis,
    records: FanOut,
    sinks: Arc<Sinks>,
    writer: Writer,
    clock: Clock,
    stats_interval: Duration,
    commands: Receiver<Command>,
    lookups: SyncSender<Vec<SocketSeen>>,
    /// Sockets that are still to be asked about: there was no room.
    unasked: Vec<SocketSeen>,
    /// Sockets whose process nobody had the time to look up.
    not_looked_up: u64,
    /// By the back end's number.
    interfaces: HashMap<u32, InterfaceId>,
    packets: u64,
    /// What the engine had learned when the back end was told last.
    learned: u64,
    counted: HashMap<FlowEnds, FlowCounts>,
    lost: HashMap<&'static str, u64>,
    records_dropped: u64,
    /// Lines that the journal did not take, as far as that was said.
    unkept: u64,
    /// Decisions that the back end did not take, and how many of them were logged.
    decisions_refused: u64,
    refusals_logged: u64,
    housekeeping_due: Timestamp,
    stats_due: Timestamp,
    started: Timestamp,
    reloads: u64,
    unseen: Unseen,
    sees_all_namespaces: bool,
    sandbox: Applied,
    keeper: Option<Keeper>,
    http: Option<Arc<http::Counts>>,
    /// What the policy in force says of rules, for those who ask.
    rules: Arc<RulesInForce>,
}

/// A packet that came before its interface had a name.
struct Kept {
    interface: u32,
    link_type: LinkType,
    time: Timestamp,
    data: Vec<u8>,
    original_len: u32,
}

impl Monitor {
    /// Tells the back end what to watch.
    ///
    /// # Errors
    /// It cannot take that much.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let Parts {
            source,
            policy,
            records,
            sinks,
            mut writer,
            clock,
            stats_interval,
            commands,
            lookups,
            sees_all_namespaces,
            sandbox,
            state,
            http,
        } = parts;
        let mut analysis = Analysis::new(&policy);
        analysis.engine.go_live();
        let now = clock.now();
        let keeper = match state {
            Some((mut keeper, kept)) => {
                analysis.restore(kept.saved, now);
                analysis.keep_a_journal();
                keeper.start()?;
                // Who takes records may have forgotten what still holds: a server that was new started meanwhile, say.
                tell_again(&analysis, &mut writer, clock.now());
                Some(keeper)
            }
            None => None,
        };
        let mut monitor = Self {
            source,
            analysis,
            records,
            sinks,
            writer,
            clock,
            stats_interval,
            commands,
            lookups,
            unasked: Vec::new(),
            not_looked_up: 0,
            interfaces: HashMap::new(),
            packets: 0,
            learned: 0,
            counted: HashMap::new(),
            lost: HashMap::new(),
            records_dropped: 0,
            unkept: 0,
            decisions_refused: 0,
            refusals_logged: 0,
            housekeeping_due: now,
            stats_due: now.plus(stats_interval),
            started: now,
            reloads: 0,
            unseen: Unseen::default(),
            sees_all_namespaces,
            sandbox,
            keeper,
            http,
            rules: Arc::new(policy.rules.clone()),
        };
        monitor.watch_policy(&policy)?;
        Ok(monitor)
    }

    /// Captures until it is told to stop. Returns how it ended, and where records go, for its last words to go out.
    pub fn run(mut self) -> (End, FanOut) {
        let end = 'end: loop {
            for _ in 0..COMMANDS {
                match self.commands.try_recv() {
                    Ok(Command::Stop) | Err(TryRecvError::Disconnected) => break 'end End::Stopped,
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                }
            }
            if let Err(error) = self.turn(WAIT) {
                break End::Failed(error);
            }
            if self.records.is_closed() {
                tracing::info!("nobody reads standard output any more");
                break End::Stopped;
            }
        };
        self.finish();
        (end, self.records)
    }

    fn obey(&mut self, command: Command) {
        match command {
            // Whoever asked may be gone, before or after.
            Command::Status(answer) if !answer.is_closed() => _ = answer.send(self.status()),
            Command::Picture(answer) if !answer.is_closed() => _ = answer.send(self.picture()),
            Command::Policy(policy) => self.set_policy(&policy),
            Command::Host(snapshot) => self.handle_host(&snapshot),
            Command::Processes(owners) => self.take_owners(owners),
            Command::Status(_) | Command::Picture(_) | Command::Stop => {}
        }
    }

    /// One look at the back end, and what follows from it.
    fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let wait = match self.analysis.poll_timeout() {
            Some(due) => wait.min(due.since(self.clock.now())),
            None => wait,
        };
        self.take_sockets();
        self.take_packets(wait)?;
        self.hand_on_decisions();
        let now = self.clock.now();
        if self.analysis.poll_timeout().is_some_and(|due| due <= now) {
            self.analysis.handle_timeout(now, &mut self.writer);
        }
        if self.housekeeping_due <= now {
            self.housekeeping_due = now.plus(HOUSEKEEPING);
            self.keep_house(now)?;
        }
        if self.stats_due <= now {
            self.stats_due = now.plus(self.stats_interval);
            let stats = self.analysis.stats();
            self.writer.stats(&stats, now);
        }
        self.hand_on_records(now);
        Ok(())
    }

    /// Takes what the back end has. A packet on an interface that is new waits, with all behind it, until the interface has
    /// its name: rules judge by it.
    fn take_packets(&mut self, wait: Duration) -> io::Result<usize> {
        let Self { source, analysis, writer, clock, interfaces, packets, .. } = self;
        let mut kept: Vec<Kept> = Vec::new();
        let taken = source.poll(wait, BATCH, &mut |captured: Captured<'_>| {
            let time = clock.time_of(captured.monotonic);
            let Some(&id) = interfaces.get(&captured.interface).filter(|_| kept.is_empty()) else {
                let Captured { interface, link_type, data, original_len, .. } = captured;
                return kept.push(Kept { interface, link_type, time, data: data.to_vec(), original_len });
            };
            *packets += 1;
            let reference = PacketRef { capture: 0, number: *packets };
            let Captured { link_type, data, original_len, .. } = captured;
            let packet = Packet { reference, time, link_type, interface: id, data, original_len };
            analysis.handle_packet(&packet, writer);
        })?;
        for Kept { interface, link_type, time, data, original_len } in kept {
            let id = match self.interfaces.get(&interface) {
                Some(&id) => id,
                None => {
                    let name = self.source.interface_name(interface);
                    let id = self.analysis.engine.add_interface(&name);
                    if self.interfaces.len() >= INTERFACES {
                        // Those that are still there are asked for once more, and have their names still.
                        self.interfaces.clear();
                    }
                    self.interfaces.insert(interface, id);
                    id
                }
            };
            self.packets += 1;
            let reference = PacketRef { capture: 0, number: self.packets };
            let packet = Packet { reference, time, link_type, interface: id, data: &data, original_len };
            self.analysis.handle_packet(&packet, &mut self.writer);
        }
        Ok(taken)
    }

    /// Lets records go out, with what is to be on disk before them.
    fn hand_on_records(&mut self, now: Timestamp) {
        let batch = self.take_records(now);
        self.records.offer(batch);
    }

    fn take_records(&mut self, now: Timestamp) -> Batch {
        let mut batch = self.writer.take();
        batch.journal = self.analysis.saved_since(now).as_ref().map(Entry::line);
        batch
    }

    /// Tells the back end what the engine made of connections and listeners.
    fn hand_on_decisions(&mut self) {
        while let Some(decision) = self.analysis.engine.poll_decision() {
            let flow = FlowEnds { initiator: decision.initiator, acceptor: decision.acceptor };
            let verdict = match decision.wanted {
                Wanted::Counts => Verdict::Count,
                Wanted::Nothing => Verdict::Ignore,
                Wanted::Ended => {
                    self.counted.remove(&flow);
                    Verdict::Forget
                }
            };
            if let Err(error) = self.source.decide(flow, verdict) {
                self.decisions_refused += 1;
                tracing::debug!(%error, ?verdict, "the back end did not take a decision; the connection is read on");
            }
        }
        let listeners = self.analysis.engine.listeners();
        let learned = listeners.learned_so_far();
        if learned != self.learned {
            let new = usize::try_from(learned - self.learned).unwrap_or(usize::MAX);
            self.learned = learned;
            let all: Vec<(SocketAddr, Expected)> = listeners.learned().collect();
            for &(at, what) in all.iter().skip(all.len().saturating_sub(new)) {
                let now = self.clock.now();
                self.analysis.tell_listener(now, at, &mut self.writer);
                // A registration comes over loopback; the node's peers come from elsewhere.
                let at = if at.ip().is_loopback() { everywhere(at) } else { at };
                if let Err(error) = self.source.watch(at, what) {
                    self.decisions_refused += 1;
                    tracing::debug!(%error, %at, "the back end does not watch what was learned");
                }
            }
        }
    }

    fn keep_house(&mut self, now: Timestamp) -> io::Result<()> {
        self.source.refresh()?;
        self.take_counts();
        for Lost { stage, packets, .. } in self.source.books().lost {
            let before = self.lost.insert(stage, packets).unwrap_or(0);
            if packets > before {
                self.say(now, EventBody::Loss { stage, packets: packets - before });
            }
        }
        for mut state in self.sinks.poll_states() {
            // Sinks go by the wall clock, and findings by the daemon's.
            if let EventBody::SinkState { failing_since: Some(since), .. } = &mut state {
                *since = Timestamp::from_nanos(since.as_nanos().saturating_sub(self.clock.step()));
            }
            self.say(now, state);
        }
        if let Some(keeper) = &mut self.keeper {
            let Self { analysis, records, .. } = self;
            let cut = |number| records.offer(Batch { journal: Some(Entry::Cut(number)), ..Batch::default() });
            keeper.keep(analysis.revision(), cut, || analysis.saved(now));
        }
        // Peers decide how many there are, so they are told of together.
        if self.decisions_refused > self.refusals_logged {
            let refused = self.decisions_refused - self.refusals_logged;
            self.refusals_logged = self.decisions_refused;
            tracing::warn!("the back end did not take {refused} decisions on connections and listeners");
        }
        let dropped = self.records.dropped();
        if dropped > self.records_dropped {
            let detail = format!("{} records could not be written: the queue was full", dropped - self.records_dropped);
            self.records_dropped = dropped;
            tracing::warn!("{detail}");
            let weird = Weird { name: "records-lost".into(), layer: "output".into(), detail, packet: None };
            self.say(now, EventBody::Weird(weird));
        }
        let unkept = self.records.unkept();
        if unkept > self.unkept {
            let times = unkept - self.unkept;
            self.unkept = unkept;
            let detail =
                format!("findings could not be put on disk {times} times: they may be new again after a restart");
            let weird = Weird { name: "findings-not-kept".into(), layer: "output".into(), detail, packet: None };
            self.say(now, EventBody::Weird(weird));
        }
        if self.records.has_caught_up() {
            let untold = self.records.take_untold(AGAIN);
            if !untold.is_empty() {
                self.analysis.tell_again(&untold, now, &mut self.writer);
            }
        }
        Ok(())
    }

    /// Brings what the kernel only counted to the connections.
    fn take_counts(&mut self) {
        let Self { source, analysis, counted, clock, .. } = self;
        source.counts(&mut |flow, counts| {
            let before = counted.insert(flow, counts).unwrap_or_default();
            if counts.packets == before.packets {
                return;
            }
            let grown = |side: usize| counts.bytes[side].saturating_sub(before.bytes[side]);
            let time = if counts.last == 0 { clock.now() } else { clock.time_of(counts.last) };
            analysis.engine.handle_counts(time, flow.initiator, flow.acceptor, [grown(0), grown(1)]);
        });
    }

    /// Takes in what the host's own sockets are: where nodes listen is watched, and what should be seen and is not is said.
    pub fn handle_host(&mut self, snapshot: &Snapshot) {
        for listener in &snapshot.listeners {
            if let Some(expected) = listener.role.expected() {
                self.analysis.engine.add_listener(listener.at, expected);
            }
        }
        self.take_owners(snapshot.owners(self.clock.time_of(snapshot.begun)));
        self.hand_on_decisions();
        let seen: HashSet<(SocketAddr, SocketAddr)> = self
            .analysis
            .cluster
            .links()
            .filter(|link| link.closed.is_none())
            .map(|link| {
                let end = |end: &LinkEnd| SocketAddr::new(end.ip, end.port);
                (end(&link.initiator), end(&link.acceptor))
            })
            .collect();
        let (all, own) = (self.sees_all_namespaces, snapshot.own_namespace);
        let connections = snapshot.connections.iter().filter(|one| all || one.namespace == own);
        let engine = &self.analysis.engine;
        let blind = self.unseen.look(connections, |from, to| {
            // What is not recognised yet has been captured all the same.
            seen.contains(&(from, to)) || seen.contains(&(to, from)) || engine.knows(from, to)
        });
        if let Some(Blind { sockets, example }) = blind {
            self.say(self.clock.now(), EventBody::Unseen { sockets, example });
        }
    }

    fn say(&mut self, time: Timestamp, body: EventBody) {
        let event = Event { time, packet: PacketRef::default(), flow: None, body };
        self.analysis.handle_event(&event, &mut self.writer);
    }

    fn watch_policy(&mut self, policy: &Policy) -> io::Result<()> {
        let named = [(&policy.epmd_ports, Expected::Epmd), (&policy.distribution_ports, Expected::Distribution)];
        let ranges =
            named.into_iter().flat_map(|(ports, what)| ports.0.iter().map(move |&(first, last)| (first..=last, what)));
        self.source.watch_ports(&ranges.collect::<Vec<_>>())
    }

    fn set_policy(&mut self, policy: &Policy) {
        self.analysis.set_policy(policy);
        self.rules = Arc::new(policy.rules.clone());
        if let Err(error) = self.watch_policy(policy) {
            tracing::error!(%error, "the back end does not watch all ports of the new policy");
        }
        self.reloads += 1;
        // A sink that is new, or has other settings now, has been told of nothing yet.
        tell_again(&self.analysis, &mut self.writer, self.clock.now());
    }

    /// Reads what is still there, and brings every finding to its last state.
    fn finish(&mut self) {
        self.take_what_is_left();
        self.hand_on_decisions();
        let now = self.clock.now();
        self.analysis.handle_timeout(now, &mut self.writer);
        self.analysis.finish(&mut self.writer);
        let untold = self.records.take_untold(usize::MAX);
        self.analysis.tell_again(&untold, now, &mut self.writer);
        let stats = self.analysis.stats();
        self.writer.stats(&stats, now);
        let last = self.take_records(now);
        self.records.offer_within(last, FOR_ROOM);
        let dropped = self.records.dropped().saturating_sub(self.records_dropped);
        if dropped > 0 {
            tracing::warn!("{dropped} of the last records could not be written: the queue was full");
        }
        if let Some(keeper) = self.keeper.take() {
            keeper.finish(self.analysis.saved(now));
        }
    }

    /// What came before the stop is taken; what goes on coming is not waited for.
    fn take_what_is_left(&mut self) {
        let mut in_vain = 0;
        for _ in 0..LAST_LOOKS {
            // Before these are asked for, no packet is handed over.
            self.take_sockets();
            match self.take_packets(Duration::ZERO) {
                Ok(0) if in_vain > 0 => return,
                Ok(0) => in_vain += 1,
                Ok(_) => in_vain = 0,
                Err(error) => return tracing::debug!(%error, "the last look at the back end failed"),
            }
        }
    }

    fn picture(&mut self) -> Picture {
        let begun = Instant::now();
        let alerts = self.analysis.judge.alerts();
        let status = self.status_with(&alerts);
        let said = (self.writer.raised(), &self.rules);
        Picture::of(&self.analysis, alerts, said, status, self.clock.now(), begun)
    }

    fn status(&mut self) -> Status {
        self.status_with(&self.analysis.judge.alerts())
    }

    fn status_with(&mut self, alerts: &[Alert]) -> Status {
        let now = self.clock.now();
        Status {
            state: "capturing".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: self.started,
            uptime_seconds: now.since(self.started).as_secs(),
            clock_step_seconds: self.clock.step() / 1_000_000_000,
            reloads: self.reloads,
            sandbox: self.sandbox.clone(),
            capture: status::Capture::of(self.source.as_mut(), self.decisions_refused, self.not_looked_up),
            output: status::Records {
                written: self.records.written(),
                dropped: self.records.dropped(),
                unkept: self.records.unkept(),
                state_failures: self.keeper.as_ref().map_or(0, Keeper::failures),
            },
            sinks: self.sinks.status(),
            http: self.http.as_ref().map(|counts| counts.snapshot()),
            cluster: status::Cluster::of(&self.analysis, alerts),
            stats: self.analysis.stats(),
        }
    }
}

/// Tells of everything that holds, to those who take records and may never have heard of it, or have forgotten it.
fn tell_again(analysis: &Analysis, writer: &mut Writer, now: Timestamp) {
    for mut alert in analysis.judge.alerts() {
        if alert.status != AlertStatus::Resolved {
            (alert.status, alert.told) = (AlertStatus::Update, now);
            writer.write_alert(&alert);
        }
    }
}

/// The same port on every address of the family.
fn everywhere(at: SocketAddr) -> SocketAddr {
    let any = if at.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    SocketAddr::new(any, at.port())
}

impl Listener for Writer {
    fn event(&mut self, event: &Event) {
        self.write_event(event);
    }

    fn alert(&mut self, alert: &Alert) {
        self.count_alert(alert);
        self.write_alert(alert);
    }
}

#[cfg(test)]
mod tests;
