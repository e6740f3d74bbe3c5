//! Makes captures out of a capture: shorter, longer, disturbed. Little-endian microsecond files, as tcpdump writes them here.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Result, bail};

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
/// Where the TCP ports begin in a frame of Ethernet and IPv4 without options.
const PORTS: usize = 34;

struct Input {
    file: BufReader<File>,
    header: [u8; FILE_HEADER],
}

impl Input {
    fn open(path: &Path) -> Result<Self> {
        let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
        let mut header = [0; FILE_HEADER];
        file.read_exact(&mut header)?;
        if header[..4] != [0xd4, 0xc3, 0xb2, 0xa1] {
            bail!("{} is not a little-endian microsecond pcap file", path.display());
        }
        Ok(Self { file, header })
    }

    /// The next record, header included, in `record`; false at the end.
    fn next(&mut self, record: &mut Vec<u8>) -> Result<bool> {
        record.resize(RECORD_HEADER, 0);
        if self.file.read_exact(record).is_err() {
            return Ok(false);
        }
        let len = u32::from_le_bytes([record[8], record[9], record[10], record[11]]) as usize;
        record.resize(RECORD_HEADER + len, 0);
        Ok(self.file.read_exact(&mut record[RECORD_HEADER..]).is_ok())
    }
}

fn nanos(record: &[u8]) -> u64 {
    let word = |at: usize| u64::from(u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]));
    word(0) * 1_000_000_000 + word(4) * 1000
}

fn set_nanos(record: &mut [u8], nanos: u64) {
    record[..4].copy_from_slice(&((nanos / 1_000_000_000) as u32).to_le_bytes());
    record[4..8].copy_from_slice(&((nanos % 1_000_000_000 / 1000) as u32).to_le_bytes());
}

fn copy_while(from: &Path, to: &Path, mut more: impl FnMut(u64, u64) -> bool) -> Result<()> {
    let mut input = Input::open(from)?;
    let mut output = BufWriter::new(File::create(to)?);
    output.write_all(&input.header)?;
    let (mut packets, mut bytes, mut record) = (0, FILE_HEADER as u64, Vec::new());
    while more(packets, bytes) && input.next(&mut record)? {
        output.write_all(&record)?;
        packets += 1;
        bytes += record.len() as u64;
    }
    Ok(output.flush()?)
}

/// The first so many octets, whole packets.
pub(super) fn head_bytes(from: &Path, to: &Path, limit: u64) -> Result<()> {
    copy_while(from, to, |_, bytes| bytes < limit)
}

/// The first so many packets.
pub(super) fn head_packets(from: &Path, to: &Path, limit: u64) -> Result<()> {
    copy_while(from, to, |packets, _| packets < limit)
}

/// One packet in a hundred is left out, and one in a hundred comes one to eight places late, by a fixed sequence of
/// pseudo-random numbers.
pub(super) fn disturb(from: &Path, to: &Path) -> Result<()> {
    let mut input = Input::open(from)?;
    let mut output = BufWriter::new(File::create(to)?);
    output.write_all(&input.header)?;
    let (mut state, mut record) = (0x9e37_79b9_7f4a_7c15_u64, Vec::new());
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut late: Vec<(u64, Vec<u8>)> = Vec::new();
    while input.next(&mut record)? {
        match random() % 100 {
            0 => {}
            1 => late.push((random() % 8 + 1, record.clone())),
            _ => output.write_all(&record)?,
        }
        let now = nanos(&record);
        for (wait, held) in &mut late {
            *wait = wait.saturating_sub(1);
            if *wait == 0 {
                set_nanos(held, now);
                output.write_all(held)?;
            }
        }
        late.retain(|(wait, _)| *wait > 0);
    }
    Ok(output.flush()?)
}

/// The same traffic again and again, each time later and from other ports, until the file has `size` octets.
pub(super) fn repeat(from: &Path, to: &Path, size: u64) -> Result<()> {
    let (_, _, first, last) = summary(from)?;
    let mut output = BufWriter::new(File::create(to)?);
    let (mut bytes, mut round, mut record) = (FILE_HEADER as u64, 0_u16, Vec::new());
    output.write_all(&Input::open(from)?.header)?;
    while bytes < size {
        let mut input = Input::open(from)?;
        let shift = u64::from(round) * (last - first + 1_000_000_000);
        while bytes < size && input.next(&mut record)? {
            let later = nanos(&record) + shift;
            set_nanos(&mut record, later);
            let ports = RECORD_HEADER + PORTS;
            for at in [ports, ports + 2] {
                if let Some(port) = record.get_mut(at..at + 2) {
                    let number = u16::from_be_bytes([port[0], port[1]]);
                    if number > 1024 && number != 4369 {
                        port.copy_from_slice(&(number ^ (round << 1)).to_be_bytes());
                    }
                }
            }
            output.write_all(&record)?;
            bytes += record.len() as u64;
        }
        round += 1;
    }
    Ok(output.flush()?)
}

/// Packets, octets of the file, and the times of the first and the last packet in nanoseconds.
pub(super) fn summary(path: &Path) -> Result<(u64, u64, u64, u64)> {
    let mut input = Input::open(path)?;
    let (mut packets, mut bytes, mut first, mut last, mut record) = (0, FILE_HEADER as u64, None, 0, Vec::new());
    while input.next(&mut record)? {
        packets += 1;
        bytes += record.len() as u64;
        last = nanos(&record);
        first.get_or_insert(last);
    }
    Ok((packets, bytes, first.unwrap_or(0), last))
}

/// The odd one of the two ports that carry most: the listener's (Linux gives odd ports to listeners).
pub(super) fn busiest_port(path: &Path) -> Result<u16> {
    let mut input = Input::open(path)?;
    let (mut octets, mut record) = (HashMap::<u16, u64>::new(), Vec::new());
    while input.next(&mut record)? {
        for at in [RECORD_HEADER + PORTS, RECORD_HEADER + PORTS + 2] {
            if let Some(port) = record.get(at..at + 2) {
                *octets.entry(u16::from_be_bytes([port[0], port[1]])).or_default() += record.len() as u64;
            }
        }
    }
    let mut ports: Vec<(u64, u16)> = octets.into_iter().map(|(port, octets)| (octets, port)).collect();
    ports.sort_unstable_by(|a, b| b.cmp(a));
    let top: Vec<u16> = ports.iter().take(2).map(|&(_, port)| port).collect();
    top.iter().copied().find(|port| port % 2 == 1).or(top.first().copied()).ok_or_else(|| anyhow::anyhow!("no packets"))
}
