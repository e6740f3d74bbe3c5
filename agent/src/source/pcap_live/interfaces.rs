//! The interfaces of this thread's network namespace.

use std::collections::BTreeMap;
use std::io;

/// The interfaces by name, with their index. `/sys/class/net` would show those of the namespace that it was mounted in.
pub(super) fn list() -> io::Result<BTreeMap<String, u32>> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    Ok(names(&text)
        // One may have gone since.
        .filter_map(|name| {
            let index = rustix::net::netdevice::name_to_index(&socket, name).ok()?;
            Some((name.to_owned(), index))
        })
        .collect())
}

/// The name of the interface with this index.
pub(super) fn name(index: u32) -> Option<String> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).ok()?;
    rustix::net::netdevice::index_to_name(&socket, index).ok()
}

/// Two lines of headings, then a line for each; a name may have a colon itself (an alias), the last one counts.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.lines().skip(2).filter_map(|line| {
        let counters = line.rfind(':')?;
        Some(line.get(..counters)?.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_there_with_its_index() {
        let interfaces = list().unwrap();
        assert_eq!(interfaces.get("lo"), Some(&1));
        assert_eq!(name(1).as_deref(), Some("lo"));
        assert_eq!(name(u32::MAX), None);
    }

    #[test]
    fn names_stand_before_the_counters() {
        let text = "Inter-| Receive\n face |bytes\n    lo: 1 2\n eth0:123 4\nbr-1a.7: 0\n";
        assert_eq!(names(text).collect::<Vec<_>>(), ["lo", "eth0", "br-1a.7"]);
    }
}
