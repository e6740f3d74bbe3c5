//! Which build of OTP a sender runs, by the cache slots that its atoms have.
//!
//! A sender puts an atom into slot (atom index mod 2039), and the indexes of the atoms that are there from the start are
//! fixed in each build. So entries that are set vote for builds, and where a capture begins in the middle even references to
//! entries that were never seen do: what a `SPAWN_REQUEST` of arity 4 starts is nearly always `erpc:execute_call/4`. Once a
//! build stands out, its table names the atoms of slots that were set before the capture, as far as they are atoms that travel.
//! That is an inference and is marked as one: an atom of the application may have taken the slot.

use std::cmp::Ordering;
use std::sync::OnceLock;

use foldhash::HashMap;

use super::control::{Control, Role};
use super::header::Header;
use super::{Message, Operation};
use crate::etf::{Atom, Cursor, Token};
use crate::model::Confidence;
use crate::packet::{At, Side};

/// Builds whose tables are known.
const BUILDS: usize = 5;
/// An entry where one build's table has it and not every other's.
const HIT: i32 = 1;
/// An entry that the build's table has in another slot.
const MISS: i32 = -2;
/// Module and function of a `SPAWN_REQUEST` in the two slots of `erpc:execute_call` or `erpc:execute_cast`: two slots that fit
/// at once are hardly chance.
const PAIR: i32 = 3;
/// A build stands out with this score…
const ENOUGH: i32 = 4;
/// …and this much more than the next one; one entry that tells two builds apart counts 3 (a hit and a miss).
const MARGIN: i32 = 3;
/// Score from which the guess is `likely` instead of `possible`.
const LIKELY: i32 = 6;
/// Votes that are counted, of each kind; then the matter is settled or never will be.
const VOTES: u16 = 512;
/// Slots of references whose vote is remembered, so that a repeated message does not vote again.
const REMEMBERED: usize = 32;

/// Names that messages from a node's own processes go to.
const NAMES: &[&str] =
    &["rex", "net_kernel", "global_name_server", "user", "init", "code_server", "application_controller"];

/// A known build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build(u8);

/// A guess at a sender's build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildGuess {
    /// The build.
    pub build: &'static str,
    /// Its release.
    pub otp: u16,
    /// Never `certain`.
    pub confidence: Confidence,
}

/// Name and release, in the order of the columns of [`BY_ATOM`].
const BUILT: [(&str, u16); BUILDS] = [("23.2.6", 23), ("25.2.3", 25), ("27.3.4.1", 27), ("28.5", 28), ("29.1.2", 29)];

/// The slot of each atom in each build, or `-`; a line for each atom, in their order. It is made of the tables beside it,
/// and is searched as it stands, for a map would have to be built by every run of the program.
const BY_ATOM: &str = include_str!("../../data/atom-slots/by-atom.txt");
/// Atoms with a larger index, of ordinary boots.
const TRAVELLING: &str = include_str!("../../data/atom-slots/travelling.txt");
/// Atoms that may be inferred.
const WORTH: &str = include_str!("../../data/atom-slots/worth.txt");

/// In which slots each build has an atom; several, where boots differ.
fn homes(atom: &[u8]) -> impl Iterator<Item = (u8, u16)> {
    let columns = line_of(atom).unwrap_or_default().split(' ').zip(0_u8..);
    let predefined = columns.filter_map(|(slot, build)| Some((build, slot.parse().ok()?)));
    predefined.chain(
        travelling().filter(move |&(_, _, other)| other.as_bytes() == atom).map(|(build, slot, _)| (build, slot)),
    )
}

/// The columns of an atom.
fn line_of(atom: &[u8]) -> Option<&'static str> {
    let mut rest = BY_ATOM;
    while !rest.is_empty() {
        let (before, behind) = rest.as_bytes().split_at(rest.len() / 2);
        let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let end = behind.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |newline| before.len() + newline);
        let (name, columns) = rest.get(start..end)?.split_once('\t')?;
        rest = match name.as_bytes().cmp(atom) {
            Ordering::Equal => return Some(columns),
            Ordering::Less => rest.get(end + 1..).unwrap_or_default(),
            Ordering::Greater => rest.get(..start)?,
        };
    }
    None
}

/// Build, slot and atom of those with a larger index.
fn travelling() -> impl Iterator<Item = (u8, u16, &'static str)> {
    TRAVELLING.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.splitn(3, ' ');
        let (name, slot, atom) = (words.next()?, words.next()?, words.next()?);
        let build = (0_u8..).zip(BUILT).find(|(_, row)| row.0 == name)?.0;
        Some((build, slot.parse().ok()?, atom))
    })
}

