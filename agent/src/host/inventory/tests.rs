//! Real nodes and a real EPMD, in network namespaces.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::super::epmd;
use super::*;
use crate::testing::{Namespace, has_namespaces};

const COOKIE: &str = "N0bodyMaySeeThis";
const DEADLINE: Duration = Duration::from_secs(30);

/// A process that ends with the test. A node reads its standard input, and ends with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn can_run(test: &str) -> bool {
    let erl = Command::new("erl").args(["-noshell", "-eval", "halt()."]).status();
    if !erl.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: {test}: Erlang is not installed (`cargo xtask setup` installs it)");
        return false;
    }
    has_namespaces(test)
}

fn start(namespace: &Namespace, command: &mut Command) -> Running {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    Running(namespace.run(|| command.spawn().expect("it is installed")))
}

fn node(namespace: &Namespace, arguments: &[&str]) -> Running {
    let mut command = Command::new("erl");
    command.args(["-start_epmd", "false", "-noinput", "-setcookie", COOKIE]).args(arguments);
    start(namespace, &mut command)
}

/// Scans until there is what is waited for.
fn wait(inventory: &mut Inventory, is_there: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let snapshot = inventory.scan().unwrap();
        if is_there(&snapshot) {
            return snapshot;
        }
        assert!(Instant::now() < deadline, "it does not come: {snapshot:#?}");
        std::thread::yield_now();
    }
}

/// The listeners of the namespace that was looked from; other tests have theirs in others.
fn listeners(snapshot: &Snapshot, role: Role) -> Vec<&Listener> {
    let own = |listener: &&Listener| listener.role == role && listener.namespace == snapshot.own_namespace;
    snapshot.listeners.iter().filter(own).collect()
}

/// The connections of distribution there.
fn links(snapshot: &Snapshot) -> Vec<&Connection> {
    let own = |one: &&Connection| one.role == Some(Role::Distribution) && one.namespace == snapshot.own_namespace;
    snapshot.connections.iter().filter(own).collect()
}

fn node_of(process: Option<&Arc<Process>>) -> Option<&str> {
    process?.node.as_deref()
}

#[test]
fn nodes_and_their_port_mapper_are_found_with_their_connections() {
    if !can_run("the inventory of a host with nodes") {
        return;
    }
    let space = Namespace::new("host");
    let _epmd = start(&space, &mut Command::new("epmd"));
    let mut inventory = Inventory::new(Options::default());
    let port_mapper = space.run(|| wait(&mut inventory, |snapshot| !listeners(snapshot, Role::Epmd).is_empty()));
    let found = listeners(&port_mapper, Role::Epmd);
    assert_eq!(found[0].at, "0.0.0.0:4369".parse().unwrap());
    assert_eq!(found[0].why, Why::IsEpmd);
    assert!(found[0].process.as_ref().unwrap().exe.as_ref().unwrap().ends_with("/epmd"));

    let _web = node(&space, &["-name", "web@127.0.0.1"]);
    let is_listening = |snapshot: &Snapshot| listeners(snapshot, Role::Distribution).len() == 1;
    let one = space.run(|| wait(&mut inventory, is_listening));
    let web = listeners(&one, Role::Distribution)[0].clone();
    assert_eq!(web.why, Why::OnlyListener);
    assert_eq!(node_of(web.process.as_ref()), Some("web@127.0.0.1"));
    assert!(!web.tls);

    let connect = "pong = net_adm:ping('web@127.0.0.1'), {ok, _} = gen_tcp:listen(8080, []), timer:sleep(infinity).";
    let _db = node(&space, &["-name", "db@127.0.0.1", "-eval", connect]);
    let two = space.run(|| {
        wait(&mut inventory, |snapshot| links(snapshot).len() == 2 && listeners(snapshot, Role::Candidate).len() == 2)
    });
    let ends: BTreeSet<(bool, Option<&str>)> =
        links(&two).iter().map(|one| (one.accepted, node_of(one.process.as_ref()))).collect();
    assert_eq!(ends, BTreeSet::from([(true, Some("web@127.0.0.1")), (false, Some("db@127.0.0.1"))]));
    assert!(links(&two).iter().all(|one| one.cookie != 0), "netlink tells them");
    // Which of db's two listeners is its distribution is EPMD's to say.
    let at = "127.0.0.1:4369".parse().unwrap();
    let names = space.run(|| epmd::names(at, Duration::from_secs(5)).unwrap());
    assert_eq!(names.iter().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>(), BTreeSet::from(["db", "web"]));
    inventory.learn_registered(names);
    let known = space.run(|| inventory.scan().unwrap());
    assert_eq!(listeners(&known, Role::Distribution).len(), 2);
    assert!(listeners(&known, Role::Distribution).iter().all(|listener| listener.why == Why::Registered));
    assert_eq!(listeners(&known, Role::Candidate)[0].at.port(), 8080);

    // From outside the namespace it is another host's worth of sockets, as a container is.
    let mut outside = Inventory::new(Options::default());
    let seen = wait(&mut outside, |snapshot| {
        snapshot.listeners.iter().any(|listener| node_of(listener.process.as_ref()) == Some("web@127.0.0.1"))
    });
    let theirs =
        seen.listeners.iter().find(|listener| node_of(listener.process.as_ref()) == Some("web@127.0.0.1")).unwrap();
    assert_ne!(theirs.namespace, seen.own_namespace);
    assert_eq!((theirs.role, theirs.at), (Role::Distribution, web.at));
    assert!(seen.other_namespaces >= 1);

    let printed = format!("{known:?} {inventory:?} {seen:?}");
    assert!(!printed.contains(COOKIE), "no cookie is ever kept");
}

