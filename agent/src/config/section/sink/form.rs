//! The forms of values that only sinks have.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::PathBuf;

use distwatch_engine::policy::Patterns;
use serde_json::{Value as Json, json};

use crate::config::checker::{Checker, Item};
use crate::config::form::{Form, Globs, List, Name, Words, string};
use crate::config::mistake::quoted;
use crate::record::EventType;
use crate::sink::settings::{Format, Fsync, Protocol, Secret, Transport};
use crate::sink::template::Template;
use crate::sink::{http, nats};

impl Words for Format {
    const WORDS: &'static [(&'static str, Self)] =
        &[("native", Self::Native), ("ocsf", Self::Ocsf), ("ecs", Self::Ecs)];
}

impl Words for Fsync {
    const WORDS: &'static [(&'static str, Self)] =
        &[("never", Self::Never), ("interval", Self::Interval), ("always", Self::Always)];
}

impl Words for Transport {
    const WORDS: &'static [(&'static str, Self)] = &[("udp", Self::Udp), ("tcp", Self::Tcp), ("tls", Self::Tls)];
}

impl Words for Protocol {
    const WORDS: &'static [(&'static str, Self)] = &[("http", Self::Http), ("grpc", Self::Grpc)];
}

/// A facility of syslog (RFC 5424, section 6.2.1).
pub(super) type Facility = u8;

impl Words for Facility {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("user", 1),
        ("daemon", 3),
        ("auth", 4),
        ("authpriv", 10),
        ("local0", 16),
        ("local1", 17),
        ("local2", 18),
        ("local3", 19),
        ("local4", 20),
        ("local5", 21),
        ("local6", 22),
        ("local7", 23),
    ];
}

/// What a sink is called: a folder has this name, and a label of a metric this value.
pub(super) struct SinkName;

/// The longest name.
const LONGEST_NAME: usize = 64;

impl Form for SinkName {
    type Value = String;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<String> {
        let advice = "write up to 64 small letters, digits, `-` and `_`, as \"loki-eu\"";
        let text = checker.text(item, advice)?;
        let fits = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-' || it == b'_';
        if text.len() <= LONGEST_NAME && text.bytes().all(fits) {
            return Some(text.to_owned());
        }
        checker.wrong(item.span(), format!("{} is no name for a sink", quoted(text)), advice);
        None
    }

    fn write(value: &String) -> Option<String> {
        Name::write(value)
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[a-z0-9_-]{1,64}$" })
    }
}

/// Patterns of kinds of record, each of which matches some.
pub(super) struct Events;

impl Form for Events {
    type Value = Patterns;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Patterns> {
        let known: Vec<&str> = EventType::ALL.iter().map(|kind| kind.name()).collect();
        matching(item, checker, &known, "kind of record", &known.join(", "))
    }

    fn write(value: &Patterns) -> Option<String> {
        Globs::write(value)
    }

    fn schema() -> Json {
        Globs::schema()
    }
}

/// Patterns of rules, each of which matches some.
pub(super) struct RuleIds;

impl Form for RuleIds {
    type Value = Patterns;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Patterns> {
        let known: Vec<&str> = checker.rules.iter().map(|rule| rule.id).collect();
        matching(item, checker, &known, "rule", "`distwatch rules` lists all of them")
    }

    fn write(value: &Patterns) -> Option<String> {
        Globs::write(value)
    }

    fn schema() -> Json {
        Globs::schema()
    }
}

/// A pattern that matches nothing is a slip of the pen that would silence a sink.
fn matching(
    item: &Item<'_>,
    checker: &mut Checker<'_>,
    known: &[&str],
    what: &str,
    there_are: &str,
) -> Option<Patterns> {
    let patterns = Globs::read(item, checker)?;
    for pattern in &patterns.0 {
        if !known.iter().any(|name| pattern.is_match(name)) {
            let text = pattern.glob().glob();
            let advice = match crate::near::nearest(text, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are: {there_are}"),
            };
            checker.wrong(item.span(), format!("{} matches no {what}", quoted(text)), advice);
        }
    }
    Some(patterns)
}

