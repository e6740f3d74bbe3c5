//! `cargo xtask bench`: figures as ratios of interleaved pairs, on real distribution traffic that it records itself.

mod faults;
mod live;
mod measure;
mod pcap;
mod record;
mod sinks;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use crate::run::cargo;
use measure::{Figures, Run};
use table::Table;

/// Packets of the part that tshark gets: enough to be out of its start-up, little enough to end.
const TSHARK_PACKETS: u64 = 400_000;

/// Speed and memory against the field's own tools.
#[derive(Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: Option<What>,
    /// Where recordings are kept between runs.
    #[arg(long, default_value = "bench-data", global = true)]
    data: PathBuf,
    /// Size of the recording, in megabytes.
    #[arg(long, default_value_t = 750, global = true)]
    megabytes: u64,
    /// Interleaved pairs of each comparison.
    #[arg(long, default_value_t = 5, global = true)]
    rounds: usize,
    /// How Suricata is started, where it is not on the path (`chroot DIR suricata`, say).
    #[arg(long, env = "BENCH_SURICATA", default_value = "suricata", global = true)]
    suricata: String,
    /// Write the table here as well.
    #[arg(long, global = true)]
    output: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// Two real nodes at full speed over veth, recorded by tcpdump (needs root).
    Record,
    /// `analyze` against tcpdump, Suricata and tshark; memory; linearity (the default).
    Analyze,
    /// Terms: the walker against eetf, erltf and `binary_to_term`.
    Etf,
    /// Ten thousand records a second through every kind of sink at once, without a daemon and with one (needs root).
    Sinks(sinks::Sinks),
    /// What each sink loses by each fault of its server.
    Faults(faults::Faults),
    /// Parts of the traffic of `sinks`.
    #[command(hide = true, subcommand)]
    Churn(sinks::churn::Churn),
    /// The daemon beside real nodes: what it costs, and how soon it tells (needs root).
    Live(live::Live),
}

/// Runs the wanted benchmark.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench.what.as_ref().unwrap_or(&What::Analyze) {
        What::Sinks(wanted) => sinks::run(wanted, bench.rounds, bench.output.as_deref()),
        What::Faults(faults) => faults::run(faults, bench.output.as_deref()),
        What::Churn(churn) => sinks::churn::run(churn),
        What::Record => recording(bench).map(|path| println!("{}", path.display())),
        What::Analyze => analyze(bench),
        What::Live(live) => live::run(live, bench.rounds, bench.output.as_deref()),
        What::Etf => {
            let status = cargo(&["run", "--release", "--manifest-path", "bench/Cargo.toml", "--", "etf"]).status()?;
            if status.success() { Ok(()) } else { bail!("the term benchmark ended with {status}") }
        }
    }
}

/// The recording, made if it is not there.
fn recording(bench: &Bench) -> Result<PathBuf> {
    std::fs::create_dir_all(&bench.data)?;
    let path = bench.data.join(format!("calls-{}mb.pcap", bench.megabytes));
    if !path.exists() {
        record::record(&path, bench.megabytes * 1_000_000).context("recording the traffic")?;
    }
    Ok(path)
}