/// By build and slot: the atom that a reference to the slot most likely means.
fn likely() -> &'static [HashMap<u16, &'static str>; BUILDS] {
    static LIKELY: OnceLock<[HashMap<u16, &'static str>; BUILDS]> = OnceLock::new();
    LIKELY.get_or_init(|| {
        let mut likely: [HashMap<u16, &'static str>; BUILDS] = Default::default();
        let mut enter = |build: u8, slot: u16, atom| {
            if let Some(atoms) = likely.get_mut(usize::from(build)) {
                atoms.insert(slot, atom);
            }
        };
        let worth: Vec<&str> = WORTH.lines().filter(|line| !line.starts_with('#')).collect();
        for &atom in &worth {
            homes(atom.as_bytes()).for_each(|(build, slot)| enter(build, slot, atom));
        }
        // Once more and last, for it is these that travel.
        travelling()
            .filter(|(_, _, atom)| worth.contains(atom))
            .for_each(|(build, slot, atom)| enter(build, slot, atom));
        likely
    })
}

impl Build {
    fn all() -> impl Iterator<Item = Self> {
        (0..BUILDS as u8).map(Self)
    }

    /// The atom that an ordinary node of this build has in the slot, if it is one that travels.
    pub(super) fn atom(self, slot: u16) -> Option<&'static [u8]> {
        let atom = likely().get(usize::from(self.0))?.get(&slot)?;
        Some(atom.as_bytes())
    }

    fn has(self, slot: u16, atom: &str) -> bool {
        homes(atom.as_bytes()).any(|home| home == (self.0, slot))
    }
}

/// The votes on one sender.
#[derive(Default)]
pub(super) struct Fingerprint {
    scores: [i32; BUILDS],
    votes: u16,
    expectations: u16,
    remembered: Vec<u16>,
    settled: Option<Build>,
}

/// The releases that the sender's capabilities allow.
pub(super) type Span = (Option<u16>, Option<u16>);

impl Fingerprint {
    /// The build that stands out.
    pub(super) const fn build(&self) -> Option<Build> {
        self.settled
    }

    /// Whether no build stands out, and references to what is not known have no say any more.
    pub(super) const fn is_done_in_vain(&self) -> bool {
        self.settled.is_none() && self.expectations >= VOTES
    }

    pub(super) fn guess(&self) -> Option<BuildGuess> {
        let build = usize::from(self.settled?.0);
        let &(name, otp) = BUILT.get(build)?;
        let score = self.scores.get(build).copied().unwrap_or_default();
        let confidence = if score >= LIKELY { Confidence::Likely } else { Confidence::Possible };
        Some(BuildGuess { build: name, otp, confidence })
    }

    pub(super) fn memory(&self) -> usize {
        self.remembered.capacity() * size_of::<u16>()
    }

    /// Entries that a header sets.
    pub(super) fn observe(&mut self, header: Header<'_>, span: Span) {
        if self.votes >= VOTES {
            return;
        }
        for (slot, text) in header.references() {
            let homes: Vec<(u8, u16)> = text.into_iter().flat_map(homes).collect();
            if homes.is_empty() {
                continue;
            }
            self.votes = self.votes.saturating_add(1);
            for build in Build::all() {
                let votes = if homes.contains(&(build.0, slot)) {
                    HIT
                } else if homes.iter().any(|home| home.0 == build.0) {
                    MISS
                } else {
                    0
                };
                self.scores[usize::from(build.0)] += votes;
            }
        }
        self.settle(span);
    }

    /// References to what was set before the capture, where the operation says what they should be.
    pub(super) fn expect(&mut self, control: Control, elements: Cursor<'_>, span: Span) {
        if self.settled.is_some() || self.expectations >= VOTES {
            return;
        }
        self.expectations += 1;
        let message = Message {
            at: At::default(),
            side: Side::Initiator,
            operation: control.operation,
            control: elements,
            arity: control.arity,
            payload: None,
            frame_len: 0,
        };
        match control.operation {
            Operation::REG_SEND | Operation::REG_SEND_TT => self.expect_one(message.element(Role::ToName), NAMES),
            Operation::MONITOR_P | Operation::DEMONITOR_P => self.expect_one(message.element(Role::To), NAMES),
            Operation::SPAWN_REQUEST | Operation::SPAWN_REQUEST_TT => {
                self.expect_spawn(message.element(Role::Mfa));
                let mut options = message.element(Role::Options);
                let list = options.as_mut().is_some_and(|options| matches!(options.token(), Ok(Token::List(_))));
                self.expect_one(options.filter(|_| list), &["monitor", "link"]);
            }
            _ => {}
        }
        self.settle(span);
    }

    fn expect_one(&mut self, cursor: Option<Cursor<'_>>, names: &[&str]) {
        let Some(slot) = cursor.and_then(|mut cursor| unknown(&mut cursor)).filter(|&slot| self.is_new(slot)) else {
            return;
        };
        for build in Build::all().filter(|build| names.iter().any(|name| build.has(slot, name))) {
            self.scores[usize::from(build.0)] += HIT;
        }
    }

    fn expect_spawn(&mut self, cursor: Option<Cursor<'_>>) {
        let Some(mut cursor) = cursor.filter(|cursor| matches!({ *cursor }.token(), Ok(Token::Tuple(3)))) else {
            return;
        };
        let _ = cursor.token();
        let (Some(module), Some(function)) = (unknown(&mut cursor), unknown(&mut cursor)) else {
            return;
        };
        let name = match cursor.token() {
            Ok(Token::Integer(4)) => "execute_call",
            Ok(Token::Integer(3)) => "execute_cast",
            _ => return,
        };
        if !self.is_new(function) {
            return;
        }
        for build in Build::all().filter(|build| build.has(module, "erpc") && build.has(function, name)) {
            self.scores[usize::from(build.0)] += PAIR;
        }
    }

    fn is_new(&mut self, slot: u16) -> bool {
        let new = !self.remembered.contains(&slot) && self.remembered.len() < REMEMBERED;
        if new {
            self.remembered.push(slot);
        }
        new
    }

    fn settle(&mut self, (min, max): Span) {
        let possible = |otp: u16| min.is_none_or(|min| min <= otp) && max.is_none_or(|max| otp <= max);
        let score = |build: Build| {
            let possible = BUILT.get(usize::from(build.0)).is_some_and(|row| possible(row.1));
            self.scores.get(usize::from(build.0)).copied().filter(|_| possible)
        };
        let mut scores: Vec<(i32, Build)> =
            Build::all().filter_map(|build| score(build).map(|score| (score, build))).collect();
        scores.sort_by_key(|&(score, _)| std::cmp::Reverse(score));
        let next = scores.get(1).map_or(0, |&(score, _)| score);
        self.settled =
            scores.first().filter(|&&(score, _)| score >= ENOUGH && score - next >= MARGIN).map(|&(_, build)| build);
    }
}

/// The slot of an atom that is not known.
fn unknown(cursor: &mut Cursor<'_>) -> Option<u16> {
    match cursor.token() {
        Ok(Token::Atom(Atom { text: None, slot, .. })) => slot,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::wire::Reader;

    /// Slots that senders use: a prime number of them.
    const USED: usize = 2039;

    #[test]
    fn every_atom_is_found_where_the_tables_have_it() {
        for line in BY_ATOM.lines() {
            let (atom, columns) = line.split_once('\t').unwrap();
            assert_eq!(line_of(atom.as_bytes()), Some(columns), "{atom}");
        }
        for atom in ["!!", "net_kernel2", "net_kerne", "zzz", "\u{10ffff}"] {
            assert_eq!(line_of(atom.as_bytes()), None, "{atom}");
        }
    }

    fn header(entries: &[(u16, &str)]) -> Vec<u8> {
        let mut flags = vec![0_u8; entries.len() / 2 + 1];
        let mut body = Vec::new();
        for (index, (slot, text)) in entries.iter().enumerate() {
            flags[index / 2] |= (8 | (slot >> 8) as u8) << (4 * (index % 2));
            body.extend([*slot as u8, text.len() as u8]);
            body.extend(text.as_bytes());
        }
        [&[entries.len() as u8][..], &flags, &body].concat()
    }

    fn observe(fingerprint: &mut Fingerprint, entries: &[(u16, &str)], span: Span) {
        let bytes = header(entries);
        fingerprint.observe(Header::decode(&mut Reader::new(&bytes)).unwrap(), span);
    }

    #[test]
    fn every_table_has_all_slots_and_the_first_atoms_of_every_build() {
        for build in Build::all() {
            let columns = BY_ATOM.lines().filter_map(|line| line.split_once('\t')?.1.split(' ').nth(build.0.into()));
            let slots: HashSet<usize> = columns.filter_map(|slot| slot.parse().ok()).collect();
            assert_eq!(slots, (0..USED).collect());
            assert_eq!(build.atom(1), Some(&b"true"[..]));
        }
    }

    #[test]
    fn entries_of_one_build_tell_it_and_common_ones_do_not() {
        let mut fingerprint = Fingerprint::default();
        observe(&mut fingerprint, &[(0, "false"), (1, "true"), (8, "normal"), (10, "return")], (None, None));
        assert_eq!(fingerprint.guess(), None);
        observe(&mut fingerprint, &[(431, "net_kernel"), (413, "monitor"), (229, "erlang")], (None, None));
        let guess = fingerprint.guess().unwrap();
        assert_eq!((guess.build, guess.otp, guess.confidence), ("25.2.3", 25, Confidence::Likely));
    }

    #[test]
    fn capabilities_of_another_release_outweigh_the_slots() {
        let mut fingerprint = Fingerprint::default();
        observe(
            &mut fingerprint,
            &[(1, "true"), (431, "net_kernel"), (413, "monitor"), (229, "erlang")],
            (Some(28), Some(28)),
        );
        assert_eq!(fingerprint.guess(), None);
    }

    #[test]
    fn atoms_of_an_application_say_nothing() {
        let mut fingerprint = Fingerprint::default();
        observe(
            &mut fingerprint,
            &[(929, "w_5"), (930, "w_6"), (931, "w_7"), (932, "w_8"), (933, "w_9")],
            (None, None),
        );
        assert_eq!(fingerprint.guess(), None);
    }
}
