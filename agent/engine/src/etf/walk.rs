//! The walker: checks a term of any size as its bytes arrive, in memory that depends on the depth limit alone.
//!
//! It builds nothing and keeps nothing of the contents. Wherever the pieces are cut, it gives the same verdict at the
//! same octet. [`Cursor::skip`](super::Cursor::skip) is the same machine over bytes that are all there.
//!
//! A term is a run of tokens. The walker keeps how many elements each open compound still expects; a token that has
//! more to it than a head and octets to pass over (a process identifier holds an atom) leaves a list of [`Part`]s.
//! Nearly all tokens are read by [`State::plain`], which is the hottest loop of the product; what it does not know, or
//! sees only the beginning of, goes through [`head`], one token at a time.

use super::cursor::{
    BIG_BYTES, FLOAT_TEXT, FREE_VARIABLES, FUN_HEAD, LATIN1_ATOM_BYTES, MAP_PAIRS, RECORD_FIELD_BYTES, REFERENCE_WORDS,
    UTF8_ATOM_BYTES, finite, float_text, used_bits,
};
use super::tag::Tag;
use crate::wire::{Fault, Malformed, Reader};

/// Octets of the longest head that is read in one go: a float in text. Heads are carried over from piece to piece;
/// everything longer is passed over by counting.
const LONGEST_HEAD: usize = 1 + FLOAT_TEXT;

/// Levels of nesting for which [`skip`] needs no heap: nearly all real terms, and too few octets to notice clearing them.
const NEAR_LEVELS: usize = 16;

/// Levels for which a walker reserves to begin with.
const FIRST_LEVELS: usize = 16;

/// What [`Walker::feed`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// How many of the bytes belong to the term. All of them, unless the term is complete.
    pub consumed: usize,
    /// Whether the term has ended.
    pub complete: bool,
}

/// Checks one term that arrives in pieces.
///
/// Lengths and counts are not compared with what is left, for that is not known; a term that claims more than comes
/// is incomplete at the end ([`Walker::finish`]). Everything else is refused as soon as its octets are seen.
#[derive(Clone, Debug)]
pub struct Walker {
    state: State,
    levels: Vec<u32>,
    depth: usize,
    atoms: usize,
    /// The beginning of a head whose rest has not come.
    carry: [u8; LONGEST_HEAD],
    carried: usize,
    /// Octets of the term before the carried ones.
    passed: u64,
    refused: Option<Malformed>,
}

impl Walker {
    /// A walker for one term in which up to `depth` compounds may be open at a time, in a message whose header
    /// lists `atoms` atoms. It holds up to four octets for each level, and only for levels that came.
    #[must_use]
    pub fn new(depth: usize, atoms: usize) -> Self {
        Self {
            state: State::new(),
            levels: vec![0; FIRST_LEVELS.min(depth)],
            depth,
            atoms,
            carry: [0; LONGEST_HEAD],
            carried: 0,
            passed: 0,
            refused: None,
        }
    }

    /// Makes it ready for another term, keeping its memory.
    pub fn reset(&mut self, atoms: usize) {
        self.state = State::new();
        self.atoms = atoms;
        self.carried = 0;
        self.passed = 0;
        self.refused = None;
    }

