//! The handshake: who says which name, offers which capabilities, and proves to know the cookie.
//!
//! OTP, "Distribution Protocol", section "Distribution Handshake". A message is known by the direction that it goes in
//! and by its tag, never by what it holds: `N` and `n` are a name from the initiator and a challenge from the acceptor.
//! Each direction is read for itself, so a capture of one direction alone gives what that direction says.

use std::fmt;

use super::flags::DistFlags;
use crate::model::HandshakeOutcome;
use crate::packet::Side;
use crate::wire::{Malformed, Reader};

/// The longest handshake message that is read: the largest status is `named:` with a name of 1020 octets, and a
/// receiver ignores what follows a name, but nobody sends more than a few octets there.
pub const MAX_MESSAGE: usize = 2048;

/// A node name is an atom: at most 255 characters, of one octet each here and of up to four after `named:`.
const MAX_NAME: usize = 255;

/// The answer of the acceptor to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Go on.
    Ok,
    /// Go on; the acceptor gives up its own attempt.
    OkSimultaneous,
    /// The acceptor's own attempt goes on instead.
    Nok,
    /// Refused: a capability is missing, or the name may not connect.
    NotAllowed,
    /// There is a connection with that name already; the initiator says whether to go on.
    Alive,
    /// Go on, under the name that comes with it.
    Named,
}

impl Status {
    pub(super) const ALL: [Self; 5] = [Self::Ok, Self::OkSimultaneous, Self::Nok, Self::NotAllowed, Self::Alive];

    /// The text on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::OkSimultaneous => "ok_simultaneous",
            Self::Nok => "nok",
            Self::NotAllowed => "not_allowed",
            Self::Alive => "alive",
            Self::Named => "named",
        }
    }
}

/// What one side said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Party {
    /// Its name. With NAME_ME only a host, and then [`Facts::assigned`] has the name.
    pub name: Option<String>,
    /// Its capabilities; only the lower half while an old message was not complemented.
    pub flags: Option<DistFlags>,
    /// Its creation.
    pub creation: Option<u32>,
    /// It used the old message (`n`).
    pub old_form: bool,
}

/// A challenge and the digest that answers it: enough to try words for the cookie. Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// The challenge, sent by the other side.
    pub challenge: u32,
    /// MD5 over cookie and decimal challenge.
    pub digest: [u8; 16],
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof").finish_non_exhaustive()
    }
}

/// A name that the acceptor gave to the initiator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The name.
    pub name: String,
    /// The creation that goes with it.
    pub creation: u32,
}

/// All that was read of a handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// 5 or 6: by the challenge, or by the name where no challenge was seen.
    pub version: Option<u8>,
    /// The acceptor's answer to the name.
    pub status: Option<Status>,
    /// The initiator's answer to [`Status::Alive`].
    pub alive_answer: Option<bool>,
    /// What the initiator said.
    pub initiator: Party,
    /// What the acceptor said.
    pub acceptor: Party,
    /// The initiator asked for a name (NAME_ME).
    pub dynamic_name: bool,
    /// The name that it was given.
    pub assigned: Option<Assigned>,
    /// The initiator complemented an old name message.
    pub complement: bool,
    /// The first octets of a side were not the protocol.
    pub foreign: [bool; 2],
    /// How it ended.
    pub outcome: HandshakeOutcome,
    challenges: [Option<u32>; 2],
    digests: [Option<[u8; 16]>; 2],
}

impl Facts {
    /// What a side said of itself.
    #[must_use]
    pub const fn party(&self, side: Side) -> &Party {
        match side {
            Side::Initiator => &self.initiator,
            Side::Acceptor => &self.acceptor,
        }
    }

    /// The name that a side goes by: the one it was given, where it asked for one.
    #[must_use]
    pub fn node(&self, side: Side) -> Option<&str> {
        match (side, &self.assigned) {
            (Side::Initiator, Some(assigned)) => Some(&assigned.name),
            (Side::Initiator, None) if self.dynamic_name => None,
            _ => self.party(side).name.as_deref(),
        }
    }

    /// The creation of a side: the one it was given, where it asked for a name.
    #[must_use]
    pub fn creation(&self, side: Side) -> Option<u32> {
        match (side, &self.assigned) {
            (Side::Initiator, Some(assigned)) => Some(assigned.creation),
            _ => self.party(side).creation,
        }
    }

    /// What a side answered to the challenge of the other, where both were seen.
    #[must_use]
    pub fn proof(&self, side: Side) -> Option<Proof> {
        let challenge = self.challenges[side.other().index()]?;
        let digest = self.digests[side.index()]?;
        Some(Proof { challenge, digest })
    }

