//! Records, one JSON object a line, as they come.

use std::io::{self, Write};

use distwatch_engine::event::{Event, EventBody};
use distwatch_engine::model::{Alert, Stats};
use distwatch_engine::time::Timestamp;

use crate::record::{ActivityLines, CommunityIds, Record};

/// Collected before it is handed on: one system call for some hundred lines.
const BUFFER: usize = 64 * 1024;

/// Writes records to `out`. What is still in the buffer goes out with [`Writer::flush`]; dropping the writer loses it.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    host: String,
    ids: CommunityIds,
    activities: ActivityLines,
    lines: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// A writer for the sensor on `host`.
    pub fn new(out: W, host: impl Into<String>) -> Self {
        let host = host.into();
        let activities = ActivityLines::new(&host);
        Self { out, host, ids: CommunityIds::default(), activities, lines: Vec::with_capacity(BUFFER) }
    }

    /// Writes the event's record, if it has one.
    ///
    /// # Errors
    /// What the output says.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        if let EventBody::Activity(activity) = &event.body {
            self.activities.write(event, activity, &mut self.ids, &mut self.lines);
        } else if let Some(record) = Record::from_event(event, &self.host, &mut self.ids) {
            record.write_line(&mut self.lines);
        }
        self.hand_on()
    }

    /// Writes the finding in its present state.
    ///
    /// # Errors
    /// What the output says.
    pub fn alert(&mut self, alert: &Alert) -> io::Result<()> {
        Record::from_alert(alert, &self.host, &mut self.ids).write_line(&mut self.lines);
        self.hand_on()
    }

    /// Writes the counters as they stand at `time`.
    ///
    /// # Errors
    /// What the output says.
    pub fn stats(&mut self, stats: &Stats, time: Timestamp) -> io::Result<()> {
        Record::stats(stats, time, &self.host).write_line(&mut self.lines);
        self.hand_on()
    }

    /// Writes out all that is buffered.
    ///
    /// # Errors
    /// What the output says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.lines)?;
        self.lines.clear();
        self.out.flush()
    }

    fn hand_on(&mut self) -> io::Result<()> {
        if self.lines.len() < BUFFER {
            return Ok(());
        }
        self.out.write_all(&self.lines)?;
        self.lines.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn nothing_is_lost_between_the_buffer_and_the_output() {
        let report = sample::report();
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, "h");
        let rounds = 2 * BUFFER / 300;
        for _ in 0..rounds {
            for alert in &report.alerts {
                writer.alert(alert).unwrap();
            }
        }
        writer.stats(&report.stats, sample::at(9)).unwrap();
        writer.flush().unwrap();
        let lines: Vec<&[u8]> = out.split_inclusive(|&byte| byte == b'\n').collect();
        assert_eq!(lines.len(), rounds * report.alerts.len() + 1);
        for line in lines {
            assert!(serde_json::from_slice::<serde_json::Value>(line).is_ok());
        }
    }
}
