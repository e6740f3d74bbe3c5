//! Interfaces that come and go beside a link that stays.
//!
//! Two nodes work on `eth0` of two hosts all the time; two others join and part over `flap0`, which is taken down, taken away, made
//! again and changed. Host `b` is watched by a daemon of each way to capture.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::lab::ip;
use super::{BackEnd, Daemon, Host, Lab, Node, NodeOptions, Watch, eventually, lost, unaccounted};
use crate::text;

/// What the flapping interface is called, and the names that are watched.
const FLAPPING: &str = "flap0";
const PATTERNS: [&str; 4] = ["--interface", "eth0", "--interface", "flap*"];

/// What can become of an interface, in turn.
#[derive(Clone, Copy, Debug)]
enum Flap {
    /// Down and up at the watched end.
    Down,
    /// Down and up at the other end, so that this one has no carrier meanwhile.
    NoCarrier,
    /// Its MTU is another.
    Mtu,
    /// Deleted, and made again.
    Deleted,
    /// The network namespace that the other end is in ends, and takes it along.
    NamespaceGone,
}

const FLAPS: [Flap; 5] = [Flap::Down, Flap::Deleted, Flap::NoCarrier, Flap::NamespaceGone, Flap::Mtu];

/// What a daemon made of it.
#[derive(Debug)]
pub struct Flapped {
    /// How it captures.
    pub what: &'static str,
    /// The longest that it took after an interface was there until it captured from it.
    pub slowest: Duration,
    /// What the kernel holds open for it, by kind, before and after.
    pub held: [BTreeMap<&'static str, usize>; 2],
    /// Counters that went back.
    pub backwards: Vec<String>,
    /// Packets that it lost.
    pub lost: u64,
    /// Packets that the books do not account for.
    pub unaccounted: i64,
    /// Octets of the steady link that are missing, and messages that could not be read because of that.
    pub missing: u64,
    /// Connections over the flapping interface that it missed.
    pub unseen: usize,
}

impl Flapped {
    /// What it holds more of than before.
    #[must_use]
    pub fn grown(&self) -> Vec<String> {
        let [before, after] = &self.held;
        let more = after.iter().filter(|(kind, count)| before.get(*kind).is_none_or(|had| had < *count));
        more.map(|(kind, count)| format!("{kind}: {} to {count}", before.get(kind).unwrap_or(&0))).collect()
    }
}

/// A daemon, and what is looked at.
struct Watched {
    what: &'static str,
    daemon: Daemon,
    /// It captures from interfaces one by one, so one that is new must be attached to.
    attaches: bool,
    slowest: Duration,
    before: BTreeMap<&'static str, usize>,
    books: Value,
    backwards: Vec<String>,
}

/// Flaps the interface so often. Returns what each daemon made of it, and how long all of it took.
///
/// # Panics
/// Where a host, a node or a daemon does not do what it should.
#[must_use]
pub fn flap(times: usize, policy: &str) -> (Vec<Flapped>, Duration) {
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    lab.cable([(&a, FLAPPING, "192.0.2.1/24"), (&b, FLAPPING, "192.0.2.2/24")]);
    let mut db = Node::start(&b, "db", "flaps", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "flaps", &NodeOptions::default());
    let at = |address: &str| NodeOptions { at: Some(address.into()), ..NodeOptions::default() };
    let far = Node::start(&b, "far", "flaps", &at("192.0.2.2"));
    let mut near = Node::start(&a, "near", "flaps", &at("192.0.2.1"));
    let mut all = watch(&b, policy);
    db.ask("load:serve()");
    web.join(&db.name);
    web.ask(&format!("load:call('{}', 4, 1)", db.name));
    // Once over it while it stands, so that whatever is opened at first is open.
    near.join(&far.name);
    near.leave(&far.name);
    for one in &mut all {
        one.daemon.link(&web.name, &db.name, "ok");
        one.daemon.link(&near.name, &far.name, "ok");
        one.before = held(&one.daemon);
    }
    let begin = Instant::now();
    for flap in FLAPS.iter().cycle().take(times) {
        flap.happens(&lab, &a, &b);
        let up = Instant::now();
        // Before anybody says a word over it.
        for one in all.iter_mut().filter(|one| one.attaches) {
            eventually("the interface is watched", || attached(&b, one).then_some(()));
            // The capture thread answers when it has done all that it was about.
            drop(one.daemon.status());
            one.slowest = one.slowest.max(up.elapsed());
        }
        eventually("the nodes are joined", || near.connect(&far.name).then_some(()));
        near.leave(&far.name);
        all.iter_mut().for_each(Watched::look);
    }
    let took = begin.elapsed();
    web.ask("load:stop(0)");
    web.leave(&db.name);
    (all.into_iter().map(|one| one.end(times, &web.name, [&near.name, &far.name])).collect(), took)
}

fn watch(host: &Host, policy: &str) -> Vec<Watched> {
    let by_interface = |back_end| Watch::on_interfaces(host, back_end).words(&PATTERNS);
    let ways = [
        ("eBPF, cgroup", Watch::new(host, BackEnd::Ebpf), false),
        ("eBPF, interfaces", by_interface(BackEnd::Ebpf), true),
        ("libpcap, any", Watch::new(host, BackEnd::Pcap), false),
        ("libpcap, interfaces", by_interface(BackEnd::Pcap), true),
    ];
    let launched = ways.map(|(what, watch, attaches)| (what, watch.policy(policy).launch(), attaches));
    let started = launched.into_iter().map(|(what, daemon, attaches)| {
        daemon.captures();
        let books = daemon.status()["capture"].clone();
        let (before, backwards) = (BTreeMap::new(), Vec::new());
        Watched { what, daemon, attaches, slowest: Duration::ZERO, before, books, backwards }
    });
    started.collect()
}

impl Flap {
    fn happens(self, lab: &Lab, a: &Host, b: &Host) {
        let down_and_up = |host: &Host| ["down", "up"].map(|to| host.ip(&["link", "set", FLAPPING, to]));
        let again = || lab.cable([(a, FLAPPING, "192.0.2.1/24"), (b, FLAPPING, "192.0.2.2/24")]);
        match self {
            Self::Down => drop(down_and_up(b)),
            Self::NoCarrier => drop(down_and_up(a)),
            Self::Mtu => ["1400", "1500"].into_iter().for_each(|mtu| b.ip(&["link", "set", FLAPPING, "mtu", mtu])),
            Self::Deleted => {
                b.ip(&["link", "del", FLAPPING]);
                again();
            }
            Self::NamespaceGone => {
                let gone = format!("{}-gone", b.namespace());
                a.ip(&["link", "del", FLAPPING]);
                ip(&["netns", "add", &gone]);
                let pair = ["link", "add", FLAPPING, "netns", b.namespace(), "type", "veth", "peer", "netns", &gone];
                ip(&pair);
                b.ip(&["link", "set", FLAPPING, "up"]);
                ip(&["netns", "del", &gone]);
                eventually("the interface went with the namespace", || {
                    (!interfaces(b).contains(FLAPPING)).then_some(())
                });
                again();
            }
        }
    }
}

impl Watched {
    /// Takes note of counters that went back.
    fn look(&mut self) {
        let now = self.daemon.status()["capture"].clone();
        for (name, before) in numbers(&self.books) {
            let after = numbers(&now).get(&name).copied().unwrap_or(0);
            if after < before {
                self.backwards.push(format!("{name}: {before} to {after}"));
            }
        }
        self.books = now;
    }

