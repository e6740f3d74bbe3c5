//! Exchanges of real clients and daemons, and what no client sends.

use proptest::prelude::*;

use super::*;
use crate::captured::{Recorded, Step, connections};
use crate::packet::PacketRef;
use crate::time::Timestamp;

fn at(number: u64) -> At {
    let packet = PacketRef { capture: 0, number };
    At { time: Timestamp::from_parts(1_795_407_708, 0), packet, ..At::default() }
}

fn drain(exchange: &mut Exchange) -> Vec<Output> {
    std::iter::from_fn(|| exchange.poll()).collect()
}

fn play(recorded: &Recorded) -> Vec<Output> {
    let mut exchange = Exchange::new();
    for step in &recorded.steps {
        match step {
            Step::Data(at, side, data) => exchange.handle_data(at, *side, data),
            Step::Close(at, side) => exchange.handle_close(at, Some(*side)),
        }
    }
    drain(&mut exchange)
}

/// A connection in which the client sends `request`, the daemon `answer` and then FIN.
fn converse(request: &[u8], answer: &[u8]) -> Vec<Output> {
    let mut exchange = Exchange::new();
    exchange.handle_data(&at(1), Side::Initiator, request);
    exchange.handle_data(&at(2), Side::Acceptor, answer);
    exchange.handle_close(&at(3), Some(Side::Acceptor));
    drain(&mut exchange)
}

fn finished(outputs: &[Output]) -> &Finished {
    outputs
        .iter()
        .find_map(|output| match output {
            Output::Finished(finished) => Some(&**finished),
            _ => None,
        })
        .expect("a finished exchange")
}

fn told(recorded: &Recorded) -> Option<(EpmdRequest, String, String, bool)> {
    play(recorded).into_iter().find_map(|output| match output {
        Output::Finished(finished) => {
            let end = |address: std::net::SocketAddr| Endpoint { ip: address.ip(), port: address.port() };
            let exchange = finished.into_exchange(end(recorded.initiator), end(recorded.acceptor), String::new());
            Some((exchange.request, exchange.name, exchange.result, exchange.local))
        }
        _ => None,
    })
}

#[test]
fn queries_from_another_host_are_read_as_they_happened() {
    let told: Vec<_> = connections("epmd-queries-otp25.pcap").iter().filter_map(told).collect();
    let expected = [
        (EpmdRequest::Names, "", "cache:38399, db:34885"),
        (EpmdRequest::PortPlease2, "db", "port 34885"),
        (EpmdRequest::PortPlease2, "cache", "port 38399"),
        (EpmdRequest::PortPlease2, "nobody", "not_found"),
        (EpmdRequest::Dump, "", "refused"),
        (EpmdRequest::Kill, "", "refused"),
        (EpmdRequest::Stop, "db", "refused"),
        (EpmdRequest::Names, "", "cache:38399, db:34885"),
    ];
    let expected = expected.map(|(request, name, result)| (request, name.to_owned(), result.to_owned(), false));
    assert_eq!(told, expected);
}

#[test]
fn a_registration_its_end_and_a_kill_over_loopback_are_read_as_they_happened() {
    let connections = connections("epmd-loopback-otp25.pcapng");
    let told: Vec<_> = connections.iter().filter_map(told).collect();
    let expected = [
        (EpmdRequest::Alive2, "db", "creation 1795406326"),
        (EpmdRequest::Names, "", "db:36629"),
        (EpmdRequest::Alive2, "db", "refused"),
        (EpmdRequest::Kill, "", "refused"),
        (EpmdRequest::Names, "", "no names"),
        (EpmdRequest::Kill, "", "killed"),
    ];
    let expected = expected.map(|(request, name, result)| (request, name.to_owned(), result.to_owned(), true));
    assert_eq!(told, expected);

    let ends: Vec<_> = connections
        .iter()
        .flat_map(play)
        .filter_map(|output| match output {
            Output::Unregistered(registration) => {
                Some((registration.name, registration.creation, registration.by_octets))
            }
            _ => None,
        })
        .collect();
    assert_eq!(ends, [("db".to_owned(), 1_795_406_326, false)], "the refused one was never registered");
}

