//! A host: a network namespace, a cgroup, and what runs there.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::{eventually, lab};

/// A handle of a host; the lab removes it.
#[derive(Clone)]
pub struct Host {
    name: String,
    namespace: String,
    pub(super) cgroup: PathBuf,
    home: PathBuf,
    modules: PathBuf,
    addresses: Arc<Mutex<Vec<String>>>,
    /// Ended by the lab, and waited for there.
    children: Arc<Mutex<Vec<Child>>>,
}

impl Host {
    pub(super) fn new(name: &str, namespace: &str, cgroup: PathBuf, home: PathBuf, modules: &Path) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            cgroup,
            home,
            modules: modules.into(),
            addresses: Arc::default(),
            children: Arc::default(),
        }
    }

    /// Its first address; that of loopback where it has no other.
    ///
    /// # Panics
    /// Where another thread panicked.
    #[must_use]
    pub fn address(&self) -> String {
        self.addresses.lock().expect("addresses").first().cloned().unwrap_or_else(|| "127.0.0.1".into())
    }

    /// What it is called in this test.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its folder in the hierarchy of cgroup v2.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A folder for what runs there.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Where the compiled Erlang modules of the tests are.
    #[must_use]
    pub fn modules(&self) -> &Path {
        &self.modules
    }

    pub(super) fn gained(&self, address: &str) {
        let alone = address.split('/').next().unwrap_or(address);
        self.addresses.lock().expect("addresses").push(alone.into());
    }

    /// A program on this host: in its network and its cgroup. The process keeps its number to the end.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command_outside(program.as_ref(), true);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", &self.home).env("LANG", "C.UTF-8").env("TERM", "xterm").env("ERL_CRASH_DUMP_BYTES", "0");
        command
    }

    /// A program in this host's network, but in no cgroup of it: what watches is not watched.
    #[must_use]
    pub fn observer(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_outside(program.as_ref(), false)
    }

    fn command_outside(&self, program: &OsStr, inside: bool) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace));
        if inside {
            command.args(["sh", "-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.cgroup.join("cgroup.procs"));
        }
        command.arg(program).current_dir(&self.home).stdin(Stdio::null());
        command
    }

    /// `ip` with these words, on this host.
    ///
    /// # Panics
    /// Where it fails.
    pub fn ip(&self, words: &[&str]) {
        lab::ip(&[&["-n", self.namespace.as_str()], words].concat());
    }

    /// Starts an EPMD and waits until it answers.
    ///
    /// # Panics
    /// Where it does not.
    pub fn start_epmd(&self) {
        let epmd = self.spawn(self.command("epmd").stdout(Stdio::null()).stderr(Stdio::null()));
        self.children.lock().expect("children").push(epmd);
        eventually("EPMD answers", || {
            let names = self.command("epmd").arg("-names").output().expect("epmd starts");
            names.status.success().then_some(())
        });
    }

    /// Starts something. What nobody ends is ended with the lab.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Child {
        command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// The processes of this host.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let list = fs::read_to_string(self.cgroup.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// CPU seconds of all processes that ran on this host, by the kernel's own account.
    ///
    /// # Panics
    /// Where the kernel keeps none.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        let account = fs::read_to_string(self.cgroup.join("cpu.stat")).expect("cpu.stat");
        let used = account.lines().find_map(|line| line.strip_prefix("usage_usec ")).expect("usage_usec");
        used.parse::<f64>().expect("a number") / 1e6
    }

    /// Ends every process of this host and removes its cgroup.
    pub(super) fn end_all(&self) {
        for _ in 0..300 {
            let processes = self.processes();
            if processes.is_empty() && fs::remove_dir(&self.cgroup).is_ok() {
                break;
            }
            for process in processes {
                _ = Command::new("kill").args(["-KILL", &process.to_string()]).stderr(Stdio::null()).status();
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        if let Ok(mut children) = self.children.lock() {
            children.drain(..).for_each(|mut child| _ = child.wait());
        }
    }
}
