//! The daemon: started, listened to, asked, told to reload, ended in two ways.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::eventually::in_time;
use super::{BackEnd, Host, PATIENCE, eventually};
use crate::{program, root, text};

/// `nobody`, whom nothing belongs to.
const SERVICE_USER: u32 = 65_534;

/// How a daemon is to be started.
#[derive(Clone)]
pub struct Watch {
    host: Host,
    back_end: BackEnd,
    policy: String,
    folder: PathBuf,
    words: Vec<String>,
    variables: Vec<(String, String)>,
    as_service: bool,
    unheard: bool,
}

impl Watch {
    /// A daemon for a host, with nothing kept from an earlier one.
    ///
    /// # Panics
    /// Where it has no folder.
    #[must_use]
    pub fn new(host: &Host, back_end: BackEnd) -> Self {
        match back_end {
            BackEnd::Ebpf => Self::cgroup(host, host.cgroup()),
            BackEnd::Pcap => Self::with(host, back_end, Vec::new()),
        }
    }

    /// An eBPF daemon in a host's network that watches any part of the hierarchy of cgroups.
    ///
    /// # Panics
    /// Where it has no folder.
    #[must_use]
    pub fn cgroup(host: &Host, cgroup: &Path) -> Self {
        Self::with(host, BackEnd::Ebpf, vec!["--cgroup".into(), cgroup.display().to_string()])
    }

    /// A daemon in a host's network for the interfaces that its further words name.
    ///
    /// # Panics
    /// Where it has no folder.
    #[must_use]
    pub fn on_interfaces(host: &Host, back_end: BackEnd) -> Self {
        Self::with(host, back_end, Vec::new())
    }

    fn with(host: &Host, back_end: BackEnd, words: Vec<String>) -> Self {
        let folder = tempfile::Builder::new().prefix("daemon.").tempdir_in(host.home()).expect("a folder").keep();
        Self {
            host: host.clone(),
            back_end,
            policy: String::new(),
            folder,
            words,
            variables: Vec::new(),
            as_service: false,
            unheard: false,
        }
    }

    /// As the unit file starts it: by a user who is nobody else, with no rights but the unit's capabilities.
    ///
    /// # Panics
    /// Where its folder cannot be given to that user.
    #[must_use]
    pub fn as_service(mut self) -> Self {
        // The repository may lie where only its owner can look.
        fs::copy(program(), self.folder.join("distwatch")).expect("a copy of the program");
        let passable = fs::Permissions::from_mode(0o711);
        let lab = self.host.home().parent().expect("the lab's folder");
        fs::set_permissions(lab, passable).expect("a folder that can be passed");
        std::os::unix::fs::chown(&self.folder, Some(SERVICE_USER), Some(SERVICE_USER)).expect("another owner");
        self.as_service = true;
        self
    }

    /// With nobody who reads its standard output, which is thrown away.
    #[must_use]
    pub fn unheard(mut self) -> Self {
        self.unheard = true;
        self
    }

