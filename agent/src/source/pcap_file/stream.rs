//! The bytes of a capture file, unpacked, in order and in constant memory, with a thread that reads ahead.
//!
//! The thread fills blocks and passes them through a short channel; emptied blocks go back to it. What lies within
//! one block is lent out from it; what spans two is put together in a small buffer of its own.

use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use super::Progress;

/// Bytes that are read and handed over at once. Beyond this a read call costs nothing against its copying, and the
/// block still lies in a second-level cache when it is parsed.
const BLOCK: usize = 1 << 20;
/// The first block, which is read when the file is opened. It is small since a timeline opens all of its files before
/// it reads the first packet, and most small captures need no thread at all.
const FIRST_BLOCK: usize = 64 << 10;
/// What the first byte of a block is aligned to. A large allocation begins 16 bytes into a page, and there the kernel's
/// copy out of the (aligned) page cache takes more than twice as long on AMD EPYC: 0.38 s instead of 0.15 s for
/// 750 MB.
const PAGE: usize = 4096;
/// Full blocks that may wait. With the ones being filled and parsed, a file takes four blocks.
const BLOCKS_AHEAD: usize = 2;

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

/// Where lent bytes lie. Good until the stream goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    carried: bool,
    start: usize,
    len: usize,
}

impl Place {
    pub(super) const fn len(self) -> usize {
        self.len
    }

    /// `len` bytes of it from `start` on.
    #[inline]
    pub(super) fn part(self, start: usize, len: usize) -> Self {
        debug_assert!(start + len <= self.len);
        Self { start: self.start + start, len, ..self }
    }
}

/// Where blocks come from.
enum Blocks {
    /// From here, once they are needed: then a thread is begun.
    Unread(Source),
    /// From the thread.
    Ahead { full: Receiver<Block>, empty: Sender<Vec<u8>> },
    /// There are no more.
    Ended,
}

#[derive(Default)]
struct Block {
    /// Always of full length; only the bytes from `start` to `end` were read.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// This one is the last.
    last: bool,
    /// Why it is, where the file goes on.
    fault: Option<io::Error>,
}

impl Block {
    /// Memory for a block of `len` bytes, wherever its first page begins.
    fn memory(len: usize) -> Vec<u8> {
        vec![0; len + PAGE]
    }

    /// Fills `bytes`, which [`memory`](Self::memory) gave, as far as the source goes.
    fn read(source: &mut Source, mut bytes: Vec<u8>) -> Self {
        let start = bytes.as_ptr().align_offset(PAGE).min(PAGE);
        let full = bytes.len().saturating_sub(PAGE) + start;
        let mut end = start;
        let (last, fault) = loop {
            match bytes.get_mut(end..full) {
                None | Some([]) => break (false, None),
                Some(space) => match source.read(space) {
                    Ok(0) => break (true, None),
                    Ok(read) => end += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break (true, Some(error)),
                },
            }
        };
        Self { bytes, start, end, last, fault }
    }

    fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }
}

/// The stream.
pub(super) struct Stream {
    block: Vec<u8>,
    /// Where in `block` the next byte is, and where its bytes end.
    at: usize,
    end: usize,
    /// What was taken over from finished blocks, and how much of it is behind us. Comes before `block`.
    carry: Vec<u8>,
    carry_at: usize,
    position: u64,
    blocks: Blocks,
    fault: Option<io::Error>,
    compression: Compression,
    read: Arc<AtomicU64>,
    total: Option<u64>,
}

