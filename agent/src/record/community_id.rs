//! Community ID version 1 of a connection, computed once and remembered.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

/// IP protocol number of TCP.
const TCP: u8 = 6;
/// `1:` and the base64 form of a SHA-1 digest.
const LENGTH: usize = 30;
/// Connections remembered; at the limit all are forgotten. They take some 100 kB, and computing one again takes less than a
/// microsecond: more of them, or an eviction order, would cost more than they save.
const REMEMBERED: usize = 896;

/// A Community ID, in its text form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommunityId([u8; LENGTH]);

impl CommunityId {
    /// The ID of a TCP connection, seed 0. The direction does not matter. `None` where the two addresses are of
    /// different families.
    #[must_use]
    pub fn of(one: SocketAddr, other: SocketAddr) -> Option<Self> {
        let (one_ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
        let text = ::community_id::calculate_community_id(
            0,
            one_ip,
            other_ip,
            Some(one.port()),
            Some(other.port()),
            TCP,
            false,
        );
        text.ok()?.as_bytes().try_into().ok().map(Self)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for CommunityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for CommunityId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl JsonSchema for CommunityId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CommunityId".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^1:[A-Za-z0-9+/]{27}=$" })
    }
}

/// The IDs of the connections of late.
#[derive(Debug, Default)]
pub struct CommunityIds(HashMap<(SocketAddr, SocketAddr), Option<CommunityId>>);

impl CommunityIds {
    /// The ID of a connection, as [`CommunityId::of`].
    pub fn of(&mut self, initiator: SocketAddr, acceptor: SocketAddr) -> Option<CommunityId> {
        if let Some(id) = self.0.get(&(initiator, acceptor)) {
            return *id;
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        let id = CommunityId::of(initiator, acceptor);
        self.0.insert((initiator, acceptor), id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(one: &str, other: &str) -> Option<String> {
        CommunityId::of(one.parse().unwrap(), other.parse().unwrap()).map(|id| id.as_str().to_owned())
    }

    /// The baseline of the specification (corelight/community-id-spec, `baseline/baseline_deflt.json`).
    #[test]
    fn ids_are_those_of_the_specification_in_both_directions() {
        let expected = Some("1:LQU9qZlK+B5F3KDmev6m5PMibrg=".to_owned());
        assert_eq!(of("128.232.110.120:34855", "66.35.250.204:80"), expected);
        assert_eq!(of("66.35.250.204:80", "128.232.110.120:34855"), expected);
        assert_eq!(of("[::ffff:128.232.110.120]:34855", "66.35.250.204:80"), expected);
    }

    #[test]
    fn addresses_of_different_families_have_none() {
        assert_eq!(of("10.0.0.1:1", "[2001:db8::1]:2"), None);
    }

    #[test]
    fn memory_stays_bounded_and_the_answer_the_same() {
        let mut ids = CommunityIds::default();
        let acceptor: SocketAddr = "10.0.0.1:4369".parse().unwrap();
        for n in 0..u32::try_from(REMEMBERED).unwrap() + 10 {
            let initiator = SocketAddr::from((n.to_be_bytes(), 4000));
            ids.of(initiator, acceptor);
            assert!(ids.0.len() <= REMEMBERED);
        }
        let initiator = SocketAddr::from(([0, 0, 0, 9], 4000));
        assert_eq!(ids.of(initiator, acceptor), CommunityId::of(initiator, acceptor));
    }
}
