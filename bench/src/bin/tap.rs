//! The least that a live capture costs: libpcap's loop over its ring (TPACKET_V3), every packet looked at once.
//!
//! `tap INTERFACE` runs until it is ended, and says on standard output when it captures.

use std::io::Write;

use anyhow::{Context, Result};

/// As large as the daemon's own.
const BUFFER: i32 = 64 << 20;

fn main() -> Result<()> {
    let interface = std::env::args().nth(1).context("tap INTERFACE")?;
    let mut capture = pcap::Capture::from_device(interface.as_str())?
        .snaplen(262_144)
        .buffer_size(BUFFER)
        .timeout(5)
        .open()
        .context("opening the interface (needs CAP_NET_RAW)")?;
    capture.filter("tcp", true)?;
    println!("capturing");
    std::io::stdout().flush()?;
    let mut octets = 0_u64;
    loop {
        match capture.next_packet() {
            Ok(packet) => {
                octets = octets.wrapping_add(u64::from(packet.data[0]) + packet.data.len() as u64);
            }
            Err(pcap::Error::TimeoutExpired) => _ = std::hint::black_box(octets),
            Err(error) => return Err(error.into()),
        }
    }
}
