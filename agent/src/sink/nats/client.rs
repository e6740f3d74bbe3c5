//! As much of the NATS protocol as publishing with acknowledgements takes: one connection, one batch at a time.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::sink::settings::Settings;
use crate::sink::tls;

/// The longest line: that of INFO, in which a server names all others of its cluster.
const LONGEST_LINE: u64 = 64 << 10;

/// The longest answer. Those of JetStream have some hundred octets.
const LONGEST_ANSWER: usize = 64 << 10;

const PORT: u16 = 4222;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    host: String,
    pub(super) port: u16,
    tls: bool,
}

/// Whom to be, and whom to believe.
pub(super) struct Login {
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    tls: Arc<ClientConfig>,
}

/// A record on its way.
pub(super) struct Message<'a> {
    pub(super) subject: String,
    pub(super) id: String,
    pub(super) body: Cow<'a, [u8]>,
}

/// A connection on which the server knows us.
pub(super) struct Client {
    stream: BufReader<Box<dyn Both>>,
    inbox: String,
    next: u64,
    largest: usize,
}

pub(super) trait Both: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Both for S {}

/// What a server says.
enum Said {
    Info(Value),
    Ping,
    Pong,
    Ok,
    Error(String),
    /// A message for one of our subjects: the subject, the headers, the body.
    Message(String, Vec<u8>, Vec<u8>),
}

impl Server {
    /// Reads `nats://host:port` or `tls://host:port`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "write it as nats://host:4222, or tls://host:4222".to_owned();
        let (tls, rest) = match (text.strip_prefix("nats://"), text.strip_prefix("tls://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(wrong()),
        };
        let rest = rest.trim_end_matches('/');
        if rest.contains('@') {
            return Err(
                "it holds a user or a token; they belong in `user`, `password_file` and `token_file`".to_owned()
            );
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && (!host.contains(':') || host.ends_with(']')) => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (rest, PORT),
        };
        if host.is_empty() || host.contains(['/', ' ']) {
            return Err(wrong());
        }
        Ok(Self { host: host.trim_matches(['[', ']']).to_owned(), port, tls })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Login {
    /// Reads the secrets.
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let needed = settings.url.iter().any(|url| url.starts_with("tls://")) || settings.tls.ca_file.is_some();
        let auth = &settings.auth;
        Ok(Self {
            user: auth.user.clone(),
            password: auth.password.read()?,
            token: auth.token.read()?,
            tls: if needed { tls::client(&settings.tls)? } else { Arc::new(tls::none()) },
        })
    }
}

impl Client {
    /// Connects and says who we are.
    pub(super) async fn connect(server: &Server, login: &Login) -> Result<Self, String> {
        let stream = TcpStream::connect((server.host.as_str(), server.port)).await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        let mut stream: BufReader<Box<dyn Both>> = BufReader::new(Box::new(stream));
        let Said::Info(info) = read(&mut stream).await? else { return Err("it does not speak NATS".to_owned()) };
        let tls = server.tls || info["tls_required"] == true;
        if tls {
            let name = ServerName::try_from(server.host.clone()).map_err(text)?;
            let plain = stream.into_inner();
            let stream_tls = TlsConnector::from(Arc::clone(&login.tls)).connect(name, plain).await.map_err(text)?;
            stream = BufReader::new(Box::new(stream_tls));
        }
        let mut client = Self {
            stream,
            inbox: format!("_INBOX.{:016x}", RandomState::new().hash_one(server.port)),
            next: 0,
            largest: info["max_payload"].as_u64().and_then(|most| usize::try_from(most).ok()).unwrap_or(1 << 20),
        };
        let hello = json!({
            "verbose": false, "pedantic": false, "lang": "rust", "version": env!("CARGO_PKG_VERSION"),
            "name": "distwatch", "protocol": 1, "headers": true, "no_responders": true, "echo": false,
            "tls_required": tls, "user": login.user, "pass": login.password, "auth_token": login.token,
        });
        let start = format!("CONNECT {hello}\r\nSUB {}.* 1\r\nPING\r\n", client.inbox);
        client.stream.write_all(start.as_bytes()).await.map_err(text)?;
        client.until_pong().await?;
        Ok(client)
    }

