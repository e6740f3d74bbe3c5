//! What the table holds for each connection, and in which lists.

use std::time::Duration;

use crate::flow::connection::{Connection, Remains};
use crate::flow::ends::Ends;
use crate::flow::id::FlowId;
use crate::flow::lists::{Linked, Links};
use crate::flow::{Opening, Value};
use crate::limits::Limits;
use crate::packet::{At, Side};
use crate::time::Timestamp;

/// How long the remains of a connection are kept: Linux's TIME_WAIT, after which nothing of it is under way.
const REMAINS_KEPT: Duration = Duration::from_secs(60);

/// What an entry is counted as, the first to go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Ended,
    HalfOpen,
    Silent,
    Unknown,
    Candidate,
    Epmd,
    Attempt,
    Link,
}

impl Class {
    pub(super) const ALL: [Self; 8] = [
        Self::Ended,
        Self::HalfOpen,
        Self::Silent,
        Self::Unknown,
        Self::Candidate,
        Self::Epmd,
        Self::Attempt,
        Self::Link,
    ];

    /// Those that are given up for each other, the first first.
    pub(super) const NOT_LINKS: [Self; 6] =
        [Self::HalfOpen, Self::Silent, Self::Unknown, Self::Candidate, Self::Epmd, Self::Attempt];

    pub(super) const fn of(value: Value) -> Self {
        match value {
            Value::Unknown => Self::Unknown,
            Value::Candidate => Self::Candidate,
            Value::Epmd => Self::Epmd,
            Value::Attempt => Self::Attempt,
            Value::Link => Self::Link,
        }
    }

    pub(super) const fn idle(self, limits: &Limits) -> Duration {
        match self {
            Self::Ended => REMAINS_KEPT,
            Self::Link => limits.idle_link,
            _ => limits.idle_flow,
        }
    }
}

/// A SYN that nobody answered yet. A flood consists of these, so it is small.
#[derive(Clone, Copy, Debug)]
pub(super) struct HalfOpen {
    pub(super) at: At,
    pub(super) last_seen: Timestamp,
    pub(super) initial: u32,
    /// The other end's own SYN: a simultaneous open (RFC 9293, figure 7).
    pub(super) other_initial: Option<u32>,
}

/// A connection with its book-keeping.
#[derive(Debug)]
pub(super) struct Opened<C> {
    pub(super) connection: Connection<C>,
    /// What was added to the table's memory for it.
    pub(super) charged: usize,
    /// When it is on the list of time-outs.
    pub(super) armed: Option<Timestamp>,
    /// What the conversation asked for last, and when that is by the layer's clock, until it fires.
    pub(super) wanted: Option<Timestamp>,
    pub(super) wanted_due: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) enum State<C> {
    Free,
    HalfOpen(HalfOpen),
    Open(Box<Opened<C>>),
    Ended(Remains),
}

#[derive(Debug)]
pub(super) struct Entry<C> {
    pub(super) ends: Ends,
    pub(super) initiator_is_low: bool,
    pub(super) class: Class,
    /// In which list of holes it is.
    pub(super) holes: Option<Holes>,
    pub(super) touched: Timestamp,
    pub(super) by_use: Links,
    pub(super) by_hole: Links,
    pub(super) state: State<C>,
}

impl<C> Entry<C> {
    pub(super) const fn side(&self, from_low: bool) -> Side {
        if from_low == self.initiator_is_low { Side::Initiator } else { Side::Acceptor }
    }

    pub(super) fn opening(&self, at: At, mid_stream: bool) -> Opening {
        let (initiator, acceptor) =
            (self.ends.address(self.initiator_is_low), self.ends.address(!self.initiator_is_low));
        Opening { id: FlowId::new(initiator, acceptor, at.time), at, initiator, acceptor, mid_stream }
    }
}

/// Lists of connections that have octets waiting behind a hole, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holes {
    OfOthers,
    OfLinks,
}

pub(super) const BY_USE: usize = 0;
pub(super) const BY_HOLE: usize = 1;

#[derive(Debug)]
pub(super) struct Entries<C>(pub(super) Vec<Entry<C>>);

impl<C> Entries<C> {
    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Entry<C>> {
        self.0.get_mut(index as usize)
    }
}

impl<C> Linked<BY_USE> for Entries<C> {
    fn links(&mut self, index: u32) -> Option<&mut Links> {
        self.get_mut(index).map(|entry| &mut entry.by_use)
    }
}

impl<C> Linked<BY_HOLE> for Entries<C> {
    fn links(&mut self, index: u32) -> Option<&mut Links> {
        self.get_mut(index).map(|entry| &mut entry.by_hole)
    }
}
