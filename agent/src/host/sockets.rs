//! All TCP sockets of a network namespace: by netlink for this thread's own, from `/proc` for others.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// A list from `/proc` is read up to this length. A line has 150 octets, so it holds more sockets than a host's ports.
const LONGEST_LIST: u64 = 16 << 20;

/// How large a netlink answer is; the kernel sends 32 KiB at most.
const ANSWER: usize = 64 << 10;

/// What a socket does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// Both ends talk, or one has said its last word (`CLOSE-WAIT`, `FIN-WAIT`).
    Established,
    /// It waits for connections.
    Listen,
}

/// A TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// What it does.
    pub state: TcpState,
    /// This end.
    pub local: SocketAddr,
    /// The other end; unspecified for one that listens.
    pub remote: SocketAddr,
    /// Its inode, by which processes name it.
    pub inode: u64,
    /// Its cookie, by which eBPF names it; 0 where `/proc` was the source.
    pub cookie: u64,
    /// Whose it is.
    pub uid: u32,
    /// The interface that it is bound to; 0 for none.
    pub interface: u32,
    /// Octets that it received, and that it sent and the other end has; none where `/proc` was the source.
    pub octets: Option<u64>,
}

const ESTABLISHED: u8 = 1;
const FIN_WAIT_1: u8 = 4;
const FIN_WAIT_2: u8 = 5;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

fn state(number: u8) -> Option<TcpState> {
    match number {
        ESTABLISHED | FIN_WAIT_1 | FIN_WAIT_2 | CLOSE_WAIT => Some(TcpState::Established),
        LISTEN => Some(TcpState::Listen),
        _ => None,
    }
}

/// The sockets of this thread's network namespace. Takes no privilege.
///
/// # Errors
/// Netlink's `sock_diag` is not there, or refuses.
pub fn own() -> io::Result<Vec<TcpSocket>> {
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(std::time::Duration::from_secs(2)),
    )?;
    let mut sockets = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        dump(&socket, family, &mut sockets)?;
    }
    Ok(sockets)
}

const HEADER: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const IPPROTO_TCP: u8 = 6;
/// `INET_DIAG_INFO`, an attribute that holds a `struct tcp_info`.
const INFO: u16 = 2;
/// The length of `struct inet_diag_msg`, which the attributes follow.
const DIAG: usize = 72;
/// Where `tcpi_bytes_acked` and `tcpi_bytes_received` are in `struct tcp_info`, since Linux 4.2.
const ACKED: usize = 120;
const RECEIVED: usize = 128;

fn dump(socket: &OwnedFd, family: AddressFamily, sockets: &mut Vec<TcpSocket>) -> io::Result<()> {
    let states =
        [ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT, LISTEN].into_iter().fold(0, |all, one| all | 1_u32 << one);
    // struct nlmsghdr, then struct inet_diag_req_v2, whose id stays zero: any socket.
    let mut request = Vec::with_capacity(HEADER + 56);
    request.extend(((HEADER + 56) as u32).to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family.as_raw() as u8, IPPROTO_TCP, 1 << (INFO - 1), 0]);
    request.extend(states.to_ne_bytes());
    request.extend([0; 48]);
    rustix::net::sendto(socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut buffer = vec![0; ANSWER];
    loop {
        let (length, _) = rustix::net::recv(socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            return Err(io::Error::other("the kernel ended its list of sockets in the middle"));
        }
        while let Some((kind, body, next)) = message(rest) {
            rest = next;
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let number = body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    return Err(io::Error::from_raw_os_error(-number));
                }
                SOCK_DIAG_BY_FAMILY => sockets.extend(entry(body)),
                _ => {}
            }
        }
    }
}

/// The first message: its type, its body, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// `struct inet_diag_msg`.
fn entry(body: &[u8]) -> Option<TcpSocket> {
    let number = |at: usize| -> Option<u32> { Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?)) };
    let end = |port: usize, address: usize| -> Option<SocketAddr> {
        let port = u16::from_be_bytes(body.get(port..port + 2)?.try_into().ok()?);
        let octets: [u8; 16] = body.get(address..address + 16)?.try_into().ok()?;
        let address = match i32::from(*body.first()?) {
            libc::AF_INET => IpAddr::from(*octets.first_chunk::<4>()?),
            _ => IpAddr::from(octets).to_canonical(),
        };
        Some(SocketAddr::new(address, port))
    };
    Some(TcpSocket {
        state: state(*body.get(1)?)?,
        local: end(4, 8)?,
        remote: end(6, 24)?,
        interface: number(40)?,
        cookie: u64::from(number(44)?) | u64::from(number(48)?) << 32,
        uid: number(64)?,
        inode: number(68)?.into(),
        octets: octets(body.get(DIAG..).unwrap_or_default()),
    })
}

