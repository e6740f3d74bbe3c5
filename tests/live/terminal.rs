//! A program on a terminal, typed at.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};

use super::{Host, eventually::in_time};

/// A program that believes to be on a terminal. It is killed when dropped.
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts a command line on a host.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn open(host: &Host, line: &str) -> Self {
        let mut command = host.command("script");
        command.args(["-qfec", &format!("exec {line}"), "/dev/null"]);
        let mut child = host.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()));
        let keys = child.stdin.take().expect("a pipe");
        let mut output = child.stdout.take().expect("a pipe");
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(read) = output.read(&mut part) {
                if read == 0 {
                    return;
                }
                shown.lock().expect("the screen").push_str(&String::from_utf8_lossy(&part[..read]));
            }
        });
        Self { child, keys, screen }
    }

    /// Waits until it shows something.
    ///
    /// # Panics
    /// Where it never does.
    pub fn shows(&self, words: &str) {
        let screen = || self.screen.lock().expect("the screen").clone();
        let shown = in_time(|| screen().contains(words).then_some(()));
        assert!(shown.is_some(), "no `{words}` on the terminal: {}", screen());
    }

    /// Types a line.
    ///
    /// # Panics
    /// Where the program has ended.
    pub fn types(&mut self, line: &str) {
        // One key after the other, as a terminal has it: `\r` is the key.
        write!(self.keys, "{line}\r").expect("the terminal takes keys");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
