//! Counts the actions of one link: alike ones together, told at most once an interval.

use std::fmt::Write as _;
use std::hash::{BuildHasher, Hash, Hasher};
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::{Action, Subject};
use crate::dist::Operation;
use crate::etf::print::{self, Detail};
use crate::etf::{Atom, Cursor};
use crate::model::{Activity, ActivityKind, Confidence};
use crate::packet::{At, Side};
use crate::policy::Arguments;
use crate::time::Timestamp;

/// How often repeats of an action are told. Alerts repeat less often than that, and a loop of 50,000 calls a second
/// must not become 50,000 events.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Longest text of arguments that is kept, in octets: enough for a shell command, not for a payload.
const ARGUMENTS_LEN: usize = 512;

/// All actions of one link so far.
#[derive(Debug, Default)]
pub struct Tally {
    entries: Vec<Entry>,
    index: HashTable<u32>,
    hasher: RandomState,
    next_flush: Option<Timestamp>,
    /// Actions beyond the limit, not kept apart.
    uncounted: u64,
    /// Octets of the entries' texts. A peer chooses how long its names are.
    texts: usize,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    activity: Activity,
    /// Not yet told.
    pending: u64,
    pending_since: Timestamp,
}

/// What a tally is told with each action.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// When and where.
    pub at: &'a At,
    /// Who did it.
    pub side: Side,
    /// What carried it.
    pub operation: Operation,
    /// The connection.
    pub flow_id: &'a str,
    /// Names of the nodes at the ends, the initiator's first.
    pub nodes: [Option<&'a str>; 2],
    /// How much of the arguments is kept.
    pub arguments: Arguments,
    /// How many different actions are kept apart.
    pub limit: usize,
}

/// What became of an action.
#[derive(Debug)]
pub enum Counted {
    /// It is the first of its kind.
    New(Box<Activity>),
    /// There was one like it; it will be told with the next flush.
    Again,
    /// The limit of different actions is reached.
    OverLimit,
}

impl Tally {
    /// Counts one action.
    pub fn count(&mut self, action: &Action<'_>, occasion: &Occasion<'_>) -> Counted {
        let hash = self.hash(action, occasion);
        let same = |&place: &u32| {
            self.entries.get(place as usize).is_some_and(|entry| {
                entry.hash == hash && entry.activity.kind == action.kind && self::same_side(entry, occasion)
            })
        };
        if let Some(&place) = self.index.find(hash, same) {
            // Whoever could make two subjects collide would need the hasher's secret state.
            if let Some(entry) = self.entries.get_mut(place as usize) {
                if entry.pending == 0 {
                    entry.pending_since = occasion.at.time;
                }
                entry.pending += 1;
                entry.activity.count += 1;
                entry.activity.last_seen = occasion.at.time;
                if self.next_flush.is_none() {
                    self.next_flush = Some(occasion.at.time.plus(INTERVAL));
                }
                return Counted::Again;
            }
        }
        if self.entries.len() >= occasion.limit {
            self.uncounted += 1;
            return Counted::OverLimit;
        }
        let activity = describe(action, occasion);
        let place = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.texts += texts(&activity);
        self.entries.push(Entry { hash, activity: activity.clone(), pending: 0, pending_since: occasion.at.time });
        self.index.insert_unique(hash, place, |&place| self.entries.get(place as usize).map_or(0, |entry| entry.hash));
        Counted::New(Box::new(activity))
    }

