//! Link types, tunnels and fragments by hand, and both ways of decoding against each other.

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::packet::{InterfaceId, PacketRef};
use crate::time::Timestamp;

const LINK_TYPES: [u16; 15] = [0, 1, 9, 10, 12, 14, 24, 28, 30, 101, 108, 113, 228, 229, 276];

fn packet(link_type: LinkType, data: &[u8]) -> Packet<'_> {
    Packet {
        reference: PacketRef { capture: 0, number: 1 },
        time: Timestamp::EPOCH,
        link_type,
        interface: InterfaceId(0),
        data,
        original_len: u32::try_from(data.len()).unwrap(),
    }
}

fn net() -> Net {
    Net::new(&Limits::default())
}

/// Decodes one packet; fails unless it is TCP.
#[track_caller]
fn assert_tcp(link_type: LinkType, data: &[u8], payload: &[u8]) {
    let mut net = net();
    match net.decode(&packet(link_type, data)) {
        Decoded::Tcp(segment) => assert_is(&segment, payload),
        other => panic!("{other:?}"),
    }
}

/// The segment that [`tcp`] builds.
#[track_caller]
fn assert_is(segment: &Segment<'_>, payload: &[u8]) {
    assert_eq!((segment.source.port(), segment.destination.port()), (4369, 9100));
    assert_eq!((segment.sequence, segment.acknowledgement, segment.window), (0x0102_0304, 0x0506_0708, 64_000));
    assert!(segment.flags.has(TcpFlags::ACK));
    assert_eq!(segment.payload, payload);
    assert_eq!(segment.payload_len as usize, payload.len());
}

#[track_caller]
fn assert_not_used(link_type: LinkType, data: &[u8], reason: &str) {
    match net().decode(&packet(link_type, data)) {
        Decoded::NotUsed(said) => assert_eq!(said, reason),
        other => panic!("{other:?}"),
    }
}

fn tcp(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x11, 0x11, 0x23, 0x8c, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 0xfa, 0x00, 0xba, 0xad, 0, 0];
    bytes.extend(payload);
    bytes
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    [&[0x80, 0x00][..], &port.to_be_bytes(), &len.to_be_bytes(), &[0, 0], payload].concat()
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_fragment(protocol, 0, 0, false, payload)
}

/// `offset` in octets.
fn ipv4_fragment(protocol: u8, id: u16, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap();
    let third = (offset / 8) | if more { 0x2000 } else { 0 };
    let mut bytes = vec![0x45, 0];
    bytes.extend([len, id, third].map(u16::to_be_bytes).as_flattened());
    bytes.extend([64, protocol, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2]);
    bytes.extend(payload);
    bytes
}

fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, len[0], len[1], next_header, 64];
    bytes.extend(Ipv6Addr::LOCALHOST.octets());
    bytes.extend(Ipv6Addr::LOCALHOST.octets());
    bytes.extend(payload);
    bytes
}

fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&[2; 6][..], &[4; 6], &ether_type.to_be_bytes(), payload].concat()
}

fn with(header: &[u8], payload: &[u8]) -> Vec<u8> {
    [header, payload].concat()
}

const E: LinkType = LinkType::ETHERNET;

#[test]
fn plain_packets_of_both_versions_take_the_short_way() {
    for data in [ethernet(0x0800, &ipv4(6, &tcp(b"abc"))), ethernet(0x86dd, &ipv6(6, &tcp(b"abc")))] {
        assert_is(&plain(&packet(E, &data)).unwrap(), b"abc");
        assert_tcp(E, &data, b"abc");
    }
}

