//! A connection from its handshake on: both directions, in any pieces, with gaps, closed by either side.
#![no_main]

use distwatch_engine::dist::{Session, looks_like_send_name, looks_like_status};
use distwatch_engine::limits::Limits;
use distwatch_engine::packet::{At, Side};
use distwatch_fuzz::{Counting, deliveries};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&closed_by, rest)) = input.split_first() else { return };
    let at = At::default();
    let mut out = Counting::default();
    let mut session = Session::from_handshake(&Limits::default());
    for piece in deliveries(rest) {
        _ = looks_like_send_name(piece.data);
        _ = looks_like_status(piece.data);
        if let Some(gap) = piece.gap {
            session.handle_gap(&at, piece.side, gap, &mut out);
        }
        session.handle_data(&at, piece.side, piece.data, &mut out);
    }
    let side = [None, Some(Side::Initiator), Some(Side::Acceptor)][usize::from(closed_by) % 3];
    session.handle_close(&at, side, &mut out);
    assert!(session.memory() <= 8 << 20);
    _ = session.handshake();
});
