//! Records as they come, and for a person at a terminal a readable line for what matters.

use std::fmt::Write as _;
use std::sync::Arc;

use distwatch_engine::event::{Event, EventBody, LinkChange};
use distwatch_engine::model::{Alert, AlertStatus, Stats};
use distwatch_engine::text::safe;
use distwatch_engine::time::Timestamp;

use super::journal::Entry;
use super::picture::{self, Raised};
use crate::record::{CommunityIds, EventType, Record};
use crate::sink::{Outgoing, Sinks};

/// What standard output shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For programs: every record, a JSON object a line.
    Ndjson,
    /// For a person: findings, and links that come and go.
    Lines,
}

/// Who takes records. What nobody takes is not written: this is the capture thread's time.
#[derive(Clone, Debug)]
pub enum Audience {
    /// All are taken: standard output shows them, or the HTTP server tells of them.
    All,
    /// Those that a sink wants are taken.
    Sinks(Arc<Sinks>),
}

impl Audience {
    fn takes(&self, kind: EventType) -> bool {
        match self {
            Self::All => true,
            Self::Sinks(sinks) => sinks.want(kind),
        }
    }
}

/// What one look at the capture gave.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Records, in order.
    pub records: Vec<Arc<Outgoing>>,
    /// What a person reads of them.
    pub lines: Vec<String>,
    /// Whether standard output shows the lines, and not the records.
    pub for_a_person: bool,
    /// What goes to the journal before the records go anywhere.
    pub journal: Option<Entry>,
}

impl Batch {
    /// Whether there is nothing in it for anybody.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty() && self.lines.is_empty() && self.journal.is_none()
    }

    /// How many things were to be told.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.records.len().max(self.lines.len()) as u64
    }

    /// How many of them standard output shows.
    #[must_use]
    pub fn printed(&self) -> u64 {
        (if self.for_a_person { self.lines.len() } else { self.records.len() }) as u64
    }

    /// What it takes in memory, about.
    #[must_use]
    pub(super) fn octets(&self) -> usize {
        /// Besides the text: the record's own fields, and what the allocator keeps.
        const EACH: usize = 128;
        let records = self.records.iter().map(|record| record.line.len() + EACH).sum::<usize>();
        let lines = self.lines.iter().map(|line| line.len() + EACH).sum::<usize>();
        records + lines + self.journal.as_ref().map_or(0, Entry::octets)
    }

    /// What standard output shows.
    pub fn print(&self, text: &mut Vec<u8>) {
        let mut line = |bytes: &[u8]| {
            text.extend_from_slice(bytes);
            text.push(b'\n');
        };
        if self.for_a_person {
            self.lines.iter().for_each(|text| line(text.as_bytes()));
        } else {
            self.records.iter().for_each(|record| line(&record.line));
        }
    }
}

/// Collects records until they are taken.
#[derive(Debug)]
pub struct Writer {
    form: Form,
    audience: Audience,
    host: String,
    ids: CommunityIds,
    batch: Batch,
    raised: Raised,
}

impl Writer {
    /// A writer for the sensor on `host`.
    #[must_use]
    pub fn new(form: Form, audience: Audience, host: String) -> Self {
        let batch = Batch { for_a_person: form == Form::Lines, ..Batch::default() };
        Self { form, audience, host, ids: CommunityIds::default(), batch, raised: Raised::default() }
    }

    /// All that was written since the last call.
    pub fn take(&mut self) -> Batch {
        let for_a_person = self.form == Form::Lines;
        std::mem::replace(&mut self.batch, Batch { for_a_person, ..Batch::default() })
    }

    /// How many findings were new so far.
    #[must_use]
    pub const fn raised(&self) -> &Raised {
        &self.raised
    }

    /// Counts a finding if it is new.
    pub fn count_alert(&mut self, alert: &Alert) {
        picture::count(&mut self.raised, alert);
    }

    /// The event's record, if it has one.
    pub fn write_event(&mut self, event: &Event) {
        let record = Record::from_event(event, &self.host, &mut self.ids);
        if let Some(record) = record.filter(|record| self.audience.takes(record.event_type)) {
            self.batch.records.push(Arc::new(Outgoing::new(&record)));
        }
        if self.form == Form::Lines {
            self.batch.lines.extend(event_line(event));
        }
    }

