//! The control messages, one row each: number, name, what its elements are, whether a payload follows.
//!
//! OTP, "Distribution Protocol", section "Protocol between Connected Nodes".

use super::{Message, Operation};
use crate::etf::{Cursor, Token};
use crate::wire::{Fault, Malformed};

/// What an element of a control message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sender: a pid; in `MONITOR_P_EXIT` and `PAYLOAD_MONITOR_P_EXIT` a pid or a registered name. A claim that nothing checks.
    From,
    /// Receiver: a pid, in monitors a pid or a registered name, in `ALIAS_SEND` an alias, in `ALTACT_SIG_SEND` any of them.
    To,
    /// Registered name of the receiver.
    ToName,
    /// An atom without meaning, once the cookie.
    Unused,
    /// Reference of a monitor, or of a spawn request.
    Ref,
    /// Token of a sequential trace.
    Token,
    /// Exit reason.
    Reason,
    /// Number of an unlink.
    Id,
    /// Group leader.
    GroupLeader,
    /// `{Module, Function, Arity}`.
    Mfa,
    /// Options of a spawn.
    Options,
    /// Bits of `SPAWN_REPLY` and of `ALTACT_SIG_SEND`.
    Flags,
    /// Pid, or the reason (an atom) why there is none.
    Result,
}

/// What is known of an operation.
#[derive(Debug)]
pub struct Row {
    /// Its number.
    pub number: u8,
    /// Its name.
    pub name: &'static str,
    /// Its elements after the number.
    pub roles: &'static [Role],
    /// How many of the last elements may be missing.
    pub optional: usize,
    /// Whether a term follows the control message.
    pub payload: bool,
    /// The first release that sends it; 0 where all do.
    pub since: u16,
}

const fn row(number: u8, name: &'static str, roles: &'static [Role], payload: bool, since: u16) -> Row {
    Row { number, name, roles, optional: 0, payload, since }
}

use Role::{
    Flags, From, GroupLeader, Id, Mfa, Options, Reason, Ref, Result as Outcome, To, ToName, Token as Trace, Unused,
};

/// All operations, by number.
pub const ROWS: &[Row] = &[
    row(1, "LINK", &[From, To], false, 0),
    row(2, "SEND", &[Unused, To], true, 0),
    row(3, "EXIT", &[From, To, Reason], false, 0),
    row(4, "UNLINK", &[From, To], false, 0),
    row(5, "NODE_LINK", &[], false, 0),
    row(6, "REG_SEND", &[From, Unused, ToName], true, 0),
    row(7, "GROUP_LEADER", &[GroupLeader, To], false, 0),
    row(8, "EXIT2", &[From, To, Reason], false, 0),
    row(12, "SEND_TT", &[Unused, To, Trace], true, 0),
    row(13, "EXIT_TT", &[From, To, Trace, Reason], false, 0),
    row(16, "REG_SEND_TT", &[From, Unused, ToName, Trace], true, 0),
    row(18, "EXIT2_TT", &[From, To, Trace, Reason], false, 0),
    row(19, "MONITOR_P", &[From, To, Ref], false, 0),
    row(20, "DEMONITOR_P", &[From, To, Ref], false, 0),
    row(21, "MONITOR_P_EXIT", &[From, To, Ref, Reason], false, 0),
    row(22, "SEND_SENDER", &[From, To], true, 21),
    row(23, "SEND_SENDER_TT", &[From, To, Trace], true, 21),
    row(24, "PAYLOAD_EXIT", &[From, To], true, 22),
    row(25, "PAYLOAD_EXIT_TT", &[From, To, Trace], true, 22),
    row(26, "PAYLOAD_EXIT2", &[From, To], true, 22),
    row(27, "PAYLOAD_EXIT2_TT", &[From, To, Trace], true, 22),
    row(28, "PAYLOAD_MONITOR_P_EXIT", &[From, To, Ref], true, 22),
    row(29, "SPAWN_REQUEST", &[Ref, From, GroupLeader, Mfa, Options], true, 23),
    row(30, "SPAWN_REQUEST_TT", &[Ref, From, GroupLeader, Mfa, Options, Trace], true, 23),
    row(31, "SPAWN_REPLY", &[Ref, To, Flags, Outcome], false, 23),
    row(32, "SPAWN_REPLY_TT", &[Ref, To, Flags, Outcome, Trace], false, 23),
    row(33, "ALIAS_SEND", &[From, To], true, 24),
    row(34, "ALIAS_SEND_TT", &[From, To, Trace], true, 24),
    row(35, "UNLINK_ID", &[Id, From, To], false, 23),
    row(36, "UNLINK_ID_ACK", &[Id, From, To], false, 23),
    // with a trace token where a flag says so
    Row {
        number: 37,
        name: "ALTACT_SIG_SEND",
        roles: &[Flags, From, To, Trace],
        optional: 1,
        payload: true,
        since: 28,
    },
];

/// Place in [`ROWS`] by number; 255 where the number is not assigned.
const PLACES: [u8; 38] = {
    let mut places = [u8::MAX; 38];
    let mut place = 0;
    while place < ROWS.len() {
        places[ROWS[place].number as usize] = place as u8;
        place += 1;
    }
    places
};

impl Row {
    /// Whether a message of this operation can have so many elements after the number.
    #[must_use]
    #[inline]
    pub const fn takes(&self, elements: u32) -> bool {
        let elements = elements as usize;
        elements <= self.roles.len() && elements + self.optional >= self.roles.len()
    }
}

