//! Servers made by hand, which do as they are told: answer, refuse, say nothing, say nonsense, die in mid-request.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::wait_for;

/// What a server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// What it is there for.
    Well,
    /// Nobody listens.
    Stopped,
    /// Reads a part of a request and is gone.
    DiesInMidRequest,
    /// Answers with this status of HTTP.
    Status(u16),
    /// Answers with something that is no protocol at all.
    Garbage,
    /// Never answers.
    Silent,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Well => out.write_str("well"),
            Self::Stopped => out.write_str("stopped"),
            Self::DiesInMidRequest => out.write_str("dies in mid-request"),
            Self::Status(status) => write!(out, "answers {status}"),
            Self::Garbage => out.write_str("answers garbage"),
            Self::Silent => out.write_str("answers nothing"),
        }
    }
}

/// The faults that every server over HTTP has.
pub(crate) const HTTP_FAULTS: [Mode; 6] =
    [Mode::Stopped, Mode::DiesInMidRequest, Mode::Status(429), Mode::Status(503), Mode::Garbage, Mode::Silent];

/// A request of HTTP.
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let of = |line: &str| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        self.head.lines().find_map(of)
    }
}

/// What it does with a connection when it is well. It is told the connection and what was received so far.
pub(crate) type Serve = Arc<dyn Fn(&TcpStream, &StandIn) + Send + Sync>;

/// A server.
#[derive(Clone)]
pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    serve: Serve,
    mode: Arc<Mutex<Mode>>,
    pub(crate) received: Arc<Mutex<Vec<u64>>>,
    /// Connections that had to do with a fault.
    pub(crate) hurt: Arc<AtomicU64>,
    pub(crate) generation: Arc<AtomicU64>,
    listening: Arc<AtomicBool>,
}

impl StandIn {
    /// One that speaks HTTP: `judge` says which status a request gets, and which numbers were taken with it.
    pub(crate) fn http(judge: impl Fn(&Request) -> (u16, String, Vec<u64>) + Send + Sync + 'static) -> Self {
        Self::start(Arc::new(move |stream, server| {
            let mut reader = BufReader::new(stream);
            let generation = server.generation.load(Ordering::SeqCst);
            while let Some(request) = read_request(&mut reader) {
                if server.generation.load(Ordering::SeqCst) != generation {
                    return;
                }
                let (status, text, numbers) = match server.mode() {
                    Mode::Status(status) => {
                        server.hurt.fetch_add(1, Ordering::SeqCst);
                        (status, "as you wish".to_owned(), Vec::new())
                    }
                    _ => judge(&request),
                };
                // Stored before it is said, as a server does.
                server.received.lock().unwrap().extend(numbers);
                let length = text.len();
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{text}");
                if (&*stream).write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        }))
    }

    /// One that takes syslog over TCP with octet counting.
    pub(crate) fn syslog() -> Self {
        Self::start(Arc::new(|stream, server| {
            let mut reader = BufReader::new(stream);
            let generation = server.generation.load(Ordering::SeqCst);
            while let Some(message) = read_counted(&mut reader) {
                if server.generation.load(Ordering::SeqCst) != generation {
                    return;
                }
                server.received.lock().unwrap().extend(counts(&message));
            }
        }))
    }

    pub(crate) fn start(serve: Serve) -> Self {
        let server = Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())),
            serve,
            mode: Arc::new(Mutex::new(Mode::Well)),
            received: Arc::default(),
            hurt: Arc::default(),
            generation: Arc::default(),
            listening: Arc::default(),
        };
        server.listen();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn received(&self) -> Vec<u64> {
        self.received.lock().unwrap().clone()
    }

    /// Changes what it does, for connections that exist as well.
    pub(crate) fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
        self.generation.fetch_add(1, Ordering::SeqCst);
        // Wakes up the listener, which looks at the mode. Old connections are worth nothing from here on.
        drop(TcpStream::connect(self.address));
        let listens = mode != Mode::Stopped;
        if listens && !self.listening.load(Ordering::SeqCst) {
            self.listen();
        }
        wait_for("the server to change", || (self.listening.load(Ordering::SeqCst) == listens).then_some(()));
    }

    pub(crate) fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }

    fn listen(&self) {
        let listener = wait_for("the port", || TcpListener::bind(self.address).ok());
        self.listening.store(true, Ordering::SeqCst);
        let server = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if server.mode() == Mode::Stopped {
                    break;
                }
                let (server, Ok(stream)) = (server.clone(), stream) else { continue };
                std::thread::spawn(move || server.converse(&stream));
            }
            drop(listener);
            server.listening.store(false, Ordering::SeqCst);
        });
    }

    /// A connection ends when the mode changes, as if it were another server.
    fn converse(&self, stream: &TcpStream) {
        let generation = self.generation.load(Ordering::SeqCst);
        let (watched, server) = (stream.try_clone().unwrap(), self.clone());
        std::thread::spawn(move || {
            while server.generation.load(Ordering::SeqCst) == generation {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = watched.shutdown(Shutdown::Both);
        });
        let mut piece = [0; 300];
        match self.mode() {
            Mode::Well | Mode::Status(_) => (self.serve)(stream, self),
            Mode::Stopped => {}
            Mode::DiesInMidRequest => {
                if (&*stream).read(&mut piece).is_ok_and(|octets| octets > 0) {
                    self.hurt.fetch_add(1, Ordering::SeqCst);
                }
            }
            Mode::Garbage => {
                if (&*stream).read(&mut piece).is_ok_and(|octets| octets > 0) {
                    let _ = (&*stream).write_all(b"\x00\xff\x16\x03 hello?\r\n\r\n\r\n");
                    self.hurt.fetch_add(1, Ordering::SeqCst);
                }
            }
            Mode::Silent => {
                while (&*stream).read(&mut piece).is_ok_and(|octets| octets > 0) {
                    self.hurt.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// A port that nobody has just now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// The numbers of the records in some octets, in which quotes may be escaped.
pub(crate) fn counts(bytes: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(bytes).replace("\\\"", "\"");
    let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    text.split("\"count\":").skip(1).filter_map(digits).collect()
}

pub(crate) fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut request = Request { head, body: Vec::new() };
    request.body.resize(request.header("content-length")?.parse().ok()?, 0);
    reader.read_exact(&mut request.body).ok()?;
    if request.header("content-encoding").is_some_and(|coding| coding == "gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(request.body.as_slice()).read_to_end(&mut plain).ok()?;
        request.body = plain;
    }
    Some(request)
}

pub(crate) fn read_counted(reader: &mut impl std::io::BufRead) -> Option<Vec<u8>> {
    let mut count = Vec::new();
    reader.read_until(b' ', &mut count).ok()?;
    let count: usize = std::str::from_utf8(count.strip_suffix(b" ")?).ok()?.parse().ok()?;
    let mut message = vec![0; count];
    reader.read_exact(&mut message).ok()?;
    Some(message)
}
