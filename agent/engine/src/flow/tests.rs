//! A conversation that writes down what it is told, and segments to tell it.

mod beginnings_and_ends;
mod floods;
mod live;
mod order;
mod properties;

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::limits::Limits;
use crate::net::{Segment, TcpFlags};
use crate::packet::PacketRef;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const FIN: u8 = TcpFlags::FIN;
const RST: u8 = TcpFlags::RST;

/// Sequence numbers of the SYNs; the client's wraps around soon.
const CLIENT: u32 = u32::MAX - 50;
const SERVER: u32 = 7000;

/// What a conversation was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Open { mid_stream: bool, initiator: u16 },
    Data(Side, Vec<u8>),
    Gap(Side, u64, GapCause),
    Tampering(Side, Tampering, u64, u64),
    Close(CloseReason),
    Timeout,
}

/// What all conversations of a test share.
struct World {
    calls: Vec<(FlowId, Call)>,
    value: Value,
    interest: Interest,
    deadline: Option<Timestamp>,
    facts: Option<FlowFacts>,
    /// Bytes that each conversation claims to hold.
    memory: usize,
    /// Conversations with this initiator's port are links.
    link: Option<u16>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            calls: Vec::new(),
            value: Value::Attempt,
            interest: Interest::Everything,
            deadline: None,
            facts: None,
            memory: 0,
            link: None,
        }
    }
}

impl Ports for World {
    fn is_listener(&self, _: SocketAddr) -> bool {
        false
    }
}

#[derive(Debug)]
struct Witness {
    id: FlowId,
    value: Value,
    interest: Interest,
    deadline: Option<Timestamp>,
    memory: usize,
}

impl Witness {
    fn note(&mut self, flow: &FlowFacts, cx: &mut World, call: Call) {
        assert_eq!(flow.opening.id, self.id);
        cx.facts = Some(*flow);
        cx.calls.push((self.id, call));
    }
}

impl Conversation<World> for Witness {
    fn open(opening: &Opening, cx: &mut World) -> Self {
        let call = Call::Open { mid_stream: opening.mid_stream, initiator: opening.initiator.port() };
        cx.calls.push((opening.id, call));
        let value = if cx.link == Some(opening.initiator.port()) { Value::Link } else { cx.value };
        let (interest, deadline, memory) = (cx.interest, cx.deadline, cx.memory);
        Self { id: opening.id, value, interest, deadline, memory }
    }

    fn handle_data(&mut self, flow: &FlowFacts, _: &At, side: Side, data: &[u8], cx: &mut World) {
        assert_eq!(self.interest, Interest::Everything);
        self.note(flow, cx, Call::Data(side, data.to_vec()));
    }

    fn handle_gap(&mut self, flow: &FlowFacts, _: &At, side: Side, gap: Gap, cx: &mut World) {
        assert!(gap.bytes > 0);
        self.note(flow, cx, Call::Gap(side, gap.bytes, gap.cause));
    }

    fn handle_tampering(
        &mut self,
        flow: &FlowFacts,
        _: &At,
        side: Side,
        what: Tampering,
        offset: u64,
        bytes: u64,
        cx: &mut World,
    ) {
        self.note(flow, cx, Call::Tampering(side, what, offset, bytes));
    }

    fn handle_close(&mut self, flow: &FlowFacts, _: &At, reason: CloseReason, cx: &mut World) {
        self.note(flow, cx, Call::Close(reason));
    }

    fn handle_timeout(&mut self, flow: &FlowFacts, now: Timestamp, cx: &mut World) {
        assert!(self.deadline.is_some_and(|deadline| deadline <= now));
        self.note(flow, cx, Call::Timeout);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.deadline
    }

    fn interest(&self) -> Interest {
        self.interest
    }

    fn value(&self) -> Value {
        self.value
    }

    fn memory(&self) -> usize {
        self.memory
    }
}

