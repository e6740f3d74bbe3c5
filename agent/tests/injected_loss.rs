//! Loss that is known: packets of a real connection are left out, and what the analysis says is missing is compared with that.
//!
//! The connection is played many times with other ports. Its beginning is left whole: of a connection that nobody saw begin,
//! nobody can say what was missed before.

use std::io::Cursor;
use std::path::Path;

use distwatch::pipeline;
use distwatch::source::pcap_file::{CaptureFile, Timeline};
use distwatch_engine::analysis::{Analysis, Silent};
use distwatch_engine::model::Stats;
use distwatch_engine::policy::Policy;

/// How often the connection is played.
const TIMES: u16 = 400;

/// Packets at the connection's beginning that are never left out: three of TCP's, six of the handshake, their acknowledgements.
const WHOLE: usize = 16;

/// Seconds from one play to the next: more than the capture lasts.
const APART: u32 = 10;

/// Ethernet, and IPv4 without options, as the capture has them.
const IP: usize = 14;
const TCP: usize = IP + 20;

#[test]
fn loss_is_reported_within_a_tenth_of_itself() {
    for (lost_of_thousand, name) in [(1, "0.1 %"), (10, "1 %"), (50, "5 %")] {
        let (capture, left_out) = play(lost_of_thousand);
        let stats = analyse(capture);
        let ratio = stats.missing_bytes as f64 / left_out as f64;
        println!("{name}: {left_out} octets left out, {} reported: {ratio:.3}", stats.missing_bytes);
        assert!(left_out > 1000, "{name}: something was left out");
        assert!((0.9..=1.1).contains(&ratio), "{name}: {left_out} octets left out, {stats:?}");
    }
}

#[test]
fn nothing_is_reported_missing_where_nothing_is() {
    let (capture, left_out) = play(0);
    assert_eq!((left_out, analyse(capture).missing_bytes), (0, 0));
}

fn analyse(capture: Vec<u8>) -> Stats {
    let file = CaptureFile::from_reader(Path::new("played"), Cursor::new(capture)).expect("a capture");
    let mut timeline = Timeline::new(vec![file]);
    let mut analysis = Analysis::new(&Policy::default());
    pipeline::run(&mut timeline, &mut analysis, &mut Silent, |_| {});
    analysis.stats()
}

/// The capture with so many of a thousand packets with data left out, and the octets of these.
fn play(lost_of_thousand: u64) -> (Vec<u8>, u64) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures/apps-otp25.pcap");
    let bytes = std::fs::read(path).expect("the capture");
    let (header, packets) = bytes.split_at(24);
    let packets = connection(packets);
    let (mut played, mut left_out, mut random) = (header.to_vec(), 0, 0x9e37_79b9_7f4a_7c15_u64);
    for time in 0..TIMES {
        for (place, packet) in packets.iter().enumerate() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let payload = payload(&packet[16..]);
            if place >= WHOLE && payload > 0 && random % 1000 < lost_of_thousand {
                left_out += payload;
                continue;
            }
            let mut packet = packet.clone();
            let seconds = u32::from_le_bytes(packet[..4].try_into().expect("four octets")) + u32::from(time) * APART;
            packet[..4].copy_from_slice(&seconds.to_le_bytes());
            // The port that is no listener's is the initiator's.
            let ports = 16 + TCP;
            let initiator = if is_listener(&packet[16..], 0) { ports + 2 } else { ports };
            packet[initiator..initiator + 2].copy_from_slice(&(20_000 + time).to_be_bytes());
            played.extend(packet);
        }
    }
    (played, left_out)
}

/// The records of the capture's distribution connection, each with its header of 16 octets.
fn connection(mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while rest.len() >= 16 {
        let length = u32::from_le_bytes(rest[8..12].try_into().expect("four octets")) as usize;
        let (record, after) = rest.split_at(16 + length);
        let frame = &record[16..];
        let is_tcp = frame.len() >= TCP + 20 && frame[12..14] == [8, 0] && frame[IP] == 0x45 && frame[IP + 9] == 6;
        if is_tcp && (is_listener(frame, 0) || is_listener(frame, 2)) {
            records.push(record.to_vec());
        }
        rest = after;
    }
    assert!(records.len() > 100, "the capture has a distribution connection");
    records
}

/// Whether this port (0 the source's, 2 the destination's) is that of the listening node.
fn is_listener(frame: &[u8], at: usize) -> bool {
    frame[TCP + at..TCP + at + 2] == 41_493_u16.to_be_bytes()
}

/// Octets of data in a frame.
fn payload(frame: &[u8]) -> u64 {
    let total = u64::from(u16::from_be_bytes([frame[IP + 2], frame[IP + 3]]));
    total - 20 - u64::from(frame[TCP + 12] >> 4) * 4
}
