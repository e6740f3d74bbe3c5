//! The whole of it: any octets as a capture file, through decoding and all rules, to a report.
#![no_main]

use std::io::Cursor;
use std::path::Path;

use distwatch::pipeline;
use distwatch::report::json;
use distwatch::source::pcap_file::{CaptureFile, Timeline};
use distwatch_engine::analysis::{Analysis, Silent};
use distwatch_engine::policy::Policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(file) = CaptureFile::from_reader(Path::new("fuzz"), Cursor::new(input.to_vec())) else { return };
    let mut timeline = Timeline::new(vec![file]);
    let mut analysis = Analysis::new(&Policy::default());
    pipeline::run(&mut timeline, &mut analysis, &mut Silent, |_| {});
    json::write(&pipeline::report(&timeline, &analysis), &mut std::io::sink(), false).expect("a report can be printed");
});
