//! `file`: records in a file, one JSON object a line, put away by size or age.
//!
//! A record is taken once it is in the file; with `fsync = "always"` once it is on the disk, and with `"interval"` it is
//! brought there each second and kept in the spool until then.

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use super::deliver::{Batch, Deliver, Entry, Outcome, Sending, Settled};
use super::format::render;
use super::settings::{FileSettings, Format, Fsync, Settings};
use super::{Context, Kind, blocking};

pub(super) const KIND: Kind = Kind {
    name: "file",
    help: "a file of JSON objects, one a line, put away by size or age",
    only_alerts: false,
    alerts_unless_asked: false,
    open,
};

/// Who may read it: its owner, and a group that an administrator chooses.
const MODE: u32 = 0o640;

/// How long a record may be in the file and not on the disk, with `fsync = "interval"`.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Half a line at the end of the file is looked for in this many octets. No record is longer, in any format.
const LONGEST_LINE: u64 = 4 << 20;

fn open(settings: &Settings, _: &Context<'_>) -> Result<Box<dyn Deliver>, String> {
    let records = settings.batch_records.unwrap_or(1000);
    let batch = Batch { records, bytes: 512 << 10, wait: settings.batch_wait.unwrap_or_default() };
    let log = Log { settings: settings.file.clone(), fsync: settings.fsync, open: None };
    Ok(Box::new(FileSink { format: settings.format, fsync: settings.fsync, batch, log: Some(log), reopen: false }))
}

struct FileSink {
    format: Format,
    fsync: Fsync,
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
            let reopen = std::mem::take(&mut self.reopen);
            // A disk may take its time, and the tasks of other sinks must not wait for it.
            let written = blocking(move || {
                let closed = if reopen { log.close() } else { Ok(()) };
                let result = closed.and_then(|()| log.write(&text, SystemTime::now()));
                (log, result)
            });
            match written.await {
                Ok((log, result)) => {
                    let path = log.settings.path.display().to_string();
                    self.log = Some(log);
                    result.map_or_else(|error| Outcome::retry(format!("{path}: {error}")), |()| Outcome::DONE)
                }
                Err(error) => Outcome::retry(error),
            }
        })
    }

    fn settles_after(&self) -> Option<Duration> {
        (self.fsync == Fsync::Interval).then_some(SYNC_INTERVAL)
    }

    fn doubts_after_failure(&self) -> bool {
        false
    }

    fn settled(&mut self) -> Pin<Box<dyn Future<Output = Settled> + Send + '_>> {
        Box::pin(async move {
            let Some(mut log) = self.log.take() else { return Settled::NotYet };
            let synced = blocking(move || {
                let result = log.sync();
                (log, result)
            });
            match synced.await {
                Ok((log, result)) => {
                    let path = log.settings.path.display().to_string();
                    self.log = Some(log);
                    result.map_or_else(|error| Settled::Lost(format!("{path}: {error}")), |()| Settled::All)
                }
                Err(error) => Settled::Lost(error),
            }
        })
    }

    fn reopen(&mut self) {
        self.reopen = true;
    }

    fn close(&mut self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move { self.settled().await == Settled::All })
    }
}

/// The file, and those that were put away: `name.1` is the youngest.
struct Log {
    settings: FileSettings,
    fsync: Fsync,
    open: Option<Open>,
}

struct Open {
    file: File,
    bytes: u64,
    since: SystemTime,
    /// There is something in it that may not be on the disk.
    unsynced: bool,
    /// The folder may not have its name on the disk.
    is_new: bool,
}

impl Log {
    /// Writes whole lines, or nothing.
    fn write(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        if self.open.is_none() {
            self.open = Some(open_file(&self.settings.path)?);
        }
        if self.open.as_ref().is_some_and(|open| self.is_due(open, lines.len(), now)) {
            self.close()?;
            put_away(&self.settings.path, self.settings.keep)?;
            self.open = Some(open_file(&self.settings.path)?);
        }
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        open.unsynced = true;
        if let Err(error) = open.file.write_all(lines) {
            // Half a line is worse than none. Where it cannot be taken back, the next one begins on its own line.
            if open.file.set_len(open.bytes).is_err() {
                let _ = open.file.write_all(b"\n");
            }
            return Err(error);
        }
        open.bytes += lines.len() as u64;
        if self.fsync == Fsync::Always { self.sync() } else { Ok(()) }
    }

    /// Brings to the disk what was written, unless the kernel is to do that when it likes.
    fn sync(&mut self) -> io::Result<()> {
        let Some(open) = self.open.as_mut().filter(|open| open.unsynced && self.fsync != Fsync::Never) else {
            return Ok(());
        };
        match open.file.sync_data() {
            // Standard output, a pipe or the like, which has no disk.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            result => result?,
        }
        if open.is_new {
            let folder = self.settings.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
            open.is_new = false;
        }
        open.unsynced = false;
        Ok(())
    }

