//! What the programs are attached to: a cgroup with all sockets in it, or interfaces.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use aya::Ebpf;
use aya::programs::tc::{NlOptions, TcAttachOptions, qdisc_add_clsact, qdisc_detach_program};
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, LinkOrder, Program, SchedClassifier, SockOps,
    TcAttachType, tc::SchedClassifierLinkId,
};
use globset::GlobSet;

use super::namespace;

/// Hardware types (`ARPHRD_…`) whose packets have an Ethernet header: Ethernet itself and loopback.
const ETHERNET_LIKE: [&str; 2] = ["1", "772"];

/// A program and the hook that it is for.
struct OnInterface {
    program: &'static str,
    hook: TcAttachType,
}

const ETHERNET: [OnInterface; 2] = [
    OnInterface { program: "dw_ether_in", hook: TcAttachType::Ingress },
    OnInterface { program: "dw_ether_out", hook: TcAttachType::Egress },
];
const RAW: [OnInterface; 2] = [
    OnInterface { program: "dw_raw_in", hook: TcAttachType::Ingress },
    OnInterface { program: "dw_raw_out", hook: TcAttachType::Egress },
];

/// All that is attached.
#[derive(Debug)]
pub(super) struct Attachments {
    cgroup: Option<(PathBuf, Vec<&'static str>)>,
    interfaces: Interfaces,
}

/// Interfaces by name, as far as they are asked for.
#[derive(Debug)]
struct Interfaces {
    asked: Option<GlobSet>,
    /// Only clsact, also where TCX would be had.
    is_classic: bool,
    attached: HashMap<u32, Attached>,
}

#[derive(Debug)]
struct Attached {
    name: String,
    how: &'static str,
    links: Vec<(&'static str, SchedClassifierLinkId)>,
}

impl Attachments {
    /// To a cgroup: all packets of all sockets in it, and below.
    pub(super) fn to_cgroup(object: &mut Ebpf, path: &Path) -> anyhow::Result<Self> {
        let cgroup = File::open(path).with_context(|| format!("cannot open the cgroup {}", path.display()))?;
        // By a link, which every kernel with a ring buffer has: it lets others in, and ends with this process.
        let mode = CgroupAttachMode::Single;
        load(object, &["dw_receive", "dw_send"])?;
        for (name, hook) in [("dw_receive", CgroupSkbAttachType::Ingress), ("dw_send", CgroupSkbAttachType::Egress)] {
            let program: &mut CgroupSkb = program(object, name)?;
            let attached = program.attach(&cgroup, hook, mode);
            attached.with_context(|| format!("cannot attach {name} to the cgroup {}", path.display()))?;
        }
        let mut what = vec!["packets"];
        // Who made a socket can also be found in procfs, so these may fail.
        let attached = socket_makers(object, &cgroup, mode);
        match attached {
            Ok(()) => what.push("socket makers"),
            Err(error) => tracing::info!("the makers of sockets are not told by the kernel: {error:#}"),
        }
        match socket_states(object, &cgroup, mode) {
            Ok(()) => what.push("socket states"),
            Err(error) => tracing::info!("sockets that listen or connect are not told by the kernel: {error:#}"),
        }
        let interfaces = Interfaces { asked: None, is_classic: false, attached: HashMap::new() };
        Ok(Self { cgroup: Some((path.to_path_buf(), what)), interfaces })
    }

    /// To the interfaces of this network namespace whose names match.
    pub(super) fn to_interfaces(object: &mut Ebpf, asked: GlobSet, is_classic: bool) -> anyhow::Result<Self> {
        // All of them now: once privileges are dropped, none can be loaded for an interface that comes later.
        let names: Vec<&str> = ETHERNET.iter().chain(&RAW).map(|on| on.program).collect();
        load(object, &names)?;
        let mut interfaces = Interfaces { asked: Some(asked), is_classic, attached: HashMap::new() };
        interfaces.refresh(object)?;
        Ok(Self { cgroup: None, interfaces })
    }

    /// Looks for interfaces that came or went.
    pub(super) fn refresh(&mut self, object: &mut Ebpf) -> anyhow::Result<()> {
        if let Some((path, _)) = &self.cgroup
            && !path.exists()
        {
            bail!("the cgroup {} is gone", path.display());
        }
        self.interfaces.refresh(object)
    }

