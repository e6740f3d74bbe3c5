//! What came out since the state was last written, so that nothing is told that is not on disk.
//!
//! Each batch of records that holds a finding brings a line for the journal, which the thread that hands records on appends and
//! syncs before it hands them on. Beside `state.json` there are `journal.N`, one for each state: the state that is written
//! next names the one that goes on after it, and then the older ones are removed.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use distwatch_engine::saved::Saved;

use crate::disk::is_full;

/// The most that all journals hold together. The state is written every few seconds, so they stay at some kilobytes unless the
/// disk does not take the state.
const LARGEST: u64 = 64 << 20;

/// What a batch of records has to do with the journal.
#[derive(Clone, Debug)]
pub enum Entry {
    /// What is to be on disk before its records go out.
    Line(Vec<u8>),
    /// The state was taken: what comes from now on goes to the journal of this number.
    Cut(u64),
}

impl Entry {
    /// What it takes in memory, about.
    pub(super) fn octets(&self) -> usize {
        match self {
            Self::Line(line) => line.len(),
            Self::Cut(_) => 0,
        }
    }

    /// The line for what came out.
    #[must_use]
    pub fn line(saved: &Saved) -> Self {
        // Nothing in it is a map with keys that are no strings, so this cannot fail.
        let mut line = serde_json::to_vec(saved).unwrap_or_default();
        line.push(b'\n');
        Self::Line(line)
    }
}

/// The journals of a state folder, at the one that is written.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    number: u64,
    file: Option<(File, u64)>,
    /// The most that it may hold: what those before it have left.
    room: u64,
    failed: Arc<AtomicU64>,
    /// Something was written that may not be on the disk yet.
    unsynced: bool,
}

impl Journal {
    /// Begins the journal of this number.
    ///
    /// # Errors
    /// It cannot be made, and not because the disk is full: then the next one may be.
    pub fn begin(folder: &Path, number: u64) -> io::Result<Self> {
        let folder = folder.to_owned();
        let mut journal = Self { folder, number, file: None, room: LARGEST, failed: Arc::default(), unsynced: false };
        match journal.open(number) {
            Err(error) if !is_full(&error) => Err(error),
            _ => Ok(journal),
        }
    }

    /// Entries that could not be written: what they hold may be told as new once more after a restart.
    #[must_use]
    pub fn failed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.failed)
    }

    /// Writes entries, to the disk itself, which is asked once for all of them. What cannot be written is counted and told of,
    /// and holds back nothing.
    pub fn write<'a>(&mut self, entries: impl IntoIterator<Item = &'a Entry>) {
        for entry in entries {
            let written = match entry {
                Entry::Line(line) => self.append(line),
                Entry::Cut(number) => self.sync().and_then(|()| self.open(*number)),
            };
            self.note(written);
        }
        let synced = self.sync();
        self.note(synced);
    }

    fn note(&self, written: io::Result<()>) {
        if let Err(error) = written
            && self.failed.fetch_add(1, Ordering::Relaxed).is_multiple_of(1024)
        {
            tracing::error!(%error, "the journal of findings cannot be written in {}", self.folder.display());
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let unsynced = std::mem::take(&mut self.unsynced);
        self.file.as_ref().filter(|_| unsynced).map_or(Ok(()), |(file, _)| file.sync_data())
    }

    fn open(&mut self, number: u64) -> io::Result<()> {
        (self.number, self.file) = (number, None);
        // Of those before it, the one that the last state on disk goes on with is needed, and the others are about to go.
        self.room = LARGEST.saturating_sub(octets_beside(&self.folder, number)?);
        let file = OpenOptions::new().create(true).append(true).open(path(&self.folder, number))?;
        let length = file.metadata()?.len();
        self.file = Some((file, length));
        Ok(())
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            // It could not be made when its turn came.
            self.open(self.number)?;
        }
        let Some((file, length)) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if *length + line.len() as u64 > self.room {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        if let Err(error) = file.write_all(line) {
            // Half a line would take the next one with it.
            file.set_len(*length)?;
            return Err(error);
        }
        *length += line.len() as u64;
        self.unsynced = true;
        Ok(())
    }
}

