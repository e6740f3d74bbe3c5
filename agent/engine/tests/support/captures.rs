//! Captures for tests: a minimal reader of Ethernet pcap files that hands out TCP payload in order.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use distwatch_engine::packet::{At, PacketRef, Side};
use distwatch_engine::time::Timestamp;

/// One TCP connection.
pub(crate) struct Flow {
    pub(crate) initiator: (String, u16),
    pub(crate) acceptor: (String, u16),
    /// In the order of capture: when, from which side, what.
    pub(crate) data: Vec<(At, Side, Vec<u8>)>,
    pub(crate) syn: bool,
    pub(crate) closed_by: Option<Side>,
    pub(crate) last: At,
}

impl Flow {
    /// All octets of one side.
    pub(crate) fn stream(&self, side: Side) -> Vec<u8> {
        self.data.iter().filter(|(_, other, _)| *other == side).flat_map(|(_, _, data)| data.iter().copied()).collect()
    }
}

/// Where a capture of that name is; `None`, with a word about it, where the captures are not there.
pub(crate) fn path(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("DISTWATCH_CAPTURES")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/captures")), PathBuf::from);
    let path = folder.join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// The connections of a capture, by their first packet.
pub(crate) fn flows(name: &str) -> Option<Vec<Flow>> {
    let file = std::fs::read(path(name)?).unwrap();
    let nanos = file[..4] == 0xa1b2_3c4d_u32.to_le_bytes();
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let mut flows: Vec<Building> = Vec::new();
    let (mut at, mut number) = (24, 0);
    while at + 16 <= file.len() {
        let (seconds, fraction, captured) = (word(at), word(at + 4), word(at + 8) as usize);
        let packet = &file[at + 16..at + 16 + captured];
        at += 16 + captured;
        number += 1;
        let time = Timestamp::from_parts(seconds.into(), if nanos { fraction } else { fraction * 1000 });
        let at = At { time, packet: PacketRef { capture: 0, number }, ..At::default() };
        if let Some(segment) = segment(packet) {
            Building::take(&mut flows, at, &segment);
        }
    }
    Some(flows.into_iter().map(|building| building.flow).collect())
}

struct Segment<'a> {
    from: (String, u16),
    to: (String, u16),
    sequence: u32,
    flags: u8,
    data: &'a [u8],
}

fn segment(packet: &[u8]) -> Option<Segment<'_>> {
    let ip = packet.get(14..)?;
    if packet[12..14] != [8, 0] || ip.len() < 20 || ip[9] != 6 {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let ip = if total == 0 { ip } else { ip.get(..total)? };
    let tcp = ip.get(usize::from(ip[0] & 15) * 4..)?;
    let address = |at: usize| format!("{}.{}.{}.{}", ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    Some(Segment {
        from: (address(12), port(0)),
        to: (address(16), port(2)),
        sequence: u32::from_be_bytes(tcp.get(4..8)?.try_into().unwrap()),
        flags: tcp[13],
        data: tcp.get(usize::from(tcp[12] >> 4) * 4..)?,
    })
}

struct Building {
    flow: Flow,
    next: [Option<u32>; 2],
    waiting: [BTreeMap<u32, Vec<u8>>; 2],
}

impl Building {
    fn take(flows: &mut Vec<Self>, at: At, segment: &Segment<'_>) {
        const FIN: u8 = 1;
        const SYN: u8 = 2;
        const RST: u8 = 4;
        const ACK: u8 = 16;
        let opens = segment.flags & (SYN | ACK) == SYN;
        let same = |flow: &Flow| {
            (&flow.initiator, &flow.acceptor) == (&segment.from, &segment.to)
                || (&flow.acceptor, &flow.initiator) == (&segment.from, &segment.to)
        };
        let known = flows.iter().rposition(|building| same(&building.flow)).filter(|_| !opens);
        let place = known.unwrap_or_else(|| {
            let (initiator, acceptor) = (segment.from.clone(), segment.to.clone());
            let flow = Flow { initiator, acceptor, data: Vec::new(), syn: opens, closed_by: None, last: at };
            flows.push(Self { flow, next: [None; 2], waiting: Default::default() });
            flows.len() - 1
        });
        let building = &mut flows[place];
        let side = if building.flow.initiator == segment.from { Side::Initiator } else { Side::Acceptor };
        building.flow.last = at;
        if segment.flags & (FIN | RST) != 0 && building.flow.closed_by.is_none() {
            building.flow.closed_by = Some(side);
        }
        let start = segment.sequence.wrapping_add(u32::from(segment.flags & SYN != 0));
        let next = building.next[side.index()].get_or_insert(start);
        building.waiting[side.index()].entry(start).or_default();
        if building.waiting[side.index()][&start].len() < segment.data.len() {
            building.waiting[side.index()].insert(start, segment.data.to_vec());
        }
        // whatever begins at or before what is expected, and reaches beyond it
        loop {
            let fits = building.waiting[side.index()].iter().find_map(|(&start, data)| {
                let skip = next.wrapping_sub(start) as usize;
                (skip < data.len()).then_some((start, skip))
            });
            let Some((start, skip)) = fits else { break };
            let data = building.waiting[side.index()].remove(&start).unwrap()[skip..].to_vec();
            *next = next.wrapping_add(data.len() as u32);
            building.flow.data.push((at, side, data));
        }
        let reached = *next;
        building.waiting[side.index()].retain(|start, _| start.wrapping_sub(reached) < 1 << 31);
    }
}
