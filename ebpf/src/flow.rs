//! What becomes of a packet: whose it is, whether it was seen before, and what was decided of its connection.

use aya_ebpf::programs::SkBuffContext;
use distwatch_ebpf::{Column, End, Flow, FlowKey, OWNED_FOR, Owners, Record, event, port, shed, state, verdict};

use crate::books::{Books, add};
use crate::copy::Limit;
use crate::maps::{FLOWS, HANDSHAKES, LISTENERS, PORTS, VERDICTS};
use crate::packet::{Other, Segment, flag, is_handshake, is_tls_handshake};
use crate::{copy, namespace, packet, pressure};

/// What begins and ends a connection.
const BORDERS: u8 = flag::SYN | flag::FIN | flag::RST;

/// Inserts only what is not there.
const NO_EXIST: u64 = 1;

/// Where a packet was shown.
#[derive(Clone, Copy)]
pub(crate) struct Point {
    /// Its number; see [`Owners`].
    pub(crate) number: u32,
    /// See [`distwatch_ebpf::link`].
    pub(crate) link: u32,
    /// It is the sending socket's own: no packet has been anywhere before.
    pub(crate) is_sender: bool,
    /// It is a socket's and not an interface's.
    pub(crate) is_socket: bool,
}

/// What becomes of a packet.
enum Fate {
    /// So much of it is copied.
    Copied(Limit),
    /// It stands in this column of the books.
    Booked(Column),
    /// It is done without: packets and octets stand in these columns.
    Missed(Column, Column),
}

/// Takes one packet. `AT` is where its IP header begins where nothing unusual precedes it.
#[inline(always)]
pub(crate) fn take<const AT: usize>(context: &SkBuffContext, point: Point) {
    let Some(books) = Books::open() else { return };
    books.add(Column::Seen, 1);
    books.add(Column::SeenOctets, u64::from(context.len()));
    let segment = match packet::segment::<AT>(context) {
        Ok(segment) => segment,
        Err(Other::NotTcp) => return books.add(Column::Uninteresting, 1),
        Err(Other::Unreadable) => return books.add(Column::Refused, 1),
    };
    let is_loopback = point.is_socket && (segment.from.is_loopback() || segment.to.is_loopback());
    let scope = if is_loopback { network(context) } else { 0 };
    let (key, direction) = FlowKey::new(segment.from, segment.to, scope);
    let mut packet = Packet { context, books, segment, point, key, direction, now: 0, tell: 0 };
    let fate = match FLOWS.get_ptr_mut(&packet.key) {
        // SAFETY: an entry that is taken away meanwhile may be another connection's: then a counter or an owner is wrong for
        // one packet.
        Some(flow) => packet.of_known(unsafe { &mut *flow }),
        None => packet.of_unknown(),
    };
    match fate {
        Fate::Booked(column) => books.add(column, 1),
        Fate::Missed(packets, octets) => {
            books.add(packets, 1);
            books.add(octets, u64::from(context.len()));
        }
        Fate::Copied(limit) => packet.copy(limit),
    }
}

struct Packet<'a> {
    context: &'a SkBuffContext,
    books: Books,
    segment: Segment,
    point: Point,
    key: FlowKey,
    /// Which end sent it.
    direction: usize,
    /// When; read only for what somebody asked for.
    now: u64,
    /// The event that is told with it; 0 is none.
    tell: u32,
}

