//! Capability flags of the handshake: names, what they say of the release, and what a peer insists on.
//!
//! OTP, "Distribution Protocol", section "Distribution Flags"; measured words in `docs/protocol.md` §3.

/// A word of capability flags. Bits without a name are kept: unknown is data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DistFlags(pub u64);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)*) => {
        impl DistFlags {
            $($(#[$doc])* pub const $name: Self = Self($value);)*
        }
        /// Every named bit, lowest first.
        const NAMES: &[(DistFlags, &str)] = &[$((DistFlags::$name, stringify!($name)),)*];
    };
}

flags! {
    /// The node is published; without it, hidden.
    PUBLISHED = 0x1;
    /// Obsolete.
    ATOM_CACHE = 0x2;
    /// References of several words.
    EXTENDED_REFERENCES = 0x4;
    /// `MONITOR_P` and its kin.
    DIST_MONITOR = 0x8;
    /// Funs.
    FUN_TAGS = 0x10;
    /// Monitors of registered names.
    DIST_MONITOR_NAME = 0x20;
    /// Obsolete.
    HIDDEN_ATOM_CACHE = 0x40;
    /// `NEW_FUN_EXT`.
    NEW_FUN_TAGS = 0x80;
    /// Large pids and ports.
    EXTENDED_PIDS_PORTS = 0x100;
    /// `EXPORT_EXT`.
    EXPORT_PTR_TAG = 0x200;
    /// `BIT_BINARY_EXT`.
    BIT_BINARIES = 0x400;
    /// `NEW_FLOAT_EXT`.
    NEW_FLOATS = 0x800;
    /// Unicode in the I/O protocol.
    UNICODE_IO = 0x1000;
    /// Distribution header with atom cache.
    DIST_HDR_ATOM_CACHE = 0x2000;
    /// `SMALL_ATOM_EXT`.
    SMALL_ATOM_TAGS = 0x4000;
    /// Internal, never on the wire.
    ETS_COMPRESSED = 0x8000;
    /// Atoms in UTF-8.
    UTF8_ATOMS = 0x1_0000;
    /// `MAP_EXT`.
    MAP_TAG = 0x2_0000;
    /// Creations of 32 bits.
    BIG_CREATION = 0x4_0000;
    /// `SEND_SENDER`.
    SEND_SENDER = 0x8_0000;
    /// Any term as label of a sequential trace.
    BIG_SEQTRACE_LABELS = 0x10_0000;
    /// Internal.
    PENDING_CONNECT = 0x20_0000;
    /// Exit reasons as payload.
    EXIT_PAYLOAD = 0x40_0000;
    /// Fragmented messages.
    FRAGMENTS = 0x80_0000;
    /// Handshake version 6.
    HANDSHAKE_23 = 0x100_0000;
    /// `UNLINK_ID`.
    UNLINK_ID = 0x200_0000;
    /// Stands for all that is mandatory since OTP 25.
    MANDATORY_25_DIGEST = 0x400_0000;
    /// `SPAWN_REQUEST`.
    SPAWN = 1 << 32;
    /// A request for a name, no capability.
    NAME_ME = 1 << 33;
    /// Pids, ports and references of OTP 24.
    V4_NC = 1 << 34;
    /// `ALIAS_SEND`.
    ALIAS = 1 << 35;
    /// Internal, never on the wire.
    LOCAL_EXT = 1 << 36;
    /// `ALTACT_SIG_SEND`.
    ALTACT_SIG = 1 << 37;
    /// Native records.
    NATIVE_RECORDS = 1 << 38;
}

/// Mandatory up to OTP 24 (the value of 23.2.6).
const MANDATORY_23: DistFlags = DistFlags(0x5_0184);
/// Mandatory in OTP 25; also what `MANDATORY_25_DIGEST` stands for.
const MANDATORY_25: DistFlags = DistFlags(0x107_0F94);
/// Mandatory since OTP 26 (the value of 27, 28 and 29).
const MANDATORY_26: DistFlags = DistFlags(0x4_0307_0F94);

