//! What is configured of a sink, checked. The default of each value is here; the file format is in `config`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use distwatch_engine::model::Severity;
use distwatch_engine::policy::Patterns;
use globset::GlobMatcher;
use ring::digest;

use crate::key_files;

/// One `[[sink]]`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name in logs, metrics and on disk; unique.
    pub name: String,
    /// The word for its kind, one of [`super::KINDS`].
    pub kind: String,
    /// The shape of a record.
    pub format: Format,
    /// Alerts below it are left out.
    pub severity: Severity,
    /// Kinds of record that it gets; the kind's own where it is empty.
    pub events: Patterns,
    /// Rules whose alerts it gets; all where it is empty.
    pub rules: Patterns,
    /// Records a second; what is above is withheld, and counted.
    pub rate_limit: Option<u32>,
    /// Records of a batch; the kind's own where it is not given.
    pub batch_records: Option<usize>,
    /// How long records wait for others; the kind's own where it is not given.
    pub batch_wait: Option<Duration>,
    /// The largest size of its spool.
    pub spool_limit: usize,
    /// When the spool is brought to the disk.
    pub fsync: Fsync,
    /// How long an answer may take.
    pub timeout: Duration,
    /// The first wait after a failure; each further one is twice as long.
    pub retry_first: Duration,
    /// The longest wait.
    pub retry_longest: Duration,
    /// The server, or several that each get everything.
    pub url: Vec<String>,
    /// The same where the address itself is a secret.
    pub secret_url: Secret,
    /// Whom to be, towards a server that asks for it.
    pub auth: Auth,
    /// Whom to believe, and as whom to come, over TLS.
    pub tls: Tls,
    /// Headers of requests, or of messages.
    pub headers: BTreeMap<String, String>,
    /// Headers whose values are secrets, in files.
    pub header_files: BTreeMap<String, Secret>,
    /// The same in variables of the environment.
    pub header_env: BTreeMap<String, Secret>,
    /// `otlp`: what it is spoken over.
    pub protocol: Protocol,
    /// `file`.
    pub file: FileSettings,
    /// `journald`: the socket.
    pub socket: PathBuf,
    /// `syslog`.
    pub syslog: SyslogSettings,
    /// `loki`.
    pub loki: LokiSettings,
    /// `alertmanager`.
    pub alertmanager: AlertmanagerSettings,
    /// `webhook`.
    pub webhook: WebhookSettings,
    /// `nats`: the subject, in which `{event_type}` and `{host}` stand for the record's own.
    pub subject: String,
}

impl Settings {
    /// All secrets that it has.
    pub(crate) fn secrets(&self) -> Vec<&Secret> {
        let alone = [&self.secret_url, &self.auth.password, &self.auth.token, &self.webhook.secret];
        alone.into_iter().chain(self.secret_headers().map(|(_, secret)| secret)).collect()
    }

    /// All headers whose values are secrets.
    pub(crate) fn secret_headers(&self) -> impl Iterator<Item = (&String, &Secret)> {
        self.header_files.iter().chain(&self.header_env)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: String::new(),
            format: Format::Native,
            severity: Severity::Info,
            events: Patterns::default(),
            rules: Patterns::default(),
            rate_limit: None,
            batch_records: None,
            batch_wait: None,
            spool_limit: 256 << 20,
            fsync: Fsync::Interval,
            timeout: Duration::from_secs(10),
            retry_first: Duration::from_millis(500),
            retry_longest: Duration::from_secs(300),
            url: Vec::new(),
            secret_url: Secret::default(),
            auth: Auth::default(),
            tls: Tls::default(),
            headers: BTreeMap::new(),
            header_files: BTreeMap::new(),
            header_env: BTreeMap::new(),
            protocol: Protocol::Http,
            file: FileSettings::default(),
            socket: PathBuf::from("/run/systemd/journal/socket"),
            syslog: SyslogSettings::default(),
            loki: LokiSettings::default(),
            alertmanager: AlertmanagerSettings::default(),
            webhook: WebhookSettings::default(),
            subject: "distwatch.{event_type}".to_owned(),
        }
    }
}

/// The shape of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The record of the contract.
    Native,
    /// OCSF Detection Finding; alerts only.
    Ocsf,
    /// Elastic Common Schema.
    Ecs,
}

/// What OTLP is spoken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A request of HTTP for each batch.
    Http,
    /// A call of gRPC for each batch.
    Grpc,
}

/// When a spool is brought to the disk. None of them matters for the end of the process, only for that of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Whenever the kernel likes.
    Never,
    /// Once a second, where something waits.
    Interval,
    /// After each time that something was written, where something waits.
    Always,
}

