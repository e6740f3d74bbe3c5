//! A distribution connection in clear: handshake, then frames. Bytes in, [`Output`] calls out.

use crate::etf::Cursor;
use crate::packet::{At, Side};

/// An operation number of a control message (OTP, "Distribution Protocol", section "Protocol between Connected Nodes").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operation(pub u8);

/// A control message with the start of its payload, borrowed from the frame.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// When it was complete enough to read.
    pub at: At,
    /// Who sent it.
    pub side: Side,
    /// What it is.
    pub operation: Operation,
    /// At the first element after the operation number.
    pub control: Cursor<'a>,
    /// Number of elements after the operation number.
    pub arity: u32,
    /// At the payload term, where the operation has one. It may end early: only the first part of a big message is kept.
    pub payload: Option<Cursor<'a>>,
    /// Octets of the whole frame (the first one of a fragmented message).
    pub frame_len: u32,
}

/// Where a session puts what it reads. Every method has the side that sent it.
pub trait Output {
    /// A handshake message was read; [`Session::handshake`](crate::dist) has the facts so far.
    fn handshake_progress(&mut self, at: &At, side: Side);
    /// A control message.
    fn message(&mut self, message: &Message<'_>);
    /// An empty frame.
    fn tick(&mut self, at: &At, side: Side);
    /// The peer broke the protocol in a way that neither loss nor a mid-stream start explains.
    fn violation(&mut self, at: &At, side: Side, what: String);
    /// A message or a frame could not be read; `layer` is `handshake`, `dist` or `etf`.
    fn undecodable(&mut self, at: &At, side: Side, layer: &'static str, what: String);
    /// Something odd but harmless, by a stable word (`trailing-bytes`, …).
    fn weird(&mut self, at: &At, side: Side, name: &'static str, detail: String);
    /// A limit was reached, by its name in [`Limits`](crate::limits::Limits).
    fn limit(&mut self, name: &'static str);
}
