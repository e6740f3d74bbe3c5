//! Capture files (pcap and pcapng, plain or compressed), read as a stream in constant memory.
//!
//! What is packed, or comes out of a pipe, a second thread unpacks (`stream`) and parses (`parser`) ahead. A packet is
//! borrowed from the block that it was read in. Bytes are trusted as little as those from a network: whatever a file holds,
//! all packets before the first damage are delivered, and the damage is named with its byte.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use distwatch_engine::model::Capture;
use distwatch_engine::packet::{InterfaceId, LinkType, Packet, PacketRef};
use distwatch_engine::time::Timestamp;

use clock::Clock;
use parser::{Batch, Batches, End, Parser, Record, Walk};
use stream::Stream;

pub use stream::Meter;
pub use timeline::Timeline;

mod clock;
mod parser;
mod pcap;
mod pcapng;
mod stream;
mod timeline;

/// The path that means standard input.
pub const STANDARD_INPUT: &str = "-";

/// The longest packet that is believed. Linux builds segments of up to 512 KiB for the capture to see (BIG TCP,
/// `GSO_MAX_SIZE`), beyond libpcap's own 256 KiB; 32 times that leaves room, and anything longer is a damaged length.
/// It is also what bounds the memory for a packet that spans blocks.
pub const MAX_PACKET: u32 = 16 << 20;

/// Interfaces that one file may describe; each is kept until the end. Wireshark numbers them with 32 bits, but a host
/// with this many does not exist.
pub const MAX_INTERFACES: usize = 65_536;

/// Why a file could not even be begun.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{path} is empty, not a capture file")]
    Empty {
        /// The file.
        path: String,
    },
    /// It cannot be unpacked even as far as the first packet.
    #[error("{path} is damaged from its beginning: {fault}")]
    Damaged {
        /// The file.
        path: String,
        /// What keeps it from being unpacked.
        fault: String,
    },
    /// It is something else.
    #[error("{path} is not a capture file (pcap or pcapng): {found}")]
    NotACapture {
        /// The file.
        path: String,
        /// What it begins with.
        found: String,
    },
}

/// An interface that packets were captured on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name, where the file has it (pcapng `if_name`).
    pub name: Option<String>,
    /// Its description, where the file has it (pcapng `if_description`).
    pub description: Option<String>,
    /// What its packets begin with.
    pub link_type: LinkType,
    /// The length that packets were cut to; 0 means that they were not.
    pub snap_len: u32,
    /// Packets that the capturing program counted as lost on it; `None` where the file does not tell.
    pub dropped: Option<u64>,
    clock: Clock,
}

/// A packet of a capture file, borrowed until the next one is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawPacket<'a> {
    /// Its number in the file as Wireshark shows it, from 1.
    pub number: u64,
    /// When it was captured.
    pub time: Timestamp,
    /// What `data` begins with.
    pub link_type: LinkType,
    /// Its interface, as an index into [`CaptureFile::interfaces`].
    pub interface: u32,
    /// The captured bytes.
    pub data: &'a [u8],
    /// The length on the wire.
    pub original_len: u32,
    interfaces: &'a [Interface],
}

impl<'a> RawPacket<'a> {
    #[inline]
    fn new(number: u64, record: &Record, block: &'a [u8], interfaces: &'a [Interface]) -> Self {
        Self {
            number,
            time: record.time,
            link_type: record.link_type,
            interface: record.interface,
            data: record.data.of(block),
            original_len: record.original_len,
            interfaces,
        }
    }

    /// The interface's name; empty where the file has none.
    #[must_use]
    pub fn interface_name(&self) -> &'a str {
        let interface = self.interfaces.get(self.interface as usize);
        interface.and_then(|interface| interface.name.as_deref()).unwrap_or_default()
    }

    /// As the engine takes it: from the capture at this place in the list, on the interface that the engine knows
    /// by this id.
    #[must_use]
    pub const fn to_packet(self, capture: u32, interface: InterfaceId) -> Packet<'a> {
        Packet {
            reference: PacketRef { capture, number: self.number },
            time: self.time,
            link_type: self.link_type,
            interface,
            data: self.data,
            original_len: self.original_len,
        }
    }
}

