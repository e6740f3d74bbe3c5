//! From a file's bytes to batches of its packets, each with the block that they lie in.
//!
//! The first block, which is read when a file is opened, is parsed by whoever asks for packets, and of a plain file every
//! other one too: a block that another processor has read costs more to fetch from it than it took to read. There, packets
//! of the pcap format need not even be listed, but are found as they are asked for. For what has to be unpacked or waited for
//! there is a thread, so that this and parsing run beside what the packets are for. Batches go through a short channel; used
//! ones go back, so that nothing is allocated for a block once a file is under way.

use std::fmt;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use distwatch_engine::packet::LinkType;
use distwatch_engine::time::Timestamp;

use super::Interface;
use super::pcap::Pcap;
use super::pcap::WholePackets;
use super::pcapng::{self, PcapNg};
use super::stream::{Place, Stream};

/// Batches that may wait. With those being filled and used, a file takes four.
const AHEAD: usize = 2;

/// What a parser finds of a packet: everything but its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) time: Timestamp,
    /// Where in the batch's block the captured bytes are.
    pub(super) data: Place,
    pub(super) original_len: u32,
    pub(super) interface: u32,
    pub(super) link_type: LinkType,
}

/// What is wrong with a file.
pub(super) type Damage = String;

/// What a format found next.
pub(super) enum Step {
    /// A packet.
    Record(Record),
    /// Something that is not whole in this block; so many bytes of it must be at hand.
    Beyond(usize),
    /// The file's end.
    End,
}

/// Numbers of the packets up to some place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) truncated: u64,
    pub(super) first: Option<Timestamp>,
    pub(super) last: Option<Timestamp>,
}

impl Totals {
    #[inline]
    fn add(&mut self, record: &Record) {
        let (time, captured) = (record.time, record.data.len());
        self.packets += 1;
        self.bytes = self.bytes.saturating_add(captured as u64);
        self.truncated += u64::from(record.original_len as usize > captured);
        if self.first.is_none_or(|first| time < first) {
            self.first = Some(time);
        }
        if self.last.is_none_or(|last| time > last) {
            self.last = Some(time);
        }
    }
}

/// Packets that follow each other in the file.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) block: Vec<u8>,
    pub(super) records: Vec<Record>,
    /// Interfaces that were described since the last batch.
    pub(super) interfaces: Vec<Interface>,
    /// Of the file so far, this batch included.
    pub(super) totals: Totals,
    /// Whether it is the last one, and what there is to say at the end.
    pub(super) end: Option<End>,
}

/// What is known when a file has ended.
#[derive(Default)]
pub(super) struct End {
    /// Why it ends before its time, if it does.
    pub(super) damaged: Option<Damage>,
    /// Packets that were lost on each interface.
    pub(super) dropped: Vec<Option<u64>>,
}

enum Format {
    Pcap(Pcap),
    PcapNg(PcapNg),
}

/// The parser of one file.
pub(super) struct Parser {
    stream: Stream,
    format: Format,
    interfaces: Vec<Interface>,
    totals: Totals,
    /// Bytes that must be at hand in the next block.
    need: usize,
}

impl Parser {
    /// The parser for what a stream begins with; gives the stream back where that is no capture.
    pub(super) fn new(stream: Stream) -> Result<Self, Box<Stream>> {
        let format = match stream.rest().first_chunk() {
            Some(&magic) if pcapng::is_magic(magic) => Some(Format::PcapNg(PcapNg::default())),
            Some(&magic) => Pcap::from_magic(magic).map(Format::Pcap),
            None => None,
        };
        match format {
            Some(format) => Ok(Self { stream, format, interfaces: Vec::new(), totals: Totals::default(), need: 0 }),
            None => Err(Box::new(stream)),
        }
    }

    /// The format in words.
    pub(super) fn format(&self) -> String {
        let format = match &self.format {
            Format::Pcap(pcap) => pcap.name(),
            Format::PcapNg(_) => "pcapng",
        };
        format!("{format}{}", self.stream.compression().suffix())
    }

    pub(super) const fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Fills a batch with what lies whole in the block that is loaded.
    pub(super) fn parse(&mut self, batch: &mut Batch) {
        let Self { stream, format, interfaces, totals, .. } = self;
        let (described, before) = (interfaces.len(), totals.packets);
        batch.records.clear();
        let stopped = match format {
            Format::Pcap(pcap) => {
                batch.records.extend(pcap.walk(stream).into_iter().flatten());
                gather(&mut batch.records, before, |number| pcap.advance(stream, interfaces, number))
            }
            Format::PcapNg(pcapng) => {
                gather(&mut batch.records, before, |number| pcapng.advance(stream, interfaces, number))
            }
        };
        batch.records.iter().for_each(|record| totals.add(record));
        batch.end = match stopped {
            Ok(Some(need)) => {
                self.need = need;
                None
            }
            Ok(None) => Some(self.end(None)),
            Err(damage) => Some(self.end(Some(damage))),
        };
        batch.interfaces.clear();
        batch.interfaces.extend_from_slice(self.interfaces.get(described..).unwrap_or_default());
        batch.totals = self.totals;
        batch.block = self.stream.give_away();
    }

    /// Loads the next block and fills a batch from it.
    fn go_on(&mut self, batch: &mut Batch) {
        self.load(batch);
        self.parse(batch);
    }

    /// Loads the next block into the memory of one that was used.
    fn load(&mut self, batch: &mut Batch) {
        self.stream.load(self.need, std::mem::take(&mut batch.block));
    }

    /// Whether packets can be found one by one, without a list of them.
    const fn can_walk(&self) -> bool {
        matches!(self.format, Format::Pcap(_))
    }

