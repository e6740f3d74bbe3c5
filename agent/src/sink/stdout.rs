//! `stdout`: records on standard output, one a line; for a person, where that is a terminal.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

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

struct Stdout {
    format: Format,
    batch: Batch,
    for_a_person: bool,
}

fn open(settings: &Settings, _: &Context<'_>) -> Result<Box<dyn Deliver>, String> {
    let records = settings.batch_records.unwrap_or(500);
    let batch = Batch { records, bytes: 256 << 10, wait: settings.batch_wait.unwrap_or_default() };
    let for_a_person = settings.format == Format::Native && io::stdout().is_terminal();
    Ok(Box::new(Stdout { format: settings.format, batch, for_a_person }))
}

impl Deliver for Stdout {
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
            let mut rest = text.as_slice();
            while !rest.is_empty() {
                // A reader that is slow must not hold up the tasks of other sinks, so nothing here may block.
                match write_some(rest) {
                    Ok(0) => tokio::time::sleep(PAUSE).await,
                    Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                    Err(error) => {
                        // What was written whole need not be written again.
                        let written = text.len() - rest.len();
                        let done = text.get(..written).unwrap_or_default().iter().filter(|&&it| it == b'\n').count();
                        return Outcome::Retry { done, reason: format!("standard output: {error}"), after: None };
                    }
                }
            }
            Outcome::DONE
        })
    }
}

/// Writes as much as can be written without waiting.
fn write_some(bytes: &[u8]) -> io::Result<usize> {
    let out = io::stdout();
    let mut ask = [PollFd::new(&out, PollFlags::OUT)];
    if poll(&mut ask, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0 {
        return Ok(0);
    }
    Ok(rustix::io::write(&out, bytes.get(..PIECE).unwrap_or(bytes))?)
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
}