impl Stream {
    /// Begins to read; `total` is the length of the packed file, where it is known.
    pub(super) fn new(source: Source, total: Option<u64>) -> io::Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        let mut source: Source = Box::new(Counted { source, read: Arc::clone(&read) });
        let mut first = Block::read(&mut source, Block::memory(FIRST_BLOCK));
        if first.filled().is_empty()
            && let Some(error) = first.fault
        {
            return Err(error);
        }
        let compression = Compression::of(first.filled());
        if compression != Compression::None {
            let packed = Cursor::new(first.filled().to_vec()).chain(Faulty(first.fault.take()));
            source = compression.unpack(Box::new(packed.chain(source)))?;
            first = Block::read(&mut source, Block::memory(FIRST_BLOCK));
        }
        Ok(Self {
            block: first.bytes,
            at: first.start,
            end: first.end,
            carry: Vec::new(),
            carry_at: 0,
            position: 0,
            blocks: if first.last { Blocks::Ended } else { Blocks::Unread(source) },
            fault: first.fault,
            compression,
            read,
            total,
        })
    }

    /// The next `len` bytes, which stay next; `None` where the stream ends before.
    #[inline]
    pub(super) fn peek(&mut self, len: usize) -> Option<&[u8]> {
        let place = self.place(len)?;
        Some(self.bytes(place))
    }

    /// The next `len` bytes; `None` where the stream ends before, which leaves it where it is.
    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Option<Place> {
        let place = self.place(len)?;
        if place.carried {
            self.carry_at += len;
        } else {
            self.at += len;
        }
        self.position += len as u64;
        Some(place)
    }

    /// Goes over `len` bytes; false where the stream ends before, which is then where it is.
    pub(super) fn skip(&mut self, mut len: u64) -> bool {
        while len > 0 {
            let left = self.left();
            if left == 0 {
                if self.place(1).is_none() {
                    return false;
                }
                continue;
            }
            let step = usize::try_from(len).unwrap_or(usize::MAX).min(left);
            let carried = step.min(self.carry.len() - self.carry_at);
            self.carry_at += carried;
            self.at += step - carried;
            self.position += step as u64;
            len -= step as u64;
        }
        true
    }

    /// The bytes at a place that [`take`](Self::take) gave, nothing having been taken since.
    #[inline]
    pub(super) fn bytes(&self, place: Place) -> &[u8] {
        let bytes = if place.carried { &self.carry } else { &self.block };
        bytes.get(place.start..place.start + place.len).unwrap_or_default()
    }

    /// How many bytes are behind us.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// How many bytes are at hand; all that are left, after a [`peek`](Self::peek) or [`take`](Self::take) that
    /// found too few.
    pub(super) fn left(&self) -> usize {
        (self.carry.len() - self.carry_at) + (self.end - self.at)
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

    pub(super) fn progress(&self) -> Progress {
        Progress { read: self.read.load(Ordering::Relaxed), total: self.total }
    }

    /// Lets the memory and the thread go.
    pub(super) fn close(&mut self) {
        self.blocks = Blocks::Ended;
        self.block = Vec::new();
        self.carry = Vec::new();
        (self.at, self.end, self.carry_at) = (0, 0, 0);
    }

    /// What the stream begins with, in words, for a file that is no capture; `None` for an empty one.
    pub(super) fn description_of_start(&self) -> Option<String> {
        const SHOWN: usize = 8;
        // A file too short to have a magic number was carried over in the hope of more.
        let carried = self.carry.get(self.carry_at..).unwrap_or_default();
        let here = self.block.get(self.at..self.end).unwrap_or_default();
        let start: Vec<u8> = carried.iter().chain(here).copied().take(SHOWN).collect();
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

    #[inline]
    fn place(&mut self, len: usize) -> Option<Place> {
        if self.carry_at == self.carry.len() && self.end - self.at >= len {
            return Some(Place { carried: false, start: self.at, len });
        }
        self.assemble(len)
    }

    /// Goes on to the next block, taking along what is left of this one. No more is copied than `len` asks for.
    #[cold]
    fn assemble(&mut self, len: usize) -> Option<Place> {
        self.carry.drain(..self.carry_at);
        self.carry_at = 0;
        loop {
            let rest = self.block.get(self.at..self.end).unwrap_or_default();
            if self.carry.is_empty() && rest.len() >= len {
                return Some(Place { carried: false, start: self.at, len });
            }
            let wanted = len.saturating_sub(self.carry.len()).min(rest.len());
            self.carry.extend_from_slice(rest.get(..wanted).unwrap_or_default());
            self.at += wanted;
            if self.carry.len() >= len {
                return Some(Place { carried: true, start: 0, len });
            }
            if !self.next_block() {
                return None;
            }
        }
    }

    fn next_block(&mut self) -> bool {
        if let Blocks::Unread(_) = self.blocks
            && let Blocks::Unread(source) = std::mem::replace(&mut self.blocks, Blocks::Ended)
        {
            match read_ahead(source) {
                Ok(blocks) => self.blocks = blocks,
                Err(error) => self.fault = Some(error),
            }
        }
        let Blocks::Ahead { full, empty } = &self.blocks else { return false };
        let old = std::mem::take(&mut self.block);
        if old.len() == BLOCK + PAGE {
            // The thread may have ended, having read everything.
            let _ = empty.send(old);
        }
        let block = full.recv().unwrap_or_else(|_| Block {
            last: true,
            fault: Some(io::Error::other("the thread that reads ended early")),
            ..Block::default()
        });
        if block.last {
            self.blocks = Blocks::Ended;
            self.fault = block.fault;
        }
        (self.block, self.at, self.end) = (block.bytes, block.start, block.end);
        true
    }
}

/// Begins the thread that reads. It ends after the last block, or when nobody takes its blocks any more.
fn read_ahead(source: Source) -> io::Result<Blocks> {
    let (filled, full) = sync_channel(BLOCKS_AHEAD);
    let (empty, emptied) = channel();
    std::thread::Builder::new().name("read-ahead".into()).spawn(move || fill(source, &filled, &emptied))?;
    Ok(Blocks::Ahead { full, empty })
}

fn fill(mut source: Source, filled: &SyncSender<Block>, emptied: &Receiver<Vec<u8>>) {
    loop {
        let bytes = emptied.try_recv().unwrap_or_else(|_| Block::memory(BLOCK));
        let block = Block::read(&mut source, bytes);
        let last = block.last;
        if filled.send(block).is_err() || last {
            return;
        }
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
