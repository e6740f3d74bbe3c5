//! Distribution sessions over captures of real nodes.

#[path = "support/captures.rs"]
mod captures;
#[path = "support/recorder.rs"]
mod recorder;

use std::collections::HashSet;

use captures::Flow;
use distwatch_engine::dist::{DistFlags, Session, Status, looks_like_frames, looks_like_send_name};
use distwatch_engine::limits::Limits;
use distwatch_engine::model::{Confidence, HandshakeOutcome};
use distwatch_engine::packet::{At, Side};
use distwatch_engine::wire::Match;
use proptest::prelude::*;
use recorder::{Call, Read, Recorder};

fn run(flow: &Flow) -> (Session, Recorder) {
    let limits = Limits::default();
    let mut session = if flow.syn { Session::from_handshake(&limits) } else { Session::mid_stream(&limits) };
    let mut recorder = Recorder::default();
    for (at, side, data) in &flow.data {
        session.handle_data(at, *side, data, &mut recorder);
    }
    session.handle_close(&flow.last, flow.closed_by, &mut recorder);
    (session, recorder)
}

/// The connections of a capture that are distribution, by what the product itself says of their first octets.
fn links(name: &str) -> Vec<Flow> {
    let Some(flows) = captures::flows(name) else { return Vec::new() };
    let links: Vec<Flow> = flows
        .into_iter()
        .filter(|flow| {
            let first = flow.stream(Side::Initiator);
            if flow.syn { looks_like_send_name(&first) == Match::Yes } else { looks_like_frames(&first) == Match::Yes }
        })
        .collect();
    assert!(!links.is_empty(), "{name}");
    links
}

/// What the nodes themselves counted: local and remote endpoint, messages and octets sent.
fn sent(name: &str) -> Vec<(String, String, u64, u64)> {
    let truth = captures::path(&name.replace(".pcap", ".truth.json")).unwrap();
    let truth: serde_json::Value = serde_json::from_slice(&std::fs::read(truth).unwrap()).unwrap();
    let nodes = truth["sockets_at_end"].as_array().into_iter().flatten();
    let sockets = nodes.flat_map(|node| node["tcp"].as_array().unwrap());
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    sockets
        .map(|socket| {
            let count = |key: &str| socket[key].as_u64().unwrap();
            (text(&socket["local"]), text(&socket["remote"]), count("send_cnt"), count("send_oct"))
        })
        .collect()
}

/// Messages in the first octets of a side: the nodes are asked before the capture ends.
fn messages_in(flow: &Flow, side: Side, octets: usize) -> u64 {
    let mut session = Session::from_handshake(&Limits::default());
    let stream = flow.stream(side);
    assert!(stream.len() >= octets);
    session.handle_data(&flow.last, side, &stream[..octets], &mut Recorder::default());
    let messages = session.messages();
    if side == Side::Initiator { messages.from_initiator } else { messages.from_acceptor }
}

#[test]
fn every_frame_of_real_applications_reads_and_the_counts_are_those_of_the_nodes() {
    let mut compared = 0;
    for name in [
        "apps-otp23.pcap",
        "apps-otp25.pcap",
        "apps-otp27.pcap",
        "apps-otp25-to-23.pcap",
        "apps-otp27-to-25.pcap",
        "terms-otp25.pcap",
        "ticks-otp25.pcap",
        "atom-cache-otp25.pcap",
        "big-messages-otp25.pcap",
        "big-5mb-otp25.pcap",
        "dynamic-name-otp25.pcap",
        "dynamic-name-otp27-to-25.pcap",
        "hidden-otp25.pcap",
        "remsh-otp23.pcap",
        "remsh-otp25.pcap",
        "remsh-otp27.pcap",
        "iex-remsh-otp25.pcap",
        "iex-remsh-otp27.pcap",
    ] {
        if captures::path(name).is_none() {
            return;
        }
        for flow in links(name) {
            let (session, recorder) = run(&flow);
            assert_eq!(recorder.problems(), Vec::<&Call>::new(), "{name}");
            assert_eq!(session.handshake().outcome, HandshakeOutcome::Ok, "{name}");
            let end = |(ip, port): &(String, u16)| format!("{ip}:{port}");
            for (side, local, remote) in
                [(Side::Initiator, &flow.initiator, &flow.acceptor), (Side::Acceptor, &flow.acceptor, &flow.initiator)]
            {
                let (local, remote) = (end(local), end(remote));
                let counted = sent(name).into_iter().find(|row| (&row.0, &row.1) == (&local, &remote));
                if let Some((_, _, count, octets)) = counted {
                    assert_eq!(messages_in(&flow, side, octets as usize), count, "{name} {side:?}");
                    compared += 1;
                }
            }
            assert!(recorder.messages().all(|read| !read.control.iter().any(|part| part.starts_with('?'))), "{name}");
        }
    }
    assert!(compared >= 20, "only {compared} directions could be compared");
}

