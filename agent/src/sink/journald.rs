//! `journald`: the journal's native protocol, a datagram of fields for each record.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ring::digest;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};

use super::deliver::{Batch, Deliver, Entry, Outcome, Sending};
use super::format::{AlertView, render, summary, syslog_level};
use super::settings::{Format, Settings};
use super::{Context, Kind};

pub(super) const KIND: Kind = Kind {
    name: "journald",
    help: "the systemd journal, with fields of its own",
    only_alerts: false,
    alerts_unless_asked: false,
    open,
};

/// How long a journal whose queue is full is left alone.
const PAUSE: Duration = Duration::from_millis(20);

/// A journal that takes nothing for so long is away, and whoever asks for the state of the sink should hear of it.
const STUCK: Duration = Duration::from_secs(10);

struct Journald {
    socket: Option<UnixDatagram>,
    path: PathBuf,
    format: Format,
    batch: Batch,
    patience: Duration,
}

fn open(settings: &Settings, _: &Context<'_>) -> Result<Box<dyn Deliver>, String> {
    let wait = settings.batch_wait.unwrap_or_default();
    let batch = Batch { records: settings.batch_records.unwrap_or(200), bytes: 256 << 10, wait };
    let (path, format) = (settings.socket.clone(), settings.format);
    Ok(Box::new(Journald { socket: None, path, format, batch, patience: STUCK }))
}

impl Deliver for Journald {
    fn batch(&self) -> Batch {
        self.batch
    }

    fn send<'a>(&'a mut self, batch: &'a [Entry]) -> Sending<'a> {
        Box::pin(async move {
            for (number, entry) in batch.iter().enumerate() {
                let message = message(entry, self.format);
                let since = Instant::now();
                loop {
                    match self.send_one(&message) {
                        Ok(()) => break,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock && since.elapsed() < self.patience => {
                            tokio::time::sleep(PAUSE).await;
                        }
                        Err(error) => {
                            self.socket = None;
                            let reason = format!("{}: {error}", self.path.display());
                            return Outcome::retry_after(number, reason);
                        }
                    }
                }
            }
            Outcome::DONE
        })
    }
}

impl Journald {
    fn send_one(&mut self, message: &[u8]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket
            }
        };
        let socket = self.socket.insert(socket);
        match socket.send_to(message, &self.path) {
            // Longer than a datagram may be: in a file without a name, which is handed over.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
                let file = sealed(message)?;
                let files = [std::os::fd::AsFd::as_fd(&file)];
                let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                control.push(SendAncillaryMessage::ScmRights(&files));
                let address = SocketAddrUnix::new(&self.path)?;
                sendmsg_addr(socket, &address, &[], &mut control, SendFlags::NOSIGNAL)?;
                Ok(())
            }
            result => result.map(drop),
        }
    }
}

/// A file in memory that nobody can change any more, as the journal wants it.
fn sealed(message: &[u8]) -> io::Result<OwnedFd> {
    let file = memfd_create("distwatch-journal", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = message;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file)
}

fn message(entry: &Entry, format: Format) -> Vec<u8> {
    let kind = entry.event_type.name();
    let mut message = Vec::with_capacity(entry.line.len() * 2 + 512);
    field("SYSLOG_IDENTIFIER", b"distwatch", &mut message);
    field("DISTWATCH_EVENT_TYPE", kind.as_bytes(), &mut message);
    field("DISTWATCH_TIMESTAMP", entry.time.to_string().as_bytes(), &mut message);
    field("DISTWATCH_RECORD", &render(entry, format), &mut message);
    match AlertView::of(entry) {
        Some(alert) => {
            field("MESSAGE", summary(alert.record(), entry.event_type).as_bytes(), &mut message);
            field("MESSAGE_ID", message_id(alert.text("rule_id")).as_bytes(), &mut message);
            field("PRIORITY", syslog_level(alert.severity()).to_string().as_bytes(), &mut message);
            for (name, part) in [
                ("DISTWATCH_RULE_ID", "rule_id"),
                ("DISTWATCH_SEVERITY", "severity"),
                ("DISTWATCH_STATUS", "status"),
                ("DISTWATCH_FINGERPRINT", "fingerprint"),
                ("DISTWATCH_SUBJECT", "subject"),
                ("DISTWATCH_REMEDIATION", "remediation"),
            ] {
                field(name, alert.text(part).as_bytes(), &mut message);
            }
        }
        None => {
            field("MESSAGE", summary(&entry.json(), entry.event_type).as_bytes(), &mut message);
            field("MESSAGE_ID", message_id(kind).as_bytes(), &mut message);
            field("PRIORITY", b"6", &mut message);
        }
    }
    message
}

/// A field: on one line, or with its length before it where it has line feeds of its own.
fn field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The id of all messages of a rule, or of a kind of record: the first half of the SHA-256 of its name, so that it is
/// the same everywhere and for ever.
fn message_id(name: &str) -> String {
    let hash = digest::digest(&digest::SHA256, format!("distwatch:{name}").as_bytes());
    hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::format::testing::entries;
    use super::*;

    #[test]
    fn a_rule_has_one_id_for_ever() {
        // `printf distwatch:weak-cookie | sha256sum | cut -c-32`
        assert_eq!(message_id("weak-cookie"), "a069d378d11ee6f9335ec774237e84d7");
    }

    #[tokio::test]
    async fn a_journal_that_takes_no_more_is_away_and_what_it_took_is_not_sent_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let batch = Batch { records: 1, bytes: 1, wait: Duration::ZERO };
        let mut sink = Journald { socket: None, path, format: Format::Native, batch, patience: Duration::ZERO };
        let entry = entries().remove(0);
        let many = vec![entry.clone(); 5000];
        let Outcome::Retry { done, reason, .. } = sink.send(&many).await else { panic!("nobody reads") };
        assert!(done > 0 && done < many.len() && reason.contains("socket"), "{done} {reason}");
        let expected = message(&entry, Format::Native);
        let mut received = vec![0; expected.len() + 1];
        for _ in 0..done {
            let octets = journal.recv(&mut received).unwrap();
            assert_eq!(received[..octets], expected);
        }
        assert_eq!(sink.send(&many[..1]).await, Outcome::DONE);
    }

    #[test]
    fn fields_are_on_one_line_or_have_their_length() {
        let mut out = Vec::new();
        field("A", b"x=y", &mut out);
        field("B", b"1\n2", &mut out);
        assert_eq!(out, b"A=x=y\nB\n\x03\0\0\0\0\0\0\x001\n2\n");
        for entry in entries() {
            let text = String::from_utf8_lossy(&message(&entry, Format::Native)).into_owned();
            assert!(text.contains("\nMESSAGE=") && text.contains("\nPRIORITY="), "{text}");
        }
    }
}
