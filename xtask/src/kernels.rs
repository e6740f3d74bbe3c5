//! `kernels`: the eBPF back end's own tests on the kernels of Debian's releases, each in a virtual machine.
//!
//! The kernels are only fetched and unpacked, by an apt with folders of its own: nothing is installed. A machine boots from a
//! file system in memory with the test's program, `ip`, `tc` and busybox, runs the tests, and ends. It is emulated, so that
//! neither hardware nor rights are needed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::run::{cargo, repository, run as run_program, text, which};

/// Debian's releases, the oldest kernel first. `sid` has the newest.
const SUITES: [&str; 4] = ["bullseye", "bookworm", "trixie", "sid"];

/// The meta package of the kernel for virtual machines: small, and with all that the programs need.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// Modules that tests need where they are not built in, in the order in which they are loaded.
const MODULES: [&str; 3] = ["sch_ingress", "cls_bpf", "veth"];

/// Programs that tests run, beside their own.
const PROGRAMS: [&str; 2] = ["ip", "tc"];

/// The tests that are run where not all are asked for: each kind of hook, and what is likely to differ between kernels.
const SMOKE: [&str; 6] = [
    "what_really_attaches_is_said",
    "a_connection_over_ipv6_is_handed_over_once",
    "a_counted_connection_is_counted_exactly",
    "connections_between_namespaces_are_handed_over_once",
    "a_listener_and_both_ends_of_a_connection_have_their_process",
    "an_interface_is_watched_also_when_it_was_gone_meanwhile",
];

/// What the chore itself runs, and Debian's packages of it.
const NEEDED: [(&str, &str); 5] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
    ("busybox", "busybox-static"),
    ("apt-get", "apt"),
];

/// A machine that has not ended by then hangs. They take less than half a minute.
const LONGEST: Duration = Duration::from_secs(240);

/// Where the table is in the documentation.
const PAGE: &str = "docs/kernels.md";
const BEGIN: &str = "<!-- kernels:begin -->\n";
const END: &str = "<!-- kernels:end -->";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Debian's releases; bullseye, bookworm, trixie and sid where none is named
    suites: Vec<String>,
    /// Run all tests, which takes minutes
    #[arg(long)]
    all: bool,
    /// Write the table into docs/kernels.md
    #[arg(long)]
    write: bool,
    /// Fail where a program is missing
    #[arg(long)]
    pub(crate) strict: bool,
    /// Show what the machines print
    #[arg(long)]
    verbose: bool,
}

impl Arguments {
    /// The smoke tests on all kernels.
    pub(crate) const fn smoke(strict: bool) -> Self {
        Self { suites: Vec::new(), all: false, write: false, strict, verbose: false }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(program, _)| which(program).is_none())
        .map(|(program, package)| format!("{program} ({package})"))
        .collect();
    if !missing.is_empty() {
        let what = format!("no kernel was tried, for these are missing: {}", missing.join(", "));
        if arguments.strict {
            bail!("{what}: `cargo xtask setup` installs them");
        }
        eprintln!("*** NOT CHECKED: {what}");
        return Ok(());
    }
    let suites: Vec<&str> = if arguments.suites.is_empty() {
        SUITES.to_vec()
    } else {
        arguments.suites.iter().map(String::as_str).collect()
    };
    let tests = build_tests()?;
    let filter: &[&str] = if arguments.all { &[] } else { &SMOKE };
    let start = Instant::now();
    let outcomes = machines(&suites, &tests, filter)?;
    let table = table(&outcomes);
    println!("{table}\n{} kernels in {:.1} s", outcomes.len(), start.elapsed().as_secs_f64());
    if arguments.write {
        write_page(&table)?;
    }
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.is_good()).collect();
    for outcome in outcomes.iter().filter(|outcome| arguments.verbose || !outcome.is_good()) {
        eprintln!("--- {}:\n{}", outcome.suite, outcome.log);
    }
    if !failed.is_empty() {
        bail!("on {} of {} kernels tests failed", failed.len(), outcomes.len());
    }
    Ok(())
}

