//! The daemon: a capture thread that analyses every packet to its end, and around it signals, the status socket and output.
//!
//! ```text
//!  back end ──packets──> capture thread: analysis ──batches──> records thread ─┬─> sinks
//!     ^                        ^     │                                          ├─> output thread ──> standard output
//!     │                        │     │                                          └─> HTTP thread ──> clients
//!     └──── decisions ─────────┼─────┘            commands: status, policy, stop
//!                              └───────────────── signals, status socket
//! ```
//!
//! Packets never leave the capture thread. What goes on waits in bounded queues; a disk or a reader that is too slow loses records,
//! which is counted and said, and never holds back the capture. Standard output is one way out among the sinks: it is
//! written where no sink is configured, or one of them is of that kind.

pub mod clock;
pub mod fan_out;
pub mod feed;
pub mod journal;
pub mod lock;
pub mod monitor;
pub mod neighbours;
pub mod output;
pub mod picture;
mod queue;
pub mod state;
pub mod status;
pub mod untold;

use std::convert::Infallible;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use self::clock::Clock;
use self::fan_out::{FanOut, Taker};
use self::feed::{Audience, Form, Writer};
use self::monitor::{Command, End, Monitor, Parts};
use self::output::Output;
use self::state::{Keeper, State};
use self::status::Socket;
use crate::cmd::{Exit, Explain as _};
use crate::config::{Config, ConfigErrors};
use crate::host::{Inventory, Snapshot};
use crate::http::{self, Listener, Recent, Reload, Server, Sources};
use crate::privilege::{Applied, Layer, Sandbox};
use crate::sink::{self, Sinks};
use crate::source::live::LiveSource;
use crate::{memory, notify, priority};

/// How long what was written last may take to go out.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long the capture thread may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the command line says of a run.
pub struct Run {
    /// What is in force at the start.
    pub config: Config,
    /// The file that is read again at SIGHUP.
    pub file: Option<PathBuf>,
    /// The status socket.
    pub socket: PathBuf,
    /// Where findings are kept over a restart, and those of the last run.
    pub state: Option<(Keeper, State)>,
    /// The folder of that, and of the sinks' spools.
    pub state_dir: PathBuf,
    /// Where the HTTP server listens, if there is one.
    pub http: Option<Listener>,
    /// The name of this host in records.
    pub host: String,
    /// Whether sockets of all network namespaces should be seen, and not only of the daemon's own.
    pub sees_all_namespaces: bool,
    /// What the host's own sockets are, looked at before anything was captured: what that asks of EPMD is no news.
    pub host_seen: io::Result<Snapshot>,
    /// What is given up once everything is open.
    pub sandbox: Sandbox,
}

/// Captures until a signal says to stop, or the back end fails.
///
/// # Errors
/// Something could not be begun, or the back end failed.
pub fn run(
    run: Run,
    source: Box<dyn LiveSource>,
    inventory: Inventory,
    reload: impl Fn(&Path) -> Result<Config, ConfigErrors>,
) -> anyhow::Result<Exit> {
    memory::share();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end = runtime.block_on(supervise(run, source, inventory, reload));
    // A name that is being looked up has a thread that nobody can stop.
    runtime.shutdown_timeout(Duration::ZERO);
    end
}

