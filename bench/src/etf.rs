//! The term walker against the other decoders, in interleaved rounds.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use distwatch_engine::etf::{Cursor, Walker};
use distwatch_engine::wire::Reader;

/// Rounds; the medians are over these.
const ROUNDS: usize = 7;
/// Nesting allowed: as the engine has it by default.
const DEPTH: usize = 256;
/// What the script that makes corpora and times `binary_to_term` is called, beside this crate's manifest.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/etf.escript");

/// A decoder's name and one pass of it over all terms, in bytes accepted.
type Contender = (&'static str, fn(&[&[u8]]) -> Result<usize>);

const OURS: &[Contender] = &[("walker", walk), ("cursor skip", skip), ("cursor tokens", tokens)];
const OTHERS: &[Contender] = &[("eetf", eetf), ("erltf", erltf), ("erltf borrowed", erltf_borrowed)];

/// Times every corpus in `dir`, or in one that it makes.
pub fn run(dir: Option<&str>) -> Result<()> {
    let made = std::env::temp_dir().join("distwatch-bench-etf");
    let dir = match dir {
        Some(dir) => PathBuf::from(dir),
        None => {
            let status = Command::new("escript").args([SCRIPT, "make"]).arg(&made).status();
            ensure!(status.context("running escript")?.success(), "escript could not make the corpora");
            made
        }
    };
    let entries = std::fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "bin"));
    files.sort();
    for file in files {
        compare(&file).with_context(|| format!("comparing on {}", file.display()))?;
    }
    Ok(())
}

fn compare(file: &Path) -> Result<()> {
    let bytes = std::fs::read(file)?;
    let terms = split(&bytes)?;
    let len: usize = terms.iter().map(|term| term.len()).sum();
    println!("{}: {} terms, average {} B", file.display(), terms.len(), len / terms.len().max(1));

    let contenders: Vec<&Contender> = OURS.iter().chain(OTHERS).collect();
    let mut times = vec![Vec::new(); contenders.len()];
    let mut erl = Vec::new();
    for _ in 0..ROUNDS {
        for ((name, pass), times) in contenders.iter().zip(&mut times) {
            let start = Instant::now();
            let accepted = pass(&terms).with_context(|| format!("{name} refused a term"))?;
            times.push(start.elapsed());
            ensure!(accepted == len, "{name} read {accepted} of {len} octets");
        }
        erl.extend(binary_to_term(file));
    }

    let mut rates: Vec<(&str, f64)> =
        contenders.iter().zip(times).map(|((name, _), times)| (*name, rate(len, times))).collect();
    if !erl.is_empty() {
        rates.push(("binary_to_term", rate(len, erl)));
    }
    let (ours, others) = rates.split_at(OURS.len());
    let best = others.iter().map(|(_, rate)| *rate).fold(f64::MIN, f64::max);
    println!("{:>16} {:>8} {:>14}", "", "MB/s", "to best other");
    for (name, rate) in ours.iter().chain(others) {
        println!("{name:>16} {rate:>8.0} {:>14.2}", rate / best);
    }
    Ok(())
}

/// Megabytes a second at the median.
fn rate(len: usize, mut times: Vec<Duration>) -> f64 {
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or(Duration::MAX);
    len as f64 / 1e6 / median.as_secs_f64()
}

fn split(mut bytes: &[u8]) -> Result<Vec<&[u8]>> {
    let mut terms = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let (term, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize).context("the corpus is cut")?;
        terms.push(term);
        bytes = rest;
    }
    Ok(terms)
}

fn walk(terms: &[&[u8]]) -> Result<usize> {
    let mut walker = Walker::new(DEPTH, 0);
    let mut accepted = 0;
    for term in terms {
        walker.reset(0);
        let walked = walker.feed(&term[1..])?;
        ensure!(walked.complete, "incomplete");
        accepted += 1 + walked.consumed;
    }
    Ok(accepted)
}

fn skip(terms: &[&[u8]]) -> Result<usize> {
    let mut accepted = 0;
    for term in terms {
        let mut cursor = Cursor::new(Reader::new(&term[1..]), &[]);
        cursor.skip(DEPTH)?;
        accepted += 1 + cursor.reader.offset();
    }
    Ok(accepted)
}

fn tokens(terms: &[&[u8]]) -> Result<usize> {
    let mut accepted = 0;
    for term in terms {
        let mut cursor = Cursor::new(Reader::new(&term[1..]), &[]);
        while !cursor.reader.is_empty() {
            black_box(cursor.token()?);
        }
        accepted += term.len();
    }
    Ok(accepted)
}

fn eetf(terms: &[&[u8]]) -> Result<usize> {
    for &term in terms {
        black_box(eetf::Term::decode(term)?);
    }
    Ok(terms.iter().map(|term| term.len()).sum())
}

fn erltf(terms: &[&[u8]]) -> Result<usize> {
    for &term in terms {
        black_box(erltf::decode(term)?);
    }
    Ok(terms.iter().map(|term| term.len()).sum())
}

fn erltf_borrowed(terms: &[&[u8]]) -> Result<usize> {
    for &term in terms {
        black_box(erltf::decode_borrowed(term)?);
    }
    Ok(terms.iter().map(|term| term.len()).sum())
}

/// One pass of a real node; `None` where there is none.
fn binary_to_term(file: &Path) -> Option<Duration> {
    let output = Command::new("escript").args([SCRIPT, "time"]).arg(file).output().ok()?;
    Some(Duration::from_nanos(String::from_utf8(output.stdout).ok()?.trim().parse().ok()?))
}