/// Two at a time: emulation takes a core each.
fn machines(suites: &[&str], tests: &Path, filter: &[&str]) -> anyhow::Result<Vec<Outcome>> {
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<Vec<(usize, anyhow::Result<Outcome>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(suite) = suites.get(index) else { break };
                    let outcome = machine(suite, tests, filter);
                    outcomes.lock().expect("no thread panics with the lock").push((index, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no thread panics with the lock");
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// What a machine printed, and how long it took.
struct Outcome {
    suite: String,
    log: String,
    seconds: f64,
}

impl Outcome {
    /// The rest of the first line that has the words.
    fn after(&self, words: &str) -> Option<&str> {
        self.log.lines().find_map(|line| line.split_once(words)).map(|(_, rest)| rest.trim())
    }

    /// `23 passed; 0 failed`, of the harness's last line.
    fn tests(&self) -> Option<(u32, u32)> {
        let mut numbers = self.after("test result: ")?.split([' ', ';']).filter_map(|word| word.parse().ok());
        Some((numbers.next()?, numbers.next()?))
    }

    fn is_good(&self) -> bool {
        self.tests().is_some_and(|(passed, failed)| passed > 0 && failed == 0) && self.skipped() == 0
    }

    fn skipped(&self) -> usize {
        self.log.lines().filter(|line| line.contains("*** SKIPPED")).count()
    }
}

fn table(outcomes: &[Outcome]) -> String {
    let mut table = String::from(
        "| Debian | kernel | sockets of cgroups | interfaces | network namespaces | tests passed | seconds |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for outcome in outcomes {
        let of = |words| outcome.after(words).unwrap_or("nothing");
        let tests =
            outcome.tests().map_or("none".into(), |(passed, failed)| format!("{passed} of {}", passed + failed));
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {tests} | {:.0} |",
            outcome.suite,
            of("kernel: "),
            of("attached to sockets: "),
            of("attached to interfaces: "),
            of("namespaces: "),
            outcome.seconds,
        );
    }
    table
}

fn write_page(table: &str) -> anyhow::Result<()> {
    let page = repository().join(PAGE);
    let text = fs::read_to_string(&page).with_context(|| format!("cannot read {PAGE}"))?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{PAGE} has no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{PAGE} has no {END}"))?;
    fs::write(page, format!("{before}{BEGIN}{table}{END}{after}"))?;
    Ok(())
}

/// The program of the back end's tests.
fn build_tests() -> anyhow::Result<PathBuf> {
    let mut build = cargo(&["test", "--package", "distwatch", "--test", "ebpf", "--no-run", "--message-format=json"]);
    eprintln!("$ {}", text(&build));
    let output = build.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the tests cannot be built");
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    // The product's own program is built as well, and told of before or after.
    let mut messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let is_test = |message: &serde_json::Value| {
        message.pointer("/target/name").is_some_and(|name| name == "ebpf")
            && message.pointer("/target/kind/0").is_some_and(|kind| kind == "test")
    };
    let test = messages.find(is_test).context("cargo does not tell of the tests")?;
    let program = test.get("executable").and_then(serde_json::Value::as_str);
    program.map(PathBuf::from).context("cargo does not say where the tests' program is")
}

/// Boots the suite's kernel and runs the tests.
fn machine(suite: &str, tests: &Path, filter: &[&str]) -> anyhow::Result<Outcome> {
    let folder = repository().join("target/kernels").join(suite);
    let kernel = fetch(suite, &folder)?;
    let memory =
        initramfs(&folder, tests, filter).with_context(|| format!("cannot make the file system for {suite}"))?;
    let start = Instant::now();
    let mut qemu = Command::new("timeout");
    qemu.arg(LONGEST.as_secs().to_string()).args(["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "768"]);
    qemu.args(["-smp", "1", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(memory);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable"]);
    let output = qemu.stdin(Stdio::null()).stderr(Stdio::null()).output().context("cannot start qemu")?;
    let log = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    fs::write(folder.join("log"), &log)?;
    Ok(Outcome { suite: suite.to_owned(), log, seconds: start.elapsed().as_secs_f64() })
}

/// Fetches the suite's kernel, if that was not done before; returns where its image is.
fn fetch(suite: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let unpacked = folder.join("kernel");
    let done = folder.join("fetched");
    if !done.exists() {
        for part in ["lists/partial", "cache/archives/partial", "packages", "kernel"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let mirror = printed(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]))?;
        let mirror = mirror.lines().next().unwrap_or("http://deb.debian.org/debian").to_owned();
        let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
        fs::write(folder.join("sources.list"), format!("deb [signed-by={key}] {mirror} {suite} main\n"))?;
        apt(folder, "apt-get", &["-qq", "update"])?;
        let image = depended_on(folder, META_PACKAGE, &["linux-image-"])?;
        let image = image.first().with_context(|| format!("{suite} has no {META_PACKAGE}"))?.clone();
        // Newer releases have the image and the modules in packages of their own.
        let mut packages = depended_on(folder, &image, &["linux-binary-", "linux-modules-"])?;
        packages.push(image);
        for package in &packages {
            apt(folder, "apt-get", &["-qq", "download", package])?;
        }
        for package in fs::read_dir(folder.join("packages"))? {
            run_program(Command::new("dpkg-deb").arg("--extract").arg(package?.path()).arg(&unpacked))?;
        }
        fs::write(done, "")?;
    }
    find(&unpacked, &|name| name.starts_with("vmlinuz")).with_context(|| format!("the kernel of {suite} has no image"))
}

/// Runs a program of apt with folders of its own, and returns what it prints.
fn apt(folder: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut apt = Command::new(program);
    for (option, path) in
        [("Dir::Etc::SourceList", "sources.list"), ("Dir::State::Lists", "lists"), ("Dir::Cache", "cache")]
    {
        apt.arg("-o").arg(format!("{option}={}", folder.join(path).display()));
    }
    for option in ["Dir::Etc::SourceParts=/dev/null", "Acquire::Check-Valid-Until=false", "APT::Sandbox::User=root"] {
        apt.args(["-o", option]);
    }
    printed(apt.args(arguments).current_dir(folder.join("packages")))
}

fn depended_on(folder: &Path, package: &str, starts: &[&str]) -> anyhow::Result<Vec<String>> {
    let printed = apt(folder, "apt-cache", &["depends", package])?;
    let names = printed.lines().filter_map(|line| line.split_once("Depends: ")).map(|(_, name)| name.trim().to_owned());
    Ok(names.filter(|name| starts.iter().any(|start| name.starts_with(start))).collect())
}

/// The file system that the machine runs from.
fn initramfs(folder: &Path, tests: &Path, filter: &[&str]) -> anyhow::Result<PathBuf> {
    let root = folder.join("root");
    let _ = fs::remove_dir_all(&root);
    for part in ["bin", "proc", "sys", "dev", "tmp", "run", "var/run", "modules"] {
        fs::create_dir_all(root.join(part))?;
    }
    fs::copy(which("busybox").context("busybox is missing")?, root.join("bin/busybox"))?;
    let own = root.join("bin/tests");
    fs::copy(tests, &own)?;
    run_program(Command::new("strip").arg(&own))?;
    let mut programs = vec![tests.to_path_buf()];
    for name in PROGRAMS {
        let program = which(name).with_context(|| format!("{name} is missing (iproute2)"))?;
        fs::copy(&program, root.join("bin").join(name))?;
        programs.push(program);
    }
    for program in programs {
        copy_libraries(&program, &root)?;
    }
    for name in MODULES {
        let Some(module) = find(&folder.join("kernel"), &|file| file.starts_with(&format!("{name}.ko"))) else {
            continue;
        };
        let unpacked = match module.extension().and_then(|end| end.to_str()) {
            Some("xz") => output_of(Command::new("xz").arg("-dc").arg(&module))?,
            Some("zst") => output_of(Command::new("zstd").arg("-qdc").arg(&module))?,
            _ => fs::read(&module)?,
        };
        fs::write(root.join("modules").join(name), unpacked)?;
    }
    let init = root.join("init");
    fs::write(&init, INIT.replace("MODULES", &MODULES.join(" ")).replace("FILTER", &filter.join(" ")))?;
    run_program(Command::new("chmod").arg("+x").arg(&init))?;
    let image = folder.join("memory.cpio");
    let archive = format!("find . | cpio --quiet -o -H newc > {}", image.display());
    run_program(Command::new("sh").args(["-c", &archive]).current_dir(&root))?;
    Ok(image)
}

/// The first program of the machine.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /tmp
export PATH=/bin:/tmp
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup; mount -t bpf bpf /sys/fs/bpf
for module in MODULES; do [ -e /modules/$module ] && insmod /modules/$module; done
ip link set lo up
echo "kernel: $(uname -r)"
/bin/tests --test-threads=1 --nocapture FILTER 2>&1
poweroff -f
"#;

fn copy_libraries(program: &Path, root: &Path) -> anyhow::Result<()> {
    for line in printed(Command::new("ldd").arg(program))?.lines() {
        let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) else { continue };
        let copy = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().unwrap_or(root))?;
        fs::copy(library, copy)?;
    }
    Ok(())
}

/// The first file below whose name is the right one.
fn find(folder: &Path, is_it: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries.into_iter().find_map(|path| {
        if path.is_dir() && !path.is_symlink() {
            return find(&path, is_it);
        }
        path.file_name().is_some_and(|name| is_it(&name.to_string_lossy())).then_some(path)
    })
}

fn printed(command: &mut Command) -> anyhow::Result<String> {
    Ok(String::from_utf8_lossy(&output_of(command)?).into_owned())
}

fn output_of(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {}", text(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", text(command), output.status);
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_words_become_a_row() {
        let log = "kernel: 6.1.0-50-cloud-amd64\nattached to sockets: cgroup_skb (packets)\n\
            attached to interfaces: clsact\nnamespaces: told apart\n\
            test result: ok. 23 passed; 0 failed; 0 ignored; 0 measured\n";
        let outcome = Outcome { suite: "bookworm".into(), log: log.into(), seconds: 12.4 };
        assert!(outcome.is_good());
        let row = "| bookworm | 6.1.0-50-cloud-amd64 | cgroup_skb (packets) | clsact | told apart | 23 of 23 | 12 |\n";
        assert!(table(&[outcome]).ends_with(row));
        let silent = Outcome { suite: "sid".into(), log: String::new(), seconds: 240.0 };
        assert!(!silent.is_good());
        let skipped = Outcome { suite: "sid".into(), log: format!("{log}*** SKIPPED: no\n"), seconds: 2.0 };
        assert!(!skipped.is_good());
    }
}