#[test]
fn remote_calls_are_read_with_module_and_function() {
    for name in ["apps-otp23.pcap", "apps-otp25.pcap", "apps-otp27.pcap"] {
        if captures::path(name).is_none() {
            return;
        }
        let read: Vec<Read> =
            links(name).iter().flat_map(|flow| run(flow).1.messages().cloned().collect::<Vec<_>>()).collect();
        let spawns = read.iter().filter(|read| read.name == "SPAWN_REQUEST");
        let calls: HashSet<String> = spawns
            .filter(|read| read.control.iter().any(|part| part == "execute_call"))
            .map(|read| read.payload.as_ref().unwrap()[2..4].join(":"))
            .collect();
        assert!(calls.contains("os:cmd"), "{name}: {calls:?}");
    }
}

#[test]
fn outcomes_are_those_that_the_nodes_reported() {
    for (name, outcome, status) in [
        ("cookie-wrong-otp25.pcap", HandshakeOutcome::BadCookie, Status::Ok),
        ("refused-otp23-to-27.pcap", HandshakeOutcome::NotAllowed, Status::NotAllowed),
        ("refused-otp27-to-23.pcap", HandshakeOutcome::FlagsRefused, Status::Ok),
        ("dynamic-name-otp25.pcap", HandshakeOutcome::Ok, Status::Named),
        ("cookie-monster-otp27.pcap", HandshakeOutcome::Ok, Status::Ok),
    ] {
        if captures::path(name).is_none() {
            return;
        }
        for flow in links(name) {
            let (session, recorder) = run(&flow);
            let facts = session.handshake();
            assert_eq!((facts.outcome, facts.status), (outcome, Some(status)), "{name}");
            assert_eq!(recorder.problems(), Vec::<&Call>::new(), "{name}");
            assert_eq!(facts.proof(Side::Acceptor).is_some(), outcome == HandshakeOutcome::Ok, "{name}");
        }
    }
}

#[test]
fn a_dynamic_node_goes_by_the_name_that_it_was_given() {
    for flow in links("dynamic-name-otp25.pcap") {
        let (session, _) = run(&flow);
        let facts = session.handshake();
        assert_eq!(facts.node(Side::Initiator), Some("F79064XOSHD6@host-a"));
        assert_eq!(facts.node(Side::Acceptor), Some("db@host-b"));
        assert!(facts.dynamic_name);
    }
}

#[test]
fn of_two_simultaneous_attempts_one_ends_as_nok_and_one_is_connected() {
    let mut outcomes: Vec<HandshakeOutcome> = Vec::new();
    for flow in links("simultaneous-otp25.pcap") {
        outcomes.push(run(&flow).0.handshake().outcome);
    }
    if !outcomes.is_empty() {
        let count = |outcome| outcomes.iter().filter(|&&other| other == outcome).count();
        assert!(count(HandshakeOutcome::Ok) >= 12, "{outcomes:?}");
        assert_eq!(count(HandshakeOutcome::Ok) + count(HandshakeOutcome::Nok), outcomes.len(), "{outcomes:?}");
    }
}

