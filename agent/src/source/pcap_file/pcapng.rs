//! The pcapng format (draft-ietf-opsawg-pcapng): sections of blocks, each with its type and its length at both ends.
//!
//! ```text
//! block: type(4) length(4) body(length - 12) length(4)
//! ```
//!
//! Blocks that tell nothing about packets (names, secrets, custom and unknown ones) are skipped.

use distwatch_engine::packet::LinkType;
use distwatch_engine::time::Timestamp;

use super::clock::Clock;
use super::parser::{Damage, Record, Step, cut};
use super::stream::{Place, Stream};
use super::{Interface, MAX_INTERFACES, MAX_PACKET, Order};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// Tells the byte order of a section.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// Type, length and length: the least that a block is.
const FRAME: u32 = 12;
/// Where a block's body begins.
const BODY: usize = 8;
/// The longest block that is kept in one piece: the longest packet with its options, of which an editor's comment is
/// the longest, at 64 KiB each.
const MAX_BLOCK: u32 = MAX_PACKET + (1 << 20);
/// The longest name of an interface that is kept, in octets. Linux has 15, Windows about 50.
const MAX_NAME: usize = 256;

/// Whether a file with these first octets is a pcapng file.
pub(super) const fn is_magic(magic: [u8; 4]) -> bool {
    u32::from_le_bytes(magic) == SECTION_HEADER
}

/// The parser of a pcapng file.
#[derive(Debug, Default)]
pub(super) struct PcapNg {
    order: Order,
    /// Interfaces of earlier sections, which the present one's do not count.
    interfaces_before: usize,
    /// Of the latest packet: a simple packet block has no time, and takes it from its predecessor.
    latest: Timestamp,
}

impl PcapNg {
    /// The next packet of the stream's block, or what is wrong there.
    #[inline]
    pub(super) fn advance(
        &mut self,
        stream: &mut Stream,
        interfaces: &mut Vec<Interface>,
        number: u64,
    ) -> Result<Step, Damage> {
        loop {
            let (block_type, place) = match self.next_block(stream, number)? {
                Found::Block(block_type, place) => (block_type, place),
                Found::Beyond(need) => return Ok(Step::Beyond(need)),
                Found::End => return Ok(Step::End),
            };
            let block = Block { order: self.order, bytes: stream.bytes(place) };
            let read = match block_type {
                ENHANCED_PACKET => self.enhanced(&block, place, interfaces).map(Some),
                SIMPLE_PACKET => self.simple(&block, place, interfaces).map(Some),
                OBSOLETE_PACKET => self.obsolete(&block, place, interfaces).map(Some),
                SECTION_HEADER => self.section(&block, interfaces).map(|()| None),
                INTERFACE_DESCRIPTION => describe_interface(&block, interfaces).map(|()| None),
                _ => self.statistics(&block, interfaces).map(|()| None),
            };
            let record = read.map_err(|what| damaged(number, stream.position() - place.len() as u64, what))?;
            if let Some(record) = record {
                self.latest = record.time;
                return Ok(Step::Record(record));
            }
        }
    }

    /// The next block of a kind that is read.
    #[inline]
    fn next_block(&mut self, stream: &mut Stream, number: u64) -> Result<Found, Damage> {
        loop {
            let at = stream.position();
            let Some(start) = stream.rest().first_chunk::<{ FRAME as usize }>() else {
                return match stream.left() {
                    _ if !stream.is_last() => Ok(Found::Beyond(FRAME as usize)),
                    0 => Ok(Found::End),
                    _ => Err(cut(stream, number, format_args!("a block is at least {FRAME} bytes"))),
                };
            };
            let [a, b, c, d, e, f, g, h, i, j, k, l] = *start;
            if is_magic([a, b, c, d]) {
                let order = byte_order([i, j, k, l]);
                self.order = order.ok_or_else(|| damaged(number, at, "its byte order is not told"))?;
            }
            let (block_type, len) = (self.order.u32([a, b, c, d]), self.order.u32([e, f, g, h]));
            let is_read = matches!(
                block_type,
                ENHANCED_PACKET
                    | SIMPLE_PACKET
                    | OBSOLETE_PACKET
                    | SECTION_HEADER
                    | INTERFACE_DESCRIPTION
                    | INTERFACE_STATISTICS
            );
            if len < FRAME || len % 4 != 0 || is_read && len > MAX_BLOCK {
                return Err(damaged(number, at, &format!("it says that it is {len} bytes")));
            }
            let place = stream.take(len as usize);
            if place.is_none() && !stream.is_last() && (is_read || stream.is_lent()) {
                // One that is skipped need not be in one piece, but what was taken of this block must be used first.
                return Ok(Found::Beyond(if is_read { len as usize } else { FRAME as usize }));
            }
            // Of a block that is skipped, only the end has to be seen.
            let end = match place {
                Some(place) => stream.bytes(place).last_chunk().copied(),
                None if is_read || !stream.skip(u64::from(len) - 4) => None,
                None => stream.take_word(),
            };
            match end {
                None => {
                    let there = stream.position() - at + stream.left() as u64;
                    return Err(format!(
                        "cut before packet {number}, in the block at byte {at}: it says that it is {len} bytes, \
                         {there} are there"
                    ));
                }
                Some(end) if self.order.u32(end) != len => {
                    return Err(damaged(number, at, "its length is not the same at both ends"));
                }
                Some(_) => {}
            }
            if let Some(place) = place.filter(|_| is_read) {
                return Ok(Found::Block(block_type, place));
            }
        }
    }