/// The path of a file; a relative one starts from the directory of the configuration.
pub(super) struct FilePath;

impl Form for FilePath {
    type Value = PathBuf;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<PathBuf> {
        let text = checker.text(item, "write the path of a file in quotes")?;
        Some(checker.directory.join(text))
    }

    fn write(value: &PathBuf) -> Option<String> {
        (!value.as_os_str().is_empty()).then(|| string(&value.to_string_lossy()))
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A text of which somebody else knows whether it is right.
pub(super) struct Checked<C>(PhantomData<C>);

/// Knows whether a text is right.
pub(super) trait Check {
    /// What it should be.
    const ADVICE: &'static str;

    /// What is wrong with it.
    fn check(text: &str) -> Result<(), String>;
}

impl<C: Check> Form for Checked<C> {
    type Value = String;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<String> {
        let text = checker.text(item, C::ADVICE)?;
        match C::check(text) {
            Ok(()) => Some(text.to_owned()),
            Err(what) => {
                // The text itself may be a secret that is in the wrong place, so it is not repeated.
                checker.wrong(item.span(), what, C::ADVICE);
                None
            }
        }
    }

    fn write(value: &String) -> Option<String> {
        Name::write(value)
    }

    fn schema() -> Json {
        Name::schema()
    }
}

/// An address of HTTP.
pub(super) struct HttpUrl;

impl Check for HttpUrl {
    const ADVICE: &'static str = "write it as \"https://host:port/path\"";

    fn check(text: &str) -> Result<(), String> {
        http::url(text).map(drop)
    }
}

/// An address of NATS.
pub(super) struct NatsUrl;

impl Check for NatsUrl {
    const ADVICE: &'static str = "write it as \"nats://host:4222\" or \"tls://host:4222\"";

    fn check(text: &str) -> Result<(), String> {
        nats::check_url(text)
    }
}

/// A subject of NATS.
pub(super) struct Subject;

impl Check for Subject {
    const ADVICE: &'static str = "write it as \"distwatch.{event_type}\"";

    fn check(text: &str) -> Result<(), String> {
        nats::check_subject(text)
    }
}

/// A host and a port.
pub(super) struct HostPort;

impl Check for HostPort {
    const ADVICE: &'static str = "write it as \"host:6514\" or \"[::1]:6514\"";

    fn check(text: &str) -> Result<(), String> {
        let (host, port) = text.rsplit_once(':').ok_or("it has no port")?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || (host.contains(':') && !bracketed) || port.parse::<u16>().is_ok_and(|port| port == 0) {
            return Err("it is no host and port".to_owned());
        }
        port.parse::<u16>().map(drop).map_err(|_| "it has no port".to_owned())
    }
}

/// A body with parts of a record in it.
pub(super) struct Body;

impl Check for Body {
    const ADVICE: &'static str = "enclose the path of a part of the record: {{alert.reason}}";

    fn check(text: &str) -> Result<(), String> {
        Template::parse(text).map(drop)
    }
}

/// What a body is.
pub(super) struct MediaType;

impl Check for MediaType {
    const ADVICE: &'static str = "write it as \"application/json\"";

    fn check(text: &str) -> Result<(), String> {
        let fits = text.bytes().all(|it| it.is_ascii_graphic() || it == b' ') && text.contains('/');
        if fits { Ok(()) } else { Err("it is no media type".to_owned()) }
    }
}

/// A tenant of Loki, which is the value of a header.
pub(super) struct Tenant;

impl Check for Tenant {
    const ADVICE: &'static str = "write letters, digits and `!-_.*'()`";

    fn check(text: &str) -> Result<(), String> {
        let fits = |it: u8| it.is_ascii_alphanumeric() || b"!-_.*'()|".contains(&it);
        if text.bytes().all(fits) { Ok(()) } else { Err("it is no tenant".to_owned()) }
    }
}

/// A variable of the environment. Its value is not looked at: it may be set for the daemon alone.
pub(super) struct Variable;

impl Check for Variable {
    const ADVICE: &'static str = "write the name of a variable, as \"LOKI_PASSWORD\"; never the secret itself";

    fn check(text: &str) -> Result<(), String> {
        let fits = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
        if text.bytes().all(fits) && !text.starts_with(|it: char| it.is_ascii_digit()) {
            return Ok(());
        }
        Err("it is no name of a variable".to_owned())
    }
}

/// A list of one element, written without brackets.
pub(super) struct Single<F>(PhantomData<F>);

impl<F: Form> Form for Single<F> {
    type Value = Vec<F::Value>;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Self::Value> {
        F::read(item, checker).map(|value| vec![value])
    }

    fn write(value: &Self::Value) -> Option<String> {
        value.first().and_then(F::write)
    }

    fn schema() -> Json {
        F::schema()
    }
}

/// One element, or a list of them.
pub(super) struct Several<F>(PhantomData<F>);

impl<F: Form> Form for Several<F> {
    type Value = Vec<F::Value>;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Self::Value> {
        match item.get_ref().is_array() {
            true => List::<F>::read(item, checker),
            false => Single::<F>::read(item, checker),
        }
    }

    fn write(value: &Self::Value) -> Option<String> {
        if value.is_empty() { None } else { List::<F>::write(value) }
    }

    fn schema() -> Json {
        json!({ "anyOf": [F::schema(), List::<F>::schema()] })
    }
}

/// Names with values, as an inline table or a section of its own.
pub(super) struct Pairs<P>(PhantomData<P>);

/// What the names and values of [`Pairs`] may be.
pub(super) trait Pair {
    /// How they are written.
    const ADVICE: &'static str;

    /// The pattern of names, for the schema.
    const NAMES: &'static str;

    /// What is wrong with one.
    fn check(name: &str, value: &str) -> Result<(), String>;
}

impl<P: Pair> Form for Pairs<P> {
    type Value = BTreeMap<String, String>;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Self::Value> {
        let table = checker.table(item, P::ADVICE)?;
        let mut pairs = BTreeMap::new();
        for (name, item) in table {
            let Some(value) = checker.text(item, P::ADVICE) else { continue };
            match P::check(name.get_ref(), value) {
                Ok(()) => drop(pairs.insert(name.get_ref().to_string(), value.to_owned())),
                Err(what) => checker.wrong(name.span(), what, P::ADVICE),
            }
        }
        Some(pairs)
    }

    fn write(value: &Self::Value) -> Option<String> {
        let pairs: Vec<String> =
            value.iter().map(|(name, value)| format!("{} = {}", string(name), string(value))).collect();
        if pairs.is_empty() { None } else { Some(format!("{{ {} }}", pairs.join(", "))) }
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "propertyNames": { "pattern": P::NAMES },
            "additionalProperties": { "type": "string", "minLength": 1 },
        })
    }
}

/// Labels of Loki and of Alertmanager.
pub(super) struct Labels;

/// Labels that are set by the sinks themselves.
const OWN_LABELS: [&str; 11] = [
    "service_name",
    "host",
    "event_type",
    "alertname",
    "service",
    "severity",
    "rule_id",
    "subject",
    "fingerprint",
    "from_node",
    "to_node",
];

/// The longest value that Loki takes.
const LONGEST_LABEL: usize = 2048;

impl Pair for Labels {
    const ADVICE: &'static str = "write a few names with values that stay the same: { env = \"production\" }";
    const NAMES: &'static str = "^[a-zA-Z_][a-zA-Z0-9_]*$";

    fn check(name: &str, value: &str) -> Result<(), String> {
        let fits = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
        if !name.bytes().all(fits) || name.starts_with(|it: char| it.is_ascii_digit()) {
            return Err(format!("{} is no name of a label: letters, digits and `_`", quoted(name)));
        }
        if OWN_LABELS.contains(&name) {
            return Err(format!("{} is set by the sink", quoted(name)));
        }
        if value.len() > LONGEST_LABEL { Err("the value is too long".to_owned()) } else { Ok(()) }
    }
}

/// Headers of requests.
pub(super) struct Headers;

const HEADER_NAMES: &str = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";

fn check_header_name(name: &str) -> Result<(), String> {
    let fits = |it: u8| it.is_ascii_alphanumeric() || b"!#$%&'*+.^_`|~-".contains(&it);
    if name.is_empty() || !name.bytes().all(fits) {
        return Err(format!("{} is no name of a header", quoted(name)));
    }
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("webhook-") || OWN_HEADERS.contains(&lower.as_str()) {
        return Err(format!("{} is set by the sink", quoted(name)));
    }
    Ok(())
}

/// Headers that are set by the sinks themselves; `content_type` is a key of its own.
const OWN_HEADERS: [&str; 3] = ["content-type", "content-encoding", "content-length"];

impl Pair for Headers {
    const ADVICE: &'static str = "write names with values: { X-Team = \"storage\" }; credentials belong in `user`, \
                                  `password_file`, `token_file` and `header_files`";
    const NAMES: &'static str = HEADER_NAMES;

    fn check(name: &str, value: &str) -> Result<(), String> {
        check_header_name(name)?;
        if ["authorization", "proxy-authorization", "cookie"].contains(&name.to_ascii_lowercase().as_str()) {
            return Err(format!("{} holds a secret, which has no place here", quoted(name)));
        }
        if !value.bytes().all(|it| it == b'\t' || (b' '..0x7f).contains(&it)) {
            return Err(format!("the value of {} has characters that no header can have", quoted(name)));
        }
        Template::parse(value).map(drop)
    }
}

/// Headers whose values are secrets, by where these are to be found.
pub(super) struct SecretHeaders<P>(PhantomData<P>);

/// Where a secret is to be found.
pub(super) trait Place: Form {
    /// How headers are written.
    const ADVICE: &'static str;

    fn secret(place: Self::Value) -> Secret;
    fn place(secret: &Secret) -> Option<Self::Value>;
}

impl Place for FilePath {
    const ADVICE: &'static str = "write names with files: { X-Api-Key = \"/etc/distwatch/secrets/key\" }";

    fn secret(place: PathBuf) -> Secret {
        Secret { file: Some(place), env: None }
    }

    fn place(secret: &Secret) -> Option<PathBuf> {
        secret.file.clone()
    }
}

impl Place for Checked<Variable> {
    const ADVICE: &'static str = "write names with variables: { X-Api-Key = \"DISTWATCH_KEY\" }";

    fn secret(place: String) -> Secret {
        Secret { file: None, env: Some(place) }
    }

    fn place(secret: &Secret) -> Option<String> {
        secret.env.clone()
    }
}

impl<P: Place> Form for SecretHeaders<P> {
    type Value = BTreeMap<String, Secret>;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Self::Value> {
        let table = checker.table(item, P::ADVICE)?;
        let mut headers = BTreeMap::new();
        for (name, item) in table {
            if let Err(what) = check_header_name(name.get_ref()) {
                checker.wrong(name.span(), what, P::ADVICE);
            } else if let Some(place) = P::read(item, checker) {
                headers.insert(name.get_ref().to_string(), P::secret(place));
            }
        }
        Some(headers)
    }

    fn write(value: &Self::Value) -> Option<String> {
        let place = |secret| P::write(&P::place(secret)?);
        let pairs: Vec<String> =
            value.iter().filter_map(|(name, secret)| Some(format!("{} = {}", string(name), place(secret)?))).collect();
        if pairs.is_empty() { None } else { Some(format!("{{ {} }}", pairs.join(", "))) }
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "propertyNames": { "pattern": HEADER_NAMES },
            "additionalProperties": P::schema(),
        })
    }
}
