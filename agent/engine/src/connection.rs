//! One TCP connection above its octets: what it is, and which decoder reads it.

mod clear;
mod epmd;
mod sniff;
mod tls;

use std::sync::Arc;

use crate::engine::Context;
use crate::event::{Event, EventBody, Expected, FlowInfo, LinkChange, Tampering};
use crate::flow::{Conversation, FlowFacts, Gap, GapCause, Interest, Opening, Value};
use crate::model::{Builds, CloseReason, End, Handshake, HandshakeOutcome, Link, PerSide, Transport, Weird};
use crate::notice::{Notice, NoticeKind};
use crate::packet::{At, PacketRef, Side};
use crate::time::Timestamp;

use clear::Clear;
use epmd::Epmd;
use sniff::{FirstBytes, Verdict};
use tls::Tls;

/// How far into a connection that was up before the capture a frame boundary is looked for, in octets of both
/// directions. A fragment is 64 KiB, so at least one boundary lies within it, and its successor confirms it.
const CANDIDATE_LEN: u64 = 256 << 10;

/// What is known of a connection, and who reads it.
#[derive(Debug)]
pub(crate) struct Connection {
    protocol: Protocol,
    shared: Shared,
}

#[derive(Debug)]
enum Protocol {
    /// Nothing but segments without payload so far.
    Silent,
    /// Its first octets are collected.
    Undecided(Box<FirstBytes>),
    /// EPMD.
    Epmd(Box<Epmd>),
    /// Cleartext distribution, or a candidate for it.
    Clear(Box<Clear>),
    /// TLS.
    Tls(Box<Tls>),
    /// Anything else: nothing of it is read any more.
    Ignored,
}

/// How many remarks of a kind one connection may make. The findings know of it by then, and a peer that breaks a rule with
/// every frame must not make more events than it sends octets; what is left out is counted.
const REMARKS: u16 = 256;

/// Kinds of remark that a peer can provoke at will. Each has its own bound, so that none can drown another.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Remark {
    Weird,
    Violation,
    Tampering,
    Cookie,
}

/// What every kind of conversation needs: who talks, and the link that is made of it.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    mid_stream: bool,
    info: Option<Arc<FlowInfo>>,
    /// Shared with whoever was told of it; what changes is changed in a copy.
    link: Option<Arc<Link>>,
    /// Whose name was read in frames, by [`Side`].
    named: [bool; 2],
    /// By [`Remark`].
    remarks: [u16; 4],
}

impl Shared {
    /// The connection's identity, made when it is first needed: a flood of SYNs needs none.
    pub(crate) fn info(&mut self, flow: &FlowFacts, cx: &Context) -> Arc<FlowInfo> {
        let make = || {
            let interface = flow.interfaces().first().map_or("", |&id| cx.interface(id)).to_owned();
            Arc::new(FlowInfo {
                id: flow.opening.id.to_string(),
                initiator: flow.opening.initiator,
                acceptor: flow.opening.acceptor,
                interface,
            })
        };
        Arc::clone(self.info.get_or_insert_with(make))
    }

    /// Says a fact about this connection.
    pub(crate) fn tell(&mut self, at: &At, flow: &FlowFacts, body: EventBody, cx: &mut Context) {
        let info = self.info(flow, cx);
        cx.tell(Event { time: at.time, packet: at.packet, flow: Some(info), body });
    }

    /// Whether one more remark of this kind may be made.
    pub(crate) fn may_remark(&mut self, kind: Remark, cx: &mut Context) -> bool {
        let Some(made) = self.remarks.get_mut(kind as usize) else { return false };
        if *made >= REMARKS {
            cx.counters.limit("remarks_per_flow");
            return false;
        }
        *made += 1;
        true
    }

    /// Says something odd.
    pub(crate) fn weird(
        &mut self,
        at: &At,
        flow: &FlowFacts,
        layer: &str,
        name: &str,
        detail: String,
        cx: &mut Context,
    ) {
        if !self.may_remark(Remark::Weird, cx) {
            return;
        }
        let packet = (at.packet.number > 0).then(|| at.packet.to_string());
        let weird = Weird { name: name.to_owned(), layer: layer.to_owned(), detail, packet };
        self.tell(at, flow, EventBody::Weird(weird), cx);
    }

