//! The cursor: one token of a term at a time, borrowed from the bytes, nothing built and nothing believed.

use super::tag::Tag;
use super::walk;
use super::{Atom, Pid, Reference, Token};
use crate::wire::{Fault, Malformed, Reader};

/// Octets of a float's text (OTP, "External Term Format", section "FLOAT_EXT").
pub(super) const FLOAT_TEXT: usize = 31;
/// Octets of an atom in Latin-1: ERTS refuses more than 255 characters.
pub(super) const LATIN1_ATOM_BYTES: u16 = 255;
/// Octets of an atom in UTF-8: 255 characters of up to four.
pub(super) const UTF8_ATOM_BYTES: u16 = 255 * 4;
/// Words of a reference (`ERTS_MAX_REF_NUMBERS`): three as a rule, five in an alias that carries its process.
pub(super) const REFERENCE_WORDS: u16 = 5;
/// Octets of an integer. OTP 25 takes 2 MiB and refuses 4 MiB; later releases stop at half a MiB.
pub(super) const BIG_BYTES: u32 = 4 << 20;
/// Pairs of a map: ERTS refuses this many and more.
pub(super) const MAP_PAIRS: u32 = 1 << 30;
/// Free variables of a closure: its arity with them is at most 255.
pub(super) const FREE_VARIABLES: u32 = 255;
/// Octets of a closure from `Size` up to its module: Size, Arity, Uniq, Index, NumFree.
pub(super) const FUN_HEAD: u32 = 4 + 1 + 16 + 4 + 4;
/// Octets that a name and a value of a record take at least.
pub(super) const RECORD_FIELD_BYTES: u64 = 3;
/// Nesting up to which [`Cursor::arity_of_args`] looks past arguments; as `Limits::term_depth` has it by default.
const ARGUMENT_DEPTH: usize = 256;

/// As a pattern.
const CACHED: u8 = Tag::ATOM_CACHE_REF.0;

const TUPLES: [Tag; 2] = [Tag::SMALL_TUPLE, Tag::LARGE_TUPLE];
const INTEGERS: [Tag; 4] = [Tag::SMALL_INTEGER, Tag::INTEGER, Tag::SMALL_BIG, Tag::LARGE_BIG];
const REFERENCES: [Tag; 3] = [Tag::NEWER_REFERENCE, Tag::NEW_REFERENCE, Tag::REFERENCE];

