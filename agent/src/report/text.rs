//! The report for a person: the verdict first, then who talks to whom, what they do, the findings, and what is missing.
//!
//! Every text that a peer can choose goes through [`printable`], so nothing in a capture can move the cursor or paint.

mod findings;
mod layout;
mod notes;
mod tables;

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

use distwatch_engine::model::{Answer, Capture, Severity, Transport};
pub use distwatch_engine::text::safe as printable;
use distwatch_engine::time::Timestamp;
use layout::{Style, paragraph};

use super::Report;
use super::group::Reach;
use crate::source::pcap_file::STANDARD_INPUT;

/// How the text is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Colours (ANSI sequences).
    pub colour: bool,
    /// Columns that there are. What does not fit is wrapped, never cut.
    pub width: usize,
}

impl Default for Options {
    /// No colour, 100 columns: what goes into a file.
    fn default() -> Self {
        Self { colour: false, width: 100 }
    }
}

/// Writes the report.
///
/// # Errors
/// What `out` says; a closed pipe is one of them, and the caller's to judge.
pub fn write(report: &Report, options: Options, out: &mut impl Write) -> io::Result<()> {
    let mut printer = Printer { out: BufWriter::new(out), options };
    head(report, &mut printer)?;
    tables::links(report, &mut printer)?;
    tables::nodes(report, &mut printer)?;
    tables::epmd(report, &mut printer)?;
    tables::activity(report, &mut printer)?;
    findings::write(report, &mut printer)?;
    notes::write(report, &mut printer)?;
    printer.out.flush()
}

/// Where all sections write.
struct Printer<W: Write> {
    out: BufWriter<W>,
    options: Options,
}

impl<W: Write> Printer<W> {
    /// A section's title after an empty line.
    fn section(&mut self, title: &str) -> io::Result<()> {
        let title = Style::BOLD.paint(title, self.options.colour);
        writeln!(self.out, "\n{title}")
    }

    fn table(&mut self, table: &layout::Table) -> io::Result<()> {
        table.write(&mut self.out, self.options.width, self.options.colour)
    }

    fn paragraph(&mut self, indent: usize, label: &str, text: &str) -> io::Result<()> {
        paragraph(&mut self.out, (indent, label), text, self.options.width)
    }
}

fn head<W: Write>(report: &Report, printer: &mut Printer<W>) -> io::Result<()> {
    let Options { colour, width } = printer.options;
    let worst = report.alerts.iter().map(|alert| alert.severity).max();
    let style = match worst {
        Some(Severity::Critical | Severity::High) => Style::ALARM,
        Some(Severity::Medium) => Style::YELLOW,
        _ => Style::GREEN,
    };
    for line in layout::wrap(&verdict(report), width) {
        writeln!(printer.out, "{}", style.paint(&line, colour))?;
    }
    printer.paragraph(0, "", &findings::counts(report))?;
    if !report.captures.is_empty() {
        writeln!(printer.out)?;
    }
    report.captures.iter().try_for_each(|capture| printer.paragraph(layout::INDENT, "", &capture_line(capture)))
}

/// One sentence on what the traffic is.
#[must_use]
pub fn verdict(report: &Report) -> String {
    let established: Vec<_> = report.links.iter().filter(|link| Reach::of(link) == Reach::Established).collect();
    let attempts = count(report.links.iter().filter(|link| Reach::of(link) == Reach::Attempt));
    let (total, clear, tls) = (
        count(&established),
        count(established.iter().filter(|link| link.transport == Transport::Cleartext)),
        count(established.iter().filter(|link| link.transport == Transport::Tls)),
    );
    let without_certificate =
        count(established.iter().filter(|link| link.tls.as_ref().is_some_and(|tls| tls.mutual_auth == Answer::No)));
    let mut clauses = Vec::new();
    match (total, clear) {
        (0, _) if attempts > 0 => clauses.push("No distribution link came about".to_owned()),
        (0, _) if report.epmd.is_empty() => {
            let packets = plural(report.stats.packets, "packet", "packets");
            clauses.push(format!("No Erlang distribution and no EPMD in {packets}"));
        }
        (0, _) => clauses.push("No distribution link was seen".to_owned()),
        (1, 1) => clauses.push("The only distribution link runs in clear text".to_owned()),
        (_, 0) if tls == total => {
            let links = match total {
                1 => "The only distribution link runs",
                2 => "Both distribution links run",
                _ => "All distribution links run",
            };
            clauses.push(format!("{links} over TLS"));
        }
        (_, 0) => clauses.push(format!("{tls} of {total} distribution links run over TLS, the rest is unknown")),
        (2, 2) => clauses.push("Both distribution links run in clear text".to_owned()),
        _ if clear == total => clauses.push(format!("All {total} distribution links run in clear text")),
        _ => {
            let verb = if clear == 1 { "runs" } else { "run" };
            clauses.push(format!("{clear} of {total} distribution links {verb} in clear text"));
        }
    }
    if without_certificate > 0 {
        clauses.push(format!("{without_certificate} over TLS without a client certificate"));
    }
    if attempts > 0 {
        clauses.push(format!("{} failed", plural(attempts, "attempt", "attempts")));
    }
    if !report.epmd.is_empty() {
        clauses.push(plural(count(&report.epmd), "EPMD request", "EPMD requests"));
    }
    format!("{}.", clauses.join("; "))
}

