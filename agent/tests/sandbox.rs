//! The sandbox from inside: what must fail does, and what the daemon needs works.
//!
//! It cannot be taken off again, so each test runs this very program once more, as a process of its own.
#![allow(unsafe_code)] // Some of the system calls that must fail have no safe form.

use std::env;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use distwatch::host;
use distwatch::privilege::{self, BackEnd, Layer, Needs, Sandbox};

const FOLDER: &str = "DISTWATCH_TEST_FOLDER";
const SINK: &str = "DISTWATCH_TEST_SINK";
const OTHER: &str = "DISTWATCH_TEST_OTHER";

/// Runs one of the ignored tests in a process of its own.
fn inside(test: &str, variables: &[(&str, &str)]) -> Output {
    Command::new(env::current_exe().unwrap())
        .args(["--include-ignored", "--exact", test, "--nocapture", "--test-threads=1"])
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn assert_passed(output: &Output) {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    // What was skipped is said here too.
    text.lines().filter(|line| line.contains("SKIPPED")).for_each(|line| eprintln!("{line}"));
}

#[test]
fn what_an_attacker_would_do_fails_and_what_the_daemon_does_works() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["state", "other"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("policy.toml"), "here").unwrap();
    let (sink, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port().to_string();
    if File::open("/etc/shadow").is_err() {
        eprintln!("SKIPPED: a foreign file: only root could open one in the first place");
    }
    let variables = [(FOLDER, folder.path().to_str().unwrap()), (SINK, &port(&sink)), (OTHER, &port(&other))];
    assert_passed(&inside("all_layers", &variables));
}

#[test]
fn strict_refuses_to_go_on_where_a_layer_is_missing() {
    assert_passed(&inside("strict_after_a_first_filter", &[]));
}

#[test]
fn open_maps_are_used_without_the_capability_that_made_them() {
    assert_passed(&inside("bpf_map_from_before", &[]));
}

/// Waits for somebody to replace `/etc/resolv.conf` from outside, as a program that manages the network does.
const REPLACED: &str = r#"
    set -e
    mount --bind "$DISTWATCH_TEST_FOLDER/etc" /etc
    cd "$DISTWATCH_TEST_FOLDER"
    ( until [ -e marks/ready ]; do sleep 0.01; done
      echo "nameserver 192.0.2.2" > /etc/new
      mv /etc/new /etc/resolv.conf
      touch marks/replaced ) &
    exec setpriv --reuid 65534 --regid 65534 --clear-groups ./test \
        --include-ignored --exact resolv_conf_is_replaced --nocapture --test-threads=1
"#;

#[test]
fn a_resolv_conf_that_took_the_place_of_another_is_read_by_a_daemon_that_is_not_root() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: a replaced resolv.conf: only root can put one where the C library looks for it");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(folder.path(), 0o755);
    for (name, bits) in [("etc", 0o755), ("marks", 0o777)] {
        fs::create_dir(folder.path().join(name)).unwrap();
        mode(&folder.path().join(name), bits);
    }
    fs::write(folder.path().join("etc/resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
    // The build folder may lie where only its owner can look.
    fs::copy(env::current_exe().unwrap(), folder.path().join("test")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", REPLACED]).env(FOLDER, folder.path());
    match command.output() {
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unshare failed") => {
            eprintln!("SKIPPED: a replaced resolv.conf: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output) => assert_passed(&output),
        Err(error) => eprintln!("SKIPPED: a replaced resolv.conf: unshare cannot be started: {error}"),
    }
}

#[test]
#[ignore = "runs in a process of its own"]
fn resolv_conf_is_replaced() {
    let marks = PathBuf::from(env::var_os(FOLDER).unwrap()).join("marks");
    let servers = || fs::read_to_string("/etc/resolv.conf");
    assert_eq!(servers().unwrap(), "nameserver 192.0.2.1\n");
    let applied = Sandbox { write: vec![marks.clone()], ..Sandbox::default() }.apply().unwrap();
    fs::write(marks.join("ready"), "").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !marks.join("replaced").exists() {
        assert!(Instant::now() < deadline, "nobody replaces it");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(servers().unwrap(), "nameserver 192.0.2.2\n");
    if matches!(applied.landlock, Layer::Off(_)) {
        eprintln!("SKIPPED: what else is in the folder: {}", applied.landlock.words());
        return;
    }
    denied(fs::read_dir("/etc"), "listing the folder");
    denied(fs::write("/etc/new", "x"), "writing there");
}

fn denied<T>(result: io::Result<T>, what: &str) {
    match result {
        Ok(_) => panic!("{what} works"),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::PermissionDenied), "{what} fails for another reason: {error}");
        }
    }
}

/// The result of a raw system call.
fn called(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[test]
#[ignore = "runs in a process of its own"]
fn all_layers() {
    let folder = PathBuf::from(env::var_os(FOLDER).unwrap());
    let port = |name| env::var(name).unwrap().parse::<u16>().unwrap();
    let (sink, other) = (port(SINK), port(OTHER));
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // What listens already goes on to take in whoever comes.
    let http = http::listener();
    let notify = UnixDatagram::bind(folder.join("notify")).unwrap();
    #[cfg(feature = "pcap")]
    let mut capture = capture::open(sink);
    let root = rustix::process::geteuid().is_root();

    let sandbox = Sandbox {
        strict: false,
        needs: Needs { back_end: BackEnd::Pcap, follows_interfaces: true, attribution: false },
        read: vec![folder.join("policy.toml")],
        write: vec![folder.join("state")],
        connect: vec![sink, http.address().port()],
        bind: vec![free],
        ..Sandbox::default()
    };
    let applied = sandbox.apply().unwrap();
    println!("{applied:?}");
    assert!(applied.no_new_privs);
    assert_eq!(applied.seccomp, Layer::Full);
    assert_eq!(applied.dropped, Layer::Full);
    let expected: &[&str] = if root { &["CAP_NET_RAW"] } else { &[] };
    assert_eq!(applied.capabilities, expected);
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    for set in ["CapInh", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000")), "{status}");
    }
    if root {
        assert!(
            status.contains("CapBnd:\t0000000000002000") && status.contains("CapPrm:\t0000000000002000"),
            "{status}"
        );
    }

    must_fail(&folder, &applied.landlock, other);
    must_work(&folder, &applied.landlock, sink, free);
    http::answers(http);
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"READY=1", folder.join("notify")).unwrap();
    assert_eq!(notify.recv(&mut [0; 16]).unwrap(), 7);
    #[cfg(feature = "pcap")]
    capture::goes_on(capture.as_mut(), sink);
}

fn must_fail(folder: &Path, landlock: &Layer, other: u16) {
    denied(Command::new("/bin/true").status(), "starting a process");
    denied(Err::<(), _>(Command::new("/bin/true").exec()), "executing a program");
    // SAFETY: a call with a null pointer or a number that fails whatever it does with it; none touches this memory.
    unsafe {
        for (command, what) in [(5, "loading a BPF program"), (0, "making a BPF map"), (7, "opening a pinned object")] {
            denied(called(libc::syscall(libc::SYS_bpf, command, std::ptr::null::<u8>(), 0)), what);
        }
        denied(called(libc::syscall(libc::SYS_perf_event_open, 0, 0, -1, -1, 0)), "perf_event_open");
        denied(called(libc::ptrace(libc::PTRACE_ATTACH, libc::getppid(), 0, 0)), "tracing");
        denied(called(libc::fork().into()), "forking");
        denied(called(libc::unshare(libc::CLONE_NEWUSER).into()), "a new namespace");
        let mount = || {
            let (folder, kind) = (c"/tmp".as_ptr(), c"tmpfs".as_ptr());
            libc::mount(kind, folder, kind, 0, std::ptr::null())
        };
        denied(called(mount().into()), "mounting");
        denied(
            called(libc::syscall(libc::SYS_init_module, std::ptr::null::<u8>(), 0, std::ptr::null::<u8>())),
            "a module",
        );
        denied(called(libc::syscall(libc::SYS_keyctl, 0, 0, 0, 0, 0)), "keys");
        denied(called(libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0).into()), "a socket of another kind");
        denied(called(libc::syscall(libc::SYS_setuid, 0)), "becoming another user");
        denied(called(libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr()).into()), "typing into the terminal");
    }
    if matches!(landlock, Layer::Off(_)) {
        eprintln!("SKIPPED: files and ports from inside the sandbox: {}", landlock.words());
        return;
    }
    denied(File::open("/etc/shadow"), "opening a foreign file");
    denied(fs::read_dir(folder.join("other")), "listing a foreign folder");
    denied(fs::write(folder.join("policy.toml"), "x"), "writing to what is only read");
    denied(fs::write(folder.join("other/x"), "x"), "writing elsewhere");
    if *landlock == Layer::Full {
        denied(TcpStream::connect(("127.0.0.1", other)), "connecting to what is no sink");
        denied(TcpListener::bind("127.0.0.1:0"), "listening on another port");
    } else {
        eprintln!("SKIPPED: ports from inside the sandbox: {}", landlock.words());
    }
}