    /// Lets the file go, once what is in it is on the disk.
    fn close(&mut self) -> io::Result<()> {
        self.sync()?;
        self.open = None;
        Ok(())
    }

    fn is_due(&self, open: &Open, more: usize, now: SystemTime) -> bool {
        let old = |every: Duration| now.duration_since(open.since).is_ok_and(|age| age >= every);
        let full = open.bytes + more as u64 > self.settings.rotate_size as u64;
        open.bytes > 0 && (full || self.settings.rotate_every.is_some_and(old))
    }
}

fn open_file(path: &Path) -> io::Result<Open> {
    let file = File::options().create(true).append(true).read(true).mode(MODE).open(path)?;
    let facts = file.metadata()?;
    let since = facts.created().or_else(|_| facts.modified())?;
    let mut open = Open { file, bytes: facts.len(), since, unsynced: false, is_new: facts.len() == 0 };
    if facts.is_file() {
        open.cut_half_line()?;
    }
    Ok(open)
}

impl Open {
    /// Takes back half a line that a run before has left at the end; its record is written again.
    fn cut_half_line(&mut self) -> io::Result<()> {
        let start = self.bytes.saturating_sub(LONGEST_LINE);
        let mut last = [0];
        if self.bytes == 0 || (self.file.read_exact_at(&mut last, self.bytes - 1).is_ok() && last == *b"\n") {
            return Ok(());
        }
        let mut end = vec![0; usize::try_from(self.bytes - start).unwrap_or_default()];
        self.file.read_exact_at(&mut end, start)?;
        match end.iter().rposition(|octet| *octet == b'\n') {
            Some(at) => self.bytes = start + at as u64 + 1,
            None if start == 0 => self.bytes = 0,
            None => {
                // Whatever this is, it is no half record.
                self.bytes += 1;
                return self.file.write_all(b"\n");
            }
        }
        self.file.set_len(self.bytes)
    }
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
        Log {
            settings: FileSettings { path, rotate_size: size, rotate_every: every, keep },
            fsync: Fsync::Interval,
            open: None,
        }
    }

    fn is_unsynced(log: &Log) -> bool {
        log.open.as_ref().is_some_and(|open| open.unsynced)
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

    #[test]
    fn half_a_line_of_a_run_that_was_killed_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        for (found, left) in [("a\nhalf", "a\n"), ("half", ""), ("a\n", "a\n"), ("", "")] {
            fs::write(dir.path().join("alerts.ndjson"), found).unwrap();
            let mut log = log(dir.path(), 1000, None, 5);
            log.write(b"b\n", SystemTime::now()).unwrap();
            assert_eq!(read(dir.path(), "alerts.ndjson"), format!("{left}b\n"), "{found}");
            assert_eq!(log.open.map(|open| open.bytes), Some(left.len() as u64 + 2));
        }
        let no_line = vec![b'x'; LONGEST_LINE as usize + 7];
        fs::write(dir.path().join("alerts.ndjson"), &no_line).unwrap();
        log(dir.path(), usize::MAX, None, 5).write(b"b\n", SystemTime::now()).unwrap();
        assert!(read(dir.path(), "alerts.ndjson").ends_with("xx\nb\n"));
    }

    #[test]
    fn what_is_written_is_brought_to_the_disk_at_once_or_when_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 1000, None, 5);
        log.write(b"a\n", SystemTime::now()).unwrap();
        assert!(is_unsynced(&log));
        log.sync().unwrap();
        assert!(!is_unsynced(&log));
        log.fsync = Fsync::Always;
        log.write(b"b\n", SystemTime::now()).unwrap();
        assert!(!is_unsynced(&log));
    }

    #[tokio::test]
    async fn with_an_interval_a_record_settles_once_it_is_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let file = FileSettings { path: dir.path().join("out"), ..FileSettings::default() };
        let (settings, host) = (Settings { file, ..Settings::default() }, Context { host: "sensor-1" });
        let mut sink = open(&settings, &host).unwrap();
        assert_eq!(sink.send(&super::super::format::testing::entries()).await, Outcome::DONE);
        assert_eq!((sink.settles_after(), sink.doubts_after_failure()), (Some(SYNC_INTERVAL), false));
        assert_eq!(sink.settled().await, Settled::All);
        for fsync in [Fsync::Always, Fsync::Never] {
            let sink = open(&Settings { fsync, ..settings.clone() }, &host).unwrap();
            assert_eq!(sink.settles_after(), None);
        }
    }
}