/// How far the reading of a file has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the file that were read, a little ahead of the packets that were delivered.
    pub read: u64,
    /// The file's length; `None` for a pipe.
    pub total: Option<u64>,
}

/// An open capture file.
pub struct CaptureFile {
    path: PathBuf,
    format: String,
    meter: Meter,
    interfaces: Vec<Interface>,
    batches: Batches,
    batch: Batch,
    /// How many of the batch's packets were delivered, the current one included.
    delivered: usize,
    /// How many packets came before the batch.
    before: u64,
    damaged: Option<String>,
}

impl fmt::Debug for CaptureFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureFile")
            .field("path", &self.path)
            .field("packets", &self.batch.totals.packets)
            .finish_non_exhaustive()
    }
}

impl CaptureFile {
    /// Opens a file, or standard input for [`STANDARD_INPUT`], and tells its format from its first bytes.
    ///
    /// # Errors
    /// When it cannot be read, is empty, or is something other than a capture. A capture that is cut or damaged
    /// further on opens, and says so in [`summary`](Self::summary).
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let stream = if path == Path::new(STANDARD_INPUT) {
            Stream::new(Box::new(io::stdin()), None)
        } else {
            std::fs::File::open(path).and_then(|file| {
                let metadata = file.metadata()?;
                Stream::new(Box::new(file), metadata.is_file().then_some(metadata.len()))
            })
        };
        let stream = stream.map_err(|source| OpenError::Io { path: shown(path), source })?;
        Self::begin(path, stream)
    }

    /// Reads a capture from anything that has bytes; `path` is only for the report and the messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_reader(path: &Path, reader: impl io::Read + Send + 'static) -> Result<Self, OpenError> {
        let stream =
            Stream::new(Box::new(reader), None).map_err(|source| OpenError::Io { path: shown(path), source })?;
        Self::begin(path, stream)
    }

    fn begin(path: &Path, stream: Stream) -> Result<Self, OpenError> {
        let parser = Parser::new(stream).map_err(|stream| {
            let path = shown(path);
            match (stream.fault(), stream.description_of_start()) {
                (Some(fault), _) => OpenError::Damaged { path, fault },
                (None, Some(found)) => OpenError::NotACapture { path, found },
                (None, None) => OpenError::Empty { path },
            }
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            format: parser.format(),
            meter: parser.stream().meter().clone(),
            interfaces: Vec::new(),
            batches: Batches::Loaded(Box::new(parser)),
            batch: Batch::default(),
            delivered: 0,
            before: 0,
            damaged: None,
        })
    }

    /// The next packet, until the end or the first damage.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend out its own buffer")]
    pub fn next(&mut self) -> Option<RawPacket<'_>> {
        self.advance();
        self.current()
    }

    /// Goes to the next packet, if there is one.
    #[inline]
    pub(crate) fn advance(&mut self) {
        self.delivered += 1;
        if self.delivered > self.batch.records.len() {
            self.go_on();
        }
    }

    /// The packet that [`advance`](Self::advance) went to.
    #[inline]
    pub(crate) fn current(&self) -> Option<RawPacket<'_>> {
        let place = self.delivered.checked_sub(1)?;
        Some(self.packet(place, self.batch.records.get(place)?))
    }

    /// The next packets all at once, as many as are at hand; `None` after the end or the first damage. There may be none in a
    /// stretch.
    pub fn next_stretch(&mut self) -> Option<Stretch<'_>> {
        while self.delivered >= self.batch.records.len() && !self.batches.load(&mut self.batch) {
            if self.has_ended() {
                return None;
            }
            self.batches.next(&mut self.batch);
            self.take_over();
        }
        let Self { batches, batch, delivered, before, interfaces, .. } = self;
        let (from, number) = (*delivered, *before + *delivered as u64);
        *delivered = batch.records.len();
        let (block, records) = match batches.walk() {
            Some(walk) => (walk.block(), Records::Walk(walk)),
            None => (batch.block.as_slice(), Records::Listed(batch.records.get(from..).unwrap_or_default().iter())),
        };
        Some(Stretch { block, interfaces, number, records })
    }

    /// The packet at this place of the batch.
    #[inline]
    fn packet(&self, place: usize, record: &Record) -> RawPacket<'_> {
        RawPacket::new(self.before + place as u64 + 1, record, &self.batch.block, &self.interfaces)
    }

    /// Goes to the first packet of the next batch that has any.
    #[cold]
    fn go_on(&mut self) {
        while !self.has_ended() {
            self.batches.next(&mut self.batch);
            self.take_over();
            if !self.batch.records.is_empty() {
                break;
            }
        }
        self.delivered = 1;
    }

    /// Whether there is no batch after this one, which was used; then it is forgotten.
    fn has_ended(&mut self) -> bool {
        let ended = matches!(self.batches, Batches::Ended);
        if ended {
            (self.batch.block, self.batch.records) = (Vec::new(), Vec::new());
        }
        ended
    }

    /// Takes note of what came with a batch.
    fn take_over(&mut self) {
        self.delivered = 0;
        self.before = self.batch.totals.packets - self.batch.records.len() as u64;
        self.interfaces.append(&mut self.batch.interfaces);
        if let Some(End { damaged, dropped }) = self.batch.end.take() {
            self.damaged = damaged;
            self.interfaces.iter_mut().zip(dropped).for_each(|(interface, dropped)| interface.dropped = dropped);
        }
    }

    /// The time of [`current`](Self::current).
    pub(crate) fn current_time(&self) -> Option<Timestamp> {
        self.current().map(|packet| packet.time)
    }

    /// The interfaces that were described so far; a pcapng file may add some at any time, a pcap file has one.
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// How far the reading has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.meter.progress()
    }

    /// The same, to be asked while packets are borrowed.
    #[must_use]
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What there is to report of the file so far.
    #[must_use]
    pub fn summary(&self) -> Capture {
        let mut link_types: Vec<String> = Vec::new();
        for interface in &self.interfaces {
            let name = interface.link_type.name();
            if !link_types.contains(&name) {
                link_types.push(name);
            }
        }
        let totals = &self.batch.totals;
        let known_drops = self.interfaces.iter().filter_map(|interface| interface.dropped);
        Capture {
            path: self.path.display().to_string(),
            format: self.format.clone(),
            link_types,
            interfaces: self.interfaces.iter().filter_map(|interface| interface.name.clone()).collect(),
            packets: totals.packets,
            bytes: totals.bytes,
            first: totals.first,
            last: totals.last,
            truncated_packets: totals.truncated,
            dropped: known_drops.reduce(u64::saturating_add),
            damaged: self.damaged.clone(),
        }
    }
}

