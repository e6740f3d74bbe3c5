//! `syslog`: RFC 5424 over UDP, TCP (octet counting) or TLS.
//!
//! None of these has acknowledgements. What was sent over a connection is therefore kept for ten seconds, and longer where
//! the other host has not acknowledged its octets by then; it is sent again when the connection turns out to be broken
//! before that. Over UDP it is when the host says that nobody listens.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::net::sockopt;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::deliver::{Batch, Deliver, Entry, Outcome, Sending, Settled};
use super::format::{AlertView, render, syslog_level};
use super::settings::{Format, Settings, SyslogSettings, Transport};
use super::{Context, Kind, tls};

pub(super) const KIND: Kind = Kind {
    name: "syslog",
    help: "a syslog server, by RFC 5424 over UDP, TCP or TLS",
    only_alerts: false,
    alerts_unless_asked: false,
    open,
};

/// How long what was sent may still turn out to be lost: a server that runs reads its socket within moments.
const SETTLES: Duration = Duration::from_secs(10);

/// How long octets may wait for the other host to acknowledge them before the connection counts as broken. A firewall that
/// has forgotten an idle connection says nothing.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// How often an idle connection is tried, once it has been idle for so long.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long the other side may take to close the connection after us.
const PARTING: Duration = Duration::from_secs(2);

/// The number that stands for nobody in particular (RFC 5612).
const ENTERPRISE: &str = "32473";

/// What a datagram can hold at most over IPv4.
const DATAGRAM: usize = 65_507;

struct Syslog {
    settings: SyslogSettings,
    format: Format,
    batch: Batch,
    host: String,
    tls: Option<Arc<ClientConfig>>,
    patience: Duration,
    connection: Option<Connection>,
    /// Which of a name's addresses datagrams go to next.
    turn: usize,
}

enum Connection {
    Datagrams(UdpSocket),
    Stream(Box<dyn Both>),
}

trait Both: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// What it goes over.
    fn tcp(&self) -> &TcpStream;
}

impl Both for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Both for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

fn open(settings: &Settings, context: &Context<'_>) -> Result<Box<dyn Deliver>, String> {
    let tls = match settings.syslog.transport {
        Transport::Tls => Some(tls::client(&settings.tls)?),
        Transport::Udp | Transport::Tcp => None,
    };
    let wait = settings.batch_wait.unwrap_or_default();
    Ok(Box::new(Syslog {
        settings: settings.syslog.clone(),
        format: settings.format,
        batch: Batch { records: settings.batch_records.unwrap_or(500), bytes: 256 << 10, wait },
        host: header(context.host, 255),
        tls,
        patience: settings.timeout,
        connection: None,
        turn: 0,
    }))
}

impl Deliver for Syslog {
    fn batch(&self) -> Batch {
        self.batch
    }

    fn send<'a>(&'a mut self, batch: &'a [Entry]) -> Sending<'a> {
        Box::pin(async move {
            let patience = self.patience;
            let result = match timeout(patience, self.try_send(batch)).await {
                Ok(result) => result,
                Err(_) => Err(format!("the server takes nothing for {patience:?}")),
            };
            result.unwrap_or_else(|reason| {
                self.connection = None;
                Outcome::retry(reason)
            })
        })
    }

    fn settles_after(&self) -> Option<Duration> {
        Some(SETTLES)
    }

    fn settled(&mut self) -> Pin<Box<dyn Future<Output = Settled> + Send + '_>> {
        Box::pin(async move {
            let lost = match self.connection.as_mut() {
                Some(Connection::Datagrams(_)) => return Settled::Due,
                Some(Connection::Stream(stream)) => match (is_closed(stream).await, unacknowledged(stream.tcp())) {
                    (false, Ok(0)) => return Settled::Due,
                    // The kernel ends the connection when this lasts.
                    (false, Ok(_)) => return Settled::NotYet,
                    (false, Err(error)) => error.to_string(),
                    (true, _) => "the server has closed the connection".to_owned(),
                },
                None => "there is no connection any more".to_owned(),
            };
            self.connection = None;
            Settled::Lost(lost)
        })
    }

    fn close(&mut self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move {
            match self.connection.take() {
                // It closes when it has read everything before.
                Some(Connection::Stream(mut stream)) => {
                    let gone = async {
                        stream.shutdown().await?;
                        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
                    };
                    matches!(timeout(PARTING, gone).await, Ok(Ok(_)))
                }
                _ => true,
            }
        })
    }
}