    /// Passes on what a decoder remarked.
    pub(crate) fn tell_notice(&mut self, notice: &Notice, flow: &FlowFacts, layer: &'static str, cx: &mut Context) {
        let (at, from_initiator) = (&notice.at, notice.side == Side::Initiator);
        match &notice.kind {
            NoticeKind::Violation(what) => {
                if !self.may_remark(Remark::Violation, cx) {
                    return;
                }
                self.tell(at, flow, EventBody::Violation { what: what.clone(), from_initiator }, cx);
            }
            NoticeKind::Undecodable(what) => {
                cx.counters.decode_error(layer);
                self.weird(at, flow, layer, "undecodable", what.clone(), cx);
            }
            NoticeKind::Weird(name, detail) => self.weird(at, flow, layer, name, detail.clone(), cx),
            NoticeKind::Limit(name) => cx.counters.limit(name),
        }
    }

    /// The link that this connection is, made when it turns out to be one.
    pub(crate) fn open_link(&mut self, at: &At, flow: &FlowFacts, transport: Transport, cx: &mut Context) {
        if self.link.is_none() {
            let Opening { initiator, acceptor, mid_stream, .. } = flow.opening;
            // One that began since is another one, and its predecessor is no more.
            let known = cx.recall.take(initiator, acceptor, at.time).filter(|_| mid_stream);
            let end = |address: std::net::SocketAddr| End { node: None, ip: address.ip(), port: address.port() };
            let mut handshake = Handshake::default();
            if self.mid_stream {
                // Until the decoder says better: nobody saw it begin.
                handshake.outcome = HandshakeOutcome::Unseen;
            }
            let mut link = Link {
                flow_id: self.info(flow, cx).id.clone(),
                initiator: end(flow.opening.initiator),
                acceptor: end(flow.opening.acceptor),
                transport: Transport::Unknown,
                tls: None,
                handshake,
                interfaces: Vec::new(),
                mid_stream: self.mid_stream,
                resumed: false,
                opened: flow.opening.at.time,
                closed: None,
                close_reason: None,
                messages: PerSide::default(),
                bytes: PerSide::default(),
                ticks: PerSide::default(),
                gaps: 0,
                missing_bytes: 0,
                last_seen: at.time,
                first_packet: flow.opening.at.packet.to_string(),
                builds: Builds::default(),
            };
            if let Some(known) = known {
                known.resume(&mut link);
            }
            self.link = Some(Arc::new(link));
            self.tell_link(at, flow, LinkChange::Opened, cx);
        }
        if let Some(link) = self.link.as_mut().filter(|link| link.transport != transport) {
            Arc::make_mut(link).transport = transport;
            self.tell_link(at, flow, LinkChange::Classified, cx);
        }
    }

    /// Says that the link changed, with its counters as they are now.
    pub(crate) fn tell_link(&mut self, at: &At, flow: &FlowFacts, change: LinkChange, cx: &mut Context) {
        let Some(link) = self.link_mut() else { return };
        link.bytes = PerSide {
            from_initiator: flow.side(Side::Initiator).payload,
            from_acceptor: flow.side(Side::Acceptor).payload,
        };
        link.gaps = flow.gaps();
        link.missing_bytes = flow.missing_bytes();
        link.last_seen = flow.last_seen;
        if link.interfaces.len() != flow.interfaces().len() {
            link.interfaces = flow.interfaces().iter().map(|&id| cx.interface(id).to_owned()).collect();
            link.interfaces.retain(|name| !name.is_empty());
        }
        let Some(link) = self.link.clone() else { return };
        self.tell(at, flow, EventBody::Link { change, link }, cx);
    }

    /// The link, to be changed.
    fn link_mut(&mut self) -> Option<&mut Link> {
        self.link.as_mut().map(Arc::make_mut)
    }
}

impl Conversation<Context> for Connection {
    fn open(opening: &Opening, _: &mut Context) -> Self {
        Self { protocol: Protocol::Silent, shared: Shared { mid_stream: opening.mid_stream, ..Shared::default() } }
    }

