//! `[tls]`: what TLS must be like.

use super::Plain;
use crate::config::Config;
use crate::config::form::{Switch, Whole, Word, Words};
use crate::config::key::key;

pub(super) const SECTION: Plain = Plain {
    name: "tls",
    help: "What the transport of distribution must be like.",
    keys: &[
        key!(
            "required",
            Switch,
            Config.policy.tls.required,
            "Distribution must run over TLS; in clear it is a finding."
        ),
        key!(
            "minimum_version",
            Word<Version>,
            Config.policy.tls.minimum_version,
            "The lowest version that may be negotiated: \"1.0\", \"1.1\", \"1.2\" or \"1.3\"."
        ),
        key!(
            "client_certificate",
            Word<Demand>,
            Config.policy.tls.client_certificate_required,
            "Whether the listening node must ask for the certificate of the one that connects: \"required\" or \
             \"optional\"."
        ),
        key!(
            "expiry_days",
            Whole<u32, 0, 3650>,
            Config.policy.tls.expiry_days,
            "A certificate that ends within so many days is reported before it does."
        ),
    ],
};

/// A version number as on the wire (RFC 8446, section 4.1.2 and appendix D).
type Version = u16;

impl Words for Version {
    const WORDS: &'static [(&'static str, Self)] =
        &[("1.0", 0x0301), ("1.1", 0x0302), ("1.2", 0x0303), ("1.3", 0x0304)];
}

/// Whether something is demanded.
type Demand = bool;

impl Words for Demand {
    const WORDS: &'static [(&'static str, Self)] = &[("required", true), ("optional", false)];
}