fn analyze(bench: &Bench) -> Result<()> {
    build_release()?;
    let full = recording(bench)?;
    let derived = |name: &str, make: &dyn Fn(&Path, &Path) -> Result<()>| -> Result<PathBuf> {
        let path = bench.data.join(format!("{name}-{}mb.pcap", bench.megabytes));
        if !path.exists() {
            let unfinished = path.with_extension("part");
            make(&full, &unfinished)?;
            std::fs::rename(unfinished, &path)?;
        }
        Ok(path)
    };
    let tenth = derived("tenth", &|from, to| pcap::head_bytes(from, to, bench.megabytes * 100_000))?;
    let first = derived("first-packets", &|from, to| pcap::head_packets(from, to, TSHARK_PACKETS))?;
    let lossy = derived("loss-and-reordering", &pcap::disturb)?;
    let large = derived("repeated", &|from, to| pcap::repeat(from, to, 2_000_000_000))?;
    for path in [&full, &tenth, &first, &lossy, &large] {
        warm(path)?;
    }

    let mut table = Table::new(&full)?;
    let analyze = |path: &Path| Run::distwatch(&["analyze", "--format", "json"], path);
    let tcpdump = |path: &Path| Run::new("tcpdump", &["-nr"], path, &["-w", "/dev/null"]);

    let pair = measure::pairs(bench.rounds, &analyze(&full), &tcpdump(&full))?;
    table.ratio(
        "P1",
        "full decode, all rules, JSON: CPU against `tcpdump -r F -w /dev/null`",
        &pair,
        Figures::cpu,
        "<= 1.5",
    );
    table.ratio("P1", "the same: wall time", &pair, Figures::wall, "<= 1.0");

    match suricata(bench, &full) {
        Some(suricata) => {
            let pair = measure::pairs(bench.rounds.min(3), &analyze(&full), &suricata)?;
            table.ratio("P2", "the same: CPU against Suricata, rules off, single", &pair, Figures::cpu, "<= 0.5");
        }
        None => table.left_out("P2", "CPU against Suricata", "Suricata is not installed here"),
    }

    let port = pcap::busiest_port(&first)?;
    let tshark = Run::new(
        "tshark",
        &["-n", "-o", "tcp.reassemble_out_of_order:TRUE", "-d", &format!("tcp.port=={port},erldp"), "-r"],
        &first,
        &["-Y", "erldp", "-T", "fields", "-e", "frame.number", "-e", "erldp.type"],
    );
    let pair = measure::pairs(bench.rounds.min(2), &tshark, &analyze(&first))?;
    table.ratio(
        "P3",
        "`tshark -Y erldp -T fields`: CPU against full decode (first 400,000 packets)",
        &pair,
        Figures::cpu,
        ">= 100",
    );
    let every = Run::distwatch(&["analyze", "--format", "ndjson", "--messages"], &first);
    let pair = measure::pairs(bench.rounds.min(2), &tshark, &every)?;
    table.ratio("P4", "the same tshark: CPU against one NDJSON line per control message", &pair, Figures::cpu, ">= 30");

    let runs = measure::several(bench.rounds, &[analyze(&full), analyze(&tenth), analyze(&large), analyze(&lossy)])?;
    let [of_full, of_tenth, of_large, of_lossy] = runs.as_slice() else { bail!("a run is missing") };
    table.figure("P5", "peak memory of the whole file, MiB", of_full.median(Figures::mebibytes), "<= 32");
    table.figure("P5", "peak memory at 2 GB, MiB", of_large.median(Figures::mebibytes), "<= 32");
    table.figure(
        "P6",
        "wall time of the whole against a tenth of it",
        of_full.median(Figures::wall) / of_tenth.median(Figures::wall),
        "<= 11",
    );
    table.figure(
        "P6",
        "wall time with 1 % loss and 1 % reordering against the clean file",
        of_lossy.median(Figures::wall) / of_full.median(Figures::wall),
        "<= 1.3",
    );

    let text = table.render(bench.rounds);
    println!("{text}");
    if let Some(path) = &bench.output {
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn build_release() -> Result<()> {
    let status = cargo(&["build", "--release", "--package", "distwatch"]).status()?;
    if status.success() { Ok(()) } else { bail!("the release build failed") }
}

/// Reads a file once, so that all runs find it in the page cache.
fn warm(path: &Path) -> Result<()> {
    std::io::copy(&mut std::fs::File::open(path)?, &mut std::io::sink())?;
    Ok(())
}

fn suricata(bench: &Bench, path: &Path) -> Option<Run> {
    let mut words = bench.suricata.split_whitespace();
    let program = words.next()?;
    let mut before: Vec<&str> = words.collect();
    let found = Command::new(program).args(&before).arg("-V").output().is_ok_and(|out| out.status.success());
    if !found {
        return None;
    }
    let logs = "/tmp";
    before.extend(["-S", "/dev/null", "-l", logs, "--runmode=single", "-r"]);
    Some(Run::new(program, &before, path, &[]))
}
