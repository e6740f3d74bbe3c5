//! The external term format, read lazily: a cursor that hands out one token at a time and builds nothing.
//!
//! Source of every layout: OTP, "External Term Format" (`erl_ext_dist`), cited by section at each tag.

use std::borrow::Cow;

pub use self::cursor::Cursor;
use self::tag::Tag;
pub use self::walk::{Walked, Walker};
use crate::wire::{Fault, Malformed};

mod cursor;
pub mod inflate;
pub mod print;
pub mod tag;
#[cfg(test)]
mod vectors;
mod walk;

/// An atom as it stands in a term: by its text, or by its place in the atom cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Atom<'a> {
    /// The text; `None` where it is a cache entry that was set before the capture began.
    pub text: Option<&'a [u8]>,
    /// The text is Latin-1 (tags 100 and 115) instead of UTF-8.
    pub latin1: bool,
    /// The cache slot (0 to 2047), where it came through the cache.
    pub slot: Option<u16>,
    /// The text was not read but inferred from the slot.
    pub inferred: bool,
}

impl<'a> Atom<'a> {
    /// An atom whose text was read.
    #[must_use]
    pub const fn utf8(text: &'a [u8]) -> Self {
        Self { text: Some(text), latin1: false, slot: None, inferred: false }
    }

    /// Whether the text is known and is this (ASCII) one.
    #[must_use]
    #[inline]
    pub fn is(&self, text: &str) -> bool {
        self.text == Some(text.as_bytes())
    }

    /// The text, or `?slot` for an unknown cache entry.
    #[must_use]
    pub fn to_text(self) -> Cow<'a, str> {
        match (self.text, self.latin1) {
            (Some(text), false) => String::from_utf8_lossy(text),
            (Some(text), true) => text.iter().map(|&byte| char::from(byte)).collect::<String>().into(),
            (None, _) => match self.slot {
                Some(slot) => format!("?{slot}").into(),
                None => "?".into(),
            },
        }
    }
}

/// A process identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid<'a> {
    /// Its node.
    pub node: Atom<'a>,
    /// ID.
    pub id: u32,
    /// Serial.
    pub serial: u32,
    /// Creation of the node.
    pub creation: u32,
}

/// A reference or an alias; the words are in wire order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Its node.
    pub node: Atom<'a>,
    /// Creation of the node.
    pub creation: u32,
    /// Up to five 32-bit words, big-endian, as on the wire.
    pub words: &'a [u8],
}

/// The next thing in a term. A compound is followed by its parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// Atom, by text or cache reference.
    Atom(Atom<'a>),
    /// Integer of up to 64 bits (tags 97, 98, and bignums that fit).
    Integer(i64),
    /// A larger integer: sign and little-endian digits.
    Big {
        /// Below zero.
        negative: bool,
        /// Magnitude, least significant octet first.
        digits: &'a [u8],
    },
    /// Float.
    Float(f64),
    /// Tuple of so many elements, which follow.
    Tuple(u32),
    /// List of so many elements, which follow, and then the tail (a term too).
    List(u32),
    /// Empty list.
    Nil,
    /// A list of small integers, packed (STRING_EXT).
    Str(&'a [u8]),
    /// Binary.
    Binary(&'a [u8]),
    /// Bit string; `bits` used in its last octet.
    BitBinary {
        /// Octets.
        bytes: &'a [u8],
        /// Used bits of the last one, 1 to 8; 0 where there is none.
        bits: u8,
    },
    /// Map of so many pairs, which follow as key, value, key, value.
    Map(u32),
    /// Process identifier.
    Pid(Pid<'a>),
    /// Port identifier.
    Port {
        /// Its node.
        node: Atom<'a>,
        /// ID.
        id: u64,
        /// Creation of the node.
        creation: u32,
    },
    /// Reference or alias.
    Reference(Reference<'a>),
    /// `fun Module:Function/Arity`.
    Export {
        /// Module.
        module: Atom<'a>,
        /// Function.
        function: Atom<'a>,
        /// Arity.
        arity: u8,
    },
    /// A closure, free variables included: it is one token, and the whole of it is consumed.
    Fun {
        /// Module.
        module: Atom<'a>,
        /// Arity.
        arity: u8,
        /// Place in the module's fun table.
        index: u32,
        /// Number of free variables.
        free: u32,
    },
    /// Native record (OTP 29): so many field names (atoms) and then as many values follow.
    Record {
        /// Module.
        module: Atom<'a>,
        /// Name.
        name: Atom<'a>,
        /// Number of fields.
        fields: u32,
    },
}

/// Whether a term was refused because it, or something in it, is compressed, which no release sends on a
/// distribution channel. [`inflate::expand`] can look into it.
#[must_use]
pub fn is_compressed(error: &Malformed) -> bool {
    error.fault == Fault::UnknownTag(Tag::COMPRESSED.0)
}
