//! Floods inside the memory cap: a million SYNs, a quarter of a million half handshakes, a hundred thousand flows behind
//! a hole — and a known distribution link in their midst that keeps every event.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::{capture, items, program, report, text};
use serde_json::Value;
use wait4::Wait4;

/// The cap on what connections may hold is 64 MiB unless set; the rest of the program gets 32 MiB.
const PEAK: u64 = (64 + 32) << 20;

/// Frames of a flood, and how many go before the next packet of the real capture.
struct Flood {
    frames: Box<dyn Fn(u32) -> Vec<Vec<u8>>>,
    flows: u32,
}

#[test]
fn a_million_syns_stay_inside_the_limit_and_cost_the_known_link_nothing() {
    let stats = survive(Flood { frames: Box::new(|flow| vec![tcp(flow, SYN, 0, &[])]), flows: 1_000_000 });
    assert!(stats["flows"].as_u64() >= Some(1_000_000), "{stats}");
}

#[test]
fn a_quarter_of_a_million_half_handshakes_stay_inside_the_limit() {
    let name = b"\0\x1eN\0\0\0\x0d\x07\xdf\x7f\xbd\x6b\x03\xb5\xc5\0\x0fref_a@127";
    let frames = move |flow| vec![tcp(flow, SYN, 0, &[]), tcp(flow, ACK, 1, name)];
    survive(Flood { frames: Box::new(frames), flows: 250_000 });
}

#[test]
fn a_hundred_thousand_flows_behind_a_hole_stay_inside_the_limit() {
    let data = [b'x'; 1400];
    let frames = move |flow| {
        let after_the_hole = (0..4).map(|n| tcp(flow, ACK, 2 + n * 1400, &data));
        std::iter::once(tcp(flow, SYN, 0, &[])).chain(after_the_hole).collect()
    };
    survive(Flood { frames: Box::new(frames), flows: 100_000 });
}

/// Runs the flood with a real capture spread through it; compares what the report says of the real link.
fn survive(flood: Flood) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("flood.pcap");
    let quiet = capture("apps-otp25.pcap");
    write(&path, &quiet, &flood);
    let report_path = folder.path().join("report.json");
    let policy = capture("policy.toml");
    let child = Command::new(program())
        .args(["analyze", "--format", "json", "-c"])
        .args([&policy, &path])
        .stdout(Stdio::from(File::create(&report_path).expect("a file")))
        .spawn()
        .expect("the program starts");
    let used = child.wait4().expect("the program ends");
    assert!(used.status.success(), "{}", used.status);
    assert!(used.rusage.maxrss <= PEAK, "peak memory {} MiB", used.rusage.maxrss >> 20);

    let under_flood: Value = serde_json::from_reader(File::open(&report_path).expect("a report")).expect("JSON");
    let alone = report(&quiet);
    let link = |report: &Value| {
        let mut link = items(report, "links")
            .iter()
            .find(|link| text(&link["initiator"], "node") == "web@host-a")
            .cloned()
            .expect("the known link");
        // Where it stands in the file is the one thing that differs.
        link["first_packet"] = Value::Null;
        link
    };
    assert_eq!(link(&under_flood), link(&alone));
    let activity = |report: &Value| {
        let known = items(report, "activity").iter().filter(|activity| text(activity, "from_node").contains("@host"));
        known
            .map(|activity| {
                (
                    activity["kind"].clone(),
                    activity["mfa"].clone(),
                    activity["target"].clone(),
                    activity["count"].clone(),
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(activity(&under_flood), activity(&alone));
    let (flooded, quiet) = (&under_flood["stats"], &alone["stats"]);
    assert!(flooded["packets"].as_u64() > quiet["packets"].as_u64());
    flooded.clone()
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const DISTRIBUTION_PORT: u16 = 41_493;

/// An Ethernet frame from a host of its own for each flow, towards the node of the real capture.
fn tcp(flow: u32, flags: u8, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let length = u16::try_from(40 + payload.len()).expect("a small packet");
    frame.extend([0x45, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend((0x0b00_0000 + (flow >> 4)).to_be_bytes());
    frame.extend([10, 77, 0, 2]);
    frame.extend((32_768 + (flow & 15) as u16 * 2).to_be_bytes());
    frame.extend(DISTRIBUTION_PORT.to_be_bytes());
    frame.extend(sequence.wrapping_add(flow).to_be_bytes());
    frame.extend([0; 4]);
    frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}

/// The flood with the packets of the quiet capture spread evenly through it, at the quiet capture's times.
fn write(path: &PathBuf, quiet: &Path, flood: &Flood) {
    let bytes = std::fs::read(quiet).expect("the capture");
    let (header, mut rest) = bytes.split_at(24);
    let mut records = Vec::new();
    while rest.len() >= 16 {
        let len = u32::from_le_bytes(rest[8..12].try_into().expect("four octets")) as usize;
        let (record, after) = rest.split_at(16 + len);
        records.push(record);
        rest = after;
    }
    let mut file = BufWriter::new(File::create(path).expect("a file"));
    file.write_all(header).expect("written");
    let each = flood.flows / u32::try_from(records.len()).expect("few packets") + 1;
    let mut flow = 0;
    for record in records {
        file.write_all(record).expect("written");
        for _ in 0..each.min(flood.flows - flow) {
            for frame in (flood.frames)(flow) {
                let len = u32::try_from(frame.len()).expect("a small frame").to_le_bytes();
                file.write_all(&record[..8]).expect("written");
                file.write_all(&len).expect("written");
                file.write_all(&len).expect("written");
                file.write_all(&frame).expect("written");
            }
            flow += 1;
        }
    }
    file.flush().expect("written");
}
