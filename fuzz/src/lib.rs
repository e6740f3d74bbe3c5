//! What the targets share: how an input is cut into the pieces in which a network would deliver it.

use distwatch_engine::activity;
use distwatch_engine::dist::{Facts, Message, Output};
use distwatch_engine::etf::print::{self, Detail};
use distwatch_engine::packet::{At, Side};

/// The pieces of an input: each begins with a control octet (low bit: who sends; the others and the next octet: how
/// long), so that the fuzzer finds splits, both directions and gaps by itself.
pub fn pieces(mut input: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    std::iter::from_fn(move || {
        let (&[control, length], rest) = input.split_first_chunk::<2>()?;
        let length = usize::from(length) + usize::from(control >> 4) * 256;
        let (data, rest) = rest.split_at(length.min(rest.len()));
        input = rest;
        let side = if control & 1 == 0 { Side::Initiator } else { Side::Acceptor };
        let gap = (control & 0b1110 == 0b1110).then_some(u64::from(control >> 4) * 7 + 1);
        Some(Piece { side, gap, data })
    })
}

/// One delivery.
pub struct Piece<'a> {
    /// Who sent it.
    pub side: Side,
    /// Octets that are missing before it.
    pub gap: Option<u64>,
    /// The octets.
    pub data: &'a [u8],
}

/// Seeds are raw streams as often as cut ones: the first octet of an input says which.
pub fn deliveries(input: &[u8]) -> Vec<Piece<'_>> {
    match input.split_first() {
        Some((b'R', stream)) => vec![Piece { side: Side::Initiator, gap: None, data: stream }],
        Some((_, cut)) => pieces(cut).collect(),
        None => Vec::new(),
    }
}

/// Reads every part of what a session says, and counts.
#[derive(Debug, Default)]
pub struct Counting {
    /// Control messages, by side and operation, in order.
    pub messages: Vec<(Side, u8)>,
    /// Ticks.
    pub ticks: u64,
    /// Remarks.
    pub remarks: u64,
}

impl Output for Counting {
    fn handshake_progress(&mut self, _: &At, _: Side, _: &Facts) {}

    fn message(&mut self, message: &Message<'_>) {
        self.messages.push((message.side, message.operation.0));
        let action = activity::read(message);
        if let Some(arguments) = action.arguments {
            assert!(print::render(arguments, Detail::Full, 256).len() <= 512);
        }
    }

    fn tick(&mut self, _: &At, _: Side) {
        self.ticks += 1;
    }

    fn violation(&mut self, _: &At, _: Side, _: String) {
        self.remarks += 1;
    }

    fn undecodable(&mut self, _: &At, _: Side, _: &'static str, _: String) {
        self.remarks += 1;
    }

    fn weird(&mut self, _: &At, _: Side, _: &'static str, _: String) {
        self.remarks += 1;
    }

    fn limit(&mut self, _: &'static str) {
        self.remarks += 1;
    }
}
