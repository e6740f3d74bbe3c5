//! Records as they come: one JSON object a line for programs, a readable line for a person at a terminal.

use std::fmt::Write as _;

use distwatch_engine::event::{Event, EventBody, LinkChange};
use distwatch_engine::model::{Alert, AlertStatus, Stats};
use distwatch_engine::text::safe;
use distwatch_engine::time::Timestamp;

use super::output::Batch;
use crate::record::{CommunityIds, Record};

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For programs.
    Ndjson,
    /// For a person: findings, and links that come and go.
    Lines,
}

/// Collects records until they are taken.
#[derive(Debug)]
pub struct Writer {
    form: Form,
    host: String,
    ids: CommunityIds,
    batch: Batch,
}

impl Writer {
    /// A writer for the sensor on `host`.
    #[must_use]
    pub fn new(form: Form, host: String) -> Self {
        Self { form, host, ids: CommunityIds::default(), batch: Batch::default() }
    }

    /// All that was written since the last call.
    pub fn take(&mut self) -> Batch {
        std::mem::take(&mut self.batch)
    }

    /// The event's record, if it has one.
    pub fn write_event(&mut self, event: &Event) {
        match self.form {
            Form::Ndjson => {
                if let Some(record) = Record::from_event(event, &self.host, &mut self.ids) {
                    record.write_line(&mut self.batch.bytes);
                    self.batch.records += 1;
                }
            }
            Form::Lines => {
                if let Some(line) = event_line(event) {
                    self.line(&line);
                }
            }
        }
    }

    /// The finding in its present state.
    pub fn write_alert(&mut self, alert: &Alert) {
        match self.form {
            Form::Ndjson => {
                Record::from_alert(alert, &self.host, &mut self.ids).write_line(&mut self.batch.bytes);
                self.batch.records += 1;
            }
            Form::Lines => self.line(&alert_line(alert)),
        }
    }

    /// The counters; a person at a terminal asks `distwatch status` for them.
    pub fn stats(&mut self, stats: &Stats, time: Timestamp) {
        if self.form == Form::Ndjson {
            Record::stats(stats, time, &self.host).write_line(&mut self.batch.bytes);
            self.batch.records += 1;
        }
    }

    fn line(&mut self, line: &str) {
        self.batch.bytes.extend_from_slice(line.as_bytes());
        self.batch.bytes.push(b'\n');
        self.batch.records += 1;
    }
}

/// `12:00:01 CRITICAL remote-shell: web@a -> db@b: …`
fn alert_line(alert: &Alert) -> String {
    let Alert { severity, rule_id, subject, reason, status, count, last_seen, .. } = alert;
    let status = match status {
        AlertStatus::New => String::new(),
        AlertStatus::Update => format!(" (x{count})"),
        AlertStatus::Resolved => " (ended)".to_owned(),
    };
    let severity = severity.name().to_uppercase();
    format!("{} {severity:8} {rule_id}{status}: {}: {}", clock(*last_seen), safe(subject), safe(reason))
}

fn event_line(event: &Event) -> Option<String> {
    let EventBody::Link { change: change @ (LinkChange::Opened | LinkChange::Handshake | LinkChange::Closed), link } =
        &event.body
    else {
        return None;
    };
    let mut line = format!("{} {:8} ", clock(event.time), "link");
    for (number, end) in [&link.initiator, &link.acceptor].into_iter().enumerate() {
        let arrow = if number == 0 { "" } else { " -> " };
        let name = end.node.as_deref().map(|node| format!("{} ", safe(node))).unwrap_or_default();
        let _ = write!(line, "{arrow}{name}{}", std::net::SocketAddr::new(end.ip, end.port));
    }
    let _ = write!(line, " {}", change.name());
    Some(line)
}

/// The time of day, in UTC like everything else that is printed.
fn clock(time: Timestamp) -> String {
    time.to_string().get(11..19).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn text(form: Form, write: impl FnOnce(&mut Writer)) -> (String, u64) {
        let mut writer = Writer::new(form, "h".into());
        write(&mut writer);
        let batch = writer.take();
        assert_eq!(writer.take().records, 0);
        (String::from_utf8(batch.bytes).unwrap(), batch.records)
    }

    #[test]
    fn a_person_reads_one_line_for_a_finding_and_nothing_in_it_can_break_the_terminal() {
        let mut alert = sample::report().alerts.remove(0);
        alert.subject = "evil\u{1b}[2J\n@h -> db@h".into();
        let (line, records) = text(Form::Lines, |writer| writer.write_alert(&alert));
        assert_eq!((line.matches('\n').count(), records), (1, 1));
        assert!(line.contains(&alert.rule_id) && !line.contains('\u{1b}'), "{line}");
    }

    #[test]
    fn a_program_reads_every_record_and_a_person_no_counters() {
        let report = sample::report();
        let (lines, records) = text(Form::Ndjson, |writer| writer.stats(&report.stats, sample::at(1)));
        assert_eq!((lines.lines().count(), records), (1, 1));
        assert_eq!(text(Form::Lines, |writer| writer.stats(&report.stats, sample::at(1))), (String::new(), 0));
    }
}