/// Bits that say nothing of the release: hidden or not, named or not.
const ROLE: u64 = DistFlags::PUBLISHED.0 | DistFlags::NAME_ME.0;
/// Bits that a carrier may clear ("rejectable"), so a word is compared as if they were set.
const CARRIER: u64 = DistFlags::DIST_HDR_ATOM_CACHE.0 | DistFlags::FRAGMENTS.0;

/// What offers which word, without the bits of [`ROLE`] (`docs/protocol.md` §3.2 and §3.4).
const WORDS: &[(u64, u16, u16, Implementation)] = &[
    (0x001F_7FBC, 21, 21, Implementation::Emulator),
    (0x00DF_7FBC, 22, 22, Implementation::Emulator),
    // the old name message has only the lower half
    (0x01DF_7FBC, 23, 23, Implementation::Emulator),
    (0x03DF_7FBC, 23, 24, Implementation::Emulator),
    (0x1_01DF_7FBC, 23, 23, Implementation::Emulator),
    (0x1_03DF_7FBC, 23, 23, Implementation::Emulator),
    (0xD_03DF_7FBC, 24, 24, Implementation::Emulator),
    (0xD_07DF_7FBC, 25, 27, Implementation::Emulator),
    (0x2D_07DF_7FBC, 28, 28, Implementation::Emulator),
    (0x6D_07DF_7FBC, 29, 29, Implementation::Emulator),
    (0x0107_4F9C, 23, 23, Implementation::ErlInterface),
    (0x4_0707_4F9C, 25, 29, Implementation::ErlInterface),
    (0x4_0707_0F94, 25, 29, Implementation::Jinterface),
];

/// The newest word of [`WORDS`]: whoever offers all of it and more is a later emulator.
const NEWEST: u64 = 0x6D_07DF_7FBC;

/// Which capability came with which release.
const AT_LEAST: &[(DistFlags, u16)] = &[
    (DistFlags::NATIVE_RECORDS, 29),
    (DistFlags::ALTACT_SIG, 28),
    (DistFlags::MANDATORY_25_DIGEST, 25),
    (DistFlags::ALIAS, 24),
    (DistFlags::V4_NC, 24),
    (DistFlags::UNLINK_ID, 23),
    (DistFlags::HANDSHAKE_23, 23),
    (DistFlags::FRAGMENTS, 22),
    (DistFlags::SEND_SENDER, 21),
];

/// What kind of program offers a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Implementation {
    /// The Erlang emulator.
    Emulator,
    /// A C node of `erl_interface` (`erl_call` is one).
    ErlInterface,
    /// A Java node of Jinterface.
    Jinterface,
    /// A word that none of them offers.
    Unknown,
}

impl Implementation {
    /// The word in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emulator => "emulator",
            Self::ErlInterface => "erl_interface",
            Self::Jinterface => "Jinterface",
            Self::Unknown => "unknown",
        }
    }
}

/// What a word says of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// Oldest OTP release.
    pub min: Option<u16>,
    /// Newest OTP release.
    pub max: Option<u16>,
    /// Kind of program.
    pub implementation: Implementation,
}

