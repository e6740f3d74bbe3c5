//! The checks themselves. Each reads or tries one thing, and tells what that means.

use std::fs;
use std::path::Path;

use super::{Check, Report, State, Verdict};
use crate::host::sockets;
use crate::privilege::{self, BackEnd, Capability, Missing};
use crate::source::ebpf::{self, EbpfSource};
use crate::source::live::LiveSource;

/// The ring of a trial: a trial needs no room.
const TRIAL_RING: u32 = 4096;

/// What `--capture auto` tries, and everything that it may fail for.
pub(super) fn report() -> Report {
    let by_ebpf = try_ebpf();
    let by_pcap = try_pcap();
    let (capture, attached_to) = match (&by_ebpf, &by_pcap) {
        (Ok(attachments), _) => (Some("ebpf"), attachments.clone()),
        (_, Ok(attachments)) => (Some("pcap"), attachments.clone()),
        _ => (None, Vec::new()),
    };
    let pcap_works = by_pcap.is_ok();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let checks = vec![
        kernel(&release),
        type_information(Path::new("/sys/kernel/btf/vmlinux").exists()),
        cgroups(&mounts),
        tcx(&release),
        unprivileged_bpf(&sysctl("kernel/unprivileged_bpf_disabled")),
        perf_events(&sysctl("kernel/perf_event_paranoid")),
        capabilities("rights for eBPF", &privilege::missing_for(BackEnd::Ebpf)),
        capabilities("rights for libpcap", &privilege::missing_for(BackEnd::Pcap)),
        attribution(&privilege::missing_for(BackEnd::Pcap)),
        ebpf(by_ebpf, pcap_works),
        pcap(by_pcap),
        landlock(privilege::landlock_abi()),
        seccomp(privilege::seccomp_is_available()),
        socket_list(sockets::own().map(|sockets| sockets.len())),
        processes(&mounts),
        service_manager(Path::new("/run/systemd/system").is_dir()),
    ];
    Report { verdict: Verdict { capture, attached_to }, checks }
}

/// Loads and attaches the programs for a moment, which is the only way to know.
fn try_ebpf() -> Result<Vec<String>, String> {
    let options = ebpf::Options { ring: TRIAL_RING, ..ebpf::Options::default() };
    EbpfSource::open(&options).map(|source| source.attachments()).map_err(|error| format!("{error:#}"))
}

#[cfg(feature = "pcap")]
fn try_pcap() -> Result<Vec<String>, String> {
    use crate::source::pcap_live::{Options, PcapLive};

    let options = Options { buffer_size: 1 << 20, ..Options::default() };
    PcapLive::open(options).map(|source| source.attachments()).map_err(|error| error.to_string())
}

#[cfg(not(feature = "pcap"))]
fn try_pcap() -> Result<Vec<String>, String> {
    Err("this build has no libpcap: it was made without the feature `pcap`".to_owned())
}