/// Walks a term token by token. `atoms` is the table of the message's distribution header.
///
/// A cursor is a copy of a place: to look ahead, copy it. A failed read leaves it where it was.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    /// What is left.
    pub reader: Reader<'a>,
    atoms: &'a [Atom<'a>],
    /// Only the first part of the term is here, so a count may be larger than what is left.
    cut: bool,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of a term without version byte, all of which is here.
    #[must_use]
    pub const fn new(reader: Reader<'a>, atoms: &'a [Atom<'a>]) -> Self {
        Self { reader, atoms, cut: false }
    }

    /// A cursor over the first part of a term. Counts are not compared with what is left, and running out is `Truncated`.
    #[must_use]
    pub const fn cut(reader: Reader<'a>, atoms: &'a [Atom<'a>]) -> Self {
        Self { reader, atoms, cut: true }
    }

    /// A cursor over the first part of another term, of the same message.
    #[must_use]
    pub const fn elsewhere<'b>(&self, bytes: &'b [u8]) -> Cursor<'b>
    where
        'a: 'b,
    {
        Cursor { reader: Reader::new(bytes), atoms: self.atoms, cut: true }
    }

    /// Whether only the first part of the term is here.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// The next token.
    ///
    /// The text of an atom is not checked for UTF-8: it is compared as bytes and escaped when shown.
    ///
    /// # Errors
    /// `Truncated` at the end of what was captured or buffered; another fault for what no release sends. A compressed
    /// term is refused as `UnknownTag(80)`, see [`is_compressed`](super::is_compressed).
    pub fn token(&mut self) -> Result<Token<'a>, Malformed> {
        let start = self.reader;
        // Handed on as it is: taking it apart and together again costs as much as reading it.
        let token = self.read();
        if token.is_err() {
            self.reader = start;
        }
        token
    }

    /// Goes past one whole term without recursion and without building anything, in time linear in its bytes.
    ///
    /// A count of the terms still to come would do for that, however deep they nest; a count per open compound is
    /// kept to see the depth, the first few on the stack.
    ///
    /// # Errors
    /// As [`Cursor::token`]; `TooDeep` beyond `depth` open compounds.
    #[inline]
    pub fn skip(&mut self, depth: usize) -> Result<(), Malformed> {
        if let Some(len) = usual(self.reader.rest(), self.atoms.len()) {
            self.reader.bytes("term", len)?;
            return Ok(());
        }
        self.skip_any(depth)
    }

    /// Goes past `count` terms, as [`skip`](Self::skip) does one after the other.
    ///
    /// # Errors
    /// As [`Cursor::skip`], at the first term that has one.
    #[inline]
    pub fn skip_all(&mut self, count: u32, depth: usize) -> Result<(), Malformed> {
        let mut rest = self.reader.rest();
        for left in (0..count).rev() {
            match usual(rest, self.atoms.len()).and_then(|len| rest.get(len..)) {
                Some(behind) => rest = behind,
                None => {
                    self.reader.bytes("term", self.reader.len() - rest.len())?;
                    self.skip_any(depth)?;
                    return self.skip_all_slowly(left, depth);
                }
            }
        }
        self.reader.bytes("term", self.reader.len() - rest.len())?;
        Ok(())
    }

    fn skip_all_slowly(&mut self, count: u32, depth: usize) -> Result<(), Malformed> {
        for _ in 0..count {
            self.skip(depth)?;
        }
        Ok(())
    }

    /// As [`skip`](Self::skip) does, of a term that is not likely to be one of the smallest.
    pub(crate) fn skip_any(&mut self, depth: usize) -> Result<(), Malformed> {
        let len = walk::skip(&self.reader, self.atoms.len(), depth, !self.cut)?;
        self.reader.bytes("term", len)?;
        Ok(())
    }

    /// The next term, if it is an atom; goes past it then and only then.
    #[inline]
    pub fn atom(&mut self) -> Option<Atom<'a>> {
        if let [CACHED, index, ..] = *self.reader.rest() {
            let atom = *self.atoms.get(usize::from(index))?;
            self.reader.bytes("atom", 2).ok()?;
            return Some(atom);
        }
        self.ahead(|cursor| cursor.read_atom("atom").ok())
    }

    /// Whether the next term is the atom of this (ASCII) text. Stays where it is.
    #[must_use]
    #[inline]
    pub fn is_atom(&self, text: &str) -> bool {
        let mut ahead = *self;
        ahead.atom().is_some_and(|atom| atom.is(text))
    }

    /// Goes past the next term if it is the atom of this (ASCII) text, and says whether it was.
    #[inline]
    pub fn take_atom(&mut self, text: &str) -> bool {
        self.ahead(|cursor| cursor.atom().filter(|atom| atom.is(text))).is_some()
    }

    /// Enters a tuple, if the next term is one, and gives its arity.
    #[inline]
    pub fn tuple(&mut self) -> Option<u32> {
        if let [104, arity, ..] = *self.reader.rest()
            && usize::from(arity) + 2 <= self.reader.len()
        {
            self.reader.bytes("tuple", 2).ok()?;
            return Some(arity.into());
        }
        self.take(&TUPLES, |token| if let Token::Tuple(arity) = token { Some(arity) } else { None })
    }

    /// Enters a tuple of `arity` elements, if the next term is one.
    #[inline]
    pub fn expect_tuple(&mut self, arity: u32) -> Option<()> {
        self.take(&TUPLES, |token| (token == Token::Tuple(arity)).then_some(()))
    }

    /// The next term, if it is an integer of up to 64 bits.
    #[inline]
    pub fn integer(&mut self) -> Option<i64> {
        self.take(&INTEGERS, |token| if let Token::Integer(value) = token { Some(value) } else { None })
    }

    /// The next term, if it is a process identifier.
    #[inline]
    pub fn pid(&mut self) -> Option<Pid<'a>> {
        self.ahead(|cursor| cursor.read_pid().ok())
    }

    /// The next term, if it is a reference or an alias.
    #[inline]
    pub fn reference(&mut self) -> Option<Reference<'a>> {
        self.take(&REFERENCES, |token| if let Token::Reference(reference) = token { Some(reference) } else { None })
    }

    /// How many elements the list declares that comes next, whatever its tail; `None` for another term. Stays where it is.
    #[must_use]
    pub fn list_len_hint(&self) -> Option<u32> {
        let mut ahead = *self;
        match ahead.token() {
            Ok(Token::Nil) => Some(0),
            Ok(Token::Str(bytes)) => u32::try_from(bytes.len()).ok(),
            Ok(Token::List(count)) => Some(count),
            _ => None,
        }
    }

    /// How many arguments the argument list has that comes next. It may be an empty list, a packed string or a list
    /// (OTP, "Distribution Protocol", `SPAWN_REQUEST`); `None` for an improper list, for another term, and where the
    /// list is not all here. Stays where it is; the time is linear in the bytes of the list.
    #[must_use]
    pub fn arity_of_args(&self) -> Option<u32> {
        let mut ahead = *self;
        let mut arity = 0_u32;
        loop {
            match ahead.token().ok()? {
                Token::Nil => return Some(arity),
                Token::Str(bytes) => return arity.checked_add(u32::try_from(bytes.len()).ok()?),
                Token::List(count) => {
                    for _ in 0..count {
                        ahead.skip(ARGUMENT_DEPTH).ok()?;
                    }
                    arity = arity.checked_add(count)?;
                }
                _ => return None,
            }
        }
    }

    /// What the next token is, if it has one of these tags and is what is wanted.
    #[inline]
    fn take<T>(&mut self, tags: &[Tag], wanted: impl FnOnce(Token<'a>) -> Option<T>) -> Option<T> {
        let tag = self.reader.peek()?;
        if !tags.contains(&Tag(tag)) {
            return None;
        }
        self.ahead(|cursor| wanted(cursor.read().ok()?))
    }

    /// Reads on a copy, and moves only if that gave something.
    #[inline]
    fn ahead<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let mut ahead = *self;
        let found = read(&mut ahead)?;
        self.reader = ahead.reader;
        Some(found)
    }

    fn read(&mut self) -> Result<Token<'a>, Malformed> {
        let start = self.reader;
        let tag = Tag(self.reader.u8("term")?);
        Ok(match tag {
            Tag::ATOM_CACHE_REF | Tag::SMALL_ATOM_UTF8 | Tag::ATOM_UTF8 | Tag::SMALL_ATOM | Tag::ATOM => {
                self.reader = start;
                Token::Atom(self.read_atom("atom")?)
            }
            Tag::SMALL_INTEGER => Token::Integer(self.reader.u8("integer")?.into()),
            Tag::INTEGER => Token::Integer(self.reader.array("integer").map(i32::from_be_bytes)?.into()),
            Tag::SMALL_BIG => {
                let len = self.reader.u8("integer")?;
                self.read_big(len.into())?
            }
            Tag::LARGE_BIG => {
                let len = self.reader.u32("integer")?;
                if len > BIG_BYTES {
                    return Err(start.malformed("integer", Fault::TooLong));
                }
                self.read_big(len)?
            }
            Tag::NEW_FLOAT => {
                let value = f64::from_bits(self.reader.u64("float")?);
                Token::Float(finite(value).ok_or(start.malformed("float", Fault::Impossible))?)
            }
            Tag::FLOAT => {
                let text = self.reader.array("float")?;
                Token::Float(float_text(&text).ok_or(start.malformed("float", Fault::Impossible))?)
            }
            Tag::SMALL_TUPLE => {
                let arity = self.reader.u8("tuple arity")?.into();
                Token::Tuple(self.declared(&start, "tuple arity", arity, arity.into())?)
            }
            Tag::LARGE_TUPLE => {
                let arity = self.reader.u32("tuple arity")?;
                Token::Tuple(self.declared(&start, "tuple arity", arity, arity.into())?)
            }
            Tag::NIL => Token::Nil,
            Tag::STRING => {
                let len = self.reader.u16("string")?;
                Token::Str(self.reader.bytes("string", len.into())?)
            }
            Tag::LIST => {
                let count = self.reader.u32("list length")?;
                // The tail is one more, and has to fit the same number.
                if count == u32::MAX {
                    return Err(start.malformed("list length", Fault::TooLong));
                }
                Token::List(self.declared(&start, "list length", count, u64::from(count).saturating_add(1))?)
            }
            Tag::MAP => {
                let pairs = self.reader.u32("map size")?;
                if pairs >= MAP_PAIRS {
                    return Err(start.malformed("map size", Fault::TooLong));
                }
                Token::Map(self.declared(&start, "map size", pairs, u64::from(pairs).saturating_mul(2))?)
            }
            Tag::BINARY => {
                let len = self.reader.u32("binary")?;
                Token::Binary(self.reader.bytes("binary", wide(len))?)
            }
            Tag::BIT_BINARY => {
                let len = self.reader.u32("bit string")?;
                let bits = self.reader.u8("bit string")?;
                if !used_bits(len, bits) {
                    return Err(start.malformed("bit string", Fault::Impossible));
                }
                Token::BitBinary { bytes: self.reader.bytes("bit string", wide(len))?, bits }
            }
            Tag::NEW_PID | Tag::PID => {
                self.reader = start;
                Token::Pid(self.read_pid()?)
            }
            Tag::V4_PORT => Token::Port {
                node: self.read_atom("port")?,
                id: self.reader.u64("port")?,
                creation: self.reader.u32("port")?,
            },
            Tag::NEW_PORT => Token::Port {
                node: self.read_atom("port")?,
                id: self.reader.u32("port")?.into(),
                creation: self.reader.u32("port")?,
            },
            Tag::PORT => Token::Port {
                node: self.read_atom("port")?,
                id: self.reader.u32("port")?.into(),
                creation: self.reader.u8("port")?.into(),
            },
            Tag::NEWER_REFERENCE | Tag::NEW_REFERENCE => {
                let words = self.reader.u16("reference")?;
                if words > REFERENCE_WORDS {
                    return Err(start.malformed("reference", Fault::TooLong));
                }
                let node = self.read_atom("reference")?;
                let creation = match tag {
                    Tag::NEWER_REFERENCE => self.reader.u32("reference")?,
                    _ => self.reader.u8("reference")?.into(),
                };
                let words = self.reader.bytes("reference", usize::from(words) * 4)?;
                Token::Reference(Reference { node, creation, words })
            }
            Tag::REFERENCE => {
                let node = self.read_atom("reference")?;
                let words = self.reader.bytes("reference", 4)?;
                Token::Reference(Reference { node, creation: self.reader.u8("reference")?.into(), words })
            }
            Tag::EXPORT => Token::Export {
                module: self.read_atom("fun")?,
                function: self.read_atom("fun")?,
                arity: u8::try_from(self.read_integer()?)
                    .map_err(|_| start.malformed("fun arity", Fault::Impossible))?,
            },
            Tag::NEW_FUN => self.read_fun(&start)?,
            Tag::FUN => self.read_old_fun(&start)?,
            Tag::RECORD => {
                let fields = self.reader.u32("record")?;
                self.reader.u8("record")?;
                self.declared(&start, "record", fields, u64::from(fields).saturating_mul(RECORD_FIELD_BYTES))?;
                Token::Record { module: self.read_atom("record")?, name: self.read_atom("record")?, fields }
            }
            Tag(tag) => return Err(start.malformed(Tag(tag).refused_as(), Fault::UnknownTag(tag))),
        })
    }

    /// A count, if that many things, which take at least `least` octets, can follow.
    fn declared(&self, start: &Reader<'a>, what: &'static str, count: u32, least: u64) -> Result<u32, Malformed> {
        if !self.cut && least > self.reader.len() as u64 {
            return Err(start.malformed(what, Fault::TooLong));
        }
        Ok(count)
    }

    /// An atom where only an atom can be.
    #[inline]
    fn read_atom(&mut self, what: &'static str) -> Result<Atom<'a>, Malformed> {
        let start = self.reader;
        let tag = Tag(self.reader.u8(what)?);
        let (len, latin1) = match tag {
            Tag::ATOM_CACHE_REF => {
                let index = self.reader.u8(what)?;
                let atom = self.atoms.get(usize::from(index)).copied();
                return atom.ok_or(start.malformed("atom cache reference", Fault::Impossible));
            }
            Tag::SMALL_ATOM_UTF8 => (self.reader.u8(what)?.into(), false),
            Tag::SMALL_ATOM => (self.reader.u8(what)?.into(), true),
            Tag::ATOM_UTF8 => (self.reader.u16(what)?, false),
            Tag::ATOM => (self.reader.u16(what)?, true),
            _ => return Err(start.malformed(what, Fault::Impossible)),
        };
        if len > if latin1 { LATIN1_ATOM_BYTES } else { UTF8_ATOM_BYTES } {
            return Err(start.malformed("atom", Fault::TooLong));
        }
        let text = self.reader.bytes(what, len.into())?;
        Ok(Atom { latin1, ..Atom::utf8(text) })
    }

    /// A process identifier where only that can be.
    fn read_pid(&mut self) -> Result<Pid<'a>, Malformed> {
        let start = self.reader;
        let tag = Tag(self.reader.u8("pid")?);
        if !matches!(tag, Tag::NEW_PID | Tag::PID) {
            return Err(start.malformed("pid", Fault::Impossible));
        }
        let (node, id, serial) = (self.read_atom("pid")?, self.reader.u32("pid")?, self.reader.u32("pid")?);
        let creation = match tag {
            Tag::NEW_PID => self.reader.u32("pid")?,
            _ => self.reader.u8("pid")?.into(),
        };
        Ok(Pid { node, id, serial, creation })
    }

    /// A small integer where only that can be.
    fn read_integer(&mut self) -> Result<i32, Malformed> {
        let start = self.reader;
        match Tag(self.reader.u8("integer")?) {
            Tag::SMALL_INTEGER => Ok(self.reader.u8("integer")?.into()),
            Tag::INTEGER => self.reader.array("integer").map(i32::from_be_bytes),
            _ => Err(start.malformed("integer", Fault::Impossible)),
        }
    }

    fn read_big(&mut self, len: u32) -> Result<Token<'a>, Malformed> {
        let negative = self.reader.u8("integer")? != 0;
        let digits = self.reader.bytes("integer", wide(len))?;
        Ok(small_enough(negative, digits).map_or(Token::Big { negative, digits }, Token::Integer))
    }

    /// A closure. `Size` covers it all, so the free variables are passed over by it, unread.
    fn read_fun(&mut self, start: &Reader<'a>) -> Result<Token<'a>, Malformed> {
        let size = self.reader.u32("fun")?;
        let arity = self.reader.u8("fun")?;
        self.reader.bytes("fun", 16)?;
        let (index, free) = (self.reader.u32("fun")?, self.reader.u32("fun")?);
        let Some(behind) = size.checked_sub(FUN_HEAD).filter(|_| free <= FREE_VARIABLES) else {
            return Err(start.malformed("fun", Fault::Impossible));
        };
        let from = self.reader.offset();
        let module = self.read_atom("fun")?;
        let Some(unread) = wide(behind).checked_sub(self.reader.offset() - from) else {
            return Err(start.malformed("fun", Fault::Impossible));
        };
        self.reader.bytes("fun", unread)?;
        Ok(Token::Fun { module, arity, index, free })
    }

    /// A closure without `Size`, as until OTP 22: what it consists of has to be read to get past it.
    fn read_old_fun(&mut self, start: &Reader<'a>) -> Result<Token<'a>, Malformed> {
        let free = self.reader.u32("fun")?;
        if free > FREE_VARIABLES {
            return Err(start.malformed("fun", Fault::Impossible));
        }
        self.read_pid()?;
        let module = self.read_atom("fun")?;
        let index = self.read_integer()?.cast_unsigned();
        self.read_integer()?;
        for _ in 0..free {
            self.skip(ARGUMENT_DEPTH)?;
        }
        Ok(Token::Fun { module, arity: 0, index, free })
    }
}

/// A length as a size in memory; where that is narrower, no slice is so long, and the read fails.
fn wide(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Whether so many bits can be used in the last of `len` octets.
pub(super) const fn used_bits(len: u32, bits: u8) -> bool {
    if len == 0 { bits == 0 } else { bits >= 1 && bits <= 8 }
}

pub(super) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// The value of a float in text, up to the first NUL.
pub(super) fn float_text(text: &[u8; FLOAT_TEXT]) -> Option<f64> {
    let len = text.iter().position(|&byte| byte == 0).unwrap_or(FLOAT_TEXT);
    let text = std::str::from_utf8(text.get(..len)?).ok()?;
    text.parse().ok().and_then(finite)
}

/// The value of digits, least significant first, where 64 bits hold it.
fn small_enough(negative: bool, digits: &[u8]) -> Option<i64> {
    let used = digits.iter().rposition(|&digit| digit != 0).map_or(0, |last| last + 1);
    if used > 8 {
        return None;
    }
    let magnitude = digits.iter().take(used).rev().fold(0_u64, |value, &digit| value << 8 | u64::from(digit));
    if negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// The length of the term that comes first, if it is one of those that control messages are made of, in the form that
/// nodes give them: small integer, empty list, atom, process identifier or reference with a cached node.
#[inline]
fn usual(bytes: &[u8], atoms: usize) -> Option<usize> {
    let known = |index: u8| usize::from(index) < atoms;
    // What is shorter stands at the end of a message, and is not usual.
    let &[tag, a, b, c, d] = bytes.first_chunk()?;
    let len = match tag {
        CACHED if known(a) => 2,
        97 => 2,
        106 => 1,
        119 => 2 + usize::from(a),
        88 if a == CACHED && known(b) => 15,
        90 if a == 0 && matches!(b, 1..=5) && c == CACHED && known(d) => 9 + 4 * usize::from(b),
        _ => return None,
    };
    (len <= bytes.len()).then_some(len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::etf::vectors::{self, hex};

    const ATOMS: [Atom<'static>; vectors::ATOMS] =
        [Atom::utf8(b"a"), Atom::utf8(b"b"), Atom::utf8(b"c"), Atom::utf8(b"web@host-a")];

    fn one(octets: &str) -> Token<'static> {
        let bytes = hex(octets).leak();
        let mut cursor = Cursor::new(Reader::new(bytes), &ATOMS);
        let token = cursor.token().unwrap();
        assert!(cursor.reader.is_empty(), "{octets}");
        token
    }

    fn fault(octets: &str) -> Fault {
        let bytes = hex(octets);
        let mut cursor = Cursor::new(Reader::new(&bytes), &ATOMS);
        let error = cursor.token().unwrap_err();
        assert_eq!(cursor.reader.offset(), 0, "a failed read consumes nothing");
        let skipped = Cursor::new(Reader::new(&bytes), &ATOMS).skip(256).unwrap_err();
        assert_eq!(error.fault, skipped.fault, "{octets}");
        error.fault
    }

    #[test]
    fn every_term_that_a_node_encodes_is_read_and_skipped_to_its_last_octet() {
        for (term, octets) in vectors::OTP25.iter().chain(vectors::OTHERS) {
            let bytes = hex(octets);
            let mut cursor = Cursor::new(Reader::new(&bytes), &ATOMS);
            while !cursor.reader.is_empty() {
                cursor.token().unwrap_or_else(|error| panic!("{term}: {error}"));
            }
            let mut cursor = Cursor::new(Reader::new(&bytes), &ATOMS);
            cursor.skip(8).unwrap_or_else(|error| panic!("{term}: {error}"));
            assert!(cursor.reader.is_empty(), "{term}");
        }
    }

    #[test]
    fn integers_of_up_to_64_bits_are_one_kind_however_they_are_encoded() {
        assert_eq!(one("61ff"), Token::Integer(255));
        assert_eq!(one("62ffffffff"), Token::Integer(-1));
        assert_eq!(one("6e0800ffffffffffffff7f"), Token::Integer(i64::MAX));
        assert_eq!(one("6e08010000000000000080"), Token::Integer(i64::MIN));
        assert_eq!(one("6e0a01 07000000000000000000"), Token::Integer(-7), "leading zeros");
        assert_eq!(one("6e0000"), Token::Integer(0));
        assert_eq!(one("6e08000000000000000080"), Token::Big { negative: false, digits: &[0, 0, 0, 0, 0, 0, 0, 0x80] });
        assert!(matches!(one("6f00000009 01 000000000000000001"), Token::Big { negative: true, digits: [.., 1] }));
    }

    #[test]
    fn the_parts_of_identifiers_are_where_their_release_put_them() {
        let node = Atom::utf8(b"a");
        assert_eq!(
            one("58 5203 00000001 00000002 00000003"),
            Token::Pid(Pid { node: ATOMS[3], id: 1, serial: 2, creation: 3 })
        );
        assert_eq!(one("67 770161 00000001 00000002 03"), Token::Pid(Pid { node, id: 1, serial: 2, creation: 3 }));
        assert_eq!(one("78 770161 0000000100000000 00000005"), Token::Port { node, id: 1 << 32, creation: 5 });
        assert_eq!(one("59 770161 00000007 00000005"), Token::Port { node, id: 7, creation: 5 });
        assert_eq!(one("66 770161 00000007 05"), Token::Port { node, id: 7, creation: 5 });
        let reference = |creation, words| Token::Reference(Reference { node, creation, words });
        assert_eq!(one("5a 0001 770161 00000005 01020304"), reference(5, &[1, 2, 3, 4]));
        assert_eq!(one("72 0001 770161 05 01020304"), reference(5, &[1, 2, 3, 4]));
        assert_eq!(one("65 770161 01020304 05"), reference(5, &[1, 2, 3, 4]));
        let fun = "7000000034 02 000102030405060708090a0b0c0d0e0f 00000009 00000001 770161 6101 6102 58 5203 000000010000000000000000 6a";
        assert_eq!(one(fun), Token::Fun { module: node, arity: 2, index: 9, free: 1 });
        assert_eq!(one("71 770161 7701 62 6103"), Token::Export { module: node, function: Atom::utf8(b"b"), arity: 3 });
    }

    #[test]
    fn floats_of_both_kinds_are_finite() {
        assert_eq!(one("463ff8000000000000"), Token::Float(1.5));
        assert_eq!(one("63312e3530303030303030303030303030303030303030652b30300000000000"), Token::Float(1.5));
        for octets in [
            "467ff8000000000000",
            "46fff0000000000000",
            "63 696e66 00000000000000000000000000000000000000000000000000000000",
        ] {
            assert_eq!(fault(octets), Fault::Impossible, "{octets}");
        }
    }

    #[test]
    fn what_a_node_would_refuse_is_refused() {
        for (octets, expected) in [
            ("5204", Fault::Impossible), // Beyond the table of the header.
            ("58 6101 000000000000000000000000", Fault::Impossible),
            ("5a 0006 770161", Fault::TooLong),
            ("4d 00000001 00 ff", Fault::Impossible),
            ("4d 00000001 09 ff", Fault::Impossible),
            ("4d 00000000 03", Fault::Impossible),
            ("64 0100", Fault::TooLong),
            ("76 03fd", Fault::TooLong),
            ("71 770161 770162 62 00000100", Fault::Impossible),
            ("70 0000001c 00 00000000000000000000000000000000 00000000 00000000 770161", Fault::Impossible),
            ("70 0000001f 00 00000000000000000000000000000000 00000000 00000000 770161", Fault::Impossible),
            ("70 0000ffff 00 00000000000000000000000000000000 00000000 00000100 770161", Fault::Impossible),
            ("74 40000000", Fault::TooLong),
            ("50 00000001 789c", Fault::UnknownTag(80)),
            ("79 00", Fault::UnknownTag(121)),
            ("83 6a", Fault::UnknownTag(131)),
            ("48", Fault::UnknownTag(72)),
        ] {
            assert_eq!(fault(octets), expected, "{octets}");
        }
    }

    #[test]
    fn a_compressed_term_is_told_from_every_other_refusal() {
        let error = |bytes: &'static [u8]| Cursor::new(Reader::new(bytes), &[]).skip(8).unwrap_err();
        let compressed = error(&[104, 1, 80, 0, 0, 2, 0x5e, 0x78, 0x9c]);
        assert!(crate::etf::is_compressed(&compressed));
        assert_eq!(compressed.to_string(), "compressed term at byte 2: unknown tag 80");
        assert!(!crate::etf::is_compressed(&error(&[121])));
    }

    #[test]
    fn counts_and_lengths_beyond_the_bytes_are_refused_at_once_unless_the_term_is_cut() {
        for octets in
            ["6cffffffff", "69ffffffff", "743fffffff", "43ffffffff 00", "6c00000002 6a 6a", "6802 6a", "7400000001 6a"]
        {
            assert_eq!(fault(octets), Fault::TooLong, "{octets}");
        }
        for octets in ["6fffffffff 00", "6cffffffff"] {
            assert_eq!(fault(octets), Fault::TooLong, "{octets}");
        }
        for octets in ["6dffffffff", "6bffff", "7703 61", "5a0001"] {
            assert_eq!(fault(octets), Fault::Truncated, "{octets}");
        }
        let bytes = hex("6c00000100 6a 6a");
        let mut cut = Cursor::cut(Reader::new(&bytes), &[]);
        assert_eq!(cut.skip(8).unwrap_err().fault, Fault::Truncated);
        assert_eq!(cut.token(), Ok(Token::List(256)));
        assert_eq!(cut.token(), Ok(Token::Nil));
    }

    #[test]
    fn nesting_is_limited_by_count_and_needs_no_stack() {
        let nested = |levels: usize| [[104, 1].repeat(levels), vec![106]].concat();
        for levels in [0, 1, 15, 16, 17, 63, 256] {
            let bytes = nested(levels);
            let mut cursor = Cursor::new(Reader::new(&bytes), &[]);
            if let Some(less) = levels.checked_sub(1) {
                assert_eq!(cursor.skip(less).unwrap_err().fault, Fault::TooDeep, "{levels}");
            }
            assert_eq!(cursor.skip(levels), Ok(()));
            assert!(cursor.reader.is_empty());
        }
        assert_eq!(Cursor::new(Reader::new(&nested(1_000_000)), &[]).skip(2_000_000), Ok(()));
    }

    #[test]
    fn the_semantic_layer_asks_by_shape_and_a_wrong_guess_moves_nothing() {
        let bytes = hex("6804 770161 58520300000001000000020000000361056a");
        let mut cursor = Cursor::new(Reader::new(&bytes), &ATOMS);
        assert_eq!((cursor.atom(), cursor.pid(), cursor.integer(), cursor.expect_tuple(3)), (None, None, None, None));
        assert_eq!(cursor.expect_tuple(4), Some(()));
        assert!(cursor.is_atom("a") && !cursor.is_atom("b") && !cursor.take_atom("b"));
        assert!(cursor.take_atom("a"));
        assert_eq!(cursor.pid().unwrap().node.text, Some(&b"web@host-a"[..]));
        assert_eq!(cursor.integer(), Some(5));
        assert_eq!(cursor.tuple(), None);
        assert_eq!(cursor.list_len_hint(), Some(0));
    }

    #[test]
    fn an_argument_list_has_the_arity_of_its_elements_in_every_encoding() {
        let arity = |octets: &str| Cursor::new(Reader::new(&hex(octets)), &[]).arity_of_args();
        assert_eq!(arity("6a"), Some(0));
        assert_eq!(arity("6b000132"), Some(1), "timer:sleep(50)");
        assert_eq!(arity("6c00000002 6802 6a6a 6101 6a"), Some(2));
        assert_eq!(arity("6c00000001 6a 6c00000001 6a 6b00020102"), Some(4), "lists for tails");
        assert_eq!(arity("6c00000001 6a 6101"), None, "improper");
        assert_eq!(arity("6800"), None);
        let bytes = hex("6c00000002 6d00000010 00");
        assert_eq!(Cursor::cut(Reader::new(&bytes), &[]).arity_of_args(), None, "not all here");
        assert_eq!(Cursor::cut(Reader::new(&bytes), &[]).list_len_hint(), Some(2));
    }

    /// Goes past a term by its tokens alone: what `skip` has to agree with.
    fn skip_by_tokens(cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        let mut pending = 1_u64;
        let mut names = 0_u64;
        while pending + names > 0 {
            let start = cursor.reader;
            if let Some(fewer) = names.checked_sub(1) {
                names = fewer;
                if start.peek().is_some_and(|tag| ![82, 100, 115, 118, 119].contains(&tag)) {
                    return Err(start.malformed("atom", Fault::Impossible));
                }
                cursor.token()?;
                continue;
            }
            let token = cursor.token()?;
            pending += match token {
                Token::Tuple(arity) => arity.into(),
                Token::List(count) => u64::from(count) + 1,
                Token::Map(pairs) => u64::from(pairs) * 2,
                Token::Record { fields, .. } => {
                    names = fields.into();
                    fields.into()
                }
                _ => 0,
            };
            pending -= 1;
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn random_terms_are_consumed_exactly(term in vectors::term(), behind in prop::collection::vec(any::<u8>(), 0..9)) {
            let bytes = [&term[..], &behind[..]].concat();
            for mut cursor in [Cursor::new(Reader::new(&bytes), &ATOMS), Cursor::cut(Reader::new(&bytes), &ATOMS)] {
                let mut by_tokens = cursor;
                prop_assert_eq!(cursor.skip(64), Ok(()));
                prop_assert_eq!(cursor.reader.offset(), term.len());
                prop_assert_eq!(skip_by_tokens(&mut by_tokens), Ok(()));
                prop_assert_eq!(by_tokens.reader.offset(), term.len());
            }
        }

        #[test]
        fn skip_and_the_tokens_agree_on_damaged_terms(
            mut term in vectors::term(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            for (at, value) in flips {
                let at = at.index(term.len());
                term[at] = value;
            }
            for cursor in [Cursor::new(Reader::new(&term), &ATOMS), Cursor::cut(Reader::new(&term), &ATOMS)] {
                let (mut skipped, mut read) = (cursor, cursor);
                let (skipping, reading) = (skipped.skip(usize::MAX), skip_by_tokens(&mut read));
                prop_assert_eq!(skipping.map_err(|error| error.fault), reading.map_err(|error| error.fault));
                if skipping.is_ok() {
                    prop_assert_eq!(skipped.reader.offset(), read.reader.offset());
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for mut cursor in [Cursor::new(Reader::new(&bytes), &ATOMS), Cursor::cut(Reader::new(&bytes), &ATOMS)] {
                let _ = (cursor.arity_of_args(), cursor.list_len_hint(), cursor.clone().skip(16));
                for detail in [crate::etf::print::Detail::Types, crate::etf::print::Detail::Full] {
                    let text = crate::etf::print::render(cursor, detail, 64);
                    prop_assert!(text.len() <= 67);
                }
                while cursor.token().is_ok() {}
            }
        }

        #[test]
        fn a_prefix_of_a_term_is_truncated_and_nothing_else(term in vectors::term(), at in any::<prop::sample::Index>()) {
            let mut cut = Cursor::cut(Reader::new(&term[..at.index(term.len())]), &ATOMS);
            let mut tokens = cut;
            prop_assert_eq!(cut.skip(64).unwrap_err().fault, Fault::Truncated);
            prop_assert_eq!(skip_by_tokens(&mut tokens).unwrap_err().fault, Fault::Truncated);
        }
    }
}