impl Packet<'_> {
    /// The connection has an entry.
    #[inline(always)]
    fn of_known(&mut self, flow: &mut Flow) -> Fate {
        self.now = copy::now();
        // What resets a connection may come from no socket at all, so its sender's side may be the one that misses it.
        let is_reset = self.segment.has(flag::RST) && flow.state & self.bit(state::RST) == 0;
        if !self.is_first(&mut flow.owners) && !is_reset {
            return Fate::Booked(Column::Duplicate);
        }
        if self.segment.has(flag::SYN) {
            self.begin(flow);
        }
        if self.segment.has(flag::FIN | flag::RST) {
            self.end(flow);
        }
        let is_early = self.is_early(flow);
        // SAFETY: as with the flow.
        let Some(decided) = (unsafe { VERDICTS.get(&self.key) }) else { return self.as_there_is_room(is_early) };
        match decided.code {
            verdict::HEADERS => Fate::Copied(Limit { octets: decided.octets, is_missed: false }),
            verdict::COUNT if !self.segment.has(BORDERS) => self.count(flow),
            verdict::IGNORE => Fate::Booked(Column::Uninteresting),
            _ => self.as_there_is_room(is_early),
        }
    }

    /// Whether the packet is of the beginning of its direction; see [`shed::EARLY`].
    #[inline(always)]
    fn is_early(&self, flow: &mut Flow) -> bool {
        if flow.state & self.bit(state::BEGUN) == 0 {
            if self.segment.octets > 0 {
                self.begun(flow);
            }
            return true;
        }
        self.segment.sequence.wrapping_sub(*of(&mut flow.begin, self.direction)) < shed::EARLY
    }

    #[inline(always)]
    fn begun(&self, flow: &mut Flow) {
        flow.state |= self.bit(state::BEGUN);
        *of(&mut flow.begin, self.direction) = self.segment.sequence;
    }

    /// All of it is wanted, or, of what comes later on a connection, as much as can be had.
    #[inline(always)]
    fn as_there_is_room(&self, is_early: bool) -> Fate {
        if is_early || self.segment.has(BORDERS) {
            return Fate::Copied(Limit::WHOLE);
        }
        match pressure::level() {
            shed::NOTHING => Fate::Copied(Limit::WHOLE),
            shed::DETAILS => Fate::Copied(Limit::SHORT),
            _ => Fate::Missed(Column::Shed, Column::ShedOctets),
        }
    }

    /// The connection has none.
    #[inline(always)]
    fn of_unknown(&mut self) -> Fate {
        let is_watched = is_watched(self.segment.to) || is_watched(self.segment.from);
        if !is_watched && !is_handshake(self.context, &self.segment) {
            return Fate::Booked(Column::Uninteresting);
        }
        if pressure::level() >= shed::NEW && !self.begins() {
            return Fate::Missed(Column::TurnedAway, Column::TurnedAwayOctets);
        }
        self.now = copy::now();
        let owners = HANDSHAKES.get_ptr_mut(&self.key);
        let is_first = match owners {
            // SAFETY: as with the flow.
            Some(owners) => self.is_first(unsafe { &mut *owners }),
            None => true,
        };
        if !is_first {
            return Fate::Booked(Column::Duplicate);
        }
        if self.segment.octets > 0 && self.remember(owners) {
            return Fate::Copied(Limit::WHOLE);
        }
        // Only what can be shown again is remembered: a flood from outside does not get in.
        if owners.is_none() && (self.point.is_sender || !self.point.is_socket) {
            let mut owners = Owners::default();
            let _ = self.is_first(&mut owners);
            let _ = HANDSHAKES.insert(&self.key, &owners, 0);
        }
        Fate::Copied(Limit::WHOLE)
    }

    /// Whether a packet of a connection that has no entry is of its beginning, as far as a single packet shows.
    #[inline(always)]
    fn begins(&self) -> bool {
        self.segment.has(BORDERS)
            || is_epmd(self.segment.to)
            || is_epmd(self.segment.from)
            || is_handshake(self.context, &self.segment)
            || is_tls_handshake(self.context, &self.segment)
    }

    /// Makes the entry. Whether there is one now.
    #[inline(always)]
    fn remember(&mut self, owners: Option<*mut Owners>) -> bool {
        let mut flow = Flow::default();
        if let Some(owners) = owners {
            // SAFETY: as with the flow.
            let Owners { seen: [low, high], point: [from_low, from_high] } = unsafe { &*owners };
            flow.owners = Owners { seen: [*low, *high], point: [*from_low, *from_high] };
        }
        let _ = self.is_first(&mut flow.owners);
        self.begun(&mut flow);
        match FLOWS.insert(&self.key, &flow, NO_EXIST) {
            Ok(()) => {
                self.tell = event::FLOW_OPENED;
                true
            }
            Err(_) => {
                self.books.add(Column::TableFull, 1);
                false
            }
        }
    }

    /// A connection begins. One that begins anew with the same ports has nothing to do with what was decided of the old one.
    #[inline(always)]
    fn begin(&mut self, flow: &mut Flow) {
        let is_again =
            flow.state & self.bit(state::SYN) != 0 && *of(&mut flow.initial, self.direction) == self.segment.sequence;
        if is_again {
            return;
        }
        if !self.segment.has(flag::ACK) {
            let _ = VERDICTS.remove(&self.key);
            flow.state = 0;
        }
        flow.state |= self.bit(state::SYN);
        *of(&mut flow.initial, self.direction) = self.segment.sequence;
    }

    #[inline(always)]
    fn end(&mut self, flow: &mut Flow) {
        flow.state |= self.bit(if self.segment.has(flag::RST) { state::RST } else { state::FIN });
        let both = state::FIN | state::FIN << 1;
        let is_over = flow.state & (state::RST | state::RST << 1) != 0 || flow.state & both == both;
        if is_over && flow.state & state::CLOSED == 0 {
            flow.state |= state::CLOSED;
            self.tell = event::FLOW_CLOSED;
        }
    }

    /// The bit of this direction.
    #[inline(always)]
    const fn bit(&self, of_low: u32) -> u32 {
        if self.direction == distwatch_ebpf::FROM_LOW { of_low } else { of_low << 1 }
    }

    /// Whether this point is the one that shows what this direction sends. The sender's own always is; otherwise it is the one
    /// that was first, until it shows nothing while another does.
    #[inline(always)]
    fn is_first(&self, owners: &mut Owners) -> bool {
        let owner = *of(&mut owners.point, self.direction);
        if owner != self.point.number
            && owner != 0
            && !self.point.is_sender
            && self.now.wrapping_sub(*of(&mut owners.seen, self.direction)) < OWNED_FOR
        {
            return false;
        }
        *of(&mut owners.point, self.direction) = self.point.number;
        *of(&mut owners.seen, self.direction) = self.now;
        true
    }

    #[inline(always)]
    fn count(&mut self, flow: &mut Flow) -> Fate {
        add(of(&mut flow.packets, self.direction), 1);
        add(of(&mut flow.octets, self.direction), u64::from(self.segment.octets));
        flow.last = self.now;
        Fate::Booked(Column::Counted)
    }

    #[inline(always)]
    fn copy(&self, limit: Limit) {
        let netns = if self.point.is_socket { network(self.context) } else { 0 };
        // SAFETY: the field is the kernel's.
        let ifindex = unsafe { (*self.context.skb.skb).ifindex };
        let record = Record { time: self.now, ifindex, netns, link: self.point.link, ..Record::default() };
        let cookie = copy::packet(self.context, self.books, record, limit);
        if self.tell != 0 {
            // The maker is the maker of this point's socket: the sender's, or the receiver's.
            let local = (self.direction as u32) ^ u32::from(!self.point.is_sender);
            copy::event(self.books, &self.key, self.tell, cookie, local, netns, self.now);
        }
    }
}

/// Whether something that is watched is there.
#[inline(always)]
pub(crate) fn is_watched(end: End) -> bool {
    let Some(&bits) = PORTS.get(u32::from(end.port)) else { return false };
    if bits & port::EXACT != 0 {
        // SAFETY: the value is not read.
        return bits != port::EXACT || unsafe { LISTENERS.get(&end) }.is_some();
    }
    bits != 0
}

#[inline(always)]
fn is_epmd(end: End) -> bool {
    PORTS.get(u32::from(end.port)).is_some_and(|bits| bits & port::EPMD != 0)
}

#[inline(always)]
fn network(context: &SkBuffContext) -> u32 {
    // SAFETY: the field is the kernel's, and the pointer is only handed on to a helper.
    namespace::of_socket(unsafe { (*context.skb.skb).__bindgen_anon_2.sk }.cast())
}

/// The one of a direction. By a branch and not by an index: with an index the compiler calculates addresses in ways that no
/// verifier follows.
#[inline(always)]
const fn of<T>(pair: &mut [T; 2], direction: usize) -> &mut T {
    let [low, high] = pair;
    if direction == distwatch_ebpf::FROM_LOW { low } else { high }
}
