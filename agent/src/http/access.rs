//! Who may ask: over TLS or not, by which name, and with which token.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use http::header::{AUTHORIZATION, HOST};
use http::{Request, StatusCode};
use ring::digest::{Digest, SHA256, digest};
use subtle::ConstantTimeEq as _;
use tokio_rustls::TlsAcceptor;

use super::answer::Problem;
use super::settings::Settings;
use super::tls;
use crate::key_files;

/// Fewer characters than this can be guessed.
const SHORTEST_TOKEN: usize = 16;

/// The rules for who comes in, as files have them.
pub(super) struct Door {
    /// TLS, where it is spoken.
    pub(super) tls: Option<TlsAcceptor>,
    token: Option<Token>,
    /// Only by a name of this host itself.
    only_by_own_names: bool,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Door {
    /// Reads certificate, key and token.
    ///
    /// # Errors
    /// A file cannot be read, or does not hold what it should.
    pub(super) fn open(settings: &Settings) -> Result<Self, String> {
        let token = settings.token_file.as_deref().map(Token::read).transpose()?;
        // Whoever has the token is no page of somebody else's.
        let only_by_own_names = token.is_none() && settings.is_on_loopback();
        Ok(Self { tls: tls::open(settings)?, token, only_by_own_names })
    }

    /// Whether nobody gets in without the token, and nobody reads it on the way.
    pub(super) const fn is_shut(&self) -> bool {
        self.tls.is_some() && self.token.is_some()
    }

    /// Whether the request is for this host by a name that only it has.
    ///
    /// Without this, any page in a browser on this host could read everything: its own name can be made to lead here (DNS
    /// rebinding), and then the browser takes the answers for the page's own.
    pub(super) fn check_host<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        if !self.only_by_own_names {
            return Ok(());
        }
        let named = request.headers().get(HOST).map(|host| host.to_str().unwrap_or("?"));
        let host = request.uri().host().or_else(|| named.map(without_port));
        match host {
            Some(host) if is_own_name(host) => Ok(()),
            _ => Err(Problem::new(
                StatusCode::MISDIRECTED_REQUEST,
                "ask by the name localhost or a loopback address, or configure a token",
            )),
        }
    }

    /// Whether the request has the token, where there is one. It is looked for in the header alone: addresses end up in logs.
    pub(super) fn check_token<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = request.headers().get(AUTHORIZATION).and_then(|header| {
            let (scheme, given) = header.as_bytes().split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(given)
        });
        match given {
            Some(given) if token.is(given.trim_ascii()) => Ok(()),
            Some(_) => Err(Problem::new(StatusCode::UNAUTHORIZED, "this is not the token")),
            None => Err(Problem::new(StatusCode::UNAUTHORIZED, "send the token: Authorization: Bearer …")),
        }
    }
}

/// The digest of the token; the token itself is not kept.
struct Token(Digest);

impl Token {
    fn read(file: &Path) -> Result<Self, String> {
        let text = key_files::text(file)?;
        let token = text.trim();
        let fault = |what: &str| Err(format!("{} {what}", file.display()));
        if token.len() < SHORTEST_TOKEN {
            return fault("has no token of 16 characters or more: `openssl rand -hex 32` makes one");
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return fault("has more than a token in it, or characters that no header can have");
        }
        Ok(Self::of(token.as_bytes()))
    }

    fn of(token: &[u8]) -> Self {
        Self(digest(&SHA256, token))
    }

    /// In the same time, whatever is given.
    fn is(&self, given: &[u8]) -> bool {
        digest(&SHA256, given).as_ref().ct_eq(self.0.as_ref()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

fn is_own_name(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => {
            let name = bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN_NAMES: Door = Door { tls: None, token: None, only_by_own_names: true };

    fn asked(host: &str) -> bool {
        let request = Request::get("/metrics").header(HOST, host).body(()).unwrap();
        OWN_NAMES.check_host(&request).is_ok()
    }

    #[test]
    fn on_loopback_only_its_own_names_are_answered() {
        for own in ["localhost", "localhost:9469", "127.0.0.1:9469", "127.9.9.9", "[::1]:9469", "[::1]", "LocalHost.:1"]
        {
            assert!(asked(own), "{own}");
        }
        for foreign in
            ["evil.example", "evil.example:9469", "localhost.evil.example", "10.0.0.1:9469", "[fe80::1]:1", "", ":"]
        {
            assert!(!asked(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_whole_address_in_the_request_counts_before_the_header_and_none_at_all_is_refused() {
        let whole = Request::get("http://evil.example/metrics").header(HOST, "localhost").body(()).unwrap();
        assert!(OWN_NAMES.check_host(&whole).is_err());
        assert!(OWN_NAMES.check_host(&Request::get("/metrics").body(()).unwrap()).is_err());
        let any = Door { tls: None, token: None, only_by_own_names: false };
        assert!(any.check_host(&Request::get("/").body(()).unwrap()).is_ok());
    }

    #[test]
    fn the_token_is_the_whole_token_and_stands_in_the_header() {
        let access = Door { tls: None, token: Some(Token::of(b"0123456789abcdef")), only_by_own_names: false };
        let asking = |header: &str| {
            let request = Request::get("/metrics?token=0123456789abcdef");
            let request = if header.is_empty() { request } else { request.header(AUTHORIZATION, header) };
            access.check_token(&request.body(()).unwrap()).is_ok()
        };
        for right in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef", "Bearer  0123456789abcdef"] {
            assert!(asking(right), "{right}");
        }
        for wrong in
            ["", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Basic 0123456789abcdef"]
        {
            assert!(!asking(wrong), "{wrong}");
        }
        assert!(!format!("{access:?}").contains("0123"));
    }

    #[test]
    fn a_token_file_has_one_token_that_is_worth_having() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            Token::read(file.path()).map(drop)
        };
        assert_eq!(read("0123456789abcdef\n"), Ok(()));
        for wrong in ["", "\n", "short", "0123456789abcdef 0123456789abcdef", "0123456789abcdef\nx", "0123456789äöü345"]
        {
            let error = read(wrong).unwrap_err();
            assert!(error.contains(file.path().to_str().unwrap()), "{error}");
            assert!(
                wrong.trim().is_empty() || !error.contains(wrong.trim()),
                "the file's content is no one's business"
            );
        }
        assert!(Token::read(Path::new("/nowhere/token")).is_err());
    }
}
