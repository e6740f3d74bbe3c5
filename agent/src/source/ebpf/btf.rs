//! Where fields of the running kernel's structures are, by its own description of its types (BTF).

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// Where the kernel describes itself.
const KERNEL: &str = "/sys/kernel/btf/vmlinux";

/// How deep unnamed structures and unions are looked into. The kernel nests them twice or three times.
const DEPTH: usize = 8;

/// What the programs need to tell network namespaces apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NamespaceFields {
    /// Where `struct sock_common` has `skc_net`, in eights of octets; 0 where that is not known.
    pub(super) socket_network: u32,
    /// Where `struct net` has `ns.inum`, in octets; 0 where that is not known.
    pub(super) network_inode: u32,
}

impl NamespaceFields {
    /// As the running kernel has them; all 0 where it does not say. Read once, for they do not change.
    pub(super) fn of_this_kernel() -> Self {
        static FIELDS: OnceLock<NamespaceFields> = OnceLock::new();
        *FIELDS.get_or_init(|| Self::read(Path::new(KERNEL)).unwrap_or_default())
    }

    fn read(file: &Path) -> Option<Self> {
        /// What the programs read of a socket, in octets.
        const HEAD: u32 = 64;
        let bytes = fs::read(file).ok()?;
        let types = Types::parse(&bytes)?;
        let network = types.place("sock_common", "skc_net")?;
        let inode = types.place("net", "ns")? + types.place("ns_common", "inum")?;
        (network % 8 == 0 && network + 8 <= HEAD).then_some(Self { socket_network: network / 8, network_inode: inode })
    }
}

/// A description, with the place of each of its types.
struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Types count from 1.
    places: Vec<u32>,
}

const STRUCT: u32 = 4;
const UNION: u32 = 5;
const HEADER: usize = 12;
const MEMBER: usize = 12;

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        const MAGIC: u32 = 0xEB9F;
        if number(bytes, 0)? & 0xFFFF != MAGIC {
            return None;
        }
        let section = |at: usize| {
            let begin = (number(bytes, 4)? as usize).checked_add(number(bytes, at)? as usize)?;
            bytes.get(begin..begin.checked_add(number(bytes, at + 4)? as usize)?)
        };
        let (types, strings) = (section(8)?, section(16)?);
        let mut places = vec![0];
        let mut at = 0;
        while at + HEADER <= types.len() {
            places.push(u32::try_from(at).ok()?);
            let info = number(types, at + 4)?;
            let members = (info & 0xFFFF) as usize;
            at += HEADER
                + match info >> 24 & 31 {
                    // Integer, variable, tag.
                    1 | 14 | 17 => 4,
                    // Array.
                    3 => 12,
                    // Structure, union, section, 64-bit enumeration.
                    STRUCT | UNION | 15 | 19 => members * MEMBER,
                    // Enumeration, prototype.
                    6 | 13 => members * 8,
                    _ => 0,
                };
        }
        Some(Self { types, strings, places })
    }

    /// Where the structure has the member, in octets.
    fn place(&self, structure: &str, member: &str) -> Option<u32> {
        self.places
            .iter()
            .skip(1)
            .map(|&at| at as usize)
            .filter(|&at| number(self.types, at + 4).is_some_and(|info| info >> 24 & 31 == STRUCT))
            .filter(|&at| self.is_named(at, structure))
            .find_map(|at| self.place_within(at, member, DEPTH))
    }

    fn place_within(&self, at: usize, member: &str, depth: usize) -> Option<u32> {
        let depth = depth.checked_sub(1)?;
        let info = number(self.types, at + 4)?;
        for index in 0..(info & 0xFFFF) as usize {
            let place = at + HEADER + index * MEMBER;
            let bits = number(self.types, place + 8)?;
            // With bit fields about, the upper octet is a width.
            let bits = if info >> 31 == 1 { bits & 0x00FF_FFFF } else { bits };
            if self.is_named(place, member) {
                return (bits % 8 == 0).then_some(bits / 8);
            }
            if number(self.types, place)? == 0 {
                let inner = *self.places.get(number(self.types, place + 4)? as usize)? as usize;
                let kind = number(self.types, inner + 4)? >> 24 & 31;
                if matches!(kind, STRUCT | UNION)
                    && let Some(further) = self.place_within(inner, member, depth)
                {
                    return Some(bits / 8 + further);
                }
            }
        }
        None
    }

    fn is_named(&self, at: usize, name: &str) -> bool {
        let text = number(self.types, at).and_then(|place| self.strings.get(place as usize..));
        text.is_some_and(|text| text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)))
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_ne_bytes(*four))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_of_an_unnamed_union_within_is_found() {
        // An integer, a union without a name that has `inum`, a structure `ns_common` that has `count` and the union.
        let strings = b"\0int\0inum\0ns_common\0count\0";
        let (int, inum, structure, count) = (1, 5, 10, 20);
        let types: Vec<u32> = vec![
            int,
            1 << 24,
            4,
            32, //
            0,
            UNION << 24 | 1,
            4,
            inum,
            1,
            0, //
            structure,
            STRUCT << 24 | 2,
            12,
            count,
            1,
            0,
            0,
            2,
            64,
        ];
        let length = u32::try_from(types.len() * 4).unwrap();
        let header = [0x0001_EB9F, 24, 0, length, length, u32::try_from(strings.len()).unwrap()];
        let mut bytes: Vec<u8> = header.iter().chain(&types).flat_map(|number| number.to_ne_bytes()).collect();
        bytes.extend_from_slice(strings);
        let types = Types::parse(&bytes).unwrap();
        assert_eq!(types.place("ns_common", "inum"), Some(8));
        assert_eq!(types.place("ns_common", "count"), Some(0));
        assert_eq!(types.place("ns_common", "in"), None);
        for length in 0..bytes.len() {
            if let Some(types) = Types::parse(&bytes[..length]) {
                types.place("ns_common", "inum");
            }
        }
    }

    #[test]
    fn this_kernel_says_where_a_socket_has_its_namespace_if_it_describes_itself() {
        if !Path::new(KERNEL).exists() {
            eprintln!("*** SKIPPED: this kernel does not describe itself ({KERNEL} is missing)");
            return;
        }
        let fields = NamespaceFields::of_this_kernel();
        assert!(fields.socket_network > 0 && fields.network_inode > 0, "{fields:?}");
    }
}