#[test]
fn a_c_node_passes_its_messages_through_and_its_words_tell_it() {
    let mut outcomes = Vec::new();
    for flow in links("erl-call-otp25.pcap") {
        let (session, recorder) = run(&flow);
        assert_eq!(recorder.problems(), Vec::<&Call>::new());
        let facts = session.handshake();
        outcomes.push(facts.outcome);
        assert_eq!(facts.initiator.flags.map(|flags| flags.release().implementation.name()), Some("erl_interface"));
        if facts.outcome == HandshakeOutcome::Ok {
            assert!(!session.negotiated().is_some_and(DistFlags::distribution_header));
            let to_rex = |read: &Read| read.name == "REG_SEND" && read.control.contains(&"rex".to_owned());
            assert!(recorder.messages().any(to_rex));
        }
    }
    if !outcomes.is_empty() {
        assert_eq!(
            outcomes.iter().filter(|&&outcome| outcome == HandshakeOutcome::BadCookie).count(),
            1,
            "{outcomes:?}"
        );
        assert!(outcomes.iter().filter(|&&outcome| outcome == HandshakeOutcome::Ok).count() >= 2, "{outcomes:?}");
    }
}

#[test]
fn a_command_whose_atoms_were_sent_before_the_capture_is_inferred() {
    for flow in links("midstream-otp25.pcap") {
        let (session, recorder) = run(&flow);
        assert_eq!(recorder.problems(), Vec::<&Call>::new());
        assert_eq!(session.handshake().outcome, HandshakeOutcome::Unseen);
        assert_eq!(session.messages().from_initiator, flow_frames(&flow, Side::Initiator));
        let guess = session.build_guess(Side::Initiator).unwrap();
        assert_eq!((guess.build, guess.otp), ("25.2.3", 25));
        assert_ne!(guess.confidence, Confidence::Certain);
        let call = recorder.messages().find(|read| read.control.iter().any(|part| part == "~execute_call")).unwrap();
        assert!(call.control.contains(&"~erpc".to_owned()), "{call:?}");
        assert_eq!(call.payload.as_ref().unwrap()[2..4], ["~os", "~cmd"], "{call:?}");
        assert!(
            recorder.messages().all(|read| read.side == Side::Acceptor || !read.control[0].contains("inferred: true"))
        );
    }
}

/// Frames of a stream that begins with one, counted by their lengths alone.
fn flow_frames(flow: &Flow, side: Side) -> u64 {
    let stream = flow.stream(side);
    let (mut rest, mut count) = (&stream[..], 0);
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        rest = after.get(u32::from_be_bytes(*length) as usize..).unwrap_or_default();
        count += 1;
    }
    count
}

#[test]
fn each_direction_alone_gives_its_half() {
    for flow in links("apps-otp25.pcap") {
        for side in Side::BOTH {
            let half = Flow {
                data: flow.data.iter().filter(|part| part.1 == side).cloned().collect(),
                initiator: flow.initiator.clone(),
                acceptor: flow.acceptor.clone(),
                ..flow
            };
            let (session, recorder) = run(&half);
            assert_eq!(recorder.problems(), Vec::<&Call>::new(), "{side:?}");
            assert_eq!(session.handshake().outcome, HandshakeOutcome::Ok, "{side:?}");
            assert!(session.handshake().node(side).is_some());
            assert!(recorder.messages().count() > 50);
        }
    }
}

#[test]
fn builds_are_told_by_their_atoms() {
    for (name, build) in [("apps-otp23.pcap", "23.2.6"), ("apps-otp25.pcap", "25.2.3"), ("apps-otp27.pcap", "27.3.4.1")]
    {
        if captures::path(name).is_none() {
            return;
        }
        for flow in links(name) {
            let (session, _) = run(&flow);
            for side in Side::BOTH {
                let guess = session.build_guess(side).map(|guess| (guess.build, guess.confidence));
                assert_eq!(guess, Some((build, Confidence::Likely)), "{name} {side:?}");
            }
        }
    }
}

