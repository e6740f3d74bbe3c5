//! Who opened a connection whose SYN was not captured.

use std::net::SocketAddr;

use super::Ports;

/// Ports that Linux gives to clients unless told otherwise (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// Ports that only a privileged process may listen on, and that no client gets (RFC 6335, section 6: 0–1023).
const PRIVILEGED: std::ops::RangeInclusive<u16> = 0..=1023;

/// Whether the sender of the first captured segment is the one that accepted the connection.
///
/// The first difference between the ends decides, the surest first. The last one: since Linux 4.2, `connect` looks
/// for even ephemeral ports first and `bind` to port 0 for odd ones (`net/ipv4/inet_hashtables.c`,
/// `inet_connection_sock.c`), and a node's distribution port comes from the latter.
pub(super) fn sender_is_acceptor<P: Ports>(sender: SocketAddr, receiver: SocketAddr, ports: &P) -> bool {
    if ports.is_remembered(receiver, sender) != ports.is_remembered(sender, receiver) {
        return ports.is_remembered(receiver, sender);
    }
    let signs: [fn(u16) -> bool; 3] =
        [|port| PRIVILEGED.contains(&port), |port| !EPHEMERAL.contains(&port), |port| port % 2 == 1];
    let known = (ports.is_listener(sender), ports.is_listener(receiver));
    std::iter::once(known)
        .chain(signs.into_iter().map(|sign| (sign(sender.port()), sign(receiver.port()))))
        .find(|(of_sender, of_receiver)| of_sender != of_receiver)
        .is_some_and(|(of_sender, _)| of_sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Listening(u16);

    impl Ports for Listening {
        fn is_listener(&self, at: SocketAddr) -> bool {
            at.port() == self.0
        }

        fn is_remembered(&self, initiator: SocketAddr, acceptor: SocketAddr) -> bool {
            (initiator.port(), acceptor.port()) == (4369, 8888)
        }
    }

    fn sender_accepts(sender: u16, receiver: u16) -> bool {
        let end = |port| SocketAddr::from(([10, 0, 0, 1], port));
        sender_is_acceptor(end(sender), end(receiver), &Listening(40_000))
    }

    #[test]
    fn a_known_listener_accepts_whatever_the_other_port_is() {
        assert!(sender_accepts(40_000, 80));
        assert!(!sender_accepts(4369, 40_000));
    }

    #[test]
    fn a_connection_that_is_remembered_is_as_it_was() {
        assert!(sender_accepts(8888, 4369));
        assert!(!sender_accepts(4369, 8888));
    }

    #[test]
    fn a_privileged_port_then_one_outside_the_ephemeral_range_then_an_odd_one_accepts() {
        assert!(sender_accepts(443, 4369));
        assert!(sender_accepts(4369, 50_001));
        assert!(!sender_accepts(50_002, 61_000));
        assert!(sender_accepts(35_001, 35_002));
        assert!(!sender_accepts(35_002, 35_001));
    }

    #[test]
    fn between_equals_the_first_sender_is_the_initiator() {
        assert!(!sender_accepts(35_001, 35_003));
        assert!(!sender_accepts(8080, 9100));
    }
}
