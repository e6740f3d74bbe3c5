//! What a decoder has to say besides its facts: broken rules, unreadable parts, oddities and limits that were reached.

use crate::packet::{At, Side};

/// One remark, with the packet that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// When and where.
    pub at: At,
    /// Who sent what it is about.
    pub side: Side,
    /// What it is.
    pub kind: NoticeKind,
}

/// Kinds of remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// The peer broke the protocol in a way that neither loss nor a mid-stream start explains.
    Violation(String),
    /// Something could not be read.
    Undecodable(String),
    /// Something odd but harmless, by a stable kebab-case word and in a sentence.
    Weird(&'static str, String),
    /// A limit was reached, by its name.
    Limit(&'static str),
}

/// Remarks that one connection may have waiting. A peer that provokes more gets the last one replaced by the limit's name.
const WAITING: usize = 16;

/// Remarks in the order in which they were made, bounded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notices(Vec<Notice>);

impl Notices {
    /// Adds a remark.
    pub(crate) fn push(&mut self, at: &At, side: Side, kind: NoticeKind) {
        if self.0.len() < WAITING {
            self.0.push(Notice { at: *at, side, kind });
        } else if let Some(last) = self.0.last_mut() {
            last.kind = NoticeKind::Limit("notices");
        }
    }

    /// Takes the oldest remark.
    pub(crate) fn poll(&mut self) -> Option<Notice> {
        if self.0.is_empty() { None } else { Some(self.0.remove(0)) }
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        self.0.capacity() * size_of::<Notice>()
    }
}