    /// Takes the next piece of the term; what follows the term is left to the caller.
    ///
    /// # Errors
    /// What no release sends, by the offset from the start of the term; `TooDeep` beyond the depth limit. From then
    /// on every piece gets the same answer.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Walked, Malformed> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let walked = self.take(bytes);
        self.refused = walked.err();
        walked
    }

    /// Ends the term.
    ///
    /// # Errors
    /// `Truncated` when it is not complete; what [`Walker::feed`] said when it was refused.
    pub fn finish(&self) -> Result<(), Malformed> {
        match self.refused {
            Some(refused) => Err(refused),
            None if self.state.is_complete() => Ok(()),
            None => Err(self.malformed("term", 0, Fault::Truncated)),
        }
    }

    /// How many terms have begun: the whole one and every element, key, value and tail in it.
    #[must_use]
    pub const fn terms(&self) -> u64 {
        self.state.terms
    }

    /// How many octets of the term have been read, without those that are held back until a head is complete.
    #[must_use]
    pub const fn passed(&self) -> u64 {
        self.passed
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Walked, Malformed> {
        let mut from = 0;
        if self.carried > 0 {
            // One head is longer than what was carried, and fits with octets to spare.
            let held = self.carried;
            let mut carry = self.carry;
            let room = carry.get_mut(held..).unwrap_or_default();
            let added = room.len().min(bytes.len());
            room.iter_mut().zip(bytes).for_each(|(slot, &byte)| *slot = byte);
            let joined = carry.get(..held + added).unwrap_or_default();
            let passed = self.run(joined)?;
            if passed < held {
                // Nothing was passed, or a head would have been complete before.
                self.carry = carry;
                self.carried = held + added;
                return Ok(Walked { consumed: added, complete: false });
            }
            self.carried = 0;
            from = passed - held;
        }
        let rest = bytes.get(from..).unwrap_or_default();
        let passed = self.run(rest)?;
        if self.state.is_complete() {
            return Ok(Walked { consumed: from + passed, complete: true });
        }
        let tail = rest.get(passed..).unwrap_or_default();
        self.carry.iter_mut().zip(tail).for_each(|(slot, &byte)| *slot = byte);
        self.carried = tail.len();
        Ok(Walked { consumed: bytes.len(), complete: false })
    }

    /// Goes as far as complete heads go, and says how far that is.
    fn run(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        loop {
            match self.state.run(bytes, &mut at, &mut self.levels, self.atoms, false) {
                Stop::Done | Stop::More => break,
                Stop::Full if self.levels.len() < self.depth => {
                    let levels = self.levels.len().saturating_mul(2).clamp(FIRST_LEVELS, self.depth.max(FIRST_LEVELS));
                    self.levels.resize(levels.min(self.depth), 0);
                }
                Stop::Full => return Err(self.malformed("term", at, Fault::TooDeep)),
                Stop::Refused(what, fault) => return Err(self.malformed(what, at, fault)),
            }
        }
        self.passed = self.passed.saturating_add(at as u64);
        Ok(at)
    }

    fn malformed(&self, what: &'static str, at: usize, fault: Fault) -> Malformed {
        let passed = usize::try_from(self.passed).unwrap_or(usize::MAX);
        Malformed { what, offset: passed.saturating_add(at), fault }
    }
}

/// The length of the term at which `reader` stands. With `whole`, counts are compared with what is left.
pub(super) fn skip(reader: &Reader<'_>, atoms: usize, depth: usize, whole: bool) -> Result<usize, Malformed> {
    let mut state = State::new();
    let mut at = 0;
    let mut near = [0; NEAR_LEVELS];
    let near = near.get_mut(..depth.min(NEAR_LEVELS)).unwrap_or_default();
    // Nearly all terms are plain to their end, and then nothing has to be kept of where the machine is.
    state.plain(reader.rest(), &mut at, near, atoms, whole);
    if state.left == 0 { Ok(at) } else { skip_on(reader, state, at, near, atoms, depth, whole) }
}

/// The same from where the machine is after what was plain.
#[cold]
fn skip_on(
    reader: &Reader<'_>,
    mut state: State,
    mut at: usize,
    near: &mut [u32],
    atoms: usize,
    depth: usize,
    whole: bool,
) -> Result<usize, Malformed> {
    let bytes = reader.rest();
    let malformed = |what, at, fault| Malformed { what, offset: reader.offset().saturating_add(at), fault };
    let mut stop = state.run(bytes, &mut at, near, atoms, whole);
    if stop == Stop::Full && depth > NEAR_LEVELS {
        let mut far = near.to_vec();
        while stop == Stop::Full && far.len() < depth {
            far.resize(far.len().saturating_mul(2).min(depth), 0);
            stop = state.run(bytes, &mut at, &mut far, atoms, whole);
        }
    }
    match stop {
        // What is passed over by counting may not be there.
        Stop::Done => Ok(at),
        Stop::More => Err(malformed("term", at, Fault::Truncated)),
        Stop::Full => Err(malformed("term", at, Fault::TooDeep)),
        Stop::Refused(what, fault) => Err(malformed(what, at, fault)),
    }
}

