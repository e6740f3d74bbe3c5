//! How many records the segments have that nobody appends to any more, so that a start need not read them all.
//!
//! A line each: number, octets, records, checksum. A segment that has no line, or another length than its line says, is read; so
//! what a crash or a full disk keeps from this file costs time and nothing else.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use super::Segment;

const NAME: &str = "finished";

/// No file of ours is longer: some hundred thousand segments, those of a spool of a terabyte, have half of it.
const LONGEST: u64 = 32 << 20;

/// Lines of segments that are gone, beyond which the file is written anew.
pub(super) const GONE: u64 = 256;

/// What is known of a finished segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finished {
    pub(super) bytes: u64,
    pub(super) records: u64,
}

/// All that can be read of it, by the segment's number, and how many lines there are.
pub(super) fn load(dir: &Path) -> (HashMap<u64, Finished>, u64) {
    let mut text = String::new();
    // One that cannot be read is like none.
    let read = File::open(dir.join(NAME)).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    if read.is_err() {
        return (HashMap::new(), 0);
    }
    (text.lines().filter_map(parse).collect(), text.lines().count() as u64)
}

/// Adds a line.
pub(super) fn add(dir: &Path, segment: &Segment) -> io::Result<()> {
    File::options().create(true).append(true).open(dir.join(NAME))?.write_all(line(segment).as_bytes())
}

/// Writes the file anew, with these alone.
pub(super) fn replace<'a>(dir: &Path, segments: impl Iterator<Item = &'a Segment>) -> io::Result<()> {
    let new = dir.join("finished.new");
    fs::write(&new, segments.map(line).collect::<String>())?;
    fs::rename(new, dir.join(NAME))
}

fn line(segment: &Segment) -> String {
    let facts = format!("{} {} {}", segment.number, segment.bytes, segment.records);
    format!("{facts} {:08x}\n", crc32fast::hash(facts.as_bytes()))
}

fn parse(line: &str) -> Option<(u64, Finished)> {
    let (facts, checksum) = line.rsplit_once(' ')?;
    if u32::from_str_radix(checksum, 16).ok()? != crc32fast::hash(facts.as_bytes()) {
        return None;
    }
    let mut numbers = facts.split(' ').map(|word| word.parse::<u64>().ok());
    let (number, bytes, records) = (numbers.next()??, numbers.next()??, numbers.next()??);
    Some((number, Finished { bytes, records }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(number: u64) -> Segment {
        Segment { number, bytes: 4096 + number, records: 10 * number, read: 0, done: 0 }
    }

    #[test]
    fn what_is_written_is_read_and_a_damaged_line_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), (HashMap::new(), 0));
        (1..4).for_each(|number| add(dir.path(), &segment(number)).unwrap());
        let of = |number: u64| (number, Finished { bytes: 4096 + number, records: 10 * number });
        assert_eq!(load(dir.path()), ((1..4).map(of).collect(), 3));
        let path = dir.path().join(NAME);
        let text = fs::read_to_string(&path).unwrap();
        // A bit of the second, and half of the last.
        fs::write(&path, text.replace("2 4098", "2 4099").get(..text.len() - 6).unwrap()).unwrap();
        assert_eq!(load(dir.path()).0, [of(1)].into());
        replace(dir.path(), [segment(3)].iter()).unwrap();
        assert_eq!(load(dir.path()), ([of(3)].into(), 1));
        fs::write(&path, [0xff; 100]).unwrap();
        assert_eq!(load(dir.path()), (HashMap::new(), 0));
    }
}
