//! The tags of the external term format, by the names and sections of its description.

use std::fmt;

/// The octet that says what a term is (OTP, "External Term Format"; the section is named at each constant).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u8);

impl Tag {
    /// Native record of OTP 29: field count, flags, module, name, then names and values. Section "RECORD_EXT".
    pub const RECORD: Self = Self(67);
    /// Float in eight octets. Section "NEW_FLOAT_EXT".
    pub const NEW_FLOAT: Self = Self(70);
    /// Bit string: length, used bits of the last octet, octets. Section "BIT_BINARY_EXT".
    pub const BIT_BINARY: Self = Self(77);
    /// A deflated term. Nodes neither send nor take it on a distribution channel; it lives in binaries. Section "Introduction".
    pub const COMPRESSED: Self = Self(80);
    /// Reference into the atom table of the distribution header. Section "ATOM_CACHE_REF".
    pub const ATOM_CACHE_REF: Self = Self(82);
    /// Process identifier with a creation of 32 bits. Section "NEW_PID_EXT".
    pub const NEW_PID: Self = Self(88);
    /// Port identifier with a creation of 32 bits. Section "NEW_PORT_EXT".
    pub const NEW_PORT: Self = Self(89);
    /// Reference with a creation of 32 bits. Section "NEWER_REFERENCE_EXT".
    pub const NEWER_REFERENCE: Self = Self(90);
    /// Integer of 0 to 255. Section "SMALL_INTEGER_EXT".
    pub const SMALL_INTEGER: Self = Self(97);
    /// Integer of 32 bits, signed. Section "INTEGER_EXT".
    pub const INTEGER: Self = Self(98);
    /// Float as 31 octets of text, padded with NUL; from before `NEW_FLOAT`. Section "FLOAT_EXT".
    pub const FLOAT: Self = Self(99);
    /// Atom in Latin-1 with a length of 16 bits; deprecated. Section "ATOM_EXT (deprecated)".
    pub const ATOM: Self = Self(100);
    /// Reference of one word; no longer sent. Section "REFERENCE_EXT (deprecated)".
    pub const REFERENCE: Self = Self(101);
    /// Port identifier with a creation of 8 bits; until OTP 22. Section "PORT_EXT".
    pub const PORT: Self = Self(102);
    /// Process identifier with a creation of 8 bits; until OTP 22. Section "PID_EXT".
    pub const PID: Self = Self(103);
    /// Tuple with an arity of 8 bits. Section "SMALL_TUPLE_EXT".
    pub const SMALL_TUPLE: Self = Self(104);
    /// Tuple with an arity of 32 bits. Section "LARGE_TUPLE_EXT".
    pub const LARGE_TUPLE: Self = Self(105);
    /// The empty list. Section "NIL_EXT".
    pub const NIL: Self = Self(106);
    /// A list of small integers, packed. Section "STRING_EXT".
    pub const STRING: Self = Self(107);
    /// List: count, elements, tail. Section "LIST_EXT".
    pub const LIST: Self = Self(108);
    /// Binary. Section "BINARY_EXT".
    pub const BINARY: Self = Self(109);
    /// Integer of up to 255 octets, least significant first. Section "SMALL_BIG_EXT".
    pub const SMALL_BIG: Self = Self(110);
    /// Integer with a length of 32 bits. Section "LARGE_BIG_EXT".
    pub const LARGE_BIG: Self = Self(111);
    /// A closure. Section "NEW_FUN_EXT".
    pub const NEW_FUN: Self = Self(112);
    /// `fun Module:Function/Arity`. Section "EXPORT_EXT".
    pub const EXPORT: Self = Self(113);
    /// Reference with a creation of 8 bits; until OTP 22. Section "NEW_REFERENCE_EXT".
    pub const NEW_REFERENCE: Self = Self(114);
    /// Atom in Latin-1 with a length of 8 bits; deprecated. Section "SMALL_ATOM_EXT (deprecated)".
    pub const SMALL_ATOM: Self = Self(115);
    /// Map: count of pairs, then key, value, key, value. Section "MAP_EXT".
    pub const MAP: Self = Self(116);
    /// A closure as encoded before `NEW_FUN`; removed in OTP 23. Section "FUN_EXT (removed)".
    pub const FUN: Self = Self(117);
    /// Atom in UTF-8 with a length of 16 bits. Section "ATOM_UTF8_EXT".
    pub const ATOM_UTF8: Self = Self(118);
    /// Atom in UTF-8 with a length of 8 bits. Section "SMALL_ATOM_UTF8_EXT".
    pub const SMALL_ATOM_UTF8: Self = Self(119);
    /// Port identifier with an ID of 64 bits. Section "V4_PORT_EXT".
    pub const V4_PORT: Self = Self(120);
    /// Opaque to all but the node that made it; never on a distribution channel. Section "LOCAL_EXT".
    pub const LOCAL: Self = Self(121);
    /// Stands before a whole term in pass-through frames; never inside one. Section "Introduction".
    pub const VERSION: Self = Self(131);

