//! The keys of each kind of sink.

use distwatch_engine::model::Severity;

use super::form::{
    Body, Checked, Events, Facility, FilePath, Headers, HostPort, HttpUrl, Labels, MediaType, NatsUrl, Pairs, RuleIds,
    SecretHeaders, Several, Single, SinkName, Subject, Tenant, Variable,
};
use crate::config::form::{Bytes, Maybe, Name, Switch, Time, Whole, Word};
use crate::config::key::{Key, key};
use crate::sink::Settings;
use crate::sink::settings::{Format, Fsync, Protocol, Transport};

/// What one kind of sink takes from the file.
pub(super) struct Row {
    /// The word for the kind.
    pub(super) kind: &'static str,
    /// Its own keys, besides [`COMMON`].
    pub(super) keys: &'static [&'static [Key<Settings>]],
    /// One of each of these must be given.
    pub(super) required: &'static [&'static [&'static str]],
    /// Keys that do not stand in the example, because they contradict others there.
    pub(super) not_shown: &'static [&'static str],
}

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// What every kind takes.
pub(super) const COMMON: &[Key<Settings>] = &[
    key!("type", Name, Settings.kind, "Where records go.").example("\"file\"").unset("it must be given"),
    key!(
        "name",
        SinkName,
        Settings.name,
        "What it is called in logs and metrics, and the folder of its spool. Its type where it is not given."
    )
    .example("\"records\"")
    .unset("the type"),
    key!(
        "format",
        Word<Format>,
        Settings.format,
        "The shape of a record: \"native\", \"ocsf\" (Detection Finding, alerts only) or \"ecs\"."
    ),
    key!(
        "severity",
        Word<Severity>,
        Settings.severity,
        "Alerts below it are left out: \"info\", \"low\", \"medium\", \"high\" or \"critical\"."
    ),
    key!(
        "events",
        Events,
        Settings.events,
        "Kinds of record that go there: alert, link, epmd, activity, stats, weird. `*` stands for any characters."
    )
    .example(r#"["alert", "link"]"#)
    .unset("all; only \"alert\" for alertmanager, webhook and the format \"ocsf\""),
    key!("rules", RuleIds, Settings.rules, "Rules whose alerts go there.").example(r#"["*cookie*"]"#).unset("all"),
    key!(
        "rate_limit",
        Maybe<Whole<u32, 1, 1_000_000>>,
        Settings.rate_limit,
        "Records a second, and a second's worth at once. What is above is withheld, and counted."
    )
    .example("1000")
    .unset("no limit"),
    key!("batch_records", Maybe<Whole<usize, 1, 10_000>>, Settings.batch_records, "How many records go at once.")
        .example("500")
        .unset("what suits the type"),
    key!(
        "batch_wait",
        Maybe<Time<0, { 60 * SECOND }>>,
        Settings.batch_wait,
        "How long a record may wait for others to go along with."
    )
    .example("\"200ms\"")
    .unset("what suits the type"),
    key!(
        "spool_limit",
        Bytes<MIB, { 1 << 40 }>,
        Settings.spool_limit,
        "Disk space for records that have not been taken yet. At the limit the oldest are discarded, and counted."
    ),
    key!(
        "fsync",
        Word<Fsync>,
        Settings.fsync,
        "When the spool, and the file of a sink that writes one, is brought to the disk: \"never\", \"interval\" (what \
         waits, each second) or \"always\". The end of the process loses nothing in any case; this is for the end of the machine."
    ),
    key!(
        "retry_first",
        Time<10, HOUR>,
        Settings.retry_first,
        "How long to wait after a failure. Each further one waits twice as long."
    ),
    key!("retry_longest", Time<10, DAY>, Settings.retry_longest, "The longest wait after a failure."),
];

const FILE: &[Key<Settings>] = &[
    key!("path", FilePath, Settings.file.path, "The file.")
        .example("\"/var/log/distwatch/records.ndjson\"")
        .unset("it must be given"),
    key!(
        "rotate_size",
        Bytes<{ 64 << 10 }, { 1 << 40 }>,
        Settings.file.rotate_size,
        "A file that would grow larger is put away: it becomes `.1`, that one `.2`, and so on."
    ),
    key!(
        "rotate_every",
        Maybe<Time<{ 60 * SECOND }, { 366 * DAY }>>,
        Settings.file.rotate_every,
        "A file that is older is put away."
    )
    .example("\"1d\"")
    .unset("only the size matters"),
    key!("keep", Whole<u32, 0, 10_000>, Settings.file.keep, "How many files that were put away are kept."),
];

const TIMEOUT: Key<Settings> =
    key!("timeout", Time<100, { 600 * SECOND }>, Settings.timeout, "How long an answer may take.");

const USER: &[Key<Settings>] = &[
    key!("user", Maybe<Name>, Settings.auth.user, "The user to be, for servers that ask for one.")
        .example("\"distwatch\"")
        .unset("nobody"),
    key!("password_file", Maybe<FilePath>, Settings.auth.password.file, "The file with the user's password.")
        .example("\"/etc/distwatch/secrets/password\"")
        .unset("no password"),
    key!(
        "password_env",
        Maybe<Checked<Variable>>,
        Settings.auth.password.env,
        "The variable of the environment with the user's password, in place of the file."
    )
    .example("\"DISTWATCH_PASSWORD\"")
    .unset("no password"),
];

const TOKEN: &[Key<Settings>] = &[
    key!("token_file", Maybe<FilePath>, Settings.auth.token.file, "The file with a token, in place of a user.")
        .example("\"/etc/distwatch/secrets/token\"")
        .unset("no token"),
    key!(
        "token_env",
        Maybe<Checked<Variable>>,
        Settings.auth.token.env,
        "The variable of the environment with a token, in place of the file."
    )
    .example("\"DISTWATCH_TOKEN\"")
    .unset("no token"),
];

const TLS: &[Key<Settings>] = &[
    key!("ca_file", Maybe<FilePath>, Settings.tls.ca_file, "Certificates of the authorities to believe.")
        .example("\"/etc/distwatch/ca.pem\"")
        .unset("those of the system"),
    key!(
        "certificate_file",
        Maybe<FilePath>,
        Settings.tls.certificate_file,
        "The certificate to come with, for servers that ask for one."
    )
    .example("\"/etc/distwatch/sensor.pem\"")
    .unset("none"),
    key!("key_file", Maybe<FilePath>, Settings.tls.key_file, "The key of that certificate.")
        .example("\"/etc/distwatch/sensor.key\"")
        .unset("none"),
];

const HTTP: &[Key<Settings>] = &[
    TIMEOUT,
    key!(
        "headers",
        Pairs<Headers>,
        Settings.headers,
        "Headers of each request. `config show` leaves out their values."
    )
    .example("{ X-Scope = \"security\" }")
    .unset("none"),
    key!(
        "header_files",
        SecretHeaders<FilePath>,
        Settings.header_files,
        "Headers whose values are secrets: the file of each."
    )
    .example("{ X-Api-Key = \"/etc/distwatch/secrets/key\" }")
    .unset("none"),
    key!(
        "header_env",
        SecretHeaders<Checked<Variable>>,
        Settings.header_env,
        "The same by variables of the environment."
    )
    .example("{ X-Api-Key = \"DISTWATCH_API_KEY\" }")
    .unset("none"),
];

const OTLP: &[Key<Settings>] = &[key!(
    "protocol",
    Word<Protocol>,
    Settings.protocol,
    "\"http\" (which collectors take at port 4318) or \"grpc\" (at 4317)."
)];

const URL: &[Key<Settings>] = &[key!("url", Single<Checked<HttpUrl>>, Settings.url, "The server.")
    .example("\"http://127.0.0.1:3100\"")
    .unset("it must be given")];

const JOURNALD: &[Key<Settings>] = &[key!("socket", FilePath, Settings.socket, "The journal's socket.")];

const SYSLOG: &[Key<Settings>] = &[
    key!("address", Checked<HostPort>, Settings.syslog.address, "The server.")
        .example("\"syslog.example:6514\"")
        .unset("it must be given"),
    key!(
        "transport",
        Word<Transport>,
        Settings.syslog.transport,
        "\"udp\" (what is lost on the way is lost), \"tcp\" (octet counting) or \"tls\"."
    ),
    key!("facility", Word<Facility>, Settings.syslog.facility, "The facility: \"daemon\", \"local0\" and so on."),
    TIMEOUT,
];

const LOKI: &[Key<Settings>] = &[
    key!(
        "labels",
        Pairs<Labels>,
        Settings.loki.labels,
        "Labels of each stream, besides service_name, host and event_type. Only what stays the same belongs here."
    )
    .example("{ env = \"production\" }")
    .unset("none"),
    key!("tenant", Maybe<Checked<Tenant>>, Settings.loki.tenant, "Whose data it is (X-Scope-OrgID).")
        .example("\"security\"")
        .unset("none"),
    key!(
        "structured_metadata",
        Switch,
        Settings.loki.structured_metadata,
        "Rule, severity and ends of an alert go along as structured metadata. It needs schema 13 (TSDB) there."
    ),
    key!(
        "time_of_sending",
        Switch,
        Settings.loki.time_of_sending,
        "Gives the time of sending in place of the record's. Loki refuses what is older than a week."
    ),
];

const ALERTMANAGER: &[Key<Settings>] = &[
    key!("url", Several<Checked<HttpUrl>>, Settings.url, "The server; every peer where there are several.")
        .example(r#"["http://127.0.0.1:9093"]"#)
        .unset("it must be given"),
    key!(
        "labels",
        Pairs<Labels>,
        Settings.alertmanager.labels,
        "Labels of each alert, besides its own. Alerts with other labels are other alerts."
    )
    .example("{ env = \"production\" }")
    .unset("none"),
    key!(
        "resend",
        Time<100, HOUR>,
        Settings.alertmanager.resend,
        "How often an alert that goes on is repeated. After four that did not come it ends by itself."
    ),
    key!(
        "generator_url",
        Maybe<Checked<HttpUrl>>,
        Settings.alertmanager.generator_url,
        "A link that notifications show as the source."
    )
    .example("\"https://sensor.example:9469/\"")
    .unset("none"),
];

const WEBHOOK: &[Key<Settings>] = &[
    key!("url_file", Maybe<FilePath>, Settings.secret_url.file, "The file with the address, where that is a secret.")
        .example("\"/etc/distwatch/secrets/url\"")
        .unset("url holds it"),
    key!(
        "url_env",
        Maybe<Checked<Variable>>,
        Settings.secret_url.env,
        "The variable of the environment with the address, where that is a secret."
    )
    .example("\"DISTWATCH_WEBHOOK\"")
    .unset("url holds it"),
    key!(
        "body",
        Maybe<Checked<Body>>,
        Settings.webhook.body,
        "The body of a request for each record. `{{alert.reason}}` stands for that part of it, `{{.}}` for all; what is \
         put in is escaped where the body is JSON. Headers may have parts as well."
    )
    .example(r#"'{"text": "{{alert.severity}}: {{alert.reason}}"}'"#)
    .unset("the records of a batch, one a line"),
    key!("content_type", Maybe<Checked<MediaType>>, Settings.webhook.content_type, "What the body is.")
        .example("\"application/json\"")
        .unset("application/json where body is set, else application/x-ndjson"),
    key!(
        "secret_file",
        Maybe<FilePath>,
        Settings.webhook.secret.file,
        "The file with the key of the signature (webhook-signature: HMAC-SHA256 over id.timestamp.body)."
    )
    .example("\"/etc/distwatch/secrets/webhook\"")
    .unset("no signature"),
    key!(
        "secret_env",
        Maybe<Checked<Variable>>,
        Settings.webhook.secret.env,
        "The variable of the environment with the key of the signature."
    )
    .example("\"DISTWATCH_WEBHOOK_SECRET\"")
    .unset("no signature"),
];

const NATS: &[Key<Settings>] = &[
    key!("url", Several<Checked<NatsUrl>>, Settings.url, "The servers of the cluster, one of which is used.")
        .example(r#"["nats://127.0.0.1:4222"]"#)
        .unset("it must be given"),
    key!(
        "subject",
        Checked<Subject>,
        Settings.subject,
        "Where records are published. A stream must take it. `{event_type}` and `{host}` stand for the record's."
    ),
    TIMEOUT,
];

/// All kinds, in the order of the example; the first one is shown with all that every kind takes.
pub(super) const ROWS: &[Row] = &[
    Row { kind: "file", keys: &[FILE], required: &[&["path"]], not_shown: &[] },
    Row { kind: "stdout", keys: &[], required: &[], not_shown: &[] },
    Row { kind: "journald", keys: &[JOURNALD], required: &[], not_shown: &[] },
    Row { kind: "syslog", keys: &[SYSLOG, TLS], required: &[&["address"]], not_shown: &[] },
    Row {
        kind: "loki",
        keys: &[URL, LOKI, USER, TOKEN, HTTP, TLS],
        required: &[&["url"]],
        not_shown: &["header_env", "password_env", "token_file", "token_env"],
    },
    Row {
        kind: "alertmanager",
        keys: &[ALERTMANAGER, USER, TOKEN, HTTP, TLS],
        required: &[&["url"]],
        not_shown: &["header_env", "password_file", "token_file", "token_env"],
    },
    Row {
        kind: "webhook",
        keys: &[URL, WEBHOOK, USER, TOKEN, HTTP, TLS],
        required: &[&["url", "url_file", "url_env"]],
        not_shown: &[
            "header_env",
            "url_file",
            "url_env",
            "secret_env",
            "user",
            "password_file",
            "password_env",
            "token_env",
        ],
    },
    Row {
        kind: "otlp",
        keys: &[URL, OTLP, USER, TOKEN, HTTP, TLS],
        required: &[&["url"]],
        not_shown: &["header_env", "user", "password_file", "password_env", "token_file"],
    },
    Row {
        kind: "nats",
        keys: &[NATS, USER, TOKEN, TLS],
        required: &[&["url"]],
        not_shown: &["password_env", "token_file", "token_env"],
    },
];

/// Keys of which only one may be given, for each is another place of the same thing.
pub(super) const ONE_OF: &[&[&str]] = &[
    &["url", "url_file", "url_env"],
    &["password_file", "password_env"],
    &["token_file", "token_env"],
    &["secret_file", "secret_env"],
    &["user", "token_file"],
    &["user", "token_env"],
];

/// Keys that mean nothing without another one.
pub(super) const NEEDS: &[(&str, &[&str])] = &[
    ("password_file", &["user"]),
    ("password_env", &["user"]),
    ("certificate_file", &["key_file"]),
    ("key_file", &["certificate_file"]),
];
