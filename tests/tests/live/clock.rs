//! The wall clock of a daemon at work is set: a day and an hour, forward and back.
//!
//! The machine's own clock stays. The daemon is made to believe in another by libfaketime, which answers whoever asks the C
//! library for the time of day; the stamps of packets, which the kernel makes, go on telling the real time. So its clocks not only
//! jump, they disagree as well.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use e2e::live::{BackEnd, Lab, Node, NodeOptions, Watch, eventually, lost};
use e2e::text;
use serde_json::Value;

use crate::{ISOLATED, live};

/// Seconds that the clock stands from the real one, one after the other, and how the library wants to be told.
const STEPS: [(i64, &str); 6] =
    [(86_400, "+86400"), (0, "+0"), (-86_400, "-86400"), (3600, "+3600"), (-3600, "-3600"), (0, "+0")];

fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|file| file.exists())
}

#[test]
fn a_wall_clock_that_jumps_ends_nothing_and_makes_no_time_negative() {
    live!("a wall clock that jumps");
    let Some(library) = library() else {
        eprintln!("*** SKIPPED a wall clock that jumps: libfaketime (the package faketime) is not installed");
        return;
    };
    let begin = Instant::now();
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let mut db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
    db.ask("load:serve()");
    let offset = lab.folder().join("offset");
    fs::write(&offset, "+0\n").expect("a file");
    let daemons = BackEnd::ALL.map(|back_end| {
        let watch = Watch::new(&b, back_end).policy(&format!("{ISOLATED}[daemon]\nstats_interval = \"1s\"\n"));
        // In the sandbox it may not read the file.
        let watch = watch.words(&["--no-sandbox"]).variables(&[
            ("LD_PRELOAD", library.to_str().expect("a path")),
            ("FAKETIME_TIMESTAMP_FILE", offset.to_str().expect("a path")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ]);
        watch.start()
    });
    web.join(&db.name);
    web.ask(&format!("rpc:call('{}', os, cmd, [\"id\"])", db.name));
    web.ask(&format!("load:call('{}', 2, 1)", db.name));
    for daemon in &daemons {
        daemon.alert("remote-command");
        daemon.link(&web.name, &db.name, "ok");
    }
    for (number, (step, words)) in STEPS.into_iter().enumerate() {
        fs::write(&offset, format!("{words}\n")).expect("the clock is set");
        for daemon in &daemons {
            // The daemon knows that its clock was set.
            eventually("the step is told", || {
                let told = daemon.status()["clock_step_seconds"].as_i64()?;
                (told - step).abs().le(&2).then_some(())
            });
        }
        // What happens afterwards is seen and judged as before.
        let node = format!("late{number}@10.77.0.1");
        let flags = NodeOptions::default();
        let mut late = Node::start(&a, node.split('@').next().unwrap_or_default(), "maplesyrup", &flags);
        late.join(&db.name);
        daemons.iter().for_each(|daemon| drop(daemon.link(&node, &db.name, "ok")));
        late.stop();
    }
    web.ask("load:stop(0)");
    for daemon in daemons {
        let name = daemon.back_end().name();
        // Nothing ended before it was told to: neither a link nor a finding.
        let before = daemon.records().len();
        let books = daemon.status()["capture"].clone();
        assert_eq!(lost(&books), 0, "{name}: {books}");
        let records = daemon.stop().records;
        let during = &records[..before];
        let ended: Vec<&Value> =
            during.iter().filter(|record| text(&record["alert"], "status") == "resolved").collect();
        assert!(ended.iter().all(|record| text(&record["alert"], "subject").contains("late")), "{name}: {ended:?}");
        let closed = during.iter().filter(|record| text(&record["link"], "change") == "closed");
        let closed: Vec<&str> = closed.map(|record| text(&record["link"]["initiator"], "node")).collect();
        assert!(!closed.contains(&"web@10.77.0.1"), "{name}: {closed:?}");
        // Every record is of the time that really passed: from the start to the last words.
        let times: Vec<&str> = records.iter().map(|record| text(record, "timestamp")).collect();
        let last = *times.last().expect("last words");
        let strange: Vec<&&str> = times.iter().filter(|time| **time > last || **time < times[0]).collect();
        assert!(strange.is_empty(), "{name}: from {} to {last}: {strange:?}", times[0]);
        let really = begin.elapsed().as_secs_f64();
        let told = records.iter().filter_map(|record| record["stats"]["duration_seconds"].as_f64());
        assert!(told.clone().count() > 0 && told.clone().all(|it| (0.0..=really).contains(&it)), "{name}");
        for link in records.iter().map(|record| &record["link"]).filter(|link| link.is_object()) {
            let [opened, seen] = ["opened", "last_seen"].map(|field| text(link, field));
            assert!(opened <= seen, "{name}: {link}");
        }
    }
}
