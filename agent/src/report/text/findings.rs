//! The findings of the text report, gravest first; what several have in common is said once.

use std::collections::HashSet;
use std::io::{self, Write};

use distwatch_engine::model::{Alert, AlertStatus, Confidence, Evidence, Severity};
use indexmap::IndexMap;

use super::layout::Style;
use super::{Printer, count, grouped, moment, plural, printable};
use crate::report::Report;

/// Facts of one finding that a person is shown, the first ones and the last; how many are left out is said.
const FACTS: usize = 5;

/// Packets that are named for one fact; how many more there are is said.
const PLACES: usize = 4;

/// `3 findings: 1 critical, 2 high. 1 of them had ended before the capture did.`
pub(super) fn counts(report: &Report) -> String {
    let by_severity: Vec<String> = Severity::ALL
        .iter()
        .rev()
        .map(|severity| (count(report.alerts.iter().filter(|alert| alert.severity == *severity)), severity.name()))
        .filter(|(number, _)| *number > 0)
        .map(|(number, name)| format!("{} {name}", grouped(number)))
        .collect();
    let all = count(&report.alerts);
    if all == 0 {
        return "No findings.".to_owned();
    }
    let mut text = format!("{}: {}.", plural(all, "finding", "findings"), by_severity.join(", "));
    match count(report.alerts.iter().filter(|alert| alert.status == AlertStatus::Resolved)) {
        0 => {}
        _ if all == 1 => text.push_str(" It had ended before the capture did."),
        ended if ended == all => text.push_str(" All of them had ended before the capture did."),
        ended => text.push_str(&format!(" {} of them had ended before the capture did.", grouped(ended))),
    }
    text
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
    let mut advised = HashSet::new();
    groups.iter().try_for_each(|alerts| write_rule(alerts, &mut advised, printer))
}

/// A rule's findings of one severity. Advice that was given once is not given again.
fn write_rule<'a, W: Write>(
    alerts: &[&'a Alert],
    advised: &mut HashSet<(&'a str, &'a str)>,
    printer: &mut Printer<W>,
) -> io::Result<()> {
    let Some(first) = alerts.first() else { return Ok(()) };
    let colour = printer.options.colour;
    let severity = severity_style(first.severity).paint(&first.severity.name().to_uppercase(), colour);
    writeln!(printer.out, "\n  {severity}  {}", Style::BOLD.paint(&printable(&first.rule_id), colour))?;
    alerts.iter().try_for_each(|alert| write_alert(alert, printer))?;
    if !advised.insert((&first.rule_id, &first.remediation)) {
        return printer.paragraph(4, "what to do: ", "as above");
    }
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
    write_evidence(&alert.evidence, printer)
}

/// Each fact once, with the packets that show it.
fn write_evidence<W: Write>(evidence: &[Evidence], printer: &mut Printer<W>) -> io::Result<()> {
    let mut facts: IndexMap<&str, Vec<&Evidence>> = IndexMap::new();
    for item in evidence {
        facts.entry(&item.fact).or_default().push(item);
    }
    let left_out = if facts.len() > FACTS + 1 { facts.len() - FACTS } else { 0 };
    for (number, (fact, shown_by)) in facts.iter().enumerate() {
        if left_out > 0 && number == FACTS - 1 {
            printer.paragraph(6, "", &format!("and {left_out} more like these, up to"))?;
        }
        if left_out == 0 || number < FACTS - 1 || number + 1 == facts.len() {
            printer.paragraph(6, &format!("{}: ", places(shown_by)), &printable(fact))?;
        }
    }
    Ok(())
}

/// `packet 31`, `packets 31, 54, 77, 100 and 16 more`, or a time where there is no packet.
fn places(evidence: &[&Evidence]) -> String {
    let mut packets: Vec<&str> = evidence.iter().filter_map(|item| item.packet.as_deref()).collect();
    packets.dedup();
    match packets.as_slice() {
        [] => evidence.first().map_or_else(String::new, |item| moment(item.timestamp)),
        [packet] => format!("packet {}", printable(packet)),
        packets => {
            let named = packets.get(..PLACES).unwrap_or(packets);
            let more = match packets.len() - named.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("packets {}{more}", printable(&named.join(", ")))
        }
    }
}