#[test]
fn a_port_range_on_the_command_line_tells_distribution_from_other_servers() {
    if !can_run("the ports on a command line") {
        return;
    }
    let space = Namespace::new("range");
    let _epmd = start(&space, &mut Command::new("epmd"));
    let mut inventory = Inventory::new(Options::default());
    space.run(|| wait(&mut inventory, |snapshot| !listeners(snapshot, Role::Epmd).is_empty()));
    let eval = "{ok, _} = gen_tcp:listen(8080, []), timer:sleep(infinity).";
    let range = ["-kernel", "inet_dist_listen_min", "9100", "inet_dist_listen_max", "9105"];
    let _node = node(&space, &[&["-sname", "shop", "-eval", eval][..], &range].concat());
    let both = |snapshot: &Snapshot| {
        [Role::Distribution, Role::Candidate].iter().map(|&role| listeners(snapshot, role).len()).sum::<usize>() == 2
    };
    let found = space.run(|| wait(&mut inventory, both));
    assert_eq!(listeners(&found, Role::Candidate)[0].at.port(), 8080);
    let distribution = listeners(&found, Role::Distribution)[0];
    assert_eq!((distribution.at.port(), distribution.why), (9100, Why::CommandLine));
    let host = rustix::system::uname().nodename().to_string_lossy().split('.').next().unwrap().to_owned();
    assert_eq!(node_of(distribution.process.as_ref()), Some(format!("shop@{host}").as_str()));
}

#[test]
fn without_the_right_to_look_the_only_node_of_a_user_is_taken_for_the_owner() {
    if !can_run("attribution without privileges") {
        return;
    }
    const NOBODY: u32 = 65_534;
    let space = Namespace::new("bare");
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let as_nobody = |command: &mut Command| {
        command.uid(NOBODY).gid(NOBODY).current_dir(home.path()).env("HOME", home.path());
    };
    let mut port_mapper = Command::new("epmd");
    as_nobody(&mut port_mapper);
    // EPMD is another user's, or there would be two candidates.
    port_mapper.uid(NOBODY - 1);
    let _epmd = start(&space, &mut port_mapper);
    let mut command = Command::new("erl");
    command.args(["-start_epmd", "false", "-noinput", "-setcookie", COOKIE, "-name", "lonely@127.0.0.1"]);
    as_nobody(&mut command);
    let bare = || {
        let nothing = rustix::thread::CapabilitySets {
            effective: rustix::thread::CapabilitySet::empty(),
            permitted: rustix::thread::CapabilitySet::empty(),
            inheritable: rustix::thread::CapabilitySet::empty(),
        };
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(NOBODY - 2)).unwrap();
        rustix::thread::set_capabilities(None, nothing).unwrap();
    };
    let mut inventory = Inventory::new(Options::default());
    space.run(|| wait(&mut inventory, |snapshot| !listeners(snapshot, Role::Epmd).is_empty()));
    let _node = start(&space, &mut command);
    space.run(|| wait(&mut inventory, |snapshot| listeners(snapshot, Role::Distribution).len() == 1));
    let seen = space.run(|| {
        bare();
        Inventory::new(Options::default()).scan().unwrap()
    });
    assert!(seen.left_out.forbidden > 0 && seen.left_out.descriptors, "{:?}", seen.left_out);
    let node = &listeners(&seen, Role::Distribution)[0];
    assert_eq!(node_of(node.process.as_ref()), Some("lonely@127.0.0.1"));
    assert_eq!(node.process.as_ref().unwrap().user.as_deref(), Some("nobody"));
}

#[test]
fn a_scan_looks_at_so_many_processes_and_the_next_goes_on() {
    // Three processes in a folder of our own, of which two are looked at in one scan.
    let proc = tempfile::tempdir().unwrap();
    for pid in [10, 20, 30] {
        let folder = proc.path().join(pid.to_string());
        std::fs::create_dir(&folder).unwrap();
        let stat = format!("{pid} (beam.smp) S 1{}", " 7".repeat(30));
        for (file, content) in [
            ("stat", stat.as_str()),
            ("cmdline", "/opt/erts/bin/beam.smp\0-name\0n@h\0-setcookie\0secret\0"),
            ("status", "Name:\tbeam.smp\nUid:\t0\t0\t0\t0\n"),
            ("cgroup", "0::/system.slice/shop.service\n"),
        ] {
            write!(std::fs::File::create(folder.join(file)).unwrap(), "{content}").unwrap();
        }
    }
    let options = Options { proc: proc.path().to_owned(), processes: 2, ..Options::default() };
    let mut inventory = Inventory::new(options);
    let first = inventory.scan().unwrap();
    assert_eq!((first.processes.len(), first.left_out.processes), (2, 1));
    let second = inventory.scan().unwrap();
    assert_eq!(second.processes.len(), 3);
    assert_eq!(second.processes[0].unit.as_deref(), Some("shop.service"));
    assert_eq!(second.processes[0].exe.as_deref(), Some("/opt/erts/bin/beam.smp"));
    std::fs::remove_dir_all(proc.path().join("20")).unwrap();
    let third = inventory.scan().unwrap();
    assert_eq!(third.processes.iter().map(|process| process.pid).collect::<Vec<_>>(), [10, 30]);
}
