//! From the offer to the file: order, filters, `kill -9`, a full disk, other settings.

use std::fs;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use distwatch::sink::Fate;
use distwatch_engine::event::EventBody;
use distwatch_engine::model::{AlertStatus, Severity};

use crate::child::Offering;
use crate::harness::{
    PATIENCE, Running, SmallDisk, account, alert, losses, numbers_in, outgoing, row, settle, wait_for,
};
use crate::standin::{StandIn, counts};

fn file_sink(path: &std::path::Path) -> String {
    format!("[[sink]]\ntype = \"file\"\npath = {:?}\n", path.to_str().unwrap())
}

#[test]
fn every_record_is_in_the_file_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.ndjson");
    let running = Running::start(dir.path(), &file_sink(&out));
    running.offer(0..5000);
    let status = running.until_sent("file");
    assert_eq!((status.count(Fate::Sent), losses(&status), status.failing_since), (5000, 0, None));
    running.offer(5000..5100);
    assert!(running.flush(Duration::from_secs(5)).is_empty());
    assert_eq!(numbers_in(&fs::read_to_string(out).unwrap()), (0..5100).collect::<Vec<_>>());
}

#[test]
fn each_sink_gets_what_it_asked_for_at_the_rate_that_it_allows() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let toml = format!(
        "{}name = \"some\"\nseverity = \"critical\"\nrules = [\"weak-*\"]\n{}name = \"slow\"\nrate_limit = 10\n",
        file_sink(&path("some")),
        file_sink(&path("slow"))
    );
    let running = Running::start(dir.path(), &toml);
    for number in 0..100 {
        let mut alert = alert(number);
        if number % 10 == 0 {
            alert.rule_id = "weak-cookie".into();
        }
        if number % 20 == 0 {
            alert.severity = Severity::Critical;
        }
        running.sinks.offer(&outgoing(&alert));
    }
    let slow = running.until_sent("slow");
    assert_eq!(slow.count(Fate::Sent) + slow.count(Fate::RateLimited), 100);
    assert!(slow.count(Fate::RateLimited) > 0 && losses(&slow) == 0);
    running.flush(Duration::from_secs(5));
    assert_eq!(numbers_in(&fs::read_to_string(path("some")).unwrap()), [0, 20, 40, 60, 80]);
}

#[test]
fn an_alert_that_was_offered_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.ndjson");
    let toml = file_sink(&out);
    let mut next = 0;
    for round in 0..4 {
        let mut offering = Offering::start(dir.path(), &toml);
        offering.offer(next..next + 100_000);
        offering.until_offered(next + 300 * (round + 1));
        // Each alert that it had been told of by now must arrive, whatever the kill cuts off.
        next = offering.kill() + 1;
    }
    Offering::start(dir.path(), &toml).end();
    let received: Vec<u64> = numbers_in(&fs::read_to_string(&out).unwrap());
    // The last one of each round may have been offered without having been said.
    let received: Vec<u64> = received.into_iter().filter(|number| *number < next).collect();
    settle("file", "kill -9 of the process, four times", next, &received);
}