    fn command(&self) -> Command {
        if !self.as_service {
            return self.host.observer(program());
        }
        let unit = fs::read_to_string(root().join("packaging/systemd/distwatch.service")).expect("the unit file");
        let names = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).expect("its capabilities");
        let only: String = names.split(' ').map(|name| name.to_lowercase().replace("cap_", ",+")).collect();
        let user = SERVICE_USER.to_string();
        let mut command = self.host.observer("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--no-new-privs"]);
        command.args(["inh", "ambient", "bounding"].map(|set| {
            let kind = if set == "bounding" { "set" } else { "caps" };
            format!("--{set}-{kind}=-all{only}")
        }));
        command.arg(self.folder.join("distwatch"));
        command
    }

    /// With this policy and configuration.
    #[must_use]
    pub fn policy(mut self, policy: &str) -> Self {
        policy.clone_into(&mut self.policy);
        self
    }

    /// With these further words on the command line.
    #[must_use]
    pub fn words(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// With these variables in its environment.
    #[must_use]
    pub fn variables(mut self, variables: &[(&str, &str)]) -> Self {
        self.variables.extend(variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        self
    }

    /// Starts it and waits until it captures.
    ///
    /// # Panics
    /// Where it does not.
    #[must_use]
    pub fn start(&self) -> Daemon {
        let daemon = self.launch();
        daemon.captures();
        daemon
    }

    /// Starts it, and how long that took by its own word to the service manager, which it says as soon as everything is captured.
    ///
    /// # Panics
    /// Where it never says so.
    #[must_use]
    pub fn start_timed(&self) -> (Daemon, Duration) {
        let path = self.folder.join("notify");
        let _ = fs::remove_file(&path);
        let told = UnixDatagram::bind(&path).expect("a socket");
        told.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let path = path.to_str().expect("a path of the lab");
        let daemon = self.clone().variables(&[("NOTIFY_SOCKET", path)]).launch();
        let mut message = [0; 512];
        loop {
            let length =
                told.recv(&mut message).unwrap_or_else(|error| panic!("never ready: {error}: {}", daemon.log()));
            if message[..length].starts_with(b"READY=1") {
                let took = daemon.started.elapsed();
                return (daemon, took);
            }
        }
    }

    /// Starts it without waiting.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn launch(&self) -> Daemon {
        self.write(&self.policy);
        let mut command = self.command();
        command.args(["run", "--capture", self.back_end.name(), "-c"]).arg(self.config());
        command.arg("--state-dir").arg(self.folder.join("state"));
        // Several of them run on one host, so none serves HTTP unless a test says where.
        if !self.words.iter().any(|word| word == "--http") {
            command.args(["--http", "off"]);
        }
        command.arg("--socket").arg(self.socket()).args(&self.words).envs(self.variables.iter().cloned());
        let started = Instant::now();
        command.stdout(if self.unheard { Stdio::null() } else { Stdio::piped() });
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the daemon starts");
        let heard = Arc::new(Heard::default());
        let log = Arc::clone(&heard);
        if let Some(output) = child.stdout.take() {
            let (output, records) = (BufReader::new(output), Arc::clone(&heard));
            std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| records.record(&line)));
        }
        let errors = BufReader::new(child.stderr.take().expect("a pipe"));
        std::thread::spawn(move || errors.lines().map_while(Result::ok).for_each(|line| log.log(line)));
        Daemon { child, watch: self.clone(), heard, started }
    }

    /// Where it keeps what it knows.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn config(&self) -> PathBuf {
        self.folder.join("distwatch.toml")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    fn write(&self, policy: &str) {
        fs::write(self.config(), policy).expect("a configuration");
    }
}

/// What a daemon said so far.
#[derive(Default)]
struct Heard {
    records: Mutex<Vec<Entry>>,
    more: Condvar,
    log: Mutex<Vec<String>>,
}

/// A record, and when it was read.
struct Entry {
    record: Value,
    at: SystemTime,
}

impl Heard {
    fn record(&self, line: &str) {
        let at = SystemTime::now();
        let record = serde_json::from_str(line).unwrap_or_else(|error| panic!("no record: {error}: {line}"));
        self.records.lock().expect("records").push(Entry { record, at });
        self.more.notify_all();
    }

    fn log(&self, line: String) {
        self.log.lock().expect("the log").push(line);
    }
}

/// A daemon at work. It is killed when dropped.
pub struct Daemon {
    child: Child,
    watch: Watch,
    heard: Arc<Heard>,
    started: Instant,
}

