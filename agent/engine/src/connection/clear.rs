//! A cleartext distribution connection: the session's facts become a link, its messages become activity.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::Shared;
use crate::activity::tally::{Counted, Occasion, Tally, describe};
use crate::activity::{self, Cookie};
use crate::dist::{Facts, Message, Operation, Output, Role, Session};
use crate::engine::Context;
use crate::etf::Cursor;
use crate::event::{EventBody, Expected, LinkChange};
use crate::flow::FlowFacts;
use crate::model::{ActivityKind, Build, Builds, HandshakeOutcome, Tls, TlsOutcome, Transport};
use crate::packet::{At, Side};
use crate::policy::Arguments;
use crate::time::Timestamp;
use crate::tls::looks_like_alert;
use crate::wire::Match;

/// How many requests for a cookie one link may have open; the oldest is forgotten first. One is unusual.
const COOKIE_REQUESTS: usize = 8;

/// The conversation.
#[derive(Debug)]
pub(super) struct Clear {
    session: Session,
    reader: Reading,
}

/// What is made of the session's output.
#[derive(Debug)]
struct Reading {
    tally: Tally,
    /// Frames were read: it is distribution beyond doubt.
    confirmed: bool,
    /// References of requests whose answers are cookies, as hashes.
    cookie_requests: Vec<u64>,
    /// A request by way of `rex`, which has no reference of its own.
    cookie_by_rex: bool,
    hasher: RandomState,
    /// The acceptor answered with a TLS alert.
    tls_answer: bool,
    /// The digest was compared with the word list.
    cookie_checked: bool,
}

impl Clear {
    pub(super) fn from_handshake(cx: &Context) -> Self {
        Self::new(Session::from_handshake(&cx.limits))
    }

    pub(super) fn mid_stream(cx: &Context) -> Self {
        Self::new(Session::mid_stream(&cx.limits))
    }

    fn new(session: Session) -> Self {
        let reader = Reading {
            tally: Tally::default(),
            confirmed: false,
            cookie_requests: Vec::new(),
            cookie_by_rex: false,
            hasher: RandomState::default(),
            tls_answer: false,
            cookie_checked: false,
        };
        Self { session, reader }
    }

    /// Nothing yet says that it is distribution.
    pub(super) fn is_candidate(&self) -> bool {
        !self.reader.confirmed && self.session.handshake().version.is_none()
    }

    /// The handshake passed, or frames were read.
    pub(super) fn is_established(&self) -> bool {
        self.reader.confirmed || self.session.handshake().outcome == HandshakeOutcome::Ok
    }

    /// A candidate in which no frame was found within so many octets.
    pub(super) fn is_lost_cause(&self, flow: &FlowFacts, within: u64) -> bool {
        self.is_candidate() && flow.side(Side::Initiator).payload + flow.side(Side::Acceptor).payload > within
    }

    pub(super) fn memory(&self) -> usize {
        self.session.memory() + self.reader.tally.memory() + self.reader.cookie_requests.capacity() * 8
    }

    pub(super) fn handle_data(
        &mut self,
        at: &At,
        flow: &FlowFacts,
        side: Side,
        data: &[u8],
        shared: &mut Shared,
        cx: &mut Context,
    ) {
        if side == Side::Acceptor && !self.reader.confirmed && self.answers_with_tls(data) {
            self.reader.tls_answer = true;
            let alert = Some("the acceptor answered with a TLS alert".to_owned());
            if let Some(link) = shared.link.as_mut() {
                link.tls = Some(Tls { outcome: TlsOutcome::RefusedByServer, alert, ..Tls::default() });
            }
        }
        if self.reader.tls_answer && side == Side::Acceptor {
            return;
        }
        let mut out = Told { reader: &mut self.reader, flow, shared, cx };
        self.session.handle_data(at, side, data, &mut out);
    }

