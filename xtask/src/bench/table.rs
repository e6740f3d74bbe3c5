//! The table of figures, as Markdown.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use super::measure::{Figures, Pairs};
use super::pcap;

/// Rows so far.
pub(super) struct Table {
    about: String,
    rows: Vec<[String; 5]>,
}

impl Table {
    /// A table about one recording.
    pub(super) fn new(path: &Path) -> Result<Self> {
        let (packets, bytes, first, last) = pcap::summary(path)?;
        let about = format!(
            "{:.1} MB, {packets} packets, {:.1} s of traffic between two OTP nodes",
            bytes as f64 / 1e6,
            last.saturating_sub(first) as f64 / 1e9
        );
        Ok(Self { about, rows: Vec::new() })
    }

    /// A table about something else.
    pub(super) fn about(about: String) -> Self {
        Self { about, rows: Vec::new() }
    }

    /// Ratios that were taken round by round: their median, the least and the most.
    pub(super) fn ratios(&mut self, id: &str, what: &str, ratios: &[f64], goal: &str, absolute: String) {
        let least = ratios.iter().copied().fold(f64::NAN, f64::min);
        let most = ratios.iter().copied().fold(f64::NAN, f64::max);
        let median = super::measure::median(ratios.to_vec());
        let measured = format!("**{median:.3}** ({least:.3} to {most:.3})");
        self.rows.push([id.into(), what.into(), measured, goal.into(), absolute]);
    }

    /// The rows alone.
    pub(super) fn rows(&self) -> String {
        let mut text =
            String::from("| goal | what | measured | wanted | absolute |\n| --- | --- | --- | --- | --- |\n");
        for row in &self.rows {
            _ = writeln!(text, "| {} |", row.join(" | "));
        }
        format!("{}\n\n{text}", self.about)
    }

    /// A ratio of interleaved pairs.
    pub(super) fn ratio(&mut self, id: &str, what: &str, pairs: &Pairs, of: fn(&Figures) -> f64, goal: &str) {
        let (least, median, most) = pairs.ratio(of);
        let absolute = format!("{:.2} / {:.2}", pairs.ours.median(of), pairs.other.median(of));
        self.rows.push([
            id.into(),
            what.into(),
            format!("**{median:.2}** ({least:.2} to {most:.2})"),
            goal.into(),
            absolute,
        ]);
    }

    /// A single figure.
    pub(super) fn figure(&mut self, id: &str, what: &str, value: f64, goal: &str) {
        self.rows.push([id.into(), what.into(), format!("**{value:.2}**"), goal.into(), String::new()]);
    }

    /// What could not be measured here.
    pub(super) fn left_out(&mut self, id: &str, what: &str, why: &str) {
        self.rows.push([id.into(), what.into(), format!("not measured: {why}"), String::new(), String::new()]);
    }

    /// The text.
    pub(super) fn render(&self, rounds: usize) -> String {
        let mut text = format!(
            "Recording: {}. Each ratio is the median of up to {rounds} interleaved pairs after a warm-up, with the least and the \
             most behind it; the absolute figures are of that run and that machine.\n\n\
             | goal | what | measured | wanted | absolute (first / second) |\n| --- | --- | --- | --- | --- |\n",
            self.about
        );
        for row in &self.rows {
            _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }
}
