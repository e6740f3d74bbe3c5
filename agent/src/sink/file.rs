//! `file`: records in a file, one JSON object a line, put away by size or age.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::deliver::{Batch, Deliver, Entry, Outcome, Sending};
use super::format::render;
use super::settings::{FileSettings, Format, Settings};
use super::{Context, Kind};

pub(super) const KIND: Kind = Kind {
    name: "file",
    help: "a file of JSON objects, one a line, put away by size or age",
    only_alerts: false,
    alerts_unless_asked: false,
    open,
};

/// Who may read it: its owner, and a group that an administrator chooses.
const MODE: u32 = 0o640;

fn open(settings: &Settings, _: &Context<'_>) -> Result<Box<dyn Deliver>, String> {
    let records = settings.batch_records.unwrap_or(1000);
    let batch = Batch { records, bytes: 512 << 10, wait: settings.batch_wait.unwrap_or_default() };
    let log = Log { settings: settings.file.clone(), open: None };
    Ok(Box::new(FileSink { format: settings.format, batch, log: Some(log), reopen: false }))
}

struct FileSink {
    format: Format,
    batch: Batch,
    /// Gone while a thread writes with it.
    log: Option<Log>,
    reopen: bool,
}

impl Deliver for FileSink {
    fn batch(&self) -> Batch {
        self.batch
    }

    fn send<'a>(&'a mut self, batch: &'a [Entry]) -> Sending<'a> {
        let mut text = Vec::new();
        for entry in batch {
            text.extend_from_slice(&render(entry, self.format));
            text.push(b'\n');
        }
        Box::pin(async move {
            let Some(mut log) = self.log.take() else {
                return Outcome::retry("an earlier write has not ended");
            };
            if std::mem::take(&mut self.reopen) {
                log.open = None;
            }
            // A disk may take its time, and the tasks of other sinks must not wait for it.
            let written = tokio::task::spawn_blocking(move || {
                let result = log.write(&text, SystemTime::now());
                (log, result)
            });
            match written.await {
                Ok((log, result)) => {
                    let path = log.settings.path.display().to_string();
                    self.log = Some(log);
                    result.map_or_else(|error| Outcome::retry(format!("{path}: {error}")), |()| Outcome::DONE)
                }
                Err(error) => Outcome::retry(error.to_string()),
            }
        })
    }

    fn reopen(&mut self) {
        self.reopen = true;
    }
}

/// The file, and those that were put away: `name.1` is the youngest.
struct Log {
    settings: FileSettings,
    open: Option<Open>,
}

struct Open {
    file: File,
    bytes: u64,
    since: SystemTime,
}

impl Log {
    /// Writes whole lines, or nothing.
    fn write(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        if self.open.is_none() {
            self.open = Some(open_file(&self.settings.path)?);
        }
        if self.open.as_ref().is_some_and(|open| self.is_due(open, lines.len(), now)) {
            self.open = None;
            put_away(&self.settings.path, self.settings.keep)?;
            self.open = Some(open_file(&self.settings.path)?);
        }
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        if let Err(error) = open.file.write_all(lines) {
            // Half a line is worse than none. Where it cannot be taken back, the next one begins on its own line.
            if open.file.set_len(open.bytes).is_err() {
                let _ = open.file.write_all(b"\n");
            }
            return Err(error);
        }
        open.bytes += lines.len() as u64;
        Ok(())
    }

    fn is_due(&self, open: &Open, more: usize, now: SystemTime) -> bool {
        let old = |every: Duration| now.duration_since(open.since).is_ok_and(|age| age >= every);
        let full = open.bytes + more as u64 > self.settings.rotate_size as u64;
        open.bytes > 0 && (full || self.settings.rotate_every.is_some_and(old))
    }
}

fn open_file(path: &Path) -> io::Result<Open> {
    let file = File::options().create(true).append(true).mode(MODE).open(path)?;
    let facts = file.metadata()?;
    let since = facts.created().or_else(|_| facts.modified())?;
    Ok(Open { file, bytes: facts.len(), since })
}

/// Makes room for a new file: each one that was put away takes the next number, and the last one goes.
fn put_away(path: &Path, keep: u32) -> io::Result<()> {
    if keep == 0 {
        return fs::remove_file(path);
    }
    for number in (1..keep).rev() {
        match fs::rename(numbered(path, number), numbered(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, numbered(path, 1))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(dir: &Path, size: usize, every: Option<Duration>, keep: u32) -> Log {
        let path = dir.join("alerts.ndjson");
        Log { settings: FileSettings { path, rotate_size: size, rotate_every: every, keep }, open: None }
    }

    fn read(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join(name)).unwrap_or_else(|_| "none".to_owned())
    }

    #[test]
    fn a_full_file_is_put_away_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 10, None, 2);
        for line in ["one one\n", "two two\n", "three\n", "four\n", "five five\n"] {
            log.write(line.as_bytes(), SystemTime::now()).unwrap();
        }
        assert_eq!(read(dir.path(), "alerts.ndjson"), "five five\n");
        assert_eq!(read(dir.path(), "alerts.ndjson.1"), "four\n");
        assert_eq!(read(dir.path(), "alerts.ndjson.2"), "three\n");
        assert_eq!(read(dir.path(), "alerts.ndjson.3"), "none");
    }

    #[test]
    fn an_old_file_is_put_away_but_never_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 1000, Some(Duration::from_secs(3600)), 5);
        let now = SystemTime::now();
        log.write(b"a\n", now + Duration::from_secs(7200)).unwrap();
        log.write(b"b\n", now + Duration::from_secs(60)).unwrap();
        assert_eq!(read(dir.path(), "alerts.ndjson"), "a\nb\n");
        log.write(b"c\n", now + Duration::from_secs(7200)).unwrap();
        assert_eq!(
            (read(dir.path(), "alerts.ndjson"), read(dir.path(), "alerts.ndjson.1")),
            ("c\n".into(), "a\nb\n".into())
        );
    }

    #[test]
    fn somebody_elses_rotation_is_followed_when_the_file_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 1000, None, 5);
        log.write(b"a\n", SystemTime::now()).unwrap();
        fs::rename(dir.path().join("alerts.ndjson"), dir.path().join("moved")).unwrap();
        log.write(b"b\n", SystemTime::now()).unwrap();
        log.open = None;
        log.write(b"c\n", SystemTime::now()).unwrap();
        assert_eq!((read(dir.path(), "moved"), read(dir.path(), "alerts.ndjson")), ("a\nb\n".into(), "c\n".into()));
    }
}
