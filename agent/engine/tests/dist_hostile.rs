//! Distribution sessions with peers that break the protocol.

#[path = "support/recorder.rs"]
mod recorder;

use distwatch_engine::dist::Session;
use distwatch_engine::limits::Limits;
use distwatch_engine::model::HandshakeOutcome;
use distwatch_engine::packet::{At, Side};
use distwatch_engine::time::Timestamp;
use recorder::{Call, Recorder};

const NODE: u64 = 0xd_07df_7fbd;
const C_NODE: u64 = 0x4_0707_4f9c;

fn name(flags: u64) -> Vec<u8> {
    let mut body = b"N".to_vec();
    body.extend(flags.to_be_bytes());
    body.extend(b"\x6b\x03\xb5\xc5\x00\x03a@b");
    short(&body)
}

fn challenge(flags: u64) -> Vec<u8> {
    let mut body = b"N".to_vec();
    body.extend(flags.to_be_bytes());
    body.extend(b"\xa8\x5c\x5a\xf6\x6b\x03\xb5\xc3\x00\x03b@b");
    short(&body)
}

fn short(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u16).to_be_bytes()[..], body].concat()
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

/// A control message without atoms in an empty header.
fn plain(terms: &[u8]) -> Vec<u8> {
    frame(&[b"\x83D\0", terms].concat())
}

/// `{1, 1, 1}`, which is as much of a LINK as is looked at here.
const LINK: &[u8] = b"h\x03a\x01a\x01a\x01";
/// `{22, 1, 1}`.
const SEND: &[u8] = b"h\x03a\x16a\x01a\x01";

/// A connection whose handshake has passed.
fn connected(flags: u64) -> (Session, Recorder) {
    let (mut session, mut recorder) = (Session::from_handshake(&Limits::default()), Recorder::default());
    let mut say = |side, bytes: &[u8]| session.handle_data(&At::default(), side, bytes, &mut recorder);
    say(Side::Initiator, &name(NODE));
    say(Side::Acceptor, &short(b"sok"));
    say(Side::Acceptor, &challenge(flags));
    say(Side::Initiator, &short(&[b"r", &[7; 20][..]].concat()));
    say(Side::Acceptor, &short(&[b"a", &[7; 16][..]].concat()));
    assert_eq!(session.handshake().outcome, HandshakeOutcome::Ok);
    recorder.calls.clear();
    (session, recorder)
}

/// What the acceptor's peer hears of these octets.
fn hear(bytes: &[u8]) -> (Session, Vec<Call>) {
    let (mut session, mut recorder) = connected(NODE);
    session.handle_data(&At::default(), Side::Initiator, bytes, &mut recorder);
    (session, recorder.calls)
}

fn violations(calls: &[Call]) -> Vec<&str> {
    calls
        .iter()
        .filter_map(|call| if let Call::Violation(_, what) = call { Some(what.as_str()) } else { None })
        .collect()
}

fn messages(calls: &[Call]) -> Vec<&'static str> {
    calls.iter().filter_map(|call| if let Call::Message(read) = call { Some(read.name) } else { None }).collect()
}

#[test]
fn what_no_release_sends_is_a_violation_and_reading_goes_on() {
    let continuation = [b"\x83F".as_slice(), &9_u64.to_be_bytes(), &1_u64.to_be_bytes(), b"a\x01"].concat();
    for (bytes, what) in [
        (plain(b"h\x03a\x63a\x01a\x01"), "unknown operation 99"),
        (plain(b"h\x02a\x01a\x01"), "LINK with 1 elements"),
        (plain(&[SEND, b"\x50\0\0\0\x05abc"].concat()), "compressed term"),
        (plain(&[SEND, b"\x83a\x01"].concat()), "version byte"),
        (plain(SEND), "ends too early"),
        (plain(b"a\x01"), "control message"),
        (frame(b"\x83D\x01\x00\x05h\x03a\x01a\x01a\x01"), "atom cache slot 5"),
        (frame(b"\x83D\x01\x18\x05\xff\xff"), "atom length"),
        (frame(b"p\x83h\x03a\x01a\x01a\x01"), "pass-through"),
        (frame(&continuation), "fragment of no open sequence"),
        (frame(b"\x83\x50\0\0\0\x05abc"), "compressed term"),
        (frame(b"GET / HTTP/1.1"), "no known tag"),
        (b"\x7f\xff\xff\xff".to_vec(), "octets"),
    ] {
        let (mut session, mut recorder) = connected(NODE);
        let mut say = |bytes: &[u8]| session.handle_data(&At::default(), Side::Initiator, bytes, &mut recorder);
        say(&bytes);
        for _ in 0..3 {
            say(&plain(LINK));
        }
        let found = violations(&recorder.calls);
        assert!(found.len() == 1 && found[0].contains(what), "{what}: {found:?}");
        let after = messages(&recorder.calls);
        assert!(after.ends_with(&["LINK", "LINK"]), "{what}: {after:?}");
    }
}

