//! What follows from the messages and record lengths of a TLS connection: who proved who it is, how it ended, and
//! whether a distribution handshake runs inside. Pure: the same view always gives the same judgement.
//!
//! Why record lengths say so much is in `docs/protocol.md` §8.2 and §8.3.

use crate::model::{Answer, Confidence, HandshakeOutcome, TlsOutcome};
use crate::packet::Side;

use super::ciphers::{self, Lengths};

/// Lengths of encrypted records that are kept of each side: the longest flight (5), the handshake inside (3), an alert,
/// and as many again to tell a peer that does it differently.
pub(super) const MAX_SEALED: usize = 16;
/// An empty Certificate as an encrypted record of TLS 1.3: header 4, context 1, list 3, and the overhead of 17.
const EMPTY_CERTIFICATE: u16 = 8;
/// Records in the longer of the two flights of TLS 1.3.
const LONGEST_FLIGHT: usize = 5;
/// Octets of an alert.
const ALERT: u16 = 2;

/// Lengths of application data records (in TLS 1.3: of all encrypted records), as many as are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sealed {
    lengths: [u16; MAX_SEALED],
    count: usize,
}

impl Sealed {
    pub(super) fn push(&mut self, length: u16) {
        if let Some(slot) = self.lengths.get_mut(self.count) {
            *slot = length;
            self.count += 1;
        }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.count == MAX_SEALED
    }

    pub(super) fn lengths(&self) -> &[u16] {
        self.lengths.get(..self.count).unwrap_or_default()
    }
}

/// What one side was seen to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Any octets at all.
    pub(super) anything: bool,
    /// A hello that could be read.
    pub(super) hello: bool,
    /// A Certificate in clear: whether there was a certificate in it.
    pub(super) certificate: Option<bool>,
    /// CertificateRequest in clear.
    pub(super) certificate_request: bool,
    /// ServerHelloDone.
    pub(super) hello_done: bool,
    /// ChangeCipherSpec.
    pub(super) change_cipher_spec: bool,
    /// A handshake record after it: Finished, up to TLS 1.2.
    pub(super) finished: bool,
    /// An alert in clear that ends the connection: its description.
    pub(super) alert: Option<u8>,
    /// Application data records.
    pub(super) sealed: Sealed,
    /// Octets are missing in a place that makes the rest unreadable.
    pub(super) lost: bool,
}

/// All that a judgement is made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// The capture begins after the handshake did.
    pub(super) mid_stream: bool,
    /// Negotiated version.
    pub(super) version: Option<u16>,
    /// Negotiated cipher suite.
    pub(super) cipher: Option<u16>,
    /// What each side sent.
    pub(super) sent: [Sent; 2],
    /// Who first sent something that has the form of an alert.
    pub(super) first_alert: Option<Side>,
    /// The acceptor's first octets are no TLS.
    pub(super) not_tls: bool,
    /// The connection has ended, by whom where that is known.
    pub(super) closed: Option<Option<Side>>,
    /// When it ended, the hello had been waiting for an answer for long.
    pub(super) unanswered: bool,
}

/// What the record lengths tell of a distribution handshake inside TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inner {
    /// Octets of the initiator's node name.
    pub initiator_name_len: Option<u16>,
    /// Octets of the acceptor's node name.
    pub acceptor_name_len: Option<u16>,
    /// How it ended, as far as lengths and the close tell.
    pub outcome: HandshakeOutcome,
}

/// The judgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Posture {
    pub(super) requested: Answer,
    pub(super) mutual: Answer,
    pub(super) confidence: Confidence,
    pub(super) outcome: TlsOutcome,
    /// The side that refused, where the outcome is a refusal by an encrypted alert.
    pub(super) refused_under_cover: bool,
    pub(super) established: bool,
    pub(super) inside: Answer,
    pub(super) inner: Option<Inner>,
}

impl View {
    const fn client(&self) -> &Sent {
        let [client, _] = &self.sent;
        client
    }

