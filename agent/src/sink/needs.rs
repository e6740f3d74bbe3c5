//! What sinks read, write and connect to once the daemon runs, for the sandbox that allows that and nothing else.

use std::path::{Path, PathBuf};

use super::nats;
use super::settings::{Settings, Transport};
use super::{http, spools};
use crate::privilege::folders;

/// Files and ports of some sinks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Folders that are read when sinks are started anew at SIGHUP: those of secrets and certificates, and those that the
    /// environment names in place of the system's authorities. A file that is
    /// replaced is another one, so it is its folder that is named.
    pub read: Vec<PathBuf>,
    /// Folders that are written: the spools', and those of files.
    pub write: Vec<PathBuf>,
    /// TCP ports that are connected to.
    pub connect: Vec<u16>,
}

/// The port of name servers, which are asked over TCP where an answer is long.
const DNS: u16 = 53;

/// Variables of the environment that name a proxy.
const PROXIES: [&str; 6] = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

impl Needs {
    /// Of these sinks. An address that is a secret and cannot be read has no port here; starting the sink tells why.
    #[must_use]
    pub fn of(sinks: &[Settings], state_dir: &Path) -> Self {
        let mut needs = Self::default();
        if sinks.is_empty() {
            return needs;
        }
        needs.write.push(spools(state_dir));
        for settings in sinks {
            needs.add(settings);
        }
        if !needs.connect.is_empty() {
            needs.connect.push(DNS);
            needs.connect.extend(PROXIES.iter().filter_map(|name| proxy_port(&std::env::var(name).ok()?)));
        }
        let own = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        needs.read.extend(own("SSL_CERT_FILE").into_iter().flat_map(|file| folders(Path::new(&file))));
        needs.read.extend(own("SSL_CERT_DIR").iter().flat_map(std::env::split_paths));
        for folders in [&mut needs.read, &mut needs.write] {
            folders.sort();
            folders.dedup();
        }
        needs.connect.sort_unstable();
        needs.connect.dedup();
        needs
    }

    /// Whether all that `others` need is among these.
    #[must_use]
    pub fn cover(&self, others: &Self) -> bool {
        others.read.iter().all(|folder| self.read.contains(folder))
            && others.write.iter().all(|folder| self.write.contains(folder))
            && others.connect.iter().all(|port| self.connect.contains(port))
    }

    fn add(&mut self, settings: &Settings) {
        let secrets = settings.secrets().into_iter().filter_map(|secret| secret.file.as_deref());
        self.read.extend(secrets.chain(settings.tls.files()).flat_map(folders));
        if settings.kind == "file" {
            self.write.extend(folders(&settings.file.path));
        }
        if settings.kind == "syslog" && settings.syslog.transport != Transport::Udp {
            let port = settings.syslog.address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            self.connect.extend(port);
        }
        let secret_url = settings.secret_url.read().ok().flatten();
        for url in settings.url.iter().chain(&secret_url) {
            let web = http::url(url).ok().and_then(|url| url.port_or_known_default());
            self.connect.extend(web.or_else(|| nats::port(url)));
        }
    }
}

/// The port of a proxy as it is written in the environment: also without a scheme, and with a user and a password.
fn proxy_port(text: &str) -> Option<u16> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let bare = match scheme.to_ascii_lowercase().as_str() {
        "https" => 443,
        "http" => 80,
        // SOCKS, in its versions.
        _ => 1080,
    };
    match host.rsplit_once(':') {
        Some((before, port)) if !before.contains(':') || before.ends_with(']') => port.parse().ok(),
        _ => (!host.is_empty()).then_some(bare),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(kind: &str, url: &str) -> Settings {
        let url = if url.is_empty() { Vec::new() } else { vec![url.to_owned()] };
        Settings { kind: kind.into(), url, ..Settings::default() }
    }

    #[test]
    fn without_sinks_nothing_is_needed() {
        assert_eq!(Needs::of(&[], Path::new("/state")), Needs::default());
    }

    #[test]
    fn ports_and_folders_are_those_of_the_sinks() {
        let mut file = sink("file", "");
        file.file.path = "/logs/out.ndjson".into();
        let mut loki = sink("loki", "https://loki.example");
        loki.auth.password.file = Some("/secrets/a".into());
        loki.tls.ca_file = Some("/secrets/ca.pem".into());
        let mut syslog = sink("syslog", "");
        syslog.syslog.address = "host:6514".into();
        let nats = sink("nats", "nats://broker");
        let needs = Needs::of(&[file, loki, syslog, nats], Path::new("/state"));
        assert_eq!(needs.write, [Path::new("/logs"), Path::new("/state/sinks")]);
        assert!(needs.read.contains(&PathBuf::from("/secrets")), "besides what the environment names");
        for port in [53, 443, 4222, 6514] {
            assert!(needs.connect.contains(&port), "{port}");
        }
    }

    #[test]
    fn a_proxy_is_written_in_many_ways() {
        for (text, port) in [
            ("http://proxy:3128", 3128),
            ("proxy:3128", 3128),
            ("http://me:p@ss:word@proxy.example:8080/", 8080),
            ("me:secret@proxy", 80),
            ("HTTPS://proxy", 443),
            ("http://[::1]:3128", 3128),
            ("http://[::1]", 80),
            ("socks5h://proxy", 1080),
        ] {
            assert_eq!(proxy_port(text), Some(port), "{text}");
        }
        assert_eq!(proxy_port("http://"), None);
    }
}
