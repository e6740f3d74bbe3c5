//! TLS as seen from outside: what was negotiated, who proved who it is, and whether distribution runs inside.
//!
//! Ciphertext is never kept and never buffered: of an encrypted record only the length matters. Memory is bounded by
//! one handshake message of each side and the certificates that are reported.

mod certificate;
pub mod ciphers;
mod handshake;
mod posture;
mod records;

use std::time::Duration;

use tls_parser::TlsAlertDescription;

use crate::model::{Answer, CertificateOwner, HandshakeOutcome, Tls, TlsOutcome};
use crate::notice::{Notice, NoticeKind, Notices};
use crate::packet::{At, Side};
use crate::time::Timestamp;

use handshake::{Message, Messages};
use posture::{Posture, View};
use records::{Header, Piece, Records};

pub use posture::Inner;
pub use records::{looks_like_alert, looks_like_client_hello, looks_like_records};

/// Certificates that are reported of each side: real chains have up to five.
pub const MAX_CERTIFICATES: usize = 8;
/// For how long a ClientHello must have waited for its first octet of an answer until the silence shows that the other
/// side does not speak TLS. A node in clear takes the hello for a length and waits for the rest, 7 s by default; a TLS
/// listener that does not want the client says so or closes within milliseconds.
const SILENCE: Duration = Duration::from_secs(1);

/// One TLS connection.
#[derive(Debug, Default)]
pub struct Session {
    facts: Tls,
    view: View,
    posture: Posture,
    directions: [Direction; 2],
    hello_at: Option<Timestamp>,
    /// There was a HelloRetryRequest.
    retried: bool,
    changed: bool,
    notices: Notices,
}

/// What is needed to read one side.
#[derive(Debug, Default)]
struct Direction {
    records: Records,
    messages: Messages,
    /// The level of an alert in clear, while its description is waited for.
    alert_level: Option<u8>,
    /// Records were read, so that what follows must be one.
    in_step: bool,
}

impl Session {
    /// A connection of which nothing has been read. `mid_stream`: its beginning is not in the capture.
    #[must_use]
    pub fn new(mid_stream: bool) -> Self {
        let mut session = Self { view: View { mid_stream, ..View::default() }, ..Self::default() };
        session.conclude();
        session.changed = false;
        session
    }

    /// Takes the next octets of one side, in any portions.
    pub fn handle_data(&mut self, at: &At, side: Side, mut data: &[u8]) {
        if data.is_empty() || self.view.closed.is_some() {
            return;
        }
        self.sent(side).anything = true;
        while !self.sent(side).lost {
            match self.direction(side).records.next(&mut data) {
                Ok(None) => break,
                Ok(Some(Piece::Begin(header))) => self.begin_record(side, header),
                Ok(Some(Piece::Body(header, body))) => self.read_body(at, side, header, body),
                Err(records::NotARecord) => self.lose_step(at, side),
            }
        }
        self.conclude();
    }

    /// `octets` of one side were sent and not captured.
    pub fn handle_gap(&mut self, _at: &At, side: Side, octets: u64) {
        if octets == 0 || self.sent(side).lost || self.view.closed.is_some() {
            return;
        }
        self.sent(side).anything = true;
        let header = self.direction(side).records.skip(octets);
        // In a body that nobody reads, a hole does no harm.
        if !header.is_some_and(|header| self.is_sealed(side, header)) {
            self.lose(side);
        }
        self.conclude();
    }

    /// The connection ended; `closed_by` is the side that ended it first, where that is known.
    pub fn handle_close(&mut self, at: &At, closed_by: Option<Side>) {
        if self.view.closed.is_some() {
            return;
        }
        let waited = self.hello_at.is_some_and(|hello| at.time.since(hello) >= SILENCE);
        self.view.unanswered = waited && closed_by.is_some() && !self.view.sent.iter().all(|sent| sent.anything);
        self.view.closed = Some(closed_by);
        self.conclude();
    }

    /// What is known so far.
    #[must_use]
    pub const fn facts(&self) -> &Tls {
        &self.facts
    }

