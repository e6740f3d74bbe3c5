//! Who does not get in, and what is not taken.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use distwatch::http::limits::{CONNECTIONS, STREAMS};
use distwatch::http::{Listener, Settings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::harness::{Answer, Bench, Told, ask, connect, eventually, picture, read_answer, read_head, settings};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn distwatch(arguments: &[&str]) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_distwatch")).args(arguments).env_remove("DISTWATCH_CONFIG").output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn off_loopback_without_tls_and_token_it_is_refused_by_the_check_and_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    let file_text = file.to_str().unwrap();
    fs::write(&file, "[http]\nlisten = \"0.0.0.0:0\"\ntoken_file = \"t\"\n").unwrap();
    let (status, error) = distwatch(&["config", "check", file_text]);
    assert_eq!(status, Some(2), "{error}");
    assert!(error.contains(":1:1: http: 0.0.0.0:0 can be reached from other hosts, and has no TLS"), "{error}");
    assert!(error.contains("insecure_off_loopback = true"), "{error}");
    let (status, error) = distwatch(&["run", "--http", "0.0.0.0:0"]);
    assert_eq!(status, Some(2), "{error}");
    assert!(error.contains("0.0.0.0:0 can be reached from other hosts, and has neither TLS nor a token"), "{error}");
    assert_eq!(error.lines().filter(|line| line.starts_with("error:")).count(), 1, "{error}");
    let insecure =
        Settings { listen: "0.0.0.0:0".parse().unwrap(), insecure_off_loopback: true, ..Settings::default() };
    assert!(Listener::open(&insecure).is_ok(), "the operator has said so");
}

#[test]
fn a_port_that_is_taken_is_named_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (status, error) = distwatch(&["run", "--http", &address]);
    assert_eq!(status, Some(3), "not for ever: {error}");
    assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
}

fn with_token(folder: &Path) -> Settings {
    let file = folder.join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    Settings { token_file: Some(file), ..settings() }
}

#[test]
fn without_the_token_nothing_of_the_cluster_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::start(&with_token(folder.path()), picture(1));
    let right = format!("Authorization: Bearer {TOKEN}");
    let in_path = format!("/api/v1/nodes?token={TOKEN}");
    for path in ["/metrics", "/api/v1/nodes", "/api/v1/events", "/api/v1/rules", "/nothing", in_path.as_str()] {
        for wrong in [&[][..], &["Authorization: Bearer x"], &["Authorization: Basic x"]] {
            let answer = bench.get(path, wrong);
            assert_eq!(answer.status, 401, "{path}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"distwatch\""));
            assert!(!answer.text().contains("host-a") && !answer.text().contains(TOKEN), "{}", answer.text());
        }
    }
    for path in ["/metrics", "/api/v1/nodes", "/api/v1/rules"] {
        assert_eq!(bench.get(path, &[&right]).status, 200, "{path}");
    }
    for open in ["/", "/app.js", "/healthz", "/readyz"] {
        assert_eq!(bench.get(open, &[]).status, 200, "{open}");
    }
    // Another one from now on, and one that is none changes nothing.
    let file = folder.path().join("token");
    fs::write(&file, "fedcba9876543210").unwrap();
    bench.server.reload().unwrap();
    assert_eq!(bench.get("/metrics", &[&right]).status, 401);
    assert_eq!(bench.get("/metrics", &["Authorization: Bearer fedcba9876543210"]).status, 200);
    fs::write(&file, "short").unwrap();
    assert!(bench.server.reload().unwrap_err().to_string().contains("16 characters"));
    assert_eq!(bench.get("/metrics", &["Authorization: Bearer fedcba9876543210"]).status, 200);
}

#[test]
fn a_page_of_another_name_cannot_read_what_is_on_loopback() {
    let bench = Bench::with(picture(1));
    let ask_as = |host: &str| {
        let mut stream = connect(bench.address());
        write!(stream, "GET /api/v1/nodes HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        read_answer(stream).status
    };
    assert_eq!((ask_as("rebound.example"), ask_as("127.0.0.1:9469"), ask_as("localhost")), (421, 200, 200));
}

/// A certificate for localhost, in files, and the authority that vouches for it.
fn certificate(folder: &Path) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    fs::write(folder.join("http.pem"), own.pem()).unwrap();
    fs::write(folder.join("http.key"), key.serialize_pem()).unwrap();
    authority.der().clone()
}

fn ask_over_tls(bench: &Bench, authority: CertificateDer<'static>, lines: &[&str]) -> Answer {
    let mut roots = RootCertStore::empty();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    ask(StreamOwned::new(client, connect(bench.address())), "GET", "/api/v1/links?state=all&limit=9999", lines)
}

#[test]
fn over_tls_it_is_believed_by_its_authority_and_in_clear_it_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let authority = certificate(folder.path());
    let settings = Settings {
        tls_certificate: Some(folder.path().join("http.pem")),
        tls_key: Some(folder.path().join("http.key")),
        // What off loopback would take.
        ..with_token(folder.path())
    };
    let bench = Bench::start(&settings, picture(2000));
    let token = format!("Authorization: Bearer {TOKEN}");
    let answer = ask_over_tls(&bench, authority.clone(), &[&token]);
    assert_eq!(answer.status, 200);
    let list: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(list["links"].as_array().unwrap().len(), 2000);
    assert_eq!(ask_over_tls(&bench, authority, &[]).status, 401);
    let mut clear = connect(bench.address());
    write!(clear, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut said = Vec::new();
    let _ = clear.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&said));
    // A new certificate, of another authority, without a restart.
    let authority = certificate(folder.path());
    bench.server.reload().unwrap();
    assert_eq!(ask_over_tls(&bench, authority, &[&token]).status, 200);
}