    /// The finding in its present state.
    pub fn write_alert(&mut self, alert: &Alert) {
        if self.audience.takes(EventType::Alert) {
            let record = Record::from_alert(alert, &self.host, &mut self.ids);
            self.batch.records.push(Arc::new(Outgoing::new(&record)));
        }
        if self.form == Form::Lines {
            self.batch.lines.push(alert_line(alert));
        }
    }

    /// The counters; a person at a terminal asks `distwatch status` for them.
    pub fn stats(&mut self, stats: &Stats, time: Timestamp) {
        if self.audience.takes(EventType::Stats) {
            self.batch.records.push(Arc::new(Outgoing::new(&Record::stats(stats, time, &self.host))));
        }
    }
}

/// `12:00:01 CRITICAL remote-shell: web@a -> db@b: …`
fn alert_line(alert: &Alert) -> String {
    let Alert { severity, rule_id, subject, reason, status, count, told, .. } = alert;
    let status = match status {
        AlertStatus::New => String::new(),
        AlertStatus::Update => format!(" (x{count})"),
        AlertStatus::Resolved => " (ended)".to_owned(),
    };
    let severity = severity.name().to_uppercase();
    format!("{} {severity:8} {rule_id}{status}: {}: {}", clock(*told), safe(subject), safe(reason))
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
    use crate::sink::settings::{FileSettings, Settings, exactly};

    fn text(form: Form, write: impl FnOnce(&mut Writer)) -> (String, u64) {
        let mut writer = Writer::new(form, Audience::All, "h".into());
        write(&mut writer);
        let batch = writer.take();
        assert_eq!(writer.take().printed(), 0);
        let mut text = Vec::new();
        batch.print(&mut text);
        (String::from_utf8(text).unwrap(), batch.printed())
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
    fn a_finding_that_ends_stands_at_the_time_when_it_ended() {
        let mut alert = sample::report().alerts.remove(0);
        (alert.status, alert.last_seen, alert.told) = (AlertStatus::Resolved, sample::at(1), sample::at(61));
        let (line, _) = text(Form::Lines, |writer| writer.write_alert(&alert));
        assert!(line.starts_with(&clock(sample::at(61))) && line.contains("(ended)"), "{line}");
    }

    #[test]
    fn a_program_reads_every_record_and_a_person_no_counters() {
        let report = sample::report();
        let (lines, records) = text(Form::Ndjson, |writer| writer.stats(&report.stats, sample::at(1)));
        assert_eq!((lines.lines().count(), records), (1, 1));
        assert_eq!(text(Form::Lines, |writer| writer.stats(&report.stats, sample::at(1))), (String::new(), 0));
    }

    #[test]
    fn what_nobody_takes_is_not_written_and_a_person_still_reads_of_it() {
        let report = sample::report();
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let written = |sinks: &[Settings], form: Form| {
            let sinks = Sinks::start(sinks, folder.path(), "h", runtime.handle()).unwrap();
            let mut writer = Writer::new(form, Audience::Sinks(Arc::new(sinks)), "h".into());
            writer.stats(&report.stats, sample::at(1));
            writer.write_alert(&report.alerts[0]);
            let batch = writer.take();
            (batch.records.iter().map(|record| record.event_type).collect::<Vec<_>>(), batch.lines.len())
        };
        assert_eq!(written(&[], Form::Lines), (vec![], 1));
        let file = Settings {
            name: "file".into(),
            kind: "file".into(),
            file: FileSettings { path: folder.path().join("records"), ..FileSettings::default() },
            ..Settings::default()
        };
        assert_eq!(written(std::slice::from_ref(&file), Form::Ndjson), (vec![EventType::Stats, EventType::Alert], 0));
        let alerts = Settings { name: "alerts".into(), events: exactly(&["alert"]), ..file };
        assert_eq!(written(&[alerts], Form::Ndjson), (vec![EventType::Alert], 0));
    }
}