#[test]
fn a_full_disk_is_counted_and_said_and_space_that_returns_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("small"), "1m") else { return };
    let ballast = disk.0.join("ballast");
    let out = dir.path().join("out.ndjson");
    // The spool and one of the logs are on the disk that fills up.
    let toml = format!("{}name = \"good\"\n{}name = \"bad\"\n", file_sink(&out), file_sink(&disk.0.join("log.ndjson")));
    let toml = toml.replace("[[sink]]\n", "[[sink]]\nretry_first = \"50ms\"\nretry_longest = \"500ms\"\n");
    let running = Running::start(&disk.0, &toml);
    running.offer(0..100);
    running.until_sent("bad");
    // What is left is taken, to the last page.
    let full = fs::write(&ballast, vec![0_u8; 2 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    for start in (100..6000).step_by(1000) {
        running.offer(start..(start + 1000).min(6000));
        running.until_sent("good");
    }
    let good = running.status("good");
    assert_eq!((good.count(Fate::Sent), losses(&good)), (6000, 0), "a sink elsewhere goes on from memory");
    assert!(good.failing_since.is_some(), "and says that its spool cannot be written");
    let bad =
        wait_for("the failure to be noticed", || Some(running.status("bad")).filter(|it| it.failing_since.is_some()));
    assert!(bad.last_error.unwrap().contains("No space left"));
    running.offer(6000..40_000);
    let counted = wait_for("losses to be counted", || Some(running.status("bad")).filter(|it| losses(it) > 0));
    assert_eq!(counted.count(Fate::DiskFull), losses(&counted));
    let space = Instant::now();
    fs::remove_file(&ballast).unwrap();
    fs::remove_file(disk.0.join("log.ndjson")).unwrap();
    running.reload(&toml);
    wait_for("the good sink to be well", || running.status("good").failing_since.is_none().then_some(()));
    assert!(space.elapsed() < Duration::from_secs(5), "it took {:?}", space.elapsed());
    let good = running.until_sent("good");
    let received = numbers_in(&fs::read_to_string(&out).unwrap());
    let account = account(40_000, &received);
    row("file", "disk full for 34,000 records; what is lost is counted as `disk_full`", &account, "–");
    assert_eq!((account.lost, account.out_of_order), (losses(&good), 0));
    assert_eq!(good.count(Fate::Sent) + losses(&good), 40_000);
}

#[test]
fn a_disk_that_is_full_at_the_start_keeps_no_record_from_its_server_and_is_used_once_it_has_room() {
    let dir = tempfile::tempdir().unwrap();
    // Room for one folder, and not for the spool in it.
    let Some(disk) = SmallDisk::mount(&dir.path().join("small"), "1m,nr_inodes=2") else { return };
    let out = dir.path().join("out.ndjson");
    let toml = format!("{}name = \"good\"\n", file_sink(&out));
    let running = Running::start(&disk.0, &toml);
    assert!(running.status("good").failing_since.is_some(), "it says so before there is anything to write");
    running.offer(0..100);
    let status = running.until_sent("good");
    assert!(status.failing_since.is_some() && losses(&status) == 0, "{status:?}");
    assert!(status.last_error.as_ref().is_some_and(|error| error.contains("No space left")), "{status:?}");
    disk.remount("nr_inodes=1000");
    wait_for("the spool to be used", || running.status("good").failing_since.is_none().then_some(()));
    assert!(disk.0.join("sinks/good/lock").exists());
    running.offer(100..200);
    running.until_sent("good");
    assert!(running.flush(Duration::from_secs(5)).is_empty());
    assert_eq!(numbers_in(&fs::read_to_string(out).unwrap()), (0..200).collect::<Vec<_>>());
}

#[test]
fn a_sink_that_changes_sends_what_it_had_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, moved, missing) = (dir.path().join("kept"), dir.path().join("moved"), dir.path().join("no/such/folder"));
    let settings = |path: &std::path::Path| {
        format!("{}name = \"kept\"\n{}name = \"changing\"\n", file_sink(&kept), file_sink(path))
            .replace("[[sink]]\n", "[[sink]]\nretry_first = \"1h\"\nretry_longest = \"1h\"\n")
    };
    let running = Running::start(dir.path(), &settings(&missing));
    running.offer(0..500);
    running.until_sent("kept");
    fs::rename(&kept, dir.path().join("put-away")).unwrap();
    wait_for("the failure", || running.status("changing").failing_since);
    running.reload(&settings(&moved));
    running.offer(500..600);
    running.until_sent("changing");
    running.until_sent("kept");
    assert!(running.flush(Duration::from_secs(5)).is_empty());
    assert_eq!(numbers_in(&fs::read_to_string(moved).unwrap()), (0..600).collect::<Vec<_>>());
    assert_eq!(numbers_in(&fs::read_to_string(kept).unwrap()), (500..600).collect::<Vec<_>>());
}

#[test]
fn the_rules_are_told_of_a_sink_that_fails_and_once_of_its_recovery() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("later/out.ndjson");
    let running = Running::start(dir.path(), &format!("{}retry_first = \"50ms\"\n", file_sink(&out)));
    running.offer(0..1);
    let failing = wait_for("the failure", || running.sinks.poll_states().pop());
    let EventBody::SinkState { sink, failing_since: Some(_), reason } = &failing else { panic!("{failing:?}") };
    assert!(sink == "file" && reason.contains("No such file"), "{failing:?}");
    fs::create_dir(out.parent().unwrap()).unwrap();
    let recovered = |event: &EventBody| matches!(event, EventBody::SinkState { failing_since: None, .. });
    wait_for("the recovery", || running.sinks.poll_states().pop().filter(recovered));
    assert!(running.sinks.poll_states().is_empty());
}

#[test]
fn what_a_flush_cannot_send_stays_and_is_sent_by_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("later/out.ndjson");
    let running = Running::start(dir.path(), &file_sink(&out));
    running.offer(0..700);
    let start = Instant::now();
    let left = running.flush(Duration::from_millis(300));
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(left["file"], 700);
    fs::create_dir(out.parent().unwrap()).unwrap();
    let running = Running::start(dir.path(), &file_sink(&out));
    running.until_sent("file");
    assert_eq!(numbers_in(&fs::read_to_string(out).unwrap()), (0..700).collect::<Vec<_>>());
}

