//! The programs that distwatch loads into the kernel: their entry points.

#![no_std]
#![no_main]
// Inline assembly is not stable for this target; aya-ebpf has the same need.
#![feature(asm_experimental_arch)]
// There is no other way to the kernel than pointers; each use says why it holds.
#![allow(unsafe_code)]

mod books;
mod copy;
mod flow;
mod maps;
mod namespace;
mod packet;
mod pressure;
mod socket;

use aya_ebpf::macros::{cgroup_skb, cgroup_sock, classifier, sock_ops};
use aya_ebpf::programs::{SkBuffContext, SockContext, SockOpsContext, TcContext};
use distwatch_ebpf::link;

use crate::flow::Point;
use crate::packet::ETHERNET;

/// The packet goes on its way.
const PASS: i32 = 1;

/// Other programs, and the stack, go on with the packet.
const NEXT: i32 = -1;

/// What sockets receive.
#[cgroup_skb(ingress)]
fn dw_receive(context: SkBuffContext) -> i32 {
    flow::take::<0>(&context, Point { number: 1, link: link::RAW, is_sender: false, is_socket: true });
    PASS
}

/// What sockets send.
#[cgroup_skb(egress)]
fn dw_send(context: SkBuffContext) -> i32 {
    flow::take::<0>(&context, Point { number: 2, link: link::RAW, is_sender: true, is_socket: true });
    PASS
}

/// What comes in over an interface with Ethernet headers.
#[classifier]
fn dw_ether_in(context: TcContext) -> i32 {
    on_interface::<ETHERNET>(context, link::ETHERNET, 0)
}

/// What goes out over an interface with Ethernet headers.
#[classifier]
fn dw_ether_out(context: TcContext) -> i32 {
    on_interface::<ETHERNET>(context, link::ETHERNET, 1)
}

/// What comes in over an interface without a link layer.
#[classifier]
fn dw_raw_in(context: TcContext) -> i32 {
    on_interface::<0>(context, link::RAW, 0)
}

/// What goes out over an interface without a link layer.
#[classifier]
fn dw_raw_out(context: TcContext) -> i32 {
    on_interface::<0>(context, link::RAW, 1)
}

/// A socket is made.
#[cgroup_sock(sock_create)]
fn dw_make(context: SockContext) -> i32 {
    socket::made(&context);
    PASS
}

/// A socket is released.
#[cgroup_sock(sock_release)]
fn dw_release(context: SockContext) -> i32 {
    socket::released(&context);
    PASS
}

/// A socket listens, is connected, or is closed.
#[sock_ops]
fn dw_change(context: SockOpsContext) -> u32 {
    socket::changed(&context);
    PASS as u32
}

#[inline(always)]
fn on_interface<const AT: usize>(context: TcContext, link: u32, direction: u32) -> i32 {
    let context = SkBuffContext::new(context.skb.skb);
    // SAFETY: the field is the kernel's.
    let interface = unsafe { (*context.skb.skb).ifindex };
    flow::take::<AT>(&context, Point { number: interface << 1 | direction, link, is_sender: false, is_socket: false });
    NEXT
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are only for programs under such a licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
