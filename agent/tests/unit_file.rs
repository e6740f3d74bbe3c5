//! The unit file of systemd: it is read without a complaint, and exposes little.

use std::path::Path;
use std::process::Command;

/// In tenths, what `systemd-analyze security` may say at most.
const MOST_EXPOSURE: &str = "26";

#[test]
fn the_unit_is_valid_and_exposes_little() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("SKIPPED: the unit file: systemd-analyze is not installed (`cargo xtask setup` installs it)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let unit = std::fs::read_to_string(Path::new("../packaging/systemd/distwatch.service")).unwrap();
    // Installed, the program is elsewhere; systemd-analyze wants it to exist.
    let unit = unit.replace("/usr/bin/distwatch", env!("CARGO_BIN_EXE_distwatch"));
    let path = folder.path().join("distwatch.service");
    std::fs::write(&path, unit).unwrap();
    let path = path.to_str().unwrap();

    let verified = Command::new("systemd-analyze").args(["verify", "--man=no", path]).output().unwrap();
    // What it does not know it leaves out, and ends well.
    let said = String::from_utf8_lossy(&verified.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("distwatch")).collect();
    assert!(verified.status.success() && ours.is_empty(), "{said}");

    let threshold = format!("--threshold={MOST_EXPOSURE}");
    let security =
        Command::new("systemd-analyze").args(["security", "--offline=true", &threshold, path]).output().unwrap();
    let said = String::from_utf8_lossy(&security.stdout);
    assert!(security.status.success(), "{said}");
    assert!(said.contains("Overall exposure level for distwatch.service"), "{said}");
}

#[test]
fn the_unit_gives_the_capabilities_that_capture_asks_for() {
    let unit = std::fs::read_to_string(Path::new("../packaging/systemd/distwatch.service")).unwrap();
    for set in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
        let line = unit.lines().find_map(|line| line.strip_prefix(set)).unwrap();
        assert_eq!(line, "CAP_BPF CAP_PERFMON CAP_NET_ADMIN CAP_NET_RAW");
    }
}
