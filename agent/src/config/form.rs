//! The forms that values have in the file: how each is read, written back and described.
//!
//! A form is a type without values, named in the rows of [`key!`](super::key::key); what it reads is its
//! [`Form::Value`]. A new form is one more `impl`.

use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use distwatch_engine::model::Severity;
use distwatch_engine::policy::{Patterns, Places, Ports};
use globset::{GlobBuilder, GlobMatcher};
use ipnet::IpNet;
use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::checker::{Checker, Item};
use super::mistake::quoted;
use crate::near::nearest;

/// How a value is written in the file.
pub(super) trait Form {
    /// What is read.
    type Value;

    /// Checks a value. Where it is wrong, the checker has been told.
    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Self::Value>;

    /// The value as it would stand in the file; `None` where nothing would stand there.
    fn write(value: &Self::Value) -> Option<String>;

    /// The JSON Schema of it.
    fn schema() -> Json;
}

/// `true` or `false`.
pub(super) struct Switch;

impl Form for Switch {
    type Value = bool;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<bool> {
        if let DeValue::Boolean(value) = item.get_ref() {
            return Some(*value);
        }
        checker.unexpected(item, "true or false", "write true or false, without quotes");
        None
    }

    fn write(value: &bool) -> Option<String> {
        Some(value.to_string())
    }

    fn schema() -> Json {
        json!({ "type": "boolean" })
    }
}

/// Another form whose value may be missing.
pub(super) struct Maybe<F>(PhantomData<F>);

impl<F: Form> Form for Maybe<F> {
    type Value = Option<F::Value>;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Self::Value> {
        F::read(item, checker).map(Some)
    }

    fn write(value: &Self::Value) -> Option<String> {
        value.as_ref().and_then(F::write)
    }

    fn schema() -> Json {
        F::schema()
    }
}

/// A list of another form.
pub(super) struct List<F>(PhantomData<F>);

impl<F: Form> Form for List<F> {
    type Value = Vec<F::Value>;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Self::Value> {
        let advice = "put it into brackets, also where there is only one: [ … ]";
        let list = checker.list(item, advice)?;
        Some(list.iter().filter_map(|element| F::read(element, checker)).collect())
    }

    fn write(value: &Self::Value) -> Option<String> {
        let elements: Vec<String> = value.iter().filter_map(F::write).collect();
        Some(format!("[{}]", elements.join(", ")))
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": F::schema() })
    }
}

/// A name: any text but the empty one.
pub(super) struct Name;

impl Form for Name {
    type Value = String;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<String> {
        checker.text(item, "write a name in quotes").map(str::to_owned)
    }

