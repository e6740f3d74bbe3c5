//! A process of its own that offers records, so that it can be killed: this test program, started anew.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use crate::harness::{PATIENCE, Running, numbered, numbers_in, patience};

const STATE: &str = "DISTWATCH_TEST_CHILD_STATE";
const CONFIG: &str = "DISTWATCH_TEST_CHILD_CONFIG";

/// Offers the numbers that it is told on standard input, and says each one on standard error once it has been offered. Ends in good order
/// when standard input does.
#[test]
fn offering_process() {
    let (Ok(state), Ok(config)) = (std::env::var(STATE), std::env::var(CONFIG)) else { return };
    let running = Running::start(Path::new(&state), &config);
    for line in std::io::stdin().lines() {
        let Some((first, end)) = line.unwrap().split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())) else {
            break;
        };
        for number in first.parse::<u64>().unwrap()..end.parse().unwrap() {
            running.sinks.offer(&numbered(number));
            eprintln!("offered {number}");
        }
    }
    running.flush(PATIENCE);
}

/// The process, and what it says.
pub(crate) struct Offering {
    child: Child,
    input: Option<ChildStdin>,
    said: Receiver<String>,
    printed: Receiver<String>,
    last: u64,
}

impl Offering {
    pub(crate) fn start(state: &Path, toml: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::offering_process", "--nocapture"])
            .env(STATE, state)
            .env(CONFIG, toml)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, printed) = (lines(child.stderr.take().unwrap()), lines(child.stdout.take().unwrap()));
        Self { input: child.stdin.take(), child, said, printed, last: 0 }
    }

    /// Lets it offer these, and does not wait for it.
    pub(crate) fn offer(&mut self, numbers: std::ops::Range<u64>) {
        writeln!(self.input.as_mut().unwrap(), "{} {}", numbers.start, numbers.end).unwrap();
    }

    /// Waits until it has offered this one.
    pub(crate) fn until_offered(&mut self, number: u64) {
        while self.last < number {
            let line = self.said.recv_timeout(patience()).expect("it goes on");
            self.last = offered(&line).unwrap_or(self.last);
        }
    }

    /// The numbers of the first records that it prints itself.
    pub(crate) fn records(&self, count: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        while (numbers.len() as u64) < count {
            numbers.extend(numbers_in(&self.printed.recv_timeout(PATIENCE).expect("it goes on")));
        }
        numbers
    }

    /// How much memory it had at most, in MiB.
    pub(crate) fn peak_memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    /// Kills it at once (SIGKILL), and returns the last number that it had offered by its own word.
    pub(crate) fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.said.iter().filter_map(|line| offered(&line)).last().unwrap_or(self.last)
    }

    /// Ends it in good order.
    pub(crate) fn end(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success());
    }
}

fn lines(out: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    let out = BufReader::new(out).lines().map_while(Result::ok);
    std::thread::spawn(move || out.into_iter().try_for_each(|line| sender.send(line)));
    lines
}

fn offered(line: &str) -> Option<u64> {
    line.strip_prefix("offered ")?.parse().ok()
}