    const fn server(&self) -> &Sent {
        let [_, server] = &self.sent;
        server
    }

    fn is_tls13(&self) -> bool {
        self.version.is_some_and(|version| version >= 0x0304)
    }

    fn lengths(&self) -> Option<Lengths> {
        ciphers::lengths(self.version?, self.cipher?)
    }

    /// Whether the record could be an encrypted alert of TLS 1.3, where the type does not show it.
    pub(super) fn is_alert_sized(&self, length: u16) -> bool {
        self.is_tls13() && self.lengths().is_some_and(|lengths| length == lengths.overhead + ALERT)
    }

    /// The judgement over what was seen so far.
    pub(super) fn judge(&self) -> Posture {
        let flights = if self.is_tls13() { self.hidden_flights() } else { self.open_flights() };
        let (requested, mutual, confidence) =
            if self.is_tls13() { self.hidden_authentication() } else { self.open_authentication() };
        let (inside, inner) = match (flights.application, self.lengths()) {
            (Some((client, server)), Some(lengths)) if !self.mid_stream => self.inside(client, server, lengths),
            _ => (Answer::Unknown, None),
        };
        let (outcome, refused_under_cover) = self.outcome(&flights, inner);
        Posture {
            requested,
            mutual,
            confidence,
            outcome,
            refused_under_cover,
            established: flights.established,
            inside,
            inner,
        }
    }