/// What is in the journals from this number on, in order, and the number after the last. What the end of the program cut off
/// was not told either.
pub fn read(folder: &Path, from: u64) -> io::Result<(Vec<Saved>, u64)> {
    let mut saved = Vec::new();
    let mut next = from;
    for number in numbers(folder)?.into_iter().filter(|&number| number >= from) {
        next = number + 1;
        for line in BufReader::new(File::open(path(folder, number))?).split(b'\n') {
            // What does not read is the end that was cut off; what may follow it is whole.
            saved.extend(serde_json::from_slice(&line?).ok());
        }
    }
    Ok((saved, next))
}

/// Removes the journals before this number, which a state that is on disk has in it.
pub fn remove_before(folder: &Path, number: u64) {
    for old in numbers(folder).unwrap_or_default().into_iter().filter(|&old| old < number) {
        // One that stays is not read, and is tried again.
        let _ = std::fs::remove_file(path(folder, old));
    }
}

/// What all journals but this one hold.
fn octets_beside(folder: &Path, number: u64) -> io::Result<u64> {
    let others = numbers(folder)?.into_iter().filter(|&other| other != number);
    // One that has been removed meanwhile holds nothing.
    Ok(others.filter_map(|other| std::fs::metadata(path(folder, other)).ok()).map(|one| one.len()).sum())
}

fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let entries = std::fs::read_dir(folder)?.filter_map(Result::ok);
    let number = |name: &str| name.strip_prefix("journal.")?.parse().ok();
    let mut numbers: Vec<u64> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("journal.{number}"))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use distwatch_engine::saved::SavedLink;
    use distwatch_engine::time::Timestamp;

    use super::*;

    fn saved(port: u16) -> Saved {
        let end = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let link = SavedLink::at_ends(end(port), end(9100), Timestamp::from_nanos(1));
        Saved { links: vec![link], ..Saved::default() }
    }

    #[test]
    fn what_was_written_is_read_in_order_and_what_was_cut_off_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(folder.path(), 4).unwrap();
        journal.write([&Entry::line(&saved(1))]);
        journal.write([&Entry::Cut(5)]);
        journal.write([&Entry::line(&saved(2))]);
        journal.write([&Entry::Line(b"{\"findings\":[".to_vec())]);
        assert_eq!(read(folder.path(), 4).unwrap(), (vec![saved(1), saved(2)], 6));
        assert_eq!(read(folder.path(), 5).unwrap(), (vec![saved(2)], 6));
        remove_before(folder.path(), 5);
        assert_eq!(read(folder.path(), 0).unwrap(), (vec![saved(2)], 6));
        assert_eq!(journal.failed().load(Ordering::Relaxed), 0);
    }

    #[test]
    fn all_journals_together_are_bounded_and_what_they_do_not_take_is_counted_until_there_is_room_again() {
        let folder = tempfile::tempdir().unwrap();
        let old = OpenOptions::new().create(true).append(true).open(path(folder.path(), 0)).unwrap();
        old.set_len(LARGEST - 10).unwrap();
        let mut journal = Journal::begin(folder.path(), 1).unwrap();
        journal.write([&Entry::Line(b"1234567\n".to_vec())]);
        assert_eq!(journal.failed().load(Ordering::Relaxed), 0);
        journal.write([&Entry::Line(b"1234567\n".to_vec()), &Entry::Cut(2), &Entry::Line(b"1234567\n".to_vec())]);
        assert_eq!(journal.failed().load(Ordering::Relaxed), 2, "another journal has no more room");
        assert_eq!(octets_beside(folder.path(), 2).unwrap(), LARGEST - 2);
        remove_before(folder.path(), 1);
        journal.write([&Entry::Cut(3), &Entry::Line(b"1234567\n".to_vec())]);
        assert_eq!(journal.failed().load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_journal_that_cannot_be_written_is_counted_and_holds_back_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(folder.path(), 0).unwrap();
        journal.folder = folder.path().join("gone");
        journal.write([&Entry::Cut(1)]);
        journal.write([&Entry::line(&saved(1))]);
        assert_eq!(journal.failed().load(Ordering::Relaxed), 2);
    }
}
