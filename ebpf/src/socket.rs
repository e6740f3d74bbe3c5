//! Sockets: who made them, and what becomes of those that are watched.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_ops;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_socket_cookie,
};
use aya_ebpf::programs::{SockContext, SockOpsContext};
use distwatch_ebpf::{End, FlowKey, Owner, event};

use crate::books::Books;
use crate::flow::is_watched;
use crate::maps::SOCKETS;
use crate::{copy, namespace};

const STREAM: u32 = 1;
const INET: u32 = 2;
const INET6: u32 = 10;

const CONNECTED: u32 = 4;
const ACCEPTED: u32 = 5;
const STATE: u32 = 10;
const LISTENING: u32 = 11;
/// `TCP_CLOSE`.
const CLOSE: u32 = 7;
/// `BPF_SOCK_OPS_STATE_CB_FLAG`.
const TELL_STATE: i32 = 4;

/// Remembers who makes a socket.
#[inline(always)]
pub(crate) fn made(context: &SockContext) {
    // SAFETY: the fields are the kernel's.
    let (family, kind) = unsafe { ((*context.sock).family, (*context.sock).type_) };
    if kind != STREAM || (family != INET && family != INET6) {
        return;
    }
    // SAFETY: these helpers look at the process that makes the socket.
    let (cookie, pid, uid, cgroup) = unsafe {
        (
            bpf_get_socket_cookie(context.as_ptr()),
            (bpf_get_current_pid_tgid() >> 32) as u32,
            bpf_get_current_uid_gid() as u32,
            bpf_get_current_cgroup_id(),
        )
    };
    let command = context.command().unwrap_or([0; 16]);
    let _ = SOCKETS.insert(cookie, Owner { cgroup, pid, uid, command }, 0);
}

/// Forgets a socket.
#[inline(always)]
pub(crate) fn released(context: &SockContext) {
    // SAFETY: the helper takes the context as it is.
    let cookie = unsafe { bpf_get_socket_cookie(context.as_ptr()) };
    let _ = SOCKETS.remove(cookie);
}

/// Tells of sockets that listen, and of connections with what is watched.
#[inline(always)]
pub(crate) fn changed(context: &SockOpsContext) {
    let operation = context.op();
    let kind = match operation {
        CONNECTED => event::CONNECTED,
        ACCEPTED => event::ACCEPTED,
        LISTENING => event::LISTENING,
        STATE if context.arg(1) == CLOSE => event::CLOSED,
        _ => return,
    };
    let Some((local, remote)) = ends(context.ops) else { return };
    let remote = if operation == LISTENING || remote.port == 0 { local } else { remote };
    if operation == CONNECTED || operation == ACCEPTED {
        if !is_watched(local) && !is_watched(remote) {
            return;
        }
    }
    if operation != STATE {
        let _ = context.set_cb_flags(context.cb_flags() as i32 | TELL_STATE);
    }
    // SAFETY: the field is the kernel's, and the pointer is only handed on to a helper.
    let netns = namespace::of_socket(unsafe { (*context.ops).__bindgen_anon_2.sk }.cast());
    let scope = if local.is_loopback() || remote.is_loopback() { netns } else { 0 };
    let (key, direction) = FlowKey::new(local, remote, scope);
    // SAFETY: the helper takes the context as it is.
    let cookie = unsafe { bpf_get_socket_cookie(context.as_ptr()) };
    let Some(books) = Books::open() else { return };
    copy::event(books, &key, kind, cookie, direction as u32, netns, copy::now());
}

/// This socket's end, and the other.
#[inline(always)]
fn ends(ops: *mut bpf_sock_ops) -> Option<(End, End)> {
    // SAFETY: the fields are the kernel's.
    unsafe {
        let (local, remote) = match (*ops).family {
            INET => (End::mapped((*ops).local_ip4), End::mapped((*ops).remote_ip4)),
            INET6 => (ipv6(&raw const (*ops).local_ip6), ipv6(&raw const (*ops).remote_ip6)),
            _ => return None,
        };
        // The remote port is in network byte order, in the upper half.
        let remote_port = (u32::from_be((*ops).remote_port) & 0xFFFF) as u16;
        Some((End::new(local, (*ops).local_port as u16), End::new(remote, remote_port)))
    }
}

/// The kernel lets each quarter be read for itself only, and the compiler would read two at once.
///
/// # Safety
/// The field is the kernel's.
#[inline(always)]
unsafe fn ipv6(field: *const [u32; 4]) -> [u64; 2] {
    // SAFETY: all four are within the field.
    let quarter = |at: usize| u64::from(unsafe { field.cast::<u32>().add(at).read_volatile() });
    [quarter(0) | quarter(1) << 32, quarter(2) | quarter(3) << 32]
}
