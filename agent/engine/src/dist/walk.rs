//! The rest of a message whose head was handed on: walked as it comes, validated, and not kept.

use crate::etf::Walker;
use crate::wire::{Fault, Malformed};

/// What a walker holds on the heap at most for each level of nesting.
const LEVEL: usize = size_of::<u32>();

/// How far the terms of a message are.
pub(super) struct Walk {
    state: State,
    /// Terms that follow the one that is being walked.
    more: u8,
    /// Every term has a version byte of its own.
    pass_through: bool,
    depth: usize,
    atoms: usize,
    /// Octets after the last term.
    pub(super) trailing: u64,
}

enum State {
    /// Before the version byte of a term.
    Version,
    Term(Walker),
    Done,
    /// Octets are missing, or were malformed: what follows cannot be read.
    Lost,
}

/// What the terms of a message are like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) count: u8,
    pub(super) pass_through: bool,
    /// The version byte of the first one is already read.
    pub(super) version_read: bool,
    pub(super) depth: usize,
    pub(super) atoms: usize,
}

impl Walk {
    pub(super) fn new(terms: Terms) -> Self {
        let Terms { count, pass_through, version_read, depth, atoms } = terms;
        let first = pass_through && !version_read;
        let mut walk = Self { state: State::Done, more: count, pass_through: first, depth, atoms, trailing: 0 };
        walk.next_term();
        walk.pass_through = pass_through;
        walk
    }

    /// Of a message that cannot be read.
    pub(super) const fn lost() -> Self {
        Self { state: State::Lost, more: 0, pass_through: false, depth: 0, atoms: 0, trailing: 0 }
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Version if bytes.first() == Some(&131) => {
                    bytes = &bytes[1..];
                    self.state = State::Term(Walker::new(self.depth, self.atoms));
                }
                State::Version => {
                    self.state = State::Lost;
                    return Err(Malformed { what: "version byte", offset: 0, fault: Fault::Impossible });
                }
                State::Term(walker) => match walker.feed(bytes) {
                    Ok(walked) => {
                        bytes = bytes.get(walked.consumed..).unwrap_or_default();
                        if walked.complete {
                            self.next_term();
                        } else {
                            return Ok(());
                        }
                    }
                    Err(error) => {
                        self.state = State::Lost;
                        return Err(error);
                    }
                },
                State::Done => {
                    self.trailing += bytes.len() as u64;
                    return Ok(());
                }
                State::Lost => return Ok(()),
            }
        }
        Ok(())
    }

    /// Nothing follows.
    pub(super) fn finish(&self) -> Result<(), Malformed> {
        match self.state {
            State::Version | State::Term(_) => Err(Malformed { what: "term", offset: 0, fault: Fault::Truncated }),
            State::Done | State::Lost => Ok(()),
        }
    }

    pub(super) const fn memory(&self) -> usize {
        match self.state {
            State::Term(_) => self.depth * LEVEL,
            _ => 0,
        }
    }

    fn next_term(&mut self) {
        self.state = match (self.more, self.pass_through) {
            (0, _) => State::Done,
            (_, true) => State::Version,
            (_, false) => State::Term(Walker::new(self.depth, self.atoms)),
        };
        self.more = self.more.saturating_sub(1);
    }
}
