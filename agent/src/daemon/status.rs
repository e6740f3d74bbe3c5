//! How the daemon is, asked through a socket that only its own user (and root) may open.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use distwatch_engine::analysis::Analysis;
use distwatch_engine::model::{Alert, AlertStatus, Stats, Transport};
use distwatch_engine::time::Timestamp;
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::monitor::Command;
use crate::http;
use crate::privilege::Applied;
use crate::sink::SinkStatus;
use crate::source::live::LiveSource;

/// How long an asker may take to read, and the capture thread to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers that are under way at once: more askers wait in the kernel.
const ASKERS: usize = 8;

/// How the daemon is. Fields may be added.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// `capturing`.
    pub state: String,
    /// The program's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it began.
    pub started: Timestamp,
    /// How long it has run.
    pub uptime_seconds: u64,
    /// By how much the wall clock was set since: the daemon's own time does not follow.
    pub clock_step_seconds: i64,
    /// Policies that were loaded since the start.
    pub reloads: u64,
    /// What the daemon gave up once everything was open.
    pub sandbox: Applied,
    /// Where packets come from, and what became of them.
    pub capture: Capture,
    /// Records to standard output, and those that nobody got.
    pub output: Records,
    /// Where else records go.
    pub sinks: Vec<SinkStatus>,
    /// What the HTTP server counts; null where there is none.
    pub http: Option<http::Snapshot>,
    /// What was seen.
    pub cluster: Cluster,
    /// The counters of `stats` records.
    pub stats: Stats,
}

impl Status {
    /// The whole of it in a line, for `systemctl status`.
    #[must_use]
    pub fn in_a_line(&self) -> String {
        let sum = |counts: &BTreeMap<String, usize>| counts.values().sum::<usize>();
        let lost: u64 = self.capture.lost.values().sum();
        format!(
            "capturing by {}: {} links, {} findings, {lost} packets lost",
            self.capture.back_end,
            sum(&self.cluster.links),
            sum(&self.cluster.findings)
        )
    }
}

/// The capture back end, and its books: `seen` is the sum of all that follow it.
#[derive(Clone, Debug, Serialize)]
pub struct Capture {
    /// `ebpf` or `pcap`.
    pub back_end: String,
    /// What it is attached to.
    pub attachments: Vec<String>,
    /// Packets that it was given.
    pub seen: u64,
    /// Octets of them, as long as they were on the wire.
    pub seen_bytes: u64,
    /// Packets that were analysed.
    pub handed: u64,
    /// Octets that were copied for them.
    pub handed_bytes: u64,
    /// Packets of nothing that is watched.
    pub uninteresting: u64,
    /// Packets of connections that are only counted.
    pub counted: u64,
    /// Packets that could not be taken.
    pub refused: u64,
    /// Packets lost, by stage.
    pub lost: BTreeMap<String, u64>,
    /// Octets of them, by stage, where the stage tells.
    pub lost_bytes: BTreeMap<String, u64>,
    /// Octets that packets that were analysed lacked at their end.
    pub cut_bytes: u64,
    /// What was not kept besides packets, by what it was.
    pub shortfalls: BTreeMap<String, u64>,
    /// Decisions on connections and listeners that the back end did not take: what they are about is copied whole, or not at
    /// all before its handshake.
    pub decisions_refused: u64,
}

impl Capture {
    /// How a back end is, with so many decisions that it did not take, and sockets whose process was not looked up.
    pub(super) fn of(source: &mut dyn LiveSource, decisions_refused: u64, not_looked_up: u64) -> Self {
        let books = source.books();
        let named = |counts: Vec<(&'static str, u64)>| {
            counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect::<BTreeMap<_, _>>()
        };
        let mut shortfalls = named(source.shortfalls());
        shortfalls.insert("processes-not-looked-up".to_owned(), not_looked_up);
        Self {
            back_end: source.kind().to_owned(),
            attachments: source.attachments(),
            seen: books.seen,
            seen_bytes: books.seen_bytes,
            handed: books.handed,
            handed_bytes: books.handed_bytes,
            uninteresting: books.uninteresting,
            counted: books.counted,
            refused: books.refused,
            lost: books.lost.iter().map(|lost| (lost.stage.to_owned(), lost.packets)).collect(),
            lost_bytes: books.lost.iter().map(|lost| (lost.stage.to_owned(), lost.bytes)).collect(),
            cut_bytes: books.cut_bytes,
            shortfalls,
            decisions_refused,
        }
    }
}

