//! seccomp: the system calls that are left. All others fail with EPERM.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::{BackEnd, Layer, Needs};

/// Calls of a program that has threads, an event loop, files, sockets and clocks.
const ALLOWED: &[i64] = &[
    // memory
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munmap,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_getrandom,
    // threads; a process by clone needs its argument looked at, below
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_gettid,
    libc::SYS_getcpu,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_yield,
    libc::SYS_prctl,
    libc::SYS_restart_syscall,
    // signals; to itself, which is all that it may signal without privileges of another user's
    libc::SYS_kill,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // who it is
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getpriority,
    libc::SYS_getppid,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_getuid,
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    libc::SYS_setpriority,
    libc::SYS_umask,
    libc::SYS_uname,
    // clocks and timers
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_timer_create,
    libc::SYS_timer_delete,
    libc::SYS_timer_settime,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_times,
    // waiting
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    // files
    libc::SYS_chdir,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_linkat,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_sync_file_range,
    libc::SYS_truncate,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
    // sockets; which kinds is looked at below
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
];

/// The older forms of some of these, which newer machines never had.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[i64] = &[
    libc::SYS_access,
    libc::SYS_alarm,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_creat,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_getdents,
    libc::SYS_getpgrp,
    libc::SYS_inotify_init,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pause,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[i64] = &[];

/// The request to type into a terminal; the C libraries differ in its type.
const TIOCSTI: u64 = 0x5412;

/// Kinds of socket: the network, the service manager and the status socket, netlink, packets.
const FAMILIES: [i32; 5] = [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX, libc::AF_NETLINK, libc::AF_PACKET];

/// Commands of bpf(2) on what is open: elements of maps (1 to 4, 21, 22, 24 to 27) and what it is (15, 16, 35).
const BPF_USE: [u64; 13] = [1, 2, 3, 4, 15, 16, 21, 22, 24, 25, 26, 27, 35];
/// Commands that attach a loaded program to an interface that came later, and let go of it: attach and detach (8, 9), links
/// (28, 29, 34).
const BPF_ATTACH: [u64; 5] = [8, 9, 28, 29, 34];

/// Restricts this thread.
pub(super) fn restrict(needs: &Needs) -> Layer {
    let Some(machine) = machine() else {
        return Layer::off("there is no filter for this kind of processor");
    };
    let result = filters(needs, machine).and_then(|programs| {
        programs.iter().try_for_each(|program| apply_filter(program).map_err(|error| error.to_string()))
    });
    result.map_or_else(Layer::off, |()| Layer::Full)
}

/// Whether this kernel has it.
#[must_use]
pub fn is_available() -> bool {
    rustix::thread::secure_computing_mode().is_ok()
}

fn machine() -> Option<TargetArch> {
    TargetArch::try_from(std::env::consts::ARCH).ok()
}

fn filters(needs: &Needs, machine: TargetArch) -> Result<[BpfProgram; 2], String> {
    build(needs, machine).map_err(|error| error.to_string())
}

/// Two filters, of which both must agree, in the order in which they are to be set: after the second no other can be.
fn build(needs: &Needs, machine: TargetArch) -> Result<[BpfProgram; 2], Error> {
    let only = |argument: u8, value: u64| -> Result<SeccompRule, Error> {
        Ok(SeccompRule::new(vec![SeccompCondition::new(argument, Length::Dword, Is::Eq, value)?])?)
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_HERE).map(|&call| (call, Vec::new())).collect();
    // A thread, and no process.
    let thread = libc::CLONE_THREAD as u64;
    let is_thread = SeccompCondition::new(0, Length::Qword, Is::MaskedEq(thread), thread)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![is_thread])?]);
    // Everything but typing into the terminal that it was started from.
    let types = SeccompCondition::new(1, Length::Dword, Is::Ne, TIOCSTI)?;
    rules.insert(libc::SYS_ioctl, vec![SeccompRule::new(vec![types])?]);
    let families = FAMILIES.iter().map(|&family| only(0, family as u64)).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_socket, families);
    if needs.back_end == BackEnd::Ebpf {
        let attach: &[u64] = if needs.follows_interfaces { &BPF_ATTACH } else { &[] };
        let commands = BPF_USE.iter().chain(attach).map(|&command| only(0, command)).collect::<Result<_, _>>()?;
        rules.insert(libc::SYS_bpf, commands);
    }
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let allowed = SeccompFilter::new(rules, denied, SeccompAction::Allow, machine)?;

    // What clone3 is asked for stands in memory, where no filter can look. The C library takes clone where there is no
    // clone3, which is what this filter makes it believe.
    let absent = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        machine,
    )?;
    Ok([absent.try_into()?, allowed.try_into()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_for_every_need() {
        for back_end in [BackEnd::Ebpf, BackEnd::Pcap] {
            for follows_interfaces in [false, true] {
                let needs = Needs { back_end, follows_interfaces, attribution: false };
                assert!(filters(&needs, machine().unwrap()).is_ok());
            }
        }
    }

    #[test]
    fn what_makes_processes_and_programs_is_in_no_list() {
        let forbidden = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_kexec_load,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_perf_event_open,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_bpf,
            libc::SYS_clone,
            libc::SYS_socket,
            libc::SYS_setuid,
        ];
        for call in forbidden {
            assert!(!ALLOWED.contains(&call) && !ALLOWED_HERE.contains(&call), "{call}");
        }
    }
}
