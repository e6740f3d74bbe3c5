//! A sink's records on disk: segments that are only appended to, and a cursor that says how far the sink has got.
//!
//! What is promised: a record that [`Spool::append`] returned for is in the kernel, so that the end of this process
//! does not lose it, however it comes; [`Spool::sync`] brings it to the disk. The cursor only moves over records that
//! are done. What a crash left half-written at the end of a segment is found by its checksum and cut off. A start reads the
//! segment that was written last and the one that the cursor stands in; of the others it is known how many records they have,
//! so that it takes no longer where there are tens of gigabytes.
//!
//! One thread appends at a time and one reads. Neither waits for the other's disk, and whoever asks how much there is
//! waits for none: what is known of the segments is never held while a file is worked on.

mod cursor;
pub(crate) mod entry;
mod finished;

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::deliver::Entry;
use crate::disk::is_full;
use entry::Found;
use finished::Finished;

/// What every segment begins with: that it is one, and the version of its layout.
const MAGIC: &[u8; 8] = b"DWSPOOL\x01";

const BEGINNING: u64 = MAGIC.len() as u64;

/// A spool has some sixteen segments at its limit, so that a sixteenth is lost there and no more.
const SEGMENTS: u64 = 16;

/// The largest segment: larger ones would only delay the return of space.
const LARGEST_SEGMENT: u64 = 4 << 20;

/// The smallest segment at which a new one is begun because all of it is done: what is done should not grow old in the
/// page cache and be written to the disk for nothing.
const DONE_SEGMENT: u64 = 256 << 10;

/// So much space must be there for a full disk to be one no more: a page or two of any file system.
const PROBE: usize = 16 << 10;

/// No segment of ours is larger: the largest, and one batch of records.
const LARGEST_FILE: u64 = 64 << 20;

/// A place between two records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Number of the segment.
    pub(crate) segment: u64,
    /// Octets from its beginning.
    pub(crate) offset: u64,
}

/// Records on disk.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    state: Mutex<State>,
    reading: Mutex<Option<(u64, File)>>,
    /// Held as long as the spool is open; none where the disk has had no room for it yet.
    lock: OnceLock<File>,
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Records of an earlier run that are not done.
    pub(crate) waiting: u64,
    /// Octets that a crash left half-written, or that are damaged.
    pub(crate) torn_bytes: u64,
    /// Whether there was a cursor that could not be read, so that everything is sent again.
    pub(crate) cursor_lost: bool,
    /// Why there is no folder for it yet, where the disk is full.
    pub(crate) disk_full: Option<String>,
}

/// Some records, all of one segment.
#[derive(Debug)]
pub(crate) struct Part {
    /// The records.
    pub(crate) entries: Vec<Entry>,
    /// Where they end.
    pub(crate) end: Place,
    /// Records that could not be read any more.
    pub(crate) damaged: u64,
    /// Why there are none, where the disk did not give them: they may be read later.
    pub(crate) failed: Option<io::Error>,
}

#[derive(Debug)]
struct State {
    limit: u64,
    /// The oldest first; the last one is being written.
    segments: VecDeque<Segment>,
    writer: Option<Arc<File>>,
    next_number: u64,
    read: Place,
    done: Place,
    saved: Place,
    /// Files with something in them that is not on the disk yet.
    unsynced: Vec<Arc<File>>,
    /// Segments that nobody needs any more, and whose files are still there.
    garbage: Vec<u64>,
    /// Lines in the file of finished segments.
    lines: u64,
}

#[derive(Clone, Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    records: u64,
    read: u64,
    done: u64,
}

