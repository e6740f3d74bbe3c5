//! Links that a reader would not tell apart, put together: twenty failed attempts are one line with a number.

use distwatch_engine::model::{End, HandshakeOutcome, Link, PerSide, TlsOutcome, Transport};
use indexmap::{IndexMap, IndexSet};

/// How far a link got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// Nodes talk, or talked, over it.
    Established,
    /// It was tried, and did not come about.
    Attempt,
    /// The bytes were not the protocol.
    Foreign,
}

impl Reach {
    pub(super) fn of(link: &Link) -> Self {
        match link.handshake.outcome {
            HandshakeOutcome::Foreign => Self::Foreign,
            HandshakeOutcome::Ok => Self::Established,
            HandshakeOutcome::Unseen => match &link.tls {
                None => Self::Established,
                Some(tls) => match tls.outcome {
                    TlsOutcome::Ok | TlsOutcome::Established | TlsOutcome::Unseen => Self::Established,
                    _ => Self::Attempt,
                },
            },
            _ => Self::Attempt,
        }
    }
}

/// Alike links.
#[derive(Debug)]
pub(super) struct Group<'a> {
    /// The first of them; everything that is not summed is the same for all.
    pub(super) link: &'a Link,
    pub(super) reach: Reach,
    /// How many there are.
    pub(super) count: u64,
    pub(super) messages: PerSide,
    pub(super) bytes: PerSide,
    pub(super) gaps: u64,
    /// The entries of the word list that their cookies matched, each once.
    pub(super) weak_cookies: IndexSet<&'a str>,
}

/// The groups in the order in which the first of each appears.
pub(super) fn groups(links: &[Link]) -> Vec<Group<'_>> {
    let mut groups = IndexMap::new();
    for link in links {
        let tls = link.tls.as_ref().map(|tls| (&tls.version, tls.mutual_auth as u8, tls.outcome as u8));
        let handshake = (link.handshake.version, link.handshake.outcome);
        // An initiator's port is a new one each time.
        let initiator = (&link.initiator.node, link.initiator.ip);
        let key = (initiator, &link.acceptor, link.transport, tls, handshake, link.mid_stream);
        let group = groups.entry(key).or_insert_with(|| Group {
            link,
            reach: Reach::of(link),
            count: 0,
            messages: PerSide::default(),
            bytes: PerSide::default(),
            gaps: 0,
            weak_cookies: IndexSet::new(),
        });
        group.count += 1;
        group.gaps = group.gaps.saturating_add(link.gaps);
        group.weak_cookies.extend(link.handshake.weak_cookie.as_deref());
        add(&mut group.messages, link.messages);
        add(&mut group.bytes, link.bytes);
    }
    groups.into_values().collect()
}

fn add(sum: &mut PerSide, more: PerSide) {
    sum.from_initiator = sum.from_initiator.saturating_add(more.from_initiator);
    sum.from_acceptor = sum.from_acceptor.saturating_add(more.from_acceptor);
}

/// `clear text`, `TLS 1.3`, or that it is not known.
pub(super) fn transport(link: &Link) -> String {
    match (link.transport, link.tls.as_ref().and_then(|tls| tls.version.as_deref())) {
        (Transport::Cleartext, _) => "clear text".into(),
        (Transport::Tls, Some(version)) => format!("TLS {version}"),
        (Transport::Tls, None) => "TLS".into(),
        (Transport::Unknown, _) => "unknown".into(),
    }
}

/// How the handshake ended, in words.
pub(super) fn outcome(link: &Link) -> &'static str {
    match (link.handshake.outcome, link.tls.as_ref().map(|tls| tls.outcome)) {
        (HandshakeOutcome::Unseen, Some(outcome)) => match outcome {
            TlsOutcome::Ok => "ok (inside TLS)",
            TlsOutcome::Established => "TLS set up",
            TlsOutcome::BadCookie => "wrong cookie (inside TLS)",
            TlsOutcome::RefusedByServer => "TLS refused by server",
            TlsOutcome::RefusedByClient => "TLS refused by client",
            TlsOutcome::Incomplete => "TLS not finished",
            TlsOutcome::Unseen => "not seen",
            TlsOutcome::NotTls => "peer speaks no TLS",
        },
        (outcome, _) => match outcome {
            HandshakeOutcome::Ok => "ok",
            HandshakeOutcome::BadCookie => "wrong cookie",
            HandshakeOutcome::NotAllowed => "not allowed",
            HandshakeOutcome::Nok => "gave way (nok)",
            HandshakeOutcome::Alive => "gave way (alive)",
            HandshakeOutcome::FlagsRefused => "capability missing",
            HandshakeOutcome::Incomplete => "not finished",
            HandshakeOutcome::Unseen => "not seen",
            HandshakeOutcome::Foreign => "not distribution",
        },
    }
}

/// `10.0.0.1:9100`, `[2001:db8::1]:9100`.
pub(super) fn address(end: &End) -> String {
    std::net::SocketAddr::new(end.ip, end.port).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn attempts_that_differ_only_in_port_are_one_group_with_their_sum() {
        let report = sample::report();
        let groups = groups(&report.links);
        let counts: Vec<(u64, Reach)> = groups.iter().map(|group| (group.count, group.reach)).collect();
        use Reach::{Attempt, Established};
        assert_eq!(counts, [(1, Established), (1, Established), (2, Attempt), (1, Established)]);
        assert_eq!(groups[2].messages, PerSide { from_initiator: 4, from_acceptor: 4 });
    }
}
