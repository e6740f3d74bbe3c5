//! Which network namespace a socket is of, by the inode that `/proc/PID/ns/net` shows too.
//!
//! There is no helper for it that all kernels have. Where the fields are is read from the kernel's own description of its types by
//! the agent, and set before loading; 0 means that it is not known, and then all namespaces are one.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// Where `struct sock_common` has `skc_net`, in eights of octets.
#[unsafe(no_mangle)]
static SOCKET_NETWORK: u32 = 0;

/// Where `struct net` has `ns.inum`, in octets.
#[unsafe(no_mangle)]
static NETWORK_INODE: u32 = 0;

/// How much of `struct sock_common` is read: `skc_net` is among the first 64 octets on all kernels seen so far, and the agent
/// leaves the fields unset where it is not.
const HEAD: usize = 8;

/// The inode, or 0.
#[inline(always)]
pub(crate) fn of_socket(socket: *const core::ffi::c_void) -> u32 {
    // SAFETY: the statics are never written after loading; they are read so that the compiler does not take them for constants.
    let (network, inode) =
        unsafe { (core::ptr::read_volatile(&SOCKET_NETWORK), core::ptr::read_volatile(&NETWORK_INODE)) };
    if network == 0 || inode == 0 || network >= HEAD as u32 || socket.is_null() {
        return 0;
    }
    let mut head = MaybeUninit::<[u64; HEAD]>::uninit();
    let mut answer = 0_u32;
    // SAFETY: reading kernel memory that is not there answers with an error; otherwise all of `head` is filled.
    unsafe {
        if bpf_probe_read_kernel(head.as_mut_ptr().cast(), size_of::<[u64; HEAD]>() as u32, socket) != 0 {
            return 0;
        }
        let net = core::ptr::read_volatile(head.as_ptr().cast::<u64>().add(network as usize));
        let place = (net + u64::from(inode)) as *const core::ffi::c_void;
        if bpf_probe_read_kernel((&raw mut answer).cast(), size_of::<u32>() as u32, place) != 0 {
            return 0;
        }
    }
    answer
}