#[test]
fn the_end_of_an_alert_is_told_at_any_rate() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.ndjson");
    let running = Running::start(dir.path(), &format!("{}rate_limit = 1\n", file_sink(&out)));
    for number in 0..50 {
        let mut alert = alert(number);
        if number >= 40 {
            alert.status = AlertStatus::Resolved;
        }
        running.sinks.offer(&outgoing(&alert));
    }
    running.flush(Duration::from_secs(5));
    let received = numbers_in(&fs::read_to_string(&out).unwrap());
    assert!(received.len() < 50 && received.ends_with(&(40..50).collect::<Vec<_>>()), "{received:?}");
}

#[test]
fn a_disk_that_hangs_holds_up_neither_the_status_nor_other_alerts() {
    let dir = tempfile::tempdir().unwrap();
    let toml = file_sink(&dir.path().join("out.ndjson"));
    let running = Running::start(dir.path(), &toml);
    // Whoever opens it for writing waits until somebody reads it, as for a disk that does not answer.
    let hangs = dir.path().join(format!("sinks/file/{:020}.seg", 1));
    rustix::fs::mknodat(rustix::fs::CWD, &hangs, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let (said, heard) = channel();
    let (heard, left) = std::thread::scope(|scope| {
        let running = &running;
        scope.spawn(move || running.offer(0..1));
        scope.spawn(move || {
            wait_for("the first alert to wait", || (running.status("file").queued == 1).then_some(()));
            running.offer(1..2);
            running.reload(&toml);
            running.sinks.poll_states();
            said.send(running.status("file").queued).unwrap();
        });
        let heard = heard.recv_timeout(PATIENCE);
        // The disk answers again, and says that this is no file. It is written once that is gone.
        (heard, fs::OpenOptions::new().read(true).write(true).open(&hangs).unwrap())
    });
    assert_eq!(heard, Ok(2));
    drop(left);
    let status = running.until_sent("file");
    assert_eq!((status.count(Fate::Sent), losses(&status)), (2, 0));
}

#[test]
fn a_sink_that_is_taken_away_and_brought_back_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.ndjson");
    let running = Running::start(dir.path(), &file_sink(&out));
    for round in 0..20 {
        running.offer(round..round + 1);
        running.reload("");
        running.reload(&file_sink(&out));
    }
    running.flush(Duration::from_secs(5));
    settle("file", "taken away and brought back", 20, &numbers_in(&fs::read_to_string(&out).unwrap()));
}

#[test]
fn headers_come_from_files_and_their_values_are_printed_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let headers = Arc::clone(&seen);
    let server = StandIn::http(move |request| {
        headers.lock().unwrap().push(request.header("x-api-key").unwrap_or_default());
        (200, String::new(), counts(&request.body))
    });
    let key = dir.path().join("key");
    let toml =
        format!("[[sink]]\ntype = \"otlp\"\nurl = \"{}\"\nheader_files = {{ X-Api-Key = {key:?} }}\n", server.url());
    fs::write(&key, "one\n").unwrap();
    let running = Running::start(dir.path(), &toml);
    running.offer(0..1);
    running.until_sent("otlp");
    // Its file counts as a secret's does.
    fs::write(&key, "two\n").unwrap();
    running.reload(&toml);
    running.offer(1..2);
    running.until_sent("otlp");
    assert_eq!(*seen.lock().unwrap(), ["one", "two"]);
}

#[test]
fn a_secret_that_has_changed_in_its_file_is_used_after_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let headers = Arc::clone(&seen);
    let server = StandIn::http(move |request| {
        headers.lock().unwrap().push(request.header("authorization").unwrap_or_default());
        (200, String::new(), counts(&request.body))
    });
    let token = dir.path().join("token");
    let toml = format!("[[sink]]\ntype = \"webhook\"\nurl = \"{}\"\ntoken_file = {token:?}\n", server.url());
    fs::write(&token, "one\n").unwrap();
    let running = Running::start(dir.path(), &toml);
    running.offer(0..1);
    running.until_sent("webhook");
    fs::write(&token, "two\n").unwrap();
    running.reload(&toml);
    running.offer(1..2);
    running.until_sent("webhook");
    assert_eq!(*seen.lock().unwrap(), ["Bearer one", "Bearer two"]);
}
