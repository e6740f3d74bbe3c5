//! A distribution connection in clear: handshake, then frames. Bytes in, [`Output`] calls out.
//!
//! OTP, "Distribution Protocol" and "External Term Format"; measured facts in `docs/protocol.md` §2 to §5 and §11.
//! Octets missing from the capture and a start in the middle are normal, so nothing that they explain is held against a peer.

pub mod atom_cache;
pub mod control;
mod direction;
pub mod fingerprint;
pub mod flags;
mod fragments;
pub mod handshake;
pub mod header;
mod message;
mod recognise;
mod resync;
mod walk;

use std::fmt;
use std::time::Duration;

pub use self::control::Role;
pub use self::fingerprint::BuildGuess;
pub use self::flags::DistFlags;
pub use self::handshake::{Facts, Proof, Status};
pub use self::recognise::{looks_like_frames, looks_like_send_name, looks_like_status};

use self::direction::Direction;
use self::handshake::Handshake;
use self::resync::Framing;
use crate::etf::Cursor;
use crate::limits::Limits;
use crate::model::{HandshakeOutcome, PerSide};
use crate::packet::{At, Side};
use crate::time::Timestamp;
use crate::wire::{Fault, Malformed};

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
    /// A handshake message was read; `facts` has all that was read so far.
    fn handshake_progress(&mut self, at: &At, side: Side, facts: &Facts);
    /// A control message.
    fn message(&mut self, message: &Message<'_>);
    /// An empty frame.
    fn tick(&mut self, at: &At, side: Side);
    /// The peer broke the protocol in a way that neither loss nor a mid-stream start explains.
    fn violation(&mut self, at: &At, side: Side, what: String);
    /// A message or a frame could not be read; `layer` is `handshake`, `dist` or `etf`.
    fn undecodable(&mut self, at: &At, side: Side, layer: &'static str, what: String);
    /// Something odd but harmless, by a stable word (`trailing-bytes`, `resynchronised`, …).
    fn weird(&mut self, at: &At, side: Side, name: &'static str, detail: String);
    /// A limit was reached, by its name in [`Limits`].
    fn limit(&mut self, name: &'static str);
}

/// How long the acceptor may take to judge the initiator's digest (`net_setuptime`). Frames of an initiator whose acceptor was
/// not captured count as proof that the handshake passed once it is over.
const SETUP_TIME: Duration = Duration::from_secs(7);

/// One connection.
pub struct Session {
    handshake: Handshake,
    directions: [Direction; 2],
    bounds: Bounds,
    replied: Option<Timestamp>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("handshake", self.handshake())
            .field("messages", &self.messages())
            .finish_non_exhaustive()
    }
}

/// The limits that concern a session.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    open_fragments: usize,
    term_depth: usize,
}

impl Session {
    /// A connection whose first octets, on both sides, are those of the handshake.
    #[must_use]
    pub fn from_handshake(limits: &Limits) -> Self {
        Self::new(limits, Direction::from_handshake)
    }

    /// A connection that is past its handshake: both sides start somewhere, and the first frame boundary is searched.
    #[must_use]
    pub fn mid_stream(limits: &Limits) -> Self {
        let mut session = Self::new(limits, Direction::mid_stream);
        session.handshake.facts.outcome = HandshakeOutcome::Unseen;
        session
    }

    fn new(limits: &Limits, direction: fn() -> Direction) -> Self {
        let bounds = Bounds { open_fragments: limits.open_fragments, term_depth: limits.term_depth };
        Self { handshake: Handshake::default(), directions: [direction(), direction()], bounds, replied: None }
    }

    /// The next octets of a side.
    pub fn handle_data(&mut self, at: &At, side: Side, data: &[u8], out: &mut impl Output) {
        let (mut cx, direction) = self.context(at, side, out);
        direction.data(&mut cx, data);
        if side == Side::Initiator && self.replied.is_none() && self.handshake.facts.replied() {
            self.replied = Some(at.time);
        }
    }

    /// So many octets of a side are missing, exactly, and will not come.
    pub fn handle_gap(&mut self, at: &At, side: Side, bytes: u64, out: &mut impl Output) {
        let (mut cx, direction) = self.context(at, side, out);
        direction.gap(&mut cx, bytes);
    }

    /// The connection ended. `closed_by` is the side that ended it (FIN or RST) first, where that was seen.
    pub fn handle_close(&mut self, at: &At, closed_by: Option<Side>, out: &mut impl Output) {
        for side in Side::BOTH {
            let (mut cx, direction) = self.context(at, side, out);
            direction.close(&mut cx);
        }
        self.handle_end();
        let [initiator, acceptor] = &self.directions;
        self.handshake.close(closed_by, [initiator, acceptor].map(|side| side.is_whole()));
    }

    /// No more will be seen: where only the initiator was, its frames prove that the handshake passed. Says whether that is
    /// news.
    pub fn handle_end(&mut self) -> bool {
        let [initiator, acceptor] = &self.directions;
        acceptor.octets == 0 && initiator.frames > 0 && self.handshake.frames_follow()
    }

    /// What was read of the handshake so far.
    #[must_use]
    pub fn handshake(&self) -> &Facts {
        &self.handshake.facts
    }

    /// The features in force, once both words are known.
    #[must_use]
    pub fn negotiated(&self) -> Option<DistFlags> {
        self.handshake.facts.negotiated()
    }

    /// Handshake messages and frames of each side; fragments and ticks count as one each.
    #[must_use]
    pub fn messages(&self) -> PerSide {
        self.per_side(|direction| direction.handshake_messages + direction.frames)
    }

    /// Ticks of each side.
    #[must_use]
    pub fn ticks(&self) -> PerSide {
        self.per_side(|direction| direction.ticks)
    }

    /// Octets of memory, everything included.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.directions.iter().map(Direction::memory).sum::<usize>() + self.handshake.facts.memory()
    }

    /// The build that a side runs, by its atom cache.
    #[must_use]
    pub fn build_guess(&self, side: Side) -> Option<BuildGuess> {
        let [initiator, acceptor] = &self.directions;
        match side {
            Side::Initiator => initiator.build_guess(),
            Side::Acceptor => acceptor.build_guess(),
        }
    }

    fn per_side(&self, count: impl Fn(&Direction) -> u64) -> PerSide {
        let [initiator, acceptor] = &self.directions;
        PerSide { from_initiator: count(initiator), from_acceptor: count(acceptor) }
    }

    fn context<'c, O: Output>(
        &'c mut self,
        at: &'c At,
        side: Side,
        out: &'c mut O,
    ) -> (Context<'c, O>, &'c mut Direction) {
        let [initiator, acceptor] = &mut self.directions;
        let waited = || self.replied.is_some_and(|replied| at.time.since(replied) >= SETUP_TIME);
        let frames_may_follow = self.handshake.facts.outcome == HandshakeOutcome::Incomplete
            && (!acceptor.is_whole() || (acceptor.octets == 0 && waited()));
        let direction = match side {
            Side::Initiator => initiator,
            Side::Acceptor => acceptor,
        };
        let handshake = &mut self.handshake;
        (Context { at, side, handshake, bounds: self.bounds, frames_may_follow, out }, direction)
    }
}