#[test]
fn every_link_type_leads_to_the_segment() {
    let (four, six) = (ipv4(6, &tcp(b"abc")), ipv6(6, &tcp(b"abc")));
    for raw in [12, 14, 101, 228, 229].map(LinkType) {
        assert_tcp(raw, &four, b"abc");
        assert_tcp(raw, &six, b"abc");
    }
    for link_type in [LinkType::NULL, LinkType::LOOP] {
        assert_tcp(link_type, &with(&[2, 0, 0, 0], &four), b"abc");
        assert_tcp(link_type, &with(&[0, 0, 0, 2], &four), b"abc");
        for family in [24, 28, 30, 10] {
            assert_tcp(link_type, &with(&[family, 0, 0, 0], &six), b"abc");
            assert_tcp(link_type, &with(&[0, 0, 0, family], &six), b"abc");
        }
        assert_not_used(link_type, &with(&[0, 0, 0, 7], &four), "address-family-not-ip");
    }
    let sll = [0, 4, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0];
    assert_tcp(LinkType::LINUX_SLL, &with(&sll, &four), b"abc");
    let sll2 = [0x86, 0xdd, 0, 0, 0, 0, 0, 7, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0];
    let data = with(&sll2, &six);
    assert_tcp(LinkType::LINUX_SLL2, &data, b"abc");
    assert_eq!(interface_index(&packet(LinkType::LINUX_SLL2, &data)), Some(7));
    assert_eq!(interface_index(&packet(LinkType::LINUX_SLL, &data)), None);
    assert_not_used(LinkType(105), &four, "link-type-not-supported");
}

#[test]
fn tags_labels_and_sessions_are_taken_off() {
    let ip = ipv4(6, &tcp(b"abc"));
    let tagged = with(&[0x01, 0x23, 0x08, 0x00], &ip);
    assert_tcp(E, &ethernet(0x8100, &tagged), b"abc");
    assert_tcp(E, &ethernet(0x88a8, &with(&[0, 1, 0x81, 0], &tagged)), b"abc");
    assert_tcp(E, &ethernet(0x9100, &with(&[0, 1, 0x81, 0], &tagged)), b"abc");
    assert_tcp(E, &ethernet(0x8847, &with(&[0, 0x10, 0, 64, 0, 0x10, 1, 64], &ip)), b"abc");
    assert_tcp(E, &ethernet(0x8864, &with(&[0x11, 0, 0, 1, 0, 45, 0, 0x21], &ip)), b"abc");
    assert_not_used(E, &ethernet(0x8847, &with(&[0, 0x10, 1, 64], &[0; 20])), "mpls-without-ip");
}

#[test]
fn tunnels_lead_to_the_segment_inside() {
    let (four, six) = (ipv4(6, &tcp(b"abc")), ipv6(6, &tcp(b"abc")));
    let frame = ethernet(0x0800, &four);
    for (protocol, inner) in [(4, &four), (41, &six)] {
        assert_tcp(E, &ethernet(0x0800, &ipv4(protocol, inner)), b"abc");
        assert_tcp(E, &ethernet(0x86dd, &ipv6(protocol, inner)), b"abc");
    }
    for port in [4789, 8472] {
        let vxlan = udp(port, &with(&[8, 0, 0, 0, 0, 0, 1, 0], &frame));
        assert_tcp(E, &ethernet(0x0800, &ipv4(17, &vxlan)), b"abc");
    }
    let geneve = udp(6081, &with(&[1, 0, 0x65, 0x58, 0, 0, 1, 0, 9, 9, 9, 9], &frame));
    assert_tcp(E, &ethernet(0x0800, &ipv4(17, &geneve)), b"abc");
    let headers: [(&[u8], &[u8]); 7] = [
        (&[0, 0, 8, 0], &four),
        (&[0, 0, 0x86, 0xdd], &six),
        (&[0xb0, 0, 8, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3], &four),
        (&[0x20, 0, 0x65, 0x58, 2, 2, 2, 2], &frame),
        (&[0, 0, 0x88, 0xbe], &frame),
        (&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 0, 0, 0, 0, 0, 0, 0], &frame),
        (&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &frame),
    ];
    for (header, inner) in headers {
        assert_tcp(E, &ethernet(0x0800, &ipv4(47, &with(header, inner))), b"abc");
    }
    assert_not_used(E, &ethernet(0x0800, &ipv4(47, &with(&[0, 1, 0x88, 0x0b], &four))), "gre-version-not-supported");
}