fn sysctl(name: &str) -> String {
    fs::read_to_string(Path::new("/proc/sys").join(name)).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn kernel(release: &str) -> Check {
    match privilege::kernel_version(release) {
        version if version >= (5, 8) => Check::new("kernel", State::Ok, release),
        _ => Check::new("kernel", State::Missing, release)
            .follows("capture by eBPF takes Linux 5.8 or newer, which has the ring buffer")
            .remedy("libpcap works on it"),
    }
}

fn type_information(is_there: bool) -> Check {
    let name = "BTF";
    if is_there {
        return Check::new(name, State::Ok, "/sys/kernel/btf/vmlinux");
    }
    Check::new(name, State::Note, "the kernel does not describe its types")
        .follows("packets of containers cannot be told apart by network namespace")
        .remedy("use a kernel with CONFIG_DEBUG_INFO_BTF, as distributions build it")
}

/// Where cgroup v2 is mounted, and whether version 1 is beside it.
fn cgroups(mounts: &str) -> Check {
    let name = "cgroup v2";
    let kinds = || mounts.lines().filter_map(mount);
    let hybrid = kinds().any(|(_, kind, _)| kind == "cgroup");
    match kinds().find(|(_, kind, _)| *kind == "cgroup2") {
        Some((at, ..)) if hybrid => Check::new(name, State::Ok, format!("{at}, beside version 1 (hybrid)")),
        Some((at, ..)) => Check::new(name, State::Ok, at),
        None => Check::new(name, State::Note, "is not mounted")
            .follows("eBPF can watch interfaces, not the sockets of the host as a whole")
            .remedy("mount it (`mount -t cgroup2 none /sys/fs/cgroup/unified`), or name interfaces with --interface"),
    }
}

/// Where, of what kind and how something is mounted, from a line of `/proc/self/mountinfo`.
fn mount(line: &str) -> Option<(&str, &str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let (kind, _, options) = (after.next()?, after.next()?, after.next()?);
    Some((before.split(' ').nth(4)?, kind, options))
}

fn tcx(release: &str) -> Check {
    let name = "TCX";
    if privilege::kernel_version(release) >= (6, 6) {
        return Check::new(name, State::Ok, "programs on interfaces leave nothing behind, whatever ends this program");
    }
    Check::new(name, State::Note, "the kernel is older than 6.6").follows(
        "programs on interfaces are attached by clsact, which stays after a kill -9 until the next start; programs on \
         cgroups are not concerned",
    )
}

fn unprivileged_bpf(value: &str) -> Check {
    let name = "unprivileged BPF";
    let check =
        |state, found: &str| Check::new(name, state, format!("{found} (kernel.unprivileged_bpf_disabled = {value})"));
    match value {
        "" => Check::new(name, State::Ok, "the kernel has no switch for it"),
        "0" => check(State::Note, "allowed to every user")
            .follows("nothing for this program; it is an attack surface of the kernel")
            .remedy("set kernel.unprivileged_bpf_disabled = 2"),
        _ => check(State::Ok, "disabled, as it should be"),
    }
}

fn perf_events(value: &str) -> Check {
    let name = "perf events";
    if value.is_empty() {
        return Check::new(name, State::Ok, "the kernel has none; none are used");
    }
    Check::new(name, State::Ok, format!("kernel.perf_event_paranoid = {value}; whatever it is, none are used"))
}

fn capabilities(name: &'static str, missing: &[Missing]) -> Check {
    let needed: Vec<&Missing> = missing.iter().filter(|missing| missing.needed).collect();
    let names: Vec<&str> = needed.iter().map(|missing| missing.capability.name()).collect();
    let Some((last, others)) = names.split_last() else {
        return Check::new(name, State::Ok, "all there");
    };
    let found = match others {
        [] => format!("{last} is not there"),
        _ => format!("{} and {last} are not there", others.join(", ")),
    };
    let check = Check::new(name, State::Missing, found)
        .remedy("run it as root, or by the unit file, which gives the capabilities");
    needed
        .iter()
        .fold(check, |check, missing| check.follows(format!("{}: {}", missing.capability.name(), missing.without)))
}

/// Whether it is known whose a socket is.
fn attribution(missing: &[Missing]) -> Check {
    let name = "attribution";
    match missing.iter().find(|missing| missing.capability == Capability::SysPtrace) {
        None => Check::new(name, State::Ok, "processes of all users can be looked into"),
        Some(missing) => Check::new(name, State::Note, format!("{} is not there", missing.capability.name()))
            .follows(missing.without)
            .remedy("give it only where that is worth it: it opens the memory of all processes"),
    }
}

fn ebpf(tried: Result<Vec<String>, String>, pcap_works: bool) -> Check {
    let name = "eBPF";
    match tried {
        Ok(attachments) => Check::new(name, State::Ok, format!("loads and attaches: {}", attachments.join("; "))),
        Err(reason) => Check::new(name, State::Missing, reason).follows(if pcap_works {
            "capture is by libpcap, which costs more for encrypted links and sees only its own network namespace"
        } else {
            "no capture by eBPF"
        }),
    }
}

fn pcap(tried: Result<Vec<String>, String>) -> Check {
    let name = "libpcap";
    match tried {
        Ok(_) => Check::new(name, State::Ok, library()),
        Err(reason) => Check::new(name, State::Missing, reason).follows("no capture by libpcap; eBPF does not need it"),
    }
}

#[cfg(feature = "pcap")]
fn library() -> String {
    crate::source::pcap_live::PcapLive::library_version()
}

#[cfg(not(feature = "pcap"))]
fn library() -> String {
    String::new()
}

fn landlock(abi: Option<i64>) -> Check {
    let name = "Landlock";
    match abi {
        Some(abi) if abi >= 4 => Check::new(name, State::Ok, format!("version {abi}: files and TCP ports")),
        Some(abi) => Check::new(name, State::Note, format!("version {abi}: files"))
            .follows("TCP ports are not restricted; --sandbox-strict refuses to start")
            .remedy("Linux 6.7 or newer restricts them"),
        None => Check::new(name, State::Note, "is not in the kernel, or not enabled at boot")
            .follows("files and TCP ports are not restricted; --sandbox-strict refuses to start")
            .remedy("Linux 5.13 or newer, with `landlock` in the boot parameter lsm="),
    }
}

fn seccomp(is_available: bool) -> Check {
    match is_available {
        true => Check::new("seccomp", State::Ok, "filters system calls"),
        false => Check::new("seccomp", State::Note, "is not in the kernel")
            .follows("system calls are not restricted; --sandbox-strict refuses to start"),
    }
}

fn socket_list(sockets: std::io::Result<usize>) -> Check {
    let name = "sock_diag";
    match sockets {
        Ok(count) => Check::new(name, State::Ok, format!("lists {count} TCP sockets")),
        Err(error) => Check::new(name, State::Note, format!("the kernel does not list its sockets: {error}"))
            .follows("connections that were there before the start are known only from their packets")
            .remedy("load the modules tcp_diag and inet_diag"),
    }
}

/// Whether `/proc` shows the processes of others.
fn processes(mounts: &str) -> Check {
    let name = "/proc";
    let options = mounts.lines().filter_map(mount).rfind(|(at, kind, _)| *kind == "proc" && *at == "/proc");
    let hidden =
        options.and_then(|(.., options)| options.split(',').find_map(|option| option.strip_prefix("hidepid=")));
    match hidden {
        None | Some("0" | "off") => Check::new(name, State::Ok, "shows all processes"),
        Some(how) => Check::new(name, State::Note, format!("hides the processes of others (hidepid={how})"))
            .follows("which process has a socket is known only of this user's own; findings are complete without it")
            .remedy("give the service the group of the mount option gid=, or CAP_SYS_PTRACE"),
    }
}

fn service_manager(is_systemd: bool) -> Check {
    match is_systemd {
        true => Check::new("systemd", State::Ok, "runs; packaging/systemd/distwatch.service is a unit for it"),
        false => Check::new("systemd", State::Note, "does not run here")
            .follows("nothing restarts the daemon or watches it, unless something else does"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw,hidepid=invisible,gid=4
30 31 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
";

    #[test]
    fn mounts_tell_of_cgroups_and_of_hidden_processes() {
        assert_eq!(cgroups(HYBRID).found, "/sys/fs/cgroup/unified, beside version 1 (hybrid)");
        assert_eq!(cgroups("41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n").found, "/sys/fs/cgroup");
        assert_eq!(cgroups("").state, State::Note);
        assert_eq!(processes(HYBRID).found, "hides the processes of others (hidepid=invisible)");
        assert_eq!(processes("22 27 0:21 / /proc rw - proc proc rw\n").state, State::Ok);
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let row = |capability, needed| Missing { capability, needed, without: "x works without it" };
        let both = [row(Capability::NetRaw, true), row(Capability::Bpf, true), row(Capability::SysPtrace, false)];
        let check = capabilities("rights", &both);
        assert_eq!((check.state, check.found.as_str()), (State::Missing, "CAP_NET_RAW and CAP_BPF are not there"));
        assert!(check.remedy.contains("root") && check.follows.len() == 2);
        assert_eq!(attribution(&both).found, "CAP_SYS_PTRACE is not there");
        let useful = &both[2..];
        assert_eq!(capabilities("rights", useful).state, State::Ok);
        assert_eq!(capabilities("rights", &both[..1]).found, "CAP_NET_RAW is not there");
        assert_eq!(capabilities("rights", &[]).state, State::Ok);
    }

    #[test]
    fn every_check_that_is_not_ok_says_what_follows() {
        let mut report = report();
        report.checks.extend([
            kernel("4.19.0"),
            type_information(false),
            cgroups(""),
            tcx("5.10.0"),
            unprivileged_bpf("0"),
            ebpf(Err("no".into()), true),
            pcap(Err("no".into())),
            landlock(Some(2)),
            landlock(None),
            seccomp(false),
            socket_list(Err(std::io::ErrorKind::NotFound.into())),
            service_manager(false),
        ]);
        for check in report.checks {
            assert!(!check.found.is_empty(), "{check:?}");
            assert!(check.state == State::Ok || !check.follows.is_empty(), "{check:?}");
        }
    }
}