/// What reading one side's octets needs beside them.
struct Context<'c, O> {
    at: &'c At,
    side: Side,
    handshake: &'c mut Handshake,
    bounds: Bounds,
    /// Frames of this side prove that the handshake passed, for the acceptor's part of it was not (wholly) seen.
    frames_may_follow: bool,
    out: &'c mut O,
}

impl<O: Output> Context<'_, O> {
    fn violation(&mut self, what: &str) {
        self.out.violation(self.at, self.side, what.to_owned());
    }

    /// Something could not be read. `strict`: nothing but the peer explains it.
    fn broken(&mut self, strict: bool, layer: &'static str, what: impl Broken) {
        if what.too_deep() {
            self.out.limit("term_depth");
        }
        let text = what.text();
        if strict {
            self.out.violation(self.at, self.side, text.clone());
        }
        self.out.undecodable(self.at, self.side, layer, text);
    }

    fn trailing(&mut self, octets: u64) {
        let detail = format!("{octets} octets after the payload");
        self.out.weird(self.at, self.side, "trailing-bytes", detail);
    }

    fn foreign(&mut self) {
        let facts = &mut self.handshake.facts;
        facts.foreign[self.side.index()] = true;
        if self.side == Side::Initiator {
            facts.outcome = HandshakeOutcome::Foreign;
        }
    }

    fn frames_follow(&mut self) {
        self.frames_may_follow = false;
        if self.handshake.frames_follow() {
            self.out.handshake_progress(self.at, self.side, &self.handshake.facts);
        }
    }

    /// What the capabilities of both sides say of the framing.
    #[inline]
    fn framing(&self) -> Framing {
        match self.handshake.facts.negotiated() {
            Some(flags) if flags.distribution_header() => Framing::Header,
            Some(_) => Framing::PassThrough,
            None => Framing::Any,
        }
    }

    /// The releases that the sender's capabilities allow.
    fn release(&self) -> fingerprint::Span {
        let release = self.handshake.facts.party(self.side).flags.map(DistFlags::release);
        release.map_or((None, None), |release| (release.min, release.max))
    }
}

/// Why something could not be read.
trait Broken {
    fn text(&self) -> String;
    fn too_deep(&self) -> bool {
        false
    }
}

impl Broken for Malformed {
    fn text(&self) -> String {
        match self.fault {
            Fault::UnknownTag(80) => "compressed term".into(),
            Fault::UnknownTag(131) => "version byte in a term under a distribution header".into(),
            _ => self.to_string(),
        }
    }

    fn too_deep(&self) -> bool {
        self.fault == Fault::TooDeep
    }
}

impl Broken for &str {
    fn text(&self) -> String {
        (*self).to_owned()
    }
}

impl Broken for fmt::Arguments<'_> {
    fn text(&self) -> String {
        self.to_string()
    }
}
