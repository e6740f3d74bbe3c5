//! Packets in, events out: the decoders tied together. No I/O, no clock.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::connection::Connection;
use crate::cookies::{CHECKS_PER_SECOND, Dictionary};
use crate::event::{Event, Expected};
use crate::flow::{Decision, FlowTable, Ports};
use crate::limits::Limits;
use crate::listeners::Listeners;
use crate::model::Stats;
use crate::net::{self, Decoded, Net};
use crate::packet::{At, InterfaceId, Packet};
use crate::policy::{Arguments, Policy};
use crate::recall::Recall;
use crate::saved::SavedLink;
use crate::stats::Counters;
use crate::time::Timestamp;

/// Decodes packets. [`Engine::handle_packet`] cannot fail: what cannot be read is counted or said as an event.
pub struct Engine {
    net: Net,
    flows: FlowTable<Connection>,
    context: Context,
}

/// Names of interfaces that are kept. A host with a thousand containers has some thousands; looking for one among them is
/// done once for each interface.
pub const INTERFACES: usize = 16_384;

/// What all connections share.
pub struct Context {
    /// Limits in force.
    pub limits: Limits,
    /// Where EPMD and distribution listen.
    pub listeners: Listeners,
    /// Words that a cookie must not be.
    pub dictionary: Dictionary,
    /// How much of the arguments is kept.
    pub arguments: Arguments,
    /// Tell every control message, not just the first of a kind and a count.
    pub every_message: bool,
    /// Connections that an earlier run knew.
    pub recall: Recall,
    /// What was counted.
    pub counters: Counters,
    interfaces: Vec<String>,
    events: VecDeque<Event>,
    /// The second of the packet clock in which digests were last compared with the word list, and how many were.
    cookie_checks: (i64, u32),
}

impl Context {
    /// Whether one more digest may be compared with the word list in this second. A flood of handshakes must not become
    /// a flood of MD5; what is left out is counted.
    pub fn may_check_cookie(&mut self) -> bool {
        let second = self.counters.last().as_nanos().div_euclid(1_000_000_000);
        let (last, checks) = &mut self.cookie_checks;
        if *last != second {
            (*last, *checks) = (second, 0);
        }
        *checks += 1;
        let may = *checks <= CHECKS_PER_SECOND;
        if !may {
            self.counters.limit("cookie_checks");
        }
        may
    }

    /// Says something.
    pub fn tell(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// The name of an interface; empty where the capture gives none.
    #[must_use]
    pub fn interface(&self, id: InterfaceId) -> &str {
        self.interfaces.get(id.0 as usize).map_or("", String::as_str)
    }
}

impl Ports for Context {
    fn is_listener(&self, at: SocketAddr) -> bool {
        self.listeners.expected(at).is_some()
    }

    fn is_remembered(&self, initiator: SocketAddr, acceptor: SocketAddr) -> bool {
        self.recall.contains(initiator, acceptor)
    }
}

impl Engine {
    /// An engine under a policy.
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        Self {
            net: Net::new(&policy.limits),
            flows: FlowTable::new(&policy.limits),
            context: Context {
                limits: policy.limits.clone(),
                listeners: Listeners::new(policy),
                dictionary: Dictionary::new(&policy.cookie_words),
                arguments: policy.arguments,
                every_message: false,
                recall: Recall::default(),
                counters: Counters::default(),
                interfaces: Vec::new(),
                events: VecDeque::new(),
                cookie_checks: (0, 0),
            },
        }
    }

    /// From now on every control message becomes an event of its own.
    pub fn tell_every_message(&mut self) {
        self.context.every_message = true;
    }

    /// The source is live and can leave things out: from now on [`Engine::poll_decision`] says what, and is to be called
    /// after every few packets until it has no more to say.
    pub fn go_live(&mut self) {
        self.flows.decide_for_source();
    }

    /// Whether anything was captured of a connection between these two that may go on.
    #[must_use]
    pub fn knows(&self, one: SocketAddr, other: SocketAddr) -> bool {
        self.flows.knows(one, other)
    }

    /// The next thing to tell the source; none unless [`Engine::go_live`] was called.
    pub fn poll_decision(&mut self) -> Option<Decision> {
        self.flows.poll_decision()
    }

    /// Octets of TCP payload (the initiator's first) that the source only counted on a connection since it said so last.
    pub fn handle_counts(&mut self, time: Timestamp, initiator: SocketAddr, acceptor: SocketAddr, octets: [u64; 2]) {
        self.flows.handle_counts(time, initiator, acceptor, octets);
    }

    /// Another policy from now on. Connections, and what was learned, stay.
    pub fn set_policy(&mut self, policy: &Policy) {
        self.flows.set_limits(&policy.limits);
        let context = &mut self.context;
        context.limits = policy.limits.clone();
        context.listeners.set_policy(policy);
        context.dictionary = Dictionary::new(&policy.cookie_words);
        context.arguments = policy.arguments;
    }