    /// A TLS record instead of a status: the listener speaks TLS (`docs/protocol.md` §2.4).
    fn answers_with_tls(&self, data: &[u8]) -> bool {
        self.session.handshake().status.is_none() && looks_like_alert(data) == Match::Yes
    }

    pub(super) fn handle_gap(
        &mut self,
        at: &At,
        flow: &FlowFacts,
        side: Side,
        bytes: u64,
        shared: &mut Shared,
        cx: &mut Context,
    ) {
        let mut out = Told { reader: &mut self.reader, flow, shared, cx };
        self.session.handle_gap(at, side, bytes, &mut out);
    }

    pub(super) fn handle_close(
        &mut self,
        at: &At,
        flow: &FlowFacts,
        closed_by: Option<Side>,
        shared: &mut Shared,
        cx: &mut Context,
    ) {
        let mut out = Told { reader: &mut self.reader, flow, shared, cx };
        self.session.handle_close(at, closed_by, &mut out);
        let facts = self.session.handshake();
        if facts.outcome != HandshakeOutcome::Ok && shared.link.is_some() {
            take_handshake(facts, &mut self.reader.cookie_checked, shared, cx);
            shared.tell_link(at, flow, LinkChange::Handshake, cx);
        }
        self.bring_up_to_date(at, flow, shared, cx);
    }

    /// The capture ends before the connection.
    pub(super) fn handle_end(&mut self, at: &At, flow: &FlowFacts, shared: &mut Shared, cx: &mut Context) {
        if self.session.handle_end() {
            take_handshake(self.session.handshake(), &mut self.reader.cookie_checked, shared, cx);
            shared.tell_link(at, flow, LinkChange::Handshake, cx);
        }
        self.bring_up_to_date(at, flow, shared, cx);
    }

    fn bring_up_to_date(&mut self, at: &At, flow: &FlowFacts, shared: &mut Shared, cx: &mut Context) {
        self.flush(at, flow, shared, cx);
        if let Some(link) = shared.link.as_mut() {
            link.messages = self.session.messages();
            link.ticks = self.session.ticks();
            let build = |side| {
                let guess = self.session.build_guess(side)?;
                Some(Build { name: guess.build.to_owned(), otp: guess.otp, confidence: guess.confidence })
            };
            link.builds = Builds { initiator: build(Side::Initiator), acceptor: build(Side::Acceptor) };
        }
    }

    pub(super) fn handle_timeout(&mut self, at: &At, flow: &FlowFacts, shared: &mut Shared, cx: &mut Context) {
        if self.poll_timeout().is_some_and(|due| due <= at.time) {
            self.flush(at, flow, shared, cx);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.reader.tally.poll_timeout()
    }

    fn flush(&mut self, at: &At, flow: &FlowFacts, shared: &mut Shared, cx: &mut Context) {
        let quiet = cx.every_message;
        self.reader.tally.flush(|activity| {
            if !quiet && activity.kind != ActivityKind::Reply {
                shared.tell(at, flow, EventBody::Activity(Box::new(activity)), cx);
            }
        });
    }
}

/// Copies what a handshake said into the link, and looks the cookie up once both halves of a proof are there.
fn take_handshake(facts: &Facts, cookie_checked: &mut bool, shared: &mut Shared, cx: &mut Context) {
    let Some(link) = shared.link.as_mut() else { return };
    link.initiator.node = facts.node(Side::Initiator).map(str::to_owned);
    link.acceptor.node = facts.node(Side::Acceptor).map(str::to_owned);
    let handshake = &mut link.handshake;
    handshake.version = facts.version;
    handshake.outcome = facts.outcome;
    handshake.status = facts.status.map(|status| status.name().to_owned());
    handshake.initiator_flags = facts.initiator.flags.map(|flags| flags.0);
    handshake.acceptor_flags = facts.acceptor.flags.map(|flags| flags.0);
    handshake.initiator_creation = facts.creation(Side::Initiator);
    handshake.acceptor_creation = facts.creation(Side::Acceptor);
    handshake.dynamic_name = facts.dynamic_name;
    handshake.zero_challenge = facts.zero_challenge() == Some(true);
    if let Some(proof) = facts.proof(Side::Initiator)
        && !std::mem::replace(cookie_checked, true)
        && cx.may_check_cookie()
    {
        let names = [&link.initiator.node, &link.acceptor.node];
        let names: Vec<&str> = names.into_iter().flatten().map(String::as_str).collect();
        handshake.weak_cookie = cx.dictionary.find(proof.challenge, &proof.digest, &names);
    }
}

/// The session's output on its way.
struct Told<'a> {
    reader: &'a mut Reading,
    flow: &'a FlowFacts,
    shared: &'a mut Shared,
    cx: &'a mut Context,
}