    /// What record lengths tell of the distribution handshake inside.
    #[must_use]
    pub const fn inner(&self) -> Option<&Inner> {
        self.posture.inner.as_ref()
    }

    /// The TLS handshake is done: application data can flow.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        self.posture.established
    }

    /// The outcome stands, and so does the one of the handshake inside, as far as it can be known.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        let inside_is_open = self.posture.inside != Answer::No && self.can_look_inside();
        match self.facts.outcome {
            TlsOutcome::Incomplete => self.view.closed.is_some(),
            TlsOutcome::Established => self.view.closed.is_some() || !inside_is_open,
            _ => true,
        }
    }

    /// Whether something worth an event became known since the last call.
    pub fn changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Nothing more will be learned: further octets need only be counted. The end of the connection is still wanted.
    #[must_use]
    pub fn finished_looking(&self) -> bool {
        let [client, server] = &self.view.sent;
        if self.view.closed.is_some() || (client.lost && server.lost) {
            return true;
        }
        match self.facts.outcome {
            // The record's version is all that the middle of a connection tells.
            TlsOutcome::Unseen => self.directions.iter().any(|direction| direction.in_step),
            TlsOutcome::Incomplete => false,
            // The server's hello may have been captured behind what the client answered to it.
            TlsOutcome::Established => {
                self.is_decided() && (server.hello || server.lost || self.view.mid_stream || client.sealed.is_full())
            }
            _ => true,
        }
    }

    /// The next remark.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.poll()
    }

    /// Bytes held, with the buffers.
    #[must_use]
    pub fn memory(&self) -> usize {
        let messages: usize = self.directions.iter().map(|direction| direction.messages.memory()).sum();
        let certificates: usize = self.facts.certificates.iter().map(certificate_memory).sum();
        size_of::<Self>()
            + messages
            + certificates
            + self.notices.memory()
            + self.facts.sni.as_ref().map_or(0, String::len)
    }

    fn can_look_inside(&self) -> bool {
        let [client, server] = &self.view.sent;
        let known = match (self.view.version, self.view.cipher) {
            (Some(version), Some(cipher)) => ciphers::lengths(version, cipher).is_some(),
            _ => false,
        };
        // The handshake inside is over long before as many records went by.
        let begins = !client.sealed.is_full() && !server.sealed.is_full();
        known && begins && !client.lost && !server.lost && !self.view.mid_stream
    }

    fn begin_record(&mut self, side: Side, header: Header) {
        let first = !self.direction(side).in_step;
        self.direction(side).in_step = true;
        if first && self.view.mid_stream {
            self.begin_mid_stream(header);
        }
        let sealed = self.is_sealed(side, header);
        let alert = sealed
            && (header.content_type == records::ALERT
                || (header.content_type == records::APPLICATION_DATA && self.view.is_alert_sized(header.length)));
        if alert && self.view.first_alert.is_none() {
            self.view.first_alert = Some(side);
        }
        let retried = self.retried && side == Side::Acceptor && !self.sent(side).hello;
        let sent = self.sent(side);
        match header.content_type {
            // Between HelloRetryRequest and the second hello it is a dummy for middleboxes (RFC 8446, appendix D.4).
            records::CHANGE_CIPHER_SPEC if !retried => sent.change_cipher_spec = true,
            records::HANDSHAKE if sealed => sent.finished = true,
            records::APPLICATION_DATA => sent.sealed.push(header.length),
            _ => {}
        }
    }

    /// The first record of a connection whose beginning was not captured.
    fn begin_mid_stream(&mut self, header: Header) {
        match header.content_type {
            // Still in the handshake: everything that matters may be to come.
            records::HANDSHAKE => self.view.mid_stream = false,
            // From TLS 1.2 on the record's version says no more than "1.2 or later".
            records::APPLICATION_DATA if header.version < 0x0303 => {
                self.facts.version = ciphers::version_name(header.version).map(str::to_owned);
                self.changed = true;
            }
            _ => {}
        }
    }

    /// Whether the record is encrypted, so that only its length matters.
    fn is_sealed(&self, side: Side, header: Header) -> bool {
        let [client, server] = &self.view.sent;
        let sent = if side == Side::Initiator { client } else { server };
        match header.content_type {
            records::HANDSHAKE => {
                // In TLS 1.3 a handshake record is always in clear; the client's second hello follows its ChangeCipherSpec.
                sent.change_cipher_spec && self.view.version.is_none_or(|version| version < 0x0304)
            }
            records::ALERT => sent.change_cipher_spec && header.length > 2,
            _ => true,
        }
    }

    fn read_body(&mut self, at: &At, side: Side, header: Header, body: &[u8]) {
        if self.is_sealed(side, header) {
            return;
        }
        match header.content_type {
            records::HANDSHAKE => {
                let mut messages = std::mem::take(&mut self.direction(side).messages);
                messages.feed(body, &mut |message| self.read_message(at, side, message));
                self.direction(side).messages = messages;
            }
            records::ALERT => self.read_alert(side, body),
            _ => {}
        }
    }

    fn read_message(&mut self, at: &At, side: Side, message: Message<'_>) {
        let Some(body) = message.body else {
            self.notices.push(at, side, NoticeKind::Limit("tls_handshake_message"));
            return;
        };
        let read = match (message.kind, side) {
            (handshake::CLIENT_HELLO, Side::Initiator) => self.read_client_hello(at, body),
            (handshake::SERVER_HELLO, Side::Acceptor) => self.read_server_hello(body),
            (handshake::CERTIFICATE, _) => self.read_certificates(at, side, body),
            (handshake::CERTIFICATE_REQUEST, Side::Acceptor) => {
                self.sent(side).certificate_request = true;
                Ok(())
            }
            (handshake::SERVER_HELLO_DONE, Side::Acceptor) => {
                self.sent(side).hello_done = true;
                Ok(())
            }
            (handshake::CLIENT_HELLO | handshake::SERVER_HELLO, _) => {
                let what = "a hello of the other side's kind".to_owned();
                self.notices.push(at, side, NoticeKind::Violation(what));
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(what) = read {
            self.notices.push(at, side, NoticeKind::Undecodable(format!("{what} cannot be read")));
        }
    }

    fn read_client_hello(&mut self, at: &At, body: &[u8]) -> Result<(), &'static str> {
        // A second one, after a HelloRetryRequest, asks for the same name.
        if self.view.sent.first().is_some_and(|client| client.hello) {
            return Ok(());
        }
        self.facts.sni = handshake::server_name(body)?;
        self.sent(Side::Initiator).hello = true;
        self.hello_at = Some(at.time);
        self.changed = true;
        Ok(())
    }

    fn read_server_hello(&mut self, body: &[u8]) -> Result<(), &'static str> {
        let choice = handshake::choice(body)?;
        self.view.version = Some(choice.version);
        self.view.cipher = Some(choice.cipher);
        if choice.retry {
            self.retried = true;
            return Ok(());
        }
        self.sent(Side::Acceptor).hello = true;
        let version = ciphers::version_name(choice.version);
        self.facts.version = Some(version.map_or_else(|| format!("0x{:04x}", choice.version), str::to_owned));
        self.facts.cipher = Some(ciphers::name(choice.cipher));
        self.changed = true;
        Ok(())
    }

    fn read_certificates(&mut self, at: &At, side: Side, body: &[u8]) -> Result<(), &'static str> {
        let chain = handshake::certificates(body)?;
        if self.sent(side).certificate.is_some() {
            return Ok(());
        }
        self.sent(side).certificate = Some(!chain.is_empty());
        let owner = match side {
            Side::Initiator => CertificateOwner::Client,
            Side::Acceptor => CertificateOwner::Server,
        };
        let mut read = Ok(());
        for (der, position) in chain.iter().take(MAX_CERTIFICATES).zip(0..) {
            match certificate::read(der, owner, position) {
                Some(certificate) => self.facts.certificates.push(certificate),
                None => read = Err("a certificate"),
            }
        }
        if chain.len() > MAX_CERTIFICATES {
            self.notices.push(at, side, NoticeKind::Limit("tls_certificates"));
        }
        self.changed = true;
        read
    }

    fn read_alert(&mut self, side: Side, body: &[u8]) {
        for &octet in body {
            let direction = self.direction(side);
            let Some(level) = direction.alert_level.take() else {
                direction.alert_level = Some(octet);
                continue;
            };
            // A warning other than close_notify does not end anything.
            let ends = level == FATAL || octet == CLOSE_NOTIFY;
            if ends && self.view.sent.iter().all(|sent| sent.alert.is_none()) {
                self.sent(side).alert = Some(octet);
            }
        }
    }

    /// The octets are no record. From a server that never sent one: it does not speak TLS.
    fn lose_step(&mut self, at: &At, side: Side) {
        if self.direction(side).in_step {
            self.notices.push(at, side, NoticeKind::Violation("octets between TLS records".into()));
        } else if side == Side::Acceptor && !self.view.mid_stream {
            self.view.not_tls = true;
        }
        self.lose(side);
    }

    fn lose(&mut self, side: Side) {
        self.sent(side).lost = true;
        self.direction(side).messages = Messages::default();
    }

    /// Judges anew and takes note of what is different.
    fn conclude(&mut self) {
        let posture = self.view.judge();
        if posture == self.posture {
            return;
        }
        // What an event is made for; the lengths of names alone are not.
        let told = |posture: &Posture| {
            let inner = posture.inner.map_or(HandshakeOutcome::Incomplete, |inner| inner.outcome);
            (posture.requested, posture.mutual, posture.outcome, posture.inside, inner)
        };
        self.changed |= told(&posture) != told(&self.posture);
        self.posture = posture;
        self.facts.client_certificate_requested = posture.requested;
        self.facts.mutual_auth = posture.mutual;
        self.facts.mutual_auth_confidence = posture.confidence;
        self.facts.outcome = posture.outcome;
        self.facts.distribution_inside = posture.inside;
        self.facts.alert = self.alert_in_words();
    }

    fn alert_in_words(&self) -> Option<String> {
        let who = match self.facts.outcome {
            TlsOutcome::RefusedByClient => Side::Initiator,
            TlsOutcome::RefusedByServer => Side::Acceptor,
            _ => return None,
        };
        let name = if who == Side::Initiator { "client" } else { "server" };
        let sent = self.view.sent.get(who.index())?;
        match sent.alert {
            Some(description) => Some(format!("{} from the {name}", alert_name(description))),
            None if self.posture.refused_under_cover => Some(format!("encrypted alert from the {name}")),
            None => None,
        }
    }

    fn sent(&mut self, side: Side) -> &mut posture::Sent {
        let [client, server] = &mut self.view.sent;
        if side == Side::Initiator { client } else { server }
    }

    fn direction(&mut self, side: Side) -> &mut Direction {
        let [client, server] = &mut self.directions;
        if side == Side::Initiator { client } else { server }
    }
}

/// Level of an alert that ends the connection (RFC 8446, section 6).
const FATAL: u8 = 2;
/// The alert that says goodbye.
const CLOSE_NOTIFY: u8 = 0;

/// The alert's name in the standard, such as `certificate_expired`.
fn alert_name(description: u8) -> String {
    let camel = TlsAlertDescription(description).to_string();
    if camel.contains('(') {
        return format!("alert {description}");
    }
    let mut name = String::new();
    for character in camel.chars() {
        if character.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}

fn certificate_memory(certificate: &crate::model::Certificate) -> usize {
    let names: usize = certificate.names.iter().map(|name| size_of::<String>() + name.len()).sum();
    let strings = certificate.subject.len() + certificate.issuer.len() + certificate.sha256.len();
    size_of::<crate::model::Certificate>() + strings + names
}

#[cfg(test)]
mod tests;
