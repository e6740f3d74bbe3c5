//! Inflating a compressed term within bounds: it has no place on a distribution channel, so looking into it is an exception.

use flate2::{Decompress, FlushDecompress, Status};

use super::tag::Tag;
use super::{Cursor, is_compressed};
use crate::wire::{Fault, Malformed, Reader};

/// How much of one message may be inflated. A stock message of this size is rare, and a stream of 1 KiB can claim it.
pub const INFLATE_CAP: usize = 1 << 20;

/// How much is inflated at a time: small enough for the stack, large enough that the calls do not count.
const CHUNK: usize = 8 << 10;

/// Inflates the compressed term whose tag ([`Tag::COMPRESSED`](super::tag::Tag::COMPRESSED)) was just read, and leaves
/// the reader behind it. The declared size reserves nothing; it is only compared with what came out, as ERTS does.
///
/// OTP, "External Term Format", section "Introduction".
///
/// # Errors
/// `Truncated` when the stream ends too early, `Impossible` when it is damaged or its size is not the declared one,
/// `TooLong` when more than `cap` octets would come out.
pub fn inflate_bounded(reader: &mut Reader<'_>, cap: usize) -> Result<Vec<u8>, Malformed> {
    let mut ahead = *reader;
    let declared = ahead.u32("uncompressed size")?;
    let what = super::tag::COMPRESSED_TERM;
    let mut stream = Decompress::new(true);
    let mut out = Vec::new();
    let mut chunk = [0; CHUNK];
    loop {
        let (taken_before, made_before) = (stream.total_in(), stream.total_out());
        let status = stream
            .decompress(ahead.rest(), &mut chunk, FlushDecompress::None)
            .map_err(|_| ahead.malformed(what, Fault::Impossible))?;
        // Both differences are bounded by the slices that were passed, so they fit.
        let taken = usize::try_from(stream.total_in() - taken_before).unwrap_or(usize::MAX);
        let made = usize::try_from(stream.total_out() - made_before).unwrap_or(usize::MAX);
        ahead.bytes(what, taken)?;
        if out.len().saturating_add(made) > cap {
            return Err(reader.malformed(what, Fault::TooLong));
        }
        out.extend_from_slice(chunk.get(..made).unwrap_or_default());
        if matches!(status, Status::StreamEnd) {
            break;
        }
        if taken == 0 && made == 0 {
            return Err(reader.malformed(what, Fault::Truncated));
        }
    }
    if u32::try_from(out.len()) != Ok(declared) {
        return Err(reader.malformed("uncompressed size", Fault::Impossible));
    }
    *reader = ahead;
    Ok(out)
}

