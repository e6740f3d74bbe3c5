//! Real captures in all formats, cut and damaged everywhere.

use std::io::{Cursor, Write};

use distwatch_engine::limits::Limits;
use distwatch_engine::net::{Decoded, Net};
use proptest::prelude::*;

use super::*;

fn captures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures").join(name)
}

fn bytes_of(name: &str) -> Vec<u8> {
    std::fs::read(captures(name)).unwrap()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    number: u64,
    time: Timestamp,
    link_type: LinkType,
    interface: u32,
    data: Vec<u8>,
    original_len: u32,
}

impl From<RawPacket<'_>> for Owned {
    fn from(packet: RawPacket<'_>) -> Self {
        let RawPacket { number, time, link_type, interface, data, original_len, .. } = packet;
        Self { number, time, link_type, interface, data: data.to_vec(), original_len }
    }
}

fn rest_of(file: &mut CaptureFile) -> Vec<Owned> {
    std::iter::from_fn(|| file.next().map(Owned::from)).collect()
}

fn open(bytes: impl Into<Vec<u8>>) -> Result<CaptureFile, OpenError> {
    CaptureFile::from_reader(Path::new("test"), Cursor::new(bytes.into()))
}

fn read(bytes: impl Into<Vec<u8>>) -> (Vec<Owned>, Capture) {
    let mut file = open(bytes).unwrap();
    (rest_of(&mut file), file.summary())
}

/// Builds files; every number in the given order.
struct Writer {
    order: Order,
    bytes: Vec<u8>,
}

impl Writer {
    const fn new(order: Order) -> Self {
        Self { order, bytes: Vec::new() }
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes.extend(if self.order == Order::Big { value.to_be_bytes() } else { value.to_le_bytes() });
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend(if self.order == Order::Big { value.to_be_bytes() } else { value.to_le_bytes() });
        self
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self
    }

    fn pcap_header(&mut self, magic: u32) -> &mut Self {
        self.u32(magic).u16(2).u16(4).u32(0).u32(0).u32(65_535).u32(1)
    }

    fn pcap_record(&mut self, seconds: u32, fraction: u32, data: &[u8]) -> &mut Self {
        let len = u32::try_from(data.len()).unwrap();
        self.u32(seconds).u32(fraction).u32(len).u32(len).raw(data)
    }

    fn block(&mut self, block_type: u32, body: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::new(self.order);
        body(&mut inner);
        inner.bytes.resize(inner.bytes.len().next_multiple_of(4), 0);
        let len = u32::try_from(inner.bytes.len()).unwrap() + 12;
        self.u32(block_type).u32(len).raw(&inner.bytes).u32(len)
    }

    fn section(&mut self) -> &mut Self {
        self.block(0x0a0d_0d0a, |block| {
            block.u32(0x1a2b_3c4d).u16(1).u16(0).u32(u32::MAX).u32(u32::MAX);
        })
    }

    fn option(&mut self, code: u16, value: &[u8]) -> &mut Self {
        self.u16(code).u16(u16::try_from(value.len()).unwrap()).raw(value);
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
        self
    }

    fn interface(&mut self, link_type: u16, snap_len: u32, options: &[(u16, &[u8])]) -> &mut Self {
        self.block(1, |block| {
            block.u16(link_type).u16(0).u32(snap_len);
            for (code, value) in options {
                block.option(*code, value);
            }
        })
    }

    fn enhanced(&mut self, interface: u32, time: u64, data: &[u8]) -> &mut Self {
        let len = u32::try_from(data.len()).unwrap();
        self.block(6, |block| {
            block.u32(interface).u32((time >> 32) as u32).u32(time as u32).u32(len).u32(len).raw(data);
            let padded = block.bytes.len().next_multiple_of(4);
            block.bytes.resize(padded, 0);
            block.option(1, b"a comment");
        })
    }
}

