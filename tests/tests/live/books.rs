//! Every packet is in the books: seen is what was handled, set aside, counted, refused or lost.

use e2e::live::{BackEnd, Daemon, Lab, Monitors, Node, NodeOptions, Watch, eventually, lost, unaccounted};
use e2e::text;
use serde_json::Value;

use crate::{ISOLATED, live};

#[test]
fn the_books_balance_under_load() {
    live!("books");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let monitors = Monitors::start(&b, ISOLATED);
    let (mut web, mut db) = pair(&a, &b);
    work(&mut web, &mut db);
    monitors.each(|daemon| {
        let books = balanced(daemon);
        assert!(books["seen"].as_u64() > Some(1000), "{books}");
        assert_eq!(lost(&books), 0, "{}: {books}", daemon.back_end().name());
    });
}

#[test]
fn a_ring_that_is_too_small_loses_what_it_says() {
    live!("a ring that is too small");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let policy = format!("{ISOLATED}\n[capture]\nring = \"4 KiB\"\n");
    let daemon = Watch::new(&b, BackEnd::Ebpf).policy(&policy).start();
    let (mut web, mut db) = pair(&a, &b);
    daemon.signal("STOP");
    web.ask("load:volume('db@10.77.0.2', 4, 1000000)");
    daemon.signal("CONT");
    work(&mut web, &mut db);
    let books = balanced(&daemon);
    assert!(lost(&books) > 0, "{books}");
    daemon.alert("capture-loss");
    daemon.stop();
}

#[test]
fn a_daemon_that_is_late_misses_payload_and_no_handshake() {
    live!("what is shed first");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let policy = format!("{ISOLATED}\n[capture]\nring = \"1 MiB\"\n");
    let daemon = Watch::new(&b, BackEnd::Ebpf).policy(&policy).start();
    let (mut web, db) = pair(&a, &b);
    daemon.link(&web.name, &db.name, "ok");
    daemon.signal("STOP");
    // Large messages are shortened, so that they hardly fill the ring; many small ones do.
    web.ask("load:volume('db@10.77.0.2', 4, 1000000)");
    web.ask("load:call('db@10.77.0.2', 16), timer:sleep(2000), load:stop(0)");
    let mut late = Node::start(&a, "late", "maplesyrup", &NodeOptions::default());
    late.join(&db.name);
    late.leave(&db.name);
    daemon.signal("CONT");
    daemon.link(&late.name, &db.name, "ok");
    let books = balanced(&daemon);
    let of = |field: &str, stage: &str| books[field][stage].as_u64().expect("a number");
    assert!(of("lost", "shed") > 0 && of("lost_bytes", "shed") > 0 && books["cut_bytes"].as_u64() > Some(0), "{books}");
    assert_eq!(of("lost", "ring"), 0, "{books}");
    // It goes on behind the hole, which is larger than any window.
    web.ask("load:call('db@10.77.0.2', 4), timer:sleep(300), load:stop(0)");
    web.leave(&db.name);
    let closed = daemon.hears("the link's end", |record| {
        let link = &record["link"];
        text(link, "change") == "closed" && text(&link["initiator"], "node") == web.name
    });
    assert!(closed["link"]["missing_bytes"].as_u64() > Some(1_000_000), "{closed}");
    // From then on it sees everything, and nothing that is missing is held against a peer.
    web.join(&db.name);
    web.ask("rpc:call('db@10.77.0.2', os, cmd, [\"id\"])");
    daemon.alert("remote-command");
    assert!(!daemon.rules().contains(&"protocol-violation".into()), "{:?}", daemon.rules());
    daemon.stop();
}

fn pair(a: &e2e::live::Host, b: &e2e::live::Host) -> (Node, Node) {
    let mut db = Node::start(b, "db", "maplesyrup", &NodeOptions::default());
    let mut web = Node::start(a, "web", "maplesyrup", &NodeOptions::default());
    db.ask("load:serve()");
    web.join(&db.name);
    (web, db)
}

fn work(web: &mut Node, db: &mut Node) {
    web.ask("load:call('db@10.77.0.2', 4)");
    web.ask("timer:sleep(1000), load:stop(0)");
    web.ask("load:volume('db@10.77.0.2', 4, 1000000)");
    web.leave("db@10.77.0.2");
    db.ask("ok");
}

/// The books, once nothing is under way.
fn balanced(daemon: &Daemon) -> Value {
    let mut books = Value::Null;
    eventually("the books balance", || {
        books = daemon.status()["capture"].clone();
        (books["seen"].as_u64() > Some(0) && unaccounted(&books) == 0).then_some(())
    });
    books
}
