//! The record layer: five octets of header, then a body that is handed on or skipped, never kept.
//!
//! ```text
//! u8 content type | u16 version | u16 length | body …        (RFC 8446, section 5.1; RFC 5246, section 6.2.1)
//! ```

use crate::wire::Match;

/// Content type of ChangeCipherSpec.
pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
/// Content type of alerts.
pub(super) const ALERT: u8 = 21;
/// Content type of handshake messages.
pub(super) const HANDSHAKE: u8 = 22;
/// Content type of application data, and of everything encrypted in TLS 1.3.
pub(super) const APPLICATION_DATA: u8 = 23;
/// Content type of heartbeats (RFC 6520).
const HEARTBEAT: u8 = 24;

/// Octets of a header.
const HEADER: usize = 5;
/// Longest body: 2^14 and what encryption may add (RFC 5246, section 6.2.3).
const MAX_BODY: u16 = 16384 + 2048;

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Content type.
    pub(super) content_type: u8,
    /// Version as in the record, which is 0x0303 in TLS 1.3 as well.
    pub(super) version: u16,
    /// Octets of the body.
    pub(super) length: u16,
}

impl Header {
    /// Decodes a header; `None` where no TLS sends one like it.
    pub(super) const fn decode(octets: [u8; HEADER]) -> Option<Self> {
        let [content_type, major, minor, high, low] = octets;
        let length = u16::from_be_bytes([high, low]);
        let known = content_type >= CHANGE_CIPHER_SPEC && content_type <= HEARTBEAT;
        // Application data alone may be empty (RFC 5246, section 6.2.1).
        let possible = length <= MAX_BODY && (length > 0 || content_type == APPLICATION_DATA);
        if known && major == 3 && minor <= 4 && possible {
            Some(Self { content_type, version: u16::from_be_bytes([major, minor]), length })
        } else {
            None
        }
    }
}

/// What a stream of records is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A record begins.
    Begin(Header),
    /// Octets of the body of the record that began last.
    Body(Header, &'a [u8]),
}

/// Cuts one direction into records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Records {
    header: [u8; HEADER],
    have: usize,
    current: Option<Header>,
    remaining: u16,
}

/// Octets that are no record header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotARecord;

impl Records {
    /// Takes the next piece off the front of `data`; `None` when `data` is used up.
    pub(super) fn next<'a>(&mut self, data: &mut &'a [u8]) -> Result<Option<Piece<'a>>, NotARecord> {
        if let Some(header) = self.current.filter(|_| self.remaining > 0) {
            if data.is_empty() {
                return Ok(None);
            }
            let taken = data.len().min(usize::from(self.remaining));
            let (body, rest) = data.split_at_checked(taken).unwrap_or((data, &[]));
            *data = rest;
            self.remaining = self.remaining.saturating_sub(taken as u16);
            return Ok(Some(Piece::Body(header, body)));
        }
        while let Some(slot) = self.header.get_mut(self.have) {
            let Some((first, rest)) = data.split_first() else { return Ok(None) };
            *slot = *first;
            *data = rest;
            self.have += 1;
        }
        self.have = 0;
        let header = Header::decode(self.header).ok_or(NotARecord)?;
        self.current = Some(header);
        self.remaining = header.length;
        Ok(Some(Piece::Begin(header)))
    }

    /// Passes over octets that were not captured. `Some` with the record's header where all of them lie in its body,
    /// `None` where a header may be among them and the direction is lost.
    pub(super) fn skip(&mut self, octets: u64) -> Option<Header> {
        let header = self.current.filter(|_| self.have == 0)?;
        let remaining = u64::from(self.remaining).checked_sub(octets)?;
        self.remaining = remaining as u16;
        Some(header)
    }
}

/// Whether the first octets that a client sent are a TLS ClientHello.
///
/// Checks the record header, the type and length of the message and the version in it as far as they lie in the first
/// record. No distribution handshake and no EPMD request begins like this: as a length, 0x1603 is 5635.
#[must_use]
pub fn looks_like_client_hello(octets: &[u8]) -> Match {
    const PREFIX: [fn(u8) -> bool; 3] = [|octet| octet == HANDSHAKE, |octet| octet == 3, |octet| octet <= 4];
    if octets.iter().zip(PREFIX).any(|(&octet, allowed)| !allowed(octet)) {
        return Match::No;
    }
    let Some((header, body)) = octets.split_first_chunk::<HEADER>() else { return Match::NeedMore };
    let Some(header) = Header::decode(*header).filter(|header| header.length <= 16640) else { return Match::No };
    let body = body.get(..usize::from(header.length)).unwrap_or(body);
    // 1: client_hello; then u24 length of which no real one fills the first octet; then the version.
    const MESSAGE: [fn(u8) -> bool; 6] =
        [|octet| octet == 1, |octet| octet == 0, |_| true, |_| true, |octet| octet == 3, |octet| octet <= 3];
    if body.iter().zip(MESSAGE).any(|(&octet, allowed)| !allowed(octet)) {
        return Match::No;
    }
    if let [_, _, high, low, ..] = *body
        && u16::from_be_bytes([high, low]) < SHORTEST_HELLO
    {
        return Match::No;
    }
    if body.len() < MESSAGE.len().min(usize::from(header.length)) { Match::NeedMore } else { Match::Yes }
}