fn must_work(folder: &Path, landlock: &Layer, sink: u16, free: u16) {
    assert_eq!(fs::read_to_string(folder.join("policy.toml")).unwrap(), "here");
    let (new, old) = (folder.join("state/new"), folder.join("state/findings.json"));
    let mut file = File::create(&new).unwrap();
    file.write_all(b"{}").unwrap();
    file.sync_all().unwrap();
    fs::rename(&new, &old).unwrap();
    fs::remove_file(&old).unwrap();
    fs::read_to_string("/etc/resolv.conf").unwrap();

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let file = folder.join("state/by-tokio");
        tokio::spawn(async move { tokio::fs::write(file, "x").await.unwrap() }).await.unwrap();
        let _hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let _sink = tokio::net::TcpStream::connect(("127.0.0.1", sink)).await.unwrap();
        // Names are resolved by the C library, which loads modules for it.
        let resolved = tokio::net::lookup_host(("localhost", sink)).await.unwrap();
        assert!(resolved.count() > 0);
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        tokio::net::TcpListener::bind(("127.0.0.1", free)).await.unwrap();
        tokio::net::UnixListener::bind(folder.join("state/status.sock")).unwrap();
    });
    drop(runtime);

    // What is left of the inventory goes on: Landlock closes the descriptors of processes outside of it.
    let parent = rustix::process::getppid().unwrap().as_raw_nonzero();
    assert_eq!(fs::read_link(format!("/proc/{parent}/fd/1")).is_ok(), matches!(landlock, Layer::Off(_)));
    assert!(fs::read_to_string(format!("/proc/{parent}/cmdline")).is_ok());
    host::Inventory::new(host::Options::default()).scan().unwrap();
}