impl Output for Told<'_> {
    fn handshake_progress(&mut self, at: &At, side: Side, facts: &Facts) {
        if side == Side::Acceptor {
            // Whoever answers a handshake listens for them.
            self.cx.listeners.learn(self.flow.opening.acceptor, Expected::Distribution);
        }
        let before = self.shared.link.as_ref().map(|link| link.handshake.outcome);
        take_handshake(facts, &mut self.reader.cookie_checked, self.shared, self.cx);
        let ended = before != Some(facts.outcome);
        let change = if ended { LinkChange::Handshake } else { LinkChange::Progress };
        self.shared.tell_link(at, self.flow, change, self.cx);
    }

    fn message(&mut self, message: &Message<'_>) {
        self.cx.counters.operation(message.operation);
        if !self.reader.confirmed {
            self.confirm(&message.at);
        }
        if self.shared.mid_stream {
            self.learn_name(message);
        }
        let action = activity::read(message);
        self.watch_cookie(message, action.cookie);
        let Some(link) = self.shared.link.as_ref() else { return };
        let occasion = Occasion {
            at: &message.at,
            side: message.side,
            operation: message.operation,
            flow_id: &link.flow_id,
            nodes: [link.initiator.node.as_deref(), link.acceptor.node.as_deref()],
            arguments: self.cx.arguments,
            limit: self.cx.limits.actions_per_link,
        };
        if self.cx.every_message {
            let activity = Box::new(describe(&action, &occasion));
            return self.tell(&message.at, EventBody::Activity(activity));
        }
        if action.kind == ActivityKind::Reply {
            return;
        }
        match self.reader.tally.count(&action, &occasion) {
            // With arguments asked for, two calls of one function are two things that were done.
            Counted::Again if self.cx.arguments != Arguments::None && action.arguments.is_some() => {}
            Counted::Again => {}
            Counted::New(activity) => self.tell(&message.at, EventBody::Activity(activity)),
            Counted::OverLimit => self.cx.counters.limit("actions-per-link"),
        }
    }

    fn tick(&mut self, _: &At, _: Side) {}

    fn violation(&mut self, at: &At, side: Side, what: String) {
        if self.shared.link.is_none() {
            return;
        }
        self.tell(at, EventBody::Violation { what, from_initiator: side == Side::Initiator });
    }

    fn undecodable(&mut self, at: &At, side: Side, layer: &'static str, what: String) {
        self.cx.counters.decode_error(layer);
        if self.shared.link.is_some() {
            self.weird(at, side, layer, "undecodable", what);
        }
    }

    fn weird(&mut self, at: &At, side: Side, name: &'static str, detail: String) {
        if self.shared.link.is_some() {
            self.weird(at, side, "dist", name, detail);
        }
    }

    fn limit(&mut self, name: &'static str) {
        self.cx.counters.limit(name);
    }
}