    fn handle_data(&mut self, flow: &FlowFacts, at: &At, side: Side, data: &[u8], cx: &mut Context) {
        match &mut self.protocol {
            Protocol::Clear(clear) => {
                clear.handle_data(at, flow, side, data, &mut self.shared, cx);
                if clear.is_lost_cause(flow, CANDIDATE_LEN) {
                    self.protocol = Protocol::Ignored;
                }
            }
            Protocol::Tls(tls) => tls.handle_data(at, flow, side, data, &mut self.shared, cx),
            Protocol::Epmd(epmd) => epmd.handle_data(at, flow, side, data, &mut self.shared, cx),
            Protocol::Ignored => {}
            Protocol::Silent | Protocol::Undecided(_) => self.sniff(at, flow, side, data, cx),
        }
    }

    fn handle_gap(&mut self, flow: &FlowFacts, at: &At, side: Side, gap: Gap, cx: &mut Context) {
        if !matches!(self.protocol, Protocol::Silent | Protocol::Ignored) && gap.cause != GapCause::SnapLength {
            let cause = match gap.cause {
                GapCause::Limit => "given up at a limit",
                _ => "not in the capture",
            };
            let from = if side == Side::Initiator { "initiator" } else { "acceptor" };
            self.shared.weird(at, flow, "tcp", "gap", format!("{} octets from the {from}: {cause}", gap.bytes), cx);
        }
        match &mut self.protocol {
            Protocol::Clear(clear) => clear.handle_gap(at, flow, side, gap.bytes, &mut self.shared, cx),
            Protocol::Tls(tls) => tls.handle_gap(at, side, gap.bytes),
            Protocol::Epmd(epmd) => epmd.handle_gap(at, flow, side, gap.bytes, &mut self.shared, cx),
            Protocol::Silent | Protocol::Undecided(_) => {
                // What was at the start is gone: from here on it is like a connection that was met in the middle.
                self.shared.mid_stream = true;
                if let Protocol::Undecided(first) = &mut self.protocol {
                    first.forget(side);
                }
            }
            Protocol::Ignored => {}
        }
    }

    fn handle_tampering(
        &mut self,
        flow: &FlowFacts,
        at: &At,
        side: Side,
        what: Tampering,
        offset: u64,
        bytes: u64,
        cx: &mut Context,
    ) {
        if self.shared.link.is_none() && !matches!(self.protocol, Protocol::Epmd(_)) {
            return;
        }
        if !self.shared.may_remark(Remark::Tampering, cx) {
            return;
        }
        let body = EventBody::Tampering { what, from_initiator: side == Side::Initiator, offset, bytes };
        self.shared.tell(at, flow, body, cx);
    }

    fn handle_close(&mut self, flow: &FlowFacts, at: &At, reason: CloseReason, cx: &mut Context) {
        let closed_by = closer(reason);
        match &mut self.protocol {
            Protocol::Clear(clear) => clear.handle_close(at, flow, closed_by, &mut self.shared, cx),
            Protocol::Tls(tls) => tls.handle_close(at, flow, closed_by, &mut self.shared, cx),
            Protocol::Epmd(epmd) => epmd.handle_close(at, flow, closed_by, &mut self.shared, cx),
            Protocol::Silent => self.close_without_data(at, flow, reason, cx),
            Protocol::Undecided(_) => self.close_undecided(at, flow, closed_by, cx),
            Protocol::Ignored => {}
        }
        if let Some(link) = self.shared.link_mut() {
            link.closed = Some(at.time);
            link.close_reason = Some(reason);
            self.shared.tell_link(at, flow, LinkChange::Closed, cx);
        }
    }

    fn handle_timeout(&mut self, flow: &FlowFacts, now: Timestamp, cx: &mut Context) {
        if let Protocol::Clear(clear) = &mut self.protocol {
            let at = At { time: now, packet: PacketRef::default(), interface: flow.opening.at.interface };
            clear.handle_timeout(&at, flow, &mut self.shared, cx);
        }
    }

    fn handle_end(&mut self, flow: &FlowFacts, at: &At, cx: &mut Context) {
        match &mut self.protocol {
            Protocol::Clear(clear) => clear.handle_end(at, flow, &mut self.shared, cx),
            Protocol::Tls(tls) => tls.handle_end(at, flow, &mut self.shared, cx),
            Protocol::Epmd(epmd) => epmd.handle_end(at, flow, &mut self.shared, cx),
            Protocol::Undecided(_) => self.close_undecided(at, flow, None, cx),
            Protocol::Silent | Protocol::Ignored => {}
        }
        self.shared.tell_link(at, flow, LinkChange::Updated, cx);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.protocol {
            Protocol::Clear(clear) => clear.poll_timeout(),
            _ => None,
        }
    }

