//! The metrics as Prometheus' own programs read them.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::harness::{Bench, ask, connect, eventually, picture};

/// As Prometheus asks.
const OPEN_METRICS: &str =
    "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: metrics as {program} reads them: it is not installed (`cargo xtask setup` does it)");
    }
    found
}

#[test]
fn each_format_is_what_its_name_says() {
    let bench = Bench::with(picture(3));
    let old = bench.get("/metrics", &[]);
    assert_eq!(old.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let new = bench.get("/metrics", &[OPEN_METRICS]);
    assert_eq!(new.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(new.text().ends_with("\n# EOF\n") && !old.text().contains("# EOF"));
    // The same series in both, whatever is said of them.
    let names = |text: &str| -> Vec<String> {
        let series = text.lines().filter(|line| !line.starts_with('#'));
        series.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned()).collect()
    };
    assert_eq!(names(&old.text()), names(&new.text()));
    assert!(names(&old.text()).len() > 60);
}

#[test]
fn promtool_has_nothing_to_say_of_either_format() {
    if !is_there("promtool") {
        return;
    }
    let bench = Bench::with(picture(3));
    for accept in ["Accept: text/plain", OPEN_METRICS] {
        let text = bench.get("/metrics", &[accept]).text();
        // It reads the older format alone, where names are those of the series.
        let text = if accept == OPEN_METRICS { as_older(&text) } else { text };
        let mut child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && said.is_empty(), "{accept}: {}\n{text}", String::from_utf8_lossy(&said));
    }
}

/// What OpenMetrics says of families, said of series.
fn as_older(text: &str) -> String {
    let mut older = String::new();
    let kind = |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")));
    for line in text.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        if let (Some("#"), Some(what), Some(name), Some(rest)) =
            (words.next(), words.next(), words.next(), words.next())
        {
            let (suffix, rest) = match (kind(name), what) {
                (Some("counter"), _) => ("_total", rest),
                (Some("info"), "TYPE") => ("_info", "gauge"),
                (Some("info"), _) => ("_info", rest),
                _ => ("", rest),
            };
            older += &format!("# {what} {name}{suffix} {rest}\n");
        } else {
            older += &format!("{line}\n");
        }
    }
    older
}

/// A server that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn prometheus_itself_scrapes_all_of_it() {
    if !is_there("prometheus") {
        return;
    }
    let bench = Bench::with(picture(3));
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("prometheus.yml");
    let text = format!(
        "scrape_configs:\n  - job_name: distwatch\n    scrape_interval: 1s\n    scrape_timeout: 1s\n    static_configs:\n      \
         - targets: [\"{}\"]\n",
        bench.address()
    );
    fs::write(&config, text).unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _running = Running(prometheus);
    eventually("prometheus answers", || std::net::TcpStream::connect(address).is_ok());
    let value = |query: &str| -> Option<String> {
        let answer = ask(connect(address), "GET", &format!("/api/v1/query?query={query}"), &[]);
        let answer: Value = serde_json::from_slice(&answer.body).ok()?;
        Some(answer.pointer("/data/result/0/value/1")?.as_str()?.to_owned())
    };
    eventually("it has scraped", || value("up").as_deref() == Some("1"));
    let scraped: u64 = value("scrape_samples_scraped").unwrap().parse().unwrap();
    let series = bench.get("/metrics", &[OPEN_METRICS]).text().lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(scraped, series as u64, "it takes every series");
    assert_eq!(value("distwatch_packets_total").as_deref(), Some("10"));
    assert_eq!(value("distwatch_build_info").as_deref(), Some("1"));
    eventually("it knows the unit", || {
        let answer = ask(connect(address), "GET", "/api/v1/metadata?metric=distwatch_bytes", &[]);
        answer.text().contains("\"unit\":\"bytes\"") && answer.text().contains("\"type\":\"counter\"")
    });
}
