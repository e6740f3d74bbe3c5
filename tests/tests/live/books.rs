//! Every packet is in the books: seen is what was handled, set aside, counted, refused or lost.

use e2e::live::{BackEnd, Daemon, Lab, Monitors, Node, NodeOptions, Watch, eventually, lost, unaccounted};
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
