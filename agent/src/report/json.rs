//! The report as one JSON object.

use std::io::{self, BufWriter, Write};

use super::Report;

/// Writes the report and a line feed. It goes out piece by piece: the whole text is never in memory.
///
/// # Errors
/// What `out` says; a closed pipe is one of them, and the caller's to judge.
pub fn write(report: &Report, out: &mut impl Write, pretty: bool) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    if pretty {
        serde_json::to_writer_pretty(&mut out, report)?;
    } else {
        serde_json::to_writer(&mut out, report)?;
    }
    out.write_all(b"\n")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn text(report: &Report, pretty: bool) -> String {
        let mut out = Vec::new();
        write(report, &mut out, pretty).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_report_is_printed_as_the_golden_file_has_it() {
        sample::golden("report.json", &text(&sample::report(), true));
    }

    #[test]
    fn an_empty_report_has_every_array_and_the_version_first() {
        let printed = text(&Report::default(), false);
        assert!(printed.starts_with(
            r#"{"schema_version":1,"captures":[],"nodes":[],"links":[],"epmd":[],"activity":[],"alerts":[],"stats":{"#
        ));
        assert!(printed.ends_with("}\n"));
    }

    #[test]
    fn a_failing_output_is_reported_and_no_panic() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = write(&sample::report(), &mut Closed, true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
