//! Where records go: files, servers and brokers, each with a queue, a spool and a task of its own.
//!
//! ```text
//!  analysis ── offer ──┬─> queue ─> spool ─> worker ─> file          one row for each [[sink]];
//!   (never waits)      ├─> queue ─> spool ─> worker ─> Loki           no row knows of another
//!                      └─> queue ─> spool ─> worker ─> …
//!                              └── one thread writes all spools
//! ```
//!
//! Promises: [`Sinks::offer`] neither waits for a server nor fails. Once it has returned for an alert, the alert
//! arrives at least once, also when this process is killed. Each sink gets its records in the order in which they were
//! offered. What cannot arrive is counted by its reason. A kind of sink is one file in `sink/` and one row in
//! [`KINDS`]; what it takes from the configuration is one row in `config/section/sink.rs`.

mod alertmanager;
mod backoff;
mod deliver;
mod file;
mod filter;
mod format;
pub(crate) mod http;
mod journald;
mod loki;
pub(crate) mod nats;
mod needs;
mod otlp;
mod outgoing;
pub mod settings;
mod spool;
mod status;
mod stdout;
mod store;
mod syslog;
pub(crate) mod template;
mod tls;
mod webhook;
mod worker;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use distwatch_engine::event::EventBody;
use distwatch_engine::model::AlertStatus;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task;
use tracing::{info, warn};

pub use deliver::{Batch, Deliver, Entry, Outcome, Refused, Sending, Settled};
pub use needs::Needs;
pub use outgoing::{AlertFacts, Outgoing};
pub use settings::Settings;
pub use status::{Fate, SinkStatus};

use crate::record::EventType;
use filter::{Filter, RateLimit};
use settings::Digest;
use store::Store;
use worker::{Control, Phase, Worker};
use writer::Writer;

/// How much longer a flush waits for a disk than it was told to wait for servers.
const GRACE: Duration = Duration::from_secs(1);

/// A kind of sink.
pub struct Kind {
    /// The word for it in the configuration.
    pub name: &'static str,
    /// What it is, for a person.
    pub help: &'static str,
    /// It can tell nothing but alerts.
    pub only_alerts: bool,
    /// It gets alerts only, unless the configuration asks for more.
    pub alerts_unless_asked: bool,
    /// Makes one. Nothing is connected yet.
    pub open: Open,
}

/// How a sink is made, or a sentence that says why it cannot be.
pub type Open = fn(&Settings, &Context<'_>) -> Result<Box<dyn Deliver>, String>;

/// What a sink needs besides its settings.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The name of this host, as records have it.
    pub host: &'a str,
}

/// All kinds of sink.
pub const KINDS: &[&Kind] = &[
    &stdout::KIND,
    &file::KIND,
    &journald::KIND,
    &syslog::KIND,
    &loki::KIND,
    &alertmanager::KIND,
    &webhook::KIND,
    &otlp::KIND,
    &nats::KIND,
];

/// The kind of this name.
#[must_use]
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name).copied()
}

/// Where all spools lie.
fn spools(state_dir: &Path) -> PathBuf {
    state_dir.join("sinks")
}

/// All configured sinks at work.
#[derive(Debug)]
pub struct Sinks {
    lanes: Arc<Lanes>,
    writer: Writer,
    runtime: Handle,
    place: Place,
    /// Stores of sinks that were taken away, as long as somebody is still at work on them.
    gone: Mutex<Vec<Weak<Store>>>,
    started: Instant,
}

/// Where sinks are.
#[derive(Clone, Debug)]
struct Place {
    spools: PathBuf,
    host: String,
}

/// All sinks at work. Whoever looks at them has a list of its own, for a disk may be waited for with it.
#[derive(Debug, Default)]
pub(crate) struct Lanes(RwLock<Arc<Vec<Arc<Lane>>>>);

impl Lanes {
    pub(crate) fn all(&self) -> Arc<Vec<Arc<Lane>>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn become_these(&self, lanes: Vec<Arc<Lane>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(lanes);
    }
}