fn capture_line(capture: &Capture) -> String {
    let mut parts = vec![name(capture).into_owned(), printable(&capture.format).into_owned()];
    parts.extend(capture.link_types.iter().map(|link_type| printable(link_type).into_owned()));
    parts.push(plural(capture.packets, "packet", "packets"));
    parts.push(octets(capture.bytes));
    if let (Some(first), Some(last)) = (capture.first, capture.last) {
        parts.push(format!("{} UTC", moment(first)));
        parts.push(period(last.since(first)));
    }
    // A number stays with its unit, and a date with its time.
    parts.iter().map(|part| part.replace(' ', layout::NO_BREAK)).collect::<Vec<_>>().join(", ")
}

/// What a capture is called.
fn name(capture: &Capture) -> Cow<'_, str> {
    if capture.path == STANDARD_INPUT { "standard input".into() } else { printable(&capture.path) }
}

/// `2.4 s`, `12 min 5 s`, `26 h 3 min`.
fn period(length: Duration) -> String {
    match length.as_secs() {
        0..60 => format!("{:.1} s", length.as_secs_f64()),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", grouped(seconds / 3600), seconds / 60 % 60),
    }
}

/// To the millisecond, without the letters of RFC 3339.
fn moment(time: Timestamp) -> String {
    let text = time.to_string();
    text.get(..23).unwrap_or(&text).replace('T', " ")
}

/// Decimal units, one digit after the point.
fn octets(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "B";
    for larger in UNITS {
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// A number with a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

fn count<I: IntoIterator>(items: I) -> u64 {
    items.into_iter().count() as u64
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::report::sample;

    fn text(report: &Report, colour: bool, width: usize) -> String {
        let mut out = Vec::new();
        write(report, Options { colour, width }, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_report_is_printed_as_the_golden_files_have_it() {
        sample::golden("report.txt", &text(&sample::report(), false, 100));
        sample::golden("report-narrow.txt", &text(&sample::report(), false, 60));
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let plain = text(&sample::report(), false, 100);
        let coloured = text(&sample::report(), true, 100);
        assert!(coloured.contains("\u{1b}[1;31m"));
        let (before, rest) = coloured.split_once('\u{1b}').unwrap();
        let mut stripped = before.to_owned();
        stripped.extend(rest.split('\u{1b}').map(|part| part.split_once('m').unwrap().1));
        assert_eq!(stripped, plain);
        assert!(!plain.contains('\u{1b}'));
    }

    #[test]
    fn names_from_the_wire_cannot_reach_the_terminal_as_commands() {
        let printed = text(&sample::hostile(), false, 100);
        for forbidden in ['\u{1b}', '\r', '\u{202e}', '\u{200b}'] {
            assert!(!printed.contains(forbidden), "{forbidden:?}");
        }
        assert!(printed.contains(r"\u{202e}"));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [60, 80, 100, 160] {
            for line in text(&sample::report(), false, width).lines() {
                assert!(line.width() <= width, "{} > {width}: {line}", line.width());
            }
        }
    }

    #[test]
    fn an_empty_capture_says_so() {
        let printed = text(&Report::default(), false, 100);
        assert!(printed.starts_with("No Erlang distribution and no EPMD in 0 packets.\nNo findings.\n"), "{printed}");
    }

    #[test]
    fn the_verdict_counts_links_by_what_carries_them() {
        let mut report = sample::report();
        let expected = "2 of 3 distribution links run in clear text; 1 over TLS without a client certificate; \
                        2 attempts failed; 5 EPMD requests.";
        assert_eq!(verdict(&report), expected);
        report.epmd.clear();
        report.links.truncate(1);
        assert_eq!(verdict(&report), "The only distribution link runs in clear text.");
        report.links[0].transport = Transport::Tls;
        assert_eq!(verdict(&report), "The only distribution link runs over TLS.");
        report.links = sample::report().links.split_off(2);
        report.links.truncate(1);
        assert_eq!(verdict(&report), "No distribution link came about; 1 attempt failed.");
    }

    #[test]
    fn numbers_are_written_for_eyes() {
        assert_eq!(
            [octets(999), octets(1000), octets(999_949), octets(5_027_103)],
            ["999 B", "1.0 kB", "999.9 kB", "5.0 MB"]
        );
        assert_eq!(octets(u64::MAX), "18446.7 PB");
        assert_eq!([grouped(0), grouped(999), grouped(1000), grouped(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(moment(sample::at(0)), "2026-11-23 03:58:49.333");
        let periods = [59_940, 60_000, 725_400, 93_812_300].map(|millis| period(Duration::from_millis(millis)));
        assert_eq!(periods, ["59.9 s", "1 min 0 s", "12 min 5 s", "26 h 3 min"]);
    }
}