impl Told<'_> {
    fn tell(&mut self, at: &At, body: EventBody) {
        self.shared.tell(at, self.flow, body, self.cx);
    }

    fn weird(&mut self, at: &At, side: Side, layer: &str, name: &str, detail: String) {
        let from = if side == Side::Initiator { "initiator" } else { "acceptor" };
        self.shared.weird(at, self.flow, layer, name, format!("from the {from}: {detail}"), self.cx);
    }

    /// The first message proves that the connection is distribution.
    fn confirm(&mut self, at: &At) {
        self.reader.confirmed = true;
        let unseen = self.shared.link.is_none();
        self.shared.open_link(at, self.flow, Transport::Cleartext, self.cx);
        if unseen {
            self.cx.listeners.learn(self.flow.opening.acceptor, Expected::Distribution);
            if let Some(link) = self.shared.link.as_mut() {
                link.handshake.outcome = HandshakeOutcome::Unseen;
                // The frame that proves it; the session's own count comes with the end.
                link.messages.from_initiator = 1;
            }
            self.shared.tell_link(at, self.flow, LinkChange::Handshake, self.cx);
        }
    }

    /// Without a handshake the names are those of the senders' own processes.
    fn learn_name(&mut self, message: &Message<'_>) {
        let Some(link) = self.shared.link.as_mut() else { return };
        let end = if message.side == Side::Initiator { &mut link.initiator } else { &mut link.acceptor };
        if end.node.is_some() {
            return;
        }
        let Some(pid) = message.element(Role::From).and_then(|mut from| from.pid()) else { return };
        if pid.node.text.is_none() || pid.node.inferred {
            return;
        }
        end.node = Some(pid.node.to_text().into_owned());
        self.reader.tally.rename([link.initiator.node.as_deref(), link.acceptor.node.as_deref()]);
        self.shared.tell_link(&message.at, self.flow, LinkChange::Identified, self.cx);
    }

    /// Follows a request for a cookie to its answer. The cookie itself is never looked at.
    fn watch_cookie(&mut self, message: &Message<'_>, cookie: Cookie) {
        let from_initiator = message.side == Side::Initiator;
        match cookie {
            Cookie::Sent => {
                let how = "the arguments of a call that sets it".to_owned();
                return self.tell(&message.at, EventBody::CookieSent { how, from_initiator });
            }
            Cookie::Asked => {
                match message.element(Role::Ref).and_then(|reference| self.hash(reference)) {
                    Some(hash) => {
                        if self.reader.cookie_requests.len() >= COOKIE_REQUESTS {
                            self.reader.cookie_requests.remove(0);
                        }
                        self.reader.cookie_requests.push(hash);
                    }
                    None => self.reader.cookie_by_rex = true,
                }
                return;
            }
            Cookie::None => {}
        }
        if self.answers_cookie_request(message) {
            let how = "the answer to a call of get_cookie".to_owned();
            self.tell(&message.at, EventBody::CookieSent { how, from_initiator });
        }
    }

    fn answers_cookie_request(&mut self, message: &Message<'_>) -> bool {
        if self.reader.cookie_by_rex && is_rex_answer(message) {
            self.reader.cookie_by_rex = false;
            return true;
        }
        if self.reader.cookie_requests.is_empty()
            || !matches!(message.operation, Operation::PAYLOAD_MONITOR_P_EXIT | Operation::MONITOR_P_EXIT)
        {
            return false;
        }
        let Some(hash) = message.element(Role::Ref).and_then(|reference| self.hash(reference)) else { return false };
        let Some(place) = self.reader.cookie_requests.iter().position(|&asked| asked == hash) else { return false };
        self.reader.cookie_requests.remove(place);
        true
    }

    fn hash(&self, mut reference: Cursor<'_>) -> Option<u64> {
        reference.reference().map(|reference| self.reader.hasher.hash_one(reference.words))
    }
}

/// `{rex, Value}`.
fn is_rex_answer(message: &Message<'_>) -> bool {
    message.payload.is_some_and(|mut payload| payload.tuple() == Some(2) && payload.take_atom("rex"))
}