/// A sink at work.
#[derive(Debug)]
pub(crate) struct Lane {
    kind: &'static str,
    settings: Settings,
    /// What was in the files and variables of its secrets and certificates.
    secrets: Digest,
    filter: Filter,
    rate: Option<Mutex<RateLimit>>,
    pub(crate) store: Arc<Store>,
    control: watch::Sender<Control>,
    task: Mutex<Option<task::JoinHandle<()>>>,
    /// The rules were last told that it fails.
    told_failing: AtomicBool,
}

/// Why sinks could not be started: a sentence for each one that cannot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.0.join("\n"))]
pub struct SinkErrors(pub Vec<String>);

/// What a flush has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The sink's name.
    pub sink: String,
    /// Records that stay in its spool, and are sent by the next run.
    pub records: u64,
}

impl Sinks {
    /// Starts all sinks. Spools lie in `state_dir/sinks/<name>`; `host` is what records call this host.
    ///
    /// # Errors
    /// Any of them cannot be started: a secret or a certificate cannot be read, or another process has the spool.
    pub fn start(settings: &[Settings], state_dir: &Path, host: &str, runtime: &Handle) -> Result<Self, SinkErrors> {
        let place = Place { spools: spools(state_dir), host: host.to_owned() };
        let made = place.make(settings, HashMap::new())?;
        let lanes = Arc::new(Lanes::default());
        let writer = Writer::start(Arc::clone(&lanes))
            .map_err(|error| SinkErrors(vec![format!("the thread of the spools cannot be started: {error}")]))?;
        let (runtime, gone, started) = (runtime.clone(), Mutex::default(), Instant::now());
        let sinks = Self { lanes, writer, runtime, place, gone, started };
        sinks.lanes.become_these(made.iter().map(|(lane, ..)| Arc::clone(lane)).collect());
        for (lane, sink, control) in made {
            sinks.employ(&lane, sink, control);
        }
        Ok(sinks)
    }

    /// Hands a record to every sink that wants it. Never waits for one, and never fails.
    pub fn offer(&self, record: &Arc<Outgoing>) {
        let mut offered = false;
        for lane in self.lanes.all().iter().filter(|lane| lane.filter.wants(record)) {
            // Whoever was told of a beginning is told of the end.
            let ends = record.alert.as_ref().is_some_and(|alert| alert.status == AlertStatus::Resolved);
            if let Some(rate) = lane.rate.as_ref().filter(|_| !ends)
                && !rate.lock().unwrap_or_else(PoisonError::into_inner).take(self.started.elapsed())
            {
                lane.store.counters.add(Fate::RateLimited, 1);
                continue;
            }
            lane.store.push(record);
            offered = true;
        }
        if offered {
            self.writer.wake();
        }
    }

    /// Whether any sink wants records of this kind.
    pub(crate) fn want(&self, kind: EventType) -> bool {
        self.lanes.all().iter().any(|lane| lane.filter.wants_kind(kind))
    }