    fn write(value: &String) -> Option<String> {
        (!value.is_empty()).then(|| string(value))
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// The path of a file or folder of this host.
pub(super) struct PathName;

impl Form for PathName {
    type Value = PathBuf;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<PathBuf> {
        let text = checker.text(item, "write a path in quotes")?;
        Some(checker.directory.join(text))
    }

    fn write(value: &PathBuf) -> Option<String> {
        Some(string(&value.to_string_lossy()))
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// An address and a port of this host.
pub(super) struct Address;

impl Form for Address {
    type Value = SocketAddr;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<SocketAddr> {
        let advice = "write an address and a port, as \"127.0.0.1:9469\" or \"[::1]:9469\"";
        let text = checker.text(item, advice)?;
        let address = text.parse().ok();
        if address.is_none() {
            checker.wrong(item.span(), format!("{} is not an address with a port", quoted(text)), advice);
        }
        address
    }

    fn write(value: &SocketAddr) -> Option<String> {
        Some(string(&value.to_string()))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9A-Fa-f:.\\[\\]]+:[0-9]{1,5}$" })
    }
}

/// A glob over names: `*` any characters, `?` one, `[ab]`, `{one,two}`.
pub(super) struct Glob;

impl Form for Glob {
    type Value = GlobMatcher;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<GlobMatcher> {
        let text = checker.text(item, "write a name in quotes; `*` stands for any characters")?;
        glob(text, item, checker)
    }

    fn write(value: &GlobMatcher) -> Option<String> {
        Some(string(value.glob().glob()))
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A list of globs.
pub(super) struct Globs;

impl Form for Globs {
    type Value = Patterns;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Patterns> {
        List::<Glob>::read(item, checker).map(Patterns)
    }

    fn write(value: &Patterns) -> Option<String> {
        List::<Glob>::write(&value.0)
    }

    fn schema() -> Json {
        List::<Glob>::schema()
    }
}

/// An address, or a network as address and prefix length. Bits beyond the prefix do not matter, as in `ip addr`.
pub(super) struct Network;

impl Form for Network {
    type Value = IpNet;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<IpNet> {
        let advice = "write an address or a network, as \"10.77.0.0/24\" or \"fd00::/8\"";
        let text = checker.text(item, advice)?;
        let network = network(text);
        if network.is_none() {
            checker.wrong(item.span(), format!("{} is neither an address nor a network", quoted(text)), advice);
        }
        network
    }

    fn write(value: &IpNet) -> Option<String> {
        let whole = value.prefix_len() == value.max_prefix_len();
        Some(string(&if whole { value.addr().to_string() } else { value.to_string() }))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$" })
    }
}

/// A list in which interfaces (globs) and networks may stand side by side.
pub(super) struct PlaceList;

impl Form for PlaceList {
    type Value = Places;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Places> {
        let list = checker.list(item, "put it into brackets: [\"lo\", \"10.77.0.0/24\"]")?;
        let mut places = Places::default();
        for element in list {
            let advice = "write an interface (`*` stands for any characters), an address or a network";
            let Some(text) = checker.text(element, advice) else { continue };
            if let Some(network) = network(text) {
                places.networks.push(network);
            } else if looks_like_an_address(text) {
                let what = format!("{} is neither an address nor a network", quoted(text));
                checker.wrong(element.span(), what, "write one as \"10.77.0.0/24\" or \"fd00::/8\", or an interface");
            } else if let Some(glob) = glob(text, element, checker) {
                places.interfaces.0.push(glob);
            }
        }
        Some(places)
    }

    fn write(value: &Places) -> Option<String> {
        let interfaces = value.interfaces.0.iter().filter_map(Glob::write);
        let places: Vec<String> = interfaces.chain(value.networks.iter().filter_map(Network::write)).collect();
        Some(format!("[{}]", places.join(", ")))
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": { "type": "string", "minLength": 1 } })
    }
}

/// A list of ports and of ranges of them: `[25672, "9100-9155"]`.
pub(super) struct PortList;

impl Form for PortList {
    type Value = Ports;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Ports> {
        let list = checker.list(item, "put it into brackets: [4369, \"9100-9155\"]")?;
        Some(Ports(list.iter().filter_map(|element| port_range(element, checker)).collect()))
    }

    fn write(value: &Ports) -> Option<String> {
        let ranges: Vec<String> = value
            .0
            .iter()
            .map(|(first, last)| if first == last { first.to_string() } else { format!("\"{first}-{last}\"") })
            .collect();
        Some(format!("[{}]", ranges.join(", ")))
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": { "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 65535 },
            { "type": "string", "pattern": "^ *[0-9]{1,5} *(- *[0-9]{1,5} *)?$" },
        ] } })
    }
}

/// A whole number between two bounds.
pub(super) struct Whole<V, const LEAST: u64, const MOST: u64>(PhantomData<V>);

impl<V, const LEAST: u64, const MOST: u64> Form for Whole<V, LEAST, MOST>
where
    V: Copy + TryFrom<u64> + ToString,
{
    type Value = V;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<V> {
        V::try_from(checker.whole(item, LEAST, MOST)?).ok()
    }

    fn write(value: &V) -> Option<String> {
        Some(value.to_string())
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": LEAST, "maximum": MOST })
    }
}

/// An amount of memory: a whole number of octets, or text as `"64 MiB"`.
pub(super) struct Bytes<const LEAST: u64, const MOST: u64>;

/// Units of memory, the largest first.
const MEMORY: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("B", 1),
];

impl<const LEAST: u64, const MOST: u64> Form for Bytes<LEAST, MOST> {
    type Value = usize;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<usize> {
        let written = |amount| Self::write(&amount).unwrap_or_default();
        let least = usize::try_from(LEAST).unwrap_or(usize::MAX);
        let most = usize::try_from(MOST).unwrap_or(usize::MAX);
        let advice = format!("write an amount of memory from {} to {}", written(least), written(most));
        let amount = match item.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::String(text) => quantity(text, MEMORY),
            _ => {
                checker.unexpected(item, "an amount of memory", advice);
                return None;
            }
        };
        let amount = amount.and_then(|amount| usize::try_from(amount).ok()).filter(|it| (least..=most).contains(it));
        if amount.is_none() {
            checker.wrong(item.span(), "not an amount of memory that can be set here", advice);
        }
        amount
    }

    fn write(value: &usize) -> Option<String> {
        let value = *value as u64;
        let binary = MEMORY.iter().filter(|(unit, _)| unit.ends_with("iB"));
        let unit = binary.into_iter().find(|(_, size)| value > 0 && value.is_multiple_of(*size));
        Some(unit.map_or_else(|| value.to_string(), |(unit, size)| format!("\"{} {unit}\"", value / size)))
    }

    fn schema() -> Json {
        json!({ "anyOf": [
            { "type": "integer", "minimum": LEAST, "maximum": MOST },
            { "type": "string", "pattern": "^ *[0-9]+ *([kKMG]i?)?B? *$" },
        ] })
    }
}

