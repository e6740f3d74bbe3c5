//! Which build of OTP a sender runs, by the cache slots that its atoms have.
//!
//! A sender puts an atom into slot (atom index mod 2039), and the indexes of the atoms that are there from the start are
//! fixed in each build. So entries that are set vote for builds, and where a capture begins in the middle even references to
//! entries that were never seen do: what a `SPAWN_REQUEST` of arity 4 starts is nearly always `erpc:execute_call/4`. Once a
//! build stands out, its table names the atoms of slots that were set before the capture, as far as they are atoms that travel.
//! That is an inference and is marked as one: an atom of the application may have taken the slot.

use std::sync::OnceLock;

use foldhash::{HashMap, HashSet};

use super::control::{Control, Role};
use super::header::Header;
use super::{Message, Operation};
use crate::etf::{Atom, Cursor, Token};
use crate::model::Confidence;
use crate::packet::{At, Side};

/// Slots that senders use: a prime number of them.
const USED: usize = 2039;
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

const BUILT: [(&str, u16, &str); BUILDS] = [
    ("23.2.6", 23, include_str!("../../data/atom-slots/otp-23.2.6.txt")),
    ("25.2.3", 25, include_str!("../../data/atom-slots/otp-25.2.3.txt")),
    ("27.3.4.1", 27, include_str!("../../data/atom-slots/otp-27.3.4.1.txt")),
    ("28.5", 28, include_str!("../../data/atom-slots/otp-28.5.txt")),
    ("29.1.2", 29, include_str!("../../data/atom-slots/otp-29.1.2.txt")),
];

/// Atoms with a larger index, of ordinary boots.
const TRAVELLING: &str = include_str!("../../data/atom-slots/travelling.txt");
/// Atoms that may be inferred.
const WORTH: &str = include_str!("../../data/atom-slots/worth.txt");

struct Tables {
    /// By build and slot: the atom that a reference to the slot most likely means.
    atoms: [HashMap<u16, &'static str>; BUILDS],
    /// In which slots each build has an atom; several, where boots differ.
    slots: HashMap<&'static [u8], Vec<(u8, u16)>>,
}

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| {
        let worth: HashSet<&str> = WORTH.lines().filter(|line| !line.starts_with('#')).collect();
        let mut tables = Tables { atoms: Default::default(), slots: HashMap::default() };
        let mut enter = |build: usize, slot: u16, atom: &'static str| {
            if worth.contains(atom) {
                tables.atoms[build].insert(slot, atom);
            }
            tables.slots.entry(atom.as_bytes()).or_default().push((build as u8, slot));
        };
        for (build, (_, _, file)) in BUILT.iter().enumerate() {
            for line in file.lines().take(USED) {
                let (slot, atom) = line.split_once(' ').unwrap_or((line, ""));
                slot.parse().into_iter().for_each(|slot| enter(build, slot, atom));
            }
        }
        // later, for it is these that travel
        for line in TRAVELLING.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.splitn(3, ' ');
            let (Some(name), Some(slot), Some(atom)) = (words.next(), words.next(), words.next()) else { continue };
            let build = BUILT.iter().position(|row| row.0 == name);
            build.into_iter().for_each(|build| slot.parse().into_iter().for_each(|slot| enter(build, slot, atom)));
        }
        tables
    })
}

impl Build {
    fn all() -> impl Iterator<Item = Self> {
        (0..BUILDS as u8).map(Self)
    }

    /// The atom that an ordinary node of this build has in the slot, if it is one that travels.
    pub(super) fn atom(self, slot: u16) -> Option<&'static [u8]> {
        let atom = tables().atoms.get(usize::from(self.0))?.get(&slot)?;
        Some(atom.as_bytes())
    }

    fn has(self, slot: u16, atom: &str) -> bool {
        tables().slots.get(atom.as_bytes()).is_some_and(|slots| slots.contains(&(self.0, slot)))
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

    pub(super) fn guess(&self) -> Option<BuildGuess> {
        let build = usize::from(self.settled?.0);
        let &(name, otp, _) = BUILT.get(build)?;
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
        let tables = tables();
        for (slot, text) in header.references() {
            let Some(homes) = text.and_then(|text| tables.slots.get(text)) else { continue };
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
    use super::*;
    use crate::wire::Reader;

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
            let slots: HashSet<u16> =
                tables().slots.values().flatten().filter(|home| home.0 == build.0).map(|home| home.1).collect();
            assert_eq!(slots.len(), USED);
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