impl Spool {
    /// Opens the spool in a folder of its own, and makes it if there is none. Where a full disk has no room for that, the spool is
    /// empty, and the folder is made when there is something to write.
    ///
    /// # Errors
    /// What the file system says, or that another process has it.
    pub(crate) fn open(dir: &Path, limit: u64) -> io::Result<(Self, Opened)> {
        let mut opened = Opened::default();
        let lock = match take(dir) {
            Ok(lock) => OnceLock::from(lock),
            Err(error) if is_full(&error) && !dir.join(LOCK).exists() => {
                opened.disk_full = Some(error.to_string());
                OnceLock::new()
            }
            Err(error) => return Err(error),
        };
        let saved = cursor::load(dir).unwrap_or_else(|_| {
            opened.cursor_lost = true;
            None
        });
        let saved = saved.unwrap_or_default();
        let mut segments = VecDeque::new();
        let mut start = None;
        let mut next_number = saved.segment + 1;
        // One without a lock was never used.
        let numbers = if lock.get().is_some() { numbers(dir)? } else { Vec::new() };
        let (finished, mut lines) = finished::load(dir);
        let mut news = false;
        for number in numbers {
            next_number = next_number.max(number + 1);
            let path = path(dir, number);
            if number < saved.segment {
                fs::remove_file(path)?;
                continue;
            }
            let known = finished.get(&number).filter(|_| number > saved.segment);
            let (segment, done_until, torn) = match known {
                Some(known) if fs::metadata(&path)?.len() == known.bytes => (Segment::of(number, known), BEGINNING, 0),
                _ => {
                    news = true;
                    let until = if number == saved.segment { saved.offset } else { 0 };
                    scan(&path, number, until)?
                }
            };
            opened.torn_bytes += torn;
            if segment.done == segment.records {
                fs::remove_file(path)?;
                continue;
            }
            opened.waiting += segment.records - segment.done;
            start.get_or_insert(Place { segment: number, offset: done_until });
            segments.push_back(segment);
        }
        // Without it the next start takes longer, and that is all.
        if (news || lines > segments.len() as u64 + finished::GONE) && finished::replace(dir, segments.iter()).is_ok() {
            lines = segments.len() as u64;
        }
        let start = start.unwrap_or(Place { segment: next_number, offset: BEGINNING });
        let state = State {
            limit,
            segments,
            writer: None,
            next_number,
            read: start,
            done: start,
            saved,
            unsynced: Vec::new(),
            garbage: Vec::new(),
            lines,
        };
        let spool = Self { dir: dir.to_path_buf(), state: Mutex::new(state), reading: Mutex::new(None), lock };
        Ok((spool, opened))
    }

    /// Appends encoded records. Returns how many of the oldest were discarded to keep to the limit. What is to be
    /// `durable` is what the next [`Spool::sync`] brings to the disk.
    ///
    /// # Errors
    /// What the file system says; then none of them is appended.
    pub(crate) fn append(&self, encoded: &[u8], records: u64, durable: bool) -> io::Result<u64> {
        loop {
            let end = self.end()?;
            // At the known end: what an attempt that failed has left there is written over.
            end.file.write_all_at(encoded, end.place.offset)?;
            let mut state = self.state();
            let still =
                |segment: &&mut Segment| end.place == (Place { segment: segment.number, offset: segment.bytes });
            let Some(segment) = state.segments.back_mut().filter(still) else {
                // Damage was found before it in the meantime, and nobody would read beyond that.
                continue;
            };
            segment.bytes += encoded.len() as u64;
            segment.records += records;
            if durable && !state.unsynced.last().is_some_and(|last| Arc::ptr_eq(last, &end.file)) {
                state.unsynced.push(end.file);
            }
            let discarded = state.discard();
            drop(state);
            self.sweep();
            return Ok(discarded);
        }
    }