    /// Publishes and waits for every answer; in the order of the messages.
    pub(super) async fn publish(&mut self, messages: &[Message<'_>]) -> Result<Vec<Result<Vec<u8>, String>>, String> {
        let first = self.next;
        self.next += messages.len() as u64;
        let mut out = Vec::new();
        let mut answers = HashMap::new();
        for (number, message) in (first..).zip(messages) {
            let headers = format!("NATS/1.0\r\nNats-Msg-Id: {}\r\n\r\n", message.id);
            let size = headers.len() + message.body.len();
            if size > self.largest {
                // As JetStream would say it, could it be asked.
                let refusal = json!({ "error": { "err_code": 10_054, "description": "larger than the server takes" } });
                answers.insert(number, Ok(refusal.to_string().into_bytes()));
                continue;
            }
            let inbox = &self.inbox;
            let line = format!("HPUB {} {inbox}.{number} {} {size}\r\n{headers}", message.subject, headers.len());
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(&message.body);
            out.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&out).await.map_err(text)?;
        self.stream.flush().await.map_err(text)?;
        while answers.len() < messages.len() {
            match read(&mut self.stream).await? {
                Said::Message(subject, headers, body) => {
                    let number = subject.rsplit_once('.').and_then(|(_, number)| number.parse::<u64>().ok());
                    let Some(number) = number.filter(|number| (first..self.next).contains(number)) else { continue };
                    let nobody = headers.starts_with(b"NATS/1.0 503");
                    let answer = if nobody { Err("no stream takes this subject".to_owned()) } else { Ok(body) };
                    answers.insert(number, answer);
                }
                Said::Ping => self.stream.write_all(b"PONG\r\n").await.map_err(text)?,
                Said::Error(error) => return Err(error),
                Said::Info(_) | Said::Pong | Said::Ok => {}
            }
        }
        Ok((first..self.next).filter_map(|number| answers.remove(&number)).collect())
    }

    /// Answers what the server has asked meanwhile, and finds out whether it is still there.
    pub(super) async fn look_after(&mut self) -> Result<(), String> {
        self.stream.write_all(b"PING\r\n").await.map_err(text)?;
        self.until_pong().await
    }

    async fn until_pong(&mut self) -> Result<(), String> {
        self.stream.flush().await.map_err(text)?;
        loop {
            match read(&mut self.stream).await? {
                Said::Pong => return Ok(()),
                Said::Ping => self.stream.write_all(b"PONG\r\n").await.map_err(text)?,
                Said::Error(error) => return Err(error),
                Said::Info(_) | Said::Ok | Said::Message(..) => {}
            }
        }
    }
}

async fn read(stream: &mut BufReader<Box<dyn Both>>) -> Result<Said, String> {
    let mut line = Vec::new();
    stream.take(LONGEST_LINE).read_until(b'\n', &mut line).await.map_err(text)?;
    if line.is_empty() {
        return Err("the server has closed the connection".to_owned());
    }
    let line = String::from_utf8_lossy(&line);
    let Some(line) = line.strip_suffix("\r\n") else { return Err("it does not speak NATS".to_owned()) };
    let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    match verb.to_ascii_uppercase().as_str() {
        "INFO" => serde_json::from_str(rest).map(Said::Info).map_err(text),
        "PING" => Ok(Said::Ping),
        "PONG" => Ok(Said::Pong),
        "+OK" => Ok(Said::Ok),
        "-ERR" => Ok(Said::Error(rest.trim_matches('\'').to_owned())),
        verb @ ("MSG" | "HMSG") => message(verb == "HMSG", rest, stream).await,
        _ => Err("it does not speak NATS".to_owned()),
    }
}

/// `subject sid [reply-to] [header octets] octets`, and then that many octets.
async fn message(headers: bool, rest: &str, stream: &mut BufReader<Box<dyn Both>>) -> Result<Said, String> {
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let wrong = || "it does not speak NATS".to_owned();
    let number = |back: usize| words.len().checked_sub(back).and_then(|at| words.get(at)?.parse::<usize>().ok());
    let all = number(1).filter(|all| *all <= LONGEST_ANSWER).ok_or_else(wrong)?;
    let head = if headers { number(2).filter(|head| *head <= all).ok_or_else(wrong)? } else { 0 };
    let mut body = vec![0; all + 2];
    stream.read_exact(&mut body).await.map_err(text)?;
    body.truncate(all);
    let rest = body.split_off(head);
    Ok(Said::Message(words.first().copied().unwrap_or_default().to_owned(), body, rest))
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_no_secret() {
        let server = |host: &str, port, tls| Ok(Server { host: host.to_owned(), port, tls });
        assert_eq!(Server::parse("nats://broker"), server("broker", 4222, false));
        assert_eq!(Server::parse("tls://broker:1234/"), server("broker", 1234, true));
        assert_eq!(Server::parse("nats://[::1]:4223"), server("::1", 4223, false));
        for wrong in ["broker:4222", "nats://", "nats://me:hunter2@broker", "nats://broker:port", "http://x"] {
            assert!(!Server::parse(wrong).expect_err(wrong).contains("hunter2"));
        }
    }
}
