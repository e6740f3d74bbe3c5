//! Landlock: which files can be opened, and which TCP ports be used.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, path_beneath_rules,
};

use super::{Layer, Sandbox, folders};

/// The newest version whose rights are asked for. Kernels that know less enforce what they know.
const NEWEST: ABI = ABI::V5;

/// The version from which on TCP ports are covered.
const WITH_PORTS: i64 = 4;

/// What any run reads: processes, interfaces, and what the C library needs to resolve names, verify certificates and know the
/// local time.
const ALWAYS_READ: &[&str] = &[
    "/proc",
    "/sys/class/net",
    // What the links in it lead to.
    "/sys/devices",
    "/sys/fs/cgroup",
    "/sys/kernel/btf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/etc/nsswitch.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/passwd",
    "/etc/group",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    // Modules of name resolution are loaded when the first name is resolved.
    "/etc/ld.so.cache",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/dev/null",
    "/dev/urandom",
];

/// Where the files for the resolution of names are. A rule holds for a file and not for its name: one that another one takes the
/// place of, as NetworkManager, `resolvconf` and `useradd` do it, is closed from then on, unless its folder is open.
const NAMES: &str = "/etc";

/// The file that says which servers are asked for names.
const SERVERS: &str = "/etc/resolv.conf";

/// Devices that are written to.
const ALWAYS_WRITTEN: &[&str] = &["/dev/null", "/dev/tty"];

/// Restricts this thread.
pub(super) fn restrict(sandbox: &Sandbox) -> Layer {
    match try_restrict(sandbox) {
        Ok(RulesetStatus::FullyEnforced) => Layer::Full,
        Ok(RulesetStatus::PartiallyEnforced) => Layer::Partial(match abi() {
            Some(known) if known < WITH_PORTS => "this kernel does not restrict TCP ports (6.7 does)".to_owned(),
            Some(known) => format!("this kernel has version {known} of Landlock"),
            None => "this kernel does not say what it knows".to_owned(),
        }),
        Ok(RulesetStatus::NotEnforced) => {
            Layer::off("this kernel has no Landlock (5.13 does), or does not enable it at boot")
        }
        Err(error) => Layer::off(error),
    }
}

fn try_restrict(sandbox: &Sandbox) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::from_all(NEWEST) & !AccessFs::Execute;
    let write_file = AccessFs::WriteFile | AccessFs::ReadFile | AccessFs::IoctlDev;
    let always: Vec<PathBuf> = ALWAYS_READ.iter().map(PathBuf::from).collect();
    let names = of_names(rustix::process::geteuid().is_root());
    let devices = ALWAYS_WRITTEN.iter().map(Path::new);
    let ports = |ports: &[u16], access: AccessNet| -> Vec<Result<NetPort, RulesetError>> {
        ports.iter().map(|&port| Ok(NetPort::new(port, access))).collect()
    };
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(always.iter().chain(&sandbox.read), read))?
        .add_rules(path_beneath_rules(names, AccessFs::ReadFile))?
        .add_rules(path_beneath_rules(&sandbox.write, write))?
        .add_rules(path_beneath_rules(devices, write_file))?
        .add_rules(ports(&sandbox.connect, AccessNet::ConnectTcp))?
        .add_rules(ports(&sandbox.bind, AccessNet::BindTcp))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// Folders whose files are read, and not listed, so that names are still resolved when those files are replaced.
///
/// A user of its own reads in `/etc` only what every user of the host may read. To root nearly all of it belongs, passwords and
/// the host's keys, so that for root the files stay open one by one: when one is replaced, the daemon needs a restart to see it.
fn of_names(is_root: bool) -> Vec<PathBuf> {
    // What it is a link to is in a folder that has nothing else in it, or nearly so.
    let mut folders = folders(Path::new(SERVERS));
    folders.retain(|folder| folder != Path::new(NAMES) && folder.parent().is_some());
    if !is_root {
        folders.push(NAMES.into());
    }
    folders
}

/// The version of Landlock that this kernel has; none where it has none, or does not enable it.
#[must_use]
#[allow(unsafe_code)] // Neither the crate nor the C library has a function for the question alone.
pub fn abi() -> Option<i64> {
    /// `LANDLOCK_CREATE_RULESET_VERSION`
    const VERSION: u32 = 1;
    // SAFETY: with this flag the call takes no attributes (null, 0) and returns a number; it makes nothing.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, VERSION) };
    (version > 0).then_some(version)
}
