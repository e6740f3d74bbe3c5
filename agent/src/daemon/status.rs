//! How the daemon is, asked through a socket that only its own user (and root) may open.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::Duration;

use distwatch_engine::analysis::Analysis;
use distwatch_engine::model::{AlertStatus, Stats, Transport};
use distwatch_engine::time::Timestamp;
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::monitor::Command;
use crate::privilege::Applied;
use crate::source::live::Books;

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
    /// Records to standard output.
    pub output: Records,
    /// What was seen.
    pub cluster: Cluster,
    /// The counters of `stats` records.
    pub stats: Stats,
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
}

impl Capture {
    pub(super) fn new(kind: &str, attachments: Vec<String>, books: &Books) -> Self {
        Self {
            back_end: kind.to_owned(),
            attachments,
            seen: books.seen,
            handed: books.handed,
            handed_bytes: books.handed_bytes,
            uninteresting: books.uninteresting,
            counted: books.counted,
            refused: books.refused,
            lost: books.lost.iter().map(|&(stage, lost)| (stage.to_owned(), lost)).collect(),
        }
    }
}

/// Records that went out, or did not.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Records {
    /// Written.
    pub written: u64,
    /// Dropped: the reader was too slow, or is gone.
    pub dropped: u64,
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
    pub(super) fn of(analysis: &Analysis) -> Self {
        let mut links: BTreeMap<String, usize> = BTreeMap::new();
        for link in analysis.cluster.links().filter(|link| link.closed.is_none()) {
            let transport = match link.transport {
                Transport::Cleartext => "cleartext",
                Transport::Tls => "tls",
                Transport::Unknown => "unknown",
            };
            *links.entry(transport.to_owned()).or_default() += 1;
        }
        let mut findings: BTreeMap<String, usize> = BTreeMap::new();
        for alert in analysis.judge.alerts().iter().filter(|alert| alert.status != AlertStatus::Resolved) {
            *findings.entry(alert.severity.name().to_owned()).or_default() += 1;
        }
        Self { nodes: analysis.cluster.nodes().len(), links, findings }
    }
}

/// The socket, which is removed with it.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// Listens. A socket that nobody answers any more is replaced.
    ///
    /// # Errors
    /// Another daemon answers there, or the path cannot be used.
    pub async fn listen(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        match UnixStream::connect(path).await {
            Ok(_) => {
                let taken = "another daemon answers there: stop it, or name another socket (--socket)";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, taken));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { path: path.to_owned(), listener })
    }

    /// Answers whoever asks, until it is dropped.
    pub async fn serve(&self, commands: Sender<Command>) {
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(ASKERS));
        loop {
            let Ok(place) = std::sync::Arc::clone(&places).acquire_owned().await else { return };
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