#[test]
fn nothing_but_distribution_looks_like_it() {
    let (mut distribution, mut others) = (0, 0);
    for name in [
        "noise-otp25.pcap",
        "garbage-on-dist-ports-otp25.pcap",
        "tls13-mutual-otp25.pcap",
        "tls12-mutual-otp25.pcap",
        "epmd-queries-otp25.pcap",
        "apps-otp25.pcap",
        "big-messages-otp25.pcap",
        "midstream-otp25.pcap",
    ] {
        let Some(flows) = captures::flows(name) else { return };
        for flow in flows {
            let streams = Side::BOTH.map(|side| flow.stream(side));
            let named = looks_like_send_name(&streams[0]) == Match::Yes;
            if named || name.starts_with("midstream") {
                distribution += 1;
                // from the middle of either stream on
                let middles = streams.each_ref().map(|stream| &stream[stream.len() / 3..]);
                assert!(
                    middles.iter().all(|bytes| bytes.len() < 500 || looks_like_frames(bytes) == Match::Yes),
                    "{name}"
                );
                continue;
            }
            for stream in streams {
                others += 1;
                for start in (0..stream.len()).step_by(61) {
                    assert_ne!(looks_like_frames(&stream[start..]), Match::Yes, "{name} {:?}", flow.acceptor);
                }
            }
        }
    }
    assert!(distribution >= 4 && others > 50, "{distribution} {others}");
}

/// All octets of a flow as turns of one side each.
fn turns(flow: &Flow) -> Vec<(At, Side, Vec<u8>)> {
    let mut turns: Vec<(At, Side, Vec<u8>)> = Vec::new();
    for (at, side, data) in &flow.data {
        match turns.last_mut() {
            Some(last) if last.1 == *side => last.2.extend(data),
            _ => turns.push((*at, *side, data.clone())),
        }
    }
    turns
}

fn split_run(flow: &Flow, mid_stream: bool, sizes: &[usize]) -> Recorder {
    let limits = Limits::default();
    let mut session = if mid_stream { Session::mid_stream(&limits) } else { Session::from_handshake(&limits) };
    let mut recorder = Recorder::default();
    let mut sizes = sizes.iter().cycle();
    for (at, side, data) in turns(flow) {
        let mut rest = &data[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            session.handle_data(&at, side, piece, &mut recorder);
            rest = after;
        }
    }
    session.handle_close(&flow.last, flow.closed_by, &mut recorder);
    recorder
}

#[test]
fn octet_by_octet_gives_the_same_as_all_at_once() {
    for name in [
        "apps-otp25.pcap",
        "erl-call-otp25.pcap",
        "midstream-otp25.pcap",
        "big-messages-otp25.pcap",
        "dynamic-name-otp25.pcap",
    ] {
        if captures::path(name).is_none() {
            return;
        }
        for flow in links(name) {
            let whole = split_run(&flow, !flow.syn, &[usize::MAX]);
            for size in [1, 7, 1448] {
                let split = split_run(&flow, !flow.syn, &[size]);
                assert!(whole.calls == split.calls, "{name} in pieces of {size}");
            }
        }
    }
}

/// Takes octets `from..from + len` of one side away and tells the session so.
fn run_with_gap(flow: &Flow, side: Side, from: usize, len: usize, piece: usize) -> (Session, Recorder) {
    let mut session = Session::from_handshake(&Limits::default());
    let mut recorder = Recorder::default();
    let mut place = 0;
    for (at, other, data) in turns(flow) {
        for piece in data.chunks(piece) {
            if other != side {
                session.handle_data(&at, other, piece, &mut recorder);
                continue;
            }
            let before = from.saturating_sub(place).min(piece.len());
            let after = (from + len).saturating_sub(place).min(piece.len()).max(before);
            if before > 0 {
                session.handle_data(&at, other, &piece[..before], &mut recorder);
            }
            if after > before {
                session.handle_gap(&at, other, (after - before) as u64, &mut recorder);
            }
            if after < piece.len() {
                session.handle_data(&at, other, &piece[after..], &mut recorder);
            }
            place += piece.len();
        }
    }
    session.handle_close(&flow.last, flow.closed_by, &mut recorder);
    (session, recorder)
}