#[test]
fn garbage_on_the_port_is_not_taken_for_requests() {
    let connections = connections("garbage-on-dist-ports-otp25.pcap");
    let to_epmd: Vec<_> = connections.iter().filter(|one| one.acceptor.port() == 4369).collect();
    let mut kinds = Vec::new();
    for recorded in to_epmd {
        let outputs = play(recorded);
        kinds.push(match outputs.as_slice() {
            [] => "nothing",
            [Output::NotEpmd] => "not epmd",
            [Output::Unfinished { octets: 1 }] => "one octet",
            // The old-style name message begins with NAMES_REQ's opcode, and the daemon did answer it.
            [Output::Notice(Notice { kind: NoticeKind::Violation(_), .. }), Output::Finished(_)] => "names",
            other => panic!("{other:?}"),
        });
    }
    let count = |word: &str| kinds.iter().filter(|kind| **kind == word).count();
    assert_eq!((count("not epmd"), count("one octet"), count("names")), (9, 1, 1), "{kinds:?}");
}

#[test]
fn a_node_with_octets_after_its_registration_is_unregistered() {
    let mut exchange = Exchange::new();
    exchange.handle_data(&at(1), Side::Initiator, b"\x00\x12\x78\xb0\x17\x4d\x00\x00\x06\x00\x05\x00\x05ref_b\x00\x00");
    exchange.handle_data(&at(2), Side::Acceptor, b"\x76\x00\x6b\x03\xb5\xc3");
    let outputs = drain(&mut exchange);
    assert_eq!(finished(&outputs).result, "creation 1795405251");
    assert_eq!(finished(&outputs).node.as_ref().map(|node| node.port), Some(45079));
    assert!(exchange.is_registration() && !exchange.finished_looking());
    exchange.handle_data(&at(9), Side::Initiator, b"x");
    let outputs = drain(&mut exchange);
    let [Output::Unregistered(registration)] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert_eq!((registration.name.as_str(), registration.by_octets), ("ref_b", true));
    assert_eq!((registration.since, registration.until), (at(1), at(9)));
    assert!(exchange.finished_looking());
}

#[test]
fn the_answer_alone_tells_the_request() {
    let answers: [(&[u8], EpmdRequest, &str, &str); 6] = [
        (b"\x77\x00\x88\x45\x4d\x00\x00\x06\x00\x05\x00\x02db\x00\x00", EpmdRequest::PortPlease2, "db", "port 34885"),
        (b"\x76\x00\x6b\x03\xb5\xc3", EpmdRequest::Alive2, "", "creation 1795405251"),
        (b"\x00\x00\x11\x11name db at port 5\n", EpmdRequest::Names, "", "db:5"),
        (b"\x00\x00\x11\x11active name     <db> at port 5, fd = 6\n\0", EpmdRequest::Dump, "", "db:5"),
        (b"NO", EpmdRequest::Kill, "", "refused"),
        (b"NOEXISTSTOPPED", EpmdRequest::Stop, "", "not_found"),
    ];
    for (answer, request, name, result) in answers {
        let outputs = converse(b"", answer);
        let finished = finished(&outputs);
        assert_eq!((finished.request, finished.name.as_str(), finished.result.as_str()), (request, name, result));
    }
}

#[test]
fn the_request_alone_has_no_answer_and_no_refusal() {
    let mut exchange = Exchange::new();
    exchange.handle_data(&at(1), Side::Initiator, b"\x00\x01\x6b");
    exchange.handle_close(&at(2), Some(Side::Initiator));
    let outputs = drain(&mut exchange);
    assert_eq!(finished(&outputs).result, "none");
    assert!(!finished(&outputs).silently_closed);

    // A hole where the answer was is not silence.
    let mut exchange = Exchange::new();
    exchange.handle_data(&at(1), Side::Initiator, b"\x00\x01\x6b");
    exchange.handle_gap(&at(2), Side::Acceptor, 2);
    exchange.handle_close(&at(3), Some(Side::Acceptor));
    assert!(!finished(&drain(&mut exchange)).silently_closed);
}

#[test]
fn a_local_client_is_not_refused_by_silence() {
    let outputs = converse(b"\x00\x03sdb", b"");
    let loopback = Endpoint { ip: [127, 0, 0, 1].into(), port: 1 };
    let outside = Endpoint { ip: [10, 0, 0, 1].into(), port: 1 };
    let exchange = finished(&outputs).clone();
    assert_eq!(exchange.clone().into_exchange(loopback, loopback, String::new()).result, "none");
    assert_eq!(exchange.into_exchange(outside, loopback, String::new()).result, "refused");
}

#[test]
fn locality_is_loopback_or_the_same_address() {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    assert!(is_local(address("127.9.9.9"), address("127.0.0.1")));
    assert!(is_local(address("::1"), address("::1")));
    assert!(is_local(address("::ffff:127.0.0.1"), address("::ffff:127.0.0.1")));
    assert!(is_local(address("10.77.0.2"), address("10.77.0.2")));
    assert!(!is_local(address("10.77.0.1"), address("10.77.0.2")));
}

