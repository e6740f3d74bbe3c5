//! `syslog`: RFC 5424 over UDP, TCP (octet counting) or TLS.
//!
//! None of these has acknowledgements. What was sent over a connection in the last ten seconds before it failed is
//! therefore sent again; over UDP it is when the host says that nobody listens.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::deliver::{Batch, Deliver, Entry, Outcome, Sending};
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
}

enum Connection {
    Datagrams(UdpSocket),
    Stream(Box<dyn Both>),
}

trait Both: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Both for S {}

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

    async fn connect(&self) -> Result<Connection, String> {
        let address = &self.settings.address;
        let failed = |error: std::io::Error| format!("{address}: {error}");
        if self.settings.transport == Transport::Udp {
            let target = tokio::net::lookup_host(address).await.map_err(failed)?.next();
            let target = target.ok_or_else(|| format!("{address} has no address"))?;
            let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).await.map_err(failed)?;
            socket.connect(target).await.map_err(failed)?;
            return Ok(Connection::Datagrams(socket));
        }
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
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
    use super::super::format::testing::entries;
    use super::*;

    #[test]
    fn a_message_is_that_of_rfc_5424() {
        let sink = Syslog {
            settings: SyslogSettings::default(),
            format: Format::Native,
            batch: Batch { records: 1, bytes: 1, wait: Duration::ZERO },
            host: "sensor-1".into(),
            tls: None,
            patience: Duration::ZERO,
            connection: None,
        };
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

    #[test]
    fn what_a_peer_chose_does_not_end_a_parameter_or_a_header() {
        assert_eq!(parameter("a\"]\\\nb"), "a\\\"\\]\\\\b");
        assert_eq!(header("a b\nc", 32), "abc");
        assert_eq!(header("", 32), "-");
    }
}
