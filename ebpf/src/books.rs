//! Counting without losing: a program that runs for a process can be interrupted by one that runs for the network card, on
//! the same CPU and with the same counters.

use distwatch_ebpf::{Column, Counters};

use crate::maps::COUNTERS;

/// This CPU's books.
#[derive(Clone, Copy)]
pub(crate) struct Books(*mut Counters);

impl Books {
    /// There are always some.
    #[inline(always)]
    pub(crate) fn open() -> Option<Self> {
        COUNTERS.get_ptr_mut(0).map(Self)
    }

    /// Adds to a column.
    #[inline(always)]
    pub(crate) fn add(self, column: Column, what: u64) {
        // SAFETY: the columns are as many as the enum has, and the entry exists for as long as the map.
        add(unsafe { &mut (*self.0).0[column as usize] }, what);
    }
}

/// Adds in one step; `core` has no such thing for this target.
#[inline(always)]
pub(crate) fn add(to: &mut u64, what: u64) {
    // SAFETY: the value is aligned to 8, as all values of maps are; nothing else is touched.
    unsafe { core::arch::asm!("lock *(u64 *)({to} + 0) += {what}", to = in(reg) to, what = in(reg) what) };
}
