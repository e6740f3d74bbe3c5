//! What tests of live parts share: network namespaces of their own.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Whether this machine lets the tests make network namespaces; says loudly what is skipped where not.
pub(crate) fn has_namespaces(test: &str) -> bool {
    let may = rustix::process::geteuid().is_root() && Command::new("ip").arg("-V").output().is_ok();
    let made = may && Namespace::try_new("probe").is_some();
    if !made {
        eprintln!("SKIPPED: {test}: network namespaces take root and iproute2");
    }
    made
}

/// A network namespace that is removed with all that is in it.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new(role: &str) -> Self {
        Self::try_new(role).expect("a network namespace can be made")
    }

    fn try_new(role: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = Self { name: format!("dwt{}-{number}-{role}", std::process::id()) };
        try_ip(&["netns", "add", &namespace.name]).then_some(())?;
        namespace.ip(&["link", "set", "lo", "up"]);
        Some(namespace)
    }

    /// Runs `ip` in it.
    pub(crate) fn ip(&self, arguments: &[&str]) {
        let all = [&["-n", &self.name], arguments].concat();
        assert!(try_ip(&all), "ip {all:?}");
    }

    /// Joins two of them with a veth pair, `eth-NAME` on each side: 10.9.NUMBER.1 and .2, fd09:NUMBER::1 and ::2.
    pub(crate) fn join(&self, other: &Self, link: &str, number: u8) {
        self.ip(&["link", "add", link, "type", "veth", "peer", "name", link, "netns", &other.name]);
        for (side, end) in [(self, 1), (other, 2)] {
            side.ip(&["addr", "add", &format!("10.9.{number}.{end}/24"), "dev", link]);
            side.ip(&["addr", "add", &format!("fd09:{number}::{end}/64"), "dev", link, "nodad"]);
            side.ip(&["link", "set", link, "up"]);
        }
    }

    /// Does something in a thread that is in it.
    pub(crate) fn run<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = File::open(format!("/run/netns/{}", self.name)).expect("it exists as long as this");
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter");
                what()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        try_ip(&["netns", "del", &self.name]);
    }
}

fn try_ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).status().is_ok_and(|status| status.success())
}
