//! An output that remembers what a session said.
#![allow(dead_code, reason = "each test program uses a part of it")]

use distwatch_engine::dist::{Message, Output};
use distwatch_engine::etf::{Cursor, Token};
use distwatch_engine::packet::{At, Side};

/// A message in a form that can be compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Read {
    pub(crate) side: Side,
    pub(crate) name: &'static str,
    pub(crate) control: Vec<String>,
    pub(crate) payload: Option<Vec<String>>,
    pub(crate) frame_len: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Progress(Side),
    Message(Read),
    Tick(Side),
    Violation(Side, String),
    Undecodable(&'static str, String),
    Weird(&'static str),
    Limit(&'static str),
}

#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) calls: Vec<Call>,
}

/// Up to so many tokens of a term are compared.
const TOKENS: usize = 40;

fn tokens(mut cursor: Cursor<'_>, count: usize) -> Vec<String> {
    let mut tokens = Vec::new();
    while tokens.len() < count {
        match cursor.token() {
            Ok(Token::Atom(atom)) => tokens.push(format!("{}{}", if atom.inferred { "~" } else { "" }, atom.to_text())),
            Ok(Token::Integer(number)) => tokens.push(number.to_string()),
            Ok(Token::Binary(bytes)) => tokens.push(format!("<<{}>>", bytes.len())),
            Ok(token) => tokens.push(format!("{token:?}").chars().take(60).collect()),
            Err(_) => break,
        }
    }
    tokens
}

impl Output for Recorder {
    fn handshake_progress(&mut self, _: &At, side: Side, _: &distwatch_engine::dist::Facts) {
        self.calls.push(Call::Progress(side));
    }

    fn message(&mut self, message: &Message<'_>) {
        let mut control = Vec::new();
        let mut cursor = message.control;
        for _ in 0..message.arity {
            let mut one = cursor;
            if one.skip(100).is_ok() {
                cursor.reader = cursor.reader.sub("element", cursor.reader.len() - one.reader.len()).unwrap();
                control.extend(tokens(cursor, 6));
            }
            cursor = one;
        }
        self.calls.push(Call::Message(Read {
            side: message.side,
            name: message.operation.name(),
            control,
            payload: message.payload.map(|payload| tokens(payload, TOKENS)),
            frame_len: message.frame_len,
        }));
    }

    fn tick(&mut self, _: &At, side: Side) {
        self.calls.push(Call::Tick(side));
    }

    fn violation(&mut self, _: &At, side: Side, what: String) {
        self.calls.push(Call::Violation(side, what));
    }

    fn undecodable(&mut self, _: &At, _: Side, layer: &'static str, what: String) {
        self.calls.push(Call::Undecodable(layer, what));
    }

    fn weird(&mut self, _: &At, _: Side, name: &'static str, _: String) {
        self.calls.push(Call::Weird(name));
    }

    fn limit(&mut self, name: &'static str) {
        self.calls.push(Call::Limit(name));
    }
}

impl Recorder {
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Read> {
        self.calls.iter().filter_map(|call| if let Call::Message(read) = call { Some(read) } else { None })
    }

    pub(crate) fn problems(&self) -> Vec<&Call> {
        let fine = |call: &&Call| !matches!(call, Call::Progress(_) | Call::Message(_) | Call::Tick(_));
        self.calls.iter().filter(fine).collect()
    }
}