    fn end(mut self, joined: usize, steady: &str, flapping: [&str; 2]) -> Flapped {
        let unaccounted = |books: &Value| unaccounted(books);
        // What is under way is so for an instant, and an interface that is gone is held for another.
        let deadline = Instant::now() + Duration::from_secs(5);
        let after = loop {
            let (after, books) = (held(&self.daemon), self.daemon.status()["capture"].clone());
            if (after == self.before && unaccounted(&books) == 0) || Instant::now() > deadline {
                break after;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        self.look();
        let (lost, unaccounted) = (lost(&self.books), unaccounted(&self.books));
        let links: Vec<Value> = self
            .daemon
            .stop()
            .records
            .into_iter()
            .map(|mut record| record["link"].take())
            .filter(|link| !link.is_null())
            .collect();
        let of = |node: &str, change: &str| {
            let ours =
                links.iter().filter(|link| text(&link["initiator"], "node") == node && text(link, "change") == change);
            ours.cloned().collect::<Vec<Value>>()
        };
        let missing = of(steady, "closed").iter().filter_map(|link| link["missing_bytes"].as_u64()).sum();
        // Either of them may be the one that begins it.
        let seen: usize = flapping.iter().map(|node| of(node, "handshake").len()).sum();
        let unseen = (joined + 1).saturating_sub(seen);
        let Self { what, slowest, before, backwards, .. } = self;
        Flapped { what, slowest, held: [before, after], backwards, lost, unaccounted, missing, unseen }
    }
}

/// Every number of the books, with the words that lead to it.
fn numbers(books: &Value) -> BTreeMap<String, u64> {
    let fields = books.as_object().into_iter().flatten();
    let all = fields.flat_map(|(name, value)| match value {
        Value::Object(parts) => parts.iter().map(|(part, value)| (format!("{name}.{part}"), value.as_u64())).collect(),
        value => vec![(name.clone(), value.as_u64())],
    });
    all.filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Whether the kernel has what the daemon needs to capture from the flapping interface as it is now.
fn attached(host: &Host, watched: &Watched) -> bool {
    let process = watched.daemon.process();
    let interfaces = interfaces(host);
    let line = interfaces.lines().find(|line| line.contains(FLAPPING));
    let index = line.and_then(|line| line.split(':').next()).expect("the interface is there");
    match watched.daemon.back_end() {
        BackEnd::Ebpf => {
            let there = format!("ifindex:\t{index}\n");
            about_files(process).iter().filter(|text| text.contains("tcx") && text.contains(&there)).count() == 2
        }
        BackEnd::Pcap => {
            // The index stands in the fifth column.
            let sockets = fs::read_to_string(format!("/proc/{process}/net/packet")).expect("the daemon lives");
            sockets.lines().any(|line| line.split_whitespace().nth(4) == Some(index))
        }
    }
}

fn interfaces(host: &Host) -> String {
    let output = host.observer("ip").args(["-o", "link"]).output().expect("ip");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a daemon has open: files, and among them links, maps and programs of eBPF.
fn held(daemon: &Daemon) -> BTreeMap<&'static str, usize> {
    let texts = about_files(daemon.process());
    let with = |word: &str| texts.iter().filter(|text| text.lines().any(|line| line.starts_with(word))).count();
    [("files", texts.len()), ("links", with("link_id:")), ("maps", with("map_id:")), ("programs", with("prog_id:"))]
        .into()
}

/// What the kernel says of each file that a process has open.
fn about_files(process: u32) -> Vec<String> {
    let files = fs::read_dir(format!("/proc/{process}/fdinfo")).expect("the daemon lives");
    files.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect()
}