async fn supervise(
    mut run: Run,
    source: Box<dyn LiveSource>,
    inventory: Inventory,
    reload: impl Fn(&Path) -> Result<Config, ConfigErrors>,
) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("listening to signals")?;
    let listener = run.http.take();
    let socket = Socket::listen(&run.socket).await.with_context(|| format!("listening at {}", run.socket.display()))?;
    // Before any thread is started: what it takes away, it takes from this thread and those that come of it.
    let sandbox = run.sandbox.apply().context("entering the sandbox")?;
    for gap in sandbox.gaps() {
        tracing::warn!("the sandbox is not complete: {gap}");
    }
    let runtime = tokio::runtime::Handle::current();
    let sinks =
        Arc::new(Sinks::start(&run.config.sinks, &run.state_dir, &run.host, &runtime).or_exit(Exit::NoCapture)?);
    let (commands, to_monitor) = channel();
    let (lookups, asked) = sync_channel(neighbours::LOOKUPS);
    let output = if run.config.sinks.is_empty() { Some(Output::start(io::stdout())?) } else { None };
    let for_a_person = output.is_some() && io::stdout().is_terminal();
    let form = if for_a_person { Form::Lines } else { Form::Ndjson };
    let all = listener.is_some() || (output.is_some() && !for_a_person);
    let audience = if all { Audience::All } else { Audience::Sinks(Arc::clone(&sinks)) };
    let journal = run.state.as_ref().map(|(keeper, _)| keeper.journal()).transpose();
    let journal = journal.context("beginning the journal of findings")?;
    let back_end = source.kind();
    let clock = Clock::start();
    let recent = Arc::new(Recent::new(clock.now().as_nanos().cast_unsigned()));
    let counts = Arc::<http::Counts>::default();
    let loaded = Arc::new(Mutex::new(Reload { successful: true, last_success: clock.now() }));
    let mut takers: Vec<Arc<dyn Taker>> = vec![Arc::clone(&sinks) as _];
    if listener.is_some() {
        takers.push(Arc::clone(&recent) as _);
    }
    let parts = Parts {
        source,
        records: FanOut::start(takers, output, journal).context("starting to hand records on")?,
        sinks: Arc::clone(&sinks),
        writer: Writer::new(form, audience, run.host.clone()),
        clock,
        stats_interval: run.config.daemon.stats_interval,
        policy: run.config.policy.clone(),
        commands: to_monitor,
        lookups,
        sees_all_namespaces: run.sees_all_namespaces,
        sandbox: sandbox.clone(),
        state: run.state.take(),
        http: listener.is_some().then(|| Arc::clone(&counts)),
    };
    let mut monitor = Monitor::new(parts).context("telling the capture what to watch")?;
    match &run.host_seen {
        Ok(snapshot) => monitor.handle_host(snapshot),
        Err(error) => {
            tracing::warn!(%error, "the sockets of this host cannot be read; nodes are found by their traffic");
        }
    }
    neighbours::start(inventory, asked, commands.clone(), clock).context("starting to look at the host")?;
    let (ended, mut end) = oneshot::channel();
    let thread = std::thread::Builder::new().name("capture".into()).spawn(move || {
        let _ = ended.send(monitor.run());
    })?;
    // What sinks do is done by this thread and those that it starts for them.
    priority::give_way();
    tracing::info!(socket = %run.socket.display(), "capturing");
    let sources = |commands: Sender<Command>| Sources {
        ask: Box::new(move |answer| commands.send(Command::Picture(answer)).is_ok()),
        recent,
        reload: Arc::clone(&loaded),
        counts,
        metrics: run.config.metrics,
        host: run.host.clone(),
    };
    let server = listener.map(|listener| listener.start(sources(commands.clone()))).transpose();
    let server = server.context("starting the HTTP server")?;
    let started = format!("capturing by {back_end}");
    notify::ready(&started);
    let reloading = Reloading {
        run: &run,
        sandbox: &sandbox,
        sinks: &sinks,
        server: server.as_ref(),
        loaded: &loaded,
        clock,
        commands: &commands,
    };
    let reloads = async {
        // It ends with the program and not before.
        while signals.hangup.recv().await.is_some() {
            notify::reloading();
            reloading.reload(&reload).await;
            notify::ready(&started);
        }
        std::future::pending::<Infallible>().await
    };
    let mut interrupted = false;
    let (end, records) = {
        let serving = socket.serve(commands.clone());
        let watched = tell_service_manager(&commands);
        tokio::pin!(serving, watched, reloads);
        loop {
            tokio::select! {
                // The thread sends before it ends, whatever it ends by; only a panic would not.
                ended = &mut end => break ended.context("the capture thread ended early")?,
                never = &mut serving => match never {},
                never = &mut watched => match never {},
                never = &mut reloads => match never {},
                _ = signals.terminate.recv() => {
                    let _ = commands.send(Command::Stop);
                }
                _ = signals.interrupt.recv() => {
                    interrupted = true;
                    let _ = commands.send(Command::Stop);
                }
            }
        }
    };
    notify::stopping("bringing findings and records to their end");
    // It has sent its last words and does nothing more.
    let _ = thread.join();
    drop(socket);
    let until = Instant::now() + LAST_WORDS;
    // What is handed on goes to tasks of this thread, so it must not wait here.
    let handed_on = tokio::task::spawn_blocking(move || records.finish(LAST_WORDS)).await;
    if !matches!(handed_on, Ok(true)) {
        tracing::warn!("not all records went out before the end");
    }
    if let Some(server) = server {
        // Its clients have the last records, too, before it ends.
        let _ = tokio::task::spawn_blocking(move || server.stop()).await;
    }
    for left in sinks.flush(until.saturating_duration_since(Instant::now())).await {
        tracing::warn!(
            sink = left.sink,
            records = left.records,
            "a sink has not taken all; the next run sends the rest"
        );
    }
    match end {
        End::Stopped if interrupted => Ok(Exit::Interrupted),
        End::Stopped => Ok(Exit::Done),
        End::Failed(error) => Err(anyhow::Error::new(error).context("capturing")),
    }
}