    /// Whether the initiator's own challenge was 0, as one attack tool sends it. `None` where it was not seen.
    #[must_use]
    pub fn zero_challenge(&self) -> Option<bool> {
        self.challenges[Side::Initiator.index()].map(|challenge| challenge == 0)
    }

    /// The features in force, once both words are known.
    #[must_use]
    pub fn negotiated(&self) -> Option<DistFlags> {
        Some(self.initiator.flags?.in_force(self.acceptor.flags?))
    }

    /// Whether the initiator's digest was read.
    pub(super) const fn replied(&self) -> bool {
        self.digests[0].is_some()
    }

    /// Octets on the heap.
    pub(super) fn memory(&self) -> usize {
        let assigned = self.assigned.as_ref().map(|assigned| &assigned.name);
        let names = [self.initiator.name.as_ref(), self.acceptor.name.as_ref(), assigned];
        names.into_iter().flatten().map(String::capacity).sum()
    }

    /// Whether anything was read.
    #[must_use]
    pub const fn seen(&self) -> bool {
        self.initiator.name.is_some()
            || self.acceptor.name.is_some()
            || self.status.is_some()
            || self.digests[0].is_some()
            || self.digests[1].is_some()
    }
}

/// What follows a message in its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another handshake message.
    Message,
    /// Frames, with lengths of 32 bits.
    Frames,
}

/// Why a message was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The first octets of the direction are something else.
    Foreign,
    /// The protocol, broken.
    Violation(String),
}

impl From<Malformed> for Refusal {
    fn from(error: Malformed) -> Self {
        Self::Violation(format!("handshake message: {error}"))
    }
}

/// The reading of both directions.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    pub(super) facts: Facts,
    started: [bool; 2],
}

impl Handshake {
    /// Whether a message of that length and tag can come next from that side. Known before the message is complete.
    pub(super) fn check_start(&self, side: Side, len: usize, tag: Option<u8>) -> Result<(), Refusal> {
        let started = self.started[side.index()];
        let expected: &[u8] = match (side, started) {
            (Side::Initiator, false) => b"nN",
            (Side::Initiator, true) => b"scr",
            (Side::Acceptor, false) => b"s",
            (Side::Acceptor, true) => b"snNa",
        };
        match tag {
            Some(tag) if !expected.contains(&tag) => {
                Err(if started { violation(format!("handshake message with tag {tag}")) } else { Refusal::Foreign })
            }
            None if len > MAX_MESSAGE && !started => Err(Refusal::Foreign),
            None if len == 0 => Err(if started { violation("empty handshake message") } else { Refusal::Foreign }),
            _ if len > MAX_MESSAGE => Err(violation(format!("handshake message of {len} octets"))),
            _ => Ok(()),
        }
    }

    /// Takes one message.
    pub(super) fn message(&mut self, side: Side, body: &[u8]) -> Result<Next, Refusal> {
        self.check_start(side, body.len(), body.first().copied())?;
        self.started[side.index()] = true;
        let mut reader = Reader::new(body);
        let tag = reader.u8("tag")?;
        match (side, tag) {
            (Side::Initiator, b'n') => self.old_name(&mut reader)?,
            (Side::Initiator, b'N') => self.name(&mut reader)?,
            (Side::Initiator, b's') => self.alive_answer(&mut reader)?,
            (Side::Initiator, b'c') => self.complement(&mut reader)?,
            (Side::Initiator, _) => {
                self.facts.challenges[Side::Initiator.index()] = Some(reader.u32("challenge")?);
                self.facts.digests[Side::Initiator.index()] = Some(reader.array("digest")?);
                return Ok(Next::Frames);
            }
            (Side::Acceptor, b's') => self.status(&mut reader)?,
            (Side::Acceptor, b'n') => self.old_challenge(&mut reader)?,
            (Side::Acceptor, b'N') => self.challenge(&mut reader)?,
            (Side::Acceptor, _) => {
                self.facts.digests[Side::Acceptor.index()] = Some(reader.array("digest")?);
                self.facts.outcome = HandshakeOutcome::Ok;
                return Ok(Next::Frames);
            }
        }
        Ok(Next::Message)
    }

    /// A frame came from a side whose peer's part was not (wholly) seen: nobody sends frames before the handshake has passed.
    /// Says whether that is news.
    pub(super) fn frames_follow(&mut self) -> bool {
        if self.facts.outcome != HandshakeOutcome::Incomplete {
            return false;
        }
        self.facts.outcome = if self.facts.seen() { HandshakeOutcome::Ok } else { HandshakeOutcome::Unseen };
        true
    }

