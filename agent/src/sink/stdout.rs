//! `stdout`: records on standard output, one a line; for a person, where that is a terminal.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::deliver::{Batch, Deliver, Entry, Outcome, Sending};
use super::format::{AlertView, render, summary};
use super::settings::{Format, Settings};
use super::{Context, Kind};
use distwatch_engine::text::safe;

pub(super) const KIND: Kind = Kind {
    name: "stdout",
    help: "standard output: one JSON object a line, or a line for a person where it is a terminal",
    only_alerts: false,
    alerts_unless_asked: false,
    open,
};

/// So much a pipe takes without waiting once it says that it takes something (`PIPE_BUF`, pipe(7)).
const PIECE: usize = 4096;

/// How long a pipe that is full is left alone.
const PAUSE: Duration = Duration::from_millis(10);

/// A reader that takes nothing for so long is away, and whoever asks for the state of the sink should hear of it.
const STUCK: Duration = Duration::from_secs(10);

struct Stdout<O> {
    out: O,
    format: Format,
    batch: Batch,
    for_a_person: bool,
    patience: Duration,
    /// Whatever comes next, this comes before it.
    half: Option<Half>,
}

/// A line of which only the beginning is written.
struct Half {
    line: Vec<u8>,
    written: usize,
}

fn open(settings: &Settings, _: &Context<'_>) -> Result<Box<dyn Deliver>, String> {
    let records = settings.batch_records.unwrap_or(500);
    let batch = Batch { records, bytes: 256 << 10, wait: settings.batch_wait.unwrap_or_default() };
    let (out, format) = (io::stdout(), settings.format);
    let for_a_person = format == Format::Native && out.is_terminal();
    Ok(Box::new(Stdout { out, format, batch, for_a_person, patience: STUCK, half: None }))
}

impl<O: AsFd + Send> Deliver for Stdout<O> {
    fn batch(&self) -> Batch {
        self.batch
    }

    fn send<'a>(&'a mut self, batch: &'a [Entry]) -> Sending<'a> {
        Box::pin(async move {
            let mut text = Vec::new();
            for entry in batch {
                match self.for_a_person {
                    true => text.extend_from_slice(line_for_a_person(entry).as_bytes()),
                    false => text.extend_from_slice(&render(entry, self.format)),
                }
                text.push(b'\n');
            }
            let (mut at, mut others) = (0, 0);
            if let Some(half) = self.half.take() {
                at = half.written;
                if !text.starts_with(&half.line) {
                    // That record is no longer ours to send, but its line has been begun.
                    others = 1;
                    text.splice(0..0, half.line);
                }
            }
            let mut since = Instant::now();
            while at < text.len() {
                // A reader that is slow must not hold up the tasks of other sinks, so nothing here may block.
                let failed = match write_some(&self.out, text.get(at..).unwrap_or_default()) {
                    Ok(0) if since.elapsed() < self.patience => {
                        // Nobody may ever come back to this.
                        self.half = Half::of(&text, at);
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                    Ok(0) => "whoever reads it takes nothing".to_owned(),
                    Ok(written) => {
                        at += written;
                        since = Instant::now();
                        continue;
                    }
                    Err(error) => error.to_string(),
                };
                self.half = Half::of(&text, at);
                // What was written whole need not be written again.
                let lines = text.iter().take(at).filter(|&&octet| octet == b'\n').count();
                return Outcome::retry_after(lines.saturating_sub(others), format!("standard output: {failed}"));
            }
            self.half = None;
            Outcome::DONE
        })
    }
}

impl Half {
    /// The line in which so many octets of a text end, unless they end with a line.
    fn of(text: &[u8], written: usize) -> Option<Self> {
        let (before, after) = text.split_at_checked(written)?;
        let start = before.iter().rposition(|octet| *octet == b'\n').map_or(0, |at| at + 1);
        let end = written + after.iter().position(|octet| *octet == b'\n')? + 1;
        let line = text.get(start..end)?.to_vec();
        (start < written).then_some(Self { line, written: written - start })
    }
}

/// Writes as much as can be written without waiting.
fn write_some(out: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let mut ask = [PollFd::new(out, PollFlags::OUT)];
    let written = match poll(&mut ask, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(0) => return Ok(0),
        Ok(_) => rustix::io::write(out, bytes.get(..PIECE).unwrap_or(bytes)),
        Err(error) => Err(error),
    };
    match written {
        Err(Errno::INTR | Errno::AGAIN) => Ok(0),
        written => Ok(written?),
    }
}

/// `2026-11-23 03:58:49 HIGH weak-cookie new web@a -> db@b: …`
fn line_for_a_person(entry: &Entry) -> String {
    let time = entry.time.to_string().replace('T', " ");
    let time = time.get(..19).unwrap_or_default();
    let text = match AlertView::of(entry) {
        Some(alert) => format!(
            "{} {} {} {}: {}",
            alert.severity().name().to_uppercase(),
            alert.text("rule_id"),
            alert.text("status"),
            alert.text("subject"),
            alert.text("reason")
        ),
        None => format!("{} {}", entry.event_type.name(), summary(&entry.json(), entry.event_type)),
    };
    format!("{time} {}", safe(&text))
}

#[cfg(test)]
mod tests {
    use super::super::format::testing::entries;
    use super::*;

    #[test]
    fn a_line_for_a_person_is_one_line_that_says_what_happened_when() {
        for entry in entries() {
            let line = line_for_a_person(&entry);
            assert!(line.starts_with("2026-11-"), "{line}");
            assert!(!line.contains('\n') && line.len() > 30, "{line}");
        }
    }

    #[tokio::test]
    async fn a_line_that_was_begun_is_ended_before_anything_else() {
        let (mut reader, out) = io::pipe().unwrap();
        let batch = Batch { records: 1, bytes: 1, wait: Duration::ZERO };
        let half = None;
        let patience = Duration::ZERO;
        let mut sink = Stdout { out, format: Format::Native, batch, for_a_person: false, patience, half };
        let entry = |number: usize| Entry { line: format!("{number:0>1500}").into_bytes(), ..entries().remove(0) };
        let many: Vec<Entry> = (0..1000).map(entry).collect();
        let Outcome::Retry { done, .. } = sink.send(&many).await else { panic!("nobody reads") };
        assert!(done > 0 && done < many.len() && sink.half.is_some(), "{done}");
        let mut read = Vec::new();
        let mut take = |read: &mut Vec<u8>, octets: usize| {
            let start = read.len();
            read.resize(start + octets, 0);
            io::Read::read_exact(&mut reader, &mut read[start..]).unwrap();
        };
        take(&mut read, 16 * 1501);
        // The same record is sent again, and then another one is, as if the spool had reached its limit.
        let Outcome::Retry { done: more, .. } = sink.send(&many[done..]).await else { panic!("nobody reads") };
        assert!(more > 0 && sink.half.is_some());
        let sent = done + more;
        take(&mut read, 16 * 1501);
        assert_eq!(sink.send(&many[sent + 1..sent + 3]).await, Outcome::DONE);
        take(&mut read, (sent + 3) * 1501 - 32 * 1501);
        let expected: Vec<u8> = many[..sent + 3].iter().flat_map(|it| [it.line.as_slice(), b"\n"].concat()).collect();
        assert_eq!(read, expected);
    }
}