/// Why the machine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The term is complete.
    Done,
    /// The next head, or what was to be passed over, is not all there.
    More,
    /// The compound that comes next needs another level.
    Full,
    /// No release sends this.
    Refused(&'static str, Fault),
}

/// What a token still consists of behind its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// An atom: a node, a module, a name.
    Atom,
    /// An atom that is among the octets that were counted.
    AtomInside,
    /// As many atoms as were counted.
    Atoms,
    /// A process identifier's tag and node; the octets that follow are then known.
    Pid,
    /// Octets to pass over, as many as were counted.
    Octets,
    /// The octets that were counted, less that atom.
    Rest,
    /// A small integer.
    Integer,
    /// A small integer that is an arity.
    Arity,
    /// As many terms as were counted.
    Terms,
}

/// The parts of each token that has any, in wire order.
mod parts {
    use super::Part::{self, Arity, Atom, AtomInside, Atoms, Integer, Octets, Pid, Rest, Terms};

    /// Pid, port, reference: node, then numbers.
    pub(super) const NODE: &[Part] = &[Atom, Octets];
    /// Export: module, function, arity.
    pub(super) const EXPORT: &[Part] = &[Atom, Atom, Arity];
    /// Closure: module, and the rest by its size.
    pub(super) const FUN: &[Part] = &[AtomInside, Rest];
    /// Closure of old: pid, module, index, uniq, free variables.
    pub(super) const OLD_FUN: &[Part] = &[Pid, Atom, Octets, Atom, Integer, Integer, Terms];
    /// Native record: module, name, names, values.
    pub(super) const RECORD: &[Part] = &[Atom, Atom, Atoms, Terms];
}

/// Where the machine is in a term.
#[derive(Clone, Copy, Debug)]
struct State {
    /// Elements to come at the innermost level.
    left: u32,
    /// Open levels, each of which keeps how many elements the one around it still expects.
    open: usize,
    /// Octets to pass over before anything else.
    pass: u64,
    /// What the token still consists of, before any other term.
    parts: &'static [Part],
    /// Octets for [`Part::Octets`].
    octets: u32,
    /// Terms for [`Part::Terms`], octets of the atom for [`Part::Rest`].
    count: u32,
    /// Atoms to come for [`Part::Atoms`].
    names: u32,
    terms: u64,
}

impl State {
    const fn new() -> Self {
        Self { left: 1, open: 0, pass: 0, parts: &[], octets: 0, count: 0, names: 0, terms: 0 }
    }

    const fn is_complete(&self) -> bool {
        self.left == 0 && self.open == 0 && self.pass == 0 && self.parts.is_empty()
    }

