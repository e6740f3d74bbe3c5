//! Runs commands and takes the operating system's own account of them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use wait4::Wait4;

/// A command line over a capture.
#[derive(Clone, Debug)]
pub(super) struct Run {
    program: String,
    arguments: Vec<String>,
}

impl Run {
    /// `program before… path after…`
    pub(super) fn new(program: &str, before: &[&str], path: &Path, after: &[&str]) -> Self {
        let mut arguments: Vec<String> = before.iter().map(|&word| word.to_owned()).collect();
        arguments.push(path.display().to_string());
        arguments.extend(after.iter().map(|&word| word.to_owned()));
        Self { program: program.to_owned(), arguments }
    }

    /// The release build of distwatch.
    pub(super) fn distwatch(before: &[&str], path: &Path) -> Self {
        Self::new("target/release/distwatch", before, path, &[])
    }

    /// Runs it once, by the operating system's own account of the finished process.
    fn once(&self) -> Result<Figures> {
        let begin = Instant::now();
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", self.program))?;
        let used = child.wait4()?;
        let wall = begin.elapsed().as_secs_f64();
        if !used.status.success() {
            bail!("{} {} ended with {}", self.program, self.arguments.join(" "), used.status);
        }
        let cpu = (used.rusage.utime + used.rusage.stime).as_secs_f64();
        Ok(Figures { cpu, wall, mebibytes: used.rusage.maxrss as f64 / (1 << 20) as f64 })
    }
}

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    cpu: f64,
    wall: f64,
    mebibytes: f64,
}

impl Figures {
    /// User and system time, in seconds.
    pub(super) fn cpu(&self) -> f64 {
        self.cpu
    }

    /// Time by the clock, in seconds.
    pub(super) fn wall(&self) -> f64 {
        self.wall
    }

    /// Largest resident size.
    pub(super) fn mebibytes(&self) -> f64 {
        self.mebibytes
    }
}

/// Several runs of one command.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs(Vec<Figures>);

impl Runs {
    /// The median of one figure.
    pub(super) fn median(&self, of: fn(&Figures) -> f64) -> f64 {
        median(self.0.iter().map(of).collect())
    }
}

/// Two commands run in turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs {
    /// The first one's runs.
    pub(super) ours: Runs,
    /// The second one's.
    pub(super) other: Runs,
}

impl Pairs {
    /// The ratio first / second pair by pair: minimum, median, maximum.
    pub(super) fn ratio(&self, of: fn(&Figures) -> f64) -> (f64, f64, f64) {
        let mut ratios: Vec<f64> = self.ours.0.iter().zip(&self.other.0).map(|(a, b)| of(a) / of(b)).collect();
        ratios.sort_by(f64::total_cmp);
        let (first, last) = (ratios.first().copied(), ratios.last().copied());
        (first.unwrap_or(f64::NAN), median(ratios), last.unwrap_or(f64::NAN))
    }
}

/// Runs two commands in turn, A B A B …, after one warm-up of each.
pub(super) fn pairs(rounds: usize, a: &Run, b: &Run) -> Result<Pairs> {
    let runs = several(rounds, &[a.clone(), b.clone()])?;
    let [ours, other] = <[Runs; 2]>::try_from(runs).map_err(|_| anyhow::anyhow!("a run is missing"))?;
    Ok(Pairs { ours, other })
}

/// Runs all commands in turn, so many rounds, after one warm-up of each.
pub(super) fn several(rounds: usize, commands: &[Run]) -> Result<Vec<Runs>> {
    let mut all = vec![Runs::default(); commands.len()];
    for round in 0..=rounds {
        for (runs, command) in all.iter_mut().zip(commands) {
            let figures = command.once()?;
            if round > 0 {
                runs.0.push(figures);
            }
        }
    }
    Ok(all)
}

/// The middle one.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.as_slice() {
        [] => f64::NAN,
        values if values.len() % 2 == 1 => values[middle],
        values => f64::midpoint(values[middle - 1], values[middle]),
    }
}
