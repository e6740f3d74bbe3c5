//! From `/proc/PID/cgroup` to the systemd unit and the container of a process.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Its unit: `rabbitmq-server.service`, `session-3.scope`.
    pub(super) unit: Option<String>,
    /// Its container: the id as the runtime has it, or the name where it has no id (LXC).
    pub(super) container: Option<String>,
}

impl Place {
    /// Reads the content of `/proc/PID/cgroup`: one line per hierarchy, `ID:CONTROLLERS:PATH`. In the unified hierarchy
    /// (version 2) there is one, with the id 0; on hybrid hosts it stands beside those of version 1, and which of them the
    /// runtime and systemd use differs.
    pub(super) fn read(text: &str) -> Self {
        let paths = || {
            text.lines().filter_map(|line| {
                let mut parts = line.splitn(3, ':');
                let (_, controllers) = (parts.next()?, parts.next()?);
                Some((controllers, parts.next()?))
            })
        };
        let container = paths().find_map(|(_, path)| container(path));
        // Only these two are systemd's; in those of other controllers somebody else may have made a name.
        let unit = paths()
            .filter(|(controllers, _)| controllers.is_empty() || *controllers == "name=systemd")
            .find_map(|(_, path)| unit(path));
        // The unit of a container is the runtime's, and says nothing of what runs in it.
        Self { unit: if container.is_some() { None } else { unit }, container }
    }
}

/// Folders that a search for a cgroup looks at: some thousands on a host with many containers.
const FOLDERS: usize = 20_000;

/// Between two searches; a process that is gone can wait for its group.
const BETWEEN_SEARCHES: Duration = Duration::from_secs(10);

/// Cgroups of version 2 by their ids, which the kernel names the group of a process by that may be gone since.
#[derive(Debug, Default)]
pub(super) struct Groups {
    paths: HashMap<u64, String>,
    searched: Option<Instant>,
}

impl Groups {
    /// Where a process of that group runs. Searches anew for one that is not known, now and then.
    pub(super) fn place(&mut self, roots: &[PathBuf], id: u64) -> Place {
        let may_search = self.searched.is_none_or(|when| when.elapsed() >= BETWEEN_SEARCHES);
        if id != 0 && !self.paths.contains_key(&id) && may_search {
            self.searched = Some(Instant::now());
            self.paths.clear();
            for root in roots.iter().filter(|root| root.join("cgroup.controllers").exists()) {
                self.search(root);
            }
        }
        self.paths.get(&id).map(|path| Place::read(&format!("0::{path}"))).unwrap_or_default()
    }

    fn search(&mut self, root: &Path) {
        let mut waiting = vec![root.to_owned()];
        while let Some(folder) = waiting.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            let below = folder.strip_prefix(root).unwrap_or(&folder).to_string_lossy();
            if let Ok(meta) = std::fs::metadata(&folder) {
                self.paths.insert(meta.ino(), format!("/{below}"));
            }
            for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                if self.paths.len() + waiting.len() >= FOLDERS {
                    return;
                }
                waiting.push(entry.path());
            }
        }
    }
}

/// The unit that is nearest to the process; below it a service may have made groups of its own.
fn unit(path: &str) -> Option<String> {
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    path.rsplit('/').find(is_unit).map(str::to_owned)
}

