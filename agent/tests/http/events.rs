//! Records as they come: resumed, lost, and not waited for by the slow.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use distwatch::http::limits::{RECENT_RECORDS, STREAMS};
use distwatch::record::EventType;

use super::harness::{Bench, Event, Told, connect, eventually, picture};

fn push(bench: &Bench, event_type: EventType, number: usize) {
    bench.recent.push(event_type, format!("{{\"number\":{number}}}").into_bytes().into());
}

fn event(id: &str, event: &str, data: &str) -> Event {
    Event { id: id.into(), event: event.into(), data: data.into() }
}

#[test]
fn a_client_that_comes_back_misses_nothing_and_hears_nothing_twice() {
    let bench = Bench::with(picture(0));
    let mut told = Told::begin(bench.address(), "", None);
    (1..=3).for_each(|number| push(&bench, EventType::Link, number));
    assert_eq!(told.next(), event("7-1", "link", "{\"number\":1}"));
    assert_eq!(told.next().id, "7-2");
    drop(told);
    push(&bench, EventType::Alert, 4);
    let mut again = Told::begin(bench.address(), "", Some("7-2"));
    assert_eq!(again.next(), event("7-3", "link", "{\"number\":3}"));
    assert_eq!(again.next(), event("7-4", "alert", "{\"number\":4}"));
    push(&bench, EventType::Weird, 5);
    assert_eq!(again.next().event, "weird");
    let mut only = Told::begin(bench.address(), "?types=alert,weird", Some("7-0"));
    assert_eq!((only.next().id, only.next().id), ("7-4".to_owned(), "7-5".to_owned()));
}

#[test]
fn what_a_list_tells_and_the_events_after_it_have_no_gap_between_them() {
    let bench = Bench::with(picture(0));
    (1..=3).for_each(|number| push(&bench, EventType::Link, number));
    let last = bench.json("/api/v1/links")["last_event_id"].as_str().unwrap().to_owned();
    assert_eq!(last, "7-3");
    push(&bench, EventType::Link, 4);
    assert_eq!(Told::begin(bench.address(), "", Some(&last)).next().id, "7-4");
}

#[test]
fn what_was_lost_is_said_first() {
    let bench = Bench::with(picture(0));
    (1..=RECENT_RECORDS + 9).for_each(|number| push(&bench, EventType::Link, number));
    let mut old = Told::begin(bench.address(), "", Some("7-4"));
    assert_eq!(old.next(), event("", "lost", "{\"records\":5}"));
    assert_eq!(old.next().id, "7-10", "then all that is left");
    for unknown in ["6-4", "nonsense", "7-999999"] {
        let mut other = Told::begin(bench.address(), "?types=stats", Some(unknown));
        assert_eq!(other.next(), event("", "lost", "{\"records\":null}"), "{unknown}");
    }
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_others_do_not_notice() {
    let bench = Bench::with(picture(0));
    let mut quick = Told::begin(bench.address(), "", None);
    let mut stuck = connect(bench.address());
    stuck.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    eventually("both are there", || bench.counts.snapshot().streams == 2);
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(100_000));
    let mut sent = 0;
    eventually("it is cut off", || {
        bench.recent.push(EventType::Link, large.as_bytes().into());
        sent += 1;
        assert_eq!(quick.next().id, format!("7-{sent}"));
        bench.counts.snapshot().cut_off == 1
    });
    eventually("one is left", || bench.counts.snapshot().streams == 1);
    let read = stuck.read_to_end(&mut Vec::new()).unwrap_or(usize::MAX);
    assert!(read > 0, "it gets what was under way, or is reset");
    push(&bench, EventType::Alert, 1);
    assert_eq!(quick.next().event, "alert");
}

#[test]
fn there_are_so_many_streams_and_the_next_client_is_told_so() {
    let bench = Bench::with(picture(0));
    let told: Vec<Told> = (0..STREAMS).map(|_| Told::begin(bench.address(), "", None)).collect();
    let answer = bench.get("/api/v1/events", &[]);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    assert_eq!(bench.get("/metrics", &[]).status, 200, "a scraper is still answered");
    drop(told);
    eventually("all are gone", || bench.counts.snapshot().streams == 0);
    Told::begin(bench.address(), "", None);
}

#[test]
fn a_stream_is_no_reason_to_keep_a_client_that_has_gone() {
    let bench = Bench::with(picture(0));
    let stream: TcpStream = connect(bench.address());
    (&stream).write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    eventually("it is there", || bench.counts.snapshot().streams == 1);
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    drop(stream);
    eventually("it is gone", || bench.counts.snapshot().streams == 0);
}