/// A time as text with its unit, `"3s"`; the bounds are in milliseconds.
pub(super) struct Time<const LEAST: u64, const MOST: u64>;

/// Units of time in milliseconds, the largest first.
const TIME: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl<const LEAST: u64, const MOST: u64> Form for Time<LEAST, MOST> {
    type Value = Duration;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<Duration> {
        let written = |millis| Self::write(&Duration::from_millis(millis)).unwrap_or_default();
        let advice = format!("write a time with its unit, from {} to {}", written(LEAST), written(MOST));
        let DeValue::String(text) = item.get_ref() else {
            checker.unexpected(item, "a time as a string", advice);
            return None;
        };
        let has_unit = text.trim_end().ends_with(|last: char| last.is_ascii_alphabetic());
        let millis = quantity(text, TIME).filter(|millis| has_unit && (LEAST..=MOST).contains(millis));
        if millis.is_none() {
            checker.wrong(item.span(), format!("{} is no time that can be set here", quoted(text)), advice);
        }
        millis.map(Duration::from_millis)
    }

    fn write(value: &Duration) -> Option<String> {
        let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        // Minutes only from ten on: the time-outs of the protocol are known by their seconds.
        let fits = |(unit, size): &&(&str, u64)| millis.is_multiple_of(*size) && (*unit != "m" || millis >= 600_000);
        let (unit, size) = TIME.iter().find(fits)?;
        Some(format!("\"{}{unit}\"", millis / size))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^ *[0-9]+ *(ms|s|m|h|d) *$" })
    }
}

/// A value that is written as one of a few words.
pub(super) trait Words: Sized + Copy + PartialEq + 'static {
    /// The words and what each means.
    const WORDS: &'static [(&'static str, Self)];
}

impl Words for Severity {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("info", Self::Info),
        ("low", Self::Low),
        ("medium", Self::Medium),
        ("high", Self::High),
        ("critical", Self::Critical),
    ];
}

/// One of a few words.
pub(super) struct Word<W>(PhantomData<W>);

impl<W: Words> Word<W> {
    fn words() -> impl Iterator<Item = &'static str> {
        W::WORDS.iter().map(|(word, _)| *word)
    }
}

impl<W: Words> Form for Word<W> {
    type Value = W;

    fn read(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<W> {
        let words: Vec<String> = Self::words().map(string).collect();
        let advice = format!("write one of {}", words.join(", "));
        let text = checker.text(item, &advice)?;
        if let Some((_, value)) = W::WORDS.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let near = nearest(text, Self::words()).map(|near| format!("did you mean {}? ", string(near)));
        checker.wrong(
            item.span(),
            format!("{} is not a value of it", quoted(text)),
            near.unwrap_or_default() + &advice,
        );
        None
    }

    fn write(value: &W) -> Option<String> {
        W::WORDS.iter().find(|(_, meant)| meant == value).map(|(word, _)| string(word))
    }

    fn schema() -> Json {
        json!({ "enum": Self::words().collect::<Vec<_>>() })
    }
}

/// Text as TOML writes it.
pub(super) fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A glob; `None` after saying what is wrong with it.
fn glob(text: &str, item: &Item<'_>, checker: &mut Checker<'_>) -> Option<GlobMatcher> {
    // `/` is nothing special in a name, and a backslash is how a `[` is meant as itself.
    match GlobBuilder::new(text).literal_separator(false).backslash_escape(true).build() {
        Ok(glob) => Some(glob.compile_matcher()),
        Err(error) => {
            checker.wrong(
                item.span(),
                format!("{} is no pattern: {}", quoted(text), error.kind()),
                "`*` stands for any characters, `?` for one, `[ab]` and `{one,two}` for a choice; \
                 a backslash takes the meaning away",
            );
            None
        }
    }
}

/// An address or a network, with nothing beyond its prefix. What maps IPv4 into IPv6 is IPv4, as it is in the
/// packets.
fn network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network.trunc(),
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    let IpNet::V6(v6) = network else { return Some(network) };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    Some(mapped.and_then(|(v4, length)| IpNet::new(v4.into(), length).ok()).unwrap_or(network))
}