    /// When repeats are due to be told.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Timestamp> {
        self.next_flush
    }

    /// Tells all repeats: `activity.count` is their number since they were last told.
    pub fn flush(&mut self, mut tell: impl FnMut(Activity)) {
        if self.next_flush.take().is_none() {
            return;
        }
        for entry in &mut self.entries {
            if entry.pending == 0 {
                continue;
            }
            let count = std::mem::take(&mut entry.pending);
            tell(Activity { count, first_seen: entry.pending_since, ..entry.activity.clone() });
        }
    }

    /// The node names of later events, once they are known.
    pub fn rename(&mut self, nodes: [Option<&str>; 2]) {
        for entry in &mut self.entries {
            let (from, to) = ends(nodes, entry.activity.from_initiator);
            entry.activity.from_node = from;
            entry.activity.to_node = to;
        }
        self.texts = self.entries.iter().map(|entry| texts(&entry.activity)).sum();
    }

    /// Octets that it holds.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.texts + self.index.capacity() * size_of::<u32>()
    }

    fn hash(&self, action: &Action<'_>, occasion: &Occasion<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        // As one number: a write costs as much as a short text.
        hasher.write_u64((action.kind as u64) << 1 | occasion.side.index() as u64);
        match action.subject {
            Subject::Mfa { module, function, arity } => {
                hash_atom(module, &mut hasher);
                hash_atom(function, &mut hasher);
                arity.hash(&mut hasher);
            }
            Subject::Fun { module, index, arity } => {
                hash_atom(module, &mut hasher);
                (index, arity).hash(&mut hasher);
            }
            Subject::Name(name) => hash_atom(name, &mut hasher),
            Subject::Pid => 1_u8.hash(&mut hasher),
            Subject::None => occasion.operation.hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// Octets of the texts of an activity.
fn texts(activity: &Activity) -> usize {
    let Activity { from_node, to_node, mfa, target, arguments, flow_id, operation, first_packet, .. } = activity;
    let optional = [from_node, to_node, mfa, target, arguments].into_iter().flatten();
    optional.chain([flow_id, operation, first_packet]).map(String::capacity).sum()
}

fn same_side(entry: &Entry, occasion: &Occasion<'_>) -> bool {
    entry.activity.from_initiator == (occasion.side == Side::Initiator)
}

#[inline]
fn hash_atom(atom: Atom<'_>, hasher: &mut impl Hasher) {
    match atom.text {
        Some(text) => text.hash(hasher),
        None => atom.slot.hash(hasher),
    }
}

/// The action in words.
#[must_use]
pub fn describe(action: &Action<'_>, occasion: &Occasion<'_>) -> Activity {
    let from_initiator = occasion.side == Side::Initiator;
    let (from_node, to_node) = ends(occasion.nodes, from_initiator);
    let (mfa, target, confidence) = words(action);
    let packet = occasion.at.packet;
    Activity {
        kind: action.kind,
        from_node,
        to_node,
        mfa,
        target,
        count: 1,
        first_seen: occasion.at.time,
        last_seen: occasion.at.time,
        flow_id: occasion.flow_id.to_owned(),
        operation: occasion.operation.name().to_owned(),
        from_initiator,
        confidence,
        arguments: arguments(action, occasion.arguments),
        first_packet: packet.to_string(),
    }
}

fn ends(nodes: [Option<&str>; 2], from_initiator: bool) -> (Option<String>, Option<String>) {
    let [initiator, acceptor] = nodes.map(|name| name.map(str::to_owned));
    if from_initiator { (initiator, acceptor) } else { (acceptor, initiator) }
}

fn words(action: &Action<'_>) -> (Option<String>, Option<String>, Confidence) {
    match action.subject {
        Subject::Mfa { module, function, arity } => {
            // Put together without formatting: this runs for each message where all are told.
            let (name, of) = (function.to_text(), module.to_text());
            let mut mfa = String::with_capacity(of.len() + name.len() + ":/255".len());
            mfa.push_str(&of);
            mfa.push(':');
            mfa.push_str(&name);
            mfa.push('/');
            match arity {
                Some(arity) => match char::from_digit(arity, 10) {
                    Some(digit) => mfa.push(digit),
                    None => _ = write!(mfa, "{arity}"),
                },
                None => mfa.push('?'),
            }
            (Some(mfa), None, sureness(&[module, function]))
        }
        Subject::Fun { module, index, arity } => {
            let fun = format!("fun {}:-fun.{index}-/{arity}", module.to_text());
            (Some(fun), None, sureness(&[module]))
        }
        Subject::Name(name) => (None, Some(name.to_text().into_owned()), sureness(&[name])),
        Subject::Pid => (None, Some("<pid>".to_owned()), Confidence::Certain),
        Subject::None => (None, None, Confidence::Certain),
    }
}

/// Names that were read are certain, inferred ones likely, and without a name it is only possible.
fn sureness(atoms: &[Atom<'_>]) -> Confidence {
    let one = |atom: &Atom<'_>| match (atom.text, atom.inferred) {
        (Some(_), false) => Confidence::Certain,
        (Some(_), true) => Confidence::Likely,
        (None, _) => Confidence::Possible,
    };
    atoms.iter().map(one).min().unwrap_or_default()
}

/// Whether it is not known which function is called: it may be one that takes a cookie.
fn is_unnamed(subject: Subject<'_>) -> bool {
    matches!(subject, Subject::Mfa { module, function, .. } if module.text.is_none() || function.text.is_none())
}

/// The arguments as far as the policy shows them. An action that carries a cookie never shows them.
fn arguments(action: &Action<'_>, wanted: Arguments) -> Option<String> {
    let cursor: Cursor<'_> = action.arguments?;
    if action.cookie != super::Cookie::None || action.kind == ActivityKind::Reply || is_unnamed(action.subject) {
        return None;
    }
    match wanted {
        Arguments::None => None,
        Arguments::Types => Some(print::render(cursor, Detail::Types, ARGUMENTS_LEN)),
        Arguments::Full => Some(print::render(cursor, Detail::Full, ARGUMENTS_LEN)),
    }
}
