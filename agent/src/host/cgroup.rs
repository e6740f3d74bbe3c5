//! From `/proc/PID/cgroup` to the systemd unit and the container of a process.

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
}
