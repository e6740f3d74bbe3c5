//! The HTTP server over loopback: who gets in, what is answered, and what limits do.

mod events;
mod harness;
mod refusals;
mod scraped;
mod shipped;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use distwatch_engine::model::Severity;
use distwatch_engine::policy::RuleSettings;
use harness::{Bench, alert, ask, at, connect, eventually, link, node, picture, settings};
use serde_json::{Value, json};

#[test]
fn every_answer_keeps_browsers_from_running_anything_else() {
    let bench = Bench::with(picture(1));
    for path in ["/", "/app.js", "/healthz", "/metrics", "/api/v1/links", "/nothing", "/api/v1/links?x=1"] {
        let answer = bench.get(path, &[]);
        let policy = answer.header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
    }
    assert_eq!(bench.get("/", &[]).header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(bench.get("/app.js", &[]).header("content-type"), Some("text/javascript; charset=utf-8"));
}

#[test]
fn the_status_is_that_of_the_socket_and_the_rules_explain_findings() {
    let bench = Bench::with(picture(1));
    assert_eq!(bench.json("/api/v1/status"), serde_json::to_value(picture(1).status).unwrap());
    let rules = bench.json("/api/v1/rules");
    let rules = rules["rules"].as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["id"] == "cleartext-distribution"));
    assert_eq!(bench.json("/api/v1/alerts?severity=high")["alerts"], json!([alert("web@host-a -> db@host-b")]));
}

#[test]
fn a_process_that_lives_is_healthy_and_one_that_captures_is_ready() {
    let bench = Bench::with(picture(0));
    assert_eq!((bench.get("/healthz", &[]).status, bench.get("/readyz", &[]).text().as_str()), (200, "ready\n"));
    let ended = Bench::asking(&settings(), None);
    assert_eq!(ended.get("/healthz", &[]).status, 200);
    let answer = ended.get("/readyz", &[]);
    assert_eq!((answer.status, answer.text().as_str()), (503, "not ready: the capture thread has ended\n"));
    let answer = ended.get("/api/v1/nodes", &[]);
    assert_eq!((answer.status, answer.header("content-type")), (503, Some("application/problem+json")));
    let mut stuck = picture(0);
    stuck.status.state = "opening".into();
    assert_eq!(Bench::with(stuck).get("/readyz", &[]).text(), "not ready: opening\n");
}

#[test]
fn ten_thousand_links_are_answered_in_bounded_time_whole_or_page_by_page() {
    let bench = Bench::with(picture(10_000));
    let begun = Instant::now();
    let whole = bench.json("/api/v1/links?state=all&limit=100000");
    let took = begun.elapsed();
    assert!(took.as_secs() < 10, "{took:?}");
    assert_eq!((whole["links"].as_array().unwrap().len(), &whole["total"]), (10_000, &json!(10_000)));
    let first = bench.json("/api/v1/links?limit=1");
    let (mut pages, mut offset) = (Vec::new(), 0);
    loop {
        let page = bench.json(&format!("/api/v1/links?offset={offset}&at={}", first["timestamp"].as_str().unwrap()));
        assert_eq!((&page["total"], &page["offset"]), (&json!(9_000), &json!(offset)));
        let links = page["links"].as_array().unwrap();
        if links.is_empty() {
            break;
        }
        assert!(links.len() <= 1000);
        offset += links.len();
        pages.extend(links.iter().cloned());
    }
    let open = whole["links"].as_array().unwrap().iter().filter(|link| link["closed"].is_null());
    assert!(open.eq(pages.iter()), "page by page the open links are the same, in the same order");
    eprintln!("10,000 links: {took:?}");
}

