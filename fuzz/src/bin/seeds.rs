//! Makes the seeds of all targets out of captures: `cargo run --bin seeds -- CAPTURES… CORPUS`.
//!
//! Real traffic is the best beginning for a fuzzer. Each connection becomes one input for the target of its protocol,
//! in the pieces and the order in which it was captured.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use distwatch::source::pcap_file::CaptureFile;
use distwatch_engine::dist::looks_like_send_name;
use distwatch_engine::epmd::looks_like_request;
use distwatch_engine::event::Tampering;
use distwatch_engine::flow::{Conversation, FlowFacts, FlowTable, Gap, Interest, Opening, Ports, Value};
use distwatch_engine::limits::Limits;
use distwatch_engine::model::CloseReason;
use distwatch_engine::net::{Decoded, Net};
use distwatch_engine::packet::{At, InterfaceId, Side};
use distwatch_engine::tls::looks_like_client_hello;
use distwatch_engine::wire::Match;

/// Longest seed: the fuzzer mutates long inputs slowly, and the beginning of a connection says most.
const LONGEST: usize = 6000;
/// Seeds of one target; the smallest are kept.
const SEEDS: usize = 60;

fn main() {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let Some((corpus, captures)) = paths.split_last() else { return eprintln!("seeds CAPTURES… CORPUS") };
    let mut seeds = Seeds::default();
    for capture in captures {
        seeds.add_file(capture);
    }
    seeds.write(corpus);
}

#[derive(Default)]
struct Seeds {
    connections: Vec<Vec<(Side, Vec<u8>)>>,
    inputs: BTreeSet<(&'static str, usize, Vec<u8>)>,
}

impl Ports for Seeds {
    fn is_listener(&self, _: SocketAddr) -> bool {
        false
    }
}

impl Seeds {
    fn add(&mut self, target: &'static str, input: Vec<u8>) {
        self.inputs.insert((target, input.len(), input));
    }

    fn add_file(&mut self, path: &Path) {
        let Ok(bytes) = fs::read(path) else { return eprintln!("{} cannot be read", path.display()) };
        if bytes.len() <= 2 * LONGEST {
            self.add("capture_file", bytes.clone());
            self.add("pipeline", bytes);
        }
        let Ok(mut file) = CaptureFile::open(path) else { return };
        let (mut net, mut flows) = (Net::new(&Limits::default()), FlowTable::<Collected>::new(&Limits::default()));
        while let Some(raw) = file.next() {
            let packet = raw.to_packet(0, InterfaceId(0));
            if raw.number <= 40 && raw.data.len() < 400 {
                let place = [0, 1, 12, 101, 108, 113, 228, 229, 276].iter().position(|&known| known == raw.link_type.0);
                let mut input = vec![u8::try_from(place.unwrap_or(1)).unwrap_or(1), b'C'];
                push_piece(&mut input, Side::Initiator, raw.data);
                self.add("packet", input);
            }
            let at = At { time: packet.time, packet: packet.reference, interface: packet.interface };
            if let Decoded::Tcp(segment) = net.decode(&packet) {
                flows.handle_segment(&at, &segment, self);
            }
        }
        flows.finish(file.summary().last.unwrap_or_default(), self);
        for connection in std::mem::take(&mut self.connections) {
            self.add_connection(&connection);
        }
    }

    fn add_connection(&mut self, pieces: &[(Side, Vec<u8>)]) {
        let Some((_, first)) = pieces.iter().find(|(side, _)| *side == Side::Initiator) else { return };
        let mut cut = vec![b'C'];
        for (side, data) in pieces {
            push_piece(&mut cut, *side, data);
        }
        cut.truncate(LONGEST);
        if looks_like_send_name(first) == Match::Yes {
            // Behind the handshake (five messages at most) come frames.
            let mut frames = vec![b'C'];
            for (side, data) in pieces.iter().skip(5) {
                push_piece(&mut frames, *side, data);
            }
            frames.truncate(LONGEST);
            self.add("dist_stream", frames);
            for (_, data) in pieces.iter().skip(5) {
                if let Some(place) = data.windows(2).position(|octets| octets == [104, 3]) {
                    self.add("etf", [&[7], data.get(place..(place + 600).min(data.len())).unwrap_or_default()].concat());
                }
            }
            self.add("handshake", [&[2][..], &cut].concat());
        } else if looks_like_client_hello(first) == Match::Yes {
            self.add("tls", [&[0][..], &cut].concat());
        } else if looks_like_request(first) == Match::Yes {
            self.add("epmd", cut);
        }
    }

    fn write(&self, corpus: &Path) {
        for target in self.inputs.iter().map(|(target, ..)| *target).collect::<BTreeSet<_>>() {
            let folder = corpus.join(target);
            fs::create_dir_all(&folder).expect("the corpus can be written");
            let inputs = self.inputs.iter().filter(|(of, ..)| *of == target).take(SEEDS);
            for (number, (.., input)) in inputs.enumerate() {
                fs::write(folder.join(format!("seed-{number:02}")), input).expect("the corpus can be written");
            }
        }
    }
}

/// In the form that the targets take apart.
fn push_piece(input: &mut Vec<u8>, side: Side, data: &[u8]) {
    for part in data.chunks(4095) {
        let high = u8::try_from(part.len() / 256).unwrap_or(15) << 4;
        input.push(high | u8::from(side == Side::Acceptor));
        input.push(u8::try_from(part.len() % 256).unwrap_or(0));
        input.extend_from_slice(part);
    }
}

/// Collects what it is given.
struct Collected(Vec<(Side, Vec<u8>)>);

impl Conversation<Seeds> for Collected {
    fn open(_: &Opening, _: &mut Seeds) -> Self {
        Self(Vec::new())
    }

    fn handle_data(&mut self, _: &FlowFacts, _: &At, side: Side, data: &[u8], _: &mut Seeds) {
        self.0.push((side, data.to_vec()));
    }

    fn handle_gap(&mut self, _: &FlowFacts, _: &At, _: Side, _: Gap, _: &mut Seeds) {}

    fn handle_tampering(&mut self, _: &FlowFacts, _: &At, _: Side, _: Tampering, _: u64, _: u64, _: &mut Seeds) {}

    fn handle_close(&mut self, _: &FlowFacts, _: &At, _: CloseReason, seeds: &mut Seeds) {
        seeds.connections.push(std::mem::take(&mut self.0));
    }

    fn handle_end(&mut self, _: &FlowFacts, _: &At, seeds: &mut Seeds) {
        seeds.connections.push(std::mem::take(&mut self.0));
    }

    fn interest(&self) -> Interest {
        Interest::Everything
    }

    fn value(&self) -> Value {
        Value::Attempt
    }

    fn memory(&self) -> usize {
        self.0.iter().map(|(_, data)| data.len()).sum()
    }
}