    /// The packets of the block that is loaded, which are taken as they are asked for. What is left is for
    /// [`parse`](Self::parse), as is the block.
    fn walk(&mut self) -> Option<Walk<'_>> {
        let Self { stream, format, totals, .. } = self;
        match format {
            Format::Pcap(pcap) => pcap.walk(stream).map(|records| Walk { records, totals }),
            Format::PcapNg(_) => None,
        }
    }

    /// The end, by damage or because nothing follows. Damage below the format (of the compression, of the disk)
    /// shows as an early end, so it is the better explanation.
    fn end(&self, damage: Option<Damage>) -> End {
        let (packets, at) = (self.totals.packets, self.stream.position());
        let damaged = match (damage, self.stream.fault()) {
            (Some(damage), Some(fault)) => Some(format!("{damage}; {fault}")),
            (None, Some(fault)) => Some(format!("cut after packet {packets} at byte {at}: {fault}")),
            (damage, None) => damage,
        };
        End { damaged, dropped: self.interfaces.iter().map(|interface| interface.dropped).collect() }
    }
}

/// Collects packets, before which there were so many, until something is not whole in the block (and says how many bytes
/// that needs), or the file ends.
#[inline]
fn gather(
    records: &mut Vec<Record>,
    before: u64,
    mut advance: impl FnMut(u64) -> Result<Step, Damage>,
) -> Result<Option<usize>, Damage> {
    loop {
        match advance(before + records.len() as u64 + 1)? {
            Step::Record(record) => records.push(record),
            Step::Beyond(need) => return Ok(Some(need)),
            Step::End => return Ok(None),
        }
    }
}

/// The packets of a block, found and counted as they are asked for.
pub(super) struct Walk<'a> {
    records: WholePackets<'a>,
    totals: &'a mut Totals,
}

impl<'a> Walk<'a> {
    /// What they are parts of.
    pub(super) const fn block(&self) -> &'a [u8] {
        self.records.block()
    }
}

impl Iterator for Walk<'_> {
    type Item = Record;

    #[inline]
    fn next(&mut self) -> Option<Record> {
        let record = self.records.next()?;
        self.totals.add(&record);
        Some(record)
    }
}

/// Where batches come from.
pub(super) enum Batches {
    /// From here: a block is loaded, of which not all has been parsed.
    Loaded(Box<Parser>),
    /// From here, or from a thread where there is need of one.
    Idle(Box<Parser>),
    /// From the thread.
    Ahead { full: Receiver<Batch>, empty: Sender<Batch> },
    /// There are no more.
    Ended,
}

impl Batches {
    /// Loads the next block and lists nothing of it, where its packets can be found one by one: in a plain file. What remains
    /// of it is in the next batch.
    pub(super) fn load(&mut self, batch: &mut Batch) -> bool {
        match std::mem::replace(self, Self::Ended) {
            Self::Idle(mut parser) if parser.stream().is_plain_file() && parser.can_walk() => {
                parser.load(batch);
                *self = Self::Loaded(parser);
                true
            }
            other => {
                *self = other;
                false
            }
        }
    }

    /// The packets of the block that was loaded.
    pub(super) fn walk(&mut self) -> Option<Walk<'_>> {
        match self {
            Self::Loaded(parser) => parser.walk(),
            _ => None,
        }
    }

    /// Puts the next batch in the place of one that was used. There must be one: the last had no end.
    pub(super) fn next(&mut self, batch: &mut Batch) {
        *self = match std::mem::replace(self, Self::Ended) {
            Self::Loaded(mut parser) => {
                parser.parse(batch);
                Self::Idle(parser)
            }
            Self::Idle(mut parser) if parser.stream().is_plain_file() => {
                parser.go_on(batch);
                Self::Idle(parser)
            }
            Self::Idle(parser) => read_ahead(parser, batch),
            ahead @ Self::Ahead { .. } => ahead,
            Self::Ended => return,
        };
        if let Self::Ahead { full, empty } = self {
            let totals = batch.totals;
            // The thread may have ended, having parsed everything.
            let _ = empty.send(std::mem::take(batch));
            *batch = full.recv().unwrap_or_else(|_| Batch {
                totals,
                end: Some(End { damaged: Some("the thread that reads ended early".into()), ..End::default() }),
                ..Batch::default()
            });
        }
        if batch.end.is_some() {
            *self = Self::Ended;
        }
    }
}

/// Begins the thread. It ends after the last batch, or when nobody takes them any more. Where there can be none, the file
/// ends here.
fn read_ahead(mut parser: Box<Parser>, batch: &mut Batch) -> Batches {
    let (filled, full) = sync_channel(AHEAD);
    let (empty, emptied) = channel();
    let (give, take) = channel::<Box<Parser>>();
    let run = move || {
        if let Ok(parser) = take.recv() {
            fill(parser, &filled, &emptied);
        }
    };
    match std::thread::Builder::new().name("read-ahead".into()).spawn(run) {
        Ok(_) => {
            let _ = give.send(parser);
            Batches::Ahead { full, empty }
        }
        Err(error) => {
            parser.stream.fail(error);
            parser.parse(batch);
            Batches::Ended
        }
    }
}

fn fill(mut parser: Box<Parser>, filled: &SyncSender<Batch>, emptied: &Receiver<Batch>) {
    loop {
        let mut batch = emptied.try_recv().unwrap_or_default();
        parser.go_on(&mut batch);
        let last = batch.end.is_some();
        if filled.send(batch).is_err() || last {
            return;
        }
    }
}

/// The sentence for a file that ends inside packet `number`.
#[cold]
pub(super) fn cut(stream: &Stream, number: u64, says: impl fmt::Display) -> Damage {
    let (at, left) = (stream.position(), stream.left());
    let are = if left == 1 { "is" } else { "are" };
    format!("cut in packet {number} at byte {at}: {says}, {left} {are} there")
}