    /// The connection ended. `whole` says of which side every octet was seen.
    pub(super) fn close(&mut self, closed_by: Option<Side>, whole: [bool; 2]) {
        let facts = &mut self.facts;
        if facts.outcome != HandshakeOutcome::Incomplete {
            return;
        }
        let [initiator_whole, acceptor_whole] = whole;
        let replied = facts.digests[Side::Initiator.index()].is_some();
        let challenged = facts.challenges[Side::Acceptor.index()].is_some();
        facts.outcome = match closed_by {
            Some(Side::Acceptor) if replied && challenged && acceptor_whole => HandshakeOutcome::BadCookie,
            Some(Side::Initiator) if challenged && !replied && initiator_whole && facts.lacks_for_initiator() => {
                HandshakeOutcome::FlagsRefused
            }
            _ if facts.status == Some(Status::Alive) && !challenged && facts.alive_answer != Some(true) => {
                HandshakeOutcome::Alive
            }
            _ => HandshakeOutcome::Incomplete,
        };
    }

    fn old_name(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        let version = reader.u16("version")?;
        let flags = DistFlags(reader.u32("flags")?.into());
        let name = node_name(reader.take_rest(), false)?;
        self.facts.version = Some(version.try_into().unwrap_or(u8::MAX));
        self.facts.initiator = Party { name: Some(name), flags: Some(flags), creation: None, old_form: true };
        Ok(())
    }

    fn name(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        let flags = DistFlags(reader.u64("flags")?);
        let creation = reader.u32("creation")?;
        let len = reader.u16("name length")?;
        let asks = flags.contains(DistFlags::NAME_ME);
        let name = node_name(reader.bytes("name", len.into())?, asks)?;
        self.facts.version = Some(6);
        self.facts.dynamic_name = asks;
        self.facts.initiator =
            Party { name: Some(name), flags: Some(flags), creation: Some(creation), old_form: false };
        Ok(())
    }

    fn alive_answer(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        let answer = match reader.take_rest() {
            b"true" => true,
            b"false" => false,
            _ => return Err(violation("answer to `alive` that is neither true nor false")),
        };
        self.facts.alive_answer = Some(answer);
        if !answer {
            self.facts.outcome = HandshakeOutcome::Alive;
        }
        Ok(())
    }

    fn complement(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        let high = u64::from(reader.u32("flags")?);
        let party = &mut self.facts.initiator;
        party.creation = Some(reader.u32("creation")?);
        party.flags = party.flags.map(|low| DistFlags(low.0 | high << 32));
        self.facts.complement = true;
        Ok(())
    }

    fn status(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        let text = reader.rest();
        if let Some(named) = text.strip_prefix(b"named:") {
            let mut reader = Reader::new(named);
            let len = usize::from(reader.u16("name length")?);
            let name = reader.bytes("name", len)?;
            let creation = reader.u32("creation")?;
            let name = String::from_utf8_lossy(name).into_owned();
            check_name(&name, false)?;
            self.facts.status = Some(Status::Named);
            self.facts.assigned = Some(Assigned { name, creation });
            return Ok(());
        }
        let status = Status::ALL.into_iter().find(|status| status.name().as_bytes() == text);
        let status = status.ok_or_else(|| violation("unknown status"))?;
        self.facts.status = Some(status);
        match status {
            Status::NotAllowed => self.facts.outcome = HandshakeOutcome::NotAllowed,
            Status::Nok => self.facts.outcome = HandshakeOutcome::Nok,
            _ => {}
        }
        Ok(())
    }

    fn old_challenge(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        let version = reader.u16("version")?;
        let flags = DistFlags(reader.u32("flags")?.into());
        let challenge = reader.u32("challenge")?;
        let name = node_name(reader.take_rest(), false)?;
        self.challenged(challenge, Some(version.try_into().unwrap_or(u8::MAX)));
        self.facts.acceptor = Party { name: Some(name), flags: Some(flags), creation: None, old_form: true };
        Ok(())
    }

    fn challenge(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        let flags = DistFlags(reader.u64("flags")?);
        let challenge = reader.u32("challenge")?;
        let creation = reader.u32("creation")?;
        let len = reader.u16("name length")?;
        let name = node_name(reader.bytes("name", len.into())?, false)?;
        self.challenged(challenge, Some(6));
        self.facts.acceptor = Party { name: Some(name), flags: Some(flags), creation: Some(creation), old_form: false };
        Ok(())
    }