    /// Up to TLS 1.2 record types say where the handshake ends.
    fn open_flights(&self) -> Flights<'_> {
        let (client, server) = (self.client(), self.server());
        let data = client.sealed.count > 0 || server.sealed.count > 0;
        let established = data || (client.finished && server.finished);
        let refused = self.first_alert.filter(|_| !established);
        let application = Some((client.sealed.lengths(), server.sealed.lengths()));
        Flights { established, refused, application }
    }

    /// In TLS 1.3 the flights end with a record of Finished's length, in one of the few places where it can be.
    fn hidden_flights(&self) -> Flights<'_> {
        let (client, server) = (self.client().sealed.lengths(), self.server().sealed.lengths());
        let lengths = self.lengths();
        let after = |sent, within| Some(finished_at(sent, within, lengths?)? + 1);
        let (client_next, server_next) = (after(client, 3), after(server, LONGEST_FLIGHT));
        let goes_on = |sent: &[u16]| sent.iter().filter(|&&length| !self.is_alert_sized(length)).count();
        let established = match server_next.and_then(|next| server.get(next..)) {
            // A server says nothing more until the client is done and its certificate is judged.
            Some(rest) => !client.is_empty() && rest.first().is_some_and(|&length| !self.is_alert_sized(length)),
            // Messages that share records: two records each way are more than such a handshake has.
            None => goes_on(client) >= 2 && goes_on(server) >= 2,
        };
        let lost = (self.client().lost || self.server().lost) && client.len().max(server.len()) > LONGEST_FLIGHT;
        let application =
            client_next.and_then(|next| client.get(next..)).zip(server_next.and_then(|next| server.get(next..)));
        let established = established || lost;
        Flights { established, refused: self.first_alert.filter(|_| !established), application }
    }

    fn open_authentication(&self) -> (Answer, Answer, Confidence) {
        let (client, server) = (self.client(), self.server());
        let given = client.certificate;
        let requested = if server.certificate_request || given.is_some() {
            Answer::Yes
        } else if server.hello_done {
            Answer::No
        } else {
            Answer::Unknown
        };
        // A client certificate is never asked for by a server that has none (RFC 5246, section 7.4.4).
        let mutual = match (requested, given) {
            (_, Some(true)) => Answer::Yes,
            (Answer::No, _) | (_, Some(false)) => Answer::No,
            _ => Answer::Unknown,
        };
        (requested, mutual, Confidence::Certain)
    }

    /// A server that asks sends five records, one that does not sends four; the client answers with three (certificate,
    /// proof, Finished), two (empty certificate, Finished) or one. A HelloRetryRequest comes before all of them, in clear.
    fn hidden_authentication(&self) -> (Answer, Answer, Confidence) {
        let unknown = (Answer::Unknown, Answer::Unknown, Confidence::Certain);
        let Some(lengths) = self.lengths().filter(|_| !self.mid_stream) else { return unknown };
        let (client, server) = (self.client().sealed.lengths(), self.server().sealed.lengths());
        let asked = match finished_at(server, LONGEST_FLIGHT, lengths) {
            Some(3) => Some(false),
            Some(4) => Some(true),
            // Resumption has two records, and proves nothing about certificates.
            Some(_) => return unknown,
            None => None,
        };
        let empty = client.first() == Some(&(EMPTY_CERTIFICATE + lengths.overhead));
        let given = match finished_at(client, 3, lengths) {
            Some(2) if !empty => Some(true),
            Some(1) if empty => Some(false),
            Some(0) => None,
            Some(_) => return unknown,
            // Not seen whole.
            None if asked == Some(true) => return (Answer::Yes, Answer::Unknown, Confidence::Likely),
            None => return unknown,
        };
        match (asked, given) {
            (Some(true), Some(true)) => (Answer::Yes, Answer::Yes, Confidence::Likely),
            (Some(true), Some(false)) => (Answer::Yes, Answer::No, Confidence::Likely),
            (Some(false), None) => (Answer::No, Answer::No, Confidence::Likely),
            // The server's flight was not in the capture, or not in this style; the client's alone is one reading.
            (None, Some(true)) if self.server().lost => (Answer::Yes, Answer::Yes, Confidence::Possible),
            (None, Some(false)) if self.server().lost => (Answer::Yes, Answer::No, Confidence::Possible),
            _ => unknown,
        }
    }

    fn outcome(&self, flights: &Flights<'_>, inner: Option<Inner>) -> (TlsOutcome, bool) {
        if self.mid_stream {
            return (TlsOutcome::Unseen, false);
        }
        if self.not_tls {
            return (TlsOutcome::NotTls, false);
        }
        for (sent, outcome) in self.sent.iter().zip([TlsOutcome::RefusedByClient, TlsOutcome::RefusedByServer]) {
            if sent.alert.is_some() && !flights.established {
                return (outcome, false);
            }
        }
        let refusal = |side| match side {
            Side::Initiator => TlsOutcome::RefusedByClient,
            Side::Acceptor => TlsOutcome::RefusedByServer,
        };
        if let Some(side) = flights.refused {
            return (refusal(side), true);
        }
        match inner.map(|inner| inner.outcome) {
            Some(HandshakeOutcome::Ok) => return (TlsOutcome::Ok, false),
            Some(HandshakeOutcome::BadCookie) => return (TlsOutcome::BadCookie, false),
            _ if flights.established => return (TlsOutcome::Established, false),
            _ => {}
        }
        let lost = self.client().lost || self.server().lost;
        let outcome = match self.closed {
            _ if self.client().lost && self.server().lost => TlsOutcome::Unseen,
            Some(_) if lost => TlsOutcome::Unseen,
            Some(_) if self.unanswered => TlsOutcome::NotTls,
            Some(Some(side)) if self.client().hello => refusal(side),
            _ => TlsOutcome::Incomplete,
        };
        (outcome, false)
    }

    /// Follows the lengths of application data through the steps of a distribution handshake.
    fn inside(&self, client: &[u16], server: &[u16], lengths: Lengths) -> (Answer, Option<Inner>) {
        // `{packet,4}` from the first message on: four octets of length in front of each.
        let plain = |length: u16| length.checked_sub(lengths.overhead).and_then(|length| length.checked_sub(4));
        let mut inner = Inner::default();
        let no = (Answer::No, None);

        let Some(&first) = client.first() else { return (Answer::Unknown, None) };
        let Some(name) = plain(first).filter(|length| SEND_NAME.contains(length)) else { return no };
        inner.initiator_name_len = name.checked_sub(15);
        let Some(&first) = server.first() else { return (Answer::Unknown, None) };
        let Some(status) = plain(first) else { return self.ended_early(inner) };
        match STATUSES.iter().find(|(length, _)| *length == status) {
            Some((_, Some(outcome))) => {
                // The server is done after it; anything more is something else. Two lengths are too few to say Yes.
                inner.outcome = *outcome;
                return if server.get(1).and_then(|&length| plain(length)).is_some() {
                    no
                } else {
                    (Answer::Unknown, Some(inner))
                };
            }
            Some((_, None)) => {}
            None if is_given_name(status, inner) => {}
            None => return no,
        }
        let Some(&second) = server.get(1) else { return (Answer::Unknown, Some(inner)) };
        let Some(challenge) = plain(second) else { return self.ended_early(inner) };
        if !CHALLENGE.contains(&challenge) {
            return no;
        }
        inner.acceptor_name_len = challenge.checked_sub(19);
        // In between may come the answer to `alive`, or the complement to an old name message.
        let place = usize::from(
            client.get(1).and_then(|&length| plain(length)).is_some_and(|length| BETWEEN.contains(&length)),
        );
        let Some(&reply) = client.get(1 + place) else { return (Answer::Unknown, Some(inner)) };
        match plain(reply) {
            Some(REPLY) => {}
            Some(_) => return no,
            None => return self.ended_early(inner),
        }
        let cut_off = match server.get(2) {
            Some(&ack) => match plain(ack) {
                Some(ACK) => {
                    inner.outcome = HandshakeOutcome::Ok;
                    false
                }
                Some(_) => return no,
                None => self.first_alert == Some(Side::Acceptor),
            },
            None => self.is_ended_by(Side::Acceptor) && !self.server().lost,
        };
        if cut_off {
            inner.outcome = HandshakeOutcome::BadCookie;
        }
        (Answer::Yes, Some(inner))
    }

    /// A record too short for any message: an alert, which ends what was begun.
    fn ended_early(&self, inner: Inner) -> (Answer, Option<Inner>) {
        let answer = if self.first_alert.is_some() { Answer::Unknown } else { Answer::No };
        (answer, Some(inner).filter(|_| answer == Answer::Unknown))
    }

    /// Whether this side ended it: by the first alert, or without one by the first close.
    fn is_ended_by(&self, side: Side) -> bool {
        self.first_alert.map_or(self.closed == Some(Some(side)), |first| first == side)
    }
}