/// A constant for each operation that the code asks for by name.
macro_rules! operations {
    ($($name:ident = $number:literal,)*) => {
        impl Operation {
            $(#[doc = concat!("`", stringify!($name), "`.")] pub const $name: Self = Self($number);)*
        }
    };
}

operations! {
    LINK = 1,
    SEND = 2,
    EXIT = 3,
    REG_SEND = 6,
    EXIT2 = 8,
    SEND_TT = 12,
    EXIT_TT = 13,
    REG_SEND_TT = 16,
    EXIT2_TT = 18,
    MONITOR_P = 19,
    DEMONITOR_P = 20,
    MONITOR_P_EXIT = 21,
    SEND_SENDER = 22,
    SEND_SENDER_TT = 23,
    PAYLOAD_EXIT = 24,
    PAYLOAD_EXIT_TT = 25,
    PAYLOAD_EXIT2 = 26,
    PAYLOAD_EXIT2_TT = 27,
    PAYLOAD_MONITOR_P_EXIT = 28,
    SPAWN_REQUEST = 29,
    SPAWN_REQUEST_TT = 30,
    ALTACT_SIG_SEND = 37,
}

impl Operation {
    /// What is known of it; `None` for a number that no release sends.
    #[must_use]
    #[inline]
    pub fn row(self) -> Option<&'static Row> {
        ROWS.get(usize::from(*PLACES.get(usize::from(self.0))?))
    }

    /// Its name, or `UNKNOWN`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().map_or("UNKNOWN", |row| row.name)
    }
}

impl<'a> Message<'a> {
    /// A cursor at the element of that role. `None` where the operation has none, or where it is beyond what was kept.
    #[must_use]
    pub fn element(&self, role: Role) -> Option<Cursor<'a>> {
        let place = self.operation.row()?.roles.iter().position(|&other| other == role)?;
        if place as u64 >= u64::from(self.arity) {
            return None;
        }
        let mut cursor = self.control;
        for _ in 0..place {
            cursor.skip(DEPTH).ok()?;
        }
        Some(cursor)
    }
}

/// Nesting of what is skipped to reach an element. It was walked under the configured limit before; this is only a bound.
const DEPTH: usize = 4096;

/// The start of a control message: its number, and where its elements begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Control {
    pub(super) operation: Operation,
    /// Number of elements.
    pub(super) arity: u32,
    /// Octets before the first element.
    pub(super) elements_at: usize,
}

impl Control {
    /// In the place of one that is not there.
    pub(super) const NOTHING: Self = Self { operation: Operation(0), arity: 0, elements_at: 0 };

    /// What every node sends: SMALL_TUPLE_EXT, SMALL_INTEGER_EXT.
    #[inline]
    pub(super) const fn plain(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [104, arity, 97, number, ..] if arity > 0 => {
                Some(Self { operation: Operation(number), arity: arity as u32 - 1, elements_at: 4 })
            }
            _ => None,
        }
    }

    /// Reads the tuple and the number. The number may be of any integer tag, the tuple of any tuple tag, as receivers take them.
    #[inline]
    pub(super) fn open(mut cursor: Cursor<'_>) -> Result<Self, Malformed> {
        if let Some(plain) = Self::plain(cursor.reader.rest()) {
            return Ok(plain);
        }
        let (start, wrong) = (cursor.reader.len(), cursor.reader.malformed("control message", Fault::Impossible));
        let Token::Tuple(arity @ 1..) = cursor.token()? else {
            return Err(wrong);
        };
        let Token::Integer(number) = cursor.token()? else {
            return Err(wrong);
        };
        let operation = Operation(u8::try_from(number).map_err(|_| wrong)?);
        Ok(Self { operation, arity: arity - 1, elements_at: start - cursor.reader.len() })
    }

    /// Takes a cursor from where the message was opened past all its elements.
    #[inline]
    pub(super) fn skip(self, cursor: &mut Cursor<'_>, depth: usize) -> Result<(), Malformed> {
        cursor.reader.bytes("control message", self.elements_at)?;
        cursor.skip_all(self.arity, depth)
    }

    /// What is wrong with a message that no release sends.
    pub(super) fn oddity(&self) -> String {
        match self.operation.row() {
            Some(row) => format!("{} with {} elements", row.name, self.arity),
            None => format!("unknown operation {}", self.operation.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_finds_its_row_and_gaps_find_none() {
        for row in ROWS {
            assert_eq!(Operation(row.number).name(), row.name);
        }
        for number in [0, 9, 10, 11, 14, 15, 17, 38, 255] {
            assert!(Operation(number).row().is_none());
        }
    }

    #[test]
    fn only_the_newest_signal_has_an_optional_token() {
        let arities = |number| (0..8).filter(|&n| Operation(number).row().unwrap().takes(n)).collect::<Vec<_>>();
        assert_eq!(arities(37), [3, 4]);
        assert_eq!(arities(6), [3]);
        assert_eq!(arities(5), [0]);
    }

    #[test]
    fn a_trace_token_is_in_every_tt_operation_and_in_no_other_but_the_newest() {
        for row in ROWS {
            assert_eq!(row.roles.contains(&Role::Token), row.name.ends_with("_TT") || row.number == 37, "{}", row.name);
        }
    }
}
