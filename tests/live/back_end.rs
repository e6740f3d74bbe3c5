//! Both back ends at once, on the same traffic.

use std::time::{Duration, Instant};

use super::{Daemon, Host, PATIENCE, Picture, Watch};

/// A way to capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackEnd {
    /// Programs in the kernel, at the host's cgroup.
    Ebpf,
    /// libpcap, in the host's network.
    Pcap,
}

impl BackEnd {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Ebpf, Self::Pcap];

    /// The word of the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Pcap => "pcap",
        }
    }
}

/// A daemon of each back end on one host.
pub struct Monitors {
    daemons: Vec<Daemon>,
}

impl Monitors {
    /// Starts them with this policy, and waits until both capture.
    #[must_use]
    pub fn start(host: &Host, policy: &str) -> Self {
        let launched: Vec<Daemon> =
            BackEnd::ALL.iter().map(|&back_end| Watch::new(host, back_end).policy(policy).launch()).collect();
        launched.iter().for_each(|daemon| {
            daemon.captures();
        });
        Self { daemons: launched }
    }

    /// The daemons.
    #[must_use]
    pub fn all(&self) -> &[Daemon] {
        &self.daemons
    }

    /// Asks the same of each.
    pub fn each(&self, expect: impl Fn(&Daemon)) {
        self.daemons.iter().for_each(expect);
    }

    /// Waits until both tell the same, ends them in order, and compares what they saw to the end: the same links, nodes,
    /// activity and alerts.
    ///
    /// # Panics
    /// Where they differ.
    pub fn agree(self) -> Picture {
        // One may be some milliseconds behind the other; at the end there is no such excuse.
        let deadline = Instant::now() + PATIENCE;
        let same =
            || self.daemons.windows(2).all(|two| Picture::of(&two[0].records()) == Picture::of(&two[1].records()));
        while !same() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let pictures: Vec<Picture> =
            self.daemons.into_iter().map(|daemon| Picture::of(&daemon.stop().records)).collect();
        let [ebpf, pcap] = pictures.as_slice() else { panic!("two back ends") };
        assert!(ebpf == pcap, "the back ends saw different things:\n{}", ebpf.difference(pcap));
        ebpf.clone()
    }
}