#[test]
fn encapsulation_without_end_is_given_up() {
    let mut data = ipv4(6, &tcp(b"abc"));
    for _ in 0..8 {
        data = ipv4(4, &data);
    }
    assert_tcp(LinkType::RAW, &data, b"abc");
    assert_not_used(LinkType::RAW, &ipv4(4, &data), "too-many-encapsulations");
    assert_not_used(E, &ethernet(0x8100, &[0x81, 0, 0x81, 0].repeat(100)), "too-many-encapsulations");
}

#[test]
fn extension_headers_are_gone_through() {
    let segment = tcp(b"abc");
    let hop_then_destination = [&[60, 0, 0, 0, 0, 0, 0, 0, 6, 1][..], &[0; 14], &segment].concat();
    assert_tcp(E, &ethernet(0x86dd, &ipv6(0, &hop_then_destination)), b"abc");
    let routing = with(&[6, 0, 0, 0, 0, 0, 0, 0], &segment);
    assert_tcp(E, &ethernet(0x86dd, &ipv6(43, &routing)), b"abc");
    let atomic_fragment = with(&[6, 0, 0, 0, 1, 2, 3, 4], &segment);
    assert_tcp(E, &ethernet(0x86dd, &ipv6(44, &atomic_fragment)), b"abc");
    let authentication = with(&[6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], &segment);
    assert_tcp(E, &ethernet(0x86dd, &ipv6(51, &authentication)), b"abc");
    assert_tcp(E, &ethernet(0x0800, &ipv4(51, &authentication)), b"abc");
    assert_not_used(E, &ethernet(0x0800, &ipv4(0, &routing)), "other-ip-protocol");
    assert_not_used(E, &ethernet(0x86dd, &ipv6(43, &[6, 9, 0, 0])), "cut-ip-extension-header");
}

#[test]
fn the_padding_of_short_frames_is_no_payload() {
    let mut data = ethernet(0x0800, &ipv4(6, &tcp(b"")));
    data.resize(60, 0xee);
    assert_tcp(E, &data, b"");
    let mut data = ethernet(0x8100, &with(&[0, 1, 8, 0], &ipv4(6, &tcp(b"a"))));
    data.resize(64, 0xee);
    assert_tcp(E, &data, b"a");
}

#[test]
fn a_snap_length_cuts_the_payload_but_not_its_length() {
    let whole = ethernet(0x0800, &ipv4(6, &tcp(&[7; 1000])));
    for keep in [14 + 20 + 20, 96, 600] {
        let cut = Packet { data: &whole[..keep], ..packet(E, &whole) };
        let mut net = net();
        let Decoded::Tcp(segment) = net.decode(&cut) else { panic!("not TCP") };
        assert_eq!((segment.payload.len(), segment.payload_len), (keep - 54, 1000));
    }
    let mut options = tcp(&[7; 112]);
    options[12] = 0x80;
    let whole = ethernet(0x0800, &ipv4(6, &options));
    let mut net = net();
    let Decoded::Tcp(segment) = net.decode(&packet(E, &whole[..60])) else { panic!("not TCP") };
    assert_eq!((segment.payload.len(), segment.payload_len), (0, 100), "the options are cut, the length is not");
    assert_not_used(E, &whole[..53], "cut-tcp-header");
    assert_not_used(E, &whole[..33], "cut-ip-header");
    assert_not_used(E, &whole[..13], "cut-link-header");
}