#[test]
fn octets_after_the_request_are_told_once() {
    let outputs = converse(b"\x00\x01nxx", b"");
    let violations = outputs.iter().filter(|output| matches!(output, Output::Notice(_))).count();
    assert_eq!((violations, finished(&outputs).result.as_str()), (1, "none"));
    let outputs = converse(&[&[0x0b, 0xf1, b'n'][..], &[0; 3056], b"x"].concat(), b"");
    assert_eq!(finished(&outputs).request, EpmdRequest::Names);
    assert!(matches!(converse(&[0x0b, 0xf2, b'n'], b"").as_slice(), [Output::NotEpmd]), "3058 is too long");
}

#[test]
fn obsolete_requests_are_named() {
    let outputs = converse(b"\x00\x04pabc", b"");
    let [Output::Notice(notice)] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert!(matches!(notice.kind, NoticeKind::Weird("obsolete-request", _)));
}

#[test]
fn a_huge_answer_is_bounded_and_said() {
    let mut exchange = Exchange::new();
    exchange.handle_data(&at(1), Side::Initiator, b"\x00\x01n");
    exchange.handle_data(&at(2), Side::Acceptor, b"\x00\x00\x11\x11");
    for _ in 0..10_000 {
        exchange.handle_data(&at(3), Side::Acceptor, b"name some_node at port 40000\n");
    }
    assert!(exchange.memory() < 3 * MAX_ANSWER);
    exchange.handle_close(&at(4), Some(Side::Acceptor));
    let outputs = drain(&mut exchange);
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, Output::Notice(Notice { kind: NoticeKind::Limit("epmd_answer"), .. })))
    );
    assert_eq!(finished(&outputs).names.len(), answer::MAX_NAMES);
}

/// Both directions cut into pieces, the client's first.
fn in_pieces(request: &[u8], answer: &[u8], cuts: &[usize]) -> String {
    let mut exchange = Exchange::new();
    for (side, octets) in [(Side::Initiator, request), (Side::Acceptor, answer)] {
        let mut rest = octets;
        for cut in cuts {
            let (front, back) = rest.split_at((*cut).min(rest.len()));
            exchange.handle_data(&at(1), side, front);
            rest = back;
        }
        exchange.handle_data(&at(1), side, rest);
    }
    exchange.handle_close(&at(1), Some(Side::Acceptor));
    format!("{:?}", drain(&mut exchange))
}

proptest! {
    #[test]
    fn any_split_gives_the_same(cuts in prop::collection::vec(0_usize..9, 0..12), which in 0_usize..5) {
        let cases: [(&[u8], &[u8]); 5] = [
            (b"\x00\x12\x78\xb0\x17\x4d\x00\x00\x06\x00\x05\x00\x05ref_b\x00\x00", b"\x76\x00\x6b\x03\xb5\xc3"),
            (b"\x00\x03zdb", b"\x77\x00\x88\x45\x4d\x00\x00\x06\x00\x05\x00\x02db\x00\x00"),
            (b"\x00\x01n", b"\x00\x00\x11\x11name x\nname y at port 1 at port 2\nname db at port 5\n"),
            (b"\x00\x03sdbtrailing", b"NOEXISTSTOPPED"),
            (b"GET / HTTP/1.0", b"HTTP"),
        ];
        let (request, answer) = cases[which];
        prop_assert_eq!(in_pieces(request, answer, &cuts), in_pieces(request, answer, &[]));
    }

    #[test]
    fn hostile_octets_never_panic_and_stay_bounded(
        steps in prop::collection::vec((any::<bool>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..400)), 0..40),
        first in prop::sample::select(vec![&b""[..], b"\x00\x01n", b"\x00\x01d", b"\x00\x03zdb", b"\x00\x03sdb"]),
    ) {
        let mut exchange = Exchange::new();
        exchange.handle_data(&at(1), Side::Initiator, first);
        for (acceptor, gap, octets) in &steps {
            let side = if *acceptor { Side::Acceptor } else { Side::Initiator };
            if *gap && octets.len() < 20 {
                exchange.handle_gap(&at(2), side, octets.len() as u64);
            } else {
                exchange.handle_data(&at(2), side, octets);
            }
            prop_assert!(exchange.memory() < 4 * MAX_ANSWER);
        }
        exchange.handle_close(&at(3), None);
        drain(&mut exchange);
        prop_assert!(exchange.poll().is_none());
    }
}
