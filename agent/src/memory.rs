//! Memory that was used for a moment, given back to the system.

/// Gives back what is free. glibc keeps what is freed below something that is not, for as long as the program runs: what is
/// needed once, or every few minutes, would count as the daemon's for good.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: may be called at any time, and touches only what is free.
        #[allow(unsafe_code)]
        // The standard library has nothing for it.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}
