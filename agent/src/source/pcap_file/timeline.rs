//! Several capture files as one sequence of packets, by their time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::path::Path;

use distwatch_engine::time::Timestamp;

use super::{CaptureFile, OpenError, Progress, RawPacket};

/// Files that are read together. Where two packets have the same time, the file that was named first comes first;
/// within a file, packets stay in the file's order.
#[derive(Debug)]
pub struct Timeline {
    files: Vec<CaptureFile>,
    /// The files that have a packet ready, by its time. Unused with a single file.
    ready: BinaryHeap<Reverse<(Timestamp, usize)>>,
    started: bool,
}

impl Timeline {
    /// Opens all files.
    ///
    /// # Errors
    /// With the first that cannot be opened.
    pub fn open<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self, OpenError> {
        let files: Result<Vec<_>, _> = paths.into_iter().map(|path| CaptureFile::open(path.as_ref())).collect();
        Ok(Self::new(files?))
    }

    /// Of files that are open already, and of which nothing was read.
    #[must_use]
    pub const fn new(files: Vec<CaptureFile>) -> Self {
        Self { files, ready: BinaryHeap::new(), started: false }
    }

    /// The next packet, with the place of its file in the list.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend out its own buffer")]
    pub fn next(&mut self) -> Option<(u32, RawPacket<'_>)> {
        let index = match self.files.as_mut_slice() {
            [only] => {
                only.advance();
                0
            }
            _ => self.merge()?,
        };
        let packet = self.files.get(index)?.current()?;
        Some((u32::try_from(index).unwrap_or(u32::MAX), packet))
    }

    /// Goes on in the file whose packet was handed out last, and tells which file's packet comes next.
    fn merge(&mut self) -> Option<usize> {
        if !self.started {
            self.started = true;
            for (index, file) in self.files.iter_mut().enumerate() {
                file.advance();
                self.ready.extend(file.current_time().map(|time| Reverse((time, index))));
            }
        } else if let Some(mut top) = self.ready.peek_mut() {
            let Reverse((_, index)) = *top;
            let file = self.files.get_mut(index)?;
            file.advance();
            match file.current_time() {
                Some(time) => *top = Reverse((time, index)),
                None => drop(PeekMut::pop(top)),
            }
        }
        self.ready.peek().map(|Reverse((_, index))| *index)
    }

    /// The file, if there is but one: then its packets need no sorting, and can be taken all at once.
    pub fn only(&mut self) -> Option<&mut CaptureFile> {
        match self.files.as_mut_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The files, for their interfaces and their summaries.
    #[must_use]
    pub fn files(&self) -> &[CaptureFile] {
        &self.files
    }

    /// How far the reading of all files together has come; the total is `None` where one of them is a pipe.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let start = Progress { read: 0, total: Some(0) };
        self.files.iter().map(CaptureFile::progress).fold(start, |sum, file| Progress {
            read: sum.read.saturating_add(file.read),
            total: sum.total.zip(file.total).map(|(sum, file)| sum.saturating_add(file)),
        })
    }
}
