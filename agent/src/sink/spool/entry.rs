//! How a record lies in a segment: its length, its checksum, and what is checked.
//!
//! ```text
//! ┌──────────────┬───────────────┬─────────────────────┬───────────┬─────────────────┐
//! │ length   u32 │ CRC-32    u32 │ nanoseconds     i64 │ type   u8 │ the JSON object │   all little-endian
//! └──────────────┴───────────────┴─────────────────────┴───────────┴─────────────────┘
//!                                └───────────── length octets, checked ──────────────┘
//! ```

use distwatch_engine::time::Timestamp;

use crate::record::EventType;
use crate::sink::deliver::Entry;

/// Before the checked part.
const HEAD: usize = 8;

/// Before the JSON object, within the checked part.
const FACTS: usize = 9;

/// The longest record. Real ones have a kilobyte or two; the longest an alert with twenty facts.
pub(crate) const LONGEST: usize = 1 << 20;

/// Octets that a record with such a line takes.
pub(crate) const fn size(line: usize) -> usize {
    HEAD + FACTS + line
}

/// Appends a record to `out`. The line must not be longer than [`LONGEST`].
pub(crate) fn encode(time: Timestamp, event_type: EventType, line: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let length = u32::try_from(FACTS + line.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&time.as_nanos().to_le_bytes());
    out.push(code(event_type));
    out.extend_from_slice(line);
    let checksum = crc32fast::hash(&out[start + HEAD..]);
    out[start + 4..start + HEAD].copy_from_slice(&checksum.to_le_bytes());
}

/// What stands at the beginning of some octets of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A record, and the octets that it takes.
    Entry(Entry, usize),
    /// The beginning of a record that has so many octets.
    Part(usize),
    /// Nothing that was written whole.
    Damaged,
}

/// Reads the first record.
pub(crate) fn decode(bytes: &[u8]) -> Found {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Found::Part(HEAD) };
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if !(FACTS..=FACTS + LONGEST).contains(&length) {
        return Found::Damaged;
    }
    let Some(checked) = rest.get(..length) else { return Found::Part(HEAD + length) };
    if crc32fast::hash(checked) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Found::Damaged;
    }
    let Some((nanos, rest)) = checked.split_first_chunk::<8>() else { return Found::Damaged };
    let Some((code, line)) = rest.split_first() else { return Found::Damaged };
    let event_type = kind(*code);
    let time = Timestamp::from_nanos(i64::from_le_bytes(*nanos));
    Found::Entry(Entry { time, event_type, line: line.to_vec(), id: None }, HEAD + length)
}

/// Like [`decode`], for one that only counts: the octets of the first record.
pub(crate) fn skip(bytes: &[u8]) -> Option<usize> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let checked = rest.get(..length).filter(|_| (FACTS..=FACTS + LONGEST).contains(&length))?;
    (crc32fast::hash(checked) == u32::from_le_bytes([c0, c1, c2, c3])).then_some(HEAD + length)
}

/// The number that stands for a type on disk. Never changed, only added to.
const fn code(event_type: EventType) -> u8 {
    match event_type {
        EventType::Alert => 1,
        EventType::Link => 2,
        EventType::Epmd => 3,
        EventType::Activity => 4,
        EventType::Stats => 5,
        EventType::Weird => 6,
        EventType::Process => 7,
    }
}

/// A type that a later version wrote is something for the analyst.
fn kind(number: u8) -> EventType {
    EventType::ALL.into_iter().find(|kind| code(*kind) == number).unwrap_or(EventType::Weird)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(line: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(Timestamp::from_nanos(-7), EventType::Alert, line, &mut out);
        out
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = encoded(b"{}");
        let entry =
            Entry { time: Timestamp::from_nanos(-7), event_type: EventType::Alert, line: b"{}".to_vec(), id: None };
        assert_eq!(bytes.len(), size(2));
        assert_eq!(decode(&bytes), Found::Entry(entry, bytes.len()));
        assert_eq!(skip(&bytes), Some(bytes.len()));
    }

    #[test]
    fn every_prefix_is_a_part_and_every_flipped_bit_is_noticed() {
        let bytes = encoded(b"{\"a\":1}");
        for end in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..end]), Found::Part(_)), "{end}");
            assert_eq!(skip(&bytes[..end]), None);
        }
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(decode(&wrong), Found::Entry(..)), "{bit}");
            assert_eq!(skip(&wrong), None);
        }
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(matches!(decode(&bytes), Found::Entry(..)), skip(&bytes).is_some());
        }
    }
}