impl DistFlags {
    /// Whether all bits of `other` are set.
    #[must_use]
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    #[must_use]
    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Names of the bits that are set, lowest first; bits without a name are left out (see [`DistFlags::unnamed`]).
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| *name)
    }

    /// The bits that have no name.
    #[must_use]
    pub fn unnamed(self) -> u64 {
        self.0 & !NAMES.iter().fold(0, |all, (flag, _)| all | flag.0)
    }

    /// Whether the node is hidden.
    #[must_use]
    pub const fn hidden(self) -> bool {
        !self.contains(Self::PUBLISHED)
    }

    /// With all that `MANDATORY_25_DIGEST` stands for.
    #[must_use]
    pub const fn expanded(self) -> Self {
        if self.contains(Self::MANDATORY_25_DIGEST) { Self(self.0 | MANDATORY_25.0) } else { self }
    }

    /// The features in force between two nodes: what both offer.
    #[must_use]
    pub const fn in_force(self, other: Self) -> Self {
        Self(self.expanded().0 & other.expanded().0)
    }

    /// Whether messages carry a distribution header under these features in force; without it they are passed through (112).
    #[must_use]
    pub const fn distribution_header(self) -> bool {
        self.intersects(Self(CARRIER))
    }

    /// The release and kind of program that offer this word.
    #[must_use]
    pub fn release(self) -> Release {
        let word = self.0 & !ROLE;
        let known = WORDS.iter().find(|row| row.0 == word || row.0 == word | CARRIER);
        if let Some(&(_, min, max, implementation)) = known {
            return Release { min: Some(min), max: Some(max), implementation };
        }
        let min = AT_LEAST.iter().find(|(flag, _)| self.contains(*flag)).map(|&(_, release)| release);
        let later = (word | CARRIER) & NEWEST == NEWEST;
        Release {
            min,
            max: None,
            implementation: if later { Implementation::Emulator } else { Implementation::Unknown },
        }
    }

    /// What the sender of this word insists on. Where several releases offer the word, what the newest of them insists on.
    #[must_use]
    pub fn mandatory(self) -> Self {
        let release = self.release();
        match release.max.or(release.min) {
            Some(26..) => MANDATORY_26,
            Some(25) => MANDATORY_25,
            _ => MANDATORY_23,
        }
    }

    /// Whether a node that offers `self` lacks something that a node offering `other` insists on.
    #[must_use]
    pub fn refused_by(self, other: Self) -> bool {
        !self.expanded().contains(other.mandatory())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(word: u64) -> (Option<u16>, Option<u16>, Implementation) {
        let release = DistFlags(word).release();
        (release.min, release.max, release.implementation)
    }

    #[test]
    fn a_word_of_a_stock_node_tells_its_release_visible_hidden_or_dynamic() {
        for word in [0xD_07DF_7FBD, 0xD_07DF_7FBC, 0xF_07DF_7FBC] {
            assert_eq!(span(word), (Some(25), Some(27), Implementation::Emulator));
        }
        assert_eq!(span(0x1_01DF_7FBD), (Some(23), Some(23), Implementation::Emulator));
        assert_eq!(span(0x00DF_7FBD), (Some(22), Some(22), Implementation::Emulator));
        assert_eq!(span(0x6D_07DF_7FBD), (Some(29), Some(29), Implementation::Emulator));
    }

    #[test]
    fn a_carrier_that_clears_the_header_does_not_hide_the_release() {
        assert_eq!(span(0xD_075F_5FBD), (Some(25), Some(27), Implementation::Emulator));
    }

    #[test]
    fn c_and_java_nodes_are_told_by_their_words() {
        assert_eq!(span(0x4_0707_4F9C).2, Implementation::ErlInterface);
        assert_eq!(span(0x6_0707_4F9C).2, Implementation::ErlInterface);
        assert_eq!(span(0x4_0707_0F94).2, Implementation::Jinterface);
    }

    #[test]
    fn an_unlisted_word_gives_a_lower_bound_only() {
        assert_eq!(span(0x4_0700_0000), (Some(25), None, Implementation::Unknown));
        assert_eq!(span(0x8000_006D_07DF_7FBD), (Some(29), None, Implementation::Emulator));
        assert_eq!(span(0x1), (None, None, Implementation::Unknown));
    }

    #[test]
    fn release_27_refuses_23_and_takes_the_digest_bit_for_the_whole_set() {
        let (old, new) = (DistFlags(0x1_01DF_7FBD), DistFlags(0xD_07DF_7FBD));
        assert!(old.refused_by(new));
        assert!(!new.refused_by(old));
        let bare = DistFlags(0x400_0000 | 0x200_0000 | (1 << 34));
        assert!(!bare.refused_by(new));
    }

    #[test]
    fn a_c_node_gets_no_distribution_header() {
        let node = DistFlags(0xD_07DF_7FBD);
        assert!(node.in_force(node).distribution_header());
        assert!(!node.in_force(DistFlags(0x4_0707_4F9C)).distribution_header());
    }

    #[test]
    fn names_come_in_bit_order_and_the_rest_is_not_lost() {
        let flags = DistFlags(0x1 | 0x2000 | 1 << 34 | 1 << 60);
        assert_eq!(flags.names().collect::<Vec<_>>(), ["PUBLISHED", "DIST_HDR_ATOM_CACHE", "V4_NC"]);
        assert_eq!(flags.unnamed(), 1 << 60);
    }
}
