//! What ten thousand links that nothing passes on take in memory: every allocation is counted, so that what a link costs cannot
//! grow unseen.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use distwatch_engine::analysis::{Analysis, Silent};
use distwatch_engine::packet::{InterfaceId, LinkType, Packet, PacketRef};
use distwatch_engine::policy::Policy;
use distwatch_engine::time::Timestamp;

/// Links that are opened.
const LINKS: u32 = 10_000;

/// What one of them may take, everything that is known and found of it included. Half as much again was taken before connections
/// had room for frames, actions and TLS only once there are any.
const MOST: usize = 4200;

/// Octets that are allocated.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted.
struct Counted;

/// What an allocation takes of the usual allocator: eight octets more, in steps of sixteen, 32 at least.
const fn taken(layout: Layout) -> usize {
    let taken = (layout.size() + 8).next_multiple_of(16);
    if taken < 32 { 32 } else { taken }
}

#[allow(unsafe_code, reason = "an allocator is unsafe by nature")]
// SAFETY: everything is left to the system's allocator; what is counted beside it touches no memory of it.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(taken(layout), Ordering::Relaxed);
        // SAFETY: as asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: as asked for.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// The connection of one link: who has said how much.
struct Talk<'a> {
    analysis: &'a mut Analysis,
    packets: &'a mut u64,
    port: u16,
    /// The next sequence numbers, the initiator's first.
    next: [u32; 2],
}

const SYN: u8 = 2;
const PUSH: u8 = 8;
const ACK: u8 = 16;

impl Talk<'_> {
    fn segment(&mut self, side: usize, flags: u8, payload: &[u8]) {
        let (ends, ports) = ([[10, 77, 0, 1], [10, 77, 0, 2]], [self.port, 9100]);
        let mut data = vec![0x45, 0];
        data.extend(u16::try_from(40 + payload.len()).unwrap().to_be_bytes());
        data.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        data.extend(ends[side]);
        data.extend(ends[1 - side]);
        data.extend(ports[side].to_be_bytes());
        data.extend(ports[1 - side].to_be_bytes());
        data.extend(self.next[side].to_be_bytes());
        data.extend(self.next[1 - side].to_be_bytes());
        data.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        data.extend_from_slice(payload);
        self.next[side] += u32::try_from(payload.len()).unwrap() + u32::from(flags & SYN != 0);
        *self.packets += 1;
        let packet = Packet {
            reference: PacketRef { capture: 0, number: *self.packets },
            time: Timestamp::from_nanos(i64::try_from(*self.packets * 10_000).unwrap()),
            link_type: LinkType::RAW,
            interface: InterfaceId(0),
            original_len: u32::try_from(data.len()).unwrap(),
            data: &data,
        };
        self.analysis.handle_packet(&packet, &mut Silent);
    }

    /// A handshake message.
    fn say(&mut self, side: usize, message: &[u8]) {
        let mut octets = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
        octets.extend_from_slice(message);
        self.segment(side, PUSH | ACK, &octets);
    }

    fn handshake(&mut self, name: &str) {
        let (flags, other) = (0xd_07df_7fbd_u64.to_be_bytes(), "crowd@10.77.0.2");
        let named = |fields: &[&[u8]], name: &str| {
            let length = u16::try_from(name.len()).unwrap().to_be_bytes();
            [&fields.concat(), length.as_slice(), name.as_bytes()].concat()
        };
        self.segment(0, SYN, &[]);
        self.segment(1, SYN | ACK, &[]);
        self.say(0, &named(&[b"N", &flags, &7_u32.to_be_bytes()], name));
        self.say(1, b"sok");
        self.say(1, &named(&[b"N", &flags, &7_u32.to_be_bytes(), &9_u32.to_be_bytes()], other));
        self.say(0, &[b"r".as_slice(), &1_u32.to_be_bytes(), &[0; 16]].concat());
        self.say(1, &[b"a".as_slice(), &[0; 16]].concat());
    }
}

#[test]
fn a_link_that_nothing_passes_on_takes_little() {
    let mut analysis = Analysis::new(&Policy::default());
    let interface = analysis.engine.add_interface("eth0");
    assert_eq!(interface, InterfaceId(0));
    let (before, mut packets) = (LIVE.load(Ordering::Relaxed), 0);
    for number in 1..=LINKS {
        let port = u16::try_from(20_000 + number).unwrap();
        let next = [number * 1000, number * 7];
        Talk { analysis: &mut analysis, packets: &mut packets, port, next }
            .handshake(&format!("crowd{number}@10.77.0.1"));
    }
    let links = analysis.cluster.links().filter(|link| link.acceptor.node.is_some() && link.closed.is_none()).count();
    assert_eq!((links, analysis.cluster.nodes().len()), (LINKS as usize, LINKS as usize + 1));
    let each = (LIVE.load(Ordering::Relaxed) - before) / LINKS as usize;
    eprintln!("{each} octets a link");
    assert!(each <= MOST, "{each} octets a link, and {MOST} are allowed");
}