/// The term at `cursor` as it would stand there had its compressed parts, if it has any, not been compressed: the first
/// `cap` octets of it at most. `None` where nothing in these octets is compressed.
///
/// Terms have no length in front, so what comes out takes the place of what went in. What is compressed twice stays.
#[must_use]
pub fn expand(mut cursor: Cursor<'_>, cap: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut found = false;
    while out.len() < cap && !cursor.reader.is_empty() {
        let start = cursor.reader;
        match cursor.token() {
            Ok(_) => {
                let len = start.len() - cursor.reader.len();
                out.extend_from_slice(start.rest().get(..len).unwrap_or_default());
            }
            Err(error) if is_compressed(&error) && start.peek() == Some(Tag::COMPRESSED.0) => {
                found = true;
                if !inflate_prefix(&mut cursor.reader, &mut out, cap) {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    found.then_some(out)
}

/// Appends what comes out of a compressed term until `out` has `cap` octets. Returns whether all came out; only then
/// is the reader behind the term.
fn inflate_prefix(reader: &mut Reader<'_>, out: &mut Vec<u8>, cap: usize) -> bool {
    let mut ahead = *reader;
    if ahead.u8("tag").is_err() || ahead.u32("uncompressed size").is_err() {
        return false;
    }
    let mut stream = Decompress::new(true);
    let mut chunk = [0; CHUNK];
    while out.len() < cap {
        let (taken_before, made_before) = (stream.total_in(), stream.total_out());
        let Ok(status) = stream.decompress(ahead.rest(), &mut chunk, FlushDecompress::None) else { return false };
        let taken = usize::try_from(stream.total_in() - taken_before).unwrap_or(usize::MAX);
        let made = usize::try_from(stream.total_out() - made_before).unwrap_or(usize::MAX);
        if ahead.bytes(super::tag::COMPRESSED_TERM, taken).is_err() {
            return false;
        }
        let room = cap - out.len();
        out.extend_from_slice(chunk.get(..made.min(room)).unwrap_or_default());
        if matches!(status, Status::StreamEnd) {
            *reader = ahead;
            return made <= room;
        }
        if taken == 0 && made == 0 {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// `term_to_binary(lists:duplicate(100, abc), [compressed])` of OTP 25, without the version byte and the tag.
    const HUNDRED_ATOMS: [u8; 23] = [
        0x00, 0x00, 0x02, 0x5e, 0x78, 0x9c, 0xcb, 0x61, 0x60, 0x60, 0x48, 0x49, 0x61, 0x60, 0x4e, 0x4c, 0x4a, 0x1e,
        0x25, 0x47, 0x49, 0xea, 0x92,
    ];
    const HUNDRED_ATOMS_END: [u8; 7] = [0x59, 0x00, 0x51, 0xa0, 0x9c, 0x4f, 0xff];

    fn bomb(len: usize, declared: u32) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(declared.to_be_bytes().to_vec(), flate2::Compression::best());
        encoder.write_all(&vec![b'k'; len]).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_term_comes_out_and_what_follows_it_stays() {
        let bytes = [&HUNDRED_ATOMS[..], &HUNDRED_ATOMS_END[..]].concat();
        let mut reader = Reader::new(&bytes);
        let out = inflate_bounded(&mut reader, INFLATE_CAP).unwrap();
        assert_eq!(out.len(), 606);
        assert_eq!(&out[..9], [108, 0, 0, 0, 100, 100, 0, 3, b'a']);
        assert_eq!(reader.rest(), [0xff]);
    }

    #[test]
    fn a_bomb_stops_at_the_cap_whatever_size_it_declares() {
        for declared in [0, 1000, u32::MAX] {
            let bytes = bomb(20 << 20, declared);
            let mut reader = Reader::new(&bytes);
            assert_eq!(inflate_bounded(&mut reader, INFLATE_CAP).unwrap_err().fault, Fault::TooLong);
            assert_eq!(reader.rest(), &bytes[..], "a failed read consumes nothing");
        }
    }

    #[test]
    fn a_stream_that_is_cut_damaged_or_of_another_size_is_refused_as_that() {
        let bytes = bomb(5000, 5000);
        let fault = |bytes: &[u8]| inflate_bounded(&mut Reader::new(bytes), INFLATE_CAP).unwrap_err().fault;
        assert_eq!(fault(&bytes[..3]), Fault::Truncated);
        assert_eq!(fault(&bytes[..bytes.len() - 5]), Fault::Truncated);
        let mut damaged = bytes.clone();
        damaged[4] ^= 0xff;
        assert_eq!(fault(&damaged), Fault::Impossible);
        assert_eq!(fault(&bomb(5000, 4999)), Fault::Impossible);
        assert_eq!(inflate_bounded(&mut Reader::new(&bytes), 5000).unwrap().len(), 5000, "the cap itself is allowed");
    }

    #[test]
    fn what_is_compressed_inside_a_term_takes_its_place_and_a_bomb_fills_the_cap_and_no_more() {
        let compressed = [&[80], &HUNDRED_ATOMS[..], &HUNDRED_ATOMS_END[..6]].concat();
        let term = [&[104, 3, 97, 1][..], &compressed, &[97, 2]].concat();
        let out = expand(Cursor::new(Reader::new(&term), &[]), 8192).unwrap();
        assert_eq!(out.len(), 4 + 606 + 2);
        assert_eq!((&out[..9], &out[610..]), (&[104, 3, 97, 1, 108, 0, 0, 0, 100][..], &[97, 2][..]));
        assert_eq!(expand(Cursor::new(Reader::new(&[104, 1, 97, 1]), &[]), 8192), None);

        let bomb = [&[80][..], &bomb(20 << 20, 7)].concat();
        assert_eq!(expand(Cursor::new(Reader::new(&bomb), &[]), 8192).map(|out| out.len()), Some(8192));
        for end in 0..term.len() {
            let _ = expand(Cursor::cut(Reader::new(&term[..end]), &[]), 64);
        }
    }
}
