//! What the daemon keeps over a restart: findings, so that one that goes on is not new again; open links with the names of their
//! nodes, so that one that is met in its middle is known again; nodes, where something listens, and what rules remember.
//!
//! A thread of its own writes it, about a second after it changed: into a file beside the old one that then takes its place,
//! so that there is always a whole one.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use distwatch_engine::saved::Saved;
use serde::{Deserialize, Serialize};

use super::journal::{self, Journal};
use crate::disk::is_full;
use crate::memory;

/// The version of the file. The one before had findings and listeners alone, and is read; any other is left as it is, under
/// another name.
const VERSION: u32 = 2;

/// The oldest version that is read.
const OLDEST: u32 = 1;

/// The file in the state folder.
const FILE: &str = "state.json";

/// The largest file that is read: everything that is ever kept, with room to spare.
const LARGEST: u64 = 256 << 20;

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// The journal that goes on after it.
    #[serde(default)]
    journal: u64,
    /// What is kept.
    #[serde(flatten)]
    pub saved: Saved,
}

impl State {
    /// Of what an analysis has to save.
    #[must_use]
    pub const fn of(saved: Saved) -> Self {
        Self { version: VERSION, journal: 0, saved }
    }
}

/// How long the file may be older than what it says, where nothing changed: far below the time for which open links are
/// recalled ([`distwatch_engine::recall::MEMORY`]).
const REFRESH: Duration = Duration::from_secs(300);

/// The capture thread spends at most this part (a two-hundredth) of its time on what is kept, and the disk a twentieth.
const CAPTURE_SHARE: u32 = 200;
const DISK_SHARE: u32 = 20;

/// How long a disk that did not take the state is left alone: at first, and later, for each attempt writes all of it.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LATER: Duration = Duration::from_secs(30);

/// The folder that it is kept in, and the thread that writes.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    writing: Option<Writing>,
    /// What was handed to the thread last, and when.
    last: Option<(u64, Instant)>,
    /// Not before this is the next handed to it.
    due: Instant,
    /// The journal that is written.
    journal: u64,
    /// Attempts to write it, one after the other, that failed.
    failures: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Writing {
    waiting: Sender<State>,
    /// How long the last one took; none while one is being written.
    took: Arc<Mutex<Option<Duration>>>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Makes the folder and reads what an earlier run left. A file that cannot be read is set aside and told of. A disk that is
    /// full keeps nobody from beginning: it may have room later.
    ///
    /// # Errors
    /// The folder cannot be made, or nothing can be written to it.
    pub fn open(folder: &Path) -> io::Result<(Self, State)> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(FILE);
        let state = match read(&path) {
            Ok(state) => state,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::of(Saved::default()),
            Err(error) => {
                let aside = path.with_extension("unreadable");
                tracing::warn!(%error, "{} cannot be used and is kept as {}", path.display(), aside.display());
                std::fs::rename(&path, &aside)?;
                State::of(Saved::default())
            }
        };
        let State { journal, mut saved, .. } = state;
        let (later, next) = journal::read(folder, journal)?;
        saved.overlay(later);
        let state = State { journal: next, ..State::of(saved) };
        let failures = Arc::<AtomicU64>::default();
        // Found out now, and not when it is too late.
        match write(&path, &state) {
            Ok(()) => journal::remove_before(folder, next),
            Err(error) if is_full(&error) => {
                tracing::error!(%error, "the state cannot be written to {}; this is tried again", path.display());
                failures.store(1, Ordering::Relaxed);
            }
            Err(error) => return Err(error),
        }
        Ok((Self { path, writing: None, last: None, due: Instant::now(), journal: next, failures }, state))
    }

    /// Attempts to write the state that failed since it could be written last.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The journal of what is told from now on.
    ///
    /// # Errors
    /// It cannot be made, and not because the disk is full.
    pub fn journal(&self) -> io::Result<Journal> {
        Journal::begin(self.folder(), self.journal)
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Starts to write.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(&mut self) -> io::Result<()> {
        let (waiting, states) = channel();
        let took = Arc::new(Mutex::new(Some(Duration::ZERO)));
        let (path, told, failures) = (self.path.clone(), Arc::clone(&took), Arc::clone(&self.failures));
        let thread = std::thread::Builder::new().name("state".into()).spawn(move || {
            for state in &states {
                let Some(took) = write_in_the_end(&path, state, &states, &failures) else { return };
                memory::give_back();
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(took);
            }
        })?;
        self.writing = Some(Writing { waiting, took, thread });
        Ok(())
    }

    /// Lets it be written, unless nothing changed (which `revision` tells) or its time has not come: the larger it is and the
    /// slower the disk, the later.
    ///
    /// `cut` lets the journal go on in another file after all that was told so far; where that cannot be said now, the state is
    /// written another time.
    pub fn keep(&mut self, revision: u64, cut: impl FnOnce(u64) -> bool, saved: impl FnOnce() -> Saved) {
        let now = Instant::now();
        let Some(writing) = self.writing.as_ref().filter(|_| now >= self.due) else { return };
        if self.last.is_some_and(|(last, when)| last == revision && now < when + REFRESH) {
            return;
        }
        let mut took = writing.took.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(writing_took) = *took else { return };
        if !cut(self.journal + 1) {
            return;
        }
        self.journal += 1;
        let state = State { journal: self.journal, ..State::of(saved()) };
        // The thread ends with the keeper and not before.
        if writing.waiting.send(state).is_ok() {
            *took = None;
        }
        self.last = Some((revision, now));
        self.due = now + (now.elapsed() * CAPTURE_SHARE).max(writing_took * DISK_SHARE);
    }

    /// Writes the last of it and ends.
    pub fn finish(mut self, saved: Saved) {
        // What is still on its way to the journal is in it.
        let state = State { journal: self.journal + 1, ..State::of(saved) };
        if let Some(Writing { waiting, thread, .. }) = self.writing.take() {
            drop(waiting);
            let _ = thread.join();
        }
        if let Err(error) = write(&self.path, &state) {
            tracing::error!(%error, "the state cannot be written to {}", self.path.display());
        }
    }
}