/// The same message, where what became unknown by a gap is unknown or inferred.
fn same(original: &Read, seen: &Read) -> bool {
    let part = |a: &Vec<String>, b: &Vec<String>| {
        a.len() == b.len()
            && a.iter().zip(b).all(|(a, b)| {
                a == b || b.starts_with('?') || b.strip_prefix('~') == Some(a) || b.contains("text: None")
            })
    };
    original.side == seen.side
        && original.name == seen.name
        && original.frame_len == seen.frame_len
        && part(&original.control, &seen.control)
        && match (&original.payload, &seen.payload) {
            (Some(a), Some(b)) => part(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
}

fn check_gap(flow: &Flow, original: &[Read], side: Side, from: usize, len: usize, piece: usize) {
    let (session, recorder) = run_with_gap(flow, side, from, len, piece);
    let mut rest = original.iter().filter(|read| read.side == side);
    let mut count = 0;
    for seen in recorder.messages().filter(|read| read.side == side) {
        assert!(rest.any(|read| same(read, seen)), "not among the original messages, in this order: {seen:?}");
        count += 1;
    }
    let all = original.iter().filter(|read| read.side == side).count();
    let total = flow.stream(side).len();
    assert!(count <= all);
    if from + len + 2000 < total {
        assert!(count > 0, "nothing was read after the gap");
    }
    let violations: Vec<_> = recorder.calls.iter().filter(|call| matches!(call, Call::Violation(..))).collect();
    assert!(violations.is_empty(), "loss is nobody's violation: {violations:?}");
    assert!(session.memory() < 1 << 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_split_gives_the_same_calls(sizes in prop::collection::vec(1_usize..5000, 1..20)) {
        for name in ["apps-otp27.pcap", "big-messages-otp25.pcap"] {
            for flow in if captures::path(name).is_some() { links(name) } else { Vec::new() } {
                let whole = split_run(&flow, false, &[usize::MAX]);
                let split = split_run(&flow, false, &sizes);
                prop_assert!(whole.calls == split.calls);
            }
        }
    }

    #[test]
    fn no_gap_makes_a_false_message(
        from in 0.0_f64..1.0, len in 1_usize..20_000, piece in 1_usize..3000, initiator in any::<bool>()
    ) {
        let side = if initiator { Side::Initiator } else { Side::Acceptor };
        for name in ["apps-otp25.pcap", "atom-cache-otp25.pcap", "big-messages-otp25.pcap"] {
            for flow in if captures::path(name).is_some() { links(name) } else { Vec::new() } {
                let original: Vec<Read> = run(&flow).1.messages().cloned().collect();
                let total = flow.stream(side).len();
                check_gap(&flow, &original, side, (from * total as f64) as usize, len.min(total / 2), piece);
            }
        }
    }

    #[test]
    fn arbitrary_octets_do_no_harm(
        parts in prop::collection::vec((any::<bool>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..300)), 1..40),
        mid_stream in any::<bool>()
    ) {
        let limits = Limits::default();
        let mut session = if mid_stream { Session::mid_stream(&limits) } else { Session::from_handshake(&limits) };
        let mut recorder = Recorder::default();
        for (initiator, gap, data) in parts {
            let side = if initiator { Side::Initiator } else { Side::Acceptor };
            if gap {
                session.handle_gap(&At::default(), side, data.len() as u64, &mut recorder);
            } else {
                session.handle_data(&At::default(), side, &data, &mut recorder);
            }
            prop_assert!(session.memory() < 8 << 20);
        }
        session.handle_close(&At::default(), None, &mut recorder);
    }

    #[test]
    fn changed_octets_of_a_real_stream_do_no_harm(changes in prop::collection::vec((0.0_f64..1.0, any::<u8>()), 1..12)) {
        for flow in if captures::path("apps-otp25.pcap").is_some() { links("apps-otp25.pcap") } else { Vec::new() } {
            let mut session = Session::from_handshake(&Limits::default());
            let mut recorder = Recorder::default();
            let total: usize = flow.data.iter().map(|part| part.2.len()).sum();
            let mut start = 0;
            for (at, side, data) in &flow.data {
                let mut data = data.clone();
                for (place, value) in &changes {
                    let place = (place * total as f64) as usize;
                    if (start..start + data.len()).contains(&place) {
                        data[place - start] = *value;
                    }
                }
                start += data.len();
                session.handle_data(at, *side, &data, &mut recorder);
            }
            session.handle_close(&flow.last, flow.closed_by, &mut recorder);
            prop_assert!(session.memory() < 1 << 20);
        }
    }
}