    /// For a person, one line each.
    pub(super) fn lines(&self) -> Vec<String> {
        let cgroup =
            self.cgroup.iter().map(|(path, what)| format!("cgroup_skb at {} ({})", path.display(), what.join(", ")));
        let mut interfaces: Vec<String> = self
            .interfaces
            .attached
            .values()
            .map(|attached| format!("{} on {}", attached.how, attached.name))
            .collect();
        interfaces.sort_unstable();
        cgroup.chain(interfaces).collect()
    }
}

impl Interfaces {
    /// Fails only where nothing is left and nothing could be attached.
    fn refresh(&mut self, object: &mut Ebpf) -> anyhow::Result<()> {
        let Some(asked) = &self.asked else { return Ok(()) };
        let present: HashMap<u32, String> = namespace::of_this_namespace().into_iter().collect();
        let gone: Vec<u32> = self.attached.keys().filter(|index| !present.contains_key(index)).copied().collect();
        for attached in gone.into_iter().filter_map(|index| self.attached.remove(&index)) {
            tracing::info!(interface = attached.name, "the interface is gone");
            for (name, link) in attached.links {
                // The interface took it along.
                let _ = program::<SchedClassifier>(object, name).and_then(|program| Ok(program.detach(link)?));
            }
        }
        let mut fault = None;
        for (index, name) in present {
            if let Some(attached) = self.attached.get_mut(&index) {
                attached.name = name;
            } else if asked.is_match(&name) {
                match attach(object, &name, self.is_classic) {
                    Ok(attached) => drop(self.attached.insert(index, attached)),
                    Err(error) => {
                        tracing::warn!(interface = name, "cannot attach: {error:#}");
                        fault = Some(error);
                    }
                }
            }
        }
        match fault {
            Some(fault) if self.attached.is_empty() => Err(fault),
            _ => Ok(()),
        }
    }
}

/// TCX where the kernel has it, whose link ends with this process; otherwise clsact, from which a dead predecessor's filters
/// are taken first.
fn attach(object: &mut Ebpf, interface: &str, is_classic: bool) -> anyhow::Result<Attached> {
    let hardware = fs::read_to_string(format!("/sys/class/net/{interface}/type")).unwrap_or_else(|_| "1".into());
    let programs = if ETHERNET_LIKE.contains(&hardware.trim()) { &ETHERNET } else { &RAW };
    let mut links = Vec::new();
    if !is_classic {
        for on in programs {
            let program: &mut SchedClassifier = program(object, on.program)?;
            let order = TcAttachOptions::TcxOrder(LinkOrder::default());
            if let Ok(link) = program.attach_with_options(interface, on.hook, order) {
                links.push((on.program, link));
            }
        }
        if links.len() == programs.len() {
            return Ok(Attached { name: interface.to_owned(), how: "TCX", links });
        }
        for (name, link) in links.drain(..) {
            program::<SchedClassifier>(object, name)?.detach(link)?;
        }
    }
    // It may be there already, of another program or of a predecessor.
    let added = qdisc_add_clsact(interface);
    for on in programs {
        let _ = qdisc_detach_program(interface, on.hook, on.program);
        let program: &mut SchedClassifier = program(object, on.program)?;
        let link = program
            .attach_with_options(interface, on.hook, TcAttachOptions::Netlink(NlOptions::default()))
            .with_context(|| match &added {
                Ok(()) => format!("cannot attach {} to {interface} by clsact", on.program),
                Err(error) => format!("cannot attach {} to {interface} (adding clsact: {error})", on.program),
            })?;
        links.push((on.program, link));
    }
    Ok(Attached { name: interface.to_owned(), how: "clsact", links })
}

/// Loads programs that look at packets, all at once: the kernel takes its time to verify each, and does it for whoever asks.
fn load(object: &mut Ebpf, names: &[&str]) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let asked = object.programs_mut().filter(|(name, _)| names.contains(name));
        let loading: Vec<_> = asked.map(|(name, program)| (name, scope.spawn(|| load_one(program)))).collect();
        loading.into_iter().try_for_each(|(name, thread)| {
            let loaded = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            loaded.with_context(|| format!("the kernel refuses the program {name}"))
        })
    })
}

fn load_one(program: &mut Program) -> anyhow::Result<()> {
    match program {
        Program::CgroupSkb(program) => program.load()?,
        Program::SchedClassifier(program) => program.load()?,
        _ => bail!("it is for no packets"),
    }
    Ok(())
}

fn socket_makers(object: &mut Ebpf, cgroup: &File, mode: CgroupAttachMode) -> anyhow::Result<()> {
    for name in ["dw_make", "dw_release"] {
        let program: &mut CgroupSock = program(object, name)?;
        program.load()?;
        program.attach(cgroup, mode)?;
    }
    Ok(())
}

fn socket_states(object: &mut Ebpf, cgroup: &File, mode: CgroupAttachMode) -> anyhow::Result<()> {
    let program: &mut SockOps = program(object, "dw_change")?;
    program.load()?;
    program.attach(cgroup, mode)?;
    Ok(())
}

fn program<'a, P>(object: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = object.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
    Ok(program.try_into()?)
}

/// Where cgroup v2 is mounted.
pub(super) fn root_of_cgroups() -> anyhow::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    mounted_cgroup2(&mounts).map(PathBuf::from).context(
        "cgroup v2 is not mounted: mount it (`mount -t cgroup2 none DIR`), or name the interfaces to watch instead",
    )
}

/// Fields, ` - `, the file system's type.
fn mounted_cgroup2(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let is_root = fields.next()? == "/";
        (is_root && system.split(' ').next() == Some("cgroup2")).then(|| fields.next())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_cgroup_v2_is_found_beside_those_of_v1() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            31 25 0:27 /part /mnt/part rw - cgroup2 cgroup2 rw\n\
            32 25 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted_cgroup2(mounts), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mounted_cgroup2("1 2 0:3 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