#[test]
fn a_list_that_is_read_part_by_part_is_of_one_moment_while_links_come_and_go() {
    // A second later the oldest links are forgotten, and others have come.
    let asked = AtomicUsize::new(0);
    let bench = Bench::asking_of(&settings(), move |answer| {
        let round = asked.fetch_add(1, Ordering::Relaxed);
        let mut picture = picture(0);
        picture.time = at(10 + round as i64);
        picture.links = (100 * round..100 * round + 1000).map(|number| Arc::new(link(number, "web@host-a"))).collect();
        answer.send(picture).is_ok()
    });
    let ids = |page: &Value| -> Vec<String> {
        let links = page["links"].as_array().unwrap().iter();
        links.map(|link| link["flow_id"].as_str().unwrap().to_owned()).collect()
    };
    let first = bench.json("/api/v1/links?state=all&limit=400");
    let time = first["timestamp"].as_str().unwrap().to_owned();
    eventually("there is another picture", || bench.json("/api/v1/links?limit=1")["timestamp"] != time.as_str());
    let mut all = ids(&first);
    while all.len() < 1000 {
        let next = bench.json(&format!("/api/v1/links?state=all&limit=400&offset={}&at={time}", all.len()));
        assert_eq!((&next["timestamp"], &next["total"]), (&first["timestamp"], &json!(1000)));
        assert_eq!(next["last_event_id"], first["last_event_id"]);
        all.extend(ids(&next));
    }
    let expected: Vec<String> = (0..1000).map(|number| link(number, "web@host-a").flow_id).collect();
    assert_eq!(all, expected, "every link once, in order");
    let gone = bench.get("/api/v1/links?at=2020-01-01T00:00:00.000000000Z", &[]);
    assert_eq!((gone.status, gone.header("content-type")), (410, Some("application/problem+json")));
}

#[test]
fn rules_are_those_of_the_policy_in_force() {
    let mut strict = picture(1);
    let said = RuleSettings { severity: Some(Severity::Critical), ..RuleSettings::default() };
    strict.rules = Arc::new([("hidden-node".to_owned(), said)].into());
    let bench = Bench::with(strict);
    let rules = bench.json("/api/v1/rules");
    let hidden = rules["rules"].as_array().unwrap().iter().find(|rule| rule["id"] == "hidden-node").unwrap();
    assert_eq!((&hidden["severity"], &hidden["default_severity"]), (&json!("critical"), &json!("medium")));
}

#[test]
fn a_hostile_name_is_a_string_and_nothing_else() {
    let name = "</script><img src=x onerror=alert(1)>\"\\\r\n\u{1b}[2J\u{2028}\0@h";
    let mut hostile = picture(0);
    hostile.nodes = vec![Arc::new(node(name))];
    hostile.links = vec![Arc::new(link(1, name))];
    hostile.alerts = vec![alert(name)];
    let bench = Bench::with(hostile);
    for path in ["/api/v1/nodes", "/api/v1/links", "/api/v1/alerts", "/metrics"] {
        let answer = bench.get(path, &[]);
        let text = answer.text();
        assert!(!text.contains('\u{1b}') && !text.contains('\0') && !text.contains('\r'), "{path}: {text}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    assert_eq!(bench.json("/api/v1/nodes")["nodes"][0]["name"], name);
    assert_eq!(bench.json("/api/v1/links")["links"][0]["initiator"]["node"], name);
    assert_eq!(bench.json("/api/v1/alerts")["alerts"][0]["subject"], name);
}

#[test]
fn head_is_answered_without_a_body_and_several_requests_share_a_connection() {
    let bench = Bench::with(picture(3));
    let head = ask(connect(bench.address()), "HEAD", "/metrics", &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    let mut stream = connect(bench.address());
    for _ in 0..3 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok\n") {
            let mut octet = [0];
            stream.read_exact(&mut octet).unwrap();
            answer.push(octet[0]);
        }
    }
    eventually("one connection is left", || bench.counts.snapshot().connections == 1);
}

#[test]
fn the_end_is_told_to_clients_and_the_port_is_free_again() {
    let bench = Bench::with(picture(1));
    let mut told = harness::Told::begin(bench.address(), "", None);
    let address = bench.address();
    bench.recent.push(distwatch::record::EventType::Stats, b"{}"[..].into());
    let begun = Instant::now();
    bench.server.stop();
    assert!(begun.elapsed().as_secs() < 5);
    assert_eq!(told.next().event, "stats", "the last words");
    std::net::TcpListener::bind(address).unwrap();
}
