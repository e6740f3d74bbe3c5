//! Where packets come from.

pub mod ebpf;
mod link_changes;
pub mod live;
pub mod pcap_file;
#[cfg(feature = "pcap")]
pub mod pcap_live;