/// Octets of a name message: version 5 with the shortest name up to version 6 with the longest and its host.
const SEND_NAME: std::ops::RangeInclusive<u16> = 8..=15 + MAX_NODE_NAME;
/// Octets of a challenge, likewise.
const CHALLENGE: std::ops::RangeInclusive<u16> = 11..=19 + MAX_NODE_NAME;
/// 255 characters of at most four octets, `@`, and a DNS name.
const MAX_NODE_NAME: u16 = 1020 + 1 + 255;
/// Octets of a random alive name (64 bits in base 36, up to 13 digits, with room for other runtimes) and the `@`.
const RANDOM_PART: std::ops::RangeInclusive<u16> = 2..=20;
/// Octets of challenge_reply: tag, challenge, digest.
const REPLY: u16 = 21;
/// Octets of challenge_ack: tag, digest.
const ACK: u16 = 17;
/// Octets of what a client may send before challenge_reply: `strue`, `sfalse`, and the complement of an old name message.
const BETWEEN: [u16; 3] = [5, 6, 9];
/// Octets of the statuses with the outcome of those that end the handshake: `ok`, `ok_simultaneous`, `alive`, `nok`,
/// `not_allowed`, each after the tag `s`.
const STATUSES: [(u16, Option<HandshakeOutcome>); 5] =
    [(3, None), (16, None), (6, None), (4, Some(HandshakeOutcome::Nok)), (12, Some(HandshakeOutcome::NotAllowed))];

