//! Offline: captures as one timeline through the analysis, with the packets' own time.

use distwatch_engine::analysis::{Analysis, Listener};
use distwatch_engine::event::{Event, EventBody};
use distwatch_engine::packet::{InterfaceId, PacketRef};

use crate::report::Report;
use crate::source::pcap_file::{Progress, Timeline};

/// Packets between two looks at the progress; a look costs more than a packet.
const PROGRESS_EVERY: u64 = 16_384;

/// Reads all captures to their ends and leaves the analysis finished. `progress` is called now and then.
pub fn run(
    timeline: &mut Timeline,
    analysis: &mut Analysis,
    listener: &mut impl Listener,
    mut progress: impl FnMut(&Progress),
) {
    let mut interfaces: Vec<Vec<Option<InterfaceId>>> = vec![Vec::new(); timeline.files().len()];
    let mut packets = 0_u64;
    while !listener.is_done() {
        let Some((capture, raw)) = timeline.next() else { break };
        let Some(ids) = interfaces.get_mut(capture as usize) else { break };
        // A file names its interfaces one after the other, each before its first packet.
        let id = match ids.get(raw.interface as usize) {
            Some(Some(id)) => *id,
            _ => {
                if ids.len() <= raw.interface as usize {
                    ids.resize(raw.interface as usize + 1, None);
                }
                let id = analysis.engine.add_interface(raw.interface_name);
                ids[raw.interface as usize] = Some(id);
                id
            }
        };
        let packet = raw.to_packet(capture, id);
        analysis.handle_packet(&packet, listener);
        packets += 1;
        if packets.is_multiple_of(PROGRESS_EVERY) {
            progress(&timeline.progress());
        }
    }
    report_losses(timeline, analysis, listener);
    analysis.finish(listener);
}

/// What the captures' own counters say was dropped before it could be written.
fn report_losses(timeline: &Timeline, analysis: &mut Analysis, listener: &mut impl Listener) {
    for (index, file) in timeline.files().iter().enumerate() {
        if let Some(dropped) = file.summary().dropped.filter(|&dropped| dropped > 0) {
            let packet = PacketRef { capture: u32::try_from(index).unwrap_or(u32::MAX), number: 0 };
            let body = EventBody::Loss { stage: "interface", packets: dropped };
            let event = Event { time: analysis.engine.now(), packet, flow: None, body };
            analysis.handle_event(&event, listener);
        }
    }
}

/// The report of a finished analysis.
#[must_use]
pub fn report(timeline: &Timeline, analysis: &Analysis) -> Report {
    Report {
        captures: timeline.files().iter().map(|file| file.summary()).collect(),
        nodes: analysis.cluster.nodes().cloned().collect(),
        links: analysis.cluster.links().cloned().collect(),
        epmd: analysis.cluster.epmd().to_vec(),
        activity: analysis.cluster.activity().cloned().collect(),
        alerts: analysis.judge.alerts(),
        stats: analysis.stats(),
        ..Report::default()
    }
}