    fn challenged(&mut self, challenge: u32, version: Option<u8>) {
        self.facts.challenges[Side::Acceptor.index()] = Some(challenge);
        self.facts.version = version;
    }
}

impl Facts {
    /// Whether the acceptor lacks what the initiator insists on; where it does, the initiator closes without a word.
    fn lacks_for_initiator(&self) -> bool {
        let (Some(initiator), Some(acceptor)) = (self.initiator.flags, self.acceptor.flags) else {
            return false;
        };
        acceptor.refused_by(initiator)
    }
}

fn violation(what: impl Into<String>) -> Refusal {
    Refusal::Violation(what.into())
}

/// A name in a name or challenge message: one octet is one character.
fn node_name(bytes: &[u8], host_only: bool) -> Result<String, Refusal> {
    if bytes.len() > MAX_NAME {
        return Err(violation(format!("node name of {} octets", bytes.len())));
    }
    let name: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    check_name(&name, host_only)?;
    Ok(name)
}

/// Exactly one `@` with something on both sides; just a host where a name is asked for.
fn check_name(name: &str, host_only: bool) -> Result<(), Refusal> {
    let good = match name.split_once('@') {
        Some((alive, host)) => !alive.is_empty() && !host.is_empty() && !host.contains('@') && !host_only,
        None => host_only && !name.is_empty(),
    };
    if good && name.chars().count() <= MAX_NAME { Ok(()) } else { Err(violation("malformed node name")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    const SEND_NAME: &str = "4e 0000000d07df7fbd 6b03b5c5 000f 7265665f61403132372e302e302e31";
    const CHALLENGE: &str = "4e 0000000d07df7fbd a85c5af6 6b03b5c3 000f 7265665f62403132372e302e302e31";
    const REPLY: &str = "72 15a74033 6519417ced33e3365ffc35d030cf5306";
    const ACK: &str = "61 0077a7e9e4119ab8470e367decc5786c";

    fn say(handshake: &mut Handshake, side: Side, body: &[u8]) -> Next {
        handshake.message(side, body).unwrap()
    }

    #[test]
    fn the_worked_example_is_read_in_full() {
        let mut handshake = Handshake::default();
        assert_eq!(say(&mut handshake, Side::Initiator, &hex(SEND_NAME)), Next::Message);
        assert_eq!(say(&mut handshake, Side::Acceptor, b"sok"), Next::Message);
        assert_eq!(say(&mut handshake, Side::Acceptor, &hex(CHALLENGE)), Next::Message);
        assert_eq!(say(&mut handshake, Side::Initiator, &hex(REPLY)), Next::Frames);
        assert_eq!(say(&mut handshake, Side::Acceptor, &hex(ACK)), Next::Frames);
        let facts = &handshake.facts;
        assert_eq!((facts.version, facts.status, facts.outcome), (Some(6), Some(Status::Ok), HandshakeOutcome::Ok));
        assert_eq!(facts.node(Side::Initiator), Some("ref_a@127.0.0.1"));
        assert_eq!(facts.node(Side::Acceptor), Some("ref_b@127.0.0.1"));
        assert_eq!(facts.creation(Side::Acceptor), Some(0x6b03_b5c3));
        let proof = facts.proof(Side::Initiator).unwrap();
        assert_eq!(proof.challenge, 2_824_624_886);
        assert_eq!(proof.digest.to_vec(), hex("6519417ced33e3365ffc35d030cf5306"));
        assert_eq!(facts.proof(Side::Acceptor).unwrap().challenge, 363_282_483);
        assert_eq!(facts.zero_challenge(), Some(false));
        assert!(!format!("{:?}", facts.proof(Side::Acceptor)).contains("363282483"));
    }

    #[test]
    fn a_reply_without_ack_and_a_close_by_the_acceptor_is_a_bad_cookie() {
        let mut handshake = Handshake::default();
        say(&mut handshake, Side::Initiator, &hex(SEND_NAME));
        say(&mut handshake, Side::Acceptor, b"sok");
        say(&mut handshake, Side::Acceptor, &hex(CHALLENGE));
        say(&mut handshake, Side::Initiator, &hex(REPLY));
        handshake.close(Some(Side::Acceptor), [true, false]);
        assert_eq!(handshake.facts.outcome, HandshakeOutcome::Incomplete, "the ack may be in the gap");
        handshake.close(Some(Side::Acceptor), [true, true]);
        assert_eq!(handshake.facts.outcome, HandshakeOutcome::BadCookie);
    }

    #[test]
    fn every_status_has_its_outcome() {
        for (text, status, outcome) in [
            ("sok", Status::Ok, HandshakeOutcome::Incomplete),
            ("sok_simultaneous", Status::OkSimultaneous, HandshakeOutcome::Incomplete),
            ("snok", Status::Nok, HandshakeOutcome::Nok),
            ("snot_allowed", Status::NotAllowed, HandshakeOutcome::NotAllowed),
            ("salive", Status::Alive, HandshakeOutcome::Alive),
        ] {
            let mut handshake = Handshake::default();
            say(&mut handshake, Side::Initiator, &hex(SEND_NAME));
            say(&mut handshake, Side::Acceptor, text.as_bytes());
            handshake.close(Some(Side::Initiator), [true, true]);
            assert_eq!((handshake.facts.status, handshake.facts.outcome), (Some(status), outcome));
        }
    }

    #[test]
    fn an_initiator_that_says_true_to_alive_goes_on() {
        let mut handshake = Handshake::default();
        say(&mut handshake, Side::Initiator, &hex(SEND_NAME));
        say(&mut handshake, Side::Acceptor, b"salive");
        say(&mut handshake, Side::Initiator, b"strue");
        say(&mut handshake, Side::Acceptor, &hex(CHALLENGE));
        assert_eq!(handshake.facts.alive_answer, Some(true));
        assert_eq!(handshake.facts.outcome, HandshakeOutcome::Incomplete);
    }

    #[test]
    fn a_dynamic_name_is_the_one_that_was_given() {
        let mut handshake = Handshake::default();
        say(&mut handshake, Side::Initiator, &hex("4e 0000000f07df7fbc 00000000 0002 766d"));
        let mut status = b"snamed:".to_vec();
        status.extend(hex("0010"));
        status.extend(b"3FTK26R13SHHR@vm");
        status.extend(hex("6b03b5c9 ffff"));
        say(&mut handshake, Side::Acceptor, &status);
        let facts = &handshake.facts;
        assert!(facts.dynamic_name);
        assert_eq!(facts.node(Side::Initiator), Some("3FTK26R13SHHR@vm"));
        assert_eq!(facts.creation(Side::Initiator), Some(0x6b03_b5c9));
    }

    #[test]
    fn an_old_name_is_complemented() {
        let mut handshake = Handshake::default();
        say(&mut handshake, Side::Initiator, &hex("6e 0005 01df7fbd 6140623232"));
        say(&mut handshake, Side::Acceptor, b"sok");
        say(&mut handshake, Side::Acceptor, &hex(CHALLENGE));
        assert_eq!(say(&mut handshake, Side::Initiator, &hex("63 00000001 6b03b5c5")), Next::Message);
        let facts = &handshake.facts;
        assert_eq!(facts.initiator.flags, Some(DistFlags(0x1_01df_7fbd)));
        assert_eq!((facts.complement, facts.initiator.old_form, facts.version), (true, true, Some(6)));
        assert_eq!(facts.initiator.creation, Some(0x6b03_b5c5));
    }

    #[test]
    fn octets_after_a_name_are_ignored_and_an_at_sign_is_not() {
        let mut long = hex(SEND_NAME);
        long.extend([1, 2, 3]);
        assert_eq!(Handshake::default().message(Side::Initiator, &long), Ok(Next::Message));
        let nameless = hex("4e 0000000d07df7fbd 6b03b5c5 0002 766d");
        assert!(matches!(
            Handshake::default().message(Side::Initiator, &nameless),
            Err(Refusal::Violation(what)) if what.contains("node name")
        ));
    }

    #[test]
    fn first_octets_of_something_else_are_foreign_and_later_ones_a_violation() {
        let mut handshake = Handshake::default();
        assert_eq!(handshake.message(Side::Initiator, b"GET / HTTP"), Err(Refusal::Foreign));
        assert_eq!(handshake.check_start(Side::Initiator, 0x1603, None), Err(Refusal::Foreign));
        say(&mut handshake, Side::Initiator, &hex(SEND_NAME));
        assert!(matches!(handshake.message(Side::Initiator, b"GET"), Err(Refusal::Violation(_))));
    }

    #[test]
    fn a_challenge_from_the_acceptor_alone_is_no_name() {
        let mut handshake = Handshake::default();
        say(&mut handshake, Side::Acceptor, b"sok");
        say(&mut handshake, Side::Acceptor, &hex(CHALLENGE));
        assert_eq!(handshake.facts.node(Side::Acceptor), Some("ref_b@127.0.0.1"));
        assert_eq!(handshake.facts.node(Side::Initiator), None);
    }
}
