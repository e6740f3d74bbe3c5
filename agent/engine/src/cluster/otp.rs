//! What capability flags say of a node's release.

use crate::model::Otp;

/// A bit of the capability flags (OTP, "Distribution Protocol", section "Distribution Flags"; `docs/protocol.md` §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag(pub u64);

impl Flag {
    /// The node shows itself in `nodes()`; a hidden one does not have it.
    pub const PUBLISHED: Self = Self(0x1);
    /// The node can take atom caches in distribution headers; C nodes and Java nodes cannot.
    pub const DIST_HDR_ATOM_CACHE: Self = Self(0x2000);
    /// `unlink` with an id; mandatory since 26.
    pub const UNLINK_ID: Self = Self(0x0200_0000);
    /// The initiator asks for a name; a request, not a capability.
    pub const NAME_ME: Self = Self(1 << 33);
    /// Pids, ports and references of version 4; mandatory since 26.
    pub const V4_NC: Self = Self(1 << 34);

    /// Whether the flags have it.
    #[must_use]
    pub const fn is_in(self, flags: u64) -> bool {
        flags & self.0 == self.0
    }
}

/// "A node with this bit is at least this release", newest first (`docs/protocol.md` §3.2).
const AT_LEAST: [(u64, u16); 9] = [
    (1 << 38, 29),     // NATIVE_RECORDS
    (1 << 37, 28),     // ALTACT_SIG
    (0x0400_0000, 25), // MANDATORY_25_DIGEST
    (1 << 35, 24),     // ALIAS
    (1 << 34, 24),     // V4_NC
    (0x0200_0000, 23), // UNLINK_ID
    (0x0100_0000, 23), // HANDSHAKE_23
    (0x0080_0000, 22), // FRAGMENTS
    (0x0008_0000, 21), // SEND_SENDER
];

/// Whole words that releases of the emulator send, without PUBLISHED and NAME_ME (`docs/protocol.md` §3.2).
const WORDS: [(u64, u16, u16); 11] = [
    (0x001F_7FBC, 21, 21),
    (0x000F_7FBC, 21, 21),
    (0x00DF_7FBC, 22, 22),
    (0x01DF_7FBC, 23, 23),
    (0x1_01DF_7FBC, 23, 23),
    (0x03DF_7FBC, 23, 23),
    (0x1_03DF_7FBC, 23, 23),
    (0xD_03DF_7FBC, 24, 24),
    (0xD_07DF_7FBC, 25, 27),
    (0x2D_07DF_7FBC, 28, 28),
    (0x6D_07DF_7FBC, 29, 29),
];

/// Whole words of other implementations (`docs/protocol.md` §3.4): name, oldest and newest release it came with.
const OTHERS: [(u64, &str, u16, Option<u16>); 3] = [
    (0x0107_4F9C, "erl_interface", 23, Some(24)),
    (0x4_0707_4F9C, "erl_interface", 25, None),
    (0x4_0707_0F94, "Jinterface", 25, None),
];

/// The releases that these flags allow. A word that no release is known to send gives only the lower bound that its
/// bits prove, and is called an unknown implementation.
#[must_use]
pub fn otp_from_flags(flags: u64) -> Otp {
    let word = flags & !(Flag::PUBLISHED.0 | Flag::NAME_ME.0);
    let otp = Otp { flags: Some(flags), ..Otp::default() };
    if let Some(&(_, min, max)) = WORDS.iter().find(|(known, ..)| *known == word) {
        return Otp { min: Some(min), max: Some(max), ..otp };
    }
    if let Some(&(_, name, min, max)) = OTHERS.iter().find(|(known, ..)| *known == word) {
        return Otp { min: Some(min), max, implementation: Some(name.to_owned()), ..otp };
    }
    let min = AT_LEAST.iter().find(|(bit, _)| flags & bit == *bit).map(|&(_, release)| release);
    Otp { min, implementation: Some("unknown".to_owned()), ..otp }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_real_nodes_give_their_releases() {
        let span = |flags| {
            let otp = otp_from_flags(flags);
            (otp.min, otp.max, otp.implementation)
        };
        assert_eq!(span(0xD_07DF_7FBD), (Some(25), Some(27), None));
        assert_eq!(span(0xD_07DF_7FBC), (Some(25), Some(27), None), "a hidden node is no other release");
        assert_eq!(span(0xF_07DF_7FBC), (Some(25), Some(27), None), "nor is one that asks for a name");
        assert_eq!(span(0x1_01DF_7FBD), (Some(23), Some(23), None));
        assert_eq!(span(0x6D_07DF_7FBD), (Some(29), Some(29), None));
        assert_eq!(span(0x4_0707_4F9C), (Some(25), None, Some("erl_interface".into())));
    }

    #[test]
    fn an_unknown_word_gives_only_what_its_bits_prove() {
        let otp = otp_from_flags(0x4_0300_0000);
        assert_eq!((otp.min, otp.max), (Some(24), None));
        assert_eq!(otp.implementation.as_deref(), Some("unknown"));
        assert_eq!(otp_from_flags(0x3_499C).min, None);
    }
}
