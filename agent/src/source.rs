//! Where packets come from.

pub mod live;
pub mod pcap_file;