/// `snamed:`, two octets of length, the name, four octets of creation. The client had sent its host alone, so that the
/// name is longer by the random part and the `@`.
fn is_given_name(status: u16, inner: Inner) -> bool {
    let added = status.checked_sub(13).zip(inner.initiator_name_len).and_then(|(given, host)| given.checked_sub(host));
    added.is_some_and(|added| RANDOM_PART.contains(&added))
}

/// Where a handshake in TLS ends and what follows it.
#[derive(Clone, Copy, Debug, Default)]
struct Flights<'a> {
    established: bool,
    /// Who ended it before that, by an encrypted alert.
    refused: Option<Side>,
    /// Lengths of the client's and the server's records after the handshake, where its end is known.
    application: Option<(&'a [u16], &'a [u16])>,
}

/// The place of Finished among the first records.
fn finished_at(sent: &[u16], within: usize, lengths: Lengths) -> Option<usize> {
    sent.iter().take(within).position(|&length| length == lengths.finished)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GCM: (u16, u16) = (0x0303, 0xc02c);
    const TLS13: (u16, u16) = (0x0304, 0x1302);

    fn view((version, cipher): (u16, u16), client: &[u16], server: &[u16]) -> View {
        let mut view = View { version: Some(version), cipher: Some(cipher), ..View::default() };
        for (sent, lengths) in view.sent.iter_mut().zip([client, server]) {
            sent.hello = true;
            for &length in lengths {
                sent.sealed.push(length);
            }
        }
        view
    }

    fn authentication(client: &[u16], server: &[u16]) -> (Answer, Answer) {
        let posture = view(TLS13, client, server).judge();
        assert!(posture.confidence == Confidence::Likely || posture.mutual == Answer::Unknown);
        (posture.requested, posture.mutual)
    }

    #[test]
    fn the_flights_of_tls_13_tell_whether_certificates_were_asked_for_and_given() {
        assert_eq!(authentication(&[69], &[23, 819, 281, 69]), (Answer::No, Answer::No));
        assert_eq!(authentication(&[1599, 281, 69], &[23, 89, 1599, 281, 69]), (Answer::Yes, Answer::Yes));
        assert_eq!(authentication(&[25, 69], &[23, 89, 1599, 281, 69]), (Answer::Yes, Answer::No));
    }

    #[test]
    fn flights_in_another_style_tell_nothing() {
        let unknown = (Answer::Unknown, Answer::Unknown);
        assert_eq!(authentication(&[69], &[1200]), unknown, "all in one record");
        assert_eq!(authentication(&[69], &[23, 69]), unknown, "resumption");
        assert_eq!(
            authentication(&[1599, 281, 69], &[23, 819, 281, 69]),
            unknown,
            "flights that contradict each other"
        );
    }

    #[test]
    fn a_handshake_in_another_style_is_still_seen_to_be_done_or_refused() {
        let outcome = |client: &[u16], server: &[u16], first_alert| {
            let mut view = view(TLS13, client, server);
            view.first_alert = first_alert;
            view.judge().outcome
        };
        assert_eq!(outcome(&[69], &[1200], None), TlsOutcome::Incomplete);
        assert_eq!(outcome(&[69, 300], &[1200, 250, 250], None), TlsOutcome::Established);
        assert_eq!(outcome(&[69, 300], &[1200, 900, 19], Some(Side::Acceptor)), TlsOutcome::Established, "a goodbye");
        assert_eq!(outcome(&[90], &[1200, 19], Some(Side::Acceptor)), TlsOutcome::RefusedByServer);
        assert_eq!(outcome(&[19], &[1200], Some(Side::Initiator)), TlsOutcome::RefusedByClient);
        assert_eq!(outcome(&[1300, 300], &[23, 89, 819, 281, 69, 250], None), TlsOutcome::Established);
    }

    #[test]
    fn an_empty_certificate_that_is_refused_is_told() {
        let mut view = view(TLS13, &[25, 69, 44], &[23, 89, 1599, 281, 69, 19]);
        view.first_alert = Some(Side::Acceptor);
        let posture = view.judge();
        assert_eq!((posture.outcome, posture.refused_under_cover), (TlsOutcome::RefusedByServer, true));
        assert_eq!((posture.requested, posture.mutual), (Answer::Yes, Answer::No));
        assert_eq!(posture.inside, Answer::Unknown);
    }

    #[test]
    fn the_lengths_of_a_distribution_handshake_are_recognised_in_both_versions() {
        for view in [
            view(GCM, &[51, 49], &[31, 55, 45]),
            view(TLS13, &[69, 44, 42], &[23, 819, 281, 69, 24, 48, 38]),
            view((0x0303, 0xcca9), &[43, 41], &[23, 47, 37]),
        ] {
            let posture = view.judge();
            assert_eq!((posture.inside, posture.outcome), (Answer::Yes, TlsOutcome::Ok), "{view:?}");
            let inner = posture.inner.unwrap();
            assert_eq!((inner.initiator_name_len, inner.acceptor_name_len), (Some(8), Some(8)));
        }
    }

    #[test]
    fn a_missing_ack_and_a_close_by_the_acceptor_are_a_bad_cookie() {
        let mut closed = view(GCM, &[51, 49], &[31, 55]);
        assert_eq!((closed.judge().inside, closed.judge().outcome), (Answer::Yes, TlsOutcome::Established));
        closed.closed = Some(Some(Side::Acceptor));
        assert_eq!(closed.judge().outcome, TlsOutcome::BadCookie);
        closed.closed = Some(Some(Side::Initiator));
        assert_eq!(closed.judge().outcome, TlsOutcome::Established);
        closed.first_alert = Some(Side::Acceptor);
        assert_eq!(closed.judge().outcome, TlsOutcome::BadCookie);

        let mut alert = view(TLS13, &[69, 44, 42], &[23, 819, 281, 69, 24, 48, 19]);
        alert.first_alert = Some(Side::Acceptor);
        assert_eq!(alert.judge().outcome, TlsOutcome::BadCookie);
        alert.first_alert = Some(Side::Initiator);
        assert_eq!(alert.judge().outcome, TlsOutcome::Established);
    }

    #[test]
    fn other_application_data_is_not_taken_for_distribution() {
        let others: [(&[u16], &[u16]); 4] =
            [(&[120, 49], &[500, 55]), (&[26, 49], &[31, 55]), (&[51, 50], &[31, 55]), (&[51, 49], &[31, 55, 46])];
        for (client, server) in others {
            let posture = view(GCM, client, server).judge();
            assert_eq!(
                (posture.inside, posture.outcome),
                (Answer::No, TlsOutcome::Established),
                "{client:?} {server:?}"
            );
        }
        assert_eq!(view((0x0303, 0xc014), &[51, 49], &[31, 55, 45]).judge().inside, Answer::Unknown, "CBC pads");
    }

    #[test]
    fn refusals_by_status_and_given_names_are_followed() {
        let refused = view(GCM, &[51], &[24 + 4 + 12]).judge();
        assert_eq!(refused.inner.map(|inner| inner.outcome), Some(HandshakeOutcome::NotAllowed));
        // send_name with the host alone (6 octets), `named:` with 20 octets of name.
        let named = view(GCM, &[24 + 4 + 15 + 6, 49], &[24 + 4 + 13 + 20, 55, 45]).judge();
        assert_eq!(named.outcome, TlsOutcome::Ok);
        let old = view(GCM, &[24 + 4 + 7 + 8, 24 + 4 + 9, 49], &[31, 55, 45]).judge();
        assert_eq!(old.outcome, TlsOutcome::Ok);
    }
}