    /// Goes on from `at` as far as it can, and leaves `at` before the item that stopped it.
    fn run(&mut self, bytes: &[u8], at: &mut usize, levels: &mut [u32], atoms: usize, whole: bool) -> Stop {
        loop {
            if self.pass > 0 {
                let here = (bytes.len() - *at) as u64;
                let passed = self.pass.min(here);
                self.pass -= passed;
                *at += usize::try_from(passed).unwrap_or(0);
                if self.pass > 0 {
                    return Stop::More;
                }
            }
            while let Some((&part, later)) = self.parts.split_first() {
                match self.part(part, later, bytes.get(*at..).unwrap_or_default(), levels, atoms) {
                    Ok(size) => *at += size,
                    Err(stop) => return stop,
                }
                if self.pass > 0 {
                    break;
                }
            }
            if self.pass > 0 {
                continue;
            }
            self.close(levels);
            if self.left == 0 {
                return Stop::Done;
            }
            self.plain(bytes, at, levels, atoms, whole);
            if self.left == 0 {
                continue;
            }
            let rest = bytes.get(*at..).unwrap_or_default();
            let head = match head(rest, atoms) {
                Ok(head) => head,
                Err(stop) => return stop,
            };
            if whole && head.least > (rest.len() - head.size) as u64 {
                return Stop::Refused(head.what, Fault::TooLong);
            }
            let around = self.left.saturating_sub(1);
            if !self.enter(levels, around, head.children) {
                return Stop::Full;
            }
            self.terms = self.terms.wrapping_add(1);
            self.pass = head.pass;
            self.parts = head.parts;
            self.octets = head.octets;
            self.count = head.count;
            self.names = head.count;
            *at += head.size;
        }
    }

    /// Reads tokens for as long as they are plain and all there, which is the normal case. There must be one to come.
    #[inline(always)]
    fn plain(&mut self, bytes: &[u8], at: &mut usize, levels: &mut [u32], atoms: usize, whole: bool) {
        let mut rest = bytes.get(*at..).unwrap_or_default();
        let (mut left, mut open, mut terms) = (self.left, self.open, self.terms);
        while let Some((size, children)) = plain_token(rest, atoms) {
            let Some(behind) = rest.get(size..) else { break };
            // At least one element was to come, or the loop had ended.
            let around = left.wrapping_sub(1);
            if children == 0 {
                left = around;
            } else {
                let fits = !whole || children as usize <= behind.len();
                let Some(level) = levels.get_mut(open).filter(|_| fits) else { break };
                *level = around;
                open += 1;
                left = children;
            }
            terms = terms.wrapping_add(1);
            rest = behind;
            while left == 0 {
                let Some(around) = open.checked_sub(1) else { break };
                open = around;
                left = levels.get(around).copied().unwrap_or_default();
            }
            if left == 0 {
                break;
            }
        }
        (self.left, self.open, self.terms) = (left, open, terms);
        *at = bytes.len() - rest.len();
    }

    /// Reads one part of a token and says how many octets it is.
    fn part(
        &mut self,
        part: Part,
        later: &'static [Part],
        rest: &[u8],
        levels: &mut [u32],
        atoms: usize,
    ) -> Result<usize, Stop> {
        let mut size = 0;
        match part {
            Part::Atom => (size, self.pass) = atom_head(rest, atoms)?,
            Part::AtomInside => {
                (size, self.pass) = atom_head(rest, atoms)?;
                self.count = u32::try_from(self.pass.saturating_add(size as u64)).unwrap_or(u32::MAX);
            }
            Part::Rest => {
                let rest = self.octets.checked_sub(self.count).ok_or(Stop::Refused("fun", Fault::Impossible))?;
                self.pass = rest.into();
            }
            Part::Atoms => {
                if let Some(names) = self.names.checked_sub(1) {
                    (size, self.pass) = atom_head(rest, atoms)?;
                    self.names = names;
                    // Stays until there are none.
                    return Ok(size);
                }
            }
            Part::Pid => {
                self.octets = match Tag(*rest.first().ok_or(Stop::More)?) {
                    Tag::NEW_PID => 12,
                    Tag::PID => 9,
                    _ => return Err(Stop::Refused("pid", Fault::Impossible)),
                };
                size = 1;
            }
            Part::Octets => self.pass = self.octets.into(),
            Part::Integer => size = integer_head(rest)?.0,
            Part::Arity => {
                let (len, value) = integer_head(rest)?;
                u8::try_from(value).map_err(|_| Stop::Refused("fun arity", Fault::Impossible))?;
                size = len;
            }
            Part::Terms => {
                if !self.enter(levels, self.left, self.count) {
                    return Err(Stop::Full);
                }
            }
        }
        self.parts = later;
        Ok(size)
    }