/// A table, what its conversations wrote, and one connection from port 40000 to 4369.
struct Bench {
    table: FlowTable<Witness>,
    world: World,
    now: Timestamp,
    packet: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(&Limits::default())
    }

    fn with(limits: &Limits) -> Self {
        let now = Timestamp::from_parts(1_700_000_000, 0);
        Self { table: FlowTable::new(limits), world: World::default(), now, packet: 0 }
    }

    /// With the handshake done.
    fn connected() -> Self {
        let mut bench = Self::new();
        bench.connect();
        bench
    }

    fn connect(&mut self) {
        self.send(Side::Initiator, SYN, CLIENT, 0, b"");
        self.send(Side::Acceptor, SYN | ACK, SERVER, CLIENT.wrapping_add(1), b"");
        self.send(Side::Initiator, ACK, CLIENT.wrapping_add(1), SERVER + 1, b"");
    }

    fn send(&mut self, side: Side, flags: u8, sequence: u32, acknowledgement: u32, payload: &[u8]) {
        self.send_cut(side, flags, sequence, acknowledgement, payload, payload.len() as u32);
    }

    fn send_cut(&mut self, side: Side, flags: u8, sequence: u32, acknowledgement: u32, payload: &[u8], len: u32) {
        let (client, server) = (([10, 0, 0, 1], 40_000).into(), ([10, 0, 0, 2], 4369).into());
        let (source, destination) = if side == Side::Initiator { (client, server) } else { (server, client) };
        let flags = TcpFlags(flags);
        self.raw(&Segment {
            source,
            destination,
            sequence,
            acknowledgement,
            flags,
            window: 500,
            payload,
            payload_len: len,
        });
    }

    fn raw(&mut self, segment: &Segment<'_>) {
        self.raw_of(segment, &[]);
    }

    /// The same for one that lies in a block.
    fn raw_of(&mut self, segment: &Segment<'_>, block: &[u8]) {
        self.packet += 1;
        self.wait(Duration::from_micros(10));
        let at = At {
            time: self.now,
            packet: PacketRef { capture: 0, number: self.packet },
            interface: InterfaceId::default(),
        };
        self.table.handle_lent_segment(&at, segment, block, &mut self.world);
    }

    /// Octets of the client from `offset` on, acknowledging nothing new.
    fn client(&mut self, offset: u32, payload: &[u8]) {
        self.send(Side::Initiator, ACK, CLIENT.wrapping_add(1).wrapping_add(offset), SERVER + 1, payload);
    }

    /// The server acknowledges so much of the client's octets.
    fn acknowledge(&mut self, offset: u32) {
        self.send(Side::Acceptor, ACK, SERVER + 1, CLIENT.wrapping_add(1).wrapping_add(offset), b"");
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now.plus(duration);
    }

    /// Time passes without packets.
    fn idle(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.wait(Duration::from_secs(1));
            self.table.handle_timeout(self.now, &mut self.world);
        }
    }

    fn finish(&mut self) {
        self.table.finish(self.now, &mut self.world);
    }

    /// All calls but the first `Open`.
    fn calls(&self) -> Vec<Call> {
        self.world.calls.iter().skip(1).map(|(_, call)| call.clone()).collect()
    }

    fn bytes(&self, side: Side) -> Vec<u8> {
        let of_side = |call: &Call| match call {
            Call::Data(from, data) if *from == side => data.clone(),
            _ => Vec::new(),
        };
        self.world.calls.iter().flat_map(|(_, call)| of_side(call)).collect()
    }

    fn without_data(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| !matches!(call, Call::Data(..))).collect()
    }

    fn facts(&self) -> FlowFacts {
        self.world.facts.expect("some call had facts")
    }
}

fn data(payload: &[u8]) -> Call {
    Call::Data(Side::Initiator, payload.to_vec())
}

fn lost(bytes: u64) -> Call {
    Call::Gap(Side::Initiator, bytes, GapCause::Lost)
}

fn conflict(offset: u64, bytes: u64) -> Call {
    Call::Tampering(Side::Initiator, Tampering::ConflictingRetransmission, offset, bytes)
}
