//! What a reader must know about the report itself: what was lost, cut, damaged or given up. Nothing is missing silently.

use std::collections::BTreeMap;
use std::io::{self, Write};

use distwatch_engine::model::Capture;

use super::{Printer, count, grouped, octets, plural, printable};
use crate::report::Report;

pub(super) fn write<W: Write>(report: &Report, printer: &mut Printer<W>) -> io::Result<()> {
    printer.section("Completeness")?;
    let mut notes: Vec<String> = report.captures.iter().flat_map(of_capture).collect();
    let stats = &report.stats;
    if stats.gaps > 0 {
        let places = plural(stats.gaps, "place", "places");
        notes.push(format!("{places} in connections where octets are missing, {} in all", octets(stats.missing_bytes)));
    }
    let mid_stream = count(report.links.iter().filter(|link| link.mid_stream));
    if mid_stream > 0 {
        let began = plural(mid_stream, "link that began", "links that began");
        notes.push(format!("{began} before the capture: names and atoms from before are unknown"));
    }
    notes.extend(by_name("could not be decoded, by layer", &stats.decode_errors));
    notes.extend(by_name("limits reached", &stats.limits_reached));
    notes.extend(by_name("packets left aside, without TCP that can be read", &stats.packets_not_used));
    if notes.is_empty() {
        notes.push("every packet was read whole, and everything in it that is distribution or EPMD was decoded".into());
    }
    notes.iter().try_for_each(|note| printer.paragraph(super::layout::INDENT, "- ", note))
}

fn of_capture(capture: &Capture) -> Vec<String> {
    let path = super::name(capture);
    let mut notes = Vec::new();
    if let Some(damage) = &capture.damaged {
        notes.push(format!("{path} is damaged: {}", printable(damage)));
    }
    if capture.truncated_packets > 0 {
        let packets = plural(capture.truncated_packets, "packet", "packets");
        notes.push(format!("{path}: {packets} cut by the snap length"));
    }
    if let Some(dropped) = capture.dropped.filter(|&dropped| dropped > 0) {
        notes.push(format!("{path}: the recorder lost {}", plural(dropped, "packet", "packets")));
    }
    notes
}

fn by_name(what: &str, numbers: &BTreeMap<String, u64>) -> Option<String> {
    let numbers: Vec<String> = numbers
        .iter()
        .filter(|(_, number)| **number > 0)
        .map(|(name, number)| format!("{} {}", printable(name), grouped(*number)))
        .collect();
    (!numbers.is_empty()).then(|| format!("{what}: {}", numbers.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use crate::report::text::{self, Options};

    fn notes(report: &Report) -> String {
        let mut out = Vec::new();
        text::write(report, Options::default(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        text.split_once("\nCompleteness\n").unwrap().1.to_owned()
    }

    #[test]
    fn everything_that_is_missing_is_said() {
        let notes = notes(&sample::report());
        for part in [
            "cut.pcapng.gz is damaged: The file ends inside packet 1.",
            "shop.pcap: 3 packets cut",
            "the recorder lost 7 packets",
            "2 places in connections where octets are missing, 1.4 kB in all",
            "1 link that began before the capture",
            "could not be decoded, by layer: etf 1",
            "limits reached: reorder_bytes 1",
            "udp 12",
        ] {
            assert!(notes.contains(part), "{part}: {notes}");
        }
    }

    #[test]
    fn a_whole_capture_is_said_to_be_whole() {
        assert!(notes(&Report::default()).starts_with("  - every packet was read whole"));
    }
}
