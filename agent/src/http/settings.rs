//! What can be configured of the HTTP server, and what of it cannot be so.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The registered place of the daemon's HTTP server.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9469);

/// `[http]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether there is one.
    pub enabled: bool,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its certificate with the chain below the authority, in PEM form.
    pub tls_certificate: Option<PathBuf>,
    /// The certificate's key, in PEM form.
    pub tls_key: Option<PathBuf>,
    /// The file of the token that whoever asks must have.
    pub token_file: Option<PathBuf>,
    /// Off loopback without TLS or token: the operator has said so.
    pub insecure_off_loopback: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: LISTEN,
            tls_certificate: None,
            tls_key: None,
            token_file: None,
            insecure_off_loopback: false,
        }
    }
}

/// `[metrics]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// A series for each link, under a cap.
    pub per_link: bool,
}

/// Settings that do not go together, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {advice}")]
pub struct Fault {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub advice: String,
}

impl Settings {
    /// Whether only this host can reach it.
    #[must_use]
    pub fn is_on_loopback(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }

    /// Files that are read, and read again at SIGHUP.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.tls_certificate, &self.tls_key, &self.token_file];
        files.into_iter().filter(|_| self.enabled).filter_map(Option::as_deref)
    }

    /// Whether these settings can be in force.
    ///
    /// # Errors
    /// They do not go together, or would show the cluster to a network.
    pub fn check(&self) -> Result<(), Fault> {
        let fault = |what: String, advice: &str| Err(Fault { what, advice: advice.to_owned() });
        if !self.enabled {
            return Ok(());
        }
        match (&self.tls_certificate, &self.tls_key) {
            (Some(_), None) => return fault("tls_certificate is set and tls_key is not".into(), "TLS takes both"),
            (None, Some(_)) => return fault("tls_key is set and tls_certificate is not".into(), "TLS takes both"),
            _ => {}
        }
        let missing = match (self.tls_certificate.is_some(), self.token_file.is_some()) {
            (true, true) => return Ok(()),
            (false, false) => "neither TLS nor a token",
            (false, true) => "no TLS",
            (true, false) => "no token",
        };
        if self.is_on_loopback() || self.insecure_off_loopback {
            return Ok(());
        }
        fault(
            format!("{} can be reached from other hosts, and has {missing}", self.listen),
            "set tls_certificate, tls_key and token_file, listen on 127.0.0.1, or take the risk by \
             insecure_off_loopback = true",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_loopback_it_takes_tls_and_a_token_or_the_word_of_the_operator() {
        let off = |tls: bool, token: bool, insecure: bool| Settings {
            listen: "0.0.0.0:9469".parse().unwrap(),
            tls_certificate: tls.then(|| "c.pem".into()),
            tls_key: tls.then(|| "k.pem".into()),
            token_file: token.then(|| "token".into()),
            insecure_off_loopback: insecure,
            ..Settings::default()
        };
        assert_eq!(off(true, true, false).check(), Ok(()));
        for (tls, token) in [(false, false), (false, true), (true, false)] {
            let fault = off(tls, token, false).check().unwrap_err().to_string();
            assert!(fault.contains("0.0.0.0:9469") && fault.contains("insecure_off_loopback"), "{fault}");
            assert_eq!(off(tls, token, true).check(), Ok(()));
        }
        let switched_off = Settings { enabled: false, ..off(false, false, false) };
        assert_eq!(switched_off.check(), Ok(()));
    }

    #[test]
    fn loopback_is_loopback_in_either_family_and_in_one_within_the_other() {
        for (listen, on) in [
            ("127.0.0.1:1", true),
            ("127.8.8.8:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("[::]:1", false),
            ("0.0.0.0:1", false),
            ("10.0.0.1:1", false),
        ] {
            let settings = Settings { listen: listen.parse().unwrap(), ..Settings::default() };
            assert_eq!(settings.is_on_loopback(), on, "{listen}");
            assert_eq!(settings.check().is_ok(), on, "{listen}");
        }
    }

    #[test]
    fn a_certificate_without_its_key_is_a_fault() {
        let half = Settings { tls_key: Some("k.pem".into()), ..Settings::default() };
        assert!(half.check().unwrap_err().to_string().starts_with("tls_key is set and tls_certificate is not"));
    }
}
