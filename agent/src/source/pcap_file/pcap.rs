//! The pcap format: one header for the file, one for each packet.
//!
//! ```text
//! file:   magic(4) major(2) minor(2) zone(4) accuracy(4) snap length(4) link type(4)
//! packet: seconds(4) fraction(4) captured length(4) original length(4)  [modified: interface(4) protocol(2) type(1) 0(1)]
//! ```

use distwatch_engine::packet::LinkType;
use distwatch_engine::time::Timestamp;

use super::clock::Clock;
use super::parser::{Damage, Record, Step, cut};
use super::stream::{Rest, Stream};
use super::{Interface, MAX_PACKET, Order};

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
/// Kuznetzov's modification adds the interface, the protocol and the direction to each packet.
const MODIFIED_RECORD_HEADER: usize = 24;

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
const MODIFIED: u32 = 0xa1b2_cd34;

/// The parser of a pcap file.
#[derive(Debug)]
pub(super) struct Pcap {
    order: Order,
    record_header: usize,
    nanos_per_unit: i64,
    /// Known once the file's header was read.
    link_type: Option<LinkType>,
}

impl Pcap {
    /// The variety that a file with these first octets has; `None` where it is no pcap file.
    pub(super) fn from_magic(magic: [u8; 4]) -> Option<Self> {
        [Order::Little, Order::Big].into_iter().find_map(|order| {
            let (record_header, nanos_per_unit) = match order.u32(magic) {
                MICROSECONDS => (RECORD_HEADER, 1000),
                NANOSECONDS => (RECORD_HEADER, 1),
                MODIFIED => (MODIFIED_RECORD_HEADER, 1000),
                _ => return None,
            };
            Some(Self { order, record_header, nanos_per_unit, link_type: None })
        })
    }

    /// The format's name in the report.
    pub(super) const fn name(&self) -> &'static str {
        if self.record_header == RECORD_HEADER { "pcap" } else { "pcap (modified)" }
    }

    /// Goes through the packets that lie whole in what is left of the block, as nearly all do, and takes them: whatever else
    /// is there, damage and the file's header included, is left to [`advance`](Self::advance).
    pub(super) fn walk<'a>(&'a self, stream: &'a mut Stream) -> Option<WholePackets<'a>> {
        Some(WholePackets { pcap: self, link_type: self.link_type?, rest: stream.lend() })
    }

    /// The four numbers that a record begins with.
    #[inline]
    fn fields(&self, header: &[u8; RECORD_HEADER]) -> [u32; 4] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *header;
        [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(|field| self.order.u32(field))
    }

    /// The seconds are unsigned in the files of today's systems, which carries them to 2106.
    #[inline]
    fn time(&self, seconds: u32, fraction: u32) -> Timestamp {
        Timestamp::from_nanos(i64::from(seconds) * 1_000_000_000 + i64::from(fraction) * self.nanos_per_unit)
    }

    /// The next packet of the block, or what is wrong there.
    #[inline]
    pub(super) fn advance(
        &mut self,
        stream: &mut Stream,
        interfaces: &mut Vec<Interface>,
        number: u64,
    ) -> Result<Step, Damage> {
        let link_type = match self.link_type {
            Some(link_type) => link_type,
            None => match self.read_file_header(stream, interfaces)? {
                Some(link_type) => link_type,
                None => return Ok(Step::Beyond(FILE_HEADER)),
            },
        };
        let (Some(header), true) = (stream.rest().first_chunk::<RECORD_HEADER>(), stream.left() >= self.record_header)
        else {
            return match stream.left() {
                _ if !stream.is_last() => Ok(Step::Beyond(self.record_header)),
                0 => Ok(Step::End),
                _ => Err(cut(stream, number, format_args!("a record header is {} bytes", self.record_header))),
            };
        };
        let [seconds, fraction, captured, original_len] = self.fields(header);
        if captured > MAX_PACKET {
            let at = stream.position();
            return Err(format!("damaged in packet {number} at byte {at}: record header says {captured} bytes"));
        }
        let len = captured as usize;
        let Some(record) = stream.take(self.record_header + len) else {
            if !stream.is_last() {
                return Ok(Step::Beyond(self.record_header + len));
            }
            let (at, there) = (stream.position(), stream.left().saturating_sub(self.record_header));
            return Err(format!(
                "cut in packet {number} at byte {at}: record header says {len} bytes, {there} are there"
            ));
        };
        Ok(Step::Record(Record {
            time: self.time(seconds, fraction),
            link_type,
            interface: 0,
            data: record.part(self.record_header, len),
            original_len,
        }))
    }

    #[cold]
    fn read_file_header(
        &mut self,
        stream: &mut Stream,
        interfaces: &mut Vec<Interface>,
    ) -> Result<Option<LinkType>, Damage> {
        let Some(header) = stream.take(FILE_HEADER) else {
            if !stream.is_last() {
                return Ok(None);
            }
            let (at, left) = (stream.position(), stream.left());
            return Err(format!("cut in the file header at byte {at}: it is {FILE_HEADER} bytes, {left} are there"));
        };
        let Some(header) = stream.bytes(header).first_chunk::<FILE_HEADER>() else {
            return Err("the file header cannot be read".into());
        };
        let major = self.order.u16([header[4], header[5]]);
        if major != 2 {
            let minor = self.order.u16([header[6], header[7]]);
            return Err(format!("damaged in the file header at byte 4: version {major}.{minor} is not known"));
        }
        let snap_len = self.order.u32([header[16], header[17], header[18], header[19]]);
        // The upper half has flags, such as the length of a frame check sequence.
        let link_type = LinkType(self.order.u32([header[20], header[21], header[22], header[23]]) as u16);
        let clock = Clock::default();
        interfaces.push(Interface { name: None, description: None, link_type, snap_len, dropped: None, clock });
        self.link_type = Some(link_type);
        Ok(Some(link_type))
    }
}

/// The packets that lie whole in a block, found as they are asked for.
pub(super) struct WholePackets<'a> {
    pcap: &'a Pcap,
    link_type: LinkType,
    rest: Rest<'a>,
}

impl<'a> WholePackets<'a> {
    /// What they are parts of.
    pub(super) const fn block(&self) -> &'a [u8] {
        self.rest.block()
    }
}

impl Iterator for WholePackets<'_> {
    type Item = Record;

    #[inline]
    fn next(&mut self) -> Option<Record> {
        let Self { pcap, link_type, rest } = self;
        let [seconds, fraction, captured, original_len] = pcap.fields(rest.bytes().first_chunk()?);
        if captured > MAX_PACKET {
            return None;
        }
        let len = captured as usize;
        let data = rest.take(pcap.record_header + len)?.part(pcap.record_header, len);
        Some(Record { time: pcap.time(seconds, fraction), link_type: *link_type, interface: 0, data, original_len })
    }
}
