//! A filter as the kernel runs it, and its exchange on a live socket.
//!
//! libpcap's own `pcap_setfilter` is not used after the start of a capture, because it stops the socket with a filter that
//! takes nothing, throws away what is under way, and only then sets the new one; afterwards it leaves out, uncounted, what
//! the old filter let into the buffer. The kernel exchanges a filter in one step: each packet is judged by the old one or by
//! the new one. So nothing is lost by an exchange, and all that was let in is handed over.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use pcap::{Capture, Linktype};

/// What a filter says of a packet that it takes: how much of it. More than any packet has.
const WHOLE: u32 = 0x0004_0000;

/// `BPF_RET | BPF_K`: the verdict.
const RETURN: u16 = 0x06;
/// `BPF_LD | BPF_W | BPF_ABS`: an octet, or what the kernel knows of the packet, into the accumulator.
const LOAD: u16 = 0x20;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
const JUMP_IF_EQUAL: u16 = 0x15;
/// `SKF_AD_OFF + SKF_AD_PKTTYPE`: which way the packet goes.
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
/// `SKF_AD_OFF + SKF_AD_IFINDEX`.
const INTERFACE_INDEX: u32 = 0xffff_f000 + 8;
/// `PACKET_OUTGOING`.
const OUTGOING: u32 = 4;
/// The loopback interface has this index in every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// The kernel takes no longer program (`BPF_MAXINSNS`).
const MOST_INSTRUCTIONS: usize = 4096;

/// A program for a socket of one link layer.
#[derive(Debug)]
pub(super) struct Program(Vec<libc::sock_filter>);

impl Program {
    /// Compiles an expression for packets that begin with this link layer.
    ///
    /// On the loopback interface a packet socket is given every packet twice, as it leaves and as it arrives, and libpcap
    /// hides the first without counting it. So the filter takes only the second: what the kernel counts is what is handed over.
    pub(super) fn compile(link: Linktype, expression: &str) -> io::Result<Self> {
        // The socket behind a "cooked" capture begins with the IP header; libpcap makes up the rest.
        let seen_by_the_kernel = match link {
            Linktype::LINUX_SLL | Linktype::LINUX_SLL2 => Linktype(RAW),
            other => other,
        };
        let error = |error: pcap::Error| io::Error::other(format!("libpcap cannot compile the filter: {error}"));
        let compiled =
            Capture::dead(seen_by_the_kernel).and_then(|capture| capture.compile(expression, true)).map_err(error)?;
        let mut program = vec![
            instruction(LOAD, 0, 0, PACKET_TYPE),
            instruction(JUMP_IF_EQUAL, 0, 3, OUTGOING),
            instruction(LOAD, 0, 0, INTERFACE_INDEX),
            instruction(JUMP_IF_EQUAL, 0, 1, LOOPBACK_INDEX),
            instruction(RETURN, 0, 0, 0),
        ];
        for compiled in compiled.get_instructions() {
            // The fields are private, but it prints them.
            let text = compiled.to_string();
            let numbers: Vec<u32> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
            let &[code, yes, no, value] = numbers.as_slice() else {
                return Err(io::Error::other(format!("libpcap made an instruction that cannot be read: {text}")));
            };
            let value = if code == u32::from(RETURN) && value > 0 { WHOLE } else { value };
            program.push(instruction(code as u16, yes as u8, no as u8, value));
        }
        if program.len() > MOST_INSTRUCTIONS {
            return Err(io::Error::other(format!("the filter has {} instructions, too many", program.len())));
        }
        Ok(Self(program))
    }

    /// Puts it in place of the filter that the socket has, in one step.
    #[allow(unsafe_code)] // No crate in use wraps this option of a socket.
    pub(super) fn attach(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let program = libc::sock_fprog { len: self.0.len() as u16, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: `program` and the instructions that it points to live until the call returns; the kernel copies both
        // and writes to neither.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// `DLT_RAW` on Linux: packets that begin with the IP header.
pub(super) const RAW: i32 = 12;

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::super::filter::Watched;
    use super::*;

    /// IPv4 or IPv6 and TCP with this payload, without checksums.
    fn packet(six: bool, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let mut tcp =
            [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &[0; 8], &[0x80, 0x18, 1, 0, 0, 0, 0, 0]].concat();
        tcp.extend([1; 12]);
        tcp.extend(payload);
        let length = tcp.len() as u16;
        let mut ip = if six {
            [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[6, 64], &[0xfd; 16], &[0xfe; 16]].concat()
        } else {
            let total = (length + 20).to_be_bytes();
            [&[0x45, 0][..], &total, &[0, 0, 0x40, 0, 64, 6, 0, 0], &[10, 0, 0, 1], &[10, 0, 0, 2]].concat()
        };
        ip.extend(tcp);
        ip
    }

    /// Whether the kernel lets the packet through, for which any datagram socket will do.
    fn passes(watched: &Watched, packet: &[u8]) -> bool {
        let (send, receive) = UnixDatagram::pair().unwrap();
        receive.set_nonblocking(true).unwrap();
        let program = Program::compile(Linktype(RAW), &watched.filter().expression).unwrap();
        program.attach(receive.as_fd()).unwrap();
        // A datagram that is filtered out is an error for the sender on some kernels.
        let _ = send.send(packet);
        let mut buffer = [0; 70_000];
        match receive.recv(&mut buffer) {
            Ok(length) => {
                assert_eq!(length, packet.len(), "the filter cuts nothing off");
                true
            }
            Err(_) => false,
        }
    }

    #[test]
    fn the_kernel_lets_watched_ports_and_the_handshake_through_and_nothing_else() {
        let mut watched = Watched::new();
        watched.add("0.0.0.0:4369".parse().unwrap()).unwrap();
        watched.add("10.0.0.2:9100".parse().unwrap()).unwrap();
        let name = b"\x00\x1eN\x00\x00\x00\x0d\x07\xdf\x7f\xbd\x6b\x03\xb5\xc5\x00\x0fref_a@127.0.0.1";
        for six in [false, true] {
            for (payload, passed) in [
                (&name[..], true),
                (b"\x00\x03sok", true),
                (b"\x00\x15r", false),
                (b"\x00\x15r\x01\x02\x03\x04", true),
                (b"\x00\x11a0123456789abcdef", true),
                (b"\x00\x09c01234567", true),
                (b"\x00\x12a0123456789abcdef", false),
                (b"\x16\x03\x01\x00\xff", false),
                (b"GET / HTTP/1.1\r\n", false),
                (b"", false),
            ] {
                assert_eq!(passes(&watched, &packet(six, (40_000, 50_000), payload)), passed, "{six} {payload:?}");
            }
            assert!(passes(&watched, &packet(six, (40_000, 4369), b"")));
            assert!(passes(&watched, &packet(six, (4369, 40_000), &[7; 60_000])));
            assert_eq!(passes(&watched, &packet(six, (40_000, 9100), b"")), !six, "the address counts too");
        }
    }

    #[test]
    fn the_longest_filter_that_is_asked_for_is_one_that_the_kernel_takes() {
        let mut watched = Watched::new();
        for number in 0..32_u16 {
            watched.add(format!("10.0.{number}.1:{}", 20_000 + number * 3).parse().unwrap()).unwrap();
            watched.add(format!("0.0.0.0:{}", 1000 + number * 7).parse().unwrap()).unwrap();
        }
        let (_send, receive) = UnixDatagram::pair().unwrap();
        for link in [Linktype(RAW), Linktype::ETHERNET] {
            let program = Program::compile(link, &watched.filter().expression).unwrap();
            program.attach(receive.as_fd()).unwrap();
        }
    }
}