#[test]
fn a_length_of_zero_means_as_long_as_captured() {
    let mut four = ethernet(0x0800, &ipv4(6, &tcp(&[7; 40])));
    four[16..18].fill(0);
    let mut six = ethernet(0x86dd, &ipv6(6, &tcp(&[7; 40])));
    six[18..20].fill(0);
    for data in [four, six] {
        assert_tcp(E, &data, &[7; 40]);
        let longer = Packet { original_len: 100_000, ..packet(E, &data) };
        let mut net = net();
        let Decoded::Tcp(segment) = net.decode(&longer) else { panic!("not TCP") };
        assert_eq!(segment.payload_len as usize, 100_000 - (data.len() - 40));
    }
}

#[test]
fn what_is_not_tcp_says_why() {
    assert_not_used(E, &ethernet(0x0806, &[0; 28]), "arp");
    assert_not_used(E, &ethernet(0x88cc, &[0; 28]), "other-ether-type");
    assert_not_used(E, &ethernet(0x0800, &ipv4(17, &udp(53, b"?"))), "udp");
    assert_not_used(E, &ethernet(0x0800, &ipv4(1, &[0; 8])), "icmp");
    assert_not_used(E, &ethernet(0x0800, &ipv4(50, &[0; 8])), "ipsec-esp");
    assert_not_used(E, &ethernet(0x0800, &[0x15; 40]), "bad-ip-header");
    assert_not_used(E, &ethernet(0x0800, &[0x44; 40]), "bad-ip-header");
    let mut bad = tcp(b"abc");
    bad[12] = 0x40;
    assert_not_used(E, &ethernet(0x0800, &ipv4(6, &bad)), "bad-tcp-header");
    bad[12] = 0xf0;
    assert_not_used(E, &ethernet(0x0800, &ipv4(6, &bad)), "bad-tcp-header");
    let mut short = ethernet(0x0800, &ipv4(6, &tcp(b"abc")));
    short[17] = 19;
    assert_not_used(E, &short, "bad-ip-header");
}

/// Pieces of a segment with 100 octets of payload: offset, bytes, whether more follow.
fn pieces(segment: &[u8]) -> [(u16, &[u8], bool); 3] {
    [(0, &segment[..48], true), (48, &segment[48..96], true), (96, &segment[96..], false)]
}

fn ipv6_fragment(id: u32, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let word = (offset | u16::from(more)).to_be_bytes();
    ipv6(44, &[&[6, 0][..], &word, &id.to_be_bytes(), payload].concat())
}

#[test]
fn fragments_in_any_order_give_the_segment_once() {
    let payload: Vec<u8> = (0..100).collect();
    let segment = tcp(&payload);
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1], [2, 0, 1], [1, 0, 2]] {
        for version in [4, 6] {
            let mut net = net();
            for (nth, index) in order.into_iter().enumerate() {
                let (offset, bytes, more) = pieces(&segment)[index];
                let data = match version {
                    4 => ethernet(0x0800, &ipv4_fragment(6, 9, offset, more, bytes)),
                    _ => ethernet(0x86dd, &ipv6_fragment(9, offset, more, bytes)),
                };
                if nth < 2 {
                    assert_eq!(net.decode(&packet(E, &data)), Decoded::Pending);
                    assert_eq!(net.decode(&packet(E, &data)), Decoded::Pending, "a repetition changes nothing");
                    continue;
                }
                let Decoded::Tcp(found) = net.decode(&packet(E, &data)) else { panic!("not TCP") };
                assert_is(&found, &payload);
            }
            assert_eq!(net.take_limits().map(|(_, count)| count), [0, 0, 0]);
        }
    }
}

#[test]
fn fragments_of_a_tunnel_give_the_segment_inside() {
    let payload = [7; 200];
    let vxlan = udp(4789, &with(&[8, 0, 0, 0, 0, 0, 1, 0], &ethernet(0x86dd, &ipv6(6, &tcp(&payload)))));
    let (first, second) = vxlan.split_at(104);
    let mut net = net();
    let first = ethernet(0x0800, &ipv4_fragment(17, 1, 0, true, first));
    assert_eq!(net.decode(&packet(E, &first)), Decoded::Pending);
    let second = ethernet(0x0800, &ipv4_fragment(17, 1, 104, false, second));
    let Decoded::Tcp(found) = net.decode(&packet(E, &second)) else { panic!("not TCP") };
    assert_is(&found, &payload);
}

