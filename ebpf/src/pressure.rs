//! How full the packets' ring is, and what is done without because of that.

use distwatch_ebpf::shed;

use crate::maps::{PACKETS, SHEDDING};

/// `BPF_RB_AVAIL_DATA`: octets that the agent has not read yet.
const UNREAD: u64 = 0;
/// `BPF_RB_RING_SIZE`.
const SIZE: u64 = 1;

/// What is done without now: see [`shed`]. Asked of what can be done without alone, so that all else costs nothing.
#[inline(always)]
pub(crate) fn level() -> u32 {
    let Some(held) = SHEDDING.get_ptr_mut(0) else { return shed::NOTHING };
    let (unread, sixteenth) = (PACKETS.query(UNREAD), PACKETS.query(SIZE) / 16);
    // SAFETY: the entry exists for as long as the map. Two CPUs that both change it find the same ring, a moment apart.
    unsafe {
        let before = *held;
        let mut now = before;
        if unread <= shed::RELIEF * sixteenth {
            now = shed::NOTHING;
        }
        for (mark, level) in shed::MARKS {
            if unread >= mark * sixteenth && now < level {
                now = level;
            }
        }
        if now != before {
            *held = now;
        }
        now
    }
}