mod http {
    //! A server whose socket was opened before the sandbox answers within it.

    use std::io::Read;
    use std::sync::{Arc, Mutex};

    use distwatch::http::{Counts, Listener, Metrics, Recent, Reload, Settings, Sources};
    use distwatch_engine::time::Timestamp;

    use super::*;

    pub(super) fn listener() -> Listener {
        Listener::open(&Settings { listen: "127.0.0.1:0".parse().unwrap(), ..Settings::default() }).unwrap()
    }

    pub(super) fn answers(listener: Listener) {
        let address = listener.address();
        let sources = Sources {
            ask: Box::new(|_| false),
            recent: Arc::new(Recent::new(1)),
            reload: Arc::new(Mutex::new(Reload { successful: true, last_success: Timestamp::EPOCH })),
            counts: Arc::<Counts>::default(),
            metrics: Metrics::default(),
            host: "h".into(),
        };
        let server = listener.start(sources).unwrap();
        for (path, status) in [("/healthz", "200"), ("/", "200"), ("/api/v1/events", "200"), ("/readyz", "503")] {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(std::str::from_utf8(&answer).unwrap(), format!("HTTP/1.1 {status}"), "{path}");
        }
        // What its metrics read.
        assert!(fs::read_to_string("/proc/self/stat").is_ok() && fs::read_dir("/proc/self/fd").is_ok());
        server.stop();
    }
}

