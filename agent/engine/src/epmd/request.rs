//! EPMD requests: decoding one, and recognising one on a port that nobody declared.
//!
//! ```text
//! u16 Length | u8 opcode | body …          Length counts the opcode and the body, not itself
//! ```

use crate::model::{EpmdNode, EpmdRequest};
use crate::text::is_plain;
use crate::wire::{Fault, Malformed, Match, Reader};

/// Longest request that epmd takes, without the length field: its buffer is 3060 bytes (erts/epmd/src/epmd_int.h).
pub(super) const MAX_LENGTH: usize = 3057;
/// Longest name in bytes: 255 characters of at most four bytes.
const MAX_NAME: usize = 1020;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request of today.
    Known(EpmdRequest),
    /// One that was dropped before R5; every epmd closes the connection on it.
    Obsolete(u8),
}

/// The opcodes (OTP, "Distribution Protocol", section "EPMD Protocol").
const OPCODES: [(u8, Kind); 9] = [
    (120, Kind::Known(EpmdRequest::Alive2)),
    (122, Kind::Known(EpmdRequest::PortPlease2)),
    (110, Kind::Known(EpmdRequest::Names)),
    (100, Kind::Known(EpmdRequest::Dump)),
    (107, Kind::Known(EpmdRequest::Kill)),
    (115, Kind::Known(EpmdRequest::Stop)),
    (97, Kind::Obsolete(97)),
    (112, Kind::Obsolete(112)),
    (89, Kind::Obsolete(89)),
];

/// What the opcode asks for; `None` where epmd knows no such opcode.
pub(super) fn kind(opcode: u8) -> Option<Kind> {
    OPCODES.iter().find(|(number, _)| *number == opcode).map(|&(_, kind)| kind)
}

/// The request's name in the protocol.
pub(super) const fn title(request: EpmdRequest) -> &'static str {
    match request {
        EpmdRequest::Alive2 => "ALIVE2_REQ",
        EpmdRequest::PortPlease2 => "PORT_PLEASE2_REQ",
        EpmdRequest::Names => "NAMES_REQ",
        EpmdRequest::Dump => "DUMP_REQ",
        EpmdRequest::Kill => "KILL_REQ",
        EpmdRequest::Stop => "STOP_REQ",
    }
}

/// A request, still borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// What it asks for.
    pub(super) kind: Kind,
    /// The node name in it; empty where there is none.
    pub(super) name: &'a [u8],
    /// What an ALIVE2_REQ says of the node.
    pub(super) node: Option<EpmdNode>,
    /// Octets inside the request that epmd does not look at.
    pub(super) ignored: usize,
}

impl<'a> Request<'a> {
    /// Decodes what follows the length field, all of it.
    ///
    /// # Errors
    /// Where epmd would close the connection without an answer.
    pub(super) fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let opcode = reader.u8("opcode")?;
        let kind = kind(opcode).ok_or(Malformed { what: "opcode", offset: 0, fault: Fault::UnknownTag(opcode) })?;
        let (name, node) = match kind {
            Kind::Known(EpmdRequest::Alive2) => {
                let (name, node) = alive2(&mut reader)?;
                (name, Some(node))
            }
            Kind::Known(EpmdRequest::PortPlease2 | EpmdRequest::Stop) => (whole_name(&mut reader)?, None),
            Kind::Known(EpmdRequest::Names | EpmdRequest::Dump | EpmdRequest::Kill) | Kind::Obsolete(_) => {
                (&[][..], None)
            }
        };
        Ok(Self { kind, name, node, ignored: reader.len() })
    }
}

/// ALIVE2_REQ after its opcode (OTP, "Distribution Protocol", section "Register a Node in EPMD").
fn alive2<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], EpmdNode), Malformed> {
    let node = EpmdNode {
        port: reader.u16("port")?,
        node_type: reader.u8("node type")?,
        protocol: reader.u8("protocol")?,
        highest_version: reader.u16("highest version")?,
        lowest_version: reader.u16("lowest version")?,
    };
    let length = reader.u16("name length")?;
    let start = *reader;
    let name = reader.bytes("node name", usize::from(length))?;
    check_name(&start, name)?;
    let length = reader.u16("extra length")?;
    reader.bytes("extra", usize::from(length))?;
    Ok((name, node))
}

/// A name that takes all that is left; one NUL at its end is tolerated (erts/epmd/src/epmd_srv.c).
fn whole_name<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let start = *reader;
    let name = reader.take_rest();
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    check_name(&start, name)?;
    Ok(name)
}

fn check_name(start: &Reader<'_>, name: &[u8]) -> Result<(), Malformed> {
    if name.is_empty() || name.contains(&0) {
        return Err(start.malformed("node name", Fault::Impossible));
    }
    if name.len() > MAX_NAME {
        return Err(start.malformed("node name", Fault::TooLong));
    }
    Ok(())
}