/// Records that went out, or did not.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Records {
    /// Written.
    pub written: u64,
    /// Dropped: the reader or the disk was too slow, or the reader is gone.
    pub dropped: u64,
    /// Looks at the capture of which the findings could not be put on disk before they were told.
    pub unkept: u64,
    /// Attempts to write the state to disk that failed since it could be written last.
    pub state_failures: u64,
}

/// What was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cluster {
    /// Nodes.
    pub nodes: usize,
    /// Open links, by transport.
    pub links: BTreeMap<String, usize>,
    /// Findings that have not ended, by severity.
    pub findings: BTreeMap<String, usize>,
}

impl Cluster {
    /// What an analysis has seen; `alerts` are its findings, which cost more to list than to count.
    pub(super) fn of(analysis: &Analysis, alerts: &[Alert]) -> Self {
        let mut links: BTreeMap<String, usize> = BTreeMap::new();
        for link in analysis.cluster.links().filter(|link| link.closed.is_none()) {
            *links.entry(transport(link.transport).to_owned()).or_default() += 1;
        }
        let mut findings: BTreeMap<String, usize> = BTreeMap::new();
        for alert in alerts.iter().filter(|alert| alert.status != AlertStatus::Resolved) {
            *findings.entry(alert.severity.name().to_owned()).or_default() += 1;
        }
        Self { nodes: analysis.cluster.nodes().len(), links, findings }
    }
}

/// The word for a transport, as the contract has it.
#[must_use]
pub const fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Cleartext => "cleartext",
        Transport::Tls => "tls",
        Transport::Unknown => "unknown",
    }
}

/// The socket, which is removed with it.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// Listens. A socket that nobody answers any more is replaced; anything else is left where it is.
    ///
    /// # Errors
    /// Another daemon answers there, something that is no socket is there, or the path cannot be used.
    pub async fn listen(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        match UnixStream::connect(path).await {
            Ok(_) => {
                let taken = "another daemon answers there: stop it, or name another socket (--socket)";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, taken));
            }
            // A file refuses as well, and may be somebody's.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                    let other = "something that is no socket is there: name another path (--socket)";
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, other));
                }
                std::fs::remove_file(path)?;
            }
            Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { path: path.to_owned(), listener })
    }

    /// Answers whoever asks, until it is dropped: it never ends by itself.
    pub async fn serve(&self, commands: Sender<Command>) -> Infallible {
        let places = Arc::new(Semaphore::new(ASKERS));
        loop {
            // The semaphore is never closed, so there is always a place in the end.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let commands = commands.clone();
                    tokio::spawn(async move {
                        if let Err(error) = answer(stream, &commands).await {
                            tracing::debug!(%error, "an asker for the status got no answer");
                        }
                        drop(place);
                    });
                }
                // Out of descriptors, say: it may be better in a moment.
                Err(error) => {
                    tracing::warn!(%error, "the status socket takes nobody in");
                    tokio::time::sleep(PATIENCE).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(mut stream: UnixStream, commands: &Sender<Command>) -> io::Result<()> {
    let (sender, receiver) = oneshot::channel();
    let gone = || io::Error::other("the capture thread does not answer");
    commands.send(Command::Status(sender)).map_err(|_| gone())?;
    let status = timeout(PATIENCE, receiver).await.map_err(|_| gone())?.map_err(|_| gone())?;
    let mut text = serde_json::to_vec(&status)?;
    text.push(b'\n');
    timeout(PATIENCE, stream.write_all(&text)).await??;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_socket_that_nobody_answers_is_replaced_and_a_file_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        // Bound and left, as after a kill.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        block_on(async {
            let socket = Socket::listen(&path).await.unwrap();
            let taken = Socket::listen(&path).await.unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            drop(socket);
        });
        assert!(!path.exists());
        std::fs::write(&path, "somebody's").unwrap();
        let error = block_on(Socket::listen(&path)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's");
    }

    #[test]
    fn an_asker_whom_the_capture_thread_cannot_answer_is_let_go_and_the_next_one_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (commands, ended) = channel();
        drop(ended);
        block_on(async {
            let socket = Socket::listen(&path).await.unwrap();
            let ask = async {
                let mut answers = Vec::new();
                for _ in 0..2 * ASKERS {
                    UnixStream::connect(&path).await.unwrap().read_to_end(&mut answers).await.unwrap();
                }
                answers
            };
            tokio::select! {
                _ = socket.serve(commands) => {}
                answers = ask => assert!(answers.is_empty()),
            }
        });
    }
}
