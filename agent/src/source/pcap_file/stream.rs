//! The bytes of a capture file, unpacked, in order and in constant memory.
//!
//! They come in blocks. Whoever parses takes from a block what lies whole in it, then gives the block away and loads the
//! next one, at whose start is what the last one ended with: so whatever is taken is one slice.

use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Progress;

/// Bytes that are read at once. Beyond this a read call costs nothing against its copying, and the block still lies in a
/// second-level cache when it is parsed and taken in.
const BLOCK: usize = 512 << 10;
/// The first block, which is read when the file is opened. It is small since a timeline opens all of its files before
/// it reads the first packet.
const FIRST_BLOCK: usize = 64 << 10;
/// What is kept of one block for the next without the next being made anew: the longest of usual packets.
const TAIL: usize = 64 << 10;
/// What is read into memory is aligned to this. A large allocation begins 16 bytes into a page, and there the kernel's
/// copy out of the (aligned) page cache takes more than twice as long on AMD EPYC: 0.38 s instead of 0.15 s for
/// 750 MB.
const PAGE: usize = 4096;
type Source = Box<dyn Read + Send>;

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn of(start: &[u8]) -> Self {
        match start {
            // RFC 1952, section 2.3.1, with the only method there is.
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            // RFC 8878, sections 3.1.1 and 3.1.2: a frame, or a skippable one, which some packers begin with.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// What it adds to the name of the format.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => "+gzip",
            Self::Zstd => "+zstd",
        }
    }

    fn unpack(self, packed: Source) -> io::Result<Source> {
        Ok(match self {
            Self::None => packed,
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(packed)),
            Self::Zstd => Box::new(zstd::Decoder::new(packed)?),
        })
    }
}

/// Where in its block something lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    start: u32,
    len: u32,
}

impl Place {
    #[inline]
    pub(super) const fn len(self) -> usize {
        self.len as usize
    }

    /// `len` bytes of it from `start` on.
    #[inline]
    pub(super) const fn part(self, start: usize, len: usize) -> Self {
        debug_assert!(start + len <= self.len());
        Self { start: self.start + start as u32, len: len as u32 }
    }

    /// The bytes there.
    #[inline]
    pub(super) fn of(self, block: &[u8]) -> &[u8] {
        let start = self.start as usize;
        block.get(start..start + self.len()).unwrap_or_default()
    }
}

/// How far the reading of a file has come, for whoever shows it.
#[derive(Clone, Debug)]
pub struct Meter {
    read: Arc<AtomicU64>,
    total: Option<u64>,
}

impl Meter {
    /// As of now.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { read: self.read.load(Ordering::Relaxed), total: self.total }
    }
}

/// The stream.
pub(super) struct Stream {
    /// Where more comes from, as long as more may come.
    source: Option<Source>,
    block: Vec<u8>,
    /// Where in `block` the next byte is, and where its bytes end.
    at: usize,
    end: usize,
    /// Whether anything was taken from the block.
    lent: bool,
    /// What was left of the block that was given away.
    tail: Vec<u8>,
    position: u64,
    fault: Option<io::Error>,
    compression: Compression,
    meter: Meter,
}

impl Stream {
    /// Begins to read; `total` is the length of the packed file, where it is known.
    pub(super) fn new(source: Source, total: Option<u64>) -> io::Result<Self> {
        let meter = Meter { read: Arc::new(AtomicU64::new(0)), total };
        let source: Source = Box::new(Counted { source, read: Arc::clone(&meter.read) });
        let mut stream = Self {
            source: Some(source),
            block: Vec::new(),
            at: 0,
            end: 0,
            lent: false,
            tail: Vec::new(),
            position: 0,
            fault: None,
            compression: Compression::None,
            meter,
        };
        stream.read(vec![0; FIRST_BLOCK + PAGE], FIRST_BLOCK);
        if stream.rest().is_empty()
            && let Some(error) = stream.fault
        {
            return Err(error);
        }
        stream.compression = Compression::of(stream.rest());
        if stream.compression != Compression::None {
            let start = Cursor::new(stream.rest().to_vec()).chain(Faulty(stream.fault.take()));
            let packed: Source = match stream.source.take() {
                Some(source) => Box::new(start.chain(source)),
                None => Box::new(start),
            };
            stream.source = Some(stream.compression.unpack(packed)?);
            let memory = std::mem::take(&mut stream.block);
            (stream.at, stream.end) = (0, 0);
            stream.read(memory, FIRST_BLOCK);
        }
        Ok(stream)
    }

    /// What is left of the block.
    #[inline]
    pub(super) fn rest(&self) -> &[u8] {
        self.block.get(self.at..self.end).unwrap_or_default()
    }

    /// How many bytes are left of the block.
    #[inline]
    pub(super) const fn left(&self) -> usize {
        self.end - self.at
    }

    /// Whether nothing follows the block.
    #[inline]
    pub(super) const fn is_last(&self) -> bool {
        self.source.is_none()
    }

    /// Whether anything was taken from the block.
    pub(super) const fn is_lent(&self) -> bool {
        self.lent
    }

    /// How many bytes are behind us.
    #[inline]
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// The next `len` bytes; `None` where the block ends before, which leaves the stream where it is.
    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Option<Place> {
        if self.left() < len {
            return None;
        }
        let place = Place { start: self.at as u32, len: len as u32 };
        self.at += len;
        self.position += len as u64;
        self.lent = true;
        Some(place)
    }

