//! Inflating a compressed term within bounds: it has no place on a distribution channel, so looking into it is an exception.

use flate2::{Decompress, FlushDecompress, Status};

use super::tag::Tag;
use super::{Cursor, is_compressed};
use crate::wire::Reader;

/// How much is inflated at a time: small enough for the stack, large enough that the calls do not count.
const CHUNK: usize = 8 << 10;

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
