//! A capture thread that is stuck: the service manager is told nothing any more, until it goes on.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::live::{BackEnd, Lab, Watch};

use crate::{ISOLATED, live};

/// How long the service manager waits for a word, as the daemon is told.
const PATIENCE: Duration = Duration::from_secs(3);

/// The hierarchy of cgroup v1 that stops single threads. That of v2 stops processes alone, and so does SIGSTOP.
const FREEZER: &str = "/sys/fs/cgroup/freezer";

/// A place where a thread is stopped. It goes on, and the place is removed, when this is dropped.
struct Frozen(PathBuf);

impl Frozen {
    fn thread(thread: u32) -> Self {
        let place = Path::new(FREEZER).join(format!("dwe{}", std::process::id()));
        fs::create_dir(&place).expect("a cgroup");
        let frozen = Self(place);
        fs::write(frozen.0.join("tasks"), thread.to_string()).expect("the thread is moved");
        fs::write(frozen.0.join("freezer.state"), "FROZEN").expect("the thread is stopped");
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        _ = fs::write(self.0.join("freezer.state"), "THAWED");
        for thread in fs::read_to_string(self.0.join("tasks")).unwrap_or_default().lines() {
            _ = fs::write(Path::new(FREEZER).join("tasks"), thread);
        }
        _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn while_the_capture_is_stuck_the_watchdog_hears_nothing() {
    live!("the watchdog");
    if !Path::new(FREEZER).join("tasks").exists() {
        eprintln!("*** SKIPPED the watchdog: {FREEZER} is not there, so no single thread can be stopped");
        return;
    }
    let mut lab = Lab::new();
    let host = lab.host("b", 2);
    let path = lab.folder().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let heard = |patience: Duration| -> Option<String> {
        socket.set_read_timeout(Some(patience)).expect("a time-out");
        let mut message = [0; 512];
        let length = socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).into_owned())
    };
    let alive_within = |patience: Duration| {
        let deadline = Instant::now() + patience;
        std::iter::from_fn(|| heard(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))))
            .any(|message| message.contains("WATCHDOG=1"))
    };
    let microseconds = PATIENCE.as_micros().to_string();
    let variables = [("NOTIFY_SOCKET", path.to_str().expect("a path")), ("WATCHDOG_USEC", &microseconds)];
    for back_end in BackEnd::ALL {
        let daemon = Watch::new(&host, back_end).policy(ISOLATED).variables(&variables).start();
        assert!(alive_within(PATIENCE), "{}: it lives", back_end.name());
        let frozen = Frozen::thread(daemon.thread("capture"));
        // What was said before is taken; what was under way comes at once.
        while heard(PATIENCE / 6).is_some() {}
        assert!(!alive_within(PATIENCE), "{}: stuck, and said to be alive", back_end.name());
        drop(frozen);
        assert!(alive_within(PATIENCE * 3), "{}: it goes on", back_end.name());
        daemon.stop();
        while heard(Duration::from_millis(100)).is_some() {}
    }
}
