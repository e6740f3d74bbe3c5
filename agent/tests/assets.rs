//! `distwatch assets`: what comes out of the program is what is in the repository, all of it, and it works.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where files that are shipped are, and what below is not.
const FOLDERS: [&str; 3] = ["dashboards", "docs/schema", "packaging"];
const NOT_SHIPPED: [&str; 3] = ["dashboards/check", "packaging/deb", "packaging/rpm"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn distwatch(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_distwatch")).args(arguments).output().unwrap()
}

/// Exports into a folder.
fn exported() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let output = distwatch(&["assets", "export", folder.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}

/// Every file below, by its path.
fn files(top: &Path, folder: &str, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(top.join(folder)).unwrap() {
        let path = format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap());
        if NOT_SHIPPED.contains(&path.as_str()) {
            continue;
        }
        if top.join(&path).is_dir() {
            files(top, &path, found);
        } else {
            found.insert(path);
        }
    }
}

#[test]
fn everything_that_is_shipped_comes_out_as_it_is_in_the_repository() {
    let exported = exported();
    let (mut there, mut here) = (BTreeSet::new(), BTreeSet::new());
    for folder in FOLDERS {
        files(exported.path(), folder, &mut there);
        files(&repository(), folder, &mut here);
    }
    assert_eq!(there, here);
    for path in &here {
        let same =
            std::fs::read(exported.path().join(path)).unwrap() == std::fs::read(repository().join(path)).unwrap();
        assert!(same, "{path}");
    }
    let listed = distwatch(&["assets", "list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(
        listed.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect::<BTreeSet<_>>(),
        here
    );
}

#[test]
fn the_configurations_that_come_out_are_valid() {
    let exported = exported();
    for file in ["packaging/distwatch.toml", "dashboards/distwatch.toml", "packaging/kubernetes/distwatch.toml"] {
        let output = distwatch(&["config", "check", exported.path().join(file).to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn prometheus_takes_the_rules_that_come_out() {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("SKIPPED: the exported rules: promtool is not installed (`cargo xtask setup` installs it)");
        return;
    }
    let exported = exported();
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "rules", "recording.rules.yml", "alerting.rules.yml"]);
    let output = promtool.current_dir(exported.path().join("dashboards/prometheus")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_there_already_is_not_overwritten_unless_told_so() {
    let exported = exported();
    let folder = exported.path().to_str().unwrap();
    let changed = exported.path().join("packaging/distwatch.toml");
    std::fs::write(&changed, "# mine\n").unwrap();

    let refused = distwatch(&["assets", "export", folder]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("packaging/distwatch.toml") && said.contains("--force"), "{said}");
    assert_eq!(std::fs::read_to_string(&changed).unwrap(), "# mine\n");

    assert!(distwatch(&["assets", "export", "--force", folder]).status.success());
    assert!(std::fs::read_to_string(&changed).unwrap().contains("[network]"));
}
