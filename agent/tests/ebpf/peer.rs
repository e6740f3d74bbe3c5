//! A process in a cgroup (and a network namespace) that does with TCP what it is told, a line at a time.
//!
//! It is this test's own program once more, so that nothing else has to be installed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, sockopt};

/// Set for the process that does the work.
const PEER: &str = "DISTWATCH_TEST_PEER";

/// The octet at a place of all that is written.
pub(crate) fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

pub(crate) struct Peer {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    pub(crate) fn in_cgroup(cgroup: &Path) -> Self {
        Self::start(cgroup, None)
    }

    pub(crate) fn in_namespace(cgroup: &Path, namespace: &str) -> Self {
        Self::start(cgroup, Some(namespace))
    }

    fn start(cgroup: &Path, namespace: Option<&str>) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = match namespace {
            Some(namespace) => {
                let mut ip = Command::new("ip");
                ip.args(["netns", "exec", namespace]).arg(program);
                ip
            }
            None => Command::new(program),
        };
        command.args(["--exact", "peer::peer", "--nocapture", "--quiet"]).env(PEER, "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // It makes no socket before it is told to. (`ip netns exec` hides the folder from the process itself.)
        std::fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut peer = Self { child, orders, answers };
        peer.answer();
        peer
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order; returns what it answers.
    pub(crate) fn order(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        self.answer()
    }

    pub(crate) fn listen(&mut self, ip: &str) -> SocketAddr {
        self.order(&format!("listen {ip}")).parse().unwrap()
    }

    /// Connects, accepts, and returns the client's address.
    pub(crate) fn connect(&mut self, to: SocketAddr) -> SocketAddr {
        let from = self.order(&format!("connect {to} 0")).parse().unwrap();
        self.order("accept");
        from
    }

    /// From the client to the server, in the same process.
    pub(crate) fn send(&mut self, octets: usize) {
        self.order(&format!("write client {octets}"));
        self.order(&format!("read server {octets}"));
    }

    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.answers.read_line(&mut line).unwrap(), 0, "the peer ended");
            // The harness's own lines are of no interest.
            if let Some((_, answer)) = line.split_once("answer: ") {
                assert!(!answer.starts_with("error"), "{answer}");
                return answer.trim().to_owned();
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// No test, but the other process of all of them.
#[test]
fn peer() {
    if std::env::var_os(PEER).is_none() {
        return;
    }
    println!("answer: ready");
    let mut sockets = Sockets::default();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        match sockets.obey(&line) {
            Ok(answer) => println!("answer: {answer}"),
            Err(error) => println!("answer: error: {line}: {error}"),
        }
    }
}

#[derive(Default)]
struct Sockets {
    listener: Option<TcpListener>,
    client: Option<TcpStream>,
    server: Option<TcpStream>,
    idle: Vec<TcpStream>,
    written: [usize; 2],
    read: [usize; 2],
    holding: Option<distwatch::source::ebpf::EbpfSource>,
}

impl Sockets {
    fn obey(&mut self, line: &str) -> Result<String, Box<dyn std::error::Error>> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["listen", ip] => {
                let listener = TcpListener::bind(SocketAddr::new(ip.parse()?, 0))?;
                let at = listener.local_addr()?;
                self.listener = Some(listener);
                Ok(at.to_string())
            }
            ["listen-at", at] => {
                self.listener = Some(TcpListener::bind(at.parse::<SocketAddr>()?)?);
                Ok("done".into())
            }
            ["connect", to, from_port] => {
                let stream = connect(to.parse()?, from_port.parse()?)?;
                let from = stream.local_addr()?;
                self.client = Some(stream);
                self.written = [0; 2];
                self.read = [0; 2];
                Ok(from.to_string())
            }
            ["accept"] => {
                let (stream, from) = self.listener.as_ref().ok_or("nothing listens")?.accept()?;
                self.server = Some(stream);
                Ok(from.to_string())
            }
            // Connections without payload, or each with its own.
            ["crowd", to, count, payload @ ..] => {
                let payload = payload.concat();
                for _ in 0..count.parse::<usize>()? {
                    let mut stream = connect(to.parse()?, 0)?;
                    stream.write_all(payload.as_bytes())?;
                    self.idle.push(stream);
                    self.idle.push(self.listener.as_ref().ok_or("nothing listens")?.accept()?.0);
                }
                Ok("done".into())
            }
            ["disperse"] => {
                self.idle.clear();
                Ok("done".into())
            }
            ["write", who, octets] => {
                let which = usize::from(*who == "server");
                let begin = self.written[which];
                let bytes: Vec<u8> = (begin..begin + octets.parse::<usize>()?).map(pattern).collect();
                self.written[which] += bytes.len();
                self.stream(which)?.write_all(&bytes)?;
                Ok("done".into())
            }
            ["say", who, hex] => {
                let bytes: Result<Vec<u8>, _> =
                    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16)).collect();
                self.stream(usize::from(*who == "server"))?.write_all(&bytes?)?;
                Ok("done".into())
            }
            ["read", who, octets] => {
                let which = usize::from(*who == "server");
                let mut bytes = vec![0; octets.parse()?];
                self.stream(which)?.read_exact(&mut bytes)?;
                self.read[which] += bytes.len();
                Ok("done".into())
            }
            ["close"] => {
                drop(self.client.take());
                // The other side learns of it, then closes as well.
                if let Some(mut server) = self.server.take() {
                    server.read_to_end(&mut Vec::new())?;
                }
                Ok("done".into())
            }
            ["reset"] => {
                let client = self.client.take().ok_or("no client")?;
                sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
                drop(client);
                drop(self.server.take());
                Ok("done".into())
            }
            ["hold", what] => {
                use distwatch::source::ebpf::{EbpfSource, Options};
                let options = match what.strip_prefix("classic:") {
                    Some(interface) => {
                        Options { interfaces: vec![interface.into()], classic: true, ..Options::default() }
                    }
                    None => Options { cgroup: Some(what.into()), ..Options::default() },
                };
                self.holding = Some(EbpfSource::open(&options)?);
                Ok("done".into())
            }
            _ => Err("no such order".into()),
        }
    }

    fn stream(&mut self, which: usize) -> Result<&mut TcpStream, String> {
        let stream = if which == 0 { &mut self.client } else { &mut self.server };
        stream.as_mut().ok_or_else(|| "not connected".to_owned())
    }
}

/// From this port, or any.
fn connect(to: SocketAddr, port: u16) -> Result<TcpStream, rustix::io::Errno> {
    let (family, any) = match to.ip() {
        IpAddr::V4(_) => (AddressFamily::INET, "0.0.0.0"),
        IpAddr::V6(_) => (AddressFamily::INET6, "::"),
    };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    if port != 0 {
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &SocketAddr::new(any.parse().unwrap(), port))?;
    }
    rustix::net::connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    Ok(stream)
}