    /// Tells the engine of an interface. Its name may be empty where the capture names none. Interfaces of one name are one; a host
    /// that makes new ones all day has no more than [`INTERFACES`], and those beyond it have no name, which is counted.
    pub fn add_interface(&mut self, name: &str) -> InterfaceId {
        let known = self.context.interfaces.iter().position(|known| known == name);
        if let Some(id) = known.and_then(|place| u32::try_from(place).ok()) {
            return InterfaceId(id);
        }
        if self.context.interfaces.len() >= INTERFACES {
            self.context.counters.limit("interfaces");
            return InterfaceId(u32::MAX);
        }
        let id = InterfaceId(u32::try_from(self.context.interfaces.len()).unwrap_or(u32::MAX));
        self.context.interfaces.push(name.to_owned());
        id
    }

    /// Something is known to listen there (from a socket list, say).
    pub fn add_listener(&mut self, at: SocketAddr, what: Expected) {
        self.context.listeners.learn(at, what);
    }

    /// Takes in the connections that an earlier run knew, before the first packet.
    pub fn restore(&mut self, links: Vec<SavedLink>) {
        let limit = self.context.limits.report_entries;
        self.context.recall.restore(links, limit);
    }

    /// This connection was given up to save memory, and may be met again in its middle.
    pub fn expect_again(&mut self, link: SavedLink) {
        let context = &mut self.context;
        let gone = context.recall.remember(link, context.limits.report_entries);
        context.counters.limits("recalled_links", gone);
    }

    /// Connections that an earlier run knew, or that were given up, and that have not been met again yet.
    #[must_use]
    pub const fn recall(&self) -> &Recall {
        &self.context.recall
    }

    /// Takes one packet.
    #[inline(never)]
    pub fn handle_packet(&mut self, packet: &Packet<'_>) {
        self.handle_lent_packet(packet, &[]);
    }

    /// Takes one packet whose bytes lie in this block. The block must stay as it is, and all packets must be from it, until
    /// [`Engine::return_block`]: what is to be remembered of packets is only copied then, and most of it never.
    ///
    /// Always inlined: whoever has a block goes through it in a loop, and handing a packet over costs as much as finding it.
    #[inline(always)]
    pub fn handle_lent_packet(&mut self, packet: &Packet<'_>, block: &[u8]) {
        let at = At { time: packet.time, packet: packet.reference, interface: packet.interface };
        self.context.counters.packet(packet);
        // By reference: moving it out costs as much as reading it did.
        match &net::plain(packet) {
            Some(segment) => self.flows.handle_lent_segment(&at, segment, block, &mut self.context),
            None => self.handle_other(packet, &at, block),
        }
    }

    /// A packet of another shape than nearly all.
    fn handle_other(&mut self, packet: &Packet<'_>, at: &At, block: &[u8]) {
        match self.net.decode(packet) {
            Decoded::Tcp(segment) => self.flows.handle_lent_segment(at, &segment, block, &mut self.context),
            Decoded::NotUsed(reason) => {
                self.context.counters.not_used(reason);
                self.count_fragment_limits();
            }
            Decoded::Pending => self.count_fragment_limits(),
        }
    }

    /// The block that packets were from goes.
    pub fn return_block(&mut self, block: &[u8]) {
        self.flows.return_block(block);
    }

    fn count_fragment_limits(&mut self) {
        for (name, count) in self.net.take_limits() {
            self.context.counters.limits(name, count);
        }
    }

    /// The earliest time at which something is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.flows.poll_timeout()
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.flows.handle_timeout(now, &mut self.context);
    }

    /// The input has ended.
    pub fn finish(&mut self) {
        self.flows.finish(self.now(), &mut self.context);
    }

    /// Whether there is an event, as after one packet in thousands.
    #[must_use]
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.context.events.is_empty()
    }

    /// The next event, if there is one.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.context.events.pop_front()
    }

    /// The time of the last packet.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.context.counters.last()
    }

    /// What is known to listen where.
    #[must_use]
    pub fn listeners(&self) -> &Listeners {
        &self.context.listeners
    }

    /// TCP connections that are remembered now.
    #[must_use]
    pub fn open_flows(&self) -> usize {
        self.flows.open_flows()
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.context.counters.stats();
        let flows = self.flows.stats();
        stats.flows = flows.flows;
        stats.gaps = flows.gaps;
        stats.missing_bytes = flows.missing_bytes;
        for (name, count) in flows.limits.iter() {
            *stats.limits_reached.entry(name.to_owned()).or_default() += count;
        }
        if self.context.listeners.forgotten() > 0 {
            stats.limits_reached.insert("learned_listeners".into(), self.context.listeners.forgotten());
        }
        stats
    }
}