    #[inline]
    fn interest(&self) -> Interest {
        match &self.protocol {
            Protocol::Ignored => Interest::CountOnly,
            Protocol::Tls(tls) if tls.finished_looking() => Interest::CountOnly,
            _ => Interest::Everything,
        }
    }

    #[inline]
    fn value(&self) -> Value {
        match &self.protocol {
            Protocol::Silent | Protocol::Undecided(_) | Protocol::Ignored => match &self.shared.link {
                Some(_) => Value::Attempt,
                None => Value::Unknown,
            },
            Protocol::Epmd(_) => Value::Epmd,
            Protocol::Clear(clear) if clear.is_established() => Value::Link,
            Protocol::Tls(tls) if tls.is_established() => Value::Link,
            Protocol::Clear(clear) if clear.is_candidate() => Value::Candidate,
            Protocol::Tls(_) if self.shared.link.is_none() => Value::Candidate,
            Protocol::Clear(_) | Protocol::Tls(_) => Value::Attempt,
        }
    }

    fn memory(&self) -> usize {
        /// A link's strings and lists, and the identity, on average.
        const LINK: usize = size_of::<Link>() + 512;
        let protocol = match &self.protocol {
            Protocol::Silent | Protocol::Ignored => 0,
            Protocol::Undecided(first) => size_of::<FirstBytes>() + first.memory(),
            Protocol::Epmd(epmd) => size_of::<Epmd>() + epmd.memory(),
            Protocol::Clear(clear) => size_of::<Clear>() + clear.memory(),
            Protocol::Tls(tls) => size_of::<Tls>() + tls.memory(),
        };
        protocol + if self.shared.link.is_some() { LINK } else { 0 } + if self.shared.info.is_some() { 160 } else { 0 }
    }
}

impl Connection {
    fn sniff(&mut self, at: &At, flow: &FlowFacts, side: Side, data: &[u8], cx: &mut Context) {
        if !matches!(self.protocol, Protocol::Undecided(_)) {
            self.protocol = Protocol::Undecided(Box::default());
        }
        let Protocol::Undecided(first) = &mut self.protocol else { return };
        let before = first.of(side).len();
        first.extend(side, data);
        let kept = first.of(side).len() - before;
        let expected = cx.listeners.expected(flow.opening.acceptor);
        let verdict = first.verdict(expected, self.shared.mid_stream);
        if verdict == Verdict::Undecided {
            return;
        }
        let first = std::mem::take(first);
        self.begin_with(verdict, expected, &first, at, flow, cx);
        // What did not fit into the first octets follows them.
        if let Some(rest) = data.get(kept..)
            && !rest.is_empty()
        {
            self.handle_data(flow, at, side, rest, cx);
        }
    }

    /// The connection is known for what it is, and its first octets are read.
    fn begin_with(
        &mut self,
        verdict: Verdict,
        expected: Option<Expected>,
        first: &FirstBytes,
        at: &At,
        flow: &FlowFacts,
        cx: &mut Context,
    ) {
        self.begin(verdict, expected, first, at, flow, cx);
        for side in Side::BOTH {
            if !first.of(side).is_empty() {
                self.handle_data(flow, at, side, first.of(side), cx);
            }
        }
    }

    /// The connection is known for what it is; nothing of it has been read yet.
    fn begin(
        &mut self,
        verdict: Verdict,
        expected: Option<Expected>,
        first: &FirstBytes,
        at: &At,
        flow: &FlowFacts,
        cx: &mut Context,
    ) {
        self.protocol = match verdict {
            Verdict::Handshake => {
                // Whoever read the name read the connection's first octets, also where no SYN was seen.
                if matches!(first.of(Side::Initiator).get(2), Some(b'n' | b'N')) {
                    self.shared.mid_stream = false;
                }
                self.shared.open_link(at, flow, Transport::Cleartext, cx);
                Protocol::Clear(Box::new(Clear::from_handshake(cx)))
            }
            Verdict::Frames => Protocol::Clear(Box::new(Clear::mid_stream(cx))),
            Verdict::Epmd => Protocol::Epmd(Box::new(Epmd::new())),
            Verdict::Tls if expected == Some(Expected::Epmd) => {
                self.foreign(Expected::Epmd, "TLS", at, flow, cx);
                Protocol::Ignored
            }
            Verdict::Tls | Verdict::TlsRecords => {
                if expected == Some(Expected::Distribution) {
                    self.shared.open_link(at, flow, Transport::Tls, cx);
                }
                Protocol::Tls(Box::new(Tls::new(verdict == Verdict::TlsRecords)))
            }
            Verdict::Foreign | Verdict::Undecided => {
                // An answer alone does not tell what was asked.
                if let Some(expected) = expected
                    && !first.of(Side::Initiator).is_empty()
                {
                    self.foreign(expected, sniff::looks_like(first.of(Side::Initiator)), at, flow, cx);
                }
                Protocol::Ignored
            }
        };
    }