impl Syslog {
    async fn try_send(&mut self, batch: &[Entry]) -> Result<Outcome, String> {
        if self.connection.is_none() {
            self.connection = Some(self.connect().await?);
        }
        let messages: Vec<Vec<u8>> = batch.iter().map(|entry| self.message(entry)).collect();
        match self.connection.as_mut() {
            Some(Connection::Datagrams(socket)) => {
                let mut too_long = 0;
                for message in &messages {
                    match message.len() {
                        0..=DATAGRAM => socket.send(message).await.map_err(|error| error.to_string())?,
                        _ => {
                            too_long += 1;
                            continue;
                        }
                    };
                }
                Ok(Outcome::refused(too_long, "longer than a datagram"))
            }
            Some(Connection::Stream(stream)) => {
                if is_closed(stream).await {
                    return Err("the server has closed the connection".to_owned());
                }
                let mut bytes = Vec::with_capacity(messages.iter().map(|message| message.len() + 8).sum());
                for message in &messages {
                    bytes.extend_from_slice(format!("{} ", message.len()).as_bytes());
                    bytes.extend_from_slice(message);
                }
                stream.write_all(&bytes).await.map_err(|error| error.to_string())?;
                stream.flush().await.map_err(|error| error.to_string())?;
                Ok(Outcome::DONE)
            }
            None => Err("there is no connection".to_owned()),
        }
    }

    async fn connect(&mut self) -> Result<Connection, String> {
        let address = &self.settings.address;
        let failed = |error: std::io::Error| format!("{address}: {error}");
        if self.settings.transport == Transport::Udp {
            // Whether somebody listens shows only later, so each attempt takes the next address.
            let targets: Vec<_> = tokio::net::lookup_host(address).await.map_err(failed)?.collect();
            let target = targets.get(self.turn % targets.len().max(1)).copied();
            let target = target.ok_or_else(|| format!("{address} has no address"))?;
            self.turn = self.turn.wrapping_add(1);
            let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).await.map_err(failed)?;
            socket.connect(target).await.map_err(failed)?;
            return Ok(Connection::Datagrams(socket));
        }
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        watch(&stream).map_err(|error| failed(error.into()))?;
        let Some(config) = &self.tls else { return Ok(Connection::Stream(Box::new(stream))) };
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|_| format!("{host} is no name that a certificate could have"))?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(failed)?;
        Ok(Connection::Stream(Box::new(stream)))
    }

    /// The header and structured data of RFC 5424, then the record.
    fn message(&self, entry: &Entry) -> Vec<u8> {
        let alert = AlertView::of(entry);
        let level = alert.as_ref().map_or(6, |alert| syslog_level(alert.severity()));
        let priority = u16::from(self.settings.facility) * 8 + u16::from(level);
        // TIME-SECFRAC has at most six digits.
        let time = entry.time.to_string();
        let time = time.get(..26).unwrap_or("1970-01-01T00:00:00.000000");
        let kind = entry.event_type.name();
        let id = alert.as_ref().map_or(kind, |alert| alert.text("rule_id"));
        let mut data = format!("[distwatch@{ENTERPRISE} event_type=\"{kind}\"");
        if let Some(alert) = &alert {
            for name in ["rule_id", "severity", "status", "fingerprint", "subject"] {
                data.push_str(&format!(" {name}=\"{}\"", parameter(alert.text(name))));
            }
        }
        let (host, process, id) = (&self.host, std::process::id(), header(id, 32));
        let mut message = format!("<{priority}>1 {time}Z {host} distwatch {process} {id} {data}] ").into_bytes();
        message.extend_from_slice(&render(entry, self.format));
        message
    }
}

/// Whether the other side has ended the connection. A syslog server never says anything else.
async fn is_closed(stream: &mut Box<dyn Both>) -> bool {
    let mut something = [0; 64];
    match timeout(Duration::ZERO, stream.read(&mut something)).await {
        Ok(Ok(0) | Err(_)) => true,
        Ok(Ok(_)) | Err(_) => false,
    }
}

/// Has the kernel find out by itself that the other host is gone.
fn watch(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_tcp_user_timeout(stream, u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX))?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE / 4)?;
    sockopt::set_socket_keepalive(stream, true)
}

