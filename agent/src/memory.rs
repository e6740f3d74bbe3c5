//! What the allocator keeps: memory that was used for a moment is given back to the system, and all threads share what is free.

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

/// Lets all threads share two arenas of the allocator. By itself, glibc gives eight for each processor, and what is freed in one is
/// of no use to the threads of another: sinks that read their spools by turns on many threads would keep tens of megabytes so.
/// Called before there are threads.
pub(crate) fn share() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: sets a number of the allocator under its own lock, and takes no pointer.
        #[allow(unsafe_code)]
        // The standard library has nothing for it. Where it is refused, all is as it was.
        let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    }
}
