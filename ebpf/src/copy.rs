//! Packets and events into their rings.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skb_load_bytes};
use aya_ebpf::programs::SkBuffContext;
use distwatch_ebpf::{Column, Event, FlowKey, LONGEST, Owner, Record, shed};

use crate::books::Books;
use crate::maps::{EVENTS, NO_WAKEUP, PACKETS, SOCKETS, wake};

/// The least that is copied: an IP header. Old verifiers learn something from a comparison with it, but nothing from one with 0.
const SHORTEST: u64 = 20;

/// A record with room for `N` octets.
#[repr(C)]
struct Room<const N: usize> {
    record: Record,
    octets: [u8; N],
}

/// How much of a packet is copied.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    /// So many octets at most.
    pub(crate) octets: u32,
    /// What is beyond is missed, and counted as such.
    pub(crate) is_missed: bool,
}

impl Limit {
    /// All of it.
    pub(crate) const WHOLE: Self = Self { octets: LONGEST, is_missed: true };
    /// What is copied while details are shed.
    pub(crate) const SHORT: Self = Self { octets: shed::SHORT, is_missed: true };
}

/// Copies as much of the packet, and keeps the books. Returns the socket's cookie.
#[inline(always)]
pub(crate) fn packet(context: &SkBuffContext, books: Books, mut record: Record, limit: Limit) -> u64 {
    let original = context.len();
    let most = if limit.octets < SHORTEST as u32 { SHORTEST as u32 } else { limit.octets };
    let wanted = if original > most { most } else { original };
    record.original = original;
    record.captured = wanted;
    // SAFETY: the helper takes the context as it is.
    record.cookie = unsafe { bpf_get_socket_cookie(context.as_ptr()) };
    let record = &record;
    // A reservation's size must be a constant, so there are some: acknowledgements and calls, one MTU of Ethernet, jumbo
    // frames, and what segmentation offload makes.
    let copied = if wanted <= 112 {
        into::<112>(context, record)
    } else if wanted <= 320 {
        into::<320>(context, record)
    } else if wanted <= 768 {
        into::<768>(context, record)
    } else if wanted <= 1600 {
        into::<1600>(context, record)
    } else if wanted <= 4400 {
        into::<4400>(context, record)
    } else if wanted <= 9216 {
        into::<9216>(context, record)
    } else if wanted <= 20_480 {
        into::<20_480>(context, record)
    } else if wanted <= 40_960 {
        into::<40_960>(context, record)
    } else if wanted <= 65_600 {
        into::<65_600>(context, record)
    } else if wanted <= 131_072 {
        into::<131_072>(context, record)
    } else if wanted <= 262_144 {
        into::<262_144>(context, record)
    } else {
        into::<{ LONGEST as usize }>(context, record)
    };
    match copied {
        Ok(()) => {
            wake();
            books.add(Column::Copied, 1);
            books.add(Column::CopiedOctets, u64::from(wanted));
            if wanted < original && limit.is_missed {
                books.add(Column::Cut, 1);
                books.add(Column::CutOctets, u64::from(original - wanted));
            }
        }
        Err(Fault::Full) => {
            books.add(Column::RingFull, 1);
            books.add(Column::RingFullOctets, u64::from(original));
        }
        Err(Fault::Unreadable) => books.add(Column::Refused, 1),
    }
    record.cookie
}

enum Fault {
    Full,
    Unreadable,
}

#[inline(always)]
fn into<const N: usize>(context: &SkBuffContext, record: &Record) -> Result<(), Fault> {
    let Some(mut entry) = PACKETS.reserve::<Room<N>>(0) else { return Err(Fault::Full) };
    let room: *mut Room<N> = entry.as_mut_ptr();
    // SAFETY: the reservation is as long as a `Room<N>`; only raw pointers into it are made, and all that the agent reads
    // (the record, and as many octets as it says) is written here.
    let loaded = unsafe {
        (&raw mut (*room).record).write(*record);
        // Verifiers must see the very register compared that is then the length, with either bound for itself: the compiler
        // would compare the length less a bound with the difference, of which they learn nothing.
        let length = opaque(u64::from(record.captured));
        if length > N as u64 {
            false
        } else {
            let length = opaque(length);
            length >= SHORTEST
                && bpf_skb_load_bytes(context.as_ptr(), 0, (&raw mut (*room).octets).cast(), length as u32) == 0
        }
    };
    if !loaded {
        entry.discard(NO_WAKEUP);
        return Err(Fault::Unreadable);
    }
    entry.submit(NO_WAKEUP);
    Ok(())
}

/// The same number, of which the compiler knows nothing.
#[inline(always)]
fn opaque(mut number: u64) -> u64 {
    // SAFETY: a comment.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) number, options(pure, nomem, nostack)) };
    number
}

/// Tells the agent something of a connection, with who made the socket.
#[inline(always)]
pub(crate) fn event(books: Books, key: &FlowKey, kind: u32, cookie: u64, local: u32, netns: u32, time: u64) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else { return books.add(Column::EventsLost, 1) };
    let event: *mut Event = entry.as_mut_ptr();
    // SAFETY: the reservation is as long as an event, and every field is written. A maker that is taken away meanwhile may be
    // another socket's: the agent compares with procfs.
    unsafe {
        (&raw mut (*event).time).write(time);
        (&raw mut (*event).cookie).write(cookie);
        (&raw mut (*event).key).write(*key);
        let owner = &raw mut (*event).owner;
        match SOCKETS.get(&cookie) {
            Some(maker) => owner.write(*maker),
            None => owner.write(Owner { cgroup: 0, pid: 0, uid: 0, command: [0; 16] }),
        }
        (&raw mut (*event).kind).write(kind);
        (&raw mut (*event).local).write(local);
        (&raw mut (*event).netns).write(netns);
        (&raw mut (*event).padding).write(0);
    }
    entry.submit(NO_WAKEUP);
    wake();
}

/// `CLOCK_MONOTONIC`.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}
