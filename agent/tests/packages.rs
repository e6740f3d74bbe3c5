//! Packages, image and manifests say the same of what distwatch may do, where it answers, and which version it is.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words after what a line begins with, in its first place in the file.
fn words_after<'a>(text: &'a str, start: &str) -> BTreeSet<&'a str> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(start));
    let line = line.unwrap_or_else(|| panic!("no line begins with {start}"));
    line.split(|it: char| !it.is_alphanumeric() && it != '_').filter(|word| !word.is_empty()).collect()
}

#[test]
fn everything_gives_the_same_capabilities_and_the_page_explains_each() {
    let unit = read("packaging/systemd/distwatch.service");
    let unit: BTreeSet<&str> = words_after(&unit, "CapabilityBoundingSet=");
    let unit: BTreeSet<&str> = unit.iter().filter_map(|name| name.strip_prefix("CAP_")).collect();
    assert_eq!(unit.len(), 4);

    assert_eq!(words_after(&read("dashboards/compose.yaml"), "cap_add: "), unit);

    let manifest = read("packaging/kubernetes/daemonset.yaml");
    let (_, added) = manifest.split_once("              add:\n").unwrap();
    let added: BTreeSet<&str> = added
        .lines()
        .take_while(|line| line.starts_with("                "))
        .filter_map(|line| line.trim().strip_prefix("- "))
        .collect();
    assert_eq!(added, unit);
    assert!(manifest.contains("drop: [ALL]"));

    let page = read("docs/packages.md");
    let explained: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `CAP_")?.split('`').next()).collect();
    assert_eq!(explained, unit);
    let run: BTreeSet<&str> =
        page.split("--cap-add ").skip(1).filter_map(|part| part.split_whitespace().next()).collect();
    assert_eq!(run, unit);
}

#[test]
fn probes_and_scrapes_ask_where_the_daemon_answers() {
    let contract = read("docs/contract.md");
    let manifest = read("packaging/kubernetes/daemonset.yaml");
    assert!(contract.contains("`/readyz`") && manifest.contains("path: /readyz\n"));
    let (_, address) = contract.split_once("## HTTP (the daemon; ").unwrap();
    let address = address.split(' ').next().unwrap();
    let (host, port) = address.split_once(':').unwrap();
    assert_eq!(manifest.matches("httpGet:").count(), 1);
    assert_eq!(manifest.matches(&format!("host: {host}\n")).count(), 1);
    assert_eq!(manifest.matches(&format!("port: {port}\n")).count(), 1);
    assert!(read("dashboards/prometheus/prometheus.yml").contains(&format!("'{address}'")));
}

/// The commands that say whether a daemon in a container is well: the words after the program's own name.
fn health_checks() -> Vec<Vec<String>> {
    let manifest = read("packaging/kubernetes/daemonset.yaml");
    let probes = manifest.lines().filter_map(|line| line.trim().strip_prefix("command: "));
    let image = read("packaging/container/Dockerfile");
    let (_, check) = image.split_once("HEALTHCHECK ").unwrap();
    let check = check.lines().find_map(|line| line.trim().strip_prefix("CMD ")).unwrap();
    let words = |list: &str| {
        let list = list.trim_start_matches('[').trim_end_matches(']');
        list.split(", ").map(|word| word.trim_matches('"').to_owned()).collect::<Vec<_>>()
    };
    let checks: Vec<Vec<String>> = probes.chain([check]).map(words).collect();
    assert_eq!(checks.len(), 3, "liveness, start-up, and the image's own");
    checks
        .into_iter()
        .map(|check| {
            assert_eq!(check[0], "/usr/bin/distwatch");
            check[1..].to_vec()
        })
        .collect()
}

#[test]
fn health_checks_ask_the_socket_that_the_daemon_has_whatever_the_configuration_says_now() {
    let socket = read("packaging/distwatch.toml");
    let socket = socket.lines().find_map(|line| line.strip_prefix("#socket = ")).unwrap().trim_matches('"');
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    // A configuration that somebody is about to mend.
    let broken = folder.path().join("distwatch.toml");
    std::fs::write(&broken, "[http\n").unwrap();
    let asked = |check: &[String]| {
        assert_eq!(check.iter().filter(|word| *word == socket).count(), 1, "{check:?}");
        let words = check.iter().map(|word| if word == socket { path.to_str().unwrap() } else { word });
        let mut command = Command::new(env!("CARGO_BIN_EXE_distwatch"));
        command.args(words).env("DISTWATCH_CONFIG", &broken).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().code()
    };
    for check in health_checks() {
        let _ = std::fs::remove_file(&path);
        assert_eq!(asked(&check), Some(3), "nobody is there");
        let listener = UnixListener::bind(&path).unwrap();
        let answers = ["", "{\"state\":\"capturing\"}\n"];
        let daemon = std::thread::spawn(move || {
            for answer in answers {
                listener.accept().unwrap().0.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert_eq!(asked(&check), Some(3), "the daemon's capture thread does not answer it");
        assert_eq!(asked(&check), Some(0), "it does");
        daemon.join().unwrap();
    }
}

#[test]
fn the_version_is_the_same_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    for (path, text) in [
        ("dashboards/compose.yaml", format!("image: distwatch:{version}\n")),
        ("packaging/kubernetes/kustomization.yaml", format!("newTag: {version}\n")),
        ("packaging/container/Dockerfile", format!("-t distwatch:{version} .")),
        ("docs/packages.md", format!("`distwatch_{version}-1_amd64.deb`")),
        ("docs/grafana.md", format!("-t distwatch:{version} .")),
    ] {
        assert!(read(path).contains(&text), "{path} does not have {text:?}");
    }
    assert!(read("packaging/deb/changelog").starts_with(&format!("distwatch ({version}-1) ")));
}

#[test]
fn the_image_is_built_by_the_compiler_that_the_program_asks_for() {
    let compiler = env!("CARGO_PKG_RUST_VERSION");
    assert!(read("packaging/container/Dockerfile").contains(&format!("FROM rust:{compiler}-")));
}

#[test]
fn what_manifests_refer_to_is_beside_them() {
    for (folder, file, least) in [("dashboards", "compose.yaml", 7), ("packaging/kubernetes", "kustomization.yaml", 4)]
    {
        let text = read(&format!("{folder}/{file}"));
        let entries = text.lines().filter_map(|line| line.trim().strip_prefix("- ")?.split(':').next());
        let paths = entries
            .filter(|entry| entry.starts_with("./") || [".yaml", ".toml"].iter().any(|ending| entry.ends_with(ending)));
        let mut count = 0;
        for path in paths {
            let there = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder).join(path).exists();
            assert!(there, "{folder}/{file}: {path} is not there");
            count += 1;
        }
        assert!(count >= least, "{file}: {count}");
    }
}
