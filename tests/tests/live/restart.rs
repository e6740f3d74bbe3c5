//! A daemon that is killed comes back with what it knew, and leaves nothing behind in the kernel.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::live::{BackEnd, Daemon, Host, Lab, Node, NodeOptions, Watch, eventually};
use e2e::text;

use crate::{ISOLATED, live};

#[test]
fn killed_and_started_again_it_tells_nothing_as_new_twice() {
    live!("kill -9");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let mut db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
    db.ask("load:serve()");
    for back_end in BackEnd::ALL {
        let before = in_the_kernel(&b);
        let mut daemon = Watch::new(&b, back_end).policy(ISOLATED).start();
        web.join(&db.name);
        web.ask("rpc:call('db@10.77.0.2', os, cmd, [\"id\"])");
        daemon.alert("remote-command");
        web.ask("load:call('db@10.77.0.2', 2)");
        let (mut known, mut twice) = (Known::default(), Vec::new());
        for _ in 0..3 {
            // What was told an instant ago is known as well: it is on disk before it is told.
            let watch = daemon.kill_at_once();
            twice.extend(known.take(&daemon));
            daemon = watch.launch();
            let took = daemon.captures();
            assert!(took < Duration::from_secs(1), "{}: attached after {took:?}", back_end.name());
            // On a connection of its own: of the old one nobody remembers the atoms that were sent before.
            web.ask("load:stop(0)");
            web.leave("db@10.77.0.2");
            web.join("db@10.77.0.2");
            web.ask("rpc:call('db@10.77.0.2', os, cmd, [\"id\"])");
            web.ask("load:call('db@10.77.0.2', 2)");
            daemon.hears("the command again", |record| text(&record["activity"], "mfa") == "os:cmd/1");
        }
        twice.extend(known.take(&daemon));
        assert!(twice.is_empty(), "{}: new twice: {twice:?}", back_end.name());
        web.ask("load:stop(0)");
        daemon.kill();
        eventually("nothing is left in the kernel", || (in_the_kernel(&b) == before).then_some(()));
        web.leave("db@10.77.0.2");
    }
}

/// How often the daemon of each back end is killed. `DISTWATCH_KILLS` asks for another number.
const KILLS: usize = 12;

/// What was told as new and has not ended: by its fingerprint, and by rule and node pair.
#[derive(Default)]
struct Known(BTreeSet<String>, BTreeSet<(String, String)>);

impl Known {
    /// Takes in what a daemon told. Returns what was new although it was known.
    fn take(&mut self, daemon: &Daemon) -> Vec<String> {
        let mut twice = Vec::new();
        for record in daemon.of_kind("alert") {
            let alert = &record["alert"];
            let fingerprint = text(alert, "fingerprint").to_owned();
            let pair = (text(alert, "rule_id").to_owned(), text(alert, "subject").to_owned());
            if text(alert, "status") == "resolved" {
                self.0.remove(&fingerprint);
                self.1.remove(&pair);
                continue;
            }
            let named = pair.1.contains('@');
            if text(alert, "status") == "new" && (self.0.contains(&fingerprint) || self.1.contains(&pair)) {
                twice.push(format!("{} {}", pair.0, pair.1));
            }
            self.0.insert(fingerprint);
            if named {
                self.1.insert(pair);
            }
        }
        twice
    }
}

/// Kills the daemon again and again while two nodes work on one connection, each time at another moment of its life. Returns
/// what was new twice; before each start, `meanwhile` may do something to the folder of the state.
fn kill_again_and_again(kills: usize, meanwhile: impl Fn(&Path)) -> Vec<String> {
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let mut db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
    db.ask("load:serve()");
    let mut twice = Vec::new();
    for back_end in BackEnd::ALL {
        let mut known = Known::default();
        let mut daemon = Watch::new(&b, back_end).policy(ISOLATED).start();
        web.join(&db.name);
        web.ask("rpc:call('db@10.77.0.2', os, cmd, [\"id\"])");
        web.ask("load:call('db@10.77.0.2', 2)");
        // The first thing that it tells may be the last thing that it does.
        let mut moment = 0x2545_F491_4F6C_DD1D_u64;
        for _ in 0..kills {
            moment ^= moment << 13;
            moment ^= moment >> 7;
            moment ^= moment << 17;
            daemon.hears("a finding", |record| text(record, "event_type") == "alert");
            // Real time is the very thing that is tried here.
            std::thread::sleep(Duration::from_millis(moment % 1500));
            let watch = daemon.kill_at_once();
            twice.extend(known.take(&daemon));
            meanwhile(&watch.state());
            daemon = watch.launch();
            daemon.captures();
        }
        daemon.hears("a finding", |record| text(record, "event_type") == "alert");
        daemon.hears("the link", |record| record["link"]["resumed"] == true || record["link"]["mid_stream"] == true);
        // On a connection that is read from its beginning the nodes are named, whatever is known of them.
        web.ask("load:stop(0)");
        web.leave("db@10.77.0.2");
        web.join("db@10.77.0.2");
        web.ask("rpc:call('db@10.77.0.2', os, cmd, [\"id\"])");
        daemon.hears("the command again", |record| text(&record["activity"], "mfa") == "os:cmd/1");
        daemon.alert_about("remote-command", "web@10.77.0.1 -> db@10.77.0.2");
        twice.extend(known.take(&daemon));
        assert!(known.0.len() > 1, "{}: {:?}", back_end.name(), known.1);
        drop(daemon);
        web.leave("db@10.77.0.2");
    }
    twice
}

