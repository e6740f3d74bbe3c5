//! `ebpf`: builds the object that the agent carries, and checks that the committed one is current.
//!
//! The object is committed, so that building the agent needs stable Rust and nothing else. Beside it stands what it was made
//! from and with: a check that always works compares that with the sources, and where the compiler is, builds it once more.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::run::{repository, run as run_program, which};

/// The object, and the note of what it was made from.
const OBJECT: &str = "ebpf/object/distwatch.bpf.o";
const NOTE: &str = "ebpf/object/made-from.txt";

/// What the object depends on, besides the crates that it is linked with.
const SOURCES: [&str; 2] = ["ebpf/Cargo.toml", "ebpf/src"];

/// The crates that are linked into it, by the start of their names in `Cargo.lock`.
const LINKED: &str = "aya-ebpf";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Builds the object and the note beside it
    Build,
    /// Checks that the committed object belongs to the sources; builds it once more where that is possible
    Check {
        /// Fail where it cannot be built
        #[arg(long)]
        strict: bool,
    },
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match arguments.what {
        What::Build => build(),
        What::Check { strict } => check(strict),
    }
}

fn build() -> anyhow::Result<()> {
    let tools = Tools::find()?;
    let object = tools.build()?;
    fs::write(repository().join(OBJECT), &object)?;
    fs::write(repository().join(NOTE), Note::new(&object, tools.versions())?.text())?;
    eprintln!("wrote {OBJECT} ({} octets) and {NOTE}", object.len());
    Ok(())
}

/// The committed object is current.
pub(crate) fn check(strict: bool) -> anyhow::Result<()> {
    const REMEDY: &str = "`cargo xtask ebpf build` makes both anew";
    let object = fs::read(repository().join(OBJECT)).with_context(|| format!("cannot read {OBJECT}: {REMEDY}"))?;
    let note = fs::read_to_string(repository().join(NOTE)).with_context(|| format!("cannot read {NOTE}: {REMEDY}"))?;
    let noted = Note::parse(&note).with_context(|| format!("{NOTE} cannot be read: {REMEDY}"))?;
    let current = Note::new(&object, noted.versions.clone())?;
    if noted != current {
        bail!("{OBJECT} does not belong to the sources: {REMEDY}");
    }
    eprintln!("{OBJECT} belongs to the sources, by the hashes in {NOTE}");
    let tools = match Tools::find() {
        Ok(tools) => tools,
        Err(error) if strict => return Err(error),
        Err(error) => {
            eprintln!("*** NOT CHECKED: {OBJECT} was not built once more: {error:#}");
            return Ok(());
        }
    };
    let built = tools.build()?;
    if tools.versions() == noted.versions {
        if built != object {
            bail!("{OBJECT} is not what its sources and tools make: {REMEDY}");
        }
        eprintln!("{OBJECT} is, octet for octet, what its sources make");
        return Ok(());
    }
    // Another compiler makes other instructions of the same sources.
    let (names, committed) = (symbols(&built)?, symbols(&object)?);
    if names != committed {
        let difference: Vec<&String> = names.symmetric_difference(&committed).collect();
        bail!("{OBJECT} has other programs or maps than its sources: {difference:?}; {REMEDY}");
    }
    eprintln!(
        "{OBJECT} has the {} programs and maps of its sources (it was made with {}, and here is {}, so octets differ)",
        names.len(),
        noted.versions,
        tools.versions()
    );
    Ok(())
}

/// What an object was made from and with.
#[derive(PartialEq, Eq)]
struct Note {
    sources: String,
    object: String,
    versions: String,
}

impl Note {
    /// For the sources as they are now.
    fn new(object: &[u8], versions: String) -> anyhow::Result<Self> {
        Ok(Self { sources: hash_of_sources()?, object: hash(&[object]), versions })
    }

