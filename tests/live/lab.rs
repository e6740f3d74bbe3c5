//! A switch with hosts, and the end of everything.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::{Host, unified_hierarchy};

/// Namespaces and folders of these tests begin with it.
const PREFIX: &str = "dwe";

/// One network of hosts.
pub struct Lab {
    id: String,
    folder: TempDir,
    cgroup: PathBuf,
    hosts: Vec<Host>,
    namespaces: Vec<String>,
    ports: u32,
}

impl Lab {
    /// A switch without hosts, and the Erlang modules that drive nodes.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{PREFIX}{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::Builder::new().prefix("dwe.").tempdir().expect("a folder");
        let cgroup = unified_hierarchy().expect("cgroup v2").join(&id);
        let mut lab = Self { id, folder, cgroup, hosts: Vec::new(), namespaces: Vec::new(), ports: 0 };
        std::fs::create_dir(&lab.cgroup).expect("a cgroup");
        for module in ["crowd", "driver", "load", "probe"] {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("erlang/{module}.erl"));
            run(Command::new("erlc").arg("-o").arg(lab.folder.path()).arg(source));
        }
        let switch = lab.namespace("sw");
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"]);
        ip(&["-n", &switch, "link", "set", "br0", "up"]);
        lab
    }

    /// A host called `name` with the address 10.77.0.`number` on `eth0`, and an EPMD.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn host(&mut self, name: &str, number: u8) -> Host {
        let host = self.bare_host(name);
        self.plug(&host, "eth0", &format!("10.77.0.{number}/24"));
        host.start_epmd();
        host
    }

    /// A host without a network but its loopback, and without EPMD.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn bare_host(&mut self, name: &str) -> Host {
        self.host_below(name, None)
    }

    /// A namespace of its own whose processes belong to `host`, as a container's do.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn container(&mut self, name: &str, host: &Host) -> Host {
        self.host_below(name, Some(host))
    }

    fn host_below(&mut self, name: &str, parent: Option<&Host>) -> Host {
        let namespace = self.namespace(name);
        let cgroup = parent.map_or(&self.cgroup, |parent| &parent.cgroup).join(name);
        let home = self.folder.path().join(name);
        let host = Host::new(name, &namespace, cgroup, home, self.folder.path());
        self.hosts.push(host.clone());
        host
    }

    /// Joins a host to the switch by an interface of this name and address.
    ///
    /// # Panics
    /// Where that fails.
    pub fn plug(&mut self, host: &Host, interface: &str, address: &str) {
        self.ports += 1;
        let (switch, port) = (self.switch(), format!("p{}", self.ports));
        let at = host.namespace();
        ip(&["link", "add", interface, "netns", at, "type", "veth", "peer", "name", &port, "netns", &switch]);
        ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
        ip(&["-n", at, "addr", "add", address, "dev", interface]);
        ip(&["-n", at, "link", "set", interface, "up"]);
        host.gained(address);
    }

    /// A cable between two hosts, beside the switch.
    ///
    /// # Panics
    /// Where that fails.
    pub fn cable(&self, ends: [(&Host, &str, &str); 2]) {
        let [(a, name_a, _), (b, name_b, _)] = ends;
        ip(&[
            "link",
            "add",
            name_a,
            "netns",
            a.namespace(),
            "type",
            "veth",
            "peer",
            "name",
            name_b,
            "netns",
            b.namespace(),
        ]);
        for (host, interface, address) in ends {
            ip(&["-n", host.namespace(), "addr", "add", address, "dev", interface]);
            ip(&["-n", host.namespace(), "link", "set", interface, "up"]);
            host.gained(address);
        }
    }

    /// A folder that lives as long as the lab.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.id)
    }

    fn namespace(&mut self, name: &str) -> String {
        let namespace = format!("{}-{name}", self.id);
        self.namespaces.push(namespace.clone());
        ip(&["netns", "add", &namespace]);
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        namespace
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The last made is the innermost.
        for host in self.hosts.iter().rev() {
            host.end_all();
        }
        _ = std::fs::remove_dir(&self.cgroup);
        for namespace in &self.namespaces {
            _ = Command::new("ip").args(["netns", "del", namespace]).output();
        }
    }
}

/// Runs `ip`.
///
/// # Panics
/// Where it fails.
pub(super) fn ip(words: &[&str]) {
    run(Command::new("ip").args(words));
}

/// Runs a program that must succeed.
///
/// # Panics
/// Where it does not.
pub(super) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}