/// Packets that follow each other and lie in one block.
pub struct Stretch<'a> {
    block: &'a [u8],
    interfaces: &'a [Interface],
    /// Of the packet before.
    number: u64,
    records: Records<'a>,
}

enum Records<'a> {
    Listed(std::slice::Iter<'a, Record>),
    Walk(Walk<'a>),
}

impl<'a> Stretch<'a> {
    /// What the packets' bytes are parts of.
    #[must_use]
    pub const fn block(&self) -> &'a [u8] {
        self.block
    }
}

/// The packets, in the file's order.
impl<'a> Iterator for Stretch<'a> {
    type Item = RawPacket<'a>;

    #[inline]
    fn next(&mut self) -> Option<RawPacket<'a>> {
        let record = match &mut self.records {
            Records::Listed(records) => *records.next()?,
            Records::Walk(walk) => walk.next()?,
        };
        self.number += 1;
        Some(RawPacket::new(self.number, &record, self.block, self.interfaces))
    }
}

/// A path as messages have it.
fn shown(path: &Path) -> String {
    if path == Path::new(STANDARD_INPUT) { "standard input".to_owned() } else { path.display().to_string() }
}

/// The two orders in which a file can have its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Order {
    #[default]
    Little,
    Big,
}

impl Order {
    #[inline]
    const fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    #[inline]
    const fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    #[inline]
    const fn u64(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::Little => u64::from_le_bytes(bytes),
            Self::Big => u64::from_be_bytes(bytes),
        }
    }
}

#[cfg(test)]
mod tests;
