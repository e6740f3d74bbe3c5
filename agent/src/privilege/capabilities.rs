//! Capabilities: which are there, which are missing for what, which are needed for how long.

use rustix::thread::{CapabilitySet, CapabilitySets};

use super::Layer;

/// The capabilities that this program has a use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Loading BPF programs.
    Bpf,
    /// BPF programs that look into the kernel.
    Perfmon,
    /// Attaching them to interfaces and cgroups.
    NetAdmin,
    /// Packet sockets, which libpcap reads.
    NetRaw,
    /// Looking into processes of other users: whose a socket is.
    SysPtrace,
    /// Reading files of other users.
    DacReadSearch,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Bpf, Self::Perfmon, Self::NetAdmin, Self::NetRaw, Self::SysPtrace, Self::DacReadSearch];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bpf => "CAP_BPF",
            Self::Perfmon => "CAP_PERFMON",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
        }
    }

    const fn set(self) -> CapabilitySet {
        match self {
            Self::Bpf => CapabilitySet::BPF,
            Self::Perfmon => CapabilitySet::PERFMON,
            Self::NetAdmin => CapabilitySet::NET_ADMIN,
            Self::NetRaw => CapabilitySet::NET_RAW,
            Self::SysPtrace => CapabilitySet::SYS_PTRACE,
            Self::DacReadSearch => CapabilitySet::DAC_READ_SEARCH,
        }
    }
}

/// Which way packets are captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BackEnd {
    /// Programs in the kernel.
    Ebpf,
    /// libpcap.
    #[default]
    Pcap,
}

/// A capability that is not there, and what that means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub capability: Capability,
    /// Capturing this way is impossible without it.
    pub needed: bool,
    /// What it is for, and what works without it.
    pub without: &'static str,
}

/// Those that this thread has in force.
#[must_use]
pub fn held() -> CapabilitySet {
    rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

/// What is missing to capture this way.
#[must_use]
pub fn missing_for(back_end: BackEnd) -> Vec<Missing> {
    missing_in(held(), back_end)
}

fn missing_in(held: CapabilitySet, back_end: BackEnd) -> Vec<Missing> {
    // Kernels before 5.8 know the two newer ones only as a part of CAP_SYS_ADMIN, which also contains them since.
    let covered =
        if held.contains(CapabilitySet::SYS_ADMIN) { held | CapabilitySet::BPF | CapabilitySet::PERFMON } else { held };
    let rows: &[(Capability, bool, &str)] = match back_end {
        BackEnd::Ebpf => &[
            (
                Capability::Bpf,
                true,
                "the kernel loads no program; capture by libpcap (--capture pcap) works without it",
            ),
            (
                Capability::Perfmon,
                true,
                "the kernel does not let programs compare pointers or read its structures; capture by libpcap works without it",
            ),
            (
                Capability::NetAdmin,
                true,
                "programs cannot be attached to cgroups or interfaces; capture by libpcap works without it",
            ),
        ],
        BackEnd::Pcap => &[(
            Capability::NetRaw,
            true,
            "no packet socket can be opened; reading capture files (analyze) works without it",
        )],
    };
    let attribution: &[(Capability, bool, &str)] = &[(
        Capability::SysPtrace,
        false,
        "which process has a socket is known only of this user's own, and guessed where a user runs just one node; links and \
         findings are complete without it",
    )];
    rows.iter()
        .chain(attribution)
        .filter(|(capability, ..)| !covered.contains(capability.set()))
        .map(|&(capability, needed, without)| Missing { capability, needed, without })
        .collect()
}

/// What capabilities are still needed for, once everything is open.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs {
    /// Which way packets are captured.
    pub back_end: BackEnd,
    /// Interfaces may come, go or flap, and are to be opened then: patterns and names. Not so for `any` and for cgroups.
    pub follows_interfaces: bool,
    /// Processes that start later are to be looked into. Without effect under Landlock, which forbids it.
    pub attribution: bool,
}

impl Needs {
    /// The capabilities to keep.
    #[must_use]
    pub fn keep(&self) -> Vec<Capability> {
        let release = rustix::system::uname();
        self.keep_on(kernel_version(&release.release().to_string_lossy()))
    }

    fn keep_on(&self, kernel: (u32, u32)) -> Vec<Capability> {
        let mut keep = Vec::new();
        match self.back_end {
            BackEnd::Pcap if self.follows_interfaces => keep.push(Capability::NetRaw),
            // An open packet socket goes on without.
            BackEnd::Pcap => {}
            BackEnd::Ebpf => {
                // Where kernel.unprivileged_bpf_disabled is set (Debian does), kernels before 6.0 refuse every use of
                // bpf(2), also of maps that are open; since then only what makes something new.
                if kernel < (6, 0) || self.follows_interfaces {
                    keep.push(Capability::Bpf);
                }
                if self.follows_interfaces {
                    keep.push(Capability::NetAdmin);
                }
            }
        }
        if self.attribution {
            keep.push(Capability::SysPtrace);
        }
        keep
    }
}

