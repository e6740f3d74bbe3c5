//! Connections: taken in, each served by a task of its own within the limits, and brought to their end.
//!
//! The server has a thread with an event loop of its own. Writing the state of a large cluster as JSON, and the arithmetic of TLS,
//! take milliseconds at a time, in which signals, sinks and the status socket would have to wait on a common loop.

use std::convert::Infallible;
use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::{set_socket_send_buffer_size, set_tcp_user_timeout};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::access::Door;
use super::counts::Present;
use super::guests::{Admitted, Guest, Guests, Said, Seat, Underway};
use super::limits::{HEAD_BYTES, HEAD_FIELDS, HEAD_PATIENCE, SEND_BUFFER};
use super::patient::Patient;
use super::settings::Settings;
use super::site::{Site, Sources};

/// How long answers that are under way at the end may take to go out.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How long what was sent may stay unacknowledged, in milliseconds: twice as long as heartbeats are apart.
const GONE_MILLISECONDS: u32 = 30_000;

/// After an accept that failed: out of descriptors, say, it may be better in a moment.
const PAUSE: Duration = Duration::from_secs(1);

/// The server cannot be had as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings do not go together.
    #[error("[http] cannot be in force: {0}")]
    Settings(#[from] super::Fault),
    /// A file does not hold what it should.
    #[error("[http] cannot be in force: {0}")]
    File(String),
    /// The place cannot be listened at.
    #[error("cannot listen on {at}: {error}")]
    Listen {
        /// Where.
        at: SocketAddr,
        /// Why not.
        error: io::Error,
    },
}

/// A place that is listened at; connections wait in the kernel until the server is started.
#[derive(Debug)]
pub struct Listener {
    socket: net::TcpListener,
    address: SocketAddr,
    settings: Settings,
    door: Door,
}

impl Listener {
    /// Listens, and reads all files that the settings name: before the sandbox, in which neither can be done.
    ///
    /// # Errors
    /// The settings cannot be in force, a file does not hold what it should, or the place cannot be listened at.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        settings.check()?;
        let door = Door::open(settings).map_err(OpenError::File)?;
        let listen = || -> io::Result<(net::TcpListener, SocketAddr)> {
            let socket = net::TcpListener::bind(settings.listen)?;
            socket.set_nonblocking(true)?;
            // Connections have it from the socket that they come by.
            set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
            let address = socket.local_addr()?;
            Ok((socket, address))
        };
        let (socket, address) = listen().map_err(|error| OpenError::Listen { at: settings.listen, error })?;
        Ok(Self { socket, address, settings: settings.clone(), door })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to answer.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(self, sources: Sources) -> io::Result<Server> {
        let scheme = if self.door.tls.is_some() { "https" } else { "http" };
        tracing::info!("answering at {scheme}://{}/", self.address);
        let insecure = !self.settings.is_on_loopback() && !self.door.is_shut();
        if insecure {
            tracing::warn!(address = %self.address, "the HTTP server shows the cluster to whoever reaches it");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopping) = watch::channel(false);
        let site = Arc::new(Site::new(self.door, sources, stopping.clone()));
        let (ended, end) = channel();
        let served = Arc::clone(&site);
        let thread = std::thread::Builder::new().name("http".into()).spawn(move || {
            runtime.block_on(serve(self.socket, served, stopping));
            drop(runtime);
            let _ = ended.send(());
        })?;
        Ok(Server { address: self.address, settings: self.settings, site, stop, end, thread })
    }
}

/// A server at work.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    settings: Settings,
    site: Arc<Site>,
    stop: watch::Sender<bool>,
    end: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads certificate, key and token anew. Where that fails, those from before stay in force.
    ///
    /// # Errors
    /// A file cannot be read, or does not hold what it should.
    pub fn reload(&self) -> Result<(), OpenError> {
        self.site.set_door(Door::open(&self.settings).map_err(OpenError::File)?);
        Ok(())
    }

    /// Takes nobody in any more, lets what is under way go out, and ends.
    pub fn stop(self) {
        self.stop.send_replace(true);
        match self.end.recv_timeout(2 * LAST_ANSWERS) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                if self.thread.join().is_err() {
                    tracing::error!("the thread of the HTTP server has panicked");
                }
            }
            Err(RecvTimeoutError::Timeout) => tracing::warn!("the HTTP server did not end in time"),
        }
    }
}

async fn serve(socket: net::TcpListener, site: Arc<Site>, mut stopping: watch::Receiver<bool>) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the HTTP server takes nobody in"),
    };
    let guests = Arc::<Guests>::default();
    // Closed once the last connection has ended.
    let (there, mut all_gone) = mpsc::channel::<Infallible>(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = told(&mut stopping) => break,
        };
        match accepted {
            Ok((stream, from)) => match guests.admit(from.ip()) {
                Some(Admitted { seat, instead_of_another }) => {
                    if instead_of_another {
                        site.counts.gave_way();
                    }
                    let (site, stopping, there) = (Arc::clone(&site), stopping.clone(), there.clone());
                    tokio::spawn(async move {
                        host(stream, site, &seat, stopping).await;
                        drop(there);
                    });
                }
                None => site.counts.refused(),
            },
            Err(error) => {
                tracing::warn!(%error, "the HTTP server takes nobody in");
                sleep(PAUSE).await;
            }
        }
    }
    drop((listener, there));
    let _ = timeout(LAST_ANSWERS, all_gone.recv()).await;
}

/// Waits until the server is to end; also where nobody is left to say so.
pub(super) async fn told(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Serves a connection to its end, or until it has to give way.
async fn host(stream: TcpStream, site: Arc<Site>, seat: &Seat, stopping: watch::Receiver<bool>) {
    let _present = Present::connection(&site.counts);
    tokio::select! {
        () = take_in(stream, site, seat, stopping) => {}
        () = seat.has_to_leave() => {}
    }
}

async fn take_in(stream: TcpStream, site: Arc<Site>, guest: &Arc<Guest>, stopping: watch::Receiver<bool>) {
    // Answers are written whole; waiting for more to send only makes them late.
    let _ = stream.set_nodelay(true);
    // A client that is gone without a word takes nothing and says nothing; what little a stream sends would fit the buffer.
    let _ = set_tcp_user_timeout(&stream, GONE_MILLISECONDS);
    let stream = Patient::new(stream, Arc::clone(&site.counts), Arc::clone(guest));
    match site.door().tls.clone() {
        None => converse(stream, site, guest, stopping).await,
        Some(tls) => match timeout(HEAD_PATIENCE, tls.accept(stream)).await {
            Ok(Ok(stream)) => converse(stream, site, guest, stopping).await,
            Ok(Err(error)) => tracing::debug!(%error, "a client of the HTTP server does not speak TLS as it should"),
            Err(_) => tracing::debug!("a client of the HTTP server did not finish its TLS handshake"),
        },
    }
}

/// Answers one request after the other.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    site: Arc<Site>,
    guest: &Arc<Guest>,
    mut stopping: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| {
        let (site, underway) = (Arc::clone(&site), Underway::begin(guest));
        async move { Ok::<_, Infallible>(site.respond(request).await.map(|body| Said::new(body, underway))) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_header_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = told(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to the HTTP server ended");
    }
}
