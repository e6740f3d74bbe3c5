//! Counting without losing: a program that runs for a process can be interrupted by one that runs for the network card, on
//! the same CPU and with the same counters.

use distwatch_ebpf::Column;

use crate::maps::COUNTERS;

/// Adds to a column of this CPU's books.
#[inline(always)]
pub(crate) fn book(column: Column, what: u64) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the columns are as many as the enum has.
        add(unsafe { &mut (*counters).0[column as usize] }, what);
    }
}

/// Adds in one step; `core` has no such thing for this target.
#[inline(always)]
pub(crate) fn add(to: &mut u64, what: u64) {
    // SAFETY: the value is aligned to 8, as all values of maps are; nothing else is touched.
    unsafe { core::arch::asm!("lock *(u64 *)({to} + 0) += {what}", to = in(reg) to, what = in(reg) what) };
}
