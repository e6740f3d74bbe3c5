//! The connected state: frames of both directions from somewhere in the middle, in any pieces, with gaps; what comes out
//! does not depend on the pieces where nothing is missing.
#![no_main]

use distwatch_engine::dist::{Session, looks_like_frames};
use distwatch_engine::limits::Limits;
use distwatch_engine::packet::At;
use distwatch_fuzz::{Counting, deliveries};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let at = At::default();
    let limits = Limits::default();
    let pieces = deliveries(input);
    let mut out = Counting::default();
    let mut session = Session::mid_stream(&limits);
    for piece in &pieces {
        _ = looks_like_frames(piece.data);
        if let Some(gap) = piece.gap {
            session.handle_gap(&at, piece.side, gap, &mut out);
        }
        session.handle_data(&at, piece.side, piece.data, &mut out);
        assert!(session.memory() <= 8 << 20);
    }
    session.handle_close(&at, None, &mut out);

    if pieces.iter().all(|piece| piece.gap.is_none()) {
        let mut in_octets = Counting::default();
        let mut session = Session::mid_stream(&limits);
        for piece in &pieces {
            for octet in piece.data {
                session.handle_data(&at, piece.side, std::slice::from_ref(octet), &mut in_octets);
            }
        }
        session.handle_close(&at, None, &mut in_octets);
        assert_eq!(out.messages, in_octets.messages);
        assert_eq!(out.ticks, in_octets.ticks);
    }
});