    /// Opens a level of so many elements, around which so many are still to come; false when there is no room for it.
    fn enter(&mut self, levels: &mut [u32], around: u32, children: u32) -> bool {
        if children == 0 {
            self.left = around;
            return true;
        }
        let Some(level) = levels.get_mut(self.open) else { return false };
        *level = around;
        self.open += 1;
        self.left = children;
        true
    }

    /// Leaves every level that has had all its elements.
    fn close(&mut self, levels: &[u32]) {
        while self.left == 0 {
            let Some(around) = self.open.checked_sub(1) else { return };
            self.open = around;
            self.left = levels.get(around).copied().unwrap_or_default();
        }
    }
}

/// How many octets a token has, if it is plain and so much is there that this can be said, and how many terms follow that
/// belong to it.
#[inline(always)]
fn plain_token(rest: &[u8], atoms: usize) -> Option<(usize, u32)> {
    let &tag = rest.first()?;
    Some(match Tag(tag) {
        Tag::NIL => (1, 0),
        Tag::SMALL_INTEGER => (2, 0),
        Tag::INTEGER => (5, 0),
        Tag::NEW_FLOAT => (finite(f64::from_be_bytes(*rest.get(1..)?.first_chunk()?)).map(|_| 9)?, 0),
        Tag::SMALL_ATOM_UTF8 | Tag::SMALL_ATOM => (2 + usize::from(*rest.get(1)?), 0),
        Tag::ATOM_CACHE_REF => (cached(rest, atoms)?, 0),
        Tag::ATOM => (long(rest, LATIN1_ATOM_BYTES)?, 0),
        Tag::ATOM_UTF8 => (long(rest, UTF8_ATOM_BYTES)?, 0),
        Tag::STRING => (long(rest, u16::MAX)?, 0),
        Tag::BINARY => (usize::try_from(count(rest)?).ok()?.checked_add(5)?, 0),
        Tag::SMALL_BIG => (3 + usize::from(*rest.get(1)?), 0),
        Tag::NEW_PID => (1 + node(rest.get(1..)?, atoms)? + 12, 0),
        Tag::NEWER_REFERENCE => {
            let words = u16::from_be_bytes(*rest.get(1..)?.first_chunk()?);
            if words > REFERENCE_WORDS {
                return None;
            }
            (3 + node(rest.get(3..)?, atoms)? + 4 + 4 * usize::from(words), 0)
        }
        Tag::SMALL_TUPLE => (2, u32::from(*rest.get(1)?)),
        Tag::LIST => (5, count(rest)?.checked_add(1)?),
        Tag::MAP => (5, count(rest).filter(|&pairs| pairs < MAP_PAIRS)? * 2),
        _ => return None,
    })
}

/// The number of 32 bits behind a tag.
#[inline]
fn count(rest: &[u8]) -> Option<u32> {
    let (_, rest) = rest.split_first()?;
    rest.first_chunk().copied().map(u32::from_be_bytes)
}

/// The size of a token with a length of 16 bits, which is at most `most`.
#[inline]
fn long(rest: &[u8], most: u16) -> Option<usize> {
    let len = u16::from_be_bytes(*rest.get(1..)?.first_chunk()?);
    (len <= most).then_some(3 + usize::from(len))
}

/// The size of a reference into a table of so many atoms.
#[inline]
fn cached(rest: &[u8], atoms: usize) -> Option<usize> {
    (usize::from(*rest.get(1)?) < atoms).then_some(2)
}

/// The size of a node's name as today's nodes send it.
#[inline]
fn node(rest: &[u8], atoms: usize) -> Option<usize> {
    match Tag(*rest.first()?) {
        Tag::ATOM_CACHE_REF => cached(rest, atoms),
        Tag::SMALL_ATOM_UTF8 => Some(2 + usize::from(*rest.get(1)?)),
        Tag::ATOM => long(rest, LATIN1_ATOM_BYTES),
        _ => None,
    }
}

