//! `[capture]`: where the daemon's packets come from.

use super::Plain;
use crate::config::form::{Bytes, List, Maybe, Name, PathName, Word, Words};
use crate::config::key::key;
use crate::config::{BackEnd, Config};

pub(super) const SECTION: Plain = Plain {
    name: "capture",
    help: "Where the daemon's packets come from. A change takes a restart.",
    keys: &[
        key!(
            "back_end",
            Word<BackEnd>,
            Config.capture.back_end,
            "How packets are captured: by \"ebpf\" (programs in the kernel, which copy only what is needed), by \"pcap\" \
             (libpcap), or \"auto\": by eBPF where the kernel takes it, else by libpcap."
        ),
        key!(
            "cgroup",
            Maybe<PathName>,
            Config.capture.cgroup,
            "By eBPF: the folder of a cgroup (version 2) of which alone the sockets are watched."
        )
        .example(r#""/sys/fs/cgroup/system.slice""#)
        .unset("all sockets of the host, those in containers included"),
        key!(
            "interfaces",
            List<Name>,
            Config.capture.interfaces,
            "Interfaces by name or pattern that are watched instead of the whole host. Those that appear later are taken up."
        )
        .example(r#"["eth0", "veth*"]"#),
        key!(
            "ring",
            Bytes<4096, { 1 << 30 }>,
            Config.capture.ring,
            "By eBPF: the ring between the kernel and the daemon. What does not fit into it is lost, and counted."
        ),
        key!(
            "buffer",
            Bytes<{ 1 << 20 }, { 1 << 30 }>,
            Config.capture.buffer,
            "By libpcap: the kernel's buffer for one interface. What does not fit into it is lost, and counted."
        ),
    ],
};

impl Words for BackEnd {
    const WORDS: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("ebpf", Self::Ebpf), ("pcap", Self::Pcap)];
}