/// Tells the service manager how it goes, three times as often as it wants to hear, so that one late answer is none too few.
/// The capture thread itself is asked, since that is what must not hang: where it does not answer, nothing is said, and the
/// service manager starts the daemon anew.
async fn tell_service_manager(commands: &Sender<Command>) -> Infallible {
    let Some(interval) = notify::watchdog_interval() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(interval / 3);
    loop {
        ticks.tick().await;
        let (sender, receiver) = oneshot::channel();
        if commands.send(Command::Status(sender)).is_ok()
            && let Ok(Ok(status)) = tokio::time::timeout(PATIENCE, receiver).await
        {
            notify::alive();
            notify::status(&status.in_a_line());
        }
    }
}

/// What loading the configuration anew changes.
struct Reloading<'a> {
    run: &'a Run,
    sandbox: &'a Applied,
    sinks: &'a Sinks,
    server: Option<&'a Server>,
    /// What the metrics tell of it.
    loaded: &'a Mutex<Reload>,
    clock: Clock,
    commands: &'a Sender<Command>,
}

impl Reloading<'_> {
    /// Loads the file anew. A bad one, or one with a sink that cannot be started, changes nothing.
    async fn reload(&self, reload: &impl Fn(&Path) -> Result<Config, ConfigErrors>) {
        let Some(file) = self.run.file.as_deref() else {
            tracing::info!("there is no configuration file to load anew");
            return self.sinks.reopen();
        };
        let taken = self.take(file, reload).await;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.successful = matches!(taken, Ok(true));
        match taken {
            Ok(true) => loaded.last_success = self.clock.now(),
            Ok(false) => {}
            Err(error) => {
                tracing::error!("the configuration stays as it was: {error}");
                self.sinks.reopen();
            }
        }
    }

    /// Returns whether all of it holds now.
    async fn take(&self, file: &Path, reload: &impl Fn(&Path) -> Result<Config, ConfigErrors>) -> anyhow::Result<bool> {
        let config = reload(file)?;
        // By itself: a token that is changed because it was stolen must not wait for a sink.
        let served = self.server.map_or(Ok(()), Server::reload);
        if let Err(error) = &served {
            tracing::error!("the HTTP server goes on with the certificate and the token from before: {error}");
        }
        self.warn_of_what_waits_for_a_restart(&config);
        self.sinks.reload(&config.sinks).await?;
        tracing::info!(file = %file.display(), "the configuration was loaded anew");
        let _ = self.commands.send(Command::Policy(Box::new(config.policy)));
        Ok(served.is_ok())
    }

    fn warn_of_what_waits_for_a_restart(&self, config: &Config) {
        let before = &self.run.config;
        if (&config.capture, &config.daemon) != (&before.capture, &before.daemon) {
            tracing::warn!("what differs in [capture] and [daemon] holds after a restart");
        }
        if (&config.http, &config.metrics) != (&before.http, &before.metrics) {
            tracing::warn!("what differs in [http] and [metrics], or from --http, holds after a restart");
        }
        if config.sinks.is_empty() != before.sinks.is_empty() {
            tracing::warn!("whether records also go to standard output changes with a restart");
        }
        let needs = |config: &Config| sink::Needs::of(&config.sinks, &self.run.state_dir);
        if matches!(self.sandbox.landlock, Layer::Full | Layer::Partial(_)) && !needs(before).cover(&needs(config)) {
            tracing::warn!(
                "a sink needs a folder or a port that the sandbox has not left open: it works after a restart"
            );
        }
    }
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}
