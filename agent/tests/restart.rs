//! A run that ends in the middle of the traffic, and the next one that goes on with what was kept: nothing is new twice.
//!
//! Every capture is cut in two at many places. What the first run knew goes through the form in which it is kept on disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use distwatch::source::pcap_file::CaptureFile;
use distwatch_engine::analysis::{Analysis, Listener};
use distwatch_engine::event::{Event, EventBody};
use distwatch_engine::model::{Alert, AlertStatus};
use distwatch_engine::packet::{InterfaceId, LinkType, Packet, PacketRef};
use distwatch_engine::policy::Policy;
use distwatch_engine::saved::Saved;
use distwatch_engine::time::Timestamp;

/// Places at which each capture is cut.
const CUTS: usize = 12;

struct Kept {
    time: Timestamp,
    link_type: LinkType,
    interface: (u32, String),
    data: Vec<u8>,
    original_len: u32,
}

fn packets(path: &Path) -> Vec<Kept> {
    let mut file = CaptureFile::open(path).unwrap();
    let mut packets = Vec::new();
    while let Some(raw) = file.next() {
        let interface = (raw.interface, raw.interface_name().to_owned());
        let packet = raw.to_packet(0, InterfaceId(0));
        let Packet { time, link_type, data, original_len, .. } = packet;
        packets.push(Kept { time, link_type, interface, data: data.to_vec(), original_len });
    }
    packets
}

/// What was told, and which links of known nodes were met again.
#[derive(Default)]
struct Told {
    alerts: Vec<Alert>,
    resumed: BTreeSet<String>,
}

impl Listener for Told {
    fn event(&mut self, event: &Event) {
        if let EventBody::Link { link, .. } = &event.body
            && link.resumed
            && link.initiator.node.is_some()
            && link.acceptor.node.is_some()
        {
            self.resumed.insert(link.flow_id.clone());
        }
    }

    fn alert(&mut self, alert: &Alert) {
        self.alerts.push(alert.clone());
    }
}

impl Told {
    /// What was told as new and has not ended, by rule and by what it is about.
    fn open(&self) -> BTreeSet<(String, String)> {
        let mut open = BTreeSet::new();
        for alert in &self.alerts {
            let key = (alert.rule_id.clone(), alert.fingerprint.clone());
            match alert.status {
                AlertStatus::Resolved => open.remove(&key),
                AlertStatus::New | AlertStatus::Update => open.insert(key),
            };
        }
        open
    }

    /// Rule and node pair of what was told as new.
    fn subjects(&self, fingerprints: &BTreeSet<(String, String)>) -> BTreeSet<(String, String)> {
        let of = |alert: &&Alert| fingerprints.contains(&(alert.rule_id.clone(), alert.fingerprint.clone()));
        let pairs = self.alerts.iter().filter(of).filter(|alert| alert.subject.contains('@'));
        pairs.map(|alert| (alert.rule_id.clone(), alert.subject.clone())).collect()
    }
}

struct Run {
    analysis: Analysis,
    told: Told,
    interfaces: Vec<Option<InterfaceId>>,
}

impl Run {
    fn new() -> Self {
        Self { analysis: Analysis::new(&Policy::default()), told: Told::default(), interfaces: Vec::new() }
    }

    fn take(&mut self, number: usize, kept: &Kept) {
        let (place, name) = &kept.interface;
        let place = *place as usize;
        if self.interfaces.len() <= place {
            self.interfaces.resize(place + 1, None);
        }
        let interface = *self.interfaces[place].get_or_insert_with(|| self.analysis.engine.add_interface(name));
        let Kept { time, link_type, data, original_len, .. } = kept;
        let packet = Packet {
            reference: PacketRef { capture: 0, number: number as u64 + 1 },
            time: *time,
            link_type: *link_type,
            interface,
            data,
            original_len: *original_len,
        };
        self.analysis.handle_packet(&packet, &mut self.told);
    }
}

/// Runs over the capture up to the cut and from there on. Returns what was new twice, and whether a link was met again.
fn cut(packets: &[Kept], at: usize, remembers: bool) -> (Vec<String>, bool) {
    let (mut first, mut second) = (Run::new(), Run::new());
    let (before, after) = packets.split_at(at);
    before.iter().enumerate().for_each(|(number, packet)| first.take(number, packet));
    let now = before.last().map_or(Timestamp::EPOCH, |packet| packet.time);
    if remembers {
        let text = serde_json::to_string(&first.analysis.saved(now)).unwrap();
        second.analysis.restore(serde_json::from_str::<Saved>(&text).unwrap(), now);
    }
    after.iter().enumerate().for_each(|(number, packet)| second.take(at + number, packet));
    let open = first.told.open();
    let subjects = first.told.subjects(&open);
    // What ended in the second run may come back.
    let mut ended = BTreeSet::new();
    let mut twice = Vec::new();
    for alert in &second.told.alerts {
        let (key, subject) = (&alert.fingerprint, (alert.rule_id.clone(), alert.subject.clone()));
        match alert.status {
            AlertStatus::Resolved => drop(ended.insert(key.clone())),
            AlertStatus::New if ended.contains(key) => {}
            AlertStatus::New if open.contains(&(alert.rule_id.clone(), key.clone())) || subjects.contains(&subject) => {
                twice.push(format!("{} {}", alert.rule_id, alert.subject));
            }
            // What is found on a link that is known is found by its names.
            AlertStatus::New
                if !alert.subject.contains('@')
                    && second.told.resumed.contains(alert.flow_id.as_deref().unwrap_or_default()) =>
            {
                twice.push(format!("{} {} (without its names)", alert.rule_id, alert.subject));
            }
            AlertStatus::New | AlertStatus::Update => {}
        }
    }
    (twice, !second.told.resumed.is_empty())
}

fn captures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng"));
    files.sort();
    assert!(files.len() > 20, "{files:?}");
    files
}

#[test]
fn nothing_is_new_twice_wherever_a_run_ends_and_without_what_was_kept_much_is() {
    let (mut twice, mut without, mut resumed) = (Vec::new(), 0, 0);
    for path in captures() {
        let packets = packets(&path);
        for number in 1..=CUTS {
            let at = packets.len() * number / (CUTS + 1);
            let (again, met) = cut(&packets, at, true);
            resumed += usize::from(met);
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            twice.extend(again.into_iter().map(|what| format!("{name} cut at {at}: {what}")));
            without += cut(&packets, at, false).0.len();
        }
    }
    assert!(twice.is_empty(), "new twice:\n{}", twice.join("\n"));
    assert!(resumed > 100, "only {resumed} runs met a link again");
    assert!(without > 100, "only {without} were new twice without what was kept: this test would not notice");
}