    /// The first and the last of the tags that ERTS uses inside one node (72 to 76; 78 is the one that stands alone).
    const INTERNAL: (u8, u8) = (72, 76);
    /// The internal tag that stands alone.
    const INTERNAL_ALONE: u8 = 78;

    /// The tag's name in its section, without `_EXT`; `None` for one that has none on the wire.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(tag, _)| *tag == self).map(|&(_, name)| name)
    }

    /// What to call a term that begins with this tag when it is refused for it.
    #[must_use]
    pub const fn refused_as(self) -> &'static str {
        match self {
            Self::COMPRESSED => COMPRESSED_TERM,
            Self::LOCAL => "node-local term",
            Self(Self::INTERNAL_ALONE) => "internal term",
            Self(tag) if tag >= Self::INTERNAL.0 && tag <= Self::INTERNAL.1 => "internal term",
            _ => "term",
        }
    }
}

/// What a compressed term is called in the error that refuses it.
pub const COMPRESSED_TERM: &str = "compressed term";

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "tag {}", self.0),
        }
    }
}

/// Every tag that has a place on the wire.
const NAMES: &[(Tag, &str)] = &[
    (Tag::RECORD, "RECORD"),
    (Tag::NEW_FLOAT, "NEW_FLOAT"),
    (Tag::BIT_BINARY, "BIT_BINARY"),
    (Tag::COMPRESSED, "COMPRESSED"),
    (Tag::ATOM_CACHE_REF, "ATOM_CACHE_REF"),
    (Tag::NEW_PID, "NEW_PID"),
    (Tag::NEW_PORT, "NEW_PORT"),
    (Tag::NEWER_REFERENCE, "NEWER_REFERENCE"),
    (Tag::SMALL_INTEGER, "SMALL_INTEGER"),
    (Tag::INTEGER, "INTEGER"),
    (Tag::FLOAT, "FLOAT"),
    (Tag::ATOM, "ATOM"),
    (Tag::REFERENCE, "REFERENCE"),
    (Tag::PORT, "PORT"),
    (Tag::PID, "PID"),
    (Tag::SMALL_TUPLE, "SMALL_TUPLE"),
    (Tag::LARGE_TUPLE, "LARGE_TUPLE"),
    (Tag::NIL, "NIL"),
    (Tag::STRING, "STRING"),
    (Tag::LIST, "LIST"),
    (Tag::BINARY, "BINARY"),
    (Tag::SMALL_BIG, "SMALL_BIG"),
    (Tag::LARGE_BIG, "LARGE_BIG"),
    (Tag::NEW_FUN, "NEW_FUN"),
    (Tag::EXPORT, "EXPORT"),
    (Tag::NEW_REFERENCE, "NEW_REFERENCE"),
    (Tag::SMALL_ATOM, "SMALL_ATOM"),
    (Tag::MAP, "MAP"),
    (Tag::FUN, "FUN"),
    (Tag::ATOM_UTF8, "ATOM_UTF8"),
    (Tag::SMALL_ATOM_UTF8, "SMALL_ATOM_UTF8"),
    (Tag::V4_PORT, "V4_PORT"),
    (Tag::LOCAL, "LOCAL"),
    (Tag::VERSION, "VERSION"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_shown_by_name_and_an_unknown_one_by_number() {
        assert_eq!(Tag(88).to_string(), "NEW_PID (88)");
        assert_eq!(Tag(7).to_string(), "tag 7");
    }

    #[test]
    fn each_kind_of_tag_that_has_no_place_on_the_wire_has_a_name_of_its_own() {
        assert_eq!(Tag::COMPRESSED.refused_as(), "compressed term");
        assert_eq!(Tag::LOCAL.refused_as(), "node-local term");
        for tag in [72, 73, 74, 75, 76, 78] {
            assert_eq!(Tag(tag).refused_as(), "internal term");
        }
        assert_eq!(Tag(71).refused_as(), "term");
        assert_eq!(Tag::BIT_BINARY.refused_as(), "term");
    }
}