    /// What is left of the block, to be taken from while the block is borrowed.
    pub(super) fn lend(&mut self) -> Rest<'_> {
        self.lent = true;
        Rest { block: self.block.get(..self.end).unwrap_or_default(), at: &mut self.at, position: &mut self.position }
    }

    /// The bytes at a place of the block.
    #[inline]
    pub(super) fn bytes(&self, place: Place) -> &[u8] {
        place.of(&self.block)
    }

    /// Goes over `len` bytes, through as many blocks as it takes: nothing may be lent unless this block is the last. False
    /// where the stream ends before, which is then where it is.
    pub(super) fn skip(&mut self, mut len: u64) -> bool {
        loop {
            let step = usize::try_from(len).unwrap_or(usize::MAX).min(self.left());
            self.at += step;
            self.position += step as u64;
            len -= step as u64;
            if len == 0 {
                return true;
            }
            if self.is_last() {
                return false;
            }
            debug_assert!(!self.lent);
            let memory = self.give_away();
            self.load(1, memory);
        }
    }

    /// The next four bytes, which are taken; `None` where the stream ends before. Nothing of the block may be lent.
    pub(super) fn take_word(&mut self) -> Option<[u8; 4]> {
        if self.left() < 4 && !self.is_last() {
            let memory = self.give_away();
            self.load(4, memory);
        }
        let place = self.take(4)?;
        self.bytes(place).first_chunk().copied()
    }

    /// Gives the block away, keeping what is left of it for the next one.
    pub(super) fn give_away(&mut self) -> Vec<u8> {
        let mut tail = std::mem::take(&mut self.tail);
        tail.extend_from_slice(self.rest());
        self.tail = tail;
        (self.at, self.end) = (0, 0);
        std::mem::take(&mut self.block)
    }

    /// Loads the next block, so that `need` bytes are at hand unless the stream ends before. `memory` is what a block
    /// that was given away had, or nothing.
    pub(super) fn load(&mut self, need: usize, mut memory: Vec<u8>) {
        const USUAL: usize = TAIL + PAGE + BLOCK;
        let more = BLOCK.max(need.saturating_sub(self.tail.len()));
        let size = USUAL.max(self.tail.len() + PAGE + more);
        // One that was made for a long packet is not kept.
        if memory.len() < size || memory.len() > 2 * size {
            memory = vec![0; size];
        }
        self.read(memory, more);
    }

    /// Says that the stream ends here because of this.
    pub(super) fn fail(&mut self, error: io::Error) {
        (self.source, self.fault) = (None, Some(error));
    }

    /// Puts the tail of the last block into `memory`, and behind it up to `more` bytes from the source, at a page's
    /// beginning.
    fn read(&mut self, mut memory: Vec<u8>, more: usize) {
        let tail = self.tail.len();
        let start = tail + memory.as_ptr().wrapping_add(tail).align_offset(PAGE).min(PAGE);
        if let Some(place) = memory.get_mut(start - tail..start) {
            place.copy_from_slice(&self.tail);
        }
        if tail > TAIL {
            self.tail = Vec::new();
        }
        self.tail.clear();
        let full = (start + more).min(memory.len());
        let mut end = start;
        while let Some(source) = &mut self.source {
            match memory.get_mut(end..full) {
                None | Some([]) => break,
                Some(space) => match source.read(space) {
                    Ok(0) => self.source = None,
                    Ok(read) => end += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => self.fail(error),
                },
            }
        }
        (self.block, self.at, self.end, self.lent) = (memory, start - tail, end, false);
    }

    /// Why the stream ends before its time, if it does.
    pub(super) fn fault(&self) -> Option<String> {
        let fault = self.fault.as_ref()?;
        Some(match self.compression {
            Compression::None => format!("reading the file failed ({fault})"),
            Compression::Gzip => format!("the gzip stream cannot be unpacked further ({fault})"),
            Compression::Zstd => format!("the zstd stream cannot be unpacked further ({fault})"),
        })
    }

    pub(super) const fn compression(&self) -> Compression {
        self.compression
    }

    /// Whether reading is no more than a copy: of a file that is not packed. The system itself reads such a file ahead.
    pub(super) const fn is_plain_file(&self) -> bool {
        self.meter.total.is_some() && matches!(self.compression, Compression::None)
    }

    pub(super) const fn meter(&self) -> &Meter {
        &self.meter
    }

    /// What the stream begins with, in words, for a file that is no capture; `None` for an empty one.
    pub(super) fn description_of_start(&self) -> Option<String> {
        const SHOWN: usize = 8;
        let start = self.rest().get(..SHOWN).unwrap_or(self.rest());
        let packed = match self.compression {
            Compression::None if start.is_empty() => return None,
            Compression::None => "it",
            Compression::Gzip => "what its gzip stream holds",
            Compression::Zstd => "what its zstd stream holds",
        };
        if start.is_empty() {
            return Some(format!("{packed} is empty"));
        }
        let hex: Vec<String> = start.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(format!("{packed} begins with {} (\"{}\")", hex.join(" "), start.escape_ascii()))
    }
}

/// What is left of a block.
pub(super) struct Rest<'a> {
    block: &'a [u8],
    at: &'a mut usize,
    position: &'a mut u64,
}

impl<'a> Rest<'a> {
    /// The block, what was taken included.
    pub(super) const fn block(&self) -> &'a [u8] {
        self.block
    }

    /// What is left.
    #[inline]
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.block.get(*self.at..).unwrap_or_default()
    }

    /// As [`Stream::take`].
    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Option<Place> {
        if self.block.len() - *self.at < len {
            return None;
        }
        let place = Place { start: *self.at as u32, len: len as u32 };
        *self.at += len;
        *self.position += len as u64;
        Some(place)
    }
}

/// Counts what is read from the file itself.
struct Counted {
    source: Source,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Passes on, once, an error that came behind bytes that were read already.
struct Faulty(Option<io::Error>);

impl Read for Faulty {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}