/// Whether somebody who wrote this meant an address, so that a slip in it does not turn it into an interface.
fn looks_like_an_address(text: &str) -> bool {
    let v4 = text.contains('.') && text.chars().all(|it| it.is_ascii_digit() || it == '.');
    let v6 = text.matches(':').count() >= 2 && text.chars().all(|it| it.is_ascii_hexdigit() || it == ':' || it == '.');
    text.contains('/') || v4 || v6
}

/// A port or a range of ports; `None` after saying what is wrong with it.
fn port_range(item: &Item<'_>, checker: &mut Checker<'_>) -> Option<(u16, u16)> {
    let advice = "write a port (1 to 65535) or a range in quotes, as \"9100-9155\"";
    let port = |text: &str| {
        let text = text.trim();
        let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
        if digits { text.parse::<u16>().ok().filter(|port| *port > 0) } else { None }
    };
    let (range, text) = match item.get_ref() {
        DeValue::Integer(number) => {
            let value = u64::from_str_radix(number.as_str(), number.radix()).ok();
            let port = value.and_then(|value| u16::try_from(value).ok()).filter(|port| *port > 0);
            (port.map(|port| (port, port)), number.to_string())
        }
        DeValue::String(text) => {
            let range = match text.split_once('-') {
                Some((first, last)) => port(first).zip(port(last)),
                None => port(text).map(|port| (port, port)),
            };
            (range, text.to_string())
        }
        _ => {
            checker.unexpected(item, "a port or a range of ports", advice);
            return None;
        }
    };
    match range {
        Some((first, last)) if first > last => {
            let what = format!("the range {} ends before it begins", quoted(&text));
            checker.wrong(item.span(), what, format!("write \"{last}-{first}\""));
            None
        }
        Some(range) => Some(range),
        None => {
            checker.wrong(item.span(), format!("{} is neither a port nor a range of ports", quoted(&text)), advice);
            None
        }
    }
}

/// A whole number with one of the units, or in the smallest unit without one.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let size = if unit.is_empty() {
        1
    } else {
        units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, size)| *size)?
    };
    number.parse::<u64>().ok()?.checked_mul(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory_and_times_have_their_units() {
        assert_eq!(quantity("64 MiB", MEMORY), Some(64 << 20));
        assert_eq!(quantity("64mib", MEMORY), Some(64 << 20));
        assert_eq!(quantity("3 kB", MEMORY), Some(3000));
        assert_eq!(quantity("2m", TIME), Some(120_000));
        assert_eq!(quantity("250 ms", TIME), Some(250));
        for wrong in ["", "MiB", "-1 MiB", "1.5 GiB", "1 XB", "18446744073709551615 GiB"] {
            assert_eq!(quantity(wrong, MEMORY), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_written_back_is_the_same_amount() {
        type Memory = Bytes<1, { u64::MAX }>;
        type Any = Time<0, { u64::MAX }>;
        assert_eq!(Memory::write(&(64 << 20)).as_deref(), Some("\"64 MiB\""));
        assert_eq!(Memory::write(&1000).as_deref(), Some("1000"));
        assert_eq!(Any::write(&Duration::from_secs(180)).as_deref(), Some("\"180s\""));
        assert_eq!(Any::write(&Duration::from_secs(7200)).as_deref(), Some("\"2h\""));
        assert_eq!(Any::write(&Duration::from_millis(1500)).as_deref(), Some("\"1500ms\""));
    }

    #[test]
    fn a_network_is_cut_to_its_prefix_and_mapped_ipv4_is_ipv4() {
        let written = |text| network(text).map(|network| network.to_string());
        assert_eq!(written("10.77.0.5/24").as_deref(), Some("10.77.0.0/24"));
        assert_eq!(written("10.77.0.5").as_deref(), Some("10.77.0.5/32"));
        assert_eq!(written("::ffff:10.77.0.0/120").as_deref(), Some("10.77.0.0/24"));
        assert_eq!(written("fd00::/8").as_deref(), Some("fd00::/8"));
        assert_eq!(written("10.77.0.0/33"), None);
    }

    #[test]
    fn a_slip_in_an_address_does_not_make_it_an_interface() {
        for address in ["10.77.0.300", "10.77.0.0/33", "fe80::1::2", "10.77/16"] {
            assert!(looks_like_an_address(address), "{address}");
        }
        for interface in ["lo", "eth0", "eth0.12", "eth0:1", "wg*", "cluster0"] {
            assert!(!looks_like_an_address(interface), "{interface}");
        }
    }

    #[test]
    fn the_words_of_severity_are_all_there_are() {
        let words: Vec<_> = Severity::WORDS.iter().map(|(word, severity)| (*word, *severity)).collect();
        assert_eq!(words, Severity::ALL.map(|severity| (severity.name(), severity)));
    }
}
