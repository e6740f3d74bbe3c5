//! The findings of the text report, gravest first; what several have in common is said once.

use std::io::{self, Write};

use distwatch_engine::model::{Alert, AlertStatus, Confidence, Severity};
use indexmap::IndexMap;

use super::layout::Style;
use super::{Printer, count, grouped, moment, plural, printable};
use crate::report::Report;

/// Findings whose condition still held at the end.
pub(super) fn active(report: &Report) -> impl Iterator<Item = &Alert> {
    report.alerts.iter().filter(|alert| alert.status != AlertStatus::Resolved)
}

/// `3 findings: 1 critical, 2 high; 1 more ended.`
pub(super) fn counts(report: &Report) -> String {
    let by_severity: Vec<String> = Severity::ALL
        .iter()
        .rev()
        .map(|severity| (count(active(report).filter(|alert| alert.severity == *severity)), severity.name()))
        .filter(|(number, _)| *number > 0)
        .map(|(number, name)| format!("{} {name}", grouped(number)))
        .collect();
    let present = count(active(report));
    let ended = count(&report.alerts) - present;
    let mut text = match present {
        0 => "No findings".to_owned(),
        number => format!("{}: {}", plural(number, "finding", "findings"), by_severity.join(", ")),
    };
    if ended > 0 {
        text.push_str(&format!("; {} more ended by the end", grouped(ended)));
    }
    text + "."
}

pub(super) fn write<W: Write>(report: &Report, printer: &mut Printer<W>) -> io::Result<()> {
    if report.alerts.is_empty() {
        return Ok(());
    }
    printer.section(&format!("Findings ({})", count(&report.alerts)))?;
    let mut groups: IndexMap<_, Vec<&Alert>> = IndexMap::new();
    for alert in &report.alerts {
        let key = (alert.severity, &alert.rule_id, &alert.remediation, &alert.references);
        groups.entry(key).or_default().push(alert);
    }
    let mut groups: Vec<Vec<&Alert>> = groups.into_values().collect();
    groups.sort_by_key(|alerts| std::cmp::Reverse(alerts.first().map(|alert| alert.severity)));
    groups.iter().try_for_each(|alerts| write_rule(alerts, printer))
}

fn write_rule<W: Write>(alerts: &[&Alert], printer: &mut Printer<W>) -> io::Result<()> {
    let Some(first) = alerts.first() else { return Ok(()) };
    let colour = printer.options.colour;
    let severity = severity_style(first.severity).paint(&first.severity.name().to_uppercase(), colour);
    writeln!(printer.out, "\n  {severity}  {}", Style::BOLD.paint(&printable(&first.rule_id), colour))?;
    alerts.iter().try_for_each(|alert| write_alert(alert, printer))?;
    if !first.remediation.is_empty() {
        printer.paragraph(4, "what to do: ", &printable(&first.remediation))?;
    }
    if !first.references.is_empty() {
        printer.paragraph(4, "guideline: ", &printable(&first.references.join(", ")))?;
    }
    Ok(())
}

const fn severity_style(severity: Severity) -> Style {
    match severity {
        Severity::Critical => Style::ALARM,
        Severity::High => Style::RED,
        Severity::Medium => Style::YELLOW,
        Severity::Low => Style::CYAN,
        Severity::Info => Style::DIM,
    }
}

fn write_alert<W: Write>(alert: &Alert, printer: &mut Printer<W>) -> io::Result<()> {
    let mut remarks = Vec::new();
    if alert.count > 1 {
        remarks.push(format!("x{}", grouped(alert.count)));
    }
    match alert.confidence {
        Confidence::Certain => {}
        Confidence::Likely => remarks.push("likely".into()),
        Confidence::Possible => remarks.push("possible".into()),
    }
    if alert.status == AlertStatus::Resolved {
        remarks.push("ended".into());
    }
    let remarks = if remarks.is_empty() { String::new() } else { format!(" ({})", remarks.join(", ")) };
    printer.paragraph(4, "- ", &format!("{}{remarks}", printable(&alert.subject)))?;
    printer.paragraph(6, "", &printable(&alert.reason))?;
    for evidence in &alert.evidence {
        let place = match &evidence.packet {
            Some(packet) => format!("packet {}", printable(packet)),
            None => moment(evidence.timestamp),
        };
        printer.paragraph(6, &format!("{place}: "), &printable(&evidence.fact))?;
    }
    Ok(())
}
