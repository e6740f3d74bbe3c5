//! Whether first octets are those of a distribution connection in clear (`docs/protocol.md` §8.4).

use super::atom_cache::AtomCache;
use super::control::Control;
use super::flags::DistFlags;
use super::handshake::Status;
use super::header::{AtomTable, Header};
use super::resync::{self, Begins, Found, Framing};
use crate::etf::Cursor;
use crate::wire::{Match, Reader};

/// The longest name message: its first octet is 0 to 4.
const MAX_SEND_NAME: usize = 0x4ff;

/// Octets before the name in a name message of version 6: tag, flags, creation, length.
const NAME_AT: usize = 15;

/// Whether these are the first octets of an acceptor's status message, which is all that there is to see where only its
/// direction was captured.
#[must_use]
pub fn looks_like_status(first_server_bytes: &[u8]) -> Match {
    let whole = |status: &Status| {
        let text = status.name().as_bytes();
        let length = u16::try_from(text.len() + 1).unwrap_or(u16::MAX).to_be_bytes();
        [&length[..], b"s", text].concat()
    };
    let mut answers = Status::ALL.iter().filter(|status| **status != Status::Named).map(|status| {
        let whole = whole(status);
        if first_server_bytes.starts_with(&whole) {
            Match::Yes
        } else if whole.starts_with(first_server_bytes) {
            Match::NeedMore
        } else {
            Match::No
        }
    });
    // `named:` is longer than its text, by the name that it gives.
    let named = matches!(first_server_bytes, [_, _, b's', b'n', b'a', b'm', b'e', b'd', b':', ..]);
    if named { Match::Yes } else { answers.by_ref().find(|answer| *answer != Match::No).unwrap_or(Match::No) }
}

/// Whether these are the first octets of an initiator's name message. A message whose name is not complete yet counts
/// as soon as all that is there fits.
#[must_use]
pub fn looks_like_send_name(first_client_bytes: &[u8]) -> Match {
    let mut reader = Reader::new(first_client_bytes);
    send_name(&mut reader).unwrap_or(Match::NeedMore)
}

fn send_name(reader: &mut Reader<'_>) -> Option<Match> {
    if reader.peek()? > 4 {
        return Some(Match::No);
    }
    let len = usize::from(reader.u16("length").ok()?);
    let name_len;
    let mut asks = false;
    match reader.u8("tag").ok()? {
        b'N' if (NAME_AT..=MAX_SEND_NAME).contains(&len) => {
            let flags = DistFlags(reader.u64("flags").ok()?);
            if !flags.intersects(DistFlags(DistFlags::HANDSHAKE_23.0 | DistFlags::MANDATORY_25_DIGEST.0)) {
                return Some(Match::No);
            }
            asks = flags.contains(DistFlags::NAME_ME);
            reader.u32("creation").ok()?;
            name_len = usize::from(reader.u16("name length").ok()?);
            if NAME_AT + name_len > len {
                return Some(Match::No);
            }
        }
        // version 5, always; at least `a@b` follows
        b'n' if (10..=MAX_SEND_NAME).contains(&len) => {
            if reader.peek()? != 0 {
                return Some(Match::No);
            }
            if reader.u16("version").ok()? != 5 {
                return Some(Match::No);
            }
            let flags = DistFlags(reader.u32("flags").ok()?.into());
            // Every release insists on it, so whoever does not offer it is no node, and was never taken for one.
            if !flags.contains(DistFlags::EXTENDED_REFERENCES) {
                return Some(Match::No);
            }
            name_len = len - 7;
        }
        _ => return Some(Match::No),
    }
    let there = reader.rest().get(..name_len.min(reader.len())).unwrap_or_default();
    Some(if node_name(there, there.len() == name_len, asks) { Match::Yes } else { Match::No })
}

/// Printable, with one `@` inside; a bare host where a name is asked for.
fn node_name(name: &[u8], complete: bool, asks: bool) -> bool {
    let ats = name.iter().filter(|&&byte| byte == b'@').count();
    let printable = name.iter().all(|&byte| byte > b' ' && byte != 0x7f);
    let shape = if asks { ats == 0 } else { ats <= 1 && (!complete || ats == 1) };
    let ends = name.first() != Some(&b'@') && !(complete && name.last() == Some(&b'@'));
    printable && shape && ends && !(complete && name.is_empty())
}

/// Whether frames of the connected state are in these octets of one direction, wherever the first one begins.
///
/// `Yes` takes one frame that reads as a control message (with known number and arity) from the first octet on, or two
/// beginnings that follow each other anywhere. Ticks alone stay `NeedMore`: four zeros are everyone's. `No` means only that
/// nothing is to be found in these octets; later octets of the same direction may be asked about anew.
#[must_use]
pub fn looks_like_frames(bytes: &[u8]) -> Match {
    let frames = skip_ticks(bytes);
    if frames.is_empty() || (frames.len() < 4 && frames.iter().all(|&byte| byte == 0)) {
        return if bytes.len() > MAX_TICKS * 4 { Match::No } else { Match::NeedMore };
    }
    let anchored = resync::begins(frames, Framing::Any);
    if let Begins::Yes(length) = anchored {
        let body = frames.get(4..).map(|body| body.get(..length).unwrap_or(body)).unwrap_or_default();
        let reads = reads_as_message(body);
        if reads == Match::Yes {
            return Match::Yes;
        }
        return match resync::confirmed(frames, Framing::Any) {
            Begins::Yes(_) => Match::Yes,
            // a further fragment has no control message; a longer look must confirm it
            Begins::NeedMore => {
                if frames.len() < 4 + length || reads == Match::NeedMore {
                    Match::NeedMore
                } else {
                    Match::No
                }
            }
            Begins::No => elsewhere(frames),
        };
    }
    if anchored == Begins::NeedMore && frames.len() < 7 { Match::NeedMore } else { elsewhere(frames) }
}

