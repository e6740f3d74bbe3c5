//! Handshake messages in clear: from record bodies to the few facts that matter. The one user of tls-parser's messages.
//!
//! ```text
//! u8 type | u24 length | body …        (RFC 8446, section 4; RFC 5246, section 7.4)
//! ```

use tls_parser::{
    SNIType, TlsExtension, TlsMessageHandshake, parse_tls_extension_sni_content, parse_tls_handshake_client_hello,
    parse_tls_handshake_msg_certificate, parse_tls_handshake_server_hello,
};

use crate::text::printable;
use crate::wire::Reader;

/// ClientHello.
pub(super) const CLIENT_HELLO: u8 = 1;
/// ServerHello, and HelloRetryRequest.
pub(super) const SERVER_HELLO: u8 = 2;
/// Certificate.
pub(super) const CERTIFICATE: u8 = 11;
/// CertificateRequest.
pub(super) const CERTIFICATE_REQUEST: u8 = 13;
/// ServerHelloDone.
pub(super) const SERVER_HELLO_DONE: u8 = 14;

/// Longest message that is read. A certificate chain has some KB; a message beyond it is passed over and said.
pub(super) const MAX_MESSAGE: usize = 64 << 10;
/// Bytes of a server name: the longest DNS name.
const SNI_TEXT: usize = 255;

/// The random of a ServerHello that is a HelloRetryRequest: SHA-256 of that word (RFC 8446, section 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// A message that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// Its type.
    pub(super) kind: u8,
    /// Its body; `None` where it was longer than [`MAX_MESSAGE`]. Empty for types of which only the presence matters.
    pub(super) body: Option<&'a [u8]>,
}

/// Puts messages together: one record may hold several, and one message may take several records.
#[derive(Debug, Default)]
pub(super) struct Messages {
    header: [u8; 4],
    have: usize,
    remaining: usize,
    oversized: bool,
    buffer: Vec<u8>,
}

impl Messages {
    /// Takes octets of handshake records and hands over the messages that they complete.
    pub(super) fn feed(&mut self, mut data: &[u8], take: &mut dyn FnMut(Message<'_>)) {
        loop {
            while let Some(slot) = self.header.get_mut(self.have) {
                let Some((first, rest)) = data.split_first() else { return };
                *slot = *first;
                data = rest;
                self.have += 1;
                if self.have == self.header.len() {
                    let [kind, lengths @ ..] = self.header;
                    self.remaining = lengths.iter().fold(0, |length, &octet| length << 8 | usize::from(octet));
                    self.oversized = is_read(kind) && self.remaining > MAX_MESSAGE;
                }
            }
            let [kind, ..] = self.header;
            let kept = is_read(kind) && !self.oversized;
            let taken = self.remaining.min(data.len());
            let (body, rest) = data.split_at_checked(taken).unwrap_or((data, &[]));
            data = rest;
            self.remaining = self.remaining.saturating_sub(taken);
            let complete = self.remaining == 0;
            if kept && !(complete && self.buffer.is_empty()) {
                self.buffer.extend_from_slice(body);
            }
            if !complete {
                return;
            }
            let whole = if self.buffer.is_empty() { body } else { &self.buffer };
            let body = if self.oversized { None } else { Some(if kept { whole } else { &[] }) };
            take(Message { kind, body });
            self.buffer = Vec::new();
            self.have = 0;
        }
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.buffer.capacity()
    }
}

/// Whether the body of such a message is read.
const fn is_read(kind: u8) -> bool {
    matches!(kind, CLIENT_HELLO | SERVER_HELLO | CERTIFICATE)
}

/// The server name that a ClientHello asks for. `Err` where the message cannot be read.
pub(super) fn server_name(body: &[u8]) -> Result<Option<String>, &'static str> {
    let (_, hello) = parse_tls_handshake_client_hello(body).map_err(|_| "ClientHello")?;
    let Some(content) = extension(hello.ext.unwrap_or_default(), 0) else { return Ok(None) };
    let Ok((_, TlsExtension::SNI(names))) = parse_tls_extension_sni_content(content) else {
        return Err("server_name extension");
    };
    let name = names.iter().find(|(kind, _)| *kind == SNIType::HostName);
    Ok(name.map(|(_, name)| printable(name, SNI_TEXT)))
}

/// What a ServerHello chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Version: that of the supported_versions extension, where it is there.
    pub(super) version: u16,
    /// Cipher suite.
    pub(super) cipher: u16,
    /// It asks for another ClientHello.
    pub(super) retry: bool,
}

/// Reads a ServerHello. `Err` where the message cannot be read.
pub(super) fn choice(body: &[u8]) -> Result<Choice, &'static str> {
    let (_, hello) = parse_tls_handshake_server_hello(body).map_err(|_| "ServerHello")?;
    let selected = extension(hello.ext.unwrap_or_default(), 43);
    let version = match selected {
        Some(content) => Reader::new(content).u16("selected version").map_err(|_| "supported_versions extension")?,
        None => hello.version.0,
    };
    Ok(Choice { version, cipher: hello.cipher.0, retry: hello.random == RETRY })
}

/// The certificates of a Certificate message up to TLS 1.2, the owner's own first. `Err` where it cannot be read.
pub(super) fn certificates(body: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    match parse_tls_handshake_msg_certificate(body) {
        Ok((_, TlsMessageHandshake::Certificate(content))) => {
            Ok(content.cert_chain.iter().map(|certificate| certificate.data).collect())
        }
        _ => Err("Certificate"),
    }
}

/// The content of the first extension of that number.
fn extension(extensions: &[u8], number: u16) -> Option<&[u8]> {
    let mut reader = Reader::new(extensions);
    while !reader.is_empty() {
        let found = reader.u16("extension").ok()?;
        let length = reader.u16("extension length").ok()?;
        let content = reader.bytes("extension", usize::from(length)).ok()?;
        if found == number {
            return Some(content);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(pieces: &[&[u8]]) -> Vec<(u8, Option<Vec<u8>>)> {
        let mut messages = Messages::default();
        let mut seen = Vec::new();
        for piece in pieces {
            messages.feed(piece, &mut |message| seen.push((message.kind, message.body.map(<[u8]>::to_vec))));
        }
        seen
    }

    #[test]
    fn messages_may_share_a_record_and_may_span_several() {
        let octets = [2, 0, 0, 3, 7, 8, 9, 14, 0, 0, 0, 13, 0, 0, 2, 1, 1, 11, 0, 0, 1, 5];
        let expected = [(2, Some(vec![7, 8, 9])), (14, Some(vec![])), (13, Some(vec![])), (11, Some(vec![5]))];
        assert_eq!(collect(&[&octets]), expected);
        let single: Vec<&[u8]> = octets.chunks(1).collect();
        assert_eq!(collect(&single), expected);
    }

    #[test]
    fn a_message_beyond_the_limit_is_passed_over_without_being_kept() {
        let mut messages = Messages::default();
        let mut seen = Vec::new();
        let mut take = |message: Message<'_>| seen.push((message.kind, message.body.is_some()));
        messages.feed(&[11, 0x10, 0, 0], &mut take);
        for _ in 0..16 {
            messages.feed(&[0; 65536], &mut take);
            assert_eq!(messages.memory(), 0);
        }
        messages.feed(&[14, 0, 0, 0], &mut take);
        assert_eq!(seen, [(11, false), (14, true)]);
    }
}
