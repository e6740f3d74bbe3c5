//! Programs on interfaces, and what is left when whoever attached them is killed.

use std::process::Command;
use std::time::Instant;

use distwatch::source::ebpf::Options;
use distwatch::source::live::LiveSource;
use distwatch_engine::event::Expected;
use distwatch_engine::packet::LinkType;

use super::host::{Cgroup, FIN, PATIENCE, SYN, Watch, ip};
use super::patterned;
use super::peer::Peer;

/// A veth pair from here into a namespace: 10.98.NET.1 here, 10.98.NET.2 there.
struct Cable {
    here: String,
    namespace: String,
    net: u8,
}

impl Cable {
    fn new(net: u8) -> Self {
        let id = std::process::id();
        let cable = Self { here: format!("dwv{net}-{id}"), namespace: format!("dwe{id}-{net}"), net };
        ip(&["netns", "add", &cable.namespace]);
        cable.plug();
        cable
    }

    fn plug(&self) {
        let (here, there) = (self.here.as_str(), self.namespace.as_str());
        ip(&["link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", there]);
        ip(&["address", "add", &format!("10.98.{}.1/24", self.net), "dev", here]);
        ip(&["link", "set", here, "up"]);
        ip(&["-n", there, "address", "add", &format!("10.98.{}.2/24", self.net), "dev", "eth0"]);
        ip(&["-n", there, "link", "set", "eth0", "up"]);
    }

    fn options(&self, classic: bool) -> Options {
        let interfaces = vec![format!("{}*", self.here)];
        Options { interfaces, classic, ring: 1 << 20, flows: 1024, ..Options::default() }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.namespace]).status();
        let _ = Command::new("ip").args(["link", "delete", &self.here]).stderr(std::process::Stdio::null()).status();
    }
}

/// From the namespace to here: all of it, once, with its Ethernet header.
fn a_connection_is_handed_over(watch: &mut Watch, cable: &Cable, cgroup: &Cgroup) {
    let mut here = Peer::in_cgroup(cgroup.path());
    let mut there = Peer::in_namespace(cgroup.path(), &cable.namespace);
    let server = here.listen(&format!("10.98.{}.1", cable.net));
    watch.source.watch(server, Expected::Distribution).unwrap();
    let client = there.order(&format!("connect {server} 0")).parse().unwrap();
    here.order("accept");
    there.order("write client 20000");
    here.order("read server 20000");
    there.order("close");
    here.order("close");
    watch.until("the end", |watch| watch.with(FIN) >= 2);
    assert_eq!(watch.payload(client), patterned(20_000));
    assert_eq!(watch.with(SYN), 2);
    assert!(watch.seen.iter().all(|seen| seen.link == LinkType::ETHERNET));
    assert!(watch.interfaces().iter().all(|(_, name)| *name == cable.here));
    watch.balance_after_clear();
    watch.seen.clear();
}

fn interfaces_that_come_and_go(net: u8, classic: bool) {
    let Some(cgroup) = Cgroup::new(&format!("cable{net}")) else { return };
    let cable = Cable::new(net);
    let Some(mut watch) = Watch::open(&cable.options(classic)) else { return };
    assert_eq!(watch.source.attachments().len(), 1, "{:?}", watch.source.attachments());
    if classic {
        assert_eq!(watch.source.attachments(), [format!("clsact on {}", cable.here)]);
    }
    a_connection_is_handed_over(&mut watch, &cable, &cgroup);
    ip(&["link", "delete", &cable.here]);
    watch.source.refresh().unwrap();
    assert!(watch.source.attachments().is_empty());
    cable.plug();
    watch.source.refresh().unwrap();
    assert_eq!(watch.source.attachments().len(), 1);
    a_connection_is_handed_over(&mut watch, &cable, &cgroup);
}

#[test]
fn an_interface_is_watched_also_when_it_was_gone_meanwhile() {
    interfaces_that_come_and_go(1, false);
}

#[test]
fn so_it_is_with_clsact() {
    interfaces_that_come_and_go(2, true);
}

/// The programs of this test's name that the kernel has, by their identifiers.
fn programs() -> Vec<u32> {
    let all = aya::programs::loaded_programs().filter_map(Result::ok);
    all.filter(|program| program.name_as_str().is_some_and(|name| name.starts_with("dw_")))
        .map(|program| program.id())
        .collect()
}

#[test]
fn a_process_that_is_killed_leaves_nothing_of_cgroups_behind() {
    let Some(cgroup) = Cgroup::new("killed") else { return };
    if Watch::open(&cgroup.options()).is_none() {
        return;
    }
    let mut holder = Peer::in_cgroup(cgroup.path());
    let before = programs();
    holder.order(&format!("hold {}", cgroup.path().display()));
    let made: Vec<u32> = programs().into_iter().filter(|id| !before.contains(id)).collect();
    assert!(made.len() >= 2, "{made:?}");
    // With SIGKILL.
    drop(holder);
    let deadline = Instant::now() + PATIENCE;
    while programs().iter().any(|id| made.contains(id)) {
        assert!(Instant::now() < deadline, "programs are left: {made:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn what_a_killed_process_left_of_clsact_is_replaced() {
    let Some(cgroup) = Cgroup::new("left") else { return };
    let cable = Cable::new(4);
    if Watch::open(&cable.options(true)).is_none() {
        return;
    }
    let mut holder = Peer::in_cgroup(cgroup.path());
    holder.order(&format!("hold classic:{}", cable.here));
    drop(holder);
    let mut watch = Watch::open(&cable.options(true)).unwrap();
    for hook in ["ingress", "egress"] {
        let shown = Command::new("tc").args(["filter", "show", "dev", &cable.here, hook]).output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert_eq!(shown.lines().filter(|line| line.contains(" dw_ether_")).count(), 1, "{shown}");
    }
    a_connection_is_handed_over(&mut watch, &cable, &cgroup);
}
