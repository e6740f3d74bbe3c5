//! Capture files: every format, damaged in every way; everything before the damage is delivered.
#![no_main]

use std::io::Cursor;
use std::path::Path;

use distwatch::source::pcap_file::CaptureFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(mut file) = CaptureFile::from_reader(Path::new("fuzz"), Cursor::new(input.to_vec())) else { return };
    let mut packets = 0;
    while let Some(packet) = file.next() {
        assert!(packet.data.len() <= input.len().saturating_mul(1100), "more than compression explains");
        packets += 1;
    }
    assert_eq!(file.summary().packets, packets);
});