/// Whether the first bytes that a client sent are one whole EPMD request, and nothing more.
///
/// For ports that are not known to be EPMD's: much stricter than the daemon, so that other protocols with a 16-bit
/// length in front are not taken for it. The request must cover the bytes exactly, names must be printable without
/// `@`, and the words that a distribution handshake sends in the same shape (`ok`, `true`, …) are not names here.
#[must_use]
pub fn looks_like_request(bytes: &[u8]) -> Match {
    let mut reader = Reader::new(bytes);
    let Ok(length) = reader.u16("length") else {
        return if bytes.first().is_none_or(|&high| usize::from(high) <= MAX_LENGTH >> 8) {
            Match::NeedMore
        } else {
            Match::No
        };
    };
    let length = usize::from(length);
    if length == 0 || length > MAX_LENGTH || reader.len() > length {
        return Match::No;
    }
    let Some(opcode) = reader.peek() else { return Match::NeedMore };
    let Some(Kind::Known(kind)) = kind(opcode) else { return Match::No };
    let shortest = match kind {
        EpmdRequest::Alive2 => 14,
        EpmdRequest::PortPlease2 | EpmdRequest::Stop => 2,
        EpmdRequest::Names | EpmdRequest::Dump | EpmdRequest::Kill => 1,
    };
    let longest = match kind {
        EpmdRequest::Alive2 => MAX_LENGTH,
        EpmdRequest::PortPlease2 | EpmdRequest::Stop => 2 + MAX_NAME,
        EpmdRequest::Names | EpmdRequest::Dump | EpmdRequest::Kill => 1,
    };
    if length < shortest || length > longest {
        return Match::No;
    }
    if reader.len() < length {
        return Match::NeedMore;
    }
    match Request::decode(reader.rest()) {
        Ok(request) if is_credible(&request) => Match::Yes,
        _ => Match::No,
    }
}

fn is_credible(request: &Request<'_>) -> bool {
    let node = request.node.as_ref().is_none_or(|node| {
        matches!(node.node_type, 72 | 77 | 104 | 110)
            && node.protocol == 0
            && node.lowest_version <= node.highest_version
            && (1..=64).contains(&node.highest_version)
    });
    let named = matches!(request.kind, Kind::Known(EpmdRequest::Alive2 | EpmdRequest::PortPlease2 | EpmdRequest::Stop));
    node && request.ignored == 0 && (!named || is_credible_name(request.name))
}

/// Statuses of a distribution handshake, which has the same shape as STOP_REQ (`docs/protocol.md` §2.2).
const STATUSES: [&str; 8] = ["ok", "ok_simultaneous", "nok", "not_allowed", "alive", "true", "false", "named:"];

fn is_credible_name(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    name.chars().all(|character| is_plain(character) && !matches!(character, ' ' | '@'))
        && !STATUSES.contains(&name)
        && !name.starts_with("named:")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTER: &[u8] = b"\x00\x12\x78\xb0\x17\x4d\x00\x00\x06\x00\x05\x00\x05ref_b\x00\x00";

    #[test]
    fn a_registration_is_read_field_by_field() {
        let request = Request::decode(&REGISTER[2..]).unwrap();
        assert_eq!(request.name, b"ref_b");
        assert_eq!(
            request.node,
            Some(EpmdNode { port: 45079, node_type: 77, protocol: 0, highest_version: 6, lowest_version: 5 })
        );
        assert_eq!(request.ignored, 0);
    }

    #[test]
    fn lengths_that_do_not_fit_are_said_with_their_place() {
        let mut long = REGISTER[2..].to_vec();
        long[10] = 200;
        let error = Request::decode(&long).unwrap_err();
        assert_eq!((error.what, error.offset, error.fault), ("node name", 11, Fault::Truncated));
        assert_eq!(Request::decode(b"z").unwrap_err().fault, Fault::Impossible);
        assert_eq!(Request::decode(b"za\0b").unwrap_err().fault, Fault::Impossible);
        assert_eq!(Request::decode(b"za\0").unwrap().name, b"a");
        assert_eq!(Request::decode(&[b'z'; 1023]).unwrap_err().fault, Fault::TooLong);
    }

    #[test]
    fn whole_requests_are_recognised_on_any_port() {
        for request in [REGISTER, b"\x00\x01n", b"\x00\x01d", b"\x00\x01k", b"\x00\x03zdb", b"\x00\x03sdb"] {
            assert_eq!(looks_like_request(request), Match::Yes, "{request:?}");
            for end in 0..request.len() {
                assert_eq!(looks_like_request(&request[..end]), Match::NeedMore, "{request:?} up to {end}");
            }
            let mut longer = request.to_vec();
            longer.push(0);
            assert_eq!(looks_like_request(&longer), Match::No);
        }
    }

    #[test]
    fn other_protocols_are_not_taken_for_requests() {
        let others: [&[u8]; 10] = [
            b"GET / HTTP/1.0\r\n",
            b"SSH-2.0-OpenSSH",
            b"\x16\x03\x03\x00\xf4\x01",
            b"\x00\x15N\0\0",
            b"\x00\x0dn\x00\x05",
            b"\x00\x03sok",
            b"\x00\x05strue",
            b"\x00\x03z\x01\x02",
            b"\x00\x00",
            b"\x00\x02az",
        ];
        for bytes in others {
            assert_eq!(looks_like_request(bytes), Match::No, "{bytes:?}");
        }
    }
}
