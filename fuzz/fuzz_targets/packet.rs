//! Packets of every link type, alone and as fragments of one another.
#![no_main]

use distwatch_engine::limits::Limits;
use distwatch_engine::net::{Decoded, Net};
use distwatch_engine::packet::{InterfaceId, LinkType, Packet, PacketRef};
use distwatch_engine::time::Timestamp;
use distwatch_fuzz::deliveries;
use libfuzzer_sys::fuzz_target;

const LINK_TYPES: [u16; 9] = [0, 1, 12, 101, 108, 113, 228, 229, 276];

fuzz_target!(|input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else { return };
    let link_type = LinkType(LINK_TYPES[usize::from(first) % LINK_TYPES.len()]);
    let mut net = Net::new(&Limits::default());
    for (number, piece) in (1..).zip(deliveries(rest)) {
        let packet = Packet {
            reference: PacketRef { capture: 0, number },
            time: Timestamp::from_nanos(number as i64),
            link_type,
            interface: InterfaceId(0),
            data: piece.data,
            original_len: piece.data.len() as u32 + piece.gap.unwrap_or(0) as u32,
        };
        if let Decoded::Tcp(segment) = net.decode(&packet) {
            assert!(segment.payload_len as usize >= segment.payload.len());
        }
    }
});
