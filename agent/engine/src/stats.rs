//! Counters of the packet path: plain numbers there, names only when they are printed.

use std::collections::BTreeMap;

use crate::dist::Operation;
use crate::model::Stats;
use crate::packet::Packet;
use crate::time::Timestamp;

/// What the engine counts.
#[derive(Debug)]
pub struct Counters {
    packets: u64,
    bytes: u64,
    first: Option<Timestamp>,
    last: Timestamp,
    operations: [u64; 256],
    /// Few different names, all of them constants of the code.
    not_used: BTreeMap<&'static str, u64>,
    decode_errors: BTreeMap<&'static str, u64>,
    limits: BTreeMap<&'static str, u64>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            packets: 0,
            bytes: 0,
            first: None,
            last: Timestamp::default(),
            operations: [0; 256],
            not_used: BTreeMap::new(),
            decode_errors: BTreeMap::new(),
            limits: BTreeMap::new(),
        }
    }
}

impl Counters {
    /// A packet was taken in.
    pub fn packet(&mut self, packet: &Packet<'_>) {
        self.packets += 1;
        self.bytes += packet.data.len() as u64;
        self.first.get_or_insert(packet.time);
        self.last = self.last.max(packet.time);
    }

    /// A packet was of no use, and why.
    pub fn not_used(&mut self, reason: &'static str) {
        *self.not_used.entry(reason).or_default() += 1;
    }

    /// A control message was read.
    pub fn operation(&mut self, operation: Operation) {
        if let Some(count) = self.operations.get_mut(usize::from(operation.0)) {
            *count += 1;
        }
    }

    /// Something could not be decoded.
    pub fn decode_error(&mut self, layer: &'static str) {
        *self.decode_errors.entry(layer).or_default() += 1;
    }

    /// A limit was reached.
    pub fn limit(&mut self, name: &'static str) {
        self.limits(name, 1);
    }

    /// A limit was reached so many times.
    pub fn limits(&mut self, name: &'static str, times: u64) {
        if times > 0 {
            *self.limits.entry(name).or_default() += times;
        }
    }

    /// The latest time stamp so far.
    #[must_use]
    pub const fn last(&self) -> Timestamp {
        self.last
    }

    /// All of it with names.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let named = |counts: &BTreeMap<&'static str, u64>| {
            counts.iter().map(|(&name, &count)| (name.to_owned(), count)).collect::<BTreeMap<_, _>>()
        };
        let control_messages = (0_u8..=255)
            .zip(self.operations)
            .filter(|&(_, count)| count > 0)
            .map(|(number, count)| (Operation(number).name().to_owned(), count))
            .collect();
        Stats {
            packets: self.packets,
            bytes: self.bytes,
            decode_errors: named(&self.decode_errors),
            limits_reached: named(&self.limits),
            packets_not_used: named(&self.not_used),
            control_messages,
            duration_seconds: self.first.map_or(0.0, |first| self.last.since(first).as_secs_f64()),
            ..Stats::default()
        }
    }
}