/// The container that is nearest to the process.
///
/// Docker: `/docker/ID`, `docker-ID.scope`. containerd: `cri-containerd-ID.scope`, `…:cri-containerd:ID`, `/NAMESPACE/ID`.
/// CRI-O: `crio-ID.scope`. Podman: `libpod-ID.scope`, `libpod-ID`. Kubernetes: `…/podUID/ID`. ECS: `/ecs/TASK/ID`.
/// LXC: `/lxc/NAME`, `lxc.payload.NAME`. systemd-nspawn: `machine-NAME.scope`.
fn container(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    parts.iter().enumerate().rev().find_map(|(place, part)| {
        if let Some(name) = part.strip_prefix("lxc.payload.") {
            return Some(name.to_owned());
        }
        if place > 0 && parts.get(place - 1) == Some(&"lxc") {
            return Some((*part).to_owned());
        }
        let part = part.strip_suffix(".scope").unwrap_or(part);
        if let Some(name) = part.strip_prefix("machine-") {
            return Some(name.replace("\\x2d", "-"));
        }
        // The monitor that watches a container stands beside it, and is none.
        if part.contains("conmon") {
            return None;
        }
        let id = part.rsplit(['-', ':']).next().unwrap_or(part);
        if is_hex(id, 64) {
            return Some(id.to_owned());
        }
        let (task, number) = part.split_once('-')?;
        (is_hex(task, 32) && !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
            .then(|| part.to_owned())
    })
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f1d2b0c7e8a9f3d5c6b1a2e3f4d5c6b7a8f9e0d1c2b3a4f5e6d7c8b9a0f1e2d";

    fn place(text: &str) -> (Option<String>, Option<String>) {
        let Place { unit, container } = Place::read(text);
        (unit, container)
    }

    #[test]
    fn the_unit_is_found_in_either_version_and_below_it() {
        let service = (Some("rabbitmq-server.service".to_owned()), None);
        assert_eq!(place("0::/system.slice/rabbitmq-server.service\n"), service);
        assert_eq!(place("0::/system.slice/rabbitmq-server.service/beam\n"), service);
        let hybrid = "12:pids:/x\n1:name=systemd:/system.slice/rabbitmq-server.service\n0::/\n";
        assert_eq!(place(hybrid), service);
        let user = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service\n";
        assert_eq!(place(user).0.as_deref(), Some("shop.service"));
        assert_eq!(place("0::/user.slice/user-0.slice/session-3.scope\n").0.as_deref(), Some("session-3.scope"));
        assert_eq!(place("0::/\n"), (None, None));
        assert_eq!(place(""), (None, None));
    }

    #[test]
    fn the_container_is_found_whatever_runs_it() {
        for path in [
            format!("0::/system.slice/docker-{ID}.scope"),
            format!("5:cpu,cpuacct:/docker/{ID}\n1:name=systemd:/docker/{ID}"),
            format!("0::/docker/{ID}/init"),
            format!("0::/machine.slice/libpod-{ID}.scope/container"),
            format!("0::/libpod_parent/libpod-{ID}"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod8.slice/cri-containerd-{ID}.scope"
            ),
            format!("11:memory:/kubepods/burstable/pod1b7ee3a4-0000-11ee-be56-0242ac120002/{ID}"),
            format!("4:devices:/system.slice/containerd.service/kubepods-besteffort-pod8.slice:cri-containerd:{ID}"),
            format!("0::/kubepods.slice/kubepods-pod8.slice/crio-{ID}.scope"),
            format!("0::/default/{ID}"),
        ] {
            assert_eq!(place(&path), (None, Some(ID.to_owned())), "{path}");
        }
        assert_eq!(place("0::/lxc/shop-1/system.slice/x.service").1.as_deref(), Some("shop-1"));
        assert_eq!(place("0::/lxc.payload.shop/init.scope").1.as_deref(), Some("shop"));
        assert_eq!(place("0::/machine.slice/machine-shop\\x2d1.scope/payload").1.as_deref(), Some("shop-1"));
        let task = "0123456789abcdef0123456789abcdef-1234567890";
        assert_eq!(place(&format!("9:cpu:/ecs/0123456789abcdef0123456789abcdef/{task}")).1.as_deref(), Some(task));
        assert_eq!(place(&format!("0::/machine.slice/libpod-conmon-{ID}.scope")).1, None);
    }

    #[test]
    fn on_hybrid_hosts_it_is_found_in_the_hierarchy_that_has_it() {
        // The runtime with cgroupfs, systemd in its own hierarchy, the unified one unused.
        let v1 = format!("12:cpuset:/docker/{ID}\n3:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n");
        assert_eq!(place(&v1), (None, Some(ID.to_owned())));
        // systemd and the runtime in the unified one, beside hierarchies in which somebody made groups of his own.
        let hybrid =
            format!("9:freezer:/batch/nightly.service\n1:name=systemd:/\n0::/system.slice/docker-{ID}.scope\n");
        assert_eq!(place(&hybrid), (None, Some(ID.to_owned())));
        let service = "9:freezer:/batch/nightly.service\n1:name=systemd:/system.slice/shop.service\n0::/system.slice/shop.service\n";
        assert_eq!(place(service), (Some("shop.service".to_owned()), None));
        // A rootless podman has its containers below the user's own manager.
        let rootless =
            format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container\n");
        assert_eq!(place(&rootless), (None, Some(ID.to_owned())));
        // kind: Kubernetes in a container; the nearest one is the process's own.
        let inner = ID.replace('4', "5");
        let nested = format!("0::/docker/{ID}/kubelet.slice/kubelet-kubepods.slice/cri-containerd-{inner}.scope\n");
        assert_eq!(place(&nested), (None, Some(inner)));
    }

    #[test]
    fn the_group_of_a_process_that_is_gone_is_found_by_its_id() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("system.slice/shop.service");
        std::fs::create_dir_all(&folder).unwrap();
        let id = std::fs::metadata(&folder).unwrap().ino();
        let roots = [root.path().to_owned()];
        assert_eq!(Groups::default().place(&roots, id), Place::default(), "it is no hierarchy of version 2");
        std::fs::write(root.path().join("cgroup.controllers"), "").unwrap();
        let mut groups = Groups::default();
        assert_eq!(groups.place(&roots, id).unit.as_deref(), Some("shop.service"));
        assert_eq!(groups.place(&roots, 0), Place::default());
    }
}