#[cfg(feature = "pcap")]
mod capture {
    //! A capture that was opened before the sandbox goes on within it.

    use distwatch::source::live::LiveSource;
    use distwatch::source::pcap_live::{Options, PcapLive};
    use distwatch_engine::event::Expected;

    use super::*;

    pub(super) fn open(port: u16) -> Option<PcapLive> {
        match PcapLive::open(Options { interfaces: vec!["lo".to_owned()], ..Options::default() }) {
            Ok(mut source) => {
                source.watch(SocketAddr::from(([0, 0, 0, 0], port)), Expected::Distribution).unwrap();
                source.poll(Duration::ZERO, 1, &mut |_| ()).unwrap();
                Some(source)
            }
            Err(error) => {
                eprintln!("SKIPPED: capture within the sandbox: {error}");
                None
            }
        }
    }

    pub(super) fn goes_on(source: Option<&mut PcapLive>, port: u16) {
        let Some(source) = source else { return };
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut seen = 0;
        while seen == 0 {
            assert!(Instant::now() < deadline, "nothing is captured");
            seen = source.poll(Duration::from_millis(50), 1000, &mut |_| ()).unwrap();
        }
        // The filter can still be exchanged, and an interface be opened anew.
        source.watch(SocketAddr::from(([0, 0, 0, 0], 1)), Expected::Distribution).unwrap();
        source.poll(Duration::from_millis(100), 1000, &mut |_| ()).unwrap();
        source.refresh().unwrap();
        let again = PcapLive::open(Options { interfaces: vec!["lo".to_owned()], ..Options::default() }).unwrap();
        assert!(again.attachments()[0].starts_with("libpcap on lo"), "{:?}", again.attachments());
        assert_eq!(source.books().lost.iter().map(|lost| lost.packets).sum::<u64>(), 0);
    }
}

#[test]
#[ignore = "runs in a process of its own"]
fn strict_after_a_first_filter() {
    // Within a first sandbox, seccomp(2) itself is refused, so a second one lacks a layer.
    let first = Sandbox::default().apply().unwrap();
    assert_eq!(first.seccomp, Layer::Full);
    let refused = Sandbox { strict: true, ..Sandbox::default() }.apply().unwrap_err();
    assert!(refused.to_string().contains("seccomp"), "{refused}");
    let gaps = Sandbox::default().apply().unwrap().gaps();
    assert!(gaps.iter().any(|gap| gap.starts_with("seccomp off")), "{gaps:?}");
    assert!(privilege::held().is_empty());
}

#[test]
#[ignore = "runs in a process of its own"]
fn bpf_map_from_before() {
    const MAP_CREATE: i32 = 0;
    const MAP_LOOKUP: i32 = 1;
    /// An array of one value of eight octets with a key of four.
    const ARRAY: [u32; 4] = [2, 4, 8, 1];
    // SAFETY: each attribute has the layout of `union bpf_attr` for its command, and what it points to lives until the end.
    let bpf = |command: i32, attribute: &[u32]| unsafe {
        called(libc::syscall(libc::SYS_bpf, command, attribute.as_ptr(), size_of_val(attribute)))
    };
    let Ok(map) = bpf(MAP_CREATE, &ARRAY) else {
        eprintln!("SKIPPED: maps within the sandbox: making one takes CAP_BPF");
        return;
    };
    let needs = Needs { back_end: BackEnd::Ebpf, ..Needs::default() };
    let applied = Sandbox { needs, ..Sandbox::default() }.apply().unwrap();
    assert_eq!(applied.seccomp, Layer::Full);
    let (key, mut value) = (0_u32, 7_u64);
    let halves = |address: u64| [address as u32, (address >> 32) as u32];
    let (key, value_at) = (halves(&raw const key as u64), halves(&raw mut value as u64));
    bpf(MAP_LOOKUP, &[map as u32, 0, key[0], key[1], value_at[0], value_at[1], 0, 0]).unwrap();
    assert_eq!(value, 0, "with the capabilities that are kept: {:?}", applied.capabilities);
    denied(bpf(MAP_CREATE, &ARRAY), "making another map");
}