/// The beginning of a token: what has to be seen together, and what then follows.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    what: &'static str,
    /// Octets of the head itself.
    size: usize,
    /// Octets to pass over behind it.
    pass: u64,
    /// Terms that follow.
    children: u32,
    /// Octets that have to follow at least.
    least: u64,
    parts: &'static [Part],
    octets: u32,
    count: u32,
}

impl Head {
    fn plain(what: &'static str, size: usize, pass: u64) -> Result<Self, Stop> {
        Ok(Self { what, size, pass, ..Self::default() })
    }

    fn compound(what: &'static str, size: usize, children: u32) -> Result<Self, Stop> {
        Ok(Self { what, size, children, least: children.into(), ..Self::default() })
    }

    fn node(size: usize, octets: u32) -> Result<Self, Stop> {
        Ok(Self { size, parts: parts::NODE, octets, ..Self::default() })
    }
}

/// Reads the head of any token. `More` when it is not all there.
fn head(rest: &[u8], atoms: usize) -> Result<Head, Stop> {
    let (&tag, tail) = rest.split_first().ok_or(Stop::More)?;
    match Tag(tag) {
        Tag::ATOM_CACHE_REF | Tag::SMALL_ATOM_UTF8 | Tag::ATOM_UTF8 | Tag::SMALL_ATOM | Tag::ATOM => {
            let (size, pass) = atom_head(rest, atoms)?;
            Head::plain("atom", size, pass)
        }
        Tag::SMALL_INTEGER | Tag::INTEGER => Head::plain("integer", integer_head(rest)?.0, 0),
        Tag::SMALL_BIG => {
            let [len, _sign] = *tail.first_chunk().ok_or(Stop::More)?;
            Head::plain("integer", 3, len.into())
        }
        Tag::LARGE_BIG => {
            let len = number(tail)?;
            if len > BIG_BYTES {
                return Err(Stop::Refused("integer", Fault::TooLong));
            }
            octet(tail.get(4..).unwrap_or_default())?;
            Head::plain("integer", 6, len.into())
        }
        Tag::NEW_FLOAT => {
            let bits = tail.first_chunk().ok_or(Stop::More)?;
            finite(f64::from_be_bytes(*bits)).ok_or(Stop::Refused("float", Fault::Impossible))?;
            Head::plain("float", 9, 0)
        }
        Tag::FLOAT => {
            let text = tail.first_chunk().ok_or(Stop::More)?;
            float_text(text).ok_or(Stop::Refused("float", Fault::Impossible))?;
            Head::plain("float", 1 + FLOAT_TEXT, 0)
        }
        Tag::NIL => Head::plain("list", 1, 0),
        Tag::STRING => Head::plain("string", 3, half(tail)?.into()),
        Tag::BINARY => Head::plain("binary", 5, number(tail)?.into()),
        Tag::BIT_BINARY => {
            let (len, bits) = (number(tail)?, octet(tail.get(4..).unwrap_or_default())?);
            if !used_bits(len, bits) {
                return Err(Stop::Refused("bit string", Fault::Impossible));
            }
            Head::plain("bit string", 6, len.into())
        }
        Tag::SMALL_TUPLE => Head::compound("tuple arity", 2, octet(tail)?.into()),
        Tag::LARGE_TUPLE => Head::compound("tuple arity", 5, number(tail)?),
        Tag::LIST => {
            let with_tail = number(tail)?.checked_add(1).ok_or(Stop::Refused("list length", Fault::TooLong))?;
            Head::compound("list length", 5, with_tail)
        }
        Tag::MAP => match number(tail)? {
            pairs if pairs < MAP_PAIRS => Head::compound("map size", 5, pairs.wrapping_mul(2)),
            _ => Err(Stop::Refused("map size", Fault::TooLong)),
        },
        Tag::NEW_PID => Head::node(1, 12),
        Tag::PID => Head::node(1, 9),
        Tag::V4_PORT => Head::node(1, 12),
        Tag::NEW_PORT => Head::node(1, 8),
        Tag::PORT | Tag::REFERENCE => Head::node(1, 5),
        Tag::NEWER_REFERENCE | Tag::NEW_REFERENCE => {
            let words = half(tail)?;
            if words > REFERENCE_WORDS {
                return Err(Stop::Refused("reference", Fault::TooLong));
            }
            let creation = if Tag(tag) == Tag::NEWER_REFERENCE { 4 } else { 1 };
            Head::node(3, creation + 4 * u32::from(words))
        }
        Tag::EXPORT => Ok(Head { size: 1, parts: parts::EXPORT, ..Head::default() }),
        Tag::NEW_FUN => {
            let size = number(tail)?;
            let free = number(tail.get(4 + 1 + 16 + 4..).unwrap_or_default())?;
            let octets = size.checked_sub(FUN_HEAD).filter(|_| free <= FREE_VARIABLES);
            let octets = octets.ok_or(Stop::Refused("fun", Fault::Impossible))?;
            Ok(Head { size: 1 + 4 + 1 + 16 + 4 + 4, parts: parts::FUN, octets, ..Head::default() })
        }
        Tag::FUN => {
            let count = number(tail)?;
            if count > FREE_VARIABLES {
                return Err(Stop::Refused("fun", Fault::Impossible));
            }
            Ok(Head { size: 5, parts: parts::OLD_FUN, count, ..Head::default() })
        }
        Tag::RECORD => {
            let count = number(tail)?;
            octet(tail.get(4..).unwrap_or_default())?;
            let least = u64::from(count).saturating_mul(RECORD_FIELD_BYTES);
            Ok(Head { what: "record", size: 6, parts: parts::RECORD, count, least, ..Head::default() })
        }
        Tag(tag) => Err(Stop::Refused(Tag(tag).refused_as(), Fault::UnknownTag(tag))),
    }
}

