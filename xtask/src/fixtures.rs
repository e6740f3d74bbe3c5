//! `fixtures`: the captures in `tests/captures` are the ones that were recorded, byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::run::repository;

/// The list of checksums, in the form of `sha256sum`.
const MANIFEST: &str = "SHA256SUMS";
/// Endings of what was recorded; all else in the folder is text of ours.
const RECORDED: [&str; 4] = [".pcap", ".pcapng", ".pcap.gz", ".truth.json"];
/// What all captures may weigh together: a clone must stay quick.
const MOST_BYTES: u64 = 5_000_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail where a file differs from the list, is missing in it, or is missing
    #[arg(long)]
    pub(crate) check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = repository().join("tests/captures");
    let found = checksums(&folder)?;
    let manifest = folder.join(MANIFEST);
    if !arguments.check {
        let lines: String = found.iter().map(|(name, checksum)| format!("{checksum}  {name}\n")).collect();
        fs::write(&manifest, lines)?;
        eprintln!("fixtures: {} files listed", found.len());
        return Ok(());
    }
    let listed = fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    let listed: BTreeMap<String, String> = listed
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(checksum, name)| (name.to_owned(), checksum.to_owned()))
        .collect();
    let names: std::collections::BTreeSet<&String> = found.keys().chain(listed.keys()).collect();
    let differing: Vec<String> = names
        .into_iter()
        .filter_map(|name| match (found.get(name), listed.get(name)) {
            (Some(is), Some(was)) if is == was => None,
            (Some(_), Some(_)) => Some(format!("{name} is not what was recorded")),
            (Some(_), None) => Some(format!("{name} is not listed")),
            (None, _) => Some(format!("{name} is listed and not there")),
        })
        .collect();
    if !differing.is_empty() {
        bail!(
            "tests/captures differs from its {MANIFEST} (`cargo xtask fixtures` writes it):\n  {}",
            differing.join("\n  ")
        );
    }
    Ok(())
}

fn checksums(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut checksums = BTreeMap::new();
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if RECORDED.iter().any(|ending| name.ends_with(ending)) {
            let content = fs::read(entry.path())?;
            bytes += content.len() as u64;
            let digest = Sha256::digest(&content);
            checksums.insert(name, digest.iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }
    if bytes > MOST_BYTES {
        bail!("the captures weigh {bytes} bytes together; more than {MOST_BYTES} make a clone slow");
    }
    Ok(checksums)
}