/// What passed, by the attributes of a socket: each a length, a type, and its value.
fn octets(mut attributes: &[u8]) -> Option<u64> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        if kind == INFO {
            let info = attributes.get(4..length)?;
            let number = |at: usize| -> Option<u64> { Some(u64::from_ne_bytes(*info.get(at..)?.first_chunk()?)) };
            return Some(number(ACKED)?.wrapping_add(number(RECEIVED)?));
        }
        attributes = attributes.get(length.next_multiple_of(4).max(4)..)?;
    }
}

/// The sockets of the network namespace that a process is in.
///
/// # Errors
/// The process is gone.
pub(super) fn of_process(proc: &Path, pid: u32) -> io::Result<Vec<TcpSocket>> {
    let mut sockets = Vec::new();
    for (list, six) in [("net/tcp", false), ("net/tcp6", true)] {
        let file = match File::open(proc.join(pid.to_string()).join(list)) {
            Ok(file) => file,
            // A kernel without IPv6.
            Err(error) if six && error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // Line by line: the list of a host with many sockets is some megabytes.
        let (mut list, mut text) = (BufReader::with_capacity(ANSWER, file.take(LONGEST_LIST)), String::new());
        while list.read_line(&mut text)? > 0 {
            // The first is a heading, of which nothing reads as a socket.
            sockets.extend(line(&text, six));
            text.clear();
        }
    }
    Ok(sockets)
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`
fn line(text: &str, six: bool) -> Option<TcpSocket> {
    let mut fields = text.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let remote = fields.next()?;
    let number = u8::from_str_radix(fields.next()?, 16).ok()?;
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(TcpSocket {
        state: state(number)?,
        local: address(local, six)?,
        remote: address(remote, six)?,
        inode,
        cookie: 0,
        uid,
        interface: 0,
        octets: None,
    })
}

/// The address is in words of 32 bits in this machine's byte order, the port is a number.
fn address(text: &str, six: bool) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |place: usize| -> Option<[u8; 4]> {
        let digits = address.get(place * 8..place * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let address = if six {
        let mut octets = [0; 16];
        for (place, octets) in octets.chunks_exact_mut(4).enumerate() {
            octets.copy_from_slice(&word(place)?);
        }
        IpAddr::from(Ipv6Addr::from(octets)).to_canonical()
    } else {
        Ipv4Addr::from(word(0)?).into()
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn both_ways_list_the_sockets_that_this_process_has() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(bind) else {
                eprintln!("SKIPPED: sockets on {bind}: the machine has no such address");
                continue;
            };
            let at = listener.local_addr().unwrap();
            let client = TcpStream::connect(at).unwrap();
            let inode = rustix::fs::fstat(client.as_fd()).unwrap().st_ino;
            for (sockets, by_netlink) in
                [(own().unwrap(), true), (of_process(Path::new("/proc"), std::process::id()).unwrap(), false)]
            {
                let listening = sockets.iter().find(|socket| socket.state == TcpState::Listen && socket.local == at);
                assert!(listening.is_some(), "{bind} {by_netlink}");
                let found = sockets.iter().find(|socket| socket.inode == inode).unwrap();
                assert_eq!(found.state, TcpState::Established);
                assert_eq!((found.local, found.remote), (client.local_addr().unwrap(), at));
                assert_eq!(found.uid, rustix::process::geteuid().as_raw());
                assert_eq!(found.cookie != 0, by_netlink);
            }
        }
    }

    #[test]
    fn netlink_tells_what_passed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let octets = |socket: &TcpStream| {
            let inode = rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
            own().unwrap().iter().find(|socket| socket.inode == inode).unwrap().octets.unwrap()
        };
        let before = (octets(&client), octets(&server));
        client.write_all(&[7; 1000]).unwrap();
        server.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!((octets(&client) - before.0, octets(&server) - before.1), (1000, 1000));
    }

    #[test]
    fn attributes_that_are_cut_tell_nothing() {
        let mut info = vec![0; 4 + RECEIVED + 8];
        info[..2].copy_from_slice(&(4 + RECEIVED as u16 + 8).to_ne_bytes());
        info[2..4].copy_from_slice(&INFO.to_ne_bytes());
        info[4 + ACKED] = 1;
        info[4 + RECEIVED] = 1;
        let expected = octets(&info).unwrap();
        assert!(expected > 0);
        // Others may come before it, also ones without a value.
        let other =
            [6_u16.to_ne_bytes(), 5_u16.to_ne_bytes(), [9, 9], [0, 0], 0_u16.to_ne_bytes(), 0_u16.to_ne_bytes()];
        assert_eq!(octets(&[&other.concat(), &info[..]].concat()), Some(expected));
        for length in 0..info.len() {
            assert_eq!(octets(&info[..length]), None, "{length}");
        }
    }

    #[test]
    fn an_answer_that_is_cut_is_no_socket() {
        assert_eq!(entry(&[2, 1, 0]), None);
        assert_eq!(message(&[255, 0, 0, 0, 1, 0, 0, 0]), None);
        assert_eq!(line("  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000", false), None);
        let text = "  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0";
        let socket = line(text, false).unwrap();
        assert_eq!((socket.local, socket.uid, socket.inode), ("127.0.0.1:8080".parse().unwrap(), 1000, 4711));
    }
}