/// More ticks in a row than an idle link sends between two looks at it; longer runs of zeros are somebody's data.
const MAX_TICKS: usize = 64;

fn skip_ticks(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = bytes.strip_prefix(&[0; 4]) {
        bytes = rest;
    }
    bytes
}

fn elsewhere(bytes: &[u8]) -> Match {
    match resync::find(bytes, Framing::Any) {
        Found::At(_) => Match::Yes,
        Found::Pending { from, .. } if bytes.len() - from >= 7 => Match::NeedMore,
        Found::Pending { .. } => Match::No,
    }
}

/// Whether the body has a control message that some release sends.
fn reads_as_message(body: &[u8]) -> Match {
    let mut reader = Reader::new(body);
    let header = match (body.first(), body.get(1)) {
        (Some(0x70), _) => reader.bytes("tags", 2).map(|_| Header::NONE),
        (_, Some(0x44)) => reader.bytes("tags", 2).and_then(|_| Header::decode(&mut reader)),
        (_, Some(0x45)) => reader.bytes("tags", 18).and_then(|_| Header::decode(&mut reader)),
        _ => return Match::NeedMore,
    };
    let Ok(header) = header else {
        return Match::NeedMore;
    };
    let cache = AtomCache::default();
    let mut table = AtomTable::new();
    header.resolve(&cache, &mut table);
    let mut cursor = Cursor::cut(reader, &table);
    match Control::open(&mut cursor) {
        Ok(control) if control.operation.row().is_some_and(|row| row.takes(control.arity)) => Match::Yes,
        Ok(_) => Match::No,
        Err(_) => Match::NeedMore,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: &[u8] = b"\x00\x1eN\x00\x00\x00\x0d\x07\xdf\x7f\xbd\x6b\x03\xb5\xc5\x00\x0fref_a@127.0.0.1";

    #[test]
    fn a_name_message_is_known_from_its_seventeenth_octet_on() {
        for len in 0..=16 {
            assert_eq!(looks_like_send_name(&NAME[..len]), Match::NeedMore, "{len}");
        }
        for len in 17..=NAME.len() {
            assert_eq!(looks_like_send_name(&NAME[..len]), Match::Yes, "{len}");
        }
    }

    #[test]
    fn a_name_without_at_is_one_only_where_a_name_is_asked_for() {
        let plain = b"\x00\x11N\x00\x00\x00\x0d\x07\xdf\x7f\xbc\x00\x00\x00\x00\x00\x02vm";
        let asking = b"\x00\x11N\x00\x00\x00\x0f\x07\xdf\x7f\xbc\x00\x00\x00\x00\x00\x02vm";
        assert_eq!(looks_like_send_name(plain), Match::No);
        assert_eq!(looks_like_send_name(asking), Match::Yes);
    }

    #[test]
    fn other_protocols_are_not_a_name_message() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"SSH-2.0-OpenSSH_9.2",
            b"\x00\x01n",
        ] {
            assert_eq!(looks_like_send_name(bytes), Match::No);
        }
        assert_eq!(looks_like_send_name(b"\x00\x0cn\x00\x05\x01\xdf\x7f\xbda@b22"), Match::Yes);
    }

    #[test]
    fn a_name_message_of_somebody_who_offers_nothing_is_not_one() {
        assert_eq!(looks_like_send_name(b"\x00\x0dn\x00\x05\x00\x00\x00\x00x@host"), Match::No);
        assert_eq!(looks_like_send_name(b"\x00\x15N\0\0\0\0\0\0\0\0\0\0\0\0\x00\x06x@host"), Match::No);
    }

    #[test]
    fn a_status_is_known_by_its_length_and_its_text() {
        for status in [&b"\0\x03sok"[..], b"\0\x10sok_simultaneous", b"\0\x04snok\0", b"\0\x20snamed:\0\x0fA@b"] {
            assert_eq!(looks_like_status(status), Match::Yes, "{status:?}");
        }
        assert_eq!(looks_like_status(b"\0\x03s"), Match::NeedMore);
        assert_eq!(looks_like_status(b"\0\x04sok"), Match::No);
        assert_eq!(looks_like_status(b"SSH-2.0-OpenSSH"), Match::No);
    }

    #[test]
    fn ticks_alone_prove_nothing_and_a_frame_behind_them_does() {
        assert_eq!(looks_like_frames(&[0; 8]), Match::NeedMore);
        assert_eq!(looks_like_frames(&[0; 1000]), Match::No);
        let mut bytes = vec![0; 4];
        bytes.extend(b"\0\0\0\x0b\x83D\0h\x03a\x01a\x01a\x01");
        assert_eq!(looks_like_frames(&bytes), Match::Yes);
    }

    #[test]
    fn length_prefixed_protocols_and_text_are_not_frames() {
        let kafka = b"\x00\x00\x00\x23\x00\x12\x00\x04\x00\x00\x00\x01\x00\x0cconsole-prod";
        for bytes in [
            &kafka[..],
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x17\x03\x03\x00\x20abcdefgh",
            b"\x00\x00\x00\x0b\x83E",
        ] {
            assert_ne!(looks_like_frames(bytes), Match::Yes);
        }
    }

    proptest! {
        #[test]
        fn random_octets_are_neither(bytes in prop::collection::vec(any::<u8>(), 24..600)) {
            prop_assert_ne!(looks_like_frames(&bytes), Match::Yes);
            prop_assert_ne!(looks_like_send_name(&bytes), Match::Yes);
        }
    }
}