#[test]
fn fragments_that_contradict_each_other_are_not_read() {
    let segment = tcp(&[1; 100]);
    let mut net = net();
    let first = ethernet(0x0800, &ipv4_fragment(6, 9, 0, true, &segment[..48]));
    let other = ethernet(0x0800, &ipv4_fragment(6, 9, 40, true, &[9; 48]));
    let last = ethernet(0x0800, &ipv4_fragment(6, 9, 48, false, &segment[48..]));
    assert_eq!(net.decode(&packet(E, &first)), Decoded::Pending);
    assert_eq!(net.decode(&packet(E, &other)), Decoded::NotUsed("ip-fragments-contradict"));
    assert_eq!(net.decode(&packet(E, &last)), Decoded::Pending, "what was there is gone");
    let cut = ethernet(0x0800, &ipv4_fragment(6, 10, 0, true, &segment[..48]));
    assert_eq!(net.decode(&packet(E, &cut[..60])), Decoded::NotUsed("cut-ip-fragment"));
    let ping = ethernet(0x0800, &ipv4_fragment(1, 10, 0, true, &[0; 48]));
    assert_eq!(net.decode(&packet(E, &ping)), Decoded::NotUsed("ip-fragment"));
}

#[test]
fn unfinished_packets_are_bounded_and_the_oldest_go_first() {
    let segment = tcp(&[1; 100]);
    let mut net = net();
    for id in 0..600 {
        let first = ethernet(0x0800, &ipv4_fragment(6, id, 0, true, &segment[..48]));
        assert_eq!(net.decode(&packet(E, &first)), Decoded::Pending);
    }
    assert_eq!(net.take_limits()[0], ("ip_fragments_evicted", 600 - 512));
    let last = |id| ethernet(0x0800, &ipv4_fragment(6, id, 48, false, &segment[48..]));
    assert_eq!(net.decode(&packet(E, &last(0))), Decoded::Pending, "the first was given up");
    assert!(matches!(net.decode(&packet(E, &last(599))), Decoded::Tcp(_)));

    let mut net = self::net();
    for id in 0..600 {
        let far = ethernet(0x0800, &ipv4_fragment(6, id, 65_000, true, &segment[..48]));
        assert_eq!(net.decode(&packet(E, &far)), Decoded::Pending);
    }
    let [(_, evicted), ..] = net.take_limits();
    assert!(evicted > 500, "few packets of the greatest length fit: {evicted}");
}

#[test]
fn an_old_fragment_is_not_joined_with_a_new_one() {
    let segment = tcp(&[1; 100]);
    let mut net = net();
    let first = ethernet(0x0800, &ipv4_fragment(6, 9, 0, true, &segment[..48]));
    assert_eq!(net.decode(&packet(E, &first)), Decoded::Pending);
    let last = ethernet(0x0800, &ipv4_fragment(6, 9, 48, false, &segment[48..]));
    let late = Packet { time: Timestamp::from_parts(31, 0), ..packet(E, &last) };
    assert_eq!(net.decode(&late), Decoded::Pending);
    assert_eq!(net.take_limits()[1], ("ip_fragments_expired", 1));
    let elsewhere = Packet { interface: InterfaceId(1), ..packet(E, &first) };
    assert_eq!(net.decode(&elsewhere), Decoded::Pending, "another interface is another packet");
}

#[test]
fn a_packet_in_too_many_pieces_is_given_up() {
    let mut net = net();
    let decoded: Vec<bool> = (0..300)
        .map(|piece| {
            let data = ethernet(0x0800, &ipv4_fragment(6, 9, piece * 16, true, &[0; 8]));
            net.decode(&packet(E, &data)) == Decoded::NotUsed("ip-fragment-pieces")
        })
        .collect();
    assert_eq!(decoded.iter().position(|gone| *gone), Some(256));
    assert_eq!(net.take_limits()[2], ("ip_fragment_pieces", 1));
}