    /// Finds out whether there is space again, without a record to write.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn probe(&self) -> io::Result<()> {
        let end = self.end()?;
        end.file.write_all_at(&[0; PROBE], end.place.offset)?;
        end.file.set_len(end.place.offset)
    }

    /// The next records, none where all have been read. They are read once, unless [`Spool::rewind`] is called.
    pub(crate) fn read(&self, records: usize, bytes: usize) -> Part {
        let mut damaged = 0;
        loop {
            let (place, end) = {
                let mut state = self.state();
                let Some(end) = state.readable() else {
                    // The space of a removed segment returns with the last handle to it.
                    *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    return Part { entries: Vec::new(), end: state.read, damaged, failed: None };
                };
                (state.read, end)
            };
            let found = match self.read_at(place, end, records, bytes) {
                Ok(found) => found,
                Err(error) => return Part { entries: Vec::new(), end: place, damaged, failed: Some(error) },
            };
            let mut state = self.state();
            if state.read != place {
                // Discarded in the meantime, and counted so.
                continue;
            }
            let Some(segment) = state.segments.iter_mut().find(|segment| segment.number == place.segment) else {
                continue;
            };
            match found {
                Some((entries, end)) if !entries.is_empty() => {
                    segment.read += entries.len() as u64;
                    state.read = end;
                    return Part { entries, end, damaged, failed: None };
                }
                _ => {
                    // The rest of the segment cannot be told apart any more. What is written next goes into another.
                    damaged += segment.records - segment.read;
                    segment.records = segment.read;
                    segment.bytes = place.offset;
                    if state.segments.back().is_some_and(|last| last.number == place.segment) {
                        state.writer = None;
                    }
                }
            }
        }
    }

    /// Says that all records before this place are done; `records` is how many that are since the last time.
    pub(crate) fn done(&self, place: Place, records: u64) {
        let mut state = self.state();
        if place <= state.done {
            return;
        }
        state.done = place;
        if let Some(segment) = state.segments.iter_mut().find(|segment| segment.number == place.segment) {
            segment.done += records;
        }
        state.remove_done();
    }

    /// Reads again from the first record that is not done.
    pub(crate) fn rewind(&self) {
        let mut state = self.state();
        state.read = state.done;
        for segment in &mut state.segments {
            segment.read = segment.done;
        }
    }

    /// Saves how far it has got, where that has changed, and removes what nobody needs any more.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn save_cursor(&self, durable: bool) -> io::Result<()> {
        if self.lock.get().is_none() {
            // Nothing was ever written that it could be about.
            return Ok(());
        }
        self.sweep();
        let done = {
            let state = self.state();
            if state.done == state.saved {
                return Ok(());
            }
            state.done
        };
        cursor::save(&self.dir, done, durable)?;
        self.state().saved = done;
        Ok(())
    }

    /// Brings to the disk what is not done. What is done needs no disk any more.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let files = {
            let mut state = self.state();
            let files = std::mem::take(&mut state.unsynced);
            if files.is_empty() || state.waiting() == 0 {
                return Ok(());
            }
            files
        };
        files.iter().try_for_each(|file| file.sync_data())?;
        // The folder has the names of new segments.
        File::open(&self.dir)?.sync_all()
    }

    /// Whether there is something that [`Spool::sync`] would bring to the disk.
    pub(crate) fn has_unsynced(&self) -> bool {
        !self.state().unsynced.is_empty()
    }

    /// Takes another limit; what is over it goes with the next record.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.state().limit = limit;
    }

    /// Records that are not done.
    pub(crate) fn waiting(&self) -> u64 {
        self.state().waiting()
    }

    /// Records that have not been read.
    pub(crate) fn unread(&self) -> u64 {
        self.state().segments.iter().map(|segment| segment.records - segment.read).sum()
    }

    /// Octets of records that are not done.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        let state = self.state();
        let before = |segment: &Segment| match segment.number == state.done.segment {
            true => state.done.offset,
            false => BEGINNING,
        };
        state.segments.iter().map(|segment| segment.bytes.saturating_sub(before(segment))).sum()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change, and nothing waits for a disk.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the next record goes, after beginning a segment where one is wanted. For whoever appends.
    fn end(&self) -> io::Result<End> {
        if self.lock.get().is_none() {
            // Nobody else appends, so it is not there yet.
            let _ = self.lock.set(take(&self.dir)?);
        }
        let number = {
            let state = self.state();
            if let (false, Some(segment), Some(file)) = (state.wants_segment(), state.segments.back(), &state.writer) {
                let place = Place { segment: segment.number, offset: segment.bytes };
                return Ok(End { place, file: Arc::clone(file) });
            }
            state.next_number
        };
        let file = Arc::new(begin_segment(&path(&self.dir, number))?);
        self.note_finished();
        let mut state = self.state();
        state.next_number = number + 1;
        state.writer = Some(Arc::clone(&file));
        state.segments.push_back(Segment { number, bytes: BEGINNING, records: 0, read: 0, done: 0 });
        state.remove_done();
        Ok(End { place: Place { segment: number, offset: BEGINNING }, file })
    }

    /// Says how many records the last segment has, to which nothing comes any more.
    fn note_finished(&self) {
        let (last, all) = {
            let state = self.state();
            let Some(last) = state.segments.back().filter(|last| last.done < last.records) else { return };
            let too_many = state.lines > 2 * state.segments.len() as u64 + finished::GONE;
            (last.clone(), too_many.then(|| state.segments.clone()))
        };
        // Where it cannot be written the next start takes longer, and that is all.
        match &all {
            Some(all) if finished::replace(&self.dir, all.iter()).is_ok() => self.state().lines = all.len() as u64,
            None if finished::add(&self.dir, &last).is_ok() => self.state().lines += 1,
            _ => {}
        }
    }

    /// Removes the files of segments that nobody needs any more.
    fn sweep(&self) {
        let garbage = std::mem::take(&mut self.state().garbage);
        for number in garbage {
            // Where it cannot be removed it is found by the next run, which removes it.
            let _ = fs::remove_file(path(&self.dir, number));
        }
    }

    /// Reads whole records between two places of a segment; `None` where there are none any more.
    fn read_at(&self, place: Place, end: u64, records: usize, bytes: usize) -> io::Result<Option<(Vec<Entry>, Place)>> {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if reading.as_ref().is_none_or(|(number, _)| *number != place.segment) {
            *reading = match File::open(path(&self.dir, place.segment)) {
                Ok(file) => Some((place.segment, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
        }
        let Some((_, file)) = reading.as_ref() else { return Ok(None) };
        let available = usize::try_from(end - place.offset).unwrap_or(usize::MAX);
        let mut buffer = vec![0; available.min(bytes.max(1))];
        loop {
            match file.read_exact_at(&mut buffer, place.offset) {
                Ok(()) => {}
                // Somebody has made it shorter.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => {
                    // Another attempt opens it anew.
                    *reading = None;
                    return Err(error);
                }
            }
            match entry::decode(&buffer) {
                // A single record may be longer than a batch; its head may not even have been in the buffer.
                Found::Part(needed) if needed <= available => buffer.resize(needed, 0),
                _ => break,
            }
        }
        let mut entries = Vec::new();
        let mut at = 0;
        while entries.len() < records.max(1)
            && let Found::Entry(mut entry, size) = entry::decode(buffer.get(at..).unwrap_or_default())
        {
            entry.id = Some((place.segment, place.offset + at as u64));
            at += size;
            entries.push(entry);
        }
        Ok(Some((entries, Place { segment: place.segment, offset: place.offset + at as u64 })))
    }
}

/// The file whose lock says that a spool is in use.
const LOCK: &str = "lock";

/// Makes the folder and takes it for this process.
fn take(dir: &Path) -> io::Result<File> {
    // Records are nobody else's business.
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let lock = File::create(dir.join(LOCK))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::new(io::ErrorKind::WouldBlock, "another process has it open"),
        TryLockError::Error(error) => error,
    })?;
    Ok(lock)
}

