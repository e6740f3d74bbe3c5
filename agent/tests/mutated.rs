//! Ten thousand damaged captures: bits turned, ends cut, lengths that lie, pieces moved. Each is read to its end without a
//! panic and prints a report; how long they take against whole ones is printed.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use distwatch::pipeline;
use distwatch::report::{Report, json};
use distwatch::source::pcap_file::{CaptureFile, Timeline};
use distwatch_engine::analysis::{Analysis, Silent};
use distwatch_engine::policy::Policy;

/// How many, spread over all shipped captures.
const MUTATIONS: u64 = 10_000;

/// The whole capture is timed once for so many damaged ones.
const SAMPLE: u64 = 8;

#[test]
fn ten_thousand_damaged_captures_are_read_to_their_ends() {
    let captures = captures();
    let each = MUTATIONS / captures.len() as u64 + 1;
    let (mut damaged, mut clean, mut mutations) = (0_u64, Duration::ZERO, Duration::ZERO);
    for (place, (path, bytes)) in captures.iter().enumerate() {
        for round in 0..each {
            let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (place as u64) << 32 ^ round);
            let mutated = mutate(bytes, &captures, &mut random);
            // In between, so that whatever else the machine does slows both.
            if round % SAMPLE == 0 {
                clean += timed(path, bytes.clone()).1 * SAMPLE as u32;
            }
            let (report, took) = timed(path, mutated);
            mutations += took;
            damaged +=
                u64::from(report.is_none_or(|report| report.captures.iter().any(|capture| capture.damaged.is_some())));
        }
    }
    // A figure to be read, not a test: what else the machine does must not fail one.
    let ratio = mutations.as_secs_f64() / clean.as_secs_f64();
    println!("{damaged} were seen to be damaged; they took {ratio:.2} times as long as whole ones");
    assert!(damaged > MUTATIONS / 20, "only {damaged} of the mutations reached the file format");
}

/// Reads a capture from memory; `None` where it is no capture any more.
fn timed(path: &Path, bytes: Vec<u8>) -> (Option<Report>, Duration) {
    let begin = Instant::now();
    let Ok(file) = CaptureFile::from_reader(path, Cursor::new(bytes)) else { return (None, begin.elapsed()) };
    let mut timeline = Timeline::new(vec![file]);
    let mut analysis = Analysis::new(&Policy::default());
    pipeline::run(&mut timeline, &mut analysis, &mut Silent, |_| {});
    let report = pipeline::report(&timeline, &analysis);
    json::write(&report, &mut std::io::sink(), false).expect("a report can always be printed");
    (Some(report), begin.elapsed())
}

fn captures() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("tests/captures").flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pcap" || extension == "pcapng"));
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let bytes = std::fs::read(&path).expect("a capture");
            (path, bytes)
        })
        .collect()
}

/// A fixed sequence (xorshift), so that a failure can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

fn mutate(bytes: &[u8], others: &[(PathBuf, Vec<u8>)], random: &mut Random) -> Vec<u8> {
    let mut mutated = bytes.to_vec();
    match random.below(5) {
        0 => {
            for _ in 0..=random.below(64) {
                let at = random.below(mutated.len());
                mutated[at] ^= 1 << random.below(8);
            }
        }
        1 => mutated.truncate(random.below(bytes.len())),
        2 => {
            const LIES: [[u8; 4]; 6] =
                [[0; 4], [0xff; 4], [0x7f, 0xff, 0xff, 0xff], [0, 0, 0xff, 0xff], [0xff, 0xff, 0, 0], [0, 1, 0, 1]];
            for _ in 0..=random.below(16) {
                let at = random.below(mutated.len().saturating_sub(4));
                mutated[at..at + 4].copy_from_slice(&LIES[random.below(LIES.len())]);
            }
        }
        3 => {
            let (_, other) = &others[random.below(others.len())];
            let from = random.below(other.len());
            let piece = &other[from..(from + random.below(4096)).min(other.len())];
            let at = random.below(mutated.len());
            mutated.splice(at..at, piece.iter().copied());
        }
        _ => {
            let from = random.below(mutated.len());
            let to = (from + random.below(4096)).min(mutated.len());
            mutated.drain(from..to);
        }
    }
    mutated
}
