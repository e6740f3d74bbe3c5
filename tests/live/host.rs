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
    observers: PathBuf,
    home: PathBuf,
    modules: PathBuf,
    addresses: Arc<Mutex<Vec<String>>>,
    /// Ended by the lab, and waited for there.
    children: Arc<Mutex<Vec<Child>>>,
}

impl Host {
    pub(super) fn new(name: &str, namespace: &str, cgroup: PathBuf, home: PathBuf, modules: &Path) -> Self {
        let observers = cgroup.with_file_name(format!("{name}-observers"));
        for folder in [&cgroup, &observers, &home] {
            fs::create_dir(folder).expect("a folder");
        }
        Self {
            observers,
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
        let mut command = self.command_in(&self.cgroup, program.as_ref());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", &self.home).env("LANG", "C.UTF-8").env("TERM", "xterm").env("ERL_CRASH_DUMP_BYTES", "0");
        command
    }

    /// A program in this host's network, but in a cgroup beside it: what watches is not watched.
    #[must_use]
    pub fn observer(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_in(&self.observers, program.as_ref())
    }

    fn command_in(&self, cgroup: &Path, program: &OsStr) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace));
        command.args(["sh", "-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(cgroup.join("cgroup.procs"));
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

    /// Waits until all its addresses are there: one of IPv6 comes a second or two after its link, once nobody else has it.
    ///
    /// # Panics
    /// Where one does not.
    pub fn settles(&self) {
        eventually("its addresses are there", || {
            let mut command = Command::new("ip");
            let tentative = command.args(["-n", &self.namespace, "addr", "show", "tentative"]).output().expect("ip");
            (tentative.status.success() && tentative.stdout.is_empty()).then_some(())
        });
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

    /// CPU seconds of everything that ran on this host, by the kernel's own account.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(&self.cgroup)
    }

    /// CPU seconds of everything that watched this host.
    #[must_use]
    pub fn observers_cpu_seconds(&self) -> f64 {
        cpu_seconds(&self.observers)
    }

    /// Octets that an interface took and gave.
    ///
    /// # Panics
    /// Where there is none of this name.
    #[must_use]
    pub fn octets(&self, interface: &str) -> f64 {
        let table = self.command("cat").arg("/proc/self/net/dev").output().expect("cat");
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        let line = table.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
        let fields: Vec<f64> =
            line.expect("the interface").split_whitespace().filter_map(|field| field.parse().ok()).collect();
        fields[0] + fields[8]
    }

    /// Ends every process of this host and removes its cgroups.
    pub(super) fn end_all(&self) {
        end_all(&self.cgroup);
        end_all(&self.observers);
        if let Ok(mut children) = self.children.lock() {
            children.drain(..).for_each(|mut child| _ = child.wait());
        }
    }
}

fn cpu_seconds(cgroup: &Path) -> f64 {
    let account = fs::read_to_string(cgroup.join("cpu.stat")).expect("cpu.stat");
    let used = account.lines().find_map(|line| line.strip_prefix("usage_usec ")).expect("usage_usec");
    used.parse::<f64>().expect("a number") / 1e6
}

fn processes(cgroup: &Path) -> Vec<u32> {
    let list = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    list.lines().filter_map(|line| line.parse().ok()).collect()
}

fn end_all(cgroup: &Path) {
    for _ in 0..300 {
        if processes(cgroup).is_empty() && fs::remove_dir(cgroup).is_ok() {
            return;
        }
        for process in processes(cgroup) {
            _ = Command::new("kill").args(["-KILL", &process.to_string()]).stderr(Stdio::null()).status();
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