/// Something that must not be printed: only where it is to be found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secret {
    /// In this file.
    pub file: Option<PathBuf>,
    /// In this variable of the environment.
    pub env: Option<String>,
}

impl Secret {
    /// Reads it; `None` where none is configured. A line feed at the end is not part of it.
    ///
    /// # Errors
    /// A sentence that names the file or the variable, and nothing of what is in it.
    pub fn read(&self) -> Result<Option<String>, String> {
        let text = match (&self.file, &self.env) {
            (Some(file), _) => key_files::text(file)?,
            (None, Some(name)) => {
                std::env::var(name).map_err(|_| format!("the environment has no variable {name} with text in it"))?
            }
            (None, None) => return Ok(None),
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            let place = self.file.as_ref().map(|file| file.display().to_string());
            return Err(format!("the secret in {} is empty", place.or_else(|| self.env.clone()).unwrap_or_default()));
        }
        Ok(Some(text.to_owned()))
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_unset(&self) -> bool {
        self.file.is_none() && self.env.is_none()
    }
}

/// What is in the files and variables of a sink's secrets and certificates: the same as long as all of it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// Reads them. One that cannot be read is like an empty one; whoever needs it says why.
    pub(crate) fn of(settings: &Settings) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut add = |part: Option<String>| {
            let part = part.unwrap_or_default();
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        };
        settings.secrets().into_iter().for_each(|secret| add(secret.read().ok().flatten()));
        settings.tls.files().for_each(|file| add(key_files::text(file).ok()));
        let mut digest = [0; 32];
        digest.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self(digest)
    }
}

/// Whom to be, towards a server that asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// The user.
    pub user: Option<String>,
    /// The user's password.
    pub password: Secret,
    /// A token, in place of both.
    pub token: Secret,
}

/// Whom to believe, and as whom to come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Certificates of the authorities, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// One's own certificate, with those in between.
    pub certificate_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

impl Tls {
    /// The files that it has.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.ca_file, &self.certificate_file, &self.key_file].into_iter().flatten().map(PathBuf::as_path)
    }
}

/// What only `file` has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    /// Where to write.
    pub path: PathBuf,
    /// A file of this size is put away.
    pub rotate_size: usize,
    /// A file of this age is put away.
    pub rotate_every: Option<Duration>,
    /// How many files that were put away are kept.
    pub keep: u32,
}

impl Default for FileSettings {
    fn default() -> Self {
        Self { path: PathBuf::new(), rotate_size: 100 << 20, rotate_every: None, keep: 5 }
    }
}

/// What only `syslog` has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogSettings {
    /// `host:port`.
    pub address: String,
    /// How it gets there.
    pub transport: Transport,
    /// The facility.
    pub facility: u8,
}

impl Default for SyslogSettings {
    fn default() -> Self {
        Self { address: String::new(), transport: Transport::Tcp, facility: 16 }
    }
}

/// Ways to a syslog server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// RFC 5426: a datagram a record. What is lost on the way is lost.
    Udp,
    /// RFC 6587, section 3.4.1: octet counting.
    Tcp,
    /// RFC 5425.
    Tls,
}

/// What only `loki` has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LokiSettings {
    /// Labels besides `service_name`, `host` and `event_type`.
    pub labels: BTreeMap<String, String>,
    /// Whose data it is.
    pub tenant: Option<String>,
    /// Whether structured metadata goes along.
    pub structured_metadata: bool,
    /// Whether the time of sending is given in place of the record's.
    pub time_of_sending: bool,
}

impl Default for LokiSettings {
    fn default() -> Self {
        Self { labels: BTreeMap::new(), tenant: None, structured_metadata: true, time_of_sending: false }
    }
}

/// What only `alertmanager` has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertmanagerSettings {
    /// Labels besides those of the alert.
    pub labels: BTreeMap<String, String>,
    /// How often what goes on is said again.
    pub resend: Duration,
    /// A link to this sensor, shown with each alert.
    pub generator_url: Option<String>,
}

impl Default for AlertmanagerSettings {
    fn default() -> Self {
        Self { labels: BTreeMap::new(), resend: Duration::from_secs(60), generator_url: None }
    }
}

/// What only `webhook` has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookSettings {
    /// The body, with `{{path}}` for parts of the record; the records themselves, one a line, where it is not given.
    pub body: Option<String>,
    /// What the body is.
    pub content_type: Option<String>,
    /// The key of the signature.
    pub secret: Secret,
}

/// A pattern that matches exactly this; for settings made by code.
#[must_use]
pub fn exactly(words: &[&str]) -> Patterns {
    let glob = |word: &&str| globset::Glob::new(&globset::escape(word)).ok().map(|glob| glob.compile_matcher());
    Patterns(words.iter().filter_map(glob).collect::<Vec<GlobMatcher>>())
}
