//! `cargo xtask bench live`: what the daemon costs beside real nodes, and how soon it tells.
//!
//! All costs are ratios of runs that alternate between two nodes on two hosts joined by veth: without a monitor, with ours, with
//! tcpdump, with libpcap's bare loop. CPU is that of both hosts, of whatever watches, and of the kernel's ksoftirqd.

mod cost;
mod endurance;
mod flaps;
mod moments;
mod soak;
mod tap;

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::table::Table;

/// The daemon beside real nodes.
#[derive(Args)]
pub(super) struct Live {
    /// Only these parts (all where none is named).
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Volume of a run over TLS, in megabytes; ten times as much is sent once.
    #[arg(long, default_value_t = 200)]
    volume: u64,
    /// Seconds of a run of calls in clear.
    #[arg(long, default_value_t = 3)]
    call_seconds: u64,
    /// Seconds of idleness (the goal is stated for 60).
    #[arg(long, default_value_t = 10)]
    idle_seconds: u64,
    /// Links that are open while memory is looked at (the goal is stated for 10,000).
    #[arg(long, default_value_t = 1000)]
    links: u32,
    /// Handshakes of the latency figure.
    #[arg(long, default_value_t = 200)]
    handshakes: usize,
    /// How often the daemon is killed under load (the goal is stated for 100).
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// How often the policy is reloaded under load, one in ten of them invalid (the goal is stated for 100).
    #[arg(long, default_value_t = 20)]
    reloads: usize,
    /// Seconds of overload (the goal is stated for 60).
    #[arg(long, default_value_t = 10)]
    overload_seconds: u64,
    /// How often an interface flaps (the goal is stated for 100).
    #[arg(long, default_value_t = 10)]
    flaps: usize,
    /// Seconds of calls and connections that come and go (the goal is stated for an hour).
    #[arg(long, default_value_t = 60)]
    soak_seconds: u64,
}

/// What can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// TLS distribution, cut off in the kernel.
    Tls,
    /// Calls in clear, decoded and judged.
    Clear,
    /// A host on which nothing happens; start; memory.
    Idle,
    /// From the handshake's last octet to the alert.
    Latency,
    /// Killed again and again.
    Kills,
    /// Reloads under load, one in ten of them invalid.
    Reloads,
    /// Twice the rate that it can take.
    Overload,
    /// An interface that flaps beside a link that stays.
    Flaps,
    /// A long time: what grows.
    Soak,
}

/// Measures, prints the table, and writes it where it is wanted.
pub(super) fn run(live: &Live, rounds: usize, output: Option<&Path>) -> Result<()> {
    if !e2e::live::possible("bench live") {
        bail!("this machine cannot do it");
    }
    // Built before anything is measured.
    e2e::program();
    let wanted = |part| live.only.is_empty() || live.only.contains(&part);
    let mut table = Table::about(format!(
        "Ratios are taken round by round ({rounds} rounds, all methods in turn): the median, with the least and the most behind it."
    ));
    if wanted(Part::Tls) {
        cost::tls(&mut table, rounds, live.volume)?;
    }
    if wanted(Part::Clear) {
        cost::clear(&mut table, rounds, live.call_seconds)?;
        cost::bulk(&mut table, rounds, live.volume)?;
    }
    if wanted(Part::Idle) {
        moments::idle(&mut table, rounds, live.idle_seconds);
        moments::links(&mut table, live.links);
    }
    if wanted(Part::Latency) {
        moments::latency(&mut table, live.handshakes);
    }
    if wanted(Part::Kills) {
        endurance::kills(&mut table, live.kills);
    }
    if wanted(Part::Reloads) {
        endurance::reloads(&mut table, live.reloads);
    }
    if wanted(Part::Overload) {
        endurance::overload(&mut table, live.overload_seconds)?;
    }
    if wanted(Part::Flaps) {
        flaps::flaps(&mut table, live.flaps);
    }
    if wanted(Part::Soak) {
        soak::soak(&mut table, live.soak_seconds);
    }
    let text = table.rows();
    println!("{text}");
    if let Some(path) = output {
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
