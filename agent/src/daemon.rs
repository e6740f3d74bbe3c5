//! The daemon: a capture thread that analyses every packet to its end, and around it signals, the status socket and output.
//!
//! ```text
//!  back end ──packets──> capture thread: analysis ──batches──> output thread ──> standard output
//!     ^                        ^     │
//!     └──── decisions ─────────┼─────┘            commands: status, policy, stop
//!                              └───────────────── signals, status socket
//! ```
//!
//! Packets never leave the capture thread. What goes to the output waits in a bounded queue; a reader that is too slow loses
//! records, which is counted and said, and never holds back the capture.

pub mod clock;
pub mod feed;
pub mod monitor;
pub mod neighbours;
pub mod output;
pub mod state;
pub mod status;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use self::clock::Clock;
use self::feed::{Form, Writer};
use self::monitor::{Command, End, Monitor, Parts};
use self::output::Output;
use self::state::{Keeper, State};
use self::status::Socket;
use crate::cmd::Exit;
use crate::config::{Config, ConfigErrors};
use crate::privilege::Sandbox;
use crate::source::live::LiveSource;

/// How long what was written last may take to go out.
const LAST_WORDS: Duration = Duration::from_secs(5);

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
    /// The name of this host in records.
    pub host: String,
    /// Whether sockets of all network namespaces should be seen, and not only of the daemon's own.
    pub sees_all_namespaces: bool,
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
    reload: impl Fn(&Path) -> Result<Config, ConfigErrors>,
) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise(run, source, reload))
}

async fn supervise(
    mut run: Run,
    source: Box<dyn LiveSource>,
    reload: impl Fn(&Path) -> Result<Config, ConfigErrors>,
) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("listening to signals")?;
    let socket = Socket::listen(&run.socket).await.with_context(|| format!("listening at {}", run.socket.display()))?;
    // Landlock closes what tells whose a socket is, so this is found out before.
    let mut inventory = neighbours::inventory(&run.config.policy.epmd_ports);
    let snapshot = neighbours::first_look(&mut inventory);
    // Before any thread is started: what it takes away, it takes from this thread and those that come of it.
    let sandbox = run.sandbox.apply().context("entering the sandbox")?;
    for gap in sandbox.gaps() {
        tracing::warn!("the sandbox is not complete: {gap}");
    }
    let (commands, to_monitor) = channel();
    let form = if io::stdout().is_terminal() { Form::Lines } else { Form::Ndjson };
    let parts = Parts {
        source,
        output: Output::start(io::stdout()).context("starting the output")?,
        writer: Writer::new(form, run.host.clone()),
        clock: Clock::start(),
        stats_interval: run.config.daemon.stats_interval,
        policy: run.config.policy.clone(),
        commands: to_monitor,
        sees_all_namespaces: run.sees_all_namespaces,
        sandbox,
        state: run.state.take(),
    };
    let mut monitor = Monitor::new(parts).context("telling the capture what to watch")?;
    match &snapshot {
        Ok(snapshot) => monitor.handle_host(snapshot),
        Err(error) => {
            tracing::warn!(%error, "the sockets of this host cannot be read; nodes are found by their traffic");
        }
    }
    let looking = neighbours::start(inventory, commands.clone()).context("starting to look at the host")?;
    let (ended, mut end) = oneshot::channel();
    let thread = std::thread::Builder::new().name("capture".into()).spawn(move || {
        let _ = ended.send(monitor.run());
    })?;
    tracing::info!(socket = %run.socket.display(), "capturing");
    let mut interrupted = false;
    let (end, output) = {
        let serving = socket.serve(commands.clone());
        tokio::pin!(serving);
        loop {
            tokio::select! {
                // The thread sends before it ends, whatever it ends by; only a panic would not.
                ended = &mut end => break ended.context("the capture thread ended early")?,
                never = &mut serving => match never {},
                _ = signals.hangup.recv() => reload_policy(&run, &reload, &commands),
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
    drop(looking);
    // It has sent its last words and does nothing more.
    let _ = thread.join();
    drop(socket);
    if !output.finish(LAST_WORDS) {
        tracing::warn!("not all records went out before the end");
    }
    match end {
        End::Stopped if interrupted => Ok(Exit::Interrupted),
        End::Stopped => Ok(Exit::Done),
        End::Failed(error) => Err(anyhow::Error::new(error).context("capturing")),
    }
}

/// Loads the file anew. A bad one changes nothing.
fn reload_policy(run: &Run, reload: &impl Fn(&Path) -> Result<Config, ConfigErrors>, commands: &Sender<Command>) {
    let Some(file) = run.file.as_deref() else {
        tracing::info!("there is no configuration file to load anew");
        return;
    };
    match reload(file) {
        Ok(config) => {
            tracing::info!(file = %file.display(), "the configuration was loaded anew");
            if (&config.capture, &config.daemon) != (&run.config.capture, &run.config.daemon) {
                tracing::warn!("what differs in [capture] and [daemon] holds after a restart");
            }
            let _ = commands.send(Command::Policy(Box::new(config.policy)));
        }
        Err(errors) => tracing::error!("the configuration stays as it was: {errors}"),
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