#[test]
fn octets_after_the_payload_are_odd_and_no_more() {
    let (_, calls) = hear(&plain(&[SEND, b"a\x01junk"].concat()));
    assert_eq!(messages(&calls), ["SEND_SENDER"]);
    assert!(calls.contains(&Call::Weird("trailing-bytes")));
    assert_eq!(violations(&calls), [""; 0]);
}

#[test]
fn nesting_beyond_the_limit_is_counted_and_the_frame_after_it_is_read() {
    let deep = b"h\x01".repeat(100_000);
    let (_, calls) = hear(&[plain(&[SEND, &deep[..], b"j"].concat()), plain(LINK)].concat());
    assert_eq!(messages(&calls), ["SEND_SENDER", "LINK"]);
    assert!(calls.contains(&Call::Limit("term_depth")));
    assert_eq!(violations(&calls).len(), 1);
}

fn fragment(id: u64, number: u64, first: Option<&[u8]>, part: &[u8]) -> Vec<u8> {
    let mut body = vec![0x83, if first.is_some() { b'E' } else { b'F' }];
    body.extend(id.to_be_bytes());
    body.extend(number.to_be_bytes());
    if let Some(control) = first {
        body.push(0);
        body.extend(control);
    }
    body.extend(part);
    frame(&body)
}

#[test]
fn sequences_interleave_and_each_is_walked_to_its_end() {
    let bytes = [
        fragment(1 << 40, 3, Some(SEND), b"m\0\0\0\x06ab"),
        fragment(2, 2, Some(SEND), b"m\0\0"),
        plain(LINK),
        fragment(1 << 40, 2, None, b"cd"),
        fragment(2, 1, None, b"\0\x01a"),
        fragment(1 << 40, 1, None, b"ef"),
    ]
    .concat();
    let (session, calls) = hear(&bytes);
    assert_eq!(messages(&calls), ["SEND_SENDER", "SEND_SENDER", "LINK"]);
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert_eq!(session.messages().from_initiator, 2 + 6);
}

#[test]
fn a_fragment_that_skips_one_and_a_payload_that_ends_early_are_violations() {
    let first = fragment(1, 3, Some(SEND), b"m\0\0\0\x06ab");
    let (_, calls) = hear(&[first, fragment(1, 1, None, b"ef")].concat());
    assert_eq!(violations(&calls), ["fragment out of order"]);
    let first = fragment(1, 2, Some(SEND), b"m\0\0\0\x06ab");
    let (_, calls) = hear(&[first, fragment(1, 1, None, b"ef")].concat());
    assert!(violations(&calls)[0].contains("ends too early"));
}

#[test]
fn a_million_sequences_that_never_end_take_bounded_memory() {
    let (mut session, mut recorder) = connected(NODE);
    for id in 1..20_000 {
        let bytes = fragment(id, 1000, Some(SEND), b"l\0\0\0\xffa");
        session.handle_data(&At::default(), Side::Initiator, &bytes, &mut recorder);
        recorder.calls.retain(|call| matches!(call, Call::Limit(_)));
    }
    assert!(recorder.calls.contains(&Call::Limit("open_fragments")));
    assert!(session.memory() < 2 << 20, "{}", session.memory());
}

