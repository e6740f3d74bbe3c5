//! Terms: the cursor, the walker in any pieces and the printer agree, and end.
#![no_main]

use distwatch_engine::etf::print::{self, Detail};
use distwatch_engine::etf::{Atom, Cursor, Walker};
use distwatch_engine::wire::Reader;
use libfuzzer_sys::fuzz_target;

const DEPTH: usize = 256;

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let atoms = [Atom::utf8(b"rex"), Atom { slot: Some(7), ..Atom::default() }];
    let mut skipping = Cursor::new(Reader::new(bytes), &atoms);
    let skipped = skipping.skip(DEPTH);
    let consumed = bytes.len() - skipping.reader.len();

    let mut whole = Walker::new(DEPTH, atoms.len());
    let walked = whole.feed(bytes);
    let mut parts = Walker::new(DEPTH, atoms.len());
    let mut sum = 0;
    let mut in_parts = Ok(false);
    for part in bytes.chunks(usize::from(cut) + 1) {
        match parts.feed(part) {
            Ok(step) => {
                sum += step.consumed;
                in_parts = Ok(step.complete);
                if step.complete {
                    break;
                }
            }
            Err(error) => {
                in_parts = Err(error);
                break;
            }
        }
    }
    match (walked, in_parts) {
        (Ok(step), Ok(complete)) if !bytes.is_empty() => {
            assert_eq!((step.complete, step.consumed), (complete, sum));
        }
        (walked, in_parts) if !bytes.is_empty() => assert_eq!(walked.err(), in_parts.err()),
        _ => {}
    }
    if skipped.is_ok() {
        let step = walked.expect("what is skipped can be walked");
        assert!(step.complete);
        assert_eq!(step.consumed, consumed);
    }
    assert!(print::render(Cursor::cut(Reader::new(bytes), &atoms), Detail::Full, 512).len() <= 1024);
    assert!(print::render(Cursor::cut(Reader::new(bytes), &atoms), Detail::Types, 512).len() <= 1024);
});