    fn text(&self) -> String {
        let Self { sources, object, versions } = self;
        format!("sources {sources}\nobject {object}\ntools {versions}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut after = |word| Some(lines.next()?.strip_prefix(word)?.trim().to_owned());
        Some(Self { sources: after("sources ")?, object: after("object ")?, versions: after("tools ")? })
    }
}

fn hash_of_sources() -> anyhow::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        let path = repository().join(source);
        if path.is_dir() {
            files.extend(
                fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?,
            );
        } else {
            files.push(path);
        }
    }
    files.sort();
    let mut parts = Vec::new();
    for file in files {
        let name = file.strip_prefix(repository())?.to_string_lossy().into_owned();
        parts.push(name.into_bytes());
        parts.push(fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    parts.push(linked(&fs::read_to_string(repository().join("Cargo.lock"))?).into_bytes());
    Ok(hash(&parts))
}

/// The names and versions of the crates that are linked into the object.
fn linked(lock: &str) -> String {
    let packages = lock.split("[[package]]").filter(|package| package.contains(&format!("name = \"{LINKED}")));
    let lines = packages.flat_map(str::lines).filter(|line| line.starts_with("name") || line.starts_with("version"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Each part with its length, so that none can be taken for another.
fn hash(parts: &[impl AsRef<[u8]>]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_ref().len().to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// A compiler that knows the target, with the source of its `core`, and the linker.
struct Tools {
    cargo: PathBuf,
    rustc: PathBuf,
    linker: PathBuf,
}

impl Tools {
    fn find() -> anyhow::Result<Self> {
        let linker = which("bpf-linker").context(
            "bpf-linker is missing: `LLVM_PREFIX=/usr/lib/llvm-22 cargo install --locked bpf-linker --no-default-features \
             --features llvm-22` installs it (after Debian's llvm-22-dev, libpolly-22-dev and libzstd-dev), \
             or `cargo xtask setup`",
        )?;
        // Debian's is the same on all machines, so what it makes can be compared.
        let debian = Self { cargo: "/usr/bin/cargo".into(), rustc: "/usr/bin/rustc".into(), linker: linker.clone() };
        if debian.has_sources() {
            return Ok(debian);
        }
        let nightly = |tool: &str| -> Option<PathBuf> {
            let output = Command::new("rustup").args(["which", "--toolchain", "nightly", tool]).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().into())
        };
        if let (Some(cargo), Some(rustc)) = (nightly("cargo"), nightly("rustc")) {
            let nightly = Self { cargo, rustc, linker };
            if nightly.has_sources() {
                return Ok(nightly);
            }
        }
        bail!(
            "no compiler with the sources of `core`: install Debian's rustc-web, cargo-web and rust-web-src (`cargo xtask \
             setup`), or `rustup toolchain install nightly --component rust-src`"
        )
    }

    fn has_sources(&self) -> bool {
        let printed = Command::new(&self.rustc).args(["--print", "sysroot"]).output();
        let sysroot = printed.ok().filter(|output| output.status.success());
        sysroot.is_some_and(|output| {
            let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").exists() && self.cargo.exists()
        })
    }

    /// What is in the note: the same tools make the same object.
    fn versions(&self) -> String {
        let version = |program: &Path| {
            let output = Command::new(program).arg("--version").output();
            output.map_or_else(|_| "?".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        format!("{}, {}", version(&self.rustc), version(&self.linker))
    }

    fn build(&self) -> anyhow::Result<Vec<u8>> {
        const TARGET: &str = "bpfel-unknown-none";
        let folder = repository().join("target/ebpf");
        let mut cargo = Command::new(&self.cargo);
        cargo.args(["build", "--release", "--locked", "-Zbuild-std=core", "--target", TARGET]);
        cargo.args(["--package", "distwatch-ebpf", "--features", "kernel", "--bin", "distwatch-ebpf"]);
        cargo.current_dir(repository());
        // What cargo and rustup set for this chore's own toolchain is not for that one.
        for variable in
            ["CARGO", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN", "RUSTC_WORKSPACE_WRAPPER", "CARGO_ENCODED_RUSTFLAGS"]
        {
            cargo.env_remove(variable);
        }
        cargo.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", &folder);
        // Lines are of no use in the kernel, and would carry this machine's paths.
        cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "false");
        cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker);
        cargo.env("RUSTFLAGS", format!("--remap-path-prefix={}=.", repository().display()));
        run_program(&mut cargo)?;
        let object = folder.join(TARGET).join("release/distwatch-ebpf");
        fs::read(&object).with_context(|| format!("cannot read {}", object.display()))
    }
}

/// The names of all global symbols of a 64-bit little-endian ELF object: its programs and maps.
fn symbols(object: &[u8]) -> anyhow::Result<BTreeSet<String>> {
    read_symbols(object).context("the object is not an ELF file as it should be")
}

fn read_symbols(object: &[u8]) -> Option<BTreeSet<String>> {
    const SYMBOL_TABLE: u64 = 2;
    const SECTION: usize = 64;
    const SYMBOL: usize = 24;
    let number = |at: usize, size: usize| -> Option<u64> {
        let octets = object.get(at..at.checked_add(size)?)?;
        Some(octets.iter().rev().fold(0, |number, &octet| number << 8 | u64::from(octet)))
    };
    let place = |at: usize| usize::try_from(number(at, 8)?).ok();
    let (sections, count) = (place(0x28)?, number(0x3C, 2)? as usize);
    let header = |index: usize| sections + index * SECTION;
    let mut names = BTreeSet::new();
    for table in (0..count).map(header) {
        if number(table + 4, 4)? != SYMBOL_TABLE {
            continue;
        }
        let (begin, size) = (place(table + 0x18)?, place(table + 0x20)?);
        let strings = place(header(number(table + 0x28, 4)? as usize) + 0x18)?;
        for symbol in (begin..begin + size).step_by(SYMBOL) {
            let is_global = number(symbol + 4, 1)? >> 4 == 1;
            let name = object.get(strings + number(symbol, 4)? as usize..)?.split(|&octet| octet == 0).next()?;
            if is_global {
                names.insert(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_goes_there_and_back() {
        let note = Note { sources: "a1".into(), object: "b2".into(), versions: "rustc 1, bpf-linker 2".into() };
        assert!(Note::parse(&note.text()).is_some_and(|read| read == note));
        assert!(Note::parse("sources a1\n").is_none());
    }

    #[test]
    fn only_the_crates_that_are_linked_count() {
        let lock = "[[package]]\nname = \"aya-ebpf\"\nversion = \"0.2.1\"\nsource = \"x\"\n\n\
            [[package]]\nname = \"aya\"\nversion = \"0.14.0\"\n";
        assert_eq!(linked(lock), "name = \"aya-ebpf\"\nversion = \"0.2.1\"");
    }

    #[test]
    fn the_committed_object_has_its_programs_and_maps() {
        let object = fs::read(repository().join(OBJECT)).unwrap();
        let names = symbols(&object).unwrap();
        for name in ["dw_receive", "dw_send", "dw_ether_in", "dw_raw_out", "dw_make", "dw_change", "PACKETS", "FLOWS"] {
            assert!(names.contains(name), "{name} is not among {names:?}");
        }
        for length in (0..object.len()).step_by(997) {
            let _ = read_symbols(&object[..length]);
        }
    }
}