#[test]
fn one_recording_in_seven_formats_gives_the_same_packets() {
    let expected = read(bytes_of("formats-otp25-nsec.pcap")).0;
    assert_eq!(expected.len(), 105);
    let formats = [
        ("formats-otp25-usec.pcap", "pcap", 1000),
        ("formats-otp25-bigendian.pcap", "pcap", 1000),
        ("formats-otp25-nsec-bigendian.pcap", "pcap", 1),
        ("formats-otp25-modified.pcap", "pcap (modified)", 1000),
        ("formats-otp25.pcapng", "pcapng", 1),
        ("formats-otp25-usec.pcap.gz", "pcap+gzip", 1000),
    ];
    for (name, format, precision) in formats {
        let mut file = CaptureFile::open(&captures(name)).unwrap();
        let mut packets = rest_of(&mut file);
        assert_eq!(file.summary().format, format, "{name}");
        assert_eq!(file.summary().damaged, None, "{name}");
        for (packet, expected) in packets.iter_mut().zip(&expected) {
            let nanos = expected.time.as_nanos();
            assert_eq!(packet.time.as_nanos(), nanos - nanos % precision, "{name} packet {}", packet.number);
            packet.time = expected.time;
        }
        assert_eq!(packets, expected, "{name}");
    }
}

#[test]
fn two_interfaces_are_told_apart_by_name_and_their_drops_are_summed() {
    let mut file = CaptureFile::open(&captures("two-interfaces-otp27.pcapng")).unwrap();
    let packets = rest_of(&mut file);
    let summary = file.summary();
    assert_eq!(summary.interfaces, ["eth0", "lo"]);
    assert_eq!((summary.packets, summary.dropped), (117, Some(0)));
    assert!(packets.iter().any(|packet| packet.interface == 0) && packets.iter().any(|packet| packet.interface == 1));
    let progress = file.progress();
    assert_eq!(Some(progress.read), progress.total);
}

#[test]
fn real_captures_of_several_link_types_give_the_segments_that_tshark_counts() {
    // Packets, TCP segments and their payload (`tshark -Y tcp -T fields -e tcp.len`).
    let expected = [
        ("formats-otp25-nsec.pcap", 105, 83, 4009),
        ("client-net-otp25.pcap", 128, 87, 2832),
        ("cluster3-name-otp25.pcap", 169, 139, 5006),
        ("two-interfaces-otp27.pcapng", 117, 95, 3033),
    ];
    for (name, packets, segments, payload) in expected {
        let mut file = CaptureFile::open(&captures(name)).unwrap();
        let mut net = Net::new(&Limits::default());
        let (mut seen, mut octets) = (0, 0);
        while let Some(packet) = file.next() {
            if let Decoded::Tcp(segment) = net.decode(&packet.to_packet(0, InterfaceId(packet.interface))) {
                seen += 1;
                octets += segment.payload.len();
            }
        }
        assert_eq!((file.summary().packets, seen, octets), (packets, segments, payload), "{name}");
    }
}

/// Where each packet of a pcap or pcapng file ends, and all other places where it may end as well.
fn boundaries(bytes: &[u8]) -> (Vec<usize>, Vec<usize>) {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (mut packets, mut others, mut at) = (Vec::new(), Vec::new(), 0);
    if is_pcapng(bytes) {
        while at < bytes.len() {
            let packet = word(at) == 6;
            at += word(at + 4);
            if packet { packets.push(at) } else { others.push(at) }
        }
    } else {
        at = 24;
        others.push(at);
        while at < bytes.len() {
            at += 16 + word(at + 8);
            packets.push(at);
        }
    }
    (packets, others)
}

fn is_pcapng(bytes: &[u8]) -> bool {
    pcapng::is_magic(*bytes.first_chunk().unwrap())
}

#[test]
fn a_file_cut_at_any_byte_gives_all_packets_before_the_cut_and_names_the_damage() {
    for name in ["formats-otp25-usec.pcap", "formats-otp25.pcapng"] {
        let whole = bytes_of(name);
        let expected = read(whole.clone()).0;
        let (packets, others) = boundaries(&whole);
        for cut in 0..whole.len() {
            let Ok(mut file) = open(&whole[..cut]) else {
                assert!(cut < 4, "{name} cut at {cut}");
                continue;
            };
            let there = packets.iter().filter(|end| **end <= cut).count();
            assert_eq!(rest_of(&mut file), expected[..there], "{name} cut at {cut}");
            let damaged = file.summary().damaged;
            if packets.contains(&cut) || others.contains(&cut) {
                assert_eq!(damaged, None, "{name} cut at {cut}");
                continue;
            }
            let start = packets.iter().chain(&others).filter(|end| **end <= cut).max().copied().unwrap_or(0);
            let at = format!("at byte {start}: ");
            assert!(damaged.as_ref().is_some_and(|text| text.contains(&at)), "{name} cut at {cut}: {damaged:?}");
        }
    }
}