/// The first two numbers of a kernel's release; zeros where there are none.
pub(crate) fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|character: char| !character.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Gives up all others, in every set of this thread.
pub(super) fn drop_all_but(keep: &[Capability]) -> Layer {
    let keep = keep.iter().fold(CapabilitySet::empty(), |all, capability| all | capability.set());
    let Ok(sets) = rustix::thread::capabilities(None) else {
        return Layer::off("the kernel does not tell which there are");
    };
    // The bounding set limits what executed programs can get. Taking from it needs CAP_SETPCAP, which is still there here, if
    // it was at all; a service manager that did not give it has made the set small itself.
    let mut bounded = true;
    for capability in CapabilitySet::all().iter().filter(|capability| !keep.contains(*capability)) {
        if rustix::thread::capability_is_in_bounding_set(capability).unwrap_or(false) {
            bounded &= rustix::thread::remove_capability_from_bounding_set(capability).is_ok();
        }
    }
    let ambient = rustix::thread::clear_ambient_capability_set().is_ok();
    let left = sets.permitted & keep;
    let reduced = CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() };
    if let Err(error) = rustix::thread::set_capabilities(None, reduced) {
        return Layer::off(format!("the kernel refuses: {error}"));
    }
    // With neither of them a capability can come back only through a program that is executed, which seccomp forbids.
    match (bounded, ambient) {
        (true, true) => Layer::Full,
        (false, _) if sets.permitted.contains(CapabilitySet::SETPCAP) => {
            Layer::Partial("the bounding set is as it was".into())
        }
        (false, _) => Layer::Full,
        (true, false) => Layer::Partial("the ambient set is as it was".into()),
    }
}

/// The names of capabilities; of those that this program has no use for, their number is told.
pub(super) fn names(held: CapabilitySet) -> Vec<String> {
    let known = Capability::ALL.iter().filter(|capability| held.contains(capability.set()));
    let mut names: Vec<String> = known.map(|capability| capability.name().to_owned()).collect();
    let all_known = Capability::ALL.iter().fold(CapabilitySet::empty(), |all, capability| all | capability.set());
    let others = (held - all_known).bits().count_ones();
    if others > 0 {
        names.push(format!("and {others} others"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(needs: Needs, kernel: (u32, u32)) -> Vec<&'static str> {
        needs.keep_on(kernel).into_iter().map(Capability::name).collect()
    }

    #[test]
    fn only_what_is_still_needed_is_kept() {
        let pcap = Needs { back_end: BackEnd::Pcap, ..Needs::default() };
        assert_eq!(keep(pcap, (6, 1)), [""; 0]);
        assert_eq!(keep(Needs { follows_interfaces: true, ..pcap }, (6, 1)), ["CAP_NET_RAW"]);
        let ebpf = Needs { back_end: BackEnd::Ebpf, ..Needs::default() };
        assert_eq!(keep(ebpf, (6, 1)), [""; 0]);
        assert_eq!(keep(ebpf, (5, 10)), ["CAP_BPF"]);
        let all = Needs { follows_interfaces: true, attribution: true, ..ebpf };
        assert_eq!(keep(all, (6, 12)), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_SYS_PTRACE"]);
    }

    #[test]
    fn what_is_missing_is_named_with_what_works_without_it() {
        let missing = missing_in(CapabilitySet::NET_RAW, BackEnd::Ebpf);
        let names: Vec<_> = missing.iter().map(|missing| (missing.capability.name(), missing.needed)).collect();
        assert_eq!(
            names,
            [("CAP_BPF", true), ("CAP_PERFMON", true), ("CAP_NET_ADMIN", true), ("CAP_SYS_PTRACE", false)]
        );
        assert!(missing.iter().all(|missing| missing.without.contains("without it")));
        assert_eq!(missing_in(CapabilitySet::NET_RAW | CapabilitySet::SYS_PTRACE, BackEnd::Pcap), []);
        let old = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN | CapabilitySet::SYS_PTRACE;
        assert_eq!(missing_in(old, BackEnd::Ebpf), []);
    }

    #[test]
    fn kernels_are_told_apart_by_their_first_two_numbers() {
        assert_eq!(kernel_version("6.18.44-fc-v595"), (6, 18));
        assert_eq!(kernel_version("5.10.0-32-cloud-amd64"), (5, 10));
        assert_eq!(kernel_version("odd"), (0, 0));
    }
}
