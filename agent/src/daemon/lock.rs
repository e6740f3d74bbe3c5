//! One daemon for a state folder: a lock that ends with the process that holds it, however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// The file in the state folder. It stays there: what keeps others away is the kernel's lock on it.
const FILE: &str = "lock";

/// Digits of a process id, and what may stand behind them.
const LONGEST: u64 = 32;

/// The state folder is this process's, as long as this is.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why a state folder cannot be this process's.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("another daemon{} has it", .by.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Held {
        /// Its process id, where it has said so.
        by: Option<u32>,
    },
    /// The folder or the file in it cannot be made or opened.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Lock {
    /// Makes the folder, and takes it for this process.
    ///
    /// # Errors
    /// Another daemon has it, or nothing can be written there.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        std::fs::create_dir_all(folder)?;
        // What stands in it is the holder's until the lock is had.
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(FILE))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held { by: holder(&file) }),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // For whoever finds it taken; on a full disk the lock holds all the same.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn holder(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_a_folder_and_the_next_is_told_who() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("state");
        let lock = Lock::take(&place).unwrap();
        let own = std::process::id();
        let error = Lock::take(&place).unwrap_err();
        assert!(matches!(error, LockError::Held { by: Some(pid) } if pid == own), "{error}");
        assert_eq!(error.to_string(), format!("another daemon (process {own}) has it"));
        drop(lock);
        assert!(Lock::take(&place).is_ok(), "the file that is left keeps nobody away");
    }

    #[test]
    fn a_file_that_an_earlier_run_left_keeps_nobody_away_whatever_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "1\nand more of it, from a disk that was damaged").unwrap();
        let _lock = Lock::take(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_another_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(matches!(Lock::take(&folder.path().join("file/below")), Err(LockError::Io(_))));
    }
}