impl Daemon {
    /// `ebpf` or `pcap`.
    #[must_use]
    pub fn back_end(&self) -> BackEnd {
        self.watch.back_end
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it captures; how long that took since it was started.
    ///
    /// # Panics
    /// Where it does not.
    pub fn captures(&self) -> Duration {
        let capturing = || self.try_status().filter(|status| text(status, "state") == "capturing");
        let took = in_time(|| capturing().map(|_| self.started.elapsed()));
        took.unwrap_or_else(|| panic!("{}: never captured:\n{}", self.back_end().name(), self.log()))
    }

    /// What `distwatch status` says.
    ///
    /// # Panics
    /// Where it says nothing.
    #[must_use]
    pub fn status(&self) -> Value {
        self.try_status().unwrap_or_else(|| panic!("no status:\n{}", self.log()))
    }

    fn try_status(&self) -> Option<Value> {
        let mut command = Command::new(program());
        command.args(["status", "--format", "json", "--socket"]).arg(self.watch.socket());
        let output = command.stderr(Stdio::null()).output().expect("the program starts");
        serde_json::from_slice(&output.stdout).ok()
    }

    /// What it wrote to standard error.
    ///
    /// # Panics
    /// Where the thread that reads it panicked.
    #[must_use]
    pub fn log(&self) -> String {
        self.heard.log.lock().expect("the log").join("\n")
    }

    /// Every record so far.
    ///
    /// # Panics
    /// Where a line was no record.
    #[must_use]
    pub fn records(&self) -> Vec<Value> {
        self.heard.records.lock().expect("records").iter().map(|heard| heard.record.clone()).collect()
    }

    /// Records of a kind, the oldest first: the object named like the kind.
    #[must_use]
    pub fn of_kind(&self, kind: &str) -> Vec<Value> {
        self.records().into_iter().filter(|record| text(record, "event_type") == kind).collect()
    }

    /// The first record that matches, waited for; and when it was read.
    ///
    /// # Panics
    /// Where there is none in time.
    pub fn when(&self, what: &str, matches: impl Fn(&Value) -> bool) -> (Value, SystemTime) {
        self.within(PATIENCE, what, matches)
    }

    /// The same with another patience.
    ///
    /// # Panics
    /// Where there is none in time.
    pub fn within(&self, patience: Duration, what: &str, matches: impl Fn(&Value) -> bool) -> (Value, SystemTime) {
        let deadline = Instant::now() + patience;
        let mut records = self.heard.records.lock().expect("records");
        let mut looked_at = 0;
        loop {
            if let Some(found) = records[looked_at..].iter().find(|heard| matches(&heard.record)) {
                return (found.record.clone(), found.at);
            }
            looked_at = records.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let all: Vec<String> = records.iter().map(|heard| brief(&heard.record)).collect();
                drop(records);
                panic!(
                    "{}: no record of {what} within {patience:?}; there were:\n{}\nlog:\n{}",
                    self.back_end().name(),
                    all.join("\n"),
                    self.log()
                );
            }
            records = self.heard.more.wait_timeout(records, left).expect("records").0;
        }
    }

    /// The first record that matches, waited for.
    pub fn hears(&self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        self.when(what, matches).0
    }

    /// The first alert of a rule, waited for.
    pub fn alert(&self, rule: &str) -> Value {
        let what = format!("the rule {rule}");
        self.hears(&what, |record| text(&record["alert"], "rule_id") == rule)["alert"].clone()
    }

    /// The first alert of a rule about a subject that contains these words, waited for.
    pub fn alert_about(&self, rule: &str, subject: &str) -> Value {
        let what = format!("the rule {rule} about {subject}");
        let found = self.hears(&what, |record| {
            text(&record["alert"], "rule_id") == rule && text(&record["alert"], "subject").contains(subject)
        });
        found["alert"].clone()
    }

    /// The first link record between these nodes whose handshake ended like this, waited for.
    pub fn link(&self, from: &str, to: &str, outcome: &str) -> Value {
        let what = format!("a link {from} -> {to}: {outcome}");
        let found = self.hears(&what, |record| {
            let link = &record["link"];
            text(&link["initiator"], "node") == from
                && text(&link["acceptor"], "node") == to
                && text(&link["handshake"], "outcome") == outcome
        });
        found["link"].clone()
    }

