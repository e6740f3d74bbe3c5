//! `distwatch analyze`: captures in, a report out.

use std::io::{self, BufWriter, IsTerminal, Write};

use anyhow::{Context, Result};
use distwatch_engine::analysis::{Analysis, Listener, Silent};
use distwatch_engine::event::Event;
use distwatch_engine::model::{Alert, Severity};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::{AnalyzeArgs, Format, Globals, Graph};
use crate::cmd::{Exit, Explain as _};
use crate::pipeline;
use crate::report::{Report, graph, json, ndjson, text};
use crate::source::pcap_file::{OpenError, Progress, Timeline};

/// What stands in the `host` field of records: the capture says nothing of where it was made, and the same capture
/// must give the same output everywhere.
const HOST: &str = "capture";

/// Files below this size are read before a bar could be drawn.
const BAR_FROM: u64 = 32 << 20;

/// Runs the command.
///
/// # Errors
/// Where the policy has mistakes, a file cannot be opened, or the output cannot be written.
pub fn run(args: &AnalyzeArgs, globals: &Globals) -> Result<Exit> {
    let policy = args.load()?.config.policy;
    let mut timeline = match Timeline::open(&args.captures) {
        Err(error @ OpenError::Damaged { .. }) => Err(error).or_exit(Exit::Damaged),
        opened => opened.map_err(anyhow::Error::from),
    }
    .context("reading the captures")?;
    let mut analysis = Analysis::new(&policy);
    let output = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    if args.graph.is_none() && args.format == Format::Ndjson {
        if args.messages {
            analysis.engine.tell_every_message();
        }
        write_records(&mut timeline, &mut analysis, output)
    } else {
        read(&mut timeline, &mut analysis, &mut Silent);
        write_report(&pipeline::report(&timeline, &analysis), args, globals, output)
    }
    .context("writing the report to standard output")?;
    Ok(exit(&timeline, &analysis, args.fail_on))
}

fn exit(timeline: &Timeline, analysis: &Analysis, fail_on: Option<Severity>) -> Exit {
    let mut damaged = false;
    for file in timeline.files() {
        if let Some(damage) = file.summary().damaged {
            damaged = true;
            eprintln!("warning: {}: {damage}; everything before it is in the report", file.path().display());
        }
    }
    if damaged {
        return Exit::Damaged;
    }
    let worst = analysis.judge.alerts().iter().map(|alert| alert.severity).max();
    match (worst, fail_on) {
        (Some(worst), Some(limit)) if worst >= limit => Exit::Findings,
        _ => Exit::Done,
    }
}

fn read(timeline: &mut Timeline, analysis: &mut Analysis, listener: &mut impl Listener) {
    let bar = bar(timeline);
    pipeline::run(timeline, analysis, listener, |progress| {
        if let Some(bar) = &bar {
            bar.set_position(progress.read);
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// A bar for long files on a terminal, none elsewhere.
fn bar(timeline: &Timeline) -> Option<ProgressBar> {
    let Progress { total, .. } = timeline.progress();
    if !io::stderr().is_terminal() || total.is_some_and(|total| total < BAR_FROM) {
        return None;
    }
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{bar:40} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {bytes_per_sec}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    Some(bar)
}

fn write_report(report: &Report, args: &AnalyzeArgs, globals: &Globals, mut output: impl Write) -> io::Result<()> {
    match (args.graph, args.format) {
        (Some(Graph::Dot), _) => graph::write(report, graph::Language::Dot, &mut output)?,
        (Some(Graph::Mermaid), _) => graph::write(report, graph::Language::Mermaid, &mut output)?,
        (None, Format::Json) => json::write(report, &mut output, io::stdout().is_terminal())?,
        (None, Format::Text | Format::Ndjson) => text::write(report, text_options(globals), &mut output)?,
    }
    output.flush()
}

/// As wide as the terminal, within what can be read.
fn text_options(globals: &Globals) -> text::Options {
    let terminal = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0).clamp(60, 140));
    let width = terminal.filter(|_| io::stdout().is_terminal()).unwrap_or(text::Options::default().width);
    text::Options { colour: globals.color_stdout(), width }
}

fn write_records(timeline: &mut Timeline, analysis: &mut Analysis, output: impl Write) -> io::Result<()> {
    let mut records = Records { writer: ndjson::Writer::new(output, HOST), result: Ok(()) };
    read(timeline, analysis, &mut records);
    let Records { mut writer, result } = records;
    result?;
    writer.stats(&analysis.stats(), analysis.engine.now())?;
    writer.flush()
}

/// Writes each event and alert as it comes.
struct Records<W: Write> {
    writer: ndjson::Writer<W>,
    result: io::Result<()>,
}

impl<W: Write> Listener for Records<W> {
    fn event(&mut self, event: &Event) {
        if self.result.is_ok() {
            self.result = self.writer.event(event);
        }
    }

    fn alert(&mut self, alert: &Alert) {
        if self.result.is_ok() {
            self.result = self.writer.alert(alert);
        }
    }

    /// Nobody reads any more.
    fn is_done(&self) -> bool {
        self.result.is_err()
    }
}