#[test]
fn the_damage_of_a_cut_file_is_a_sentence_with_packet_and_byte() {
    let mut whole = bytes_of("formats-otp25-usec.pcap");
    whole.truncate(24 + 16 + 10);
    let (packets, summary) = read(whole);
    assert!(packets.is_empty());
    let damaged = summary.damaged.unwrap();
    assert_eq!(damaged, "cut in packet 1 at byte 24: record header says 86 bytes, 10 are there");
}

#[test]
fn a_record_longer_than_any_packet_is_damage_and_not_a_reservation() {
    let mut file = Writer::new(Order::Big);
    file.pcap_header(0xa1b2_c3d4).pcap_record(1, 0, b"good").u32(2).u32(0).u32(MAX_PACKET + 1).u32(60).raw(&[0; 60]);
    let (packets, summary) = read(file.bytes);
    assert_eq!(packets.len(), 1);
    let damaged = summary.damaged.unwrap();
    assert_eq!(damaged, "damaged in packet 2 at byte 44: record header says 16777217 bytes");
}

/// A capture of several blocks, with packets of all sizes up to some that are longer than a block.
fn long_capture() -> Vec<u8> {
    let mut file = Writer::new(Order::Little);
    file.pcap_header(0xa1b2_3c4d);
    let mut seed = 1u32;
    for number in 0..400u32 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = match number % 100 {
            50 => 1_500_000,
            10 | 30 | 70 => 70_000,
            _ => seed % 2000,
        };
        let data: Vec<u8> = (0..len).map(|at| (at ^ seed) as u8).collect();
        file.pcap_record(number, number, &data);
    }
    file.bytes
}

#[test]
fn packets_that_span_blocks_are_whole() {
    let bytes = long_capture();
    let mut at = 24;
    let mut file = open(bytes.clone()).unwrap();
    let mut count = 0;
    while let Some(packet) = file.next() {
        at += 16;
        assert_eq!(packet.data, &bytes[at..at + packet.data.len()], "packet {}", packet.number);
        assert_eq!(packet.time, Timestamp::from_parts(count, u32::try_from(count).unwrap()));
        at += packet.data.len();
        count += 1;
    }
    assert_eq!((at, count), (bytes.len(), 400));
    assert_eq!(file.summary().damaged, None);
}

/// A file is read by whoever asks for its packets, a pipe by a thread.
#[test]
fn a_file_reads_like_the_same_octets_out_of_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("capture.pcap");
    let mut damaged = long_capture();
    let (whole, middle) = (damaged.clone(), damaged.len() / 2);
    damaged[middle..middle + 70_000].fill(0xff);
    for bytes in [&whole[..], &whole[..middle], &whole[..whole.len() - 1], &damaged[..]] {
        std::fs::write(&path, bytes).unwrap();
        let mut file = CaptureFile::open(&path).unwrap();
        let (packets, summary) = (rest_of(&mut file), file.summary());
        let (expected, of_pipe) = read(bytes);
        assert!(packets == expected, "{} and {} packets", packets.len(), expected.len());
        assert_eq!(Capture { path: of_pipe.path.clone(), ..summary }, of_pipe);
    }
}

