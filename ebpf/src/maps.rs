//! The maps: what the programs and the agent tell each other.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use distwatch_ebpf::{Counters, End, Flow, FlowKey, Owner, Owners, Verdict};

/// How many connections have an entry, unless the agent says otherwise.
const FLOWS_AT_ONCE: u32 = 65_536;

/// How many (address, port) are watched besides whole ports: as many as the engine learns.
const LISTENERS_AT_ONCE: u32 = 16_384;

/// Handshakes under way, of which only who shows them is remembered. The oldest goes, and then its packets may be seen twice.
const HANDSHAKES_AT_ONCE: u32 = 8192;

/// Sockets whose maker is remembered. The oldest goes; the agent then looks in procfs.
const SOCKETS_AT_ONCE: u32 = 32_768;

/// The packets' ring, unless the agent says otherwise.
const RING: u32 = 16 << 20;

/// The events' ring: some two thousand of them.
const EVENTS_RING: u32 = 256 << 10;

/// What each port is watched for.
#[map]
pub(crate) static PORTS: Array<u32> = Array::with_max_entries(65_536, 0);

/// Which addresses are watched with ports that are not watched as a whole; the value is unused.
#[map]
pub(crate) static LISTENERS: HashMap<End, u32> = HashMap::with_max_entries(LISTENERS_AT_ONCE, 0);

/// Connections that carried payload, or that the agent put in. A flood of SYNs does not get here.
#[map]
pub(crate) static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(FLOWS_AT_ONCE, 0);

/// What the agent decided of connections. The programs only take away.
#[map]
pub(crate) static VERDICTS: HashMap<FlowKey, Verdict> = HashMap::with_max_entries(FLOWS_AT_ONCE, 0);

/// Who shows connections that have no entry yet.
#[map]
pub(crate) static HANDSHAKES: LruHashMap<FlowKey, Owners> = LruHashMap::with_max_entries(HANDSHAKES_AT_ONCE, 0);

/// Who made a socket, by its cookie.
#[map]
pub(crate) static SOCKETS: LruHashMap<u64, Owner> = LruHashMap::with_max_entries(SOCKETS_AT_ONCE, 0);

/// Packets.
#[map]
pub(crate) static PACKETS: RingBuf = RingBuf::with_byte_size(RING, 0);

/// Events.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_RING, 0);

/// What is done without at present; see [`distwatch_ebpf::shed`].
#[map]
pub(crate) static SHEDDING: Array<u32> = Array::with_max_entries(1, 0);

/// Not 0 while the agent waits to be woken.
#[map]
pub(crate) static SLEEPING: Array<u32> = Array::with_max_entries(1, 0);

/// The books.
#[map]
pub(crate) static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// `BPF_RB_NO_WAKEUP`: the agent looks every few milliseconds by itself, which costs a fraction of being woken for each packet.
pub(crate) const NO_WAKEUP: u64 = 1;

/// Wakes the agent, if it asked for that because it no longer looks by itself. To be called when a record is in its ring: the
/// agent asks first and then looks once more, so none of them is overlooked.
#[inline(always)]
pub(crate) fn wake() {
    const FORCE_WAKEUP: u64 = 2;
    let Some(sleeping) = SLEEPING.get_ptr_mut(0) else { return };
    // SAFETY: the entry exists for as long as the map; two CPUs that both see the flag wake twice, which harms nothing.
    unsafe {
        if *sleeping == 0 {
            return;
        }
        *sleeping = 0;
    }
    // A record that is thrown away at once wakes as any other.
    if let Some(nothing) = EVENTS.reserve::<u64>(0) {
        nothing.discard(FORCE_WAKEUP);
    }
}
