//! One interface that is open, and where its packets went.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use distwatch_engine::packet::LinkType;
use pcap::{Active, Capture, Linktype, Packet, Precision, Stat};

use super::program::{Program, RAW};
use super::{ANY, Options};

/// Reads of a handle that fail one after the other until it is closed.
const MOST_FAILURES: u32 = 3;

/// More than any packet has: packets are taken whole. A packet that the network card is to cut up has up to 64 KiB and a
/// link header, with "big TCP" more.
const SNAP_LENGTH: i32 = 262_144;

/// Why an interface could not be opened.
#[derive(Debug)]
pub(super) struct NotOpened {
    pub(super) reason: String,
    pub(super) forbidden: bool,
}

/// An open interface.
pub(super) struct Handle {
    pub(super) name: String,
    /// Its index; 0 for `any`.
    pub(super) index: u32,
    pub(super) link: Linktype,
    capture: Capture<Active>,
    last: Stat,
    handed: u64,
    received: u64,
    dropped: u64,
    failures: u32,
    /// Since when it is known that nothing more will come.
    pub(super) ending: Option<Instant>,
}

/// What the kernel counted since it was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Packets that the filter let through, whether there was room for them or not.
    pub(super) received: u64,
    /// Those of them for which there was none.
    pub(super) dropped: u64,
    /// Packets of any kind that the interface lost before any filter saw them.
    pub(super) lost_by_the_interface: u64,
}

impl Handle {
    /// Opens an interface and sets the filter.
    pub(super) fn open(name: &str, index: u32, options: &Options, expression: &str) -> Result<Self, NotOpened> {
        let milliseconds = i32::try_from(options.latency.as_millis()).unwrap_or(i32::MAX);
        let capture = Capture::from_device(name)
            .and_then(|inactive| {
                inactive
                    .snaplen(SNAP_LENGTH)
                    // `any` has no such mode, and libpcap warns where it is asked for.
                    .promisc(options.promiscuous && name != ANY)
                    .buffer_size(i32::try_from(options.buffer_size).unwrap_or(i32::MAX))
                    .immediate_mode(options.latency.is_zero())
                    .timeout(milliseconds.max(1))
                    .precision(Precision::Nano)
                    .open()
            })
            .and_then(Capture::setnonblock);
        let mut capture = capture.map_err(|error| NotOpened::from_libpcap(&error))?;
        // Version 2 says which interface; libpcap before 1.10 does not have it.
        if name == ANY {
            let _ = capture.set_datalink(Linktype::LINUX_SLL2);
        }
        let link = capture.get_datalink();
        let last = Stat { received: 0, dropped: 0, if_dropped: 0 };
        let mut handle = Self {
            name: name.to_owned(),
            index,
            link,
            capture,
            last,
            handed: 0,
            received: 0,
            dropped: 0,
            failures: 0,
            ending: None,
        };
        handle
            .filter(expression)
            .map_err(|error| NotOpened { reason: format!("its filter cannot be set: {error}"), forbidden: false })?;
        Ok(handle)
    }

    /// Exchanges the filter.
    pub(super) fn filter(&mut self, expression: &str) -> io::Result<()> {
        Program::compile(self.link, expression)?.attach(self.capture.as_fd())
    }

    /// Hands over what is there, at most `most`.
    pub(super) fn read(&mut self, most: usize, mut take: impl FnMut(&Packet<'_>)) -> usize {
        let mut taken = 0;
        let result = self.capture.dispatch(Some(most), |packet| {
            taken += 1;
            take(&packet);
        });
        self.handed += taken as u64;
        match result {
            Ok(_) => self.failures = 0,
            // An interface that went down says so once, and comes back by itself.
            Err(error) => {
                self.failures += 1;
                tracing::debug!(interface = self.name, %error, "cannot read");
                if self.failures >= MOST_FAILURES {
                    self.ending.get_or_insert_with(Instant::now);
                }
            }
        }
        taken
    }

    /// What the kernel counted since the last time. libpcap's totals have 32 bits and wrap.
    pub(super) fn count(&mut self) -> Counted {
        let Ok(now) = self.capture.stats() else {
            return Counted::default();
        };
        let counted = since(self.last, now);
        self.last = now;
        self.received += counted.received;
        self.dropped += counted.dropped;
        counted
    }

    /// Packets that wait in the buffer, as far as the kernel has counted them.
    pub(super) const fn waiting(&self) -> u64 {
        self.received.saturating_sub(self.dropped + self.handed)
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.capture.as_fd()
    }

    /// The link layer's number in the registry, which differs from libpcap's own only for plain IP.
    pub(super) fn link_type(&self) -> LinkType {
        match self.link {
            Linktype(RAW) => LinkType::RAW,
            Linktype(other) => LinkType(u16::try_from(other).unwrap_or(u16::MAX)),
        }
    }
}

const fn since(last: Stat, now: Stat) -> Counted {
    Counted {
        received: now.received.wrapping_sub(last.received) as u64,
        dropped: now.dropped.wrapping_sub(last.dropped) as u64,
        lost_by_the_interface: now.if_dropped.wrapping_sub(last.if_dropped) as u64,
    }
}

impl NotOpened {
    fn from_libpcap(error: &pcap::Error) -> Self {
        let reason = match error {
            pcap::Error::PcapError(text) if text.is_empty() => "it is down".to_owned(),
            pcap::Error::PcapError(text) => text.clone(),
            other => other.to_string(),
        };
        // libpcap gives text only. Its words for EPERM are these.
        let lower = reason.to_lowercase();
        let forbidden = ["permi", "cap_net_raw", "not permitted"].iter().any(|words| lower.contains(words));
        Self { reason, forbidden }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_wrap_go_on() {
        let last = Stat { received: u32::MAX - 1, dropped: 3, if_dropped: u32::MAX };
        let now = Stat { received: 5, dropped: 10, if_dropped: 0 };
        assert_eq!(since(last, now), Counted { received: 7, dropped: 7, lost_by_the_interface: 1 });
    }
}
