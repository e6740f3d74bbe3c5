//! Who goes first where there are too few processors.

/// How much less the thread gets: a third of what a thread gets that has not given way.
const LESS: i32 = 5;

/// Lets this thread, and those that it starts from now on, have the processor after the others of this program. Capture must go on
/// at its own pace, and what waits on disk for a server can wait.
pub(crate) fn give_way() {
    if let Err(error) = rustix::process::nice(LESS) {
        // Then it is as it was.
        tracing::debug!(%error, "the priority cannot be lowered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_and_its_children_with_it_and_nobody_else() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let before = priority();
        let (own, childs) = std::thread::spawn(move || {
            give_way();
            (priority(), std::thread::spawn(priority).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!((own, childs), ((before + LESS).min(19), (before + LESS).min(19)));
        assert_eq!(priority(), before);
    }
}