    /// Takes other settings. Sinks that stay as they are go on undisturbed, but open their files anew; what a sink that
    /// changes has not sent yet is sent by its new settings.
    ///
    /// # Errors
    /// A new sink cannot be started; then everything stays as it is.
    pub async fn reload(&self, settings: &[Settings]) -> Result<(), SinkErrors> {
        let old: Vec<Arc<Lane>> = self.lanes.all().to_vec();
        // Secrets and certificates may be new where they are to be found as before.
        let same = |wanted: &Settings| {
            let text = crate::config::sink_text(wanted);
            let same = |lane: &&Arc<Lane>| {
                crate::config::sink_text(&lane.settings) == text && lane.secrets == Digest::of(wanted)
            };
            old.iter().find(same).cloned()
        };
        let gone: Vec<Arc<Store>> = self.gone().iter().filter_map(Weak::upgrade).collect();
        let stores = gone.into_iter().chain(old.iter().map(|lane| Arc::clone(&lane.store)));
        let stores: HashMap<String, Arc<Store>> = stores.map(|store| (store.name.clone(), store)).collect();
        let changed: Vec<Settings> = settings.iter().filter(|wanted| same(wanted).is_none()).cloned().collect();
        let place = self.place.clone();
        let made =
            blocking(move || place.make(&changed, stores)).await.unwrap_or_else(|why| Err(SinkErrors(vec![why])))?;
        let mut made_lanes = made.iter().map(|(lane, ..)| Arc::clone(lane));
        let lanes: Vec<Arc<Lane>> =
            settings.iter().filter_map(|wanted| same(wanted).or_else(|| made_lanes.next())).collect();
        let stays = |lane: &Arc<Lane>| lanes.iter().any(|kept| Arc::ptr_eq(kept, lane));
        let (kept, gone): (Vec<_>, Vec<_>) = old.into_iter().partition(stays);
        // From here on nothing can fail. Records go to the same stores before and after.
        self.lanes.become_these(lanes.clone());
        for lane in kept {
            lane.control.send_modify(|control| control.reopen += 1);
        }
        for lane in gone {
            lane.control.send_modify(|control| control.phase = Phase::Stop);
            lane.dismissed().await;
            let stays = lanes.iter().any(|kept| Arc::ptr_eq(&kept.store, &lane.store));
            let store = Arc::clone(&lane.store);
            let written = blocking(move || match stays {
                true => {
                    store.write(&mut Vec::new());
                }
                false => store.give_up(),
            });
            let _ = written.await;
            if !stays {
                let mut gone = self.gone();
                gone.retain(|store| store.strong_count() > 0);
                gone.push(Arc::downgrade(&lane.store));
            }
            let left = lane.store.queued();
            if left > 0 && !stays {
                warn!(
                    sink = lane.store.name,
                    records = left,
                    "a sink is gone; what it had not sent stays in its spool"
                );
            }
        }
        for (lane, sink, control) in made {
            lane.store.spool.rewind();
            lane.store.spool.set_limit(lane.settings.spool_limit as u64);
            *lane.store.fsync() = lane.settings.fsync;
            self.employ(&lane, sink, control);
        }
        self.writer.wake();
        Ok(())
    }

    /// Opens files anew, also where nothing else changes: whoever moved one away has sent the same signal.
    pub fn reopen(&self) {
        for lane in self.lanes.all().iter() {
            lane.control.send_modify(|control| control.reopen += 1);
        }
    }

    /// Sends what there is, for as long as `within`. What is left stays on disk. No record may be offered any more.
    pub async fn flush(&self, within: Duration) -> Vec<Left> {
        let until = Instant::now() + within;
        let lanes = self.lanes.all();
        let late = tokio::time::Instant::from_std(until) + GRACE;
        let writer = self.writer.stop();
        let written = blocking(move || writer.map(std::thread::JoinHandle::join));
        if tokio::time::timeout_at(late, written).await.is_err() {
            warn!("the disk takes nothing any more: what is only in memory is lost");
        }
        for lane in lanes.iter() {
            lane.control.send_modify(|control| control.phase = Phase::Flush(until));
        }
        for lane in lanes.iter() {
            let left = async {
                lane.dismissed().await;
                let store = Arc::clone(&lane.store);
                let _ = blocking(move || {
                    store.give_up();
                    if *store.fsync() != settings::Fsync::Never {
                        store.sync();
                    }
                })
                .await;
            };
            if tokio::time::timeout_at(late, left).await.is_err() {
                warn!(sink = lane.store.name, "the disk takes its time: what a sink has not sent may not all be on it");
            }
        }
        let left = |lane: &Arc<Lane>| Left { sink: lane.store.name.clone(), records: lane.store.spool.waiting() };
        lanes.iter().map(left).filter(|left| left.records > 0).collect()
    }