#[test]
fn files_that_do_not_hold_what_they_should_are_named() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let (pem, key) = (folder.path().join("http.pem"), folder.path().join("http.key"));
    let open = |certificate: &Path, key: &Path| {
        let settings = Settings { tls_certificate: Some(certificate.into()), tls_key: Some(key.into()), ..settings() };
        Listener::open(&settings).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(open(&pem, &key), Ok(()));
    for (certificate, key, named) in [(&key, &key, "http.key"), (&pem, &pem, "http.pem")] {
        let error = open(certificate, key).unwrap_err();
        assert!(error.contains(named) && !error.contains("BEGIN"), "{error}");
    }
    let error = open(&folder.path().join("none.pem"), &key).unwrap_err();
    assert!(error.contains("none.pem cannot be read"), "{error}");
}

#[test]
fn only_what_reads_is_answered_and_heads_have_an_end() {
    let bench = Bench::with(picture(0));
    let answer = ask(connect(bench.address()), "POST", "/api/v1/nodes", &["Content-Length: 0"]);
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
    let answer = ask(connect(bench.address()), "GET", "/api/v1/nodes", &["Content-Length: 1000000"]);
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
    let long = format!("X-Long: {}", "x".repeat(20 << 10));
    assert_eq!(bench.get("/healthz", &[&long]).status, 431);
    let many: Vec<String> = (0..100).map(|number| format!("X-{number}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(bench.get("/healthz", &many).status, 431);
    for wrong in
        ["/api/v1/links?state=open&state=open", "/api/v1/nodes?state=open", "/api/v1/events?types=x", "/metrics?x"]
    {
        let answer = bench.get(wrong, &[]);
        assert_eq!((answer.status, answer.header("content-type")), (400, Some("application/problem+json")), "{wrong}");
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(problem["status"] == 400 && problem["detail"].is_string(), "{problem}");
    }
    assert_eq!(bench.get("/../../etc/passwd", &[]).status, 404);
    let mut garbage = connect(bench.address());
    garbage.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 nonsense\r\n\r\n").unwrap();
    assert_eq!(read_answer(garbage).status, 400);
}

#[test]
fn one_more_connection_takes_the_place_of_the_one_that_waits_longest_and_of_no_stream() {
    let bench = Bench::with(picture(0));
    let mut streams: Vec<Told> = (0..STREAMS).map(|_| Told::begin(bench.address(), "", None)).collect();
    let mut waiting: Vec<TcpStream> = (STREAMS..CONNECTIONS).map(|_| connect(bench.address())).collect();
    // Neither half a head nor having been answered makes a difference.
    waiting[0].write_all(b"GET /healthz HT").unwrap();
    waiting[1].write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(read_head(&mut BufReader::new(&waiting[1])).contains("200 OK"));
    eventually("all are taken in", || bench.counts.snapshot().connections == CONNECTIONS as u64);
    for _ in 0..3 {
        waiting.push(connect(bench.address()));
    }
    eventually("three give way", || bench.counts.snapshot().gave_way == 3);
    // That one was answered last of all of them.
    let answered = waiting.remove(1);
    for mut gone in waiting.drain(..3) {
        // Closed, or reset where it had sent something.
        assert_eq!(gone.read(&mut [0]).unwrap_or(0), 0);
    }
    waiting.push(answered);
    for held in &mut waiting {
        held.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    }
    let answers = waiting.into_iter().map(read_answer);
    assert!(answers.into_iter().all(|answer| answer.text().ends_with("ok\n")));
    bench.recent.push(distwatch::record::EventType::Stats, b"{}"[..].into());
    assert!(streams.iter_mut().all(|told| told.next().event == "stats"));
    assert!(bench.get("/metrics", &[]).text().contains("\ndistwatch_http_connections_given_way_total 3\n"));
    assert_eq!(bench.counts.snapshot().refused, 0);
}

#[test]
fn where_an_answer_is_under_way_on_every_connection_one_more_is_closed_at_once_and_counted() {
    // The capture thread takes its time.
    let asked = Arc::new(Mutex::new(Vec::new()));
    let waits = Arc::clone(&asked);
    let bench = Bench::asking_of(&settings(), move |answer| {
        waits.lock().unwrap().push(answer);
        true
    });
    let mut held = Vec::new();
    while bench.counts.snapshot().refused < 3 {
        assert!(held.len() < 2 * CONNECTIONS);
        let mut stream = connect(bench.address());
        // It may be closed already.
        let _ = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        held.push(stream);
        eventually("it is taken in or refused", || {
            let counts = bench.counts.snapshot();
            counts.connections + counts.gave_way + counts.refused >= held.len() as u64
        });
    }
    eventually("the capture thread is asked", || !asked.lock().unwrap().is_empty());
    asked.lock().unwrap().drain(..).for_each(|answer| _ = answer.send(picture(0)));
    let answers = held.iter_mut().map(|stream| {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    });
    let ready = answers.filter(|answer| answer.ends_with(b"\r\n\r\nready\n")).count();
    assert_eq!(ready, CONNECTIONS, "all who were let in are answered");
    assert!(bench.get("/metrics", &[]).text().contains("\ndistwatch_http_connections_refused_total 3\n"));
}
