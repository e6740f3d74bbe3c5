//! One EPMD connection, in any pieces, with gaps.
#![no_main]

use distwatch_engine::epmd::{Exchange, looks_like_request};
use distwatch_engine::packet::At;
use distwatch_fuzz::deliveries;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let at = At::default();
    let mut exchange = Exchange::new();
    for piece in deliveries(input) {
        _ = looks_like_request(piece.data);
        if let Some(gap) = piece.gap {
            exchange.handle_gap(&at, piece.side, gap);
        }
        exchange.handle_data(&at, piece.side, piece.data);
        assert!(exchange.memory() <= 1 << 20);
        while exchange.poll().is_some() {}
    }
    exchange.handle_close(&at, None);
    while exchange.poll().is_some() {}
});
