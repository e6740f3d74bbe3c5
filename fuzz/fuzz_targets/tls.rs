//! One TLS connection, in any pieces, with gaps.
#![no_main]

use distwatch_engine::packet::At;
use distwatch_engine::tls::Session;
use distwatch_fuzz::deliveries;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&mid_stream, rest)) = input.split_first() else { return };
    let at = At::default();
    let mut session = Session::new(mid_stream & 1 == 1);
    for piece in deliveries(rest) {
        if let Some(gap) = piece.gap {
            session.handle_gap(&at, piece.side, gap);
        }
        session.handle_data(&at, piece.side, piece.data);
        assert!(session.memory() <= 1 << 20);
    }
    session.handle_close(&at, None);
    _ = session.facts();
});
