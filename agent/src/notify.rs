//! What the service manager is told: started, reloading, how it goes, still alive, stopping (`sd_notify(3)`).
//!
//! Where nobody asked for it (no `NOTIFY_SOCKET`), nothing is sent. What cannot be sent is logged and forgotten: the service
//! manager's trouble must not become the monitor's.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::clocks;

/// How long a message may take to be taken.
const PATIENCE: Duration = Duration::from_secs(1);

/// The start is over: everything that was asked for is captured.
pub fn ready(status: &str) {
    send(&format!("READY=1\nSTATUS={}\n", one_line(status)));
}

/// The configuration is being loaded anew; [`ready`] says that this is over.
pub fn reloading() {
    let microseconds = clocks::monotonic() / 1000;
    // systemd takes the one only with the other, by which it knows that this answers its last request.
    send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\n"));
}

/// How it goes, in a few words for `systemctl status`.
pub fn status(status: &str) {
    send(&format!("STATUS={}\n", one_line(status)));
}

/// It is alive. To be said more often than [`watchdog_interval`] tells, by whoever would hang if anything did.
pub fn alive() {
    send("WATCHDOG=1\n");
}

/// The end has begun; what is under way is being brought to its end.
pub fn stopping(status: &str) {
    send(&format!("STOPPING=1\nSTATUS={}\n", one_line(status)));
}

/// How often to say [`alive`]: half of the time that the service manager waits; none where it does not watch this process.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let is_meant = env::var_os("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(std::process::id().into());
    let patience = number("WATCHDOG_USEC").filter(|&patience| is_meant && patience > 1)?;
    Some(Duration::from_micros(patience / 2))
}

/// What follows on a line of its own would be another message.
fn one_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn send(message: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let sent = address(name.as_bytes()).and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        // A service manager that does not read must not hold anything back for long.
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.send_to_addr(message.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// A path, or with `@` in front a name that is in no file system.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_so_that_none_of_it_is_taken_for_another_message() {
        assert_eq!(one_line("3 links\nWATCHDOG=trigger"), "3 links");
        assert_eq!(one_line(""), "");
    }
}