#[test]
fn a_frame_of_any_size_takes_the_memory_of_its_head() {
    let (mut session, mut recorder) = connected(C_NODE);
    let len = 200 << 20;
    let head = [b"p\x83".as_slice(), b"h\x04a\x06a\x01a\x01w\x03rex", b"\x83m", &(len as u32).to_be_bytes()].concat();
    let mut say = |bytes: &[u8]| session.handle_data(&At::default(), Side::Acceptor, bytes, &mut recorder);
    say(&((head.len() + len) as u32).to_be_bytes());
    say(&head);
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..200 {
        say(&chunk);
    }
    say(&frame(b"p\x83h\x03a\x01a\x01a\x01"));
    assert_eq!(messages(&recorder.calls), ["REG_SEND", "LINK"]);
    assert_eq!(recorder.calls.len(), 2);
    assert!(session.memory() < 64 << 10, "{}", session.memory());
}

#[test]
fn an_endless_control_message_is_handed_on_cut_and_walked() {
    let (mut session, mut recorder) = connected(C_NODE);
    let reason = 3_000_000_u32;
    let body = [b"p\x83h\x04a\x03a\x01a\x01m".as_slice(), &reason.to_be_bytes(), &vec![0; reason as usize]].concat();
    for piece in frame(&body).chunks(1448) {
        session.handle_data(&At::default(), Side::Acceptor, piece, &mut recorder);
        assert!(session.memory() < 4 << 20);
    }
    assert_eq!(messages(&recorder.calls), ["EXIT"]);
    assert_eq!(recorder.calls.len(), 1, "{:?}", recorder.calls);
}

#[test]
fn frames_before_the_ack_do_not_hide_a_bad_cookie() {
    let (mut session, mut recorder) = (Session::from_handshake(&Limits::default()), Recorder::default());
    let mut say = |side, bytes: &[u8]| session.handle_data(&At::default(), side, bytes, &mut recorder);
    say(Side::Initiator, &[name(NODE), short(&[b"r", &[7; 20][..]].concat()), plain(LINK), vec![0; 4]].concat());
    say(Side::Acceptor, &short(b"sok"));
    say(Side::Acceptor, &challenge(NODE));
    say(Side::Initiator, &plain(LINK));
    session.handle_close(&At::default(), Some(Side::Acceptor), &mut recorder);
    assert_eq!(session.handshake().outcome, HandshakeOutcome::BadCookie);
}

#[test]
fn frames_of_an_initiator_whose_acceptor_was_not_captured_prove_the_handshake_after_its_time() {
    let (mut session, mut recorder) = (Session::from_handshake(&Limits::default()), Recorder::default());
    let at = |seconds| At { time: Timestamp::from_parts(seconds, 0), ..At::default() };
    let hello = [name(NODE), short(&[b"r", &[7; 20][..]].concat())].concat();
    session.handle_data(&at(1), Side::Initiator, &hello, &mut recorder);
    session.handle_data(&at(2), Side::Initiator, &plain(LINK), &mut recorder);
    assert_eq!(session.handshake().outcome, HandshakeOutcome::Incomplete);
    session.handle_data(&at(9), Side::Initiator, &[0; 4], &mut recorder);
    assert_eq!(session.handshake().outcome, HandshakeOutcome::Ok);
}

#[test]
fn what_is_not_the_protocol_is_foreign_and_never_read_as_frames() {
    for first in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00\x00", &[0; 64]]
    {
        let (mut session, mut recorder) = (Session::from_handshake(&Limits::default()), Recorder::default());
        session.handle_data(&At::default(), Side::Initiator, first, &mut recorder);
        session.handle_data(&At::default(), Side::Initiator, &plain(LINK).repeat(5), &mut recorder);
        session.handle_close(&At::default(), Some(Side::Acceptor), &mut recorder);
        assert_eq!(session.handshake().outcome, HandshakeOutcome::Foreign);
        assert_eq!(messages(&recorder.calls), [""; 0]);
        assert_eq!(violations(&recorder.calls), [""; 0]);
    }
}

#[test]
fn searching_costs_the_same_for_every_octet_however_small_the_pieces() {
    let (mut session, mut recorder) = (Session::mid_stream(&Limits::default()), Recorder::default());
    // beginnings that wait for 64 KiB each and are given up one after the other
    let bytes = b"\0\x01\0\0\x83F".repeat(30_000);
    for piece in bytes.chunks(1) {
        session.handle_data(&At::default(), Side::Initiator, piece, &mut recorder);
    }
    assert!(session.memory() < 512 << 10, "{}", session.memory());
    assert_eq!(messages(&recorder.calls), [""; 0]);
}
