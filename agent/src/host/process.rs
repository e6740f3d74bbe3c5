//! What `/proc` says of one process.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::beam::{self, Arguments};
use super::cgroup::Place;

/// A command line is read up to this length; the flags of an emulator stand at its beginning.
const LONGEST_COMMAND_LINE: u64 = 128 << 10;
/// Other files of a process are short.
const LONGEST_FILE: u64 = 64 << 10;

/// What a process is, as far as this program cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An Erlang emulator, with what its command line says.
    Beam(Arguments),
    /// The port mapper daemon.
    Epmd,
    /// The first process, which holds EPMD's socket where systemd's `epmd.socket` starts it.
    Init,
    /// Anything else.
    Other,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Its id.
    pub pid: u32,
    /// What it is.
    pub kind: Kind,
    /// Its executable; the first argument where the link may not be read.
    pub exe: Option<String>,
    /// Whose it is.
    pub uid: u32,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// Its container.
    pub container: Option<String>,
    /// Its network namespace, by inode; none where that may not be read.
    pub namespace: Option<u64>,
}

/// What tells a process from any other: when it was started, and the program that it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) started: u64,
    /// As the kernel cuts it. A process that executes another program keeps its id and its start, and changes this.
    pub(super) name: String,
}

/// Who a process is; an error where it is gone.
pub(super) fn identity(proc: &Path, pid: u32) -> io::Result<Identity> {
    let stat = read(&of(proc, pid).join("stat"), LONGEST_FILE)?;
    // The name in parentheses may have anything in it, also parentheses. The start is field 22, 20 after it.
    let parts = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
    let identity = parts.and_then(|(name, fields)| {
        let started = fields.split_ascii_whitespace().nth(19)?.parse().ok()?;
        Some(Identity { started, name: name.to_owned() })
    });
    identity.ok_or_else(|| io::Error::other("/proc/PID/stat has another form than is known"))
}

/// Reads what is to be known of a process; `name` is what the kernel calls it.
pub(super) fn inspect(proc: &Path, pid: u32, name: &str) -> io::Result<Inspected> {
    let folder = of(proc, pid);
    let line = read(&folder.join("cmdline"), LONGEST_COMMAND_LINE)?;
    let arguments = || line.split('\0');
    let exe = fs::read_link(folder.join("exe")).ok().map(|path| path.to_string_lossy().into_owned());
    // The link takes the right to trace the process. Its name and its first argument are its own words.
    let exe = exe.or_else(|| arguments().next().filter(|first| !first.is_empty()).map(str::to_owned));
    let file = exe.as_deref().unwrap_or_default();
    // It is being executed: its name is there already and its arguments are not, and what is read of it is kept.
    if line.is_empty() && (beam::is_emulator(file) || beam::is_emulator(name)) {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let kind = if beam::is_emulator(file) {
        Kind::Beam(Arguments::read(arguments()))
    } else if beam::is_epmd(file) {
        Kind::Epmd
    } else if pid == 1 {
        Kind::Init
    } else {
        Kind::Other
    };
    let place = Place::read(&read(&folder.join("cgroup"), LONGEST_FILE).unwrap_or_default());
    let status = read(&folder.join("status"), LONGEST_FILE)?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().nth(1)?.parse().ok());
    Ok(Inspected {
        pid,
        kind,
        exe,
        uid: uid.unwrap_or(u32::MAX),
        unit: place.unit,
        container: place.container,
        namespace: namespace(&folder.join("ns/net")),
    })
}

/// The network namespace of this thread.
pub(super) fn own_namespace(proc: &Path) -> Option<u64> {
    namespace(&proc.join("thread-self/ns/net"))
}

/// A namespace by its link: `net:[4026531840]`, `pid:[4026531836]`.
pub(super) fn namespace(link: &Path) -> Option<u64> {
    let text = fs::read_link(link).ok()?;
    text.to_str()?.split_once(":[")?.1.strip_suffix(']')?.parse().ok()
}

/// The inodes of the sockets that a process has open, at most `most` descriptors of it. The second value tells whether these
/// were all.
pub(super) fn sockets(proc: &Path, pid: u32, most: &mut usize, mut each: impl FnMut(u64)) -> io::Result<bool> {
    for entry in fs::read_dir(of(proc, pid).join("fd"))? {
        let Some(left) = most.checked_sub(1) else {
            return Ok(false);
        };
        *most = left;
        let link = match fs::read_link(entry?.path()) {
            Ok(link) => link,
            // The folder of a process of the same user can be listed, and what is in it not be read, within a sandbox.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            // It was closed meanwhile.
            Err(_) => continue,
        };
        let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        let Some(inode) = inode else {
            continue;
        };
        each(inode);
    }
    Ok(true)
}

/// The name of a user, from the host's own list.
pub(super) fn user_name(uid: u32) -> Option<String> {
    let passwd = read(Path::new("/etc/passwd"), 4 << 20).ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn of(proc: &Path, pid: u32) -> PathBuf {
    proc.join(pid.to_string())
}

fn read(path: &Path, most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROC: &str = "/proc";

    #[test]
    fn this_process_is_read() {
        let (proc, pid) = (Path::new(PROC), std::process::id());
        assert!(identity(proc, pid).unwrap().started > 0);
        assert_eq!(identity(proc, pid).unwrap(), identity(proc, pid).unwrap());
        let own = inspect(proc, pid, "").unwrap();
        assert_eq!(own.exe, Some(std::env::current_exe().unwrap().to_string_lossy().into_owned()));
        assert_eq!(own.uid, rustix::process::geteuid().as_raw());
        assert_eq!(own.namespace, own_namespace(proc));
        assert_eq!(own.kind, Kind::Other);
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = rustix::fs::fstat(&socket).unwrap().st_ino;
        let mut found = Vec::new();
        assert!(sockets(proc, pid, &mut 10_000, |inode| found.push(inode)).unwrap());
        assert!(found.contains(&inode));
        assert!(!sockets(proc, pid, &mut 1, |_| {}).unwrap(), "a limit that is reached is told");
    }

    #[test]
    fn users_have_names() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!(user_name(u32::MAX - 7), None);
    }
}
