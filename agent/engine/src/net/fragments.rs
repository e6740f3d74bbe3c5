//! IP fragments that wait for the rest of their packet, within bounds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use etherparse::defrag::IpDefragBuf;
use etherparse::{IpNumber, ip_number};
use hashbrown::HashMap;

use super::layers::{Fragment, Layer, NotUsed};
use crate::packet::InterfaceId;
use crate::time::Timestamp;

/// Unfinished packets that are kept. TCP avoids fragmentation by itself (path MTU discovery), so that even a busy
/// link with a tunnel in its way has a handful open at a time.
const MAX_PACKETS: usize = 512;
/// Memory for unfinished packets: 64 of the greatest length.
const MAX_BYTES: usize = 4 << 20;
/// At most this part of the memory for connections, where that is set to little.
const PART_OF_FLOW_MEMORY: usize = 16;
/// Separate pieces of one packet. 64 KiB in the smallest fragments that a real path makes (576 octets) arriving in the
/// worst order are below 60 pieces; the cost of each fragment grows with their number.
const MAX_PIECES: usize = 256;
/// How long a packet's first fragment is kept, as Linux does (`net.ipv4.ipfrag_time`). Identifications come round.
const MAX_AGE: Duration = Duration::from_secs(30);

/// What the fragments of one packet have in common (RFC 791, section 3.2; RFC 8200, section 4.5), and the interface:
/// a packet that is seen on two of them must not finish itself twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    identification: u32,
    /// Zero for IPv6.
    protocol: u8,
    interface: InterfaceId,
}

#[derive(Debug)]
struct Packet {
    buffer: IpDefragBuf,
    /// Of the first fragment's header.
    protocol: IpNumber,
    since: Timestamp,
    /// Its place in the order of age.
    serial: u64,
    /// Octets that the buffer holds or has reserved.
    reserved: usize,
}

/// The pool.
#[derive(Debug)]
pub(super) struct Fragments {
    packets: HashMap<Key, Packet, foldhash::fast::RandomState>,
    by_age: BTreeMap<u64, Key>,
    next_serial: u64,
    reserved: usize,
    max_bytes: usize,
    /// The packet that was finished last; its memory is used again.
    whole: Vec<u8>,
    evicted: u64,
    expired: u64,
    too_many_pieces: u64,
}

impl Fragments {
    pub(super) fn new(flow_memory: usize) -> Self {
        Self {
            packets: HashMap::default(),
            by_age: BTreeMap::new(),
            next_serial: 0,
            reserved: 0,
            max_bytes: MAX_BYTES.min(flow_memory / PART_OF_FLOW_MEMORY),
            whole: Vec::new(),
            evicted: 0,
            expired: 0,
            too_many_pieces: 0,
        }
    }

    /// How often which limit was reached since the last call.
    pub(super) fn take_limits(&mut self) -> [(&'static str, u64); 3] {
        [
            ("ip_fragments_evicted", std::mem::take(&mut self.evicted)),
            ("ip_fragments_expired", std::mem::take(&mut self.expired)),
            ("ip_fragment_pieces", std::mem::take(&mut self.too_many_pieces)),
        ]
    }

    /// Puts a fragment to the others of its packet. When none is missing any more, returns the packet's payload and
    /// what it begins with.
    pub(super) fn add(
        &mut self,
        fragment: &Fragment<'_>,
        interface: InterfaceId,
        now: Timestamp,
    ) -> Result<Option<(Layer, &[u8])>, NotUsed> {
        if self.max_bytes == 0 || !leads_to_tcp(fragment.protocol) {
            return Err("ip-fragment");
        }
        let key = Key {
            source: fragment.source,
            destination: fragment.destination,
            identification: fragment.identification,
            protocol: if fragment.source.is_ipv4() { fragment.protocol.0 } else { 0 },
            interface,
        };
        if self.packets.get(&key).is_some_and(|packet| now.since(packet.since) > MAX_AGE) {
            self.remove(&key);
            self.expired += 1;
        }
        if let Err(reason) = self.insert(key, fragment, now) {
            self.remove(&key);
            return Err(reason);
        }
        if !self.packets.get(&key).is_some_and(|packet| packet.buffer.is_complete()) {
            self.evict(&key);
            return Ok(None);
        }
        let Some(packet) = self.remove(&key) else { return Ok(None) };
        (self.whole, _) = packet.buffer.take_bufs();
        Ok(Some((Layer::Payload(packet.protocol, fragment.source, fragment.destination), &self.whole)))
    }

    fn insert(&mut self, key: Key, fragment: &Fragment<'_>, now: Timestamp) -> Result<(), NotUsed> {
        let packet = self.packets.entry(key).or_insert_with(|| {
            let serial = self.next_serial;
            self.next_serial += 1;
            self.by_age.insert(serial, key);
            // Memory that was used before counts with what it has reserved, from the first fragment on.
            let buffer = IpDefragBuf::new(fragment.protocol, std::mem::take(&mut self.whole), Vec::new());
            Packet { buffer, protocol: fragment.protocol, since: now, serial, reserved: 0 }
        });
        if contradicts(&packet.buffer, fragment) {
            return Err("ip-fragments-contradict");
        }
        if fragment.offset.value() == 0 {
            packet.protocol = fragment.protocol;
        }
        packet.buffer.add(fragment.offset, fragment.more, fragment.payload).map_err(|_| "bad-ip-fragment")?;
        if packet.buffer.sections().len() > MAX_PIECES {
            self.too_many_pieces += 1;
            return Err("ip-fragment-pieces");
        }
        let reserved = packet.buffer.data().capacity();
        self.reserved = self.reserved.saturating_sub(packet.reserved).saturating_add(reserved);
        packet.reserved = reserved;
        Ok(())
    }

    /// Gives up the oldest packets, `newest` last of all, until the limits are kept.
    fn evict(&mut self, newest: &Key) {
        while self.packets.len() > MAX_PACKETS || self.reserved > self.max_bytes {
            let oldest = self.by_age.first_key_value().map_or(*newest, |(_, key)| *key);
            if self.remove(&oldest).is_none() {
                return;
            }
            self.evicted += 1;
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Packet> {
        let packet = self.packets.remove(key)?;
        self.by_age.remove(&packet.serial);
        self.reserved = self.reserved.saturating_sub(packet.reserved);
        Some(packet)
    }
}

/// Whether reassembling can lead to TCP. Fragments of anything else would only push out those that matter.
fn leads_to_tcp(protocol: IpNumber) -> bool {
    use ip_number::{AUTH, GRE, IPV4, IPV6, IPV6_DEST_OPTIONS, IPV6_ROUTE, TCP, UDP};
    // UDP because of VXLAN and Geneve; only the first fragment has the port.
    matches!(protocol, TCP | UDP | GRE | IPV4 | IPV6 | AUTH | IPV6_DEST_OPTIONS | IPV6_ROUTE)
}

/// Whether the fragment has other bytes than those that are there already. Receivers differ in which they take, so
/// such a packet is not read at all; Linux drops it as well. A plain repetition is fine.
fn contradicts(buffer: &IpDefragBuf, fragment: &Fragment<'_>) -> bool {
    let start = usize::from(fragment.offset.byte_offset());
    let end = start + fragment.payload.len();
    buffer.sections().iter().any(|section| {
        let (from, to) = (start.max(section.start.into()), end.min(section.end.into()));
        from < to
            && match (buffer.data().get(from..to), fragment.payload.get(from - start..to - start)) {
                (Some(there), Some(here)) => there != here,
                _ => true,
            }
    })
}