/// Where the next record goes.
struct End {
    place: Place,
    file: Arc<File>,
}

/// Makes a file that is a segment without records.
fn begin_segment(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(true).write(true).open(path)?;
    if let Err(error) = file.write_all_at(MAGIC, 0) {
        // An empty file is nothing that a later run could read.
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(file)
}

impl Segment {
    /// One of which nothing is done.
    const fn of(number: u64, known: &Finished) -> Self {
        Self { number, bytes: known.bytes, records: known.records, read: 0, done: 0 }
    }
}

impl State {
    fn waiting(&self) -> u64 {
        self.segments.iter().map(|segment| segment.records - segment.done).sum()
    }

    fn wants_segment(&self) -> bool {
        let Some(active) = self.segments.back().filter(|_| self.writer.is_some()) else { return true };
        let largest = (self.limit / SEGMENTS).min(LARGEST_SEGMENT);
        active.bytes >= largest || (active.bytes >= DONE_SEGMENT && active.done == active.records)
    }

    /// Where the segment that is read from ends, after going on to the next one where this is read to its end.
    fn readable(&mut self) -> Option<u64> {
        loop {
            let segment = self.segments.iter().find(|segment| segment.number >= self.read.segment)?;
            if segment.number > self.read.segment {
                self.read = Place { segment: segment.number, offset: BEGINNING };
            }
            if segment.bytes > self.read.offset {
                return Some(segment.bytes);
            }
            let next = self.segments.iter().find(|segment| segment.number > self.read.segment)?;
            self.read = Place { segment: next.number, offset: BEGINNING };
        }
    }

    /// Gives up the segments of which everything is done, but for the one that is written.
    fn remove_done(&mut self) {
        while self.segments.len() > 1
            && let Some(first) = self.segments.front()
            && first.done == first.records
        {
            self.remove_first();
        }
    }

    /// Gives up the oldest segments until the rest keeps to the limit. Returns how many records nobody has read.
    fn discard(&mut self) -> u64 {
        let mut lost = 0;
        while self.segments.len() > 1 && self.segments.iter().map(|segment| segment.bytes).sum::<u64>() > self.limit {
            lost += self.segments.front().map_or(0, |first| first.records - first.read);
            self.remove_first();
        }
        lost
    }

    fn remove_first(&mut self) {
        let Some(removed) = self.segments.pop_front() else { return };
        self.garbage.push(removed.number);
        if let Some(first) = self.segments.front() {
            let start = Place { segment: first.number, offset: BEGINNING };
            self.read = self.read.max(start);
            self.done = self.done.max(start);
        }
    }
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.seg"))
}

/// The numbers of all segments, the oldest first.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for file in fs::read_dir(dir)? {
        let name = file?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg")?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Counts the records of a segment, and cuts off what is not whole. Records that end at or before `until` are done.
/// Returns also where the ones that are done end, and how many octets were cut off.
fn scan(path: &Path, number: u64, until: u64) -> io::Result<(Segment, u64, u64)> {
    let mut segment = Segment { number, bytes: BEGINNING, records: 0, read: 0, done: 0 };
    let mut done_until = BEGINNING;
    let length = fs::metadata(path)?.len();
    let bytes = if length <= LARGEST_FILE { fs::read(path)? } else { Vec::new() };
    if !bytes.starts_with(MAGIC) {
        return Ok((segment, done_until, length));
    }
    let rest = |at: u64| usize::try_from(at).ok().and_then(|at| bytes.get(at..));
    while let Some(size) = rest(segment.bytes).and_then(entry::skip) {
        segment.bytes += size as u64;
        segment.records += 1;
        if segment.bytes <= until {
            segment.done = segment.records;
            done_until = segment.bytes;
        }
    }
    segment.read = segment.done;
    let torn = length.saturating_sub(segment.bytes);
    if torn > 0 {
        File::options().write(true).open(path)?.set_len(segment.bytes)?;
    }
    Ok((segment, done_until, torn))
}

#[cfg(test)]
mod tests;