    /// Octets that are not the protocol of the port.
    fn foreign(&mut self, expected: Expected, looks_like: &'static str, at: &At, flow: &FlowFacts, cx: &mut Context) {
        if self.shared.mid_stream {
            // The start is unknown, so it may well be the protocol in a shape that could not be recognised.
            return;
        }
        self.shared.tell(at, flow, EventBody::Foreign { expected, looks_like }, cx);
        if expected == Expected::Distribution {
            self.shared.open_link(at, flow, Transport::Unknown, cx);
            self.end_handshake(HandshakeOutcome::Foreign, at, flow, cx);
        }
    }

    fn end_handshake(&mut self, outcome: HandshakeOutcome, at: &At, flow: &FlowFacts, cx: &mut Context) {
        if let Some(link) = self.shared.link_mut() {
            link.handshake.outcome = outcome;
            self.shared.tell_link(at, flow, LinkChange::Handshake, cx);
        }
    }

    /// A SYN that came to nothing, or a connection on which nobody said anything.
    fn close_without_data(&mut self, at: &At, flow: &FlowFacts, reason: CloseReason, cx: &mut Context) {
        let Some(expected) = cx.listeners.expected(flow.opening.acceptor) else { return };
        if self.shared.mid_stream {
            return;
        }
        if !flow.answered {
            if matches!(reason, CloseReason::ResetAcceptor | CloseReason::Silent) {
                self.shared.tell(at, flow, EventBody::Unanswered { expected }, cx);
            }
            return;
        }
        if expected == Expected::Distribution {
            self.shared.open_link(at, flow, Transport::Unknown, cx);
            self.end_handshake(HandshakeOutcome::Incomplete, at, flow, cx);
        }
    }

    /// Closed with too few octets to decide: part of a name message, say.
    fn close_undecided(&mut self, at: &At, flow: &FlowFacts, closed_by: Option<Side>, cx: &mut Context) {
        let Protocol::Undecided(first) = &mut self.protocol else { return };
        let expected = cx.listeners.expected(flow.opening.acceptor);
        match first.verdict_on_answer(expected) {
            Verdict::Foreign => {}
            verdict => {
                let first = std::mem::take(first);
                self.begin_with(verdict, expected, &first, at, flow, cx);
                match &mut self.protocol {
                    Protocol::Epmd(epmd) => epmd.handle_close(at, flow, closed_by, &mut self.shared, cx),
                    Protocol::Tls(tls) => tls.handle_close(at, flow, closed_by, &mut self.shared, cx),
                    _ => {}
                }
                return;
            }
        }
        if self.shared.mid_stream {
            return;
        }
        match expected {
            Some(Expected::Distribution) => {
                self.shared.open_link(at, flow, Transport::Unknown, cx);
                self.end_handshake(HandshakeOutcome::Incomplete, at, flow, cx);
            }
            Some(Expected::Epmd) => {
                let looks_like = sniff::looks_like(first.of(Side::Initiator));
                self.foreign(Expected::Epmd, looks_like, at, flow, cx);
            }
            None => {}
        }
        self.protocol = Protocol::Ignored;
    }
}

const fn closer(reason: CloseReason) -> Option<Side> {
    match reason {
        CloseReason::FinInitiator | CloseReason::ResetInitiator => Some(Side::Initiator),
        CloseReason::FinAcceptor | CloseReason::ResetAcceptor => Some(Side::Acceptor),
        CloseReason::PortReuse | CloseReason::Silent | CloseReason::Evicted => None,
    }
}

#[cfg(test)]
mod tests;
