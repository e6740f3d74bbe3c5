//! Records real traffic: two nodes in network namespaces of their own, at full speed over veth, and tcpdump between them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const LOAD: &str = include_str!("../../erlang/bench_load.erl");
/// Processes that call at the same time.
const CALLERS: u32 = 32;
/// A recording that does not grow must end some time.
const LONGEST: Duration = Duration::from_secs(600);

/// Ends what it started, the last first, and removes its namespaces.
struct Lab {
    children: Vec<Child>,
    namespaces: [String; 2],
}

impl Lab {
    fn new() -> Result<Self> {
        let id = std::process::id();
        let lab = Self { children: Vec::new(), namespaces: ["a", "b"].map(|end| format!("dwbench-{id}-{end}")) };
        let [a, b] = &lab.namespaces;
        let (va, vb) = (format!("dwa{id}"), format!("dwb{id}"));
        run(&["ip", "netns", "add", a])?;
        run(&["ip", "netns", "add", b])?;
        run(&["ip", "link", "add", &va, "netns", a, "type", "veth", "peer", "name", &vb, "netns", b])?;
        for (namespace, device, address) in [(a, &va, "10.79.0.1/24"), (b, &vb, "10.79.0.2/24")] {
            run(&["ip", "-n", namespace, "link", "set", device, "name", "eth0"])?;
            run(&["ip", "-n", namespace, "addr", "add", address, "dev", "eth0"])?;
            run(&["ip", "-n", namespace, "link", "set", "eth0", "up"])?;
            run(&["ip", "-n", namespace, "link", "set", "lo", "up"])?;
            // Packets of the size that a real network carries.
            run(&[
                "ip", "netns", "exec", namespace, "ethtool", "-K", "eth0", "tso", "off", "gso", "off", "gro", "off",
            ])?;
        }
        Ok(lab)
    }

    fn start(&mut self, namespace: usize, words: &[&str], folder: &Path) -> Result<()> {
        let child = Command::new("ip")
            .args(["netns", "exec", &self.namespaces[namespace]])
            .args(words)
            .current_dir(folder)
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", words[0]))?;
        self.children.push(child);
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for mut child in self.children.drain(..).rev() {
            _ = child.kill();
            _ = child.wait();
        }
        for namespace in &self.namespaces {
            _ = run(&["ip", "netns", "del", namespace]);
        }
    }
}

/// Records until the file has `size` octets.
pub(super) fn record(path: &Path, size: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("bench_load.erl"), LOAD)?;
    run(&[
        "erlc",
        "-o",
        &folder.path().display().to_string(),
        &folder.path().join("bench_load.erl").display().to_string(),
    ])?;
    let mut lab = Lab::new().context("making two hosts in network namespaces (needs root)")?;
    let unfinished = path.with_extension("recording");
    let file = std::path::absolute(&unfinished)?.display().to_string();
    lab.start(1, &["tcpdump", "-Z", "root", "-i", "eth0", "-B", "524288", "-w", &file, "tcp"], folder.path())?;
    lab.start(0, &["epmd"], folder.path())?;
    lab.start(1, &["epmd"], folder.path())?;
    // tcpdump and both EPMDs listen within this; a node that comes too early would start an EPMD of its own.
    std::thread::sleep(Duration::from_secs(1));
    let node = |name: &str, call: &str| {
        ["erl", "-noinput", "-name", name, "-setcookie", "benchmark", "-eval", call].map(str::to_owned)
    };
    let words = node("store@10.79.0.2", "bench_load:serve().");
    lab.start(1, &words.each_ref().map(String::as_str), folder.path())?;
    std::thread::sleep(Duration::from_secs(2));
    let words = node("load@10.79.0.1", &format!("bench_load:run('store@10.79.0.2', {CALLERS})."));
    lab.start(0, &words.each_ref().map(String::as_str), folder.path())?;
    let begin = Instant::now();
    while std::fs::metadata(&unfinished).map_or(0, |file| file.len()) < size {
        if begin.elapsed() > LONGEST {
            bail!("the recording does not grow to {size} octets");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(lab);
    // tcpdump was killed in the middle of a record, perhaps: only whole records are kept.
    super::pcap::head_bytes(&unfinished, path, u64::MAX)?;
    std::fs::remove_file(unfinished)?;
    Ok(())
}

fn run(words: &[&str]) -> Result<()> {
    let output = Command::new(words[0]).args(&words[1..]).output().with_context(|| format!("starting {}", words[0]))?;
    if !output.status.success() {
        bail!("{} failed: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