/// Writes a state, again and again until the disk takes it, and removes the journals that it makes needless. What comes
/// meanwhile goes into the one journal after it, so that these do not become many. Returns how long it took, or nothing where the
/// keeper ends before: then it writes the last state itself.
fn write_in_the_end(path: &Path, mut state: State, later: &Receiver<State>, failures: &AtomicU64) -> Option<Duration> {
    let mut wait = RETRY_FIRST;
    loop {
        let begun = Instant::now();
        let Err(error) = write(path, &state) else {
            journal::remove_before(path.parent().unwrap_or(path), state.journal);
            if failures.swap(0, Ordering::Relaxed) > 0 {
                tracing::info!("the state can be written to {} again", path.display());
            }
            return Some(begun.elapsed());
        };
        if failures.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!(%error, "the state cannot be written to {}; this is tried again", path.display());
        }
        match later.recv_timeout(wait) {
            Ok(newer) => state = newer,
            Err(RecvTimeoutError::Timeout) => wait = (wait * 2).min(RETRY_LATER),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

fn read(path: &Path) -> io::Result<State> {
    let file = File::open(path)?;
    if file.metadata()?.len() > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than anything that is written to it"));
    }
    let state: State = serde_json::from_reader(io::BufReader::new(file))?;
    if !(OLDEST..=VERSION).contains(&state.version) {
        let error = format!("it is of version {}, and this program knows {OLDEST} to {VERSION}", state.version);
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    Ok(state)
}

/// Replaces the file by a whole one. After a loss of power it is the old or the new one.
fn write(path: &Path, state: &State) -> io::Result<()> {
    let unfinished = path.with_extension("part");
    let written = write_all(&unfinished, state).and_then(|()| std::fs::rename(&unfinished, path));
    if written.is_err() {
        // What there is of it takes the room that others need.
        let _ = std::fs::remove_file(&unfinished);
        return written;
    }
    // The new name too is on disk, before the journals are removed that it makes needless.
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

fn write_all(path: &Path, state: &State) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    serde_json::to_writer(&mut file, state)?;
    file.into_inner()?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn saved(port: u16) -> Saved {
        let at = SocketAddr::from(([10, 0, 0, 1], port));
        Saved { distribution: vec![at], ..Saved::default() }
    }

    #[test]
    fn what_was_kept_is_there_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let (mut keeper, before) = Keeper::open(folder.path()).unwrap();
        assert_eq!(before.saved, Saved::default());
        keeper.start().unwrap();
        keeper.keep(1, |_| false, || unreachable!("the journal cannot be cut"));
        keeper.keep(1, |number| number == 1, || saved(1));
        keeper.keep(1, |_| unreachable!("nothing changed"), || saved(1));
        keeper.finish(saved(2));
        let (_, after) = Keeper::open(folder.path()).unwrap();
        assert_eq!(after.saved, saved(2));
    }

    #[test]
    fn a_file_that_is_damaged_or_of_another_version_is_set_aside_and_not_lost() {
        for content in ["{\"version\":1,", "{\"version\":9,\"findings\":[],\"epmd\":[],\"distribution\":[]}"] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(FILE), content).unwrap();
            let (_, state) = Keeper::open(folder.path()).unwrap();
            assert_eq!(state.saved, Saved::default());
            assert_eq!(std::fs::read_to_string(folder.path().join("state.unreadable")).unwrap(), content);
        }
    }

    #[test]
    fn what_was_told_after_the_last_state_is_kept_too_and_what_came_before_it_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut keeper, _) = Keeper::open(folder.path()).unwrap();
        let mut journal = keeper.journal().unwrap();
        let link = |port| {
            let end = |port| SocketAddr::from(([10, 0, 0, 1], port));
            distwatch_engine::saved::SavedLink::at_ends(end(port), end(9100), distwatch_engine::time::Timestamp::EPOCH)
        };
        let with = |ports: &[u16]| Saved { links: ports.iter().map(|&port| link(port)).collect(), ..Saved::default() };
        journal.write([&journal::Entry::line(&with(&[1, 2]))]);
        keeper.start().unwrap();
        let mut cut = None;
        keeper.keep(1, |number| cut.replace(number).is_none(), || with(&[2]));
        journal.write([&journal::Entry::Cut(cut.unwrap())]);
        journal.write([&journal::Entry::line(&with(&[3]))]);
        // As after kill -9: nothing is finished, but what was written is there.
        drop(keeper.writing.take().map(|Writing { waiting, thread, .. }| {
            drop(waiting);
            thread.join()
        }));
        for _ in 0..2 {
            let (_, after) = Keeper::open(folder.path()).unwrap();
            assert_eq!(after.saved, with(&[2, 3]));
        }
    }

    #[test]
    fn what_the_version_before_wrote_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let finding = "{\"rule\":\"bad-cookie\",\"key\":\"k\",\"severity\":\"medium\",\"confidence\":2,\"subject\":\"s\",\
                       \"reason\":\"r\",\"count\":3,\"first_seen\":1,\"last_seen\":2,\"came_out\":2}";
        let content =
            format!("{{\"version\":1,\"findings\":[{finding}],\"epmd\":[],\"distribution\":[\"10.0.0.1:9100\"]}}");
        std::fs::write(folder.path().join(FILE), content).unwrap();
        let (_, state) = Keeper::open(folder.path()).unwrap();
        assert_eq!(state.saved.distribution, ["10.0.0.1:9100".parse().unwrap()]);
        assert_eq!(state.saved.findings.iter().map(|finding| finding.id()).collect::<Vec<_>>(), [("bad-cookie", "k")]);
        assert!(std::fs::read_to_string(folder.path().join(FILE)).unwrap().starts_with("{\"version\":2,"));
    }

    #[test]
    fn a_disk_that_does_not_take_the_state_is_asked_until_it_does_and_no_journal_is_begun_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let (mut keeper, _) = Keeper::open(folder.path()).unwrap();
        // Where the new file should be, there is something that cannot be replaced.
        let obstacle = folder.path().join("state.part");
        std::fs::create_dir(&obstacle).unwrap();
        keeper.start().unwrap();
        let mut cuts = Vec::new();
        let mut keep = |keeper: &mut Keeper, revision: u64| {
            keeper.due = Instant::now();
            let cut = |number| {
                cuts.push(number);
                true
            };
            keeper.keep(revision, cut, || saved(u16::try_from(revision).unwrap()));
            cuts.len()
        };
        assert_eq!(keep(&mut keeper, 1), 1);
        let until = Instant::now() + Duration::from_secs(60);
        while keeper.failures() == 0 {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        assert_eq!((2..100).map(|revision| keep(&mut keeper, revision)).max(), Some(1), "it is still at the first");
        std::fs::remove_dir(&obstacle).unwrap();
        let written = || read(&folder.path().join(FILE)).unwrap().saved == saved(1);
        while !written() || keeper.failures() > 0 {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(1));
        }
        while keep(&mut keeper, 100) < 2 {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        keeper.finish(saved(101));
        assert_eq!(Keeper::open(folder.path()).unwrap().1.saved, saved(101));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(Keeper::open(&file.join("below")).is_err());
    }
}