/// A ClientHello with nothing optional in it: version, random, and one entry in each list.
const SHORTEST_HELLO: u16 = 2 + 32 + 1 + 2 + 2 + 1 + 1;

/// Whether octets from the middle of a connection are TLS records, starting at a record's border.
///
/// Where the first record ends within the octets, the header of the next one must follow.
#[must_use]
pub fn looks_like_records(octets: &[u8]) -> Match {
    let ranges = [CHANGE_CIPHER_SPEC..=APPLICATION_DATA, 3..=3, 1..=3, 0..=MAX_BODY.to_be_bytes()[0]];
    let prefix = |octets: &[u8]| octets.iter().zip(&ranges).all(|(octet, range)| range.contains(octet));
    if !prefix(octets) {
        return Match::No;
    }
    let Some((first, rest)) = octets.split_first_chunk::<HEADER>() else { return Match::NeedMore };
    let Some(first) = Header::decode(*first).filter(|header| is_credible(*header)) else { return Match::No };
    let Some(rest) = rest.get(usize::from(first.length)..) else { return Match::Yes };
    let Some((second, _)) = rest.split_first_chunk::<HEADER>() else {
        return if prefix(rest) { Match::Yes } else { Match::No };
    };
    match Header::decode(*second) {
        Some(second) if is_credible(second) && second.version == first.version => Match::Yes,
        _ => Match::No,
    }
}

/// Lengths that a record of its type can have once the handshake has begun.
const fn is_credible(header: Header) -> bool {
    match header.content_type {
        CHANGE_CIPHER_SPEC => header.length == 1,
        // In clear two octets; encrypted never more than padding makes of it.
        ALERT => header.length == 2 || (header.length >= 16 && header.length <= 320),
        HANDSHAKE => header.length >= 4,
        // An authentication tag at least.
        _ => header.length >= 16,
    }
}

/// Whether a server's first octets are a TLS alert in clear: what a TLS listener answers to anything but TLS.
#[must_use]
pub fn looks_like_alert(octets: &[u8]) -> Match {
    let ranges = [ALERT..=ALERT, 3..=3, 0..=4, 0..=0, 2..=2, 1..=2];
    if octets.iter().zip(&ranges).any(|(octet, range)| !range.contains(octet)) {
        return Match::No;
    }
    if octets.len() > ranges.len() { Match::Yes } else { Match::NeedMore }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_hello_is_known_by_its_first_eleven_octets() {
        let hello = [0x16, 3, 1, 1, 0x24, 1, 0, 1, 0x20, 3, 3, 0xb5];
        assert_eq!(looks_like_client_hello(&hello), Match::Yes);
        for end in 0..11 {
            assert_eq!(looks_like_client_hello(&hello[..end]), Match::NeedMore, "{end}");
        }
        for (place, octet) in [(0, 23), (1, 2), (2, 5), (3, 0xff), (5, 2), (6, 1), (9, 2)] {
            let mut other = hello;
            other[place] = octet;
            assert_eq!(looks_like_client_hello(&other), Match::No, "{place}");
        }
        assert_eq!(looks_like_client_hello(&[0x16, 3, 1, 0, 1, 1, 0x16, 3, 1]), Match::Yes, "cut into records");
        assert_eq!(looks_like_client_hello(b"\x00\x15N\x00"), Match::No);
    }

    #[test]
    fn records_are_known_by_two_headers() {
        let mut two = vec![23, 3, 3, 0, 20];
        two.extend([0xaa; 20]);
        assert_eq!(looks_like_records(&two), Match::Yes);
        assert_eq!(looks_like_records(&two[..9]), Match::Yes);
        assert_eq!(looks_like_records(&two[..4]), Match::NeedMore);
        two.extend([23, 3, 3, 0, 40]);
        assert_eq!(looks_like_records(&two), Match::Yes);
        two[25] = 0;
        assert_eq!(looks_like_records(&two), Match::No);
        assert_eq!(looks_like_records(&[0, 0, 0, 0, 0]), Match::No);
        assert_eq!(looks_like_records(&[0, 0, 0, 20, 131, 68]), Match::No);
    }

    #[test]
    fn the_alert_that_a_tls_node_answers_to_cleartext_is_known() {
        assert_eq!(looks_like_alert(&[21, 3, 3, 0, 2, 2, 10]), Match::Yes);
        assert_eq!(looks_like_alert(&[21, 3, 3]), Match::NeedMore);
        assert_eq!(looks_like_alert(&[0, 3, b's', b'o', b'k']), Match::No);
    }

    #[test]
    fn a_hole_inside_a_body_loses_nothing_and_one_over_a_header_loses_the_direction() {
        let mut records = Records::default();
        let mut data: &[u8] = &[23, 3, 3, 0, 10, 1, 2];
        while records.next(&mut data).unwrap().is_some() {}
        assert!(records.skip(5).is_some());
        let mut data: &[u8] = &[8, 9, 10, 23, 3, 3, 0, 4];
        assert!(matches!(records.next(&mut data), Ok(Some(Piece::Body(_, [8, 9, 10])))));
        assert!(matches!(records.next(&mut data), Ok(Some(Piece::Begin(Header { length: 4, .. })))));
        assert!(records.skip(5).is_none());
    }
}
