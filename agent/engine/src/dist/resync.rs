//! Where frames begin in octets whose beginning is not known: after a gap, or where a capture starts in the middle.
//!
//! A frame is `u32 length` and then `83 44`, `83 45`, `83 46` (distribution header, first fragment, further fragment) or
//! `70 83 68` (passed through). One such place proves nothing, for frames may lie inside a binary; a place counts
//! once the octets after that very length begin the next frame, or are a tick.

/// The longest frame that is taken for a beginning: a node's fragments have 64 KiB and their header, and random octets
/// with larger lengths would make the search wait for octets that never come.
pub(super) const MAX_LENGTH: usize = 80 << 10;

/// The shortest body: `83 44 00`, a one-tuple and its number.
const MIN_LENGTH: usize = 7;

/// Whether a frame begins at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    /// One of this length.
    Yes(usize),
    /// None.
    No,
    /// More octets will tell.
    NeedMore,
}

/// Octets that show a beginning: length and the first three of the body.
const START: usize = 7;

/// Which framing the connection uses; a connection has one for life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Framing {
    /// Not known.
    #[default]
    Any,
    /// Distribution headers.
    Header,
    /// Passed through.
    PassThrough,
}

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A frame begins here.
    At(usize),
    /// Nothing before `from`; what is there will be clear with `need` octets from there on.
    Pending {
        /// The first octet that must be kept.
        from: usize,
        /// Octets, from there, with which to look again.
        need: usize,
    },
}

/// The body's length, if a frame can begin with these octets.
fn start(bytes: &[u8], framing: Framing) -> Begins {
    let Some(length) = bytes.first_chunk::<4>() else {
        return Begins::NeedMore;
    };
    let length = u32::from_be_bytes(*length) as usize;
    if !(MIN_LENGTH..=MAX_LENGTH).contains(&length) {
        return Begins::No;
    }
    let header = framing != Framing::PassThrough;
    let pass_through = framing != Framing::Header;
    match (bytes.get(4), bytes.get(5), bytes.get(6)) {
        (Some(0x83), Some(0x44), _) if header => Begins::Yes(length),
        // sequence and fragment number
        (Some(0x83), Some(0x45 | 0x46), _) if header && length >= 18 => Begins::Yes(length),
        (Some(0x70), Some(0x83), Some(0x68 | 0x69)) if pass_through => Begins::Yes(length),
        (Some(0x83), None, _) if header => Begins::NeedMore,
        (Some(0x70), None | Some(0x83), None) if pass_through => Begins::NeedMore,
        (None, ..) => Begins::NeedMore,
        _ => Begins::No,
    }
}

/// Whether a frame begins at the first octet, by its own start and the next one's.
pub(super) fn confirmed(bytes: &[u8], framing: Framing) -> Begins {
    let length = match start(bytes, framing) {
        Begins::Yes(length) => length,
        other => return other,
    };
    let Some(next) = bytes.get(4 + length..).filter(|next| next.len() >= 4) else {
        return Begins::NeedMore;
    };
    if next.starts_with(&[0; 4]) {
        return Begins::Yes(length);
    }
    match start(next, framing) {
        Begins::Yes(_) => Begins::Yes(length),
        other => other,
    }
}

/// Looks for the first beginning. Every octet is looked at once, and once more where a beginning was given up.
pub(super) fn find(bytes: &[u8], framing: Framing) -> Found {
    let mut from = 0;
    while let Some(rest) = bytes.get(from..).filter(|rest| rest.len() >= START) {
        // the first body octet, and the length's first: what nearly every other place fails
        if rest[0] != 0 || !matches!(rest[4], 0x83 | 0x70) {
            from += 1;
            continue;
        }
        match confirmed(rest, framing) {
            Begins::Yes(_) => return Found::At(from),
            Begins::No => from += 1,
            Begins::NeedMore => {
                let length = match start(rest, framing) {
                    Begins::Yes(length) => length,
                    _ => 0,
                };
                let next = rest.len().saturating_sub(4 + length);
                // Of the start behind it, each octet may tell that it is none, also the last one that ever comes.
                let need = 4 + length + if next < 4 { 4 } else { next + 1 };
                return Found::Pending { from, need: need.max(START) };
            }
        }
    }
    Found::Pending { from, need: START }
}

/// Whether the octets are exactly one frame by their start; asked where nothing more can follow.
pub(super) fn is_last(bytes: &[u8], framing: Framing) -> bool {
    matches!(start(bytes, framing), Begins::Yes(length) if bytes.len() == 4 + length)
}

/// The length that a frame begins with here, unconfirmed.
pub(super) fn begins(bytes: &[u8], framing: Framing) -> Begins {
    start(bytes, framing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{1, 1, 1}` in an empty distribution header.
    const FRAME: &[u8] = b"\0\0\0\x0b\x83D\0h\x03a\x01a\x01a\x01";

    #[test]
    fn a_beginning_counts_only_with_the_next_one() {
        let mut bytes = b"garbage".to_vec();
        bytes.extend(FRAME);
        assert_eq!(find(&bytes, Framing::Any), Found::Pending { from: 7, need: 19 });
        bytes.extend(FRAME);
        assert_eq!(find(&bytes, Framing::Any), Found::At(7));
        assert_eq!(find(&bytes, Framing::PassThrough), Found::Pending { from: bytes.len() - 6, need: 7 });
        bytes.truncate(7 + FRAME.len());
        bytes.extend(b"\0\0\0\0");
        assert_eq!(find(&bytes, Framing::Header), Found::At(7));
    }

    #[test]
    fn a_beginning_is_given_up_with_the_first_octet_that_tells() {
        let mut bytes = FRAME.to_vec();
        bytes.extend(b"\0\0\0\x20");
        assert_eq!(find(&bytes, Framing::Any), Found::Pending { from: 0, need: bytes.len() + 1 });
        bytes.push(0x83);
        assert_eq!(find(&bytes, Framing::Any), Found::Pending { from: 0, need: bytes.len() + 1 });
        bytes.push(b'!');
        assert!(matches!(find(&bytes, Framing::Any), Found::Pending { from, .. } if from > FRAME.len() - START));
    }

    #[test]
    fn a_frame_inside_a_binary_is_given_up() {
        let mut bytes = FRAME.to_vec();
        bytes.extend(b"and then something else, 83");
        assert!(matches!(find(&bytes, Framing::Any), Found::Pending { from, .. } if from > FRAME.len()));
    }

    #[test]
    fn text_and_lengths_out_of_range_are_never_a_beginning() {
        let http = b"GET /index.html HTTP/1.1\r\nHost: example\r\n\r\n".repeat(20);
        assert!(matches!(find(&http, Framing::Any), Found::Pending { from, .. } if from == http.len() - 6));
        assert_eq!(begins(b"\x00\x10\x00\x00\x83D\0", Framing::Any), Begins::No);
        assert_eq!(begins(b"\x00\x00\x00\x02\x83D\0", Framing::Any), Begins::No);
    }
}