/// Octets that the other host has not acknowledged (`SIOCOUTQ`, tcp(7)).
#[allow(unsafe_code)] // No crate in use wraps this question.
fn unacknowledged(stream: &TcpStream) -> rustix::io::Result<i32> {
    /// The same number as `TIOCOUTQ`.
    const SIOCOUTQ: Opcode = libc::TIOCOUTQ as Opcode;
    // SAFETY: the kernel answers this with one `int`, and reads nothing.
    unsafe { ioctl(stream, Getter::<SIOCOUTQ, i32>::new()) }
}

/// A field of the header: printable ASCII without spaces, `-` where there is nothing.
fn header(text: &str, longest: usize) -> String {
    let field: String = text.chars().filter(char::is_ascii_graphic).take(longest).collect();
    if field.is_empty() { "-".to_owned() } else { field }
}

/// The value of a parameter (section 6.3.3): three characters have a backslash before them.
fn parameter(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for character in text.chars().filter(|it| !it.is_control()) {
        if matches!(character, '"' | '\\' | ']') {
            value.push('\\');
        }
        value.push(character);
    }
    value
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::format::testing::entries;
    use super::*;

    fn sink() -> Syslog {
        Syslog {
            settings: SyslogSettings::default(),
            format: Format::Native,
            batch: Batch { records: 1, bytes: 1, wait: Duration::ZERO },
            host: "sensor-1".into(),
            tls: None,
            patience: Duration::from_secs(30),
            connection: None,
            turn: 0,
        }
    }

    #[test]
    fn a_message_is_that_of_rfc_5424() {
        let sink = sink();
        for entry in entries() {
            let text = String::from_utf8(sink.message(&entry)).unwrap();
            let fields: Vec<&str> = text.splitn(7, ' ').collect();
            let priority: u16 = fields[0].strip_prefix('<').unwrap().strip_suffix(">1").unwrap().parse().unwrap();
            assert_eq!(priority / 8, 16);
            assert_eq!(fields[1].len(), "2026-11-23T03:58:49.333358Z".len());
            assert_eq!(fields[2..4], ["sensor-1", "distwatch"]);
            assert!(fields[5].len() <= 32);
            assert!(fields[6].starts_with("[distwatch@32473 event_type=\""));
            assert!(text.as_bytes().ends_with(&entry.line));
        }
    }

    /// A sink, and the server's end of its connection.
    async fn connected() -> (Syslog, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut sink = Syslog { settings: SyslogSettings { address, ..SyslogSettings::default() }, ..sink() };
        assert_eq!(sink.send(&entries()).await, Outcome::DONE);
        (sink, listener.accept().await.unwrap().0)
    }

    /// What is said of what was sent, once that is no longer `now`.
    async fn settled_unless(sink: &mut Syslog, now: &Settled) -> Settled {
        let wait = async {
            loop {
                match sink.settled().await {
                    said if said == *now => tokio::task::yield_now().await,
                    said => return said,
                }
            }
        };
        timeout(Duration::from_secs(30), wait).await.expect("it changes its mind")
    }

    #[tokio::test]
    async fn what_was_sent_to_a_server_that_closes_the_connection_is_in_doubt_without_a_further_record() {
        let (mut sink, server) = connected().await;
        assert_eq!(settled_unless(&mut sink, &Settled::NotYet).await, Settled::Due);
        drop(server);
        assert!(matches!(settled_unless(&mut sink, &Settled::Due).await, Settled::Lost(_)));
        assert!(sink.connection.is_none(), "what is sent again goes over another one");
    }

    #[tokio::test]
    async fn what_the_other_host_has_not_acknowledged_does_not_settle() {
        let (mut sink, mut server) = connected().await;
        // Nobody reads, until the other host takes no more.
        let Some(Connection::Stream(stream)) = sink.connection.as_mut() else { panic!("it is connected") };
        while stream.tcp().try_write(&[b' '; 4096]).is_ok() {}
        assert_eq!(sink.settled().await, Settled::NotYet);
        let reading = tokio::spawn(async move { tokio::io::copy(&mut server, &mut tokio::io::sink()).await });
        assert_eq!(settled_unless(&mut sink, &Settled::NotYet).await, Settled::Due);
        reading.abort();
    }

    #[test]
    fn what_a_peer_chose_does_not_end_a_parameter_or_a_header() {
        assert_eq!(parameter("a\"]\\\nb"), "a\\\"\\]\\\\b");
        assert_eq!(header("a b\nc", 32), "abc");
        assert_eq!(header("", 32), "-");
    }
}
