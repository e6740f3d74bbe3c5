//! Connections that an earlier run of the program knew, or that were given up to save memory, so that one that is met in its middle
//! bears its names again.

use std::net::SocketAddr;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt as _};

use crate::model::Link;
use crate::saved::SavedLink;
use crate::time::Timestamp;

/// How long after it was last known to be open a connection is believed to be the same one. By then what was found on it has
/// ended by quiet ([`crate::detect::QUIET`]), so that nothing would be gained by a longer memory; and a client that connects
/// anew to the same port has taken another port of its own many times before it comes to the same one again.
pub const MEMORY: Duration = Duration::from_secs(3600);

/// Connections by their ends, the initiator first.
#[derive(Debug, Default)]
pub struct Recall(HashMap<(SocketAddr, SocketAddr), SavedLink>);

impl Recall {
    /// Takes in those that were open when an earlier run wrote them down, at most `limit` of them.
    pub fn restore(&mut self, links: Vec<SavedLink>, limit: usize) {
        self.0 = HashMap::with_capacity(links.len().min(limit));
        self.0.extend(links.into_iter().take(limit).map(|link| ((link.initiator, link.acceptor), link)));
    }

    /// Takes in one that is given up to save memory and may be met again. Where there are `limit` already, the older half goes.
    /// Returns how many that were.
    pub fn remember(&mut self, link: SavedLink, limit: usize) -> u64 {
        let before = self.0.len();
        if before >= limit.max(1) {
            let mut seen: Vec<Timestamp> = self.0.values().map(|link| link.seen).collect();
            let (_, &mut middle, _) = seen.select_nth_unstable(before / 2);
            self.0.retain(|_, link| link.seen > middle);
        }
        let gone = before - self.0.len();
        self.0.insert((link.initiator, link.acceptor), link);
        gone as u64
    }

    /// Whether there is one with just these ends.
    #[must_use]
    pub fn contains(&self, initiator: SocketAddr, acceptor: SocketAddr) -> bool {
        self.0.contains_key(&(initiator, acceptor))
    }

    /// The connection with just these ends, unless that was too long ago. It is asked for once: what comes after it on the
    /// same addresses and ports is another one.
    pub fn take(&mut self, initiator: SocketAddr, acceptor: SocketAddr, now: Timestamp) -> Option<SavedLink> {
        self.0.remove(&(initiator, acceptor)).filter(|link| now.since(link.seen) <= MEMORY)
    }

    /// Those that have not been met yet and still may be.
    pub fn waiting(&self, now: Timestamp) -> impl Iterator<Item = &SavedLink> {
        self.0.values().filter(move |link| now.since(link.seen) <= MEMORY)
    }
}

impl SavedLink {
    /// Gives a link what was read of it before.
    pub(crate) fn resume(self, link: &mut Link) {
        [link.initiator.node, link.acceptor.node] = self.nodes;
        [link.handshake.initiator_flags, link.handshake.acceptor_flags] = self.flags;
        [link.handshake.initiator_creation, link.handshake.acceptor_creation] = self.creations;
        link.handshake.dynamic_name = self.dynamic_name;
        link.resumed = true;
    }
}

/// Takes that away again: what is read now shows that it is another connection.
pub(crate) fn disown(link: &mut Link) {
    (link.initiator.node, link.acceptor.node) = (None, None);
    (link.handshake.initiator_flags, link.handshake.acceptor_flags) = (None, None);
    (link.handshake.initiator_creation, link.handshake.acceptor_creation) = (None, None);
    (link.handshake.dynamic_name, link.resumed) = (false, false);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_parts(seconds, 0)
    }

    #[test]
    fn a_connection_is_recalled_once_by_just_its_ends_and_in_time() {
        let (from, to) = (end("10.0.0.1:40000"), end("10.0.0.2:9100"));
        let mut recall = Recall::default();
        let link = SavedLink::at_ends(from, to, at(0));
        recall.restore(vec![link.clone()], 10);
        assert!(recall.contains(from, to) && !recall.contains(to, from));
        assert_eq!(recall.take(from, end("10.0.0.2:9101"), at(1)), None);
        assert_eq!(recall.waiting(at(1)).count(), 1);
        assert_eq!(recall.waiting(at(3601)).count(), 0);
        assert_eq!(recall.take(from, to, at(1)), Some(link.clone()));
        assert_eq!(recall.take(from, to, at(1)), None);
        recall.restore(vec![link], 10);
        assert_eq!(recall.take(from, to, at(3601)), None);
    }

    #[test]
    fn those_that_are_given_up_are_bounded_and_the_older_ones_go_first() {
        let mut recall = Recall::default();
        let to = end("10.0.0.2:9100");
        let from = |number: u16| SocketAddr::from(([10, 0, 0, 1], number));
        let mut gone = 0;
        for number in 1..=100 {
            gone += recall.remember(SavedLink::at_ends(from(number), to, at(number.into())), 8);
            assert!(recall.0.len() <= 8 && recall.contains(from(number), to));
        }
        assert_eq!(gone + recall.0.len() as u64, 100);
        assert!(!recall.contains(from(50), to));
    }
}
