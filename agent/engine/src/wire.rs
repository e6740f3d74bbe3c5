//! The one way in which bytes are read: a cursor that never indexes, and the error that says what it was reading.

use std::fmt;

/// What a decoder could not accept, where, and why. `Copy`, without text of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}: {fault}")]
pub struct Malformed {
    /// The item that was being read, in the protocol's words.
    pub what: &'static str,
    /// Where it begins, counted from the start of the outermost reader.
    pub offset: usize,
    /// What is wrong with it.
    pub fault: Fault,
}

/// The ways in which bytes can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The input ends inside the item. More bytes may cure it, if more can come.
    Truncated,
    /// The value is one that the protocol does not allow here.
    Impossible,
    /// A declared length or count is larger than what follows can hold, or than a limit of ours.
    TooLong,
    /// Nesting goes beyond the limit.
    TooDeep,
    /// Bytes are left over where none may be.
    Trailing,
    /// A tag byte that no known release sends here.
    UnknownTag(u8),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("ends too early"),
            Self::Impossible => f.write_str("impossible value"),
            Self::TooLong => f.write_str("longer than can be"),
            Self::TooDeep => f.write_str("nested too deeply"),
            Self::Trailing => f.write_str("bytes left over"),
            Self::UnknownTag(tag) => write!(f, "unknown tag {tag}"),
        }
    }
}

/// What a recogniser says of the first bytes that one side of a connection sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// They are what it looks for.
    Yes,
    /// They are not, whatever follows.
    No,
    /// They may be; more bytes will tell.
    NeedMore,
}

/// A cursor over borrowed bytes. All numbers on the wire are big-endian.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// A reader over all of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, offset: 0 }
    }

    /// How far this reader has come, counted from the start of the outermost one.
    #[must_use]
    #[inline]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// The bytes not yet read.
    #[must_use]
    #[inline]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// How many bytes are left.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether everything has been read.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte, without reading it.
    #[must_use]
    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// An error about the item that begins here.
    #[must_use]
    #[inline]
    pub const fn malformed(&self, what: &'static str, fault: Fault) -> Malformed {
        Malformed { what, offset: self.offset, fault }
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// `Truncated` when fewer are left.
    #[inline]
    pub fn bytes(&mut self, what: &'static str, len: usize) -> Result<&'a [u8], Malformed> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.malformed(what, Fault::Truncated));
        };
        self.rest = rest;
        self.offset += len;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// `Truncated` when fewer are left.
    #[inline]
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.malformed(what, Fault::Truncated));
        };
        self.rest = rest;
        self.offset += N;
        Ok(*taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// `Truncated` at the end.
    #[inline]
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    /// A 16-bit number.
    ///
    /// # Errors
    /// `Truncated` at the end.
    #[inline]
    pub fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        self.array(what).map(u16::from_be_bytes)
    }

    /// A 32-bit number.
    ///
    /// # Errors
    /// `Truncated` at the end.
    #[inline]
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_be_bytes)
    }

    /// A 64-bit number.
    ///
    /// # Errors
    /// `Truncated` at the end.
    #[inline]
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_be_bytes)
    }

    /// A reader over just the next `len` bytes, which this one then has behind it.
    ///
    /// # Errors
    /// `Truncated` when fewer are left.
    #[inline]
    pub fn sub(&mut self, what: &'static str, len: usize) -> Result<Self, Malformed> {
        let offset = self.offset;
        let rest = self.bytes(what, len)?;
        Ok(Self { rest, offset })
    }

    /// Everything that is left.
    #[inline]
    pub fn take_rest(&mut self) -> &'a [u8] {
        let taken = self.rest;
        self.offset += taken.len();
        self.rest = &[];
        taken
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// `Trailing` when something is.
    pub const fn finish(&self, what: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed(what, Fault::Trailing)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_says_what_it_was_reading_and_where() {
        let mut reader = Reader::new(&[0, 1, 2]);
        assert_eq!(reader.u16("node name length"), Ok(1));
        let error = reader.u32("flags").unwrap_err();
        assert_eq!(error, Malformed { what: "flags", offset: 2, fault: Fault::Truncated });
        assert_eq!(error.to_string(), "flags at byte 2: ends too early");
        assert_eq!(reader.u8("tag"), Ok(2), "a failed read consumes nothing");
    }

    #[test]
    fn a_sub_reader_is_bounded_and_counts_from_the_outermost_start() {
        let mut reader = Reader::new(&[9, 1, 2, 3, 4]);
        reader.u8("tag").unwrap();
        let mut inner = reader.sub("body", 2).unwrap();
        assert_eq!(inner.offset(), 1);
        assert_eq!(inner.finish("body").unwrap_err().fault, Fault::Trailing);
        assert_eq!(inner.u16("field"), Ok(0x0102));
        assert!(inner.finish("body").is_ok());
        assert_eq!(reader.rest(), [3, 4]);
    }
}