    /// How each sink is doing.
    #[must_use]
    pub fn status(&self) -> Vec<SinkStatus> {
        self.lanes.all().iter().map(|lane| lane.status()).collect()
    }

    /// What the rules should know: which sinks fail, and which have recovered since this was last asked.
    pub fn poll_states(&self) -> Vec<EventBody> {
        let tell = |lane: &Arc<Lane>| {
            let status = lane.status();
            let failing = status.failing_since.is_some();
            let told = lane.told_failing.swap(failing, Ordering::Relaxed);
            (failing || told).then(|| EventBody::SinkState {
                sink: status.name,
                failing_since: status.failing_since,
                reason: status.last_error.unwrap_or_default(),
            })
        };
        self.lanes.all().iter().filter_map(tell).collect()
    }

    fn gone(&self) -> MutexGuard<'_, Vec<Weak<Store>>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn employ(&self, lane: &Arc<Lane>, sink: Box<dyn Deliver>, control: watch::Receiver<Control>) {
        let worker = Worker::new(Arc::clone(&lane.store), sink, &lane.settings, control);
        let task = self.runtime.spawn(worker.run());
        *lane.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        info!(sink = lane.store.name, kind = lane.kind, "a sink is at work");
    }
}

impl Place {
    /// Makes the sinks of these settings, all or none. `stores` are those that exist already, by name. Waits for the
    /// disk.
    fn make(&self, settings: &[Settings], mut stores: HashMap<String, Arc<Store>>) -> Result<Vec<Made>, SinkErrors> {
        let mut errors = Vec::new();
        let mut made = Vec::new();
        for settings in settings {
            match self.make_one(settings, &mut stores) {
                Ok(lane) => made.push(lane),
                Err(error) => errors.push(format!("the sink `{}` cannot be started: {error}", settings.name)),
            }
        }
        if errors.is_empty() { Ok(made) } else { Err(SinkErrors(errors)) }
    }

    fn make_one(&self, settings: &Settings, stores: &mut HashMap<String, Arc<Store>>) -> Result<Made, String> {
        let kind = kind(&settings.kind).ok_or_else(|| format!("there is no kind of sink `{}`", settings.kind))?;
        // Before they are read: what changes after this is noticed later.
        let secrets = Digest::of(settings);
        let sink = (kind.open)(settings, &Context { host: &self.host })?;
        let store = match stores.remove(&settings.name) {
            Some(store) => store,
            None => {
                let dir = self.spools.join(&settings.name);
                Arc::new(Store::open(&settings.name, &dir, settings.spool_limit as u64, settings.fsync)?)
            }
        };
        let (sender, control) = watch::channel(Control { phase: Phase::Run, reopen: 0 });
        let lane = Lane {
            kind: kind.name,
            settings: settings.clone(),
            secrets,
            filter: Filter::new(settings, kind),
            rate: settings.rate_limit.map(|rate| Mutex::new(RateLimit::new(rate))),
            store,
            control: sender,
            task: Mutex::new(None),
            told_failing: AtomicBool::new(false),
        };
        Ok((Arc::new(lane), sink, control))
    }
}

/// Does something that may wait for a disk where no other task waits for it.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

/// A sink that nobody works for yet.
type Made = (Arc<Lane>, Box<dyn Deliver>, watch::Receiver<Control>);

impl Lane {
    /// Waits until nobody works for it any more.
    async fn dismissed(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
            && error.is_panic()
        {
            warn!(sink = self.store.name, "the task of a sink has panicked");
        }
    }

    fn status(&self) -> SinkStatus {
        let health = self.store.counters.health().clone();
        SinkStatus {
            name: self.store.name.clone(),
            kind: self.kind,
            queued: self.store.queued(),
            spool_bytes: self.store.spool.waiting_bytes(),
            records: self.store.counters.records(),
            last_success: health.last_success,
            failing_since: health.failing_since(),
            last_error: health.last_error,
        }
    }
}
