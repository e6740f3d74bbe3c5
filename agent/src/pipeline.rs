//! Offline: captures as one timeline through the analysis, with the packets' own time.

use distwatch_engine::analysis::{Analysis, Listener};
use distwatch_engine::event::{Event, EventBody};
use distwatch_engine::packet::{InterfaceId, PacketRef};

use crate::report::Report;
use crate::source::pcap_file::{CaptureFile, Progress, RawPacket, Timeline};

/// Packets between two looks at the progress; a look costs more than a packet.
const PROGRESS_EVERY: u64 = 16_384;

/// Reads all captures to their ends and leaves the analysis finished. `progress` is called now and then.
pub fn run(
    timeline: &mut Timeline,
    analysis: &mut Analysis,
    listener: &mut impl Listener,
    progress: impl FnMut(&Progress),
) {
    match timeline.only() {
        Some(file) => run_one(file, analysis, listener, progress),
        None => run_merged(timeline, analysis, listener, progress),
    }
    report_losses(timeline, analysis, listener);
    analysis.finish(listener);
}

/// A single file: its packets lie together in blocks, which are lent to the analysis.
fn run_one(
    file: &mut CaptureFile,
    analysis: &mut Analysis,
    listener: &mut impl Listener,
    mut progress: impl FnMut(&Progress),
) {
    let mut interfaces = Interfaces::default();
    let meter = file.meter();
    while let Some(stretch) = file.next_stretch() {
        let block = stretch.block();
        for raw in stretch {
            if listener.is_done() {
                break;
            }
            let packet = raw.to_packet(0, interfaces.id(&raw, analysis));
            analysis.handle_lent_packet(&packet, block, listener);
        }
        analysis.return_block(block);
        if listener.is_done() {
            return;
        }
        progress(&meter.progress());
    }
}

/// Several files, packet by packet in the order of their times.
fn run_merged(
    timeline: &mut Timeline,
    analysis: &mut Analysis,
    listener: &mut impl Listener,
    mut progress: impl FnMut(&Progress),
) {
    let mut interfaces: Vec<Interfaces> = timeline.files().iter().map(|_| Interfaces::default()).collect();
    let mut packets = 0_u64;
    while !listener.is_done() {
        let Some((capture, raw)) = timeline.next() else { break };
        let Some(interfaces) = interfaces.get_mut(capture as usize) else { break };
        let packet = raw.to_packet(capture, interfaces.id(&raw, analysis));
        analysis.handle_packet(&packet, listener);
        packets += 1;
        if packets.is_multiple_of(PROGRESS_EVERY) {
            progress(&timeline.progress());
        }
    }
}

/// What the engine calls the interfaces of one file, by their place in it.
#[derive(Default)]
struct Interfaces(Vec<Option<InterfaceId>>);

impl Interfaces {
    /// The interface of a packet, which the engine is told of with its first one.
    #[inline]
    fn id(&mut self, raw: &RawPacket<'_>, analysis: &mut Analysis) -> InterfaceId {
        match self.0.get(raw.interface as usize) {
            Some(Some(id)) => *id,
            _ => self.add(raw.interface as usize, raw.interface_name(), analysis),
        }
    }

    #[cold]
    fn add(&mut self, place: usize, name: &str, analysis: &mut Analysis) -> InterfaceId {
        if self.0.len() <= place {
            self.0.resize(place + 1, None);
        }
        let id = analysis.engine.add_interface(name);
        if let Some(slot) = self.0.get_mut(place) {
            *slot = Some(id);
        }
        id
    }
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