    fn section(&mut self, block: &Block<'_>, interfaces: &[Interface]) -> Result<(), &'static str> {
        // Section 4.1: byte order magic, major and minor version, length of the section.
        if block.u16(BODY + 4) != Some(1) {
            return Err("its version is not known");
        }
        self.interfaces_before = interfaces.len();
        Ok(())
    }

    /// Section 4.3: interface, time (high and low half), captured and original length, packet, options.
    fn enhanced(&self, block: &Block<'_>, place: Place, interfaces: &[Interface]) -> Result<Record, &'static str> {
        const DATA: usize = BODY + 20;
        let [id, high, low, captured, original_len] = block.fields::<5>(BODY).ok_or(TOO_SHORT)?;
        let (index, interface) = self.interface(id, interfaces)?;
        packet(place, DATA, captured, original_len, index, interface, interface.clock.time(join(high, low)))
    }

    /// Section 4.4: original length, packet. It belongs to the section's first interface.
    fn simple(&self, block: &Block<'_>, place: Place, interfaces: &[Interface]) -> Result<Record, &'static str> {
        const DATA: usize = BODY + 4;
        let [original_len] = block.fields::<1>(BODY).ok_or(TOO_SHORT)?;
        let (index, interface) = self.interface(0, interfaces)?;
        let snap_len = if interface.snap_len == 0 { u32::MAX } else { interface.snap_len };
        packet(place, DATA, original_len.min(snap_len), original_len, index, interface, self.latest)
    }

    /// Appendix A: interface and drops (16 bits each), then as an enhanced one.
    fn obsolete(&self, block: &Block<'_>, place: Place, interfaces: &mut [Interface]) -> Result<Record, &'static str> {
        const DATA: usize = BODY + 20;
        /// The number of drops is not known.
        const UNKNOWN: u16 = u16::MAX;
        let (id, drops) = block.u16(BODY).zip(block.u16(BODY + 2)).ok_or(TOO_SHORT)?;
        let [_, high, low, captured, original_len] = block.fields::<5>(BODY).ok_or(TOO_SHORT)?;
        let (index, _) = self.interface(id.into(), interfaces)?;
        let interface = interfaces.get_mut(index as usize).ok_or(NO_INTERFACE)?;
        if drops != UNKNOWN {
            interface.dropped = Some(interface.dropped.unwrap_or(0).saturating_add(drops.into()));
        }
        packet(place, DATA, captured, original_len, index, interface, interface.clock.time(join(high, low)))
    }

    /// Section 4.6: interface, time, options. The counts are since the capture's start, so the greatest is the last.
    fn statistics(&self, block: &Block<'_>, interfaces: &mut [Interface]) -> Result<(), &'static str> {
        const DROPPED_BY_INTERFACE: u16 = 5;
        const DROPPED_BY_SYSTEM: u16 = 7;
        let [id, ..] = block.fields::<3>(BODY).ok_or(TOO_SHORT)?;
        let (index, _) = self.interface(id, interfaces)?;
        let interface = interfaces.get_mut(index as usize).ok_or(NO_INTERFACE)?;
        let dropped = block
            .options(BODY + 12)
            .filter(|(code, _)| matches!(*code, DROPPED_BY_INTERFACE | DROPPED_BY_SYSTEM))
            .filter_map(|(_, value)| value.first_chunk().map(|value| block.order.u64(*value)))
            .reduce(u64::saturating_add);
        interface.dropped = interface.dropped.max(dropped);
        Ok(())
    }

    fn interface<'i>(&self, id: u32, interfaces: &'i [Interface]) -> Result<(u32, &'i Interface), &'static str> {
        let index = self.interfaces_before.saturating_add(id as usize);
        let interface = interfaces.get(index).ok_or(NO_INTERFACE)?;
        Ok((u32::try_from(index).map_err(|_| NO_INTERFACE)?, interface))
    }
}

/// What comes next in a stream.
enum Found {
    /// A block of this type, whole.
    Block(u32, Place),
    /// Something that so many bytes must be at hand for.
    Beyond(usize),
    /// Nothing.
    End,
}

/// The sentence for a block that cannot be as it is.
#[cold]
fn damaged(number: u64, at: u64, what: &str) -> Damage {
    format!("damaged before packet {number}, in the block at byte {at}: {what}")
}

const TOO_SHORT: &str = "it is too short for its kind";
const NO_INTERFACE: &str = "it names an interface that was not described";

fn byte_order(magic: [u8; 4]) -> Option<Order> {
    [Order::Little, Order::Big].into_iter().find(|order| order.u32(magic) == BYTE_ORDER_MAGIC)
}

const fn join(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

fn packet(
    place: Place,
    data: usize,
    captured: u32,
    original_len: u32,
    index: u32,
    interface: &Interface,
    time: Timestamp,
) -> Result<Record, &'static str> {
    if captured > MAX_PACKET || captured as usize > place.len().saturating_sub(data + 4) {
        return Err("its packet is longer than the block");
    }
    let data = place.part(data, captured as usize);
    Ok(Record { time, link_type: interface.link_type, interface: index, data, original_len })
}

/// Section 4.2: link type, reserved, snap length, options.
fn describe_interface(block: &Block<'_>, interfaces: &mut Vec<Interface>) -> Result<(), &'static str> {
    const NAME: u16 = 2;
    const DESCRIPTION: u16 = 3;
    const TIME_RESOLUTION: u16 = 9;
    const TIME_OFFSET: u16 = 14;
    let link_type = LinkType(block.u16(BODY).ok_or(TOO_SHORT)?);
    let snap_len = block.u32(BODY + 4).ok_or(TOO_SHORT)?;
    if interfaces.len() >= MAX_INTERFACES {
        return Err("there are too many interfaces");
    }
    let (mut name, mut description, mut clock) = (None, None, Clock::default());
    for (code, value) in block.options(BODY + 8) {
        match code {
            NAME => name = text(value),
            DESCRIPTION => description = text(value),
            TIME_RESOLUTION => value.iter().take(1).for_each(|octet| clock.set_resolution(*octet)),
            TIME_OFFSET => {
                if let Some(seconds) = value.first_chunk() {
                    clock.set_offset(block.order.u64(*seconds) as i64);
                }
            }
            _ => {}
        }
    }
    interfaces.push(Interface { name, description, link_type, snap_len, dropped: None, clock });
    Ok(())
}

/// Some writers count a closing zero octet in.
fn text(value: &[u8]) -> Option<String> {
    let value = value.split(|byte| *byte == 0).next()?;
    let value = value.get(..MAX_NAME).unwrap_or(value);
    (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned())
}

/// A whole block, from its type to its second length.
struct Block<'a> {
    order: Order,
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    fn u16(&self, at: usize) -> Option<u16> {
        Some(self.order.u16(*self.bytes.get(at..)?.first_chunk()?))
    }

    #[inline]
    fn u32(&self, at: usize) -> Option<u32> {
        Some(self.order.u32(*self.bytes.get(at..)?.first_chunk()?))
    }

    /// `N` numbers of 32 bits in a row, none of which is the closing length.
    #[inline]
    fn fields<const N: usize>(&self, at: usize) -> Option<[u32; N]> {
        let body = self.bytes.get(at..self.bytes.len().checked_sub(4)?)?;
        let mut fields = [0; N];
        for (field, bytes) in fields.iter_mut().zip(body.get(..N * 4)?.as_chunks().0) {
            *field = self.order.u32(*bytes);
        }
        Some(fields)
    }

    /// Codes and values of the options that begin at `at`, up to the first that does not fit (section 3.5).
    fn options(&self, at: usize) -> impl Iterator<Item = (u16, &'a [u8])> {
        let order = self.order;
        let mut rest = self.bytes.len().checked_sub(4).and_then(|end| self.bytes.get(at..end)).unwrap_or_default();
        std::iter::from_fn(move || {
            let [a, b, c, d] = *rest.first_chunk()?;
            let (code, len) = (order.u16([a, b]), usize::from(order.u16([c, d])));
            let value = rest.get(4..4 + len)?;
            rest = rest.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
            Some((code, value))
        })
        .take_while(|(code, _)| *code != 0)
    }
}
