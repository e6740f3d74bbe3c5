//! What the service manager hears, on a real datagram socket.
//!
//! The socket is named by a variable of the environment, so what speaks is this very program, run once more.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use distwatch::notify;

fn speak(test: &str, variables: &[(&str, String)]) {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--include-ignored", "--exact", test, "--nocapture"])
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .env_remove("WATCHDOG_PID")
        .envs(variables.iter().cloned())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn heard(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn a_whole_life_is_heard_by_name_and_by_abstract_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let name = format!("distwatch-notify-{}", std::process::id());
    let sockets = [
        (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
        (UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(), format!("@{name}")),
    ];
    for (socket, address) in sockets {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        speak("says_all", &[("NOTIFY_SOCKET", address), ("WATCHDOG_USEC", "30000000".to_owned())]);
        assert_eq!(heard(&socket), "READY=1\nSTATUS=watching 2 links\n");
        let reload = heard(&socket);
        let microseconds = reload.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap_or_else(|| panic!("{reload:?}"));
        assert!(microseconds.trim_end().parse::<u64>().unwrap() > 0);
        assert_eq!(heard(&socket), "STATUS=1 alert\n");
        assert_eq!(heard(&socket), "WATCHDOG=1\n");
        assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=writing what is left\n");
    }
}

#[test]
fn where_nobody_asked_nothing_is_said_and_nothing_fails() {
    speak("says_nothing", &[]);
    // A service manager that is gone is no reason to stop.
    speak("says_nothing", &[("NOTIFY_SOCKET", "/nonexistent/notify".to_owned())]);
}

#[test]
#[ignore = "speaks to the socket that the others listen on"]
fn says_all() {
    assert_eq!(notify::watchdog_interval(), Some(Duration::from_secs(15)));
    notify::ready("watching 2 links");
    notify::reloading();
    notify::status("1 alert\nREADY=0");
    notify::alive();
    notify::stopping("writing what is left");
}

#[test]
#[ignore = "is for a process without a service manager"]
fn says_nothing() {
    assert_eq!(notify::watchdog_interval(), None);
    notify::ready("watching");
    notify::reloading();
    notify::alive();
    notify::stopping("");
}
