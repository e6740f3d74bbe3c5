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
    pub fn skip(&mut self, depth: usize) -> Result<(), Malformed> {
        let len = walk::skip(&self.reader, self.atoms.len(), depth, !self.cut)?;
        self.reader.bytes("term", len)?;
        Ok(())
    }

    /// The next term, if it is an atom; goes past it then and only then.
    #[inline]
    pub fn atom(&mut self) -> Option<Atom<'a>> {
        self.take(|token| if let Token::Atom(atom) = token { Some(atom) } else { None })
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
        self.take(|token| matches!(token, Token::Atom(atom) if atom.is(text)).then_some(())).is_some()
    }

    /// Enters a tuple, if the next term is one, and gives its arity.
    #[inline]
    pub fn tuple(&mut self) -> Option<u32> {
        self.take(|token| if let Token::Tuple(arity) = token { Some(arity) } else { None })
    }

    /// Enters a tuple of `arity` elements, if the next term is one.
    #[inline]
    pub fn expect_tuple(&mut self, arity: u32) -> Option<()> {
        self.take(|token| (token == Token::Tuple(arity)).then_some(()))
    }

    /// The next term, if it is an integer of up to 64 bits.
    #[inline]
    pub fn integer(&mut self) -> Option<i64> {
        self.take(|token| if let Token::Integer(value) = token { Some(value) } else { None })
    }

    /// The next term, if it is a process identifier.
    #[inline]
    pub fn pid(&mut self) -> Option<Pid<'a>> {
        self.take(|token| if let Token::Pid(pid) = token { Some(pid) } else { None })
    }

    /// The next term, if it is a reference or an alias.
    #[inline]
    pub fn reference(&mut self) -> Option<Reference<'a>> {
        self.take(|token| if let Token::Reference(reference) = token { Some(reference) } else { None })
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

    #[inline]
    fn take<T>(&mut self, wanted: impl FnOnce(Token<'a>) -> Option<T>) -> Option<T> {
        let mut ahead = *self;
        let found = wanted(ahead.read().ok()?)?;
        *self = ahead;
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
                self.declared(&start, "record", fields, u64::from(fields).saturating_mul(RECORD_FIELD_BYTES))?;
                self.reader.u8("record")?;
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
