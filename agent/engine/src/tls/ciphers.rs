//! Cipher suites: their names, what they add to a record, and which of them protect nothing any more.

use tls_parser::{TlsCipherEnc, TlsCipherEncMode, TlsCipherKx, TlsCipherMac, TlsCipherSuite};

/// The suite's name in the IANA registry, or its number where that has none.
#[must_use]
pub fn name(id: u16) -> String {
    TlsCipherSuite::from_id(id).map_or_else(|| format!("0x{id:04X}"), |suite| suite.name.to_owned())
}

/// Why the suite is broken, or `None` where it is not (or is unknown).
#[must_use]
pub fn is_broken(id: u16) -> Option<&'static str> {
    TlsCipherSuite::from_id(id).and_then(weakness)
}

/// As [`is_broken`], by the name in the IANA registry.
#[must_use]
pub fn is_broken_by_name(name: &str) -> Option<&'static str> {
    TlsCipherSuite::from_name(name).and_then(weakness)
}

fn weakness(suite: &TlsCipherSuite) -> Option<&'static str> {
    // The registry's names say what the fields below may leave open (EXPORT and anonymous suites).
    let says = |part: &str| suite.name.split('_').any(|word| word.eq_ignore_ascii_case(part));
    match suite.enc {
        _ if says("EXPORT") || says("EXPORT1024") => Some("export-grade key"),
        _ if says("anon") || suite.kx == TlsCipherKx::Aecdh => Some("no authentication of either side"),
        _ if says("SCSV") => None,
        TlsCipherEnc::Null => Some("no encryption"),
        TlsCipherEnc::Rc4 => Some("RC4"),
        TlsCipherEnc::Rc2 => Some("RC2"),
        TlsCipherEnc::Des => Some("DES"),
        TlsCipherEnc::TripleDes => Some("3DES"),
        _ if suite.mac == TlsCipherMac::HmacMd5 => Some("MD5"),
        _ => None,
    }
}

/// What a cipher suite makes of lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    /// Octets that a record's body has more than its content.
    pub(super) overhead: u16,
    /// Octets of the Finished message as an encrypted record (TLS 1.3 alone).
    pub(super) finished: u16,
}

/// The lengths that belong to a suite under a version; `None` where a record's length does not tell its content's (CBC
/// pads) or the suite is unknown.
pub(super) fn lengths(version: u16, id: u16) -> Option<Lengths> {
    let suite = TlsCipherSuite::from_id(id)?;
    let short_tag = suite.name.ends_with("CCM_8") || suite.name.ends_with("CCM_8_SHA256");
    let tag = if short_tag { 8 } else { 16 };
    let counter_mode = matches!(suite.enc_mode, TlsCipherEncMode::Gcm | TlsCipherEncMode::Ccm);
    let chacha = suite.enc == TlsCipherEnc::Chacha20_Poly1305;
    if version >= 0x0304 {
        // One octet of content type; message header and a hash (RFC 8446, sections 5.2 and 4.4.4).
        let overhead = tag + 1;
        let hash = if suite.name.ends_with("SHA384") { 48 } else { 32 };
        return Some(Lengths { overhead, finished: 4 + hash + overhead });
    }
    // GCM and CCM send eight octets of nonce (RFC 5288, section 3; RFC 6655, section 3), ChaCha20 none (RFC 7905, section 2).
    let nonce = match (counter_mode, chacha) {
        (true, _) => 8,
        (_, true) => 0,
        _ => return None,
    };
    Some(Lengths { overhead: tag + nonce, finished: 16 + tag + nonce })
}

/// The name of a protocol version, as in reports; `None` for a number that is none.
#[must_use]
pub const fn version_name(version: u16) -> Option<&'static str> {
    match version {
        0x0300 => Some("ssl3.0"),
        0x0301 => Some("1.0"),
        0x0302 => Some("1.1"),
        0x0303 => Some("1.2"),
        0x0304 => Some("1.3"),
        _ => None,
    }
}

/// The number on the wire of a version's name in reports.
#[must_use]
pub fn version_number(name: &str) -> Option<u16> {
    (0x0300..=0x0304).find(|&version| version_name(version) == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_suites_are_told_with_their_reason() {
        let broken = [
            (0x0000, "no encryption"),
            (0x0001, "no encryption"),
            (0x0003, "export-grade key"),
            (0x0005, "RC4"),
            (0x0009, "DES"),
            (0x000a, "3DES"),
            (0x0018, "no authentication of either side"),
            (0xc016, "no authentication of either side"),
            (0xc012, "3DES"),
        ];
        for (id, reason) in broken {
            assert_eq!(is_broken(id), Some(reason), "{}", name(id));
            assert_eq!(is_broken_by_name(&name(id)), Some(reason));
        }
        for id in [0x1301, 0x1302, 0x1303, 0xc02f, 0xc030, 0xc02c, 0xcca8, 0x009c, 0x00ff, 0xc014] {
            assert_eq!(is_broken(id), None, "{}", name(id));
        }
        assert_eq!(name(0x1302), "TLS_AES_256_GCM_SHA384");
        assert_eq!(name(0xeeee), "0xEEEE");
    }

    #[test]
    fn lengths_are_those_of_the_standards() {
        assert_eq!(lengths(0x0303, 0xc02c), Some(Lengths { overhead: 24, finished: 40 }));
        assert_eq!(lengths(0x0303, 0xcca9).map(|lengths| lengths.overhead), Some(16));
        assert_eq!(lengths(0x0303, 0xc0ae).map(|lengths| lengths.overhead), Some(16));
        assert_eq!(lengths(0x0303, 0xc014), None);
        assert_eq!(lengths(0x0304, 0x1302), Some(Lengths { overhead: 17, finished: 69 }));
        assert_eq!(lengths(0x0304, 0x1301), Some(Lengths { overhead: 17, finished: 53 }));
        assert_eq!(lengths(0x0304, 0x1305).map(|lengths| lengths.overhead), Some(9));
    }

    #[test]
    fn versions_have_names_both_ways() {
        assert_eq!(version_number("1.2"), Some(0x0303));
        assert_eq!(version_name(0x0304), Some("1.3"));
        assert_eq!(version_number("2.0"), None);
    }
}
