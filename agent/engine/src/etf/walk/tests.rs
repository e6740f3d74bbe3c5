//! The walker over whole terms, pieces and hostile claims.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::etf::vectors::{self, ATOMS, hex};
use crate::etf::{Atom, Cursor};

/// Feeds the pieces until the term ends: the octets consumed, whether it is complete, the terms.
fn walk<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<(usize, bool, u64), Malformed> {
    let mut walker = Walker::new(64, ATOMS);
    let mut consumed = 0;
    for piece in pieces {
        let walked = walker.feed(piece)?;
        consumed += walked.consumed;
        if walked.complete {
            assert_eq!(walker.finish(), Ok(()));
            return Ok((consumed, true, walker.terms()));
        }
        assert_eq!(walked.consumed, piece.len());
    }
    assert_eq!(walker.finish().unwrap_err().fault, Fault::Truncated);
    Ok((consumed, false, walker.terms()))
}

#[test]
fn every_vector_is_walked_octet_by_octet_to_its_end() {
    for (term, octets) in vectors::OTP25.iter().chain(vectors::OTHERS) {
        let bytes = hex(octets);
        let (consumed, complete, terms) = walk(bytes.chunks(1)).unwrap_or_else(|error| panic!("{term}: {error}"));
        assert_eq!((consumed, complete), (bytes.len(), true), "{term}");
        assert_eq!(walk(std::iter::once(&bytes[..])), Ok((consumed, complete, terms)), "{term}");
    }
}

#[test]
fn terms_are_counted_with_their_elements_and_tails() {
    let terms = |octets: &str| walk(std::iter::once(&hex(octets)[..])).unwrap().2;
    assert_eq!(terms("6a"), 1);
    assert_eq!(terms("6c0000000264000161640001626a"), 4);
    assert_eq!(terms("7400000002640001616101640001626a"), 5);
    assert_eq!(terms("5864000d6e6f6e6f6465406e6f686f7374000000090000000000000000"), 1);
}

#[test]
fn what_follows_the_term_is_left_to_the_caller() {
    let mut walker = Walker::new(8, 0);
    assert_eq!(walker.feed(&[104]), Ok(Walked { consumed: 1, complete: false }));
    assert_eq!(walker.feed(&[1, 106, 9, 9]), Ok(Walked { consumed: 2, complete: true }));
    assert_eq!(walker.feed(&[9, 9]), Ok(Walked { consumed: 0, complete: true }));
    walker.reset(0);
    assert_eq!(walker.feed(&[106]), Ok(Walked { consumed: 1, complete: true }));
}

#[test]
fn a_refused_term_stays_refused_and_the_offset_is_that_of_its_item() {
    let mut walker = Walker::new(8, 0);
    walker.feed(&[104, 2, 106, 82]).unwrap();
    let refused = Malformed { what: "atom cache reference", offset: 3, fault: Fault::Impossible };
    assert_eq!(walker.feed(&[0]), Err(refused));
    assert_eq!(walker.feed(&[106]), Err(refused));
    assert_eq!(walker.finish(), Err(refused));
}

#[test]
fn a_binary_of_many_pieces_is_passed_over_without_being_kept() {
    let mut walker = Walker::new(8, 0);
    walker.feed(&[109, 0x7f, 0xff, 0xff, 0xff]).unwrap();
    let piece = vec![0; 1 << 20];
    for _ in 0..2047 {
        assert_eq!(walker.feed(&piece), Ok(Walked { consumed: 1 << 20, complete: false }));
    }
    assert_eq!(walker.feed(&piece), Ok(Walked { consumed: (1 << 20) - 1, complete: true }));
}

#[test]
fn hostile_terms_are_refused_in_no_time_and_no_memory() {
    let nested = |tag: &[u8]| tag.repeat(1_000_000 / tag.len());
    for (term, expected) in [
        (nested(&[108, 0, 0, 0, 1]), Fault::TooDeep),
        (nested(&[104, 1]), Fault::TooDeep),
        (nested(&[116, 0, 0, 0, 1]), Fault::TooDeep),
        (nested(&[116, 0, 0, 0, 1, 106]), Fault::TooDeep),
        (hex("6cffffffff"), Fault::TooLong),
        (hex("69ffffffff"), Fault::Truncated),
        (hex("6fffffffff00"), Fault::TooLong),
        (hex("50 1dcd6500 789c"), Fault::UnknownTag(80)),
    ] {
        let mut walker = Walker::new(256, 0);
        let mut quickest = Duration::MAX;
        let (mut fault, mut skipped) = (None, None);
        // Others use the machine too, so the quickest of several tries counts.
        for _ in 0..20 {
            walker.reset(0);
            let start = Instant::now();
            fault = walker.feed(&term).and_then(|_| walker.finish()).err().map(|error| error.fault);
            skipped = Cursor::new(Reader::new(&term), &[]).skip(256).err().map(|error| error.fault);
            quickest = quickest.min(start.elapsed());
        }
        assert!(quickest < Duration::from_micros(100), "{quickest:?}");
        assert_eq!(fault, Some(expected));
        assert!(skipped == Some(expected) || skipped == Some(Fault::TooLong), "{skipped:?}");
        assert!(walker.levels.capacity() <= 256);
    }
}

/// Pieces of the given lengths, over and over, until the bytes end.
fn pieces<'a>(bytes: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    lengths.iter().cycle().map_while(move |&len| {
        let (piece, later) = rest.split_at(len.min(rest.len()));
        rest = later;
        (!piece.is_empty()).then_some(piece)
    })
}

proptest! {
    #[test]
    fn any_split_gives_the_verdict_of_the_whole(
        mut term in vectors::term(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        lengths in prop::collection::vec(1_usize..40, 1..12),
    ) {
        for (at, value) in flips {
            let at = at.index(term.len());
            term[at] = value;
        }
        let whole = walk(std::iter::once(&term[..]));
        prop_assert_eq!(walk(pieces(&term, &lengths)), whole);
        prop_assert_eq!(walk(term.chunks(1)), whole);

        let atoms = [Atom::utf8(b"x"); ATOMS];
        let mut cut = Cursor::cut(Reader::new(&term), &atoms);
        let mut complete = Cursor::new(Reader::new(&term), &atoms);
        match (cut.skip(64), whole) {
            (Ok(()), Ok((consumed, true, _))) => prop_assert_eq!(consumed, cut.reader.offset()),
            (Err(error), Ok((_, false, _))) => prop_assert_eq!(error.fault, Fault::Truncated),
            (Err(skipped), Err(walked)) => prop_assert_eq!(skipped, walked),
            (skipped, whole) => prop_assert!(false, "{:?} and {:?}", skipped, whole),
        }
        prop_assert_eq!(complete.skip(64).is_ok(), matches!(whole, Ok((_, true, _))));
    }

    #[test]
    fn arbitrary_bytes_have_one_verdict_too(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 97_u8..=119, 0_u8..4], 0..120),
        lengths in prop::collection::vec(1_usize..9, 1..6),
    ) {
        prop_assert_eq!(walk(pieces(&bytes, &lengths)), walk(std::iter::once(&bytes[..])));
    }
}