#[test]
fn a_pcapng_file_is_read_past_all_that_is_longer_than_what_is_read_at_once() {
    let mut file = Writer::new(Order::Little);
    file.section().interface(1, 0, &[(9, &[9])]);
    let mut expected = Vec::new();
    let mut ends = Vec::new();
    let mut seed = 1u32;
    for number in 0..300u32 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = match number % 60 {
            20 => 1_300_000,
            5 | 35 => 70_000,
            _ => seed % 2000,
        };
        let data: Vec<u8> = (0..len).map(|at| (at ^ seed) as u8).collect();
        file.enhanced(0, number.into(), &data);
        expected.push(data);
        ends.push(file.bytes.len());
        if number % 50 == 49 {
            file.block(0x0bad, |unknown| {
                unknown.raw(&vec![7; (seed % 3_000_000) as usize]);
            });
        }
    }
    let (packets, summary) = read(file.bytes.clone());
    assert_eq!(summary.damaged, None);
    assert!(packets.iter().map(|packet| &packet.data).eq(&expected));
    assert!(packets.iter().map(|packet| packet.time.as_nanos()).eq(0..300));
    for cut in (65_000..file.bytes.len()).step_by(file.bytes.len() / 23) {
        let (packets, summary) = read(&file.bytes[..cut]);
        assert_eq!(packets.len(), ends.iter().filter(|end| **end <= cut).count(), "cut at {cut}");
        assert_eq!(summary.packets, packets.len() as u64);
        assert!(summary.damaged.is_some_and(|damage| damage.contains("bytes, ")), "cut at {cut}");
    }
}

#[test]
fn packets_come_in_stretches_that_are_the_file() {
    let (whole, mut damaged) = (long_capture(), long_capture());
    let cut = whole[..whole.len() - 900_000].to_vec();
    // The captured length of the last packet.
    let last = whole.len() - read(whole.clone()).0.last().map_or(0, |packet| packet.data.len());
    damaged[last - 8..last - 4].fill(0xff);
    for bytes in [whole, cut, damaged, bytes_of("two-interfaces-otp27.pcapng")] {
        let (expected, report) = read(bytes.clone());
        let plain = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(plain.path(), &bytes).unwrap();
        for mut file in [open(bytes).unwrap(), CaptureFile::open(plain.path()).unwrap()] {
            let mut packets: Vec<Owned> = file.next().map(Owned::from).into_iter().collect();
            while let Some(stretch) = file.next_stretch() {
                let block = stretch.block().as_ptr_range();
                for packet in stretch {
                    let data = packet.data.as_ptr_range();
                    assert!(block.start <= data.start && data.end <= block.end);
                    packets.push(packet.into());
                }
            }
            assert!(packets == expected);
            assert_eq!(Capture { path: report.path.clone(), ..file.summary() }, report);
            assert!(file.next_stretch().is_none() && file.next().is_none());
        }
    }
}

#[test]
fn several_gzip_members_and_several_zstd_frames_are_one_stream() {
    let bytes = long_capture();
    let expected = read(bytes.clone()).0;
    let (mut gzip, mut zstd) = (Vec::new(), Vec::new());
    for part in bytes.chunks(bytes.len() / 3) {
        let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        member.write_all(part).unwrap();
        gzip.extend(member.finish().unwrap());
        zstd.extend(zstd::encode_all(part, 1).unwrap());
    }
    for (packed, format) in [(gzip, "pcap+gzip"), (zstd, "pcap+zstd")] {
        let (packets, summary) = read(packed);
        assert!(packets == expected, "{format}");
        assert_eq!((summary.format.as_str(), summary.damaged), (format, None));
    }
}

#[test]
fn a_broken_gzip_or_zstd_stream_delivers_what_it_held_and_is_named() {
    let bytes = long_capture();
    let expected = read(bytes.clone()).0;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(&bytes).unwrap();
    let mut cut = gzip.finish().unwrap();
    let mut flipped = cut.clone();
    cut.truncate(cut.len() / 2);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let mut zstd = zstd::encode_all(bytes.as_slice(), 1).unwrap();
    zstd.truncate(zstd.len() / 2);
    for (packed, word, some) in [(cut, "gzip", true), (flipped, "gzip", false), (zstd, "zstd", true)] {
        let (packets, summary) = read(packed);
        let damaged = summary.damaged.unwrap();
        assert!(damaged.contains(&format!("the {word} stream cannot be unpacked further")), "{damaged}");
        assert!(damaged.contains("at byte "), "{damaged}");
        if some {
            assert!(!packets.is_empty() && packets.len() < expected.len());
            assert!(packets == expected[..packets.len()]);
        }
    }
}