/// A packet that the short way may take or not: tags, options, other protocols, padding.
fn generated() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(any::<u8>(), 0..80);
    (any::<[u8; 4]>(), any::<[u8; 16]>(), payload, 0..6u8, any::<u16>(), 0..12usize).prop_map(
        |(four, sixteen, payload, kind, port, padding)| {
            let ethernet = PacketBuilder::ethernet2([1; 6], [2; 6]);
            let mut bytes = Vec::new();
            let written = match kind {
                0 | 1 => ethernet.ipv4(four, [10, 0, 0, 1], 64).tcp(port, 9100, 7, 64_000).write(&mut bytes, &payload),
                2 | 3 => ethernet.ipv6(sixteen, [3; 16], 64).tcp(port, 9100, 7, 64_000).write(&mut bytes, &payload),
                4 => ethernet
                    .single_vlan(7u16.try_into().unwrap())
                    .ipv4(four, [10, 0, 0, 1], 64)
                    .tcp(port, 9100, 7, 64_000)
                    .write(&mut bytes, &payload),
                _ => ethernet.ipv4(four, [10, 0, 0, 1], 64).udp(port, 4789).write(&mut bytes, &payload),
            };
            written.unwrap();
            bytes.resize(bytes.len() + padding, 0);
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_short_way_and_the_general_way_agree(
        mut data in generated(),
        // Mostly in the headers, where they matter.
        changes in prop::collection::vec((0..60usize, any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        for (at, value) in changes {
            if let Some(byte) = data.get_mut(at) {
                *byte = value;
            }
        }
        let original_len = u32::try_from(data.len()).unwrap();
        if is_cut {
            data.truncate(cut.index(data.len()));
        }
        let packet = Packet { original_len, ..packet(E, &data) };
        if let Some(short) = plain(&packet) {
            let mut net = net();
            prop_assert_eq!(net.decode_layers(&packet), Decoded::Tcp(short));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        link_type in prop::sample::select(LINK_TYPES.to_vec()),
        data in prop::collection::vec(any::<u8>(), 0..200),
        original_len in any::<u32>(),
    ) {
        let mut net = net();
        let packet = Packet { original_len, ..packet(LinkType(link_type), &data) };
        if let Decoded::Tcp(segment) = net.decode(&packet) {
            prop_assert!(segment.payload_len as usize >= segment.payload.len());
        }
    }

    #[test]
    fn arbitrary_bytes_inside_every_kind_of_header_never_panic(
        kinds in prop::collection::vec(0..9u8, 0..10),
        inner in prop::collection::vec(any::<u8>(), 0..100),
        change in (any::<prop::sample::Index>(), any::<u8>()),
    ) {
        let mut data = kinds.into_iter().fold(inner, |data, kind| match kind {
            0 => ipv4(4, &data),
            1 => ipv4(41, &data),
            2 => ipv6(6, &data),
            3 => ipv4(17, &udp(4789, &with(&[8, 0, 0, 0, 0, 0, 1, 0], &ethernet(0x0800, &data)))),
            4 => ipv4(47, &with(&[0x30, 0, 0x22, 0xeb], &data)),
            5 => ipv6(0, &with(&[44, 0, 0, 0, 0, 0, 0, 0], &data)),
            6 => ipv6_fragment(1, 8, false, &data),
            7 => ipv4_fragment(4, 1, 0, true, &data),
            _ => ipv4(47, &with(&[0, 0, 0x88, 0x47], &data)),
        });
        let mut net = net();
        net.decode(&packet(LinkType::RAW, &data));
        if !data.is_empty() {
            let at = change.0.index(data.len());
            data[at] = change.1;
        }
        net.decode(&packet(LinkType::RAW, &data));
    }
}
