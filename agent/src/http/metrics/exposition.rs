//! The two text formats that Prometheus reads, from one list of calls: OpenMetrics 1.0, and the older one (0.0.4).
//!
//! They differ in what a family is called (a counter's without `_total` in OpenMetrics), in the unit and the end, which only
//! OpenMetrics has, and in the type of information, which the older one calls a gauge.

use std::borrow::Cow;
use std::fmt::Write as _;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4.
    Text,
}

/// The media type that asks for OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text";

impl Format {
    /// What stands in `Content-Type`.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The one that an `Accept` header prefers; OpenMetrics only where it is named. Whoever takes neither gets the older one.
    pub(crate) fn accepted(accept: &str) -> Self {
        let mut best = (0.0, Self::Text);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1.0_f32, None);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            let format = match (media.as_str(), version) {
                (OPEN_METRICS, None | Some("1.0.0")) => Self::OpenMetrics,
                ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => Self::Text,
                _ => continue,
            };
            // Of two that are liked equally, the newer.
            let newer = format == Self::OpenMetrics && best.1 == Self::Text;
            if quality > best.0 || (quality > 0.0 && quality >= best.0 && newer) {
                best = (quality, format);
            }
        }
        best.1
    }
}

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// What is told is in its labels.
    Info,
}

/// A family of series, as both formats describe it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    /// Its name without what the kind adds.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) kind: Kind,
    /// Its unit, which the name ends with; empty where it has none.
    pub(crate) unit: &'static str,
    /// What it means.
    pub(crate) help: &'static str,
}

/// Labels of one series.
pub(crate) type Labels<'a> = &'a [(&'static str, &'a str)];

/// A text that grows.
#[derive(Debug)]
pub(crate) struct Exposition {
    format: Format,
    text: String,
}

impl Exposition {
    /// An empty one.
    pub(crate) const fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    /// Begins a family and writes its series.
    pub(crate) fn family(&mut self, family: &Family, series: impl FnOnce(&mut Series<'_>)) {
        let Family { name, kind, unit, help } = *family;
        let suffix = match kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
            Kind::Info => "_info",
        };
        let (described, word) = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Counter) => ("", "counter"),
            (Format::OpenMetrics, Kind::Info) => ("", "info"),
            (Format::Text, Kind::Counter) => (suffix, "counter"),
            (Format::Text, Kind::Info) => (suffix, "gauge"),
            (_, Kind::Gauge) => ("", "gauge"),
        };
        let text = &mut self.text;
        let _ = writeln!(text, "# HELP {name}{described} {help}");
        let _ = writeln!(text, "# TYPE {name}{described} {word}");
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            let _ = writeln!(text, "# UNIT {name} {unit}");
        }
        series(&mut Series { name, suffix, text });
    }

    /// The whole text.
    pub(crate) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// Where the series of a family go.
#[derive(Debug)]
pub(crate) struct Series<'a> {
    name: &'static str,
    suffix: &'static str,
    text: &'a mut String,
}

impl Series<'_> {
    /// Writes one.
    pub(crate) fn add(&mut self, labels: Labels<'_>, value: impl Into<Value>) {
        let _ = write!(self.text, "{}{}", self.name, self.suffix);
        for (number, (label, text)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{}\"", escaped(text));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = match value.into() {
            Value::Whole(value) => writeln!(self.text, "{after} {value}"),
            Value::Fraction(value) => writeln!(self.text, "{after} {value}"),
        };
    }
}

/// A number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    /// A whole one.
    Whole(u64),
    /// Any.
    Fraction(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Fraction(value)
    }
}

/// A label's value: backslash, quote and line feed are the only characters that mean something.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\\' => safe.push_str("\\\\"),
            '"' => safe.push_str("\\\""),
            '\n' => safe.push_str("\\n"),
            other => safe.push(other),
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILIES: [Family; 3] = [
        Family { name: "it_read_bytes", kind: Kind::Counter, unit: "bytes", help: "Read." },
        Family { name: "it_build", kind: Kind::Info, unit: "", help: "What it is." },
        Family { name: "it_age_seconds", kind: Kind::Gauge, unit: "seconds", help: "How old." },
    ];

    fn written(format: Format) -> String {
        let mut exposition = Exposition::new(format);
        exposition.family(&FAMILIES[0], |series| {
            series.add(&[("from", "a\"\\\n")], 7_u64);
            series.add(&[("from", "b"), ("to", "c")], u64::MAX);
        });
        exposition.family(&FAMILIES[1], |series| series.add(&[("version", "1")], 1_u64));
        exposition.family(&FAMILIES[2], |series| series.add(&[], 0.25));
        exposition.finish()
    }

    #[test]
    fn open_metrics_names_a_counters_family_without_total_and_ends_in_eof() {
        assert_eq!(
            written(Format::OpenMetrics),
            "# HELP it_read_bytes Read.\n# TYPE it_read_bytes counter\n# UNIT it_read_bytes bytes\n\
             it_read_bytes_total{from=\"a\\\"\\\\\\n\"} 7\nit_read_bytes_total{from=\"b\",to=\"c\"} 18446744073709551615\n\
             # HELP it_build What it is.\n# TYPE it_build info\nit_build_info{version=\"1\"} 1\n\
             # HELP it_age_seconds How old.\n# TYPE it_age_seconds gauge\n# UNIT it_age_seconds seconds\n\
             it_age_seconds 0.25\n# EOF\n"
        );
    }

    #[test]
    fn the_older_format_describes_series_by_their_own_names() {
        assert_eq!(
            written(Format::Text),
            "# HELP it_read_bytes_total Read.\n# TYPE it_read_bytes_total counter\n\
             it_read_bytes_total{from=\"a\\\"\\\\\\n\"} 7\nit_read_bytes_total{from=\"b\",to=\"c\"} 18446744073709551615\n\
             # HELP it_build_info What it is.\n# TYPE it_build_info gauge\nit_build_info{version=\"1\"} 1\n\
             # HELP it_age_seconds How old.\n# TYPE it_age_seconds gauge\nit_age_seconds 0.25\n"
        );
    }

    #[test]
    fn the_format_is_the_one_that_is_liked_most() {
        // As Prometheus 2.42 and 3.0 ask.
        let v2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                  text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let v3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                  application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                  text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (v2, Format::OpenMetrics),
            (v3, Format::OpenMetrics),
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text; version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text; version=0.0.1", Format::Text),
            ("application/openmetrics-text;q=0.4, text/plain;q=0.5", Format::Text),
            ("text/plain, application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=nonsense, text/plain;q=0.1", Format::Text),
            ("image/png", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }
}
