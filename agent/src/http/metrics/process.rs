//! What the process costs, under the names that all exporters use; from `/proc`, which the sandbox leaves open.

use distwatch_engine::time::Timestamp;

use super::exposition::{Exposition, Family, Kind};

const CPU: Family =
    Family { name: "process_cpu_seconds", kind: Kind::Counter, unit: "seconds", help: "Processor time." };
const MEMORY: Family =
    Family { name: "process_resident_memory_bytes", kind: Kind::Gauge, unit: "bytes", help: "Resident memory." };
const FILES: Family = Family { name: "process_open_fds", kind: Kind::Gauge, unit: "", help: "Open file descriptors." };
const STARTED: Family = Family {
    name: "process_start_time_seconds",
    kind: Kind::Gauge,
    unit: "seconds",
    help: "When the process began to capture.",
};

/// Adds what can be read.
pub(super) fn add(started: Timestamp, out: &mut Exposition) {
    out.family(&STARTED, |series| series.add(&[], super::seconds(started)));
    if let Some(Usage { cpu_seconds, resident_bytes }) = usage() {
        out.family(&CPU, |series| series.add(&[], cpu_seconds));
        out.family(&MEMORY, |series| series.add(&[], resident_bytes));
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the folder's own.
        out.family(&FILES, |series| series.add(&[], files.count().saturating_sub(1)));
    }
}

struct Usage {
    cpu_seconds: f64,
    resident_bytes: u64,
}

fn usage() -> Option<Usage> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may have spaces in it; fields are counted from behind it (proc_pid_stat(5), from 3 on).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = number(14)?.saturating_add(number(15)?);
    let resident = number(24)?.saturating_mul(rustix::param::page_size() as u64);
    Some(Usage { cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64, resident_bytes: resident })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_memory_and_has_used_its_time() {
        let usage = usage().unwrap();
        assert!((1 << 20..1 << 40).contains(&usage.resident_bytes));
        assert!((0.0..1e6).contains(&usage.cpu_seconds));
    }
}
