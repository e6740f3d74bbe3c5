//! `distwatch assets`: everything that is shipped beside the program, out of the program itself.
//!
//! The list here is the only one: what is in it is embedded when the program is built, and a test holds it against the
//! repository's folders.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use super::{Exit, Explain as _, print};
use crate::cli::AssetsCommand;

/// Something that is shipped.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Where it is, in the repository and below the folder that it is exported to.
    pub path: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// What is in it.
    pub content: &'static str,
}

macro_rules! embedded {
    ($($path:literal: $about:literal,)*) => {
        &[$(Asset { path: $path, about: $about, content: include_str!(concat!("../../../", $path)) }),*]
    };
}

/// All of them.
pub const ASSETS: &[Asset] = embedded! {
    "dashboards/compose.yaml": "distwatch with Prometheus, Alertmanager, Loki and Grafana on one host",
    "dashboards/distwatch.toml": "distwatch's configuration beside them",
    "dashboards/grafana/overview.json": "dashboard: posture at a glance",
    "dashboards/grafana/links.json": "dashboard: links and nodes",
    "dashboards/grafana/alerts.json": "dashboard: the alert feed, by Loki",
    "dashboards/grafana/sensor.json": "dashboard: the health of the sensors",
    "dashboards/grafana/provisioning/datasources/distwatch.yaml": "Grafana's data sources",
    "dashboards/grafana/provisioning/dashboards/distwatch.yaml": "where Grafana finds the dashboards",
    "dashboards/grafana/provisioning/alerting/distwatch.yaml": "alert rules for Grafana, in place of Prometheus's",
    "dashboards/prometheus/prometheus.yml": "Prometheus's configuration, with the scrape job",
    "dashboards/prometheus/recording.rules.yml": "recording rules for Prometheus",
    "dashboards/prometheus/alerting.rules.yml": "alerting rules for Prometheus",
    "dashboards/prometheus/recording.test.yml": "tests of the recording rules, for promtool",
    "dashboards/prometheus/alerting.test.yml": "tests of the alerting rules, for promtool",
    "dashboards/alertmanager/alertmanager.yml": "an example of Alertmanager's routes",
    "dashboards/alertmanager/templates/distwatch.tmpl": "an example of what messages say",
    "dashboards/loki/loki.yaml": "Loki's configuration on one host",
    "docs/schema/record.schema.json": "JSON Schema of a record",
    "docs/schema/report.schema.json": "JSON Schema of the report of `analyze`",
    "docs/schema/config.schema.json": "JSON Schema of the configuration",
    "packaging/distwatch.toml": "the default configuration: each key is explained, and nothing is set",
    "packaging/systemd/distwatch.service": "the unit for systemd",
    "packaging/container/Dockerfile": "the container's image, built from the repository",
    "packaging/container/Dockerfile.dockerignore": "what its build leaves out",
    "packaging/kubernetes/kustomization.yaml": "for Kubernetes: `kubectl apply -k`",
    "packaging/kubernetes/namespace.yaml": "for Kubernetes: the namespace",
    "packaging/kubernetes/serviceaccount.yaml": "for Kubernetes: an account without rights",
    "packaging/kubernetes/daemonset.yaml": "for Kubernetes: a sensor on every node, and what it may do",
    "packaging/kubernetes/distwatch.toml": "for Kubernetes: the configuration of every sensor",
};

/// Runs one of the commands.
///
/// # Errors
/// Standard output fails, a file is there already, or something cannot be written.
pub fn run(command: &AssetsCommand) -> anyhow::Result<Exit> {
    match command {
        AssetsCommand::List => print(|out| {
            let width = ASSETS.iter().map(|asset| asset.path.len()).max().unwrap_or(0);
            ASSETS.iter().try_for_each(|asset| writeln!(out, "{:width$}  {}", asset.path, asset.about))
        }),
        AssetsCommand::Export { directory, force } => {
            let written = export(directory, *force)?;
            print(|out| writeln!(out, "{}: {written} written, {} in all", directory.display(), ASSETS.len()))
        }
    }
}

/// Writes all of them below the folder; says how many were not there as they are. Either nothing is in the way, or nothing is
/// written; and no file is ever there by half.
fn export(directory: &Path, force: bool) -> anyhow::Result<usize> {
    let mut missing = Vec::new();
    let mut in_the_way = Vec::new();
    for asset in ASSETS {
        let path = directory.join(asset.path);
        match fs::read(&path) {
            Ok(found) if found == asset.content.as_bytes() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push((path, asset)),
            Ok(_) if force => missing.push((path, asset)),
            Ok(_) => in_the_way.push(path.display().to_string()),
            // Something above it is a file, it is a folder, or it may not be read.
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("{} cannot be written", path.display()))
                    .or_exit(Exit::Usage);
            }
        }
    }
    if !in_the_way.is_empty() {
        let list = in_the_way.join("\n  ");
        return Err(anyhow!("nothing was written, for these are there already, with other contents:\n  {list}"))
            .or_exit(Exit::Usage)
            .hint("export into an empty folder, or say --force to overwrite them");
    }
    for (path, asset) in &missing {
        write(path, asset.content).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(missing.len())
}

/// Beside its place first, and then into it.
fn write(path: &Path, content: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = Unfinished(folder.join(format!(".{name}.{}", std::process::id())));
    let mut file = File::create_new(&unfinished.0)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished.0, path)
}

/// Goes with whoever began it; once it is in its place there is nothing left to remove.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_kept_unless_told_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(export(folder.path(), false).unwrap(), ASSETS.len());
        assert_eq!(export(folder.path(), false).unwrap(), 0, "all is there as it is");

        let (changed, gone) = (folder.path().join(ASSETS[0].path), folder.path().join(ASSETS[1].path));
        fs::write(&changed, "mine").unwrap();
        fs::remove_file(&gone).unwrap();
        let error = format!("{:#}", export(folder.path(), false).unwrap_err());
        assert!(error.contains(ASSETS[0].path) && !error.contains(ASSETS[1].path), "{error}");
        assert_eq!(fs::read_to_string(&changed).unwrap(), "mine");
        assert!(!gone.exists(), "nothing is written where something is in the way");

        assert_eq!(export(folder.path(), true).unwrap(), 2);
        assert_eq!(fs::read_to_string(&changed).unwrap(), ASSETS[0].content);
    }

    #[test]
    fn a_folder_that_cannot_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("dashboards"), "a file").unwrap();
        let error = format!("{:#}", export(folder.path(), true).unwrap_err());
        assert!(error.contains(ASSETS[0].path) && error.contains("cannot be written"), "{error}");
    }
}