/// The head of an atom: its octets, and those of its text.
fn atom_head(rest: &[u8], atoms: usize) -> Result<(usize, u64), Stop> {
    let (&tag, tail) = rest.split_first().ok_or(Stop::More)?;
    let (size, len, most) = match Tag(tag) {
        Tag::ATOM_CACHE_REF => {
            let index = octet(tail)?;
            return match usize::from(index) < atoms {
                true => Ok((2, 0)),
                false => Err(Stop::Refused("atom cache reference", Fault::Impossible)),
            };
        }
        Tag::SMALL_ATOM_UTF8 | Tag::SMALL_ATOM => (2, octet(tail)?.into(), LATIN1_ATOM_BYTES),
        Tag::ATOM_UTF8 => (3, half(tail)?, UTF8_ATOM_BYTES),
        Tag::ATOM => (3, half(tail)?, LATIN1_ATOM_BYTES),
        _ => return Err(Stop::Refused("atom", Fault::Impossible)),
    };
    if len > most { Err(Stop::Refused("atom", Fault::TooLong)) } else { Ok((size, len.into())) }
}

/// A small integer: its octets and its value.
fn integer_head(rest: &[u8]) -> Result<(usize, i64), Stop> {
    let (&tag, tail) = rest.split_first().ok_or(Stop::More)?;
    match Tag(tag) {
        Tag::SMALL_INTEGER => Ok((2, octet(tail)?.into())),
        Tag::INTEGER => Ok((5, number(tail)?.cast_signed().into())),
        _ => Err(Stop::Refused("integer", Fault::Impossible)),
    }
}

fn octet(tail: &[u8]) -> Result<u8, Stop> {
    tail.first().copied().ok_or(Stop::More)
}

fn half(tail: &[u8]) -> Result<u16, Stop> {
    tail.first_chunk().copied().map(u16::from_be_bytes).ok_or(Stop::More)
}

fn number(tail: &[u8]) -> Result<u32, Stop> {
    tail.first_chunk().copied().map(u32::from_be_bytes).ok_or(Stop::More)
}
#[cfg(test)]
mod tests;