    /// The rules that raised an alert so far, in order and once each.
    #[must_use]
    pub fn rules(&self) -> Vec<String> {
        let mut rules: Vec<String> =
            self.of_kind("alert").iter().map(|record| text(&record["alert"], "rule_id").to_owned()).collect();
        rules.sort();
        rules.dedup();
        rules
    }

    /// Replaces the configuration and tells it to read it (SIGHUP).
    pub fn reload(&self, policy: &str) {
        self.watch.write(policy);
        self.signal("HUP");
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// Where `kill` cannot be started.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.process().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    /// Waits until it ends by itself: its exit status.
    ///
    /// # Panics
    /// Where it does not.
    pub fn ends(&mut self) -> Option<i32> {
        let ended = in_time(|| self.child.try_wait().expect("the daemon's status"));
        ended.unwrap_or_else(|| panic!("it does not end:\n{}", self.log())).code()
    }

    /// Ends it in order: status 0, and everything that it had to say.
    ///
    /// # Panics
    /// Where it ends otherwise.
    pub fn stop(mut self) -> Told {
        self.signal("TERM");
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the daemon's status") {
                break status;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(0), "{status}:\n{}", self.log());
        // The pipe is read to its end before the records are whole.
        eventually("the last record is read", || (Arc::strong_count(&self.heard) == 1).then_some(()));
        Told { records: self.records(), log: self.log() }
    }

    /// Ends it at once; what it told can still be asked for. Says how to start it again with what it kept.
    ///
    /// # Panics
    /// Where it cannot be killed.
    pub fn kill_at_once(&mut self) -> Watch {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it has ended");
        // The pipe is read to its end before the records are whole.
        eventually("the last record is read", || (Arc::strong_count(&self.heard) == 1).then_some(()));
        self.watch.clone()
    }

    /// Ends it at once, and says how to start it again with what it kept.
    ///
    /// # Panics
    /// Where it cannot be killed.
    pub fn kill(mut self) -> Watch {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it has ended");
        self.watch.clone()
    }

    /// A line of `/proc/PID/status`.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn proc_status(&self, field: &str) -> String {
        let status = fs::read_to_string(Path::new("/proc").join(self.process().to_string()).join("status"));
        let status = status.expect("the daemon lives");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {field} in {status}")).trim().to_owned()
    }

    /// Its thread of this name, by its number.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn thread(&self, name: &str) -> u32 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.process())).expect("the daemon lives").flatten();
        let named = threads
            .map(|thread| thread.path())
            .find(|thread| fs::read_to_string(thread.join("comm")).is_ok_and(|of| of.trim_end() == name));
        let number = named.and_then(|thread| thread.file_name()?.to_str()?.parse().ok());
        number.unwrap_or_else(|| panic!("no thread {name}"))
    }

    /// What it has open.
    ///
    /// # Panics
    /// Where it has ended.
    #[must_use]
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process())).expect("the daemon lives").count()
    }

    /// CPU seconds since its start, and its resident size in MiB.
    ///
    /// # Panics
    /// Where it has ended.
    #[must_use]
    pub fn mebibytes(&self) -> f64 {
        let kibibytes = self.proc_status("VmRSS");
        kibibytes.trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// What a daemon said until it ended.
pub struct Told {
    /// All records.
    pub records: Vec<Value>,
    /// What it wrote to standard error.
    pub log: String,
}

fn brief(record: &Value) -> String {
    let kind = text(record, "event_type");
    let object = &record[kind];
    match kind {
        "alert" => format!("alert {} {}: {}", text(object, "rule_id"), text(object, "status"), text(object, "subject")),
        "stats" => "stats".into(),
        _ => {
            let mut line = record.to_string();
            line.truncate(line.floor_char_boundary(700));
            line
        }
    }
}