#[test]
fn sections_interfaces_and_blocks_of_pcapng_are_all_understood() {
    let mut file = Writer::new(Order::Big);
    file.section()
        .interface(113, 4, &[(2, b"eth0\0"), (3, b"first"), (9, &[9]), (14, &10u64.to_be_bytes()), (0, b"")])
        .block(4, |names| {
            names.raw(b"name resolution");
        })
        .enhanced(0, 5, b"one")
        .block(3, |simple| {
            simple.u32(6).raw(b"two.");
        })
        .block(0x0bad, |custom| {
            custom.u32(32473).raw(b"custom");
        })
        .block(5, |statistics| {
            statistics.u32(0).u32(0).u32(0).option(5, &7u64.to_be_bytes()).option(7, &2u64.to_be_bytes());
        });
    let mut second = Writer::new(Order::Little);
    second
        .section()
        .interface(1, 0, &[(9, &[0x80 | 1])])
        .interface(276, 0, &[])
        .block(2, |old| {
            old.u16(1).u16(3).u32(0).u32(2_000_000).u32(5).u32(9).raw(b"three");
        })
        .enhanced(0, 7, b"four");
    file.raw(&second.bytes);

    let mut file = open(file.bytes).unwrap();
    let packets = rest_of(&mut file);
    let packet = |number, nanos, link_type, interface, data: &[u8], original_len| Owned {
        number,
        time: Timestamp::from_nanos(nanos),
        link_type: LinkType(link_type),
        interface,
        data: data.to_vec(),
        original_len,
    };
    let expected = [
        packet(1, 10_000_000_005, 113, 0, b"one", 3),
        packet(2, 10_000_000_005, 113, 0, b"two.", 6),
        packet(3, 2_000_000_000, 276, 2, b"three", 9),
        packet(4, 3_500_000_000, 1, 1, b"four", 4),
    ];
    assert_eq!(packets, expected);
    let names: Vec<_> = file.interfaces().iter().map(|interface| interface.name.as_deref()).collect();
    assert_eq!(names, [Some("eth0"), None, None]);
    assert_eq!(file.interfaces()[0].description.as_deref(), Some("first"));
    let summary = file.summary();
    assert_eq!(summary.link_types, ["linux_sll", "ethernet", "linux_sll2"]);
    assert_eq!((summary.dropped, summary.truncated_packets, summary.bytes), (Some(12), 2, 16));
    assert_eq!(summary.first, Some(Timestamp::from_nanos(2_000_000_000)));
    assert_eq!(summary.last, Some(Timestamp::from_nanos(10_000_000_005)));
    assert_eq!(summary.damaged, None);
}

