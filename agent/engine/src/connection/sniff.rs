//! What a connection is, by its first octets: the ports are a hint and no more.

use crate::dist;
use crate::epmd;
use crate::event::Expected;
use crate::packet::Side;
use crate::tls;
use crate::wire::Match;

/// Octets of each direction that are kept until the connection is known. A ClientHello's header, an EPMD request of
/// common length and a name message with its longest name (1020 + 15 octets) decide within it.
pub(super) const SNIFF_LEN: usize = 1100;

/// What a connection turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// EPMD.
    Epmd,
    /// A cleartext distribution connection, from its handshake on.
    Handshake,
    /// A cleartext distribution connection, somewhere after its handshake.
    Frames,
    /// TLS, from its ClientHello on.
    Tls,
    /// TLS, somewhere after its handshake.
    TlsRecords,
    /// Neither.
    Foreign,
    /// More octets are needed.
    Undecided,
}

/// The first octets of both directions.
#[derive(Debug, Default)]
pub(super) struct FirstBytes {
    sides: [Vec<u8>; 2],
    /// More came than is kept.
    full: [bool; 2],
}

impl FirstBytes {
    /// Keeps what still fits.
    pub(super) fn extend(&mut self, side: Side, data: &[u8]) {
        let Some(kept) = self.sides.get_mut(side.index()) else { return };
        let room = SNIFF_LEN.saturating_sub(kept.len());
        kept.extend_from_slice(data.get(..room).unwrap_or(data));
        if data.len() > room
            && let Some(full) = self.full.get_mut(side.index())
        {
            *full = true;
        }
    }

    /// What is kept of one direction.
    #[must_use]
    pub(super) fn of(&self, side: Side) -> &[u8] {
        self.sides.get(side.index()).map_or(&[], Vec::as_slice)
    }

    /// What a connection is of which no more will be seen than the answer.
    #[must_use]
    pub(super) fn verdict_on_answer(&self, expected: Option<Expected>) -> Verdict {
        if !self.of(Side::Initiator).is_empty() || self.of(Side::Acceptor).is_empty() {
            return Verdict::Foreign;
        }
        match expected {
            Some(Expected::Epmd) => Verdict::Epmd,
            Some(Expected::Distribution) if tls::looks_like_records(self.of(Side::Acceptor)) == Match::Yes => {
                Verdict::TlsRecords
            }
            _ => Verdict::Foreign,
        }
    }

    /// Forgets one direction, which goes on behind a gap.
    pub(super) fn forget(&mut self, side: Side) {
        if let (Some(kept), Some(full)) = (self.sides.get_mut(side.index()), self.full.get_mut(side.index())) {
            kept.clear();
            *full = false;
        }
    }

    /// Octets that it holds.
    #[must_use]
    pub(super) fn memory(&self) -> usize {
        self.sides.iter().map(Vec::capacity).sum()
    }

    /// Decides, if it can be decided.
    #[must_use]
    pub(super) fn verdict(&self, expected: Option<Expected>, mid_stream: bool) -> Verdict {
        let (initiator, acceptor) = (self.of(Side::Initiator), self.of(Side::Acceptor));
        let by_initiator = from_initiator(initiator, expected, mid_stream);
        if !matches!(by_initiator, Verdict::Undecided | Verdict::Foreign) {
            return by_initiator;
        }
        let by_acceptor = from_acceptor(acceptor, expected, mid_stream);
        match (by_initiator, by_acceptor) {
            (
                Verdict::Undecided | Verdict::Foreign,
                found @ (Verdict::Handshake | Verdict::Frames | Verdict::TlsRecords),
            ) => found,
            // An answer without its question: the question may have been captured late, or never will be. Any other
            // listener that speaks first is soon spoken to.
            (Verdict::Undecided, _) if self.full.contains(&true) => self.verdict_on_answer(expected),
            (decided, _) => decided,
        }
    }
}

fn from_initiator(bytes: &[u8], expected: Option<Expected>, mid_stream: bool) -> Verdict {
    if bytes.is_empty() {
        return Verdict::Undecided;
    }
    // An old name message begins like a list request of EPMD, and EPMD takes it for one: the port decides.
    let (epmd, send_name) = match expected {
        Some(Expected::Distribution) => (Match::No, dist::looks_like_send_name(bytes)),
        Some(Expected::Epmd) => (epmd::looks_like_request(bytes), Match::No),
        None => (epmd::looks_like_request(bytes), dist::looks_like_send_name(bytes)),
    };
    let candidates = [
        (send_name, Verdict::Handshake),
        (tls::looks_like_client_hello(bytes), Verdict::Tls),
        (epmd, Verdict::Epmd),
        (if mid_stream { dist::looks_like_frames(bytes) } else { Match::No }, Verdict::Frames),
        (records(bytes, expected, mid_stream), Verdict::TlsRecords),
    ];
    choose(&candidates)
}

fn from_acceptor(bytes: &[u8], expected: Option<Expected>, mid_stream: bool) -> Verdict {
    if bytes.is_empty() {
        return Verdict::Undecided;
    }
    let candidates = [
        (dist::looks_like_status(bytes), Verdict::Handshake),
        (if mid_stream { dist::looks_like_frames(bytes) } else { Match::No }, Verdict::Frames),
        (records(bytes, expected, mid_stream), Verdict::TlsRecords),
    ];
    choose(&candidates)
}

/// Application data says nothing of what is inside: only on a port known for distribution is it worth a look.
fn records(bytes: &[u8], expected: Option<Expected>, mid_stream: bool) -> Match {
    if mid_stream && expected == Some(Expected::Distribution) { tls::looks_like_records(bytes) } else { Match::No }
}

fn choose(candidates: &[(Match, Verdict)]) -> Verdict {
    if let Some((_, found)) = candidates.iter().find(|(matches, _)| *matches == Match::Yes) {
        return *found;
    }
    let open = candidates.iter().any(|(matches, _)| *matches == Match::NeedMore);
    if open { Verdict::Undecided } else { Verdict::Foreign }
}

/// What foreign octets look like, for the analyst.
#[must_use]
pub(super) fn looks_like(bytes: &[u8]) -> &'static str {
    const STARTS: [(&[u8], &str); 14] = [
        (b"GET ", "HTTP"),
        (b"POST ", "HTTP"),
        (b"HEAD ", "HTTP"),
        (b"PUT ", "HTTP"),
        (b"OPTIONS ", "HTTP"),
        (b"PRI * HTTP/2", "HTTP/2"),
        (b"SSH-", "SSH"),
        (b"AMQP", "AMQP"),
        (b"\x16\x03", "TLS"),
        (b"\x03\x00\x00", "RDP"),
        (b"*1\r\n", "Redis"),
        (b"EHLO", "SMTP"),
        (b"HELO", "SMTP"),
        (b"\xffSMB", "SMB"),
    ];
    STARTS.iter().find(|(start, _)| bytes.starts_with(start)).map_or("unknown bytes", |&(_, name)| name)
}
