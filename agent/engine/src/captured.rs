//! For tests alone: the TCP connections of a recorded capture, as the octets of each side in the order of the wire.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::packet::{At, InterfaceId, PacketRef, Side};
use crate::time::Timestamp;

/// What a recorded connection did.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Octets of one side.
    Data(At, Side, Vec<u8>),
    /// The first FIN or RST.
    Close(At, Side),
}

/// A recorded connection.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) initiator: SocketAddr,
    pub(crate) acceptor: SocketAddr,
    pub(crate) steps: Vec<Step>,
    next: [Option<u32>; 2],
    closed: bool,
}

impl Recorded {
    /// All octets of one side.
    pub(crate) fn octets(&self, side: Side) -> Vec<u8> {
        let data = self.steps.iter().filter_map(|step| match step {
            Step::Data(_, from, data) if *from == side => Some(data.as_slice()),
            _ => None,
        });
        data.collect::<Vec<_>>().concat()
    }
}

/// The connections of `tests/captures/<name>` in the order of their SYN. Loss and reordering do not occur in them.
pub(crate) fn connections(name: &str) -> Vec<Recorded> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/captures").join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut connections: Vec<Recorded> = Vec::new();
    for (number, (time, link_type, packet)) in packets(&bytes).into_iter().enumerate() {
        let reference = PacketRef { capture: 0, number: number as u64 + 1 };
        let at = At { time, packet: reference, interface: InterfaceId(0) };
        take(&mut connections, at, link_type, packet);
    }
    connections
}

fn take(connections: &mut Vec<Recorded>, at: At, link_type: u16, packet: &[u8]) -> Option<()> {
    let ip = packet.get(
        match link_type {
            1 => 14,
            113 => 16,
            276 => 20,
            other => panic!("link type {other}"),
        }..,
    )?;
    let (from, to, tcp) = match ip.first()? >> 4 {
        4 if ip[9] == 6 => {
            let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
            (address(12), address(16), ip.get(usize::from(ip[0] & 15) * 4..total)?)
        }
        6 if ip[6] == 6 => {
            let total = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
            (address(8), address(24), ip.get(40..total)?)
        }
        _ => return None,
    };
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let (from, to) = (SocketAddr::new(from, port(0)), SocketAddr::new(to, port(2)));
    let sequence = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
    let (flags, payload) = (tcp[13], tcp.get(usize::from(tcp[12] >> 4) * 4..)?);
    if flags & 0x12 == 0x02 {
        let next = [Some(sequence.wrapping_add(1)), None];
        connections.push(Recorded { initiator: from, acceptor: to, steps: Vec::new(), next, closed: false });
        return None;
    }
    let same =
        |one: &Recorded| (one.initiator, one.acceptor) == (from, to) || (one.acceptor, one.initiator) == (from, to);
    let connection = connections.iter_mut().rev().find(|one| same(one))?;
    let side = if connection.initiator == from { Side::Initiator } else { Side::Acceptor };
    if flags & 0x02 != 0 {
        connection.next[side.index()] = Some(sequence.wrapping_add(1));
    }
    if !payload.is_empty() && connection.next[side.index()] == Some(sequence) {
        connection.next[side.index()] = Some(sequence.wrapping_add(payload.len() as u32));
        connection.steps.push(Step::Data(at, side, payload.to_vec()));
    }
    if flags & 0x05 != 0 && !connection.closed {
        connection.closed = true;
        connection.steps.push(Step::Close(at, side));
    }
    Some(())
}

/// Packets of a little-endian pcap or pcapng file: time, link type, octets.
fn packets(file: &[u8]) -> Vec<(Timestamp, u16, &[u8])> {
    let u32_at = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let mut packets = Vec::new();
    if u32_at(0) != 0x0a0d_0d0a {
        let scale = match u32_at(0) {
            0xa1b2_c3d4 => 1000,
            0xa1b2_3c4d => 1,
            magic => panic!("magic {magic:08x}"),
        };
        let (link_type, mut at) = (u32_at(20) as u16, 24);
        while at < file.len() {
            let length = u32_at(at + 8) as usize;
            let time = Timestamp::from_parts(i64::from(u32_at(at)), u32_at(at + 4) * scale);
            packets.push((time, link_type, &file[at + 16..at + 16 + length]));
            at += 16 + length;
        }
        return packets;
    }
    let (mut link_types, mut at) = (Vec::new(), 0);
    while at < file.len() {
        match u32_at(at) {
            1 => link_types.push(u16::from_le_bytes([file[at + 8], file[at + 9]])),
            6 => {
                // Both pcapng captures have nanoseconds, as dumpcap and tcpdump write them.
                let time = u64::from(u32_at(at + 12)) << 32 | u64::from(u32_at(at + 16));
                let length = u32_at(at + 20) as usize;
                let packet = &file[at + 28..at + 28 + length];
                packets.push((Timestamp::from_nanos(time as i64), link_types[u32_at(at + 8) as usize], packet));
            }
            _ => {}
        }
        at += u32_at(at + 4) as usize;
    }
    packets
}