#[test]
fn a_pcapng_file_that_contradicts_itself_is_damaged_from_there() {
    let good = |file: &mut Writer| {
        file.section().interface(1, 0, &[]).enhanced(0, 1, b"good");
    };
    type Damage = (fn(&mut Writer), &'static str);
    let cases: [Damage; 6] = [
        (
            |file| {
                file.enhanced(3, 1, b"bad");
            },
            "names an interface that was not described",
        ),
        (
            |file| {
                file.u32(6).u32(33).raw(&[0; 40]);
            },
            "says that it is 33 bytes",
        ),
        (
            |file| {
                file.u32(6).u32(8).raw(&[0; 40]);
            },
            "says that it is 8 bytes",
        ),
        (
            |file| {
                file.u32(6).u32(36).raw(&[0; 24]).u32(40);
            },
            "not the same at both ends",
        ),
        (
            |file| {
                file.u32(77).u32(36).raw(&[0; 24]).u32(40);
            },
            "not the same at both ends",
        ),
        (
            |file| {
                file.block(6, |block| {
                    block.u32(0).u32(0).u32(0).u32(400).u32(400).raw(b"short");
                });
            },
            "its packet is longer than the block",
        ),
    ];
    for (bad, sentence) in cases {
        let mut file = Writer::new(Order::Little);
        good(&mut file);
        let at = file.bytes.len();
        bad(&mut file);
        let (packets, summary) = read(file.bytes);
        assert_eq!(packets.len(), 1);
        let damaged = summary.damaged.unwrap();
        assert!(damaged.contains(sentence), "{damaged}");
        assert!(damaged.contains(&format!("packet 2, in the block at byte {at}:")), "{damaged}");
    }
}

#[test]
fn what_is_no_capture_is_an_error_that_says_what_it_is() {
    let error = |bytes: &[u8]| open(bytes).unwrap_err().to_string();
    assert_eq!(error(b""), "test is empty, not a capture file");
    assert_eq!(
        error(b"%PDF-1.7"),
        "test is not a capture file (pcap or pcapng): it begins with 25 50 44 46 2d 31 2e 37 (\"%PDF-1.7\")"
    );
    assert!(error(&zstd::encode_all(&b"hello"[..], 1).unwrap()).contains("what its zstd stream holds begins with 68"));
    assert!(error(&zstd::encode_all(&b""[..], 1).unwrap()).contains("what its zstd stream holds is empty"));
    assert!(error(b"ab").contains("it begins with 61 62"));
    assert!(
        error(&[0x1f, 0x8b, 8, 0, 0]).contains("is damaged from its beginning: the gzip stream cannot be unpacked")
    );
    assert!(matches!(CaptureFile::open(Path::new("/nowhere")), Err(OpenError::Io { .. })));
    assert!(matches!(CaptureFile::open(Path::new("/")), Err(OpenError::Io { .. })));
}

#[test]
fn several_files_are_one_timeline_and_equal_times_keep_the_order_of_files() {
    let file = |times: &[u32], name: &[u8]| {
        let mut writer = Writer::new(Order::Little);
        writer.pcap_header(0xa1b2_c3d4);
        for time in times {
            writer.pcap_record(*time, 0, name);
        }
        open(writer.bytes).unwrap()
    };
    let files = vec![file(&[3, 5, 5, 9], b"a"), file(&[1, 5, 4, 7], b"b"), file(&[], b"c"), file(&[5], b"d")];
    let mut timeline = Timeline::new(files);
    let mut seen = Vec::new();
    while let Some((capture, packet)) = timeline.next() {
        seen.push((capture, packet.number, packet.time.as_nanos() / 1_000_000_000));
    }
    let expected = [(1, 1, 1), (0, 1, 3), (0, 2, 5), (0, 3, 5), (1, 2, 5), (1, 3, 4), (3, 1, 5), (1, 4, 7), (0, 4, 9)];
    assert_eq!(seen, expected);
    assert!(timeline.next().is_none());
}

#[test]
fn a_timeline_goes_on_after_the_damage_of_one_file() {
    let mut cut = bytes_of("formats-otp25-nsec.pcap");
    cut.truncate(1000);
    let files = vec![open(cut).unwrap(), CaptureFile::open(&captures("formats-otp25.pcapng")).unwrap()];
    let mut timeline = Timeline::new(files);
    let mut last = None;
    while let Some((capture, packet)) = timeline.next() {
        last = Some((capture, packet.number));
    }
    assert_eq!(last, Some((1, 105)));
    let damages: Vec<_> = timeline.files().iter().map(|file| file.summary().damaged.is_some()).collect();
    assert_eq!(damages, [true, false]);
}

proptest! {
    #[test]
    fn arbitrary_bytes_behind_any_magic_are_read_to_an_end(
        magic in prop::sample::select(vec![
            [0xd4, 0xc3, 0xb2, 0xa1], [0xa1, 0xb2, 0xc3, 0xd4], [0x4d, 0x3c, 0xb2, 0xa1], [0x34, 0xcd, 0xb2, 0xa1],
            [0x0a, 0x0d, 0x0d, 0x0a], [0x1f, 0x8b, 8, 0], [0x28, 0xb5, 0x2f, 0xfd],
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..512),
    ) {
        if let Ok(mut file) = open([&magic[..], &bytes].concat()) {
            let packets = rest_of(&mut file);
            prop_assert_eq!(packets.len() as u64, file.summary().packets);
        }
    }

    #[test]
    fn a_changed_capture_gives_the_packets_before_the_change(
        name in prop::sample::select(vec!["formats-otp25-usec.pcap", "formats-otp25.pcapng"]),
        at in any::<prop::sample::Index>(),
        value in any::<[u8; 4]>(),
    ) {
        let mut bytes = bytes_of(name);
        let at = at.index(bytes.len() - 4 - 24) + 24;
        let before = boundaries(&bytes).0.iter().filter(|end| **end <= at).count();
        let expected = read(bytes.clone()).0;
        bytes[at..at + 4].copy_from_slice(&value);
        let (packets, _) = read(bytes);
        prop_assert!(packets.len() >= before);
        prop_assert_eq!(&packets[..before], &expected[..before]);
    }
}
