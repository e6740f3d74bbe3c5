//! How far a sink has got, in a file that is replaced as a whole.

use std::fs;
use std::io;
use std::path::Path;

use super::Place;

const NAME: &str = "cursor";
const MAGIC: &str = "distwatch-cursor-1";

/// Reads where the last run left off. `Ok(None)` without a file; an error where what it holds is no place, so that
/// the caller can say that it begins again.
pub(super) fn load(dir: &Path) -> io::Result<Option<Place>> {
    match fs::read_to_string(dir.join(NAME)) {
        Ok(text) => parse(&text).map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a cursor")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a new file beside the old one and puts it in its place.
pub(super) fn save(dir: &Path, place: Place, durable: bool) -> io::Result<()> {
    let new = dir.join("cursor.new");
    let facts = format!("{MAGIC} {} {}", place.segment, place.offset);
    let text = format!("{facts} {:08x}\n", crc32fast::hash(facts.as_bytes()));
    fs::write(&new, text)?;
    if durable {
        fs::File::open(&new)?.sync_data()?;
    }
    fs::rename(new, dir.join(NAME))
}

fn parse(text: &str) -> Option<Place> {
    let (facts, checksum) = text.trim_end().rsplit_once(' ')?;
    if u32::from_str_radix(checksum, 16).ok()? != crc32fast::hash(facts.as_bytes()) {
        return None;
    }
    let (segment, offset) = facts.strip_prefix(MAGIC)?.trim_start().split_once(' ')?;
    Some(Place { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_saved_and_a_damaged_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), None);
        let place = Place { segment: 7, offset: 4096 };
        save(dir.path(), place, true).unwrap();
        assert_eq!(load(dir.path()).unwrap(), Some(place));
        let text = fs::read_to_string(dir.path().join(NAME)).unwrap();
        for wrong in [text.replace('7', "8"), String::new(), "x".to_owned(), text[..text.len() / 2].to_owned()] {
            fs::write(dir.path().join(NAME), wrong).unwrap();
            assert!(load(dir.path()).is_err());
        }
    }
}
