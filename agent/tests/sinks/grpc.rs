//! A stand-in for a collector that takes OTLP over gRPC, in clear and over TLS.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use distwatch::sink::Fate;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use crate::harness::{Running, losses, settle, wait_for};
use crate::standin::{Mode, StandIn, counts};

const METHOD: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// Statuses of gRPC.
const OK: u16 = 0;
const RESOURCE_EXHAUSTED: u16 = 8;
const UNIMPLEMENTED: u16 = 12;
const UNAVAILABLE: u16 = 14;
const UNAUTHENTICATED: u16 = 16;

/// A `google.rpc.Status` of `RESOURCE_EXHAUSTED` with a `google.rpc.RetryInfo` of 20 milliseconds, as a trailer has it.
const RETRY_INFO: &str = "CAgaMwoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIHCgUQgNrECQ==";

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Success has an empty message and its status behind it; anything else has its status in the head and no body.
fn answer(status: u16) -> Answer {
    let mut facts = HeaderMap::new();
    facts.insert("grpc-status", status.into());
    if status == RESOURCE_EXHAUSTED {
        facts.insert("grpc-status-details-bin", RETRY_INFO.parse().unwrap());
    }
    let head = Response::builder().header("content-type", "application/grpc");
    if status == OK {
        let message = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async { Some(Ok(facts)) });
        return head.body(message.boxed()).unwrap();
    }
    let mut answer = head.body(Full::default().boxed()).unwrap();
    answer.headers_mut().extend(facts);
    answer
}

impl StandIn {
    /// One that takes OTLP logs over gRPC. Its status of 429 is `RESOURCE_EXHAUSTED` that will pass, and 503 `UNAVAILABLE`.
    pub(crate) fn grpc() -> Self {
        Self::start(Arc::new(|stream, server| {
            let generation = server.generation.load(Ordering::SeqCst);
            let stream = stream.try_clone().unwrap();
            stream.set_nonblocking(true).unwrap();
            let service = service_fn(|request: Request<Incoming>| {
                let server = server.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    let Ok(body) = request.into_body().collect().await else { return Err("the client is gone") };
                    if server.generation.load(Ordering::SeqCst) != generation {
                        return Err("it is another server now");
                    }
                    let status = match server.mode() {
                        Mode::Status(status) => {
                            server.hurt.fetch_add(1, Ordering::SeqCst);
                            if status == 429 { RESOURCE_EXHAUSTED } else { UNAVAILABLE }
                        }
                        _ if path != METHOD => UNIMPLEMENTED,
                        _ => OK,
                    };
                    if status == OK {
                        // Stored before it is said, as a server does.
                        server.received.lock().unwrap().extend(counts(&body.to_bytes()));
                    }
                    Ok(answer(status))
                }
            });
            runtime().block_on(async {
                let io = TokioIo::new(tokio::net::TcpStream::from_std(stream).unwrap());
                // However it ends.
                let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
            });
        }))
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_collector_behind_tls_gets_all_and_one_that_is_not_believed_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (ca, token) = (dir.path().join("ca.pem"), dir.path().join("token"));
    std::fs::write(&ca, own.cert.pem()).unwrap();
    std::fs::write(&token, "hunter2\n").unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into()))
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = Arc::new(Mutex::new(Vec::new()));
    let stored = Arc::clone(&received);
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                // Whoever does not believe the certificate goes away.
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let stored = Arc::clone(&stored);
                let service = service_fn(move |request: Request<Incoming>| {
                    let stored = Arc::clone(&stored);
                    async move {
                        let known = request.headers().get("authorization").is_some_and(|it| it == "Bearer hunter2");
                        let Ok(body) = request.into_body().collect().await else { return Err("the client is gone") };
                        if !known {
                            return Ok(answer(UNAUTHENTICATED));
                        }
                        stored.lock().unwrap().extend(counts(&body.to_bytes()));
                        Ok(answer(OK))
                    }
                });
                let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
                tokio::spawn(serving);
            }
        });
    });
    let sink = |name: &str, host: &str, more: &str| {
        format!(
            "[[sink]]\ntype = \"otlp\"\nname = \"{name}\"\nprotocol = \"grpc\"\nurl = \"https://{host}:{port}\"\n\
             ca_file = {ca:?}\nretry_first = \"20ms\"\nretry_longest = \"100ms\"\n{more}"
        )
    };
    let toml = sink("right", "localhost", &format!("token_file = {token:?}\n"))
        + &sink("unknown", "localhost", "")
        // The name in the certificate is another one.
        + &sink("wrong", "127.0.0.1", &format!("token_file = {token:?}\n"));
    let running = Running::start(dir.path(), &toml);
    running.offer(0..300);
    let right = running.until_sent("right");
    assert_eq!((right.count(Fate::Sent), losses(&right)), (300, 0));
    let failing =
        |name: &str| wait_for("the refusal", || Some(running.status(name)).filter(|it| it.failing_since.is_some()));
    let (unknown, wrong) = (failing("unknown"), failing("wrong"));
    assert!(unknown.last_error.unwrap().contains("UNAUTHENTICATED"));
    assert!(wrong.last_error.unwrap().contains("certificate"));
    assert_eq!((unknown.queued, wrong.queued), (300, 300), "kept until somebody has mended it");
    settle("otlp (gRPC, TLS)", "none", 300, &received.lock().unwrap());
}