#[test]
fn killed_at_any_moment_under_load_it_tells_nothing_as_new_that_it_told_before() {
    live!("kill -9 at any moment");
    let kills = std::env::var("DISTWATCH_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let twice = kill_again_and_again(kills, |_| ());
    assert!(twice.is_empty(), "new twice: {twice:?}");
}

#[test]
fn without_its_state_it_would_tell_everything_as_new_again() {
    live!("kill -9 without a state");
    let twice = kill_again_and_again(1, |state| std::fs::remove_dir_all(state).expect("the state is there"));
    assert!(twice.iter().any(|one| one.starts_with("remote-command")), "the test above would not notice: {twice:?}");
}

#[test]
fn a_second_daemon_does_not_touch_the_state_of_the_first_and_says_whose_it_is() {
    live!("two daemons on one state");
    let mut lab = Lab::new();
    let host = lab.host("a", 1);
    for back_end in BackEnd::ALL {
        let watch = Watch::new(&host, back_end);
        let mut first = watch.start();
        let mut second = watch.launch();
        assert_eq!(second.ends(), Some(3), "{}", second.log());
        eventually("the error", || second.log().contains("hint:").then_some(()));
        let log = second.log();
        assert!(log.contains(&format!("another daemon (process {}) has it", first.process())), "{log}");
        assert_eq!(log.matches("error:").count(), 1, "{log}");
        assert_eq!(first.status()["state"], "capturing");
        // The kernel's lock goes with the process, whatever stays in the folder.
        drop(first.kill_at_once().start());
    }
}

/// A file system that is full until it is given room; unmounted when dropped.
struct FullDisk(PathBuf);

impl FullDisk {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir_all(at).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(at).status();
        assert!(mounted.expect("mount").success());
        let disk = Self(at.to_owned());
        std::fs::write(disk.ballast(), vec![0; 1 << 20]).expect_err("it is full");
        disk
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("there is some");
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_keeps_it_from_nothing_but_to_remember_and_it_remembers_once_there_is_room() {
    live!("a full disk");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
    for back_end in BackEnd::ALL {
        let out = b.home().join(format!("{}.ndjson", back_end.name()));
        let sink = format!("{ISOLATED}\n[[sink]]\ntype = \"file\"\nname = \"log\"\npath = {out:?}\n");
        let watch = Watch::new(&b, back_end).policy(&sink);
        let disk = FullDisk::mount(&watch.state());
        let daemon = watch.start();
        web.join(&db.name);
        let told = || std::fs::read_to_string(&out).unwrap_or_default();
        eventually("the finding is told", || told().contains("cleartext-distribution").then_some(()));
        let status = daemon.status();
        assert!(status["output"]["state_failures"].as_u64() > Some(0), "{status}");
        assert!(!status["sinks"][0]["failing_since"].is_null(), "{status}");
        disk.make_room();
        eventually("it remembers", || (daemon.status()["output"]["state_failures"] == 0).then_some(()));
        eventually("the sink is well", || daemon.status()["sinks"][0]["failing_since"].is_null().then_some(()));
        let state = || std::fs::read_to_string(watch.state().join("state.json")).unwrap_or_default();
        eventually("the finding is kept", || state().contains("cleartext-distribution").then_some(()));
        daemon.stop();
        web.leave(&db.name);
    }
}

/// Programs and links of the kernel that bear our names, and filters on the host's interfaces.
fn in_the_kernel(host: &Host) -> String {
    let said = |command: &mut Command| {
        let output = command.output();
        output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let attached = said(host.observer("bpftool").args(["cgroup", "show"]).arg(host.cgroup()));
    let network = said(host.observer("bpftool").arg("net"));
    let queues = said(host.observer("tc").args(["qdisc", "show"]));
    format!("{attached}{network}{queues}")
}
