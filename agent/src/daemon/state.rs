//! What the daemon keeps over a restart: findings, so that one that goes on is not new again, and where something was learned to listen.
//!
//! A thread of its own writes it, about a second after it changed: into a file beside the old one that then takes its place,
//! so that there is always a whole one. A finding can still be told as new a second time: one of the last second before a
//! `kill -9`, one that had ended, and one of a connection that is met in its middle and so is named by addresses.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use distwatch_engine::analysis::Analysis;
use distwatch_engine::detect::SavedFinding;
use distwatch_engine::event::Expected;
use serde::{Deserialize, Serialize};

/// The version of the file. One of another version is left as it is, under another name.
const VERSION: u32 = 1;

/// The file in the state folder.
const FILE: &str = "state.json";

/// The largest file that is read: all findings and listeners that are ever kept, with room to spare.
const LARGEST: u64 = 256 << 20;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    findings: Vec<SavedFinding>,
    epmd: Vec<SocketAddr>,
    distribution: Vec<SocketAddr>,
}

impl State {
    /// Of an analysis as it is now.
    #[must_use]
    pub fn of(analysis: &Analysis) -> Self {
        let listeners = |wanted: Expected| {
            let learned = analysis.engine.listeners().learned();
            learned.filter(|&(_, what)| what == wanted).map(|(at, _)| at).collect()
        };
        Self {
            version: VERSION,
            findings: analysis.judge.findings().saved(),
            epmd: listeners(Expected::Epmd),
            distribution: listeners(Expected::Distribution),
        }
    }

    /// Gives it to an analysis that has seen nothing yet.
    pub fn restore(self, analysis: &mut Analysis) {
        analysis.restore(self.findings);
        for (listeners, what) in [(self.epmd, Expected::Epmd), (self.distribution, Expected::Distribution)] {
            listeners.into_iter().for_each(|at| analysis.engine.add_listener(at, what));
        }
    }
}

/// The folder that it is kept in, and the thread that writes.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    waiting: Option<SyncSender<State>>,
    thread: Option<JoinHandle<()>>,
    last: State,
}

impl Keeper {
    /// Makes the folder and reads what an earlier run left. A file that cannot be read is set aside and told of.
    ///
    /// # Errors
    /// The folder cannot be made, or nothing can be written to it.
    pub fn open(folder: &Path) -> io::Result<(Self, State)> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(FILE);
        let state = match read(&path) {
            Ok(state) => state,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => {
                let aside = path.with_extension("unreadable");
                tracing::warn!(%error, "{} cannot be used and is kept as {}", path.display(), aside.display());
                std::fs::rename(&path, &aside)?;
                State::default()
            }
        };
        // Found out now, and not when it is too late.
        write(&path, &state)?;
        Ok((Self { path, waiting: None, thread: None, last: state.clone() }, state))
    }

    /// Starts to write.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(&mut self) -> io::Result<()> {
        let (sender, waiting): (_, Receiver<State>) = sync_channel(1);
        let path = self.path.clone();
        let thread = std::thread::Builder::new().name("state".into()).spawn(move || {
            for state in waiting {
                if let Err(error) = write(&path, &state) {
                    tracing::error!(%error, "the state cannot be written to {}", path.display());
                }
            }
        })?;
        (self.waiting, self.thread) = (Some(sender), Some(thread));
        Ok(())
    }

    /// Lets it be written, unless nothing changed. Where the disk is slow, a later one is.
    pub fn keep(&mut self, state: State) {
        let Some(waiting) = self.waiting.as_ref().filter(|_| state != self.last) else { return };
        match waiting.try_send(state.clone()) {
            Ok(()) => self.last = state,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// Writes the last of it and ends.
    pub fn finish(mut self, state: &State) {
        self.waiting = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Err(error) = write(&self.path, state) {
            tracing::error!(%error, "the state cannot be written to {}", self.path.display());
        }
    }
}

fn read(path: &Path) -> io::Result<State> {
    let file = File::open(path)?;
    if file.metadata()?.len() > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than anything that is written to it"));
    }
    let state: State = serde_json::from_reader(io::BufReader::new(file))?;
    if state.version != VERSION {
        let error = format!("it is of version {}, and this program writes version {VERSION}", state.version);
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    Ok(state)
}

/// Replaces the file by a whole one. After a loss of power it is the old or the new one.
fn write(path: &Path, state: &State) -> io::Result<()> {
    let state = State { version: VERSION, ..state.clone() };
    let unfinished = path.with_extension("part");
    let mut file = File::create(&unfinished)?;
    file.write_all(&serde_json::to_vec(&state)?)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(port: u16) -> State {
        let at = SocketAddr::from(([10, 0, 0, 1], port));
        State { version: VERSION, distribution: vec![at], ..State::default() }
    }

    #[test]
    fn what_was_kept_is_there_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let (mut keeper, before) = Keeper::open(folder.path()).unwrap();
        assert_eq!(before, State::default());
        keeper.start().unwrap();
        keeper.keep(state(1));
        keeper.finish(&state(2));
        let (_, after) = Keeper::open(folder.path()).unwrap();
        assert_eq!(after, state(2));
    }

    #[test]
    fn a_file_that_is_damaged_or_of_another_version_is_set_aside_and_not_lost() {
        for content in ["{\"version\":1,", "{\"version\":9,\"findings\":[],\"epmd\":[],\"distribution\":[]}"] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(FILE), content).unwrap();
            let (_, state) = Keeper::open(folder.path()).unwrap();
            assert_eq!(state, State::default());
            assert_eq!(std::fs::read_to_string(folder.path().join("state.unreadable")).unwrap(), content);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(Keeper::open(&file.join("below")).is_err());
    }
}
