//! Whether interfaces came, went or changed: the kernel tells, so that nobody has to look again and again.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// `RTMGRP_LINK`: whoever listens is told of interfaces alone.
const OF_LINKS: u32 = 1;

/// Messages that are taken at one look. More are a change like any, and are taken at the next.
const AT_ONCE: usize = 256;

/// A socket on which the kernel tells of the interfaces of the network namespace that it was made in.
#[derive(Debug)]
pub(crate) struct LinkChanges(Option<OwnedFd>);

impl LinkChanges {
    /// Begins to listen. Where the kernel does not let it, nothing is ever told, and whoever asks looks by himself once a second.
    pub(crate) fn listen() -> Self {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // `NETLINK_ROUTE` is the protocol 0, which is what none means.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)
            .and_then(|socket| bind(&socket, &SocketAddrNetlink::new(0, OF_LINKS)).map(|()| socket));
        if let Err(error) = &socket {
            tracing::info!(%error, "the kernel does not tell of interfaces; they are looked for once a second");
        }
        Self(socket.ok())
    }

    /// Whether anything changed since this was asked last.
    pub(crate) fn any(&self) -> bool {
        let Some(socket) = &self.0 else { return false };
        let mut any = false;
        for _ in 0..AT_ONCE {
            // What it says is not read: whoever asks looks at all of them.
            match recv(socket, &mut [0_u8; 1], RecvFlags::TRUNC) {
                // There were more changes than the kernel keeps.
                Ok(_) | Err(Errno::NOBUFS) => any = true,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        any
    }
}
