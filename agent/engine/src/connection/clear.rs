//! A cleartext distribution connection: the session's facts become a link, its messages become activity.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::{Remark, Shared};
use crate::activity::tally::{Counted, Occasion, Tally, describe};
use crate::activity::{self, Action, Cookie, Subject};
use crate::dist::{Facts, Message, Operation, Output, Role, Session};
use crate::engine::Context;
use crate::etf::tag::Tag;
use crate::etf::{Cursor, Reference, inflate};
use crate::event::{EventBody, Expected, LinkChange};
use crate::flow::FlowFacts;
use crate::model::{ActivityKind, Build, Builds, HandshakeOutcome, Tls, TlsOutcome, Transport};
use crate::packet::{At, Side};
use crate::recall::disown;
use crate::time::Timestamp;
use crate::tls::looks_like_alert;
use crate::wire::Match;

/// How many requests for a cookie one link may have open; the oldest is forgotten first. One is unusual.
const COOKIE_REQUESTS: usize = 8;

/// How many messages with compressed terms are looked into on one link: each costs the setting up of a decompressor.
const EXPANDED: u32 = 256;

/// Octets of such a message that are looked at: as much as is looked at of any other.
const EXPANDED_LEN: usize = 8 << 10;

/// The conversation.
#[derive(Debug)]
pub(super) struct Clear {
    session: Session,
    reader: Reading,
}

/// What is made of the session's output.
#[derive(Debug)]
struct Reading {
    /// Made for the first action.
    tally: Option<Box<Tally>>,
    /// Frames were read: it is distribution beyond doubt.
    confirmed: bool,
    /// References of requests whose answers are cookies, as hashes, and who asked.
    cookie_requests: Vec<(u64, Side)>,
    /// Who asked by way of `rex`, where a request has no reference of its own.
    cookie_by_rex: Option<Side>,
    hasher: RandomState,
    /// The acceptor answered with a TLS alert.
    tls_answer: bool,
    /// Its first octets, as long as they may become one: up to six.
    held: Vec<u8>,
    /// Messages with compressed terms that were looked into.
    expanded: u32,
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
            tally: None,
            confirmed: false,
            cookie_requests: Vec::new(),
            cookie_by_rex: None,
            hasher: RandomState::default(),
            tls_answer: false,
            held: Vec::new(),
            expanded: 0,
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
        self.session.memory()
            + self.reader.tally.as_deref().map_or(0, |tally| size_of::<Tally>() + tally.memory())
            + self.reader.cookie_requests.capacity() * size_of::<(u64, Side)>()
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
        if side == Side::Acceptor && self.reader.tls_answer {
            return;
        }
        let joined;
        let mut data = data;
        if side == Side::Acceptor && self.may_answer_with_tls(data) {
            let mut held = std::mem::take(&mut self.reader.held);
            held.extend_from_slice(data);
            match looks_like_alert(&held) {
                Match::NeedMore => {
                    self.reader.held = held;
                    return;
                }
                Match::Yes => return self.meet_tls(at, flow, shared, cx),
                Match::No => joined = held,
            }
            data = &joined;
        }
        let mut out = Told { reader: &mut self.reader, flow, shared, cx };
        self.session.handle_data(at, side, data, &mut out);
    }

    /// Before its status the acceptor may send a TLS alert instead: the listener speaks TLS (`docs/protocol.md` §2.4).
    fn may_answer_with_tls(&self, data: &[u8]) -> bool {
        !self.reader.confirmed
            && self.session.handshake().status.is_none()
            && (!self.reader.held.is_empty() || looks_like_alert(data) != Match::No)
    }

    fn meet_tls(&mut self, at: &At, flow: &FlowFacts, shared: &mut Shared, cx: &mut Context) {
        self.reader.tls_answer = true;
        let alert = Some("the acceptor answered with a TLS alert".to_owned());
        if let Some(link) = shared.link_mut() {
            link.tls = Some(Box::new(Tls { outcome: TlsOutcome::RefusedByServer, alert, ..Tls::default() }));
        }
        shared.tell_link(at, flow, LinkChange::Progress, cx);
    }

    /// What was held back is read after all: nothing follows that could make it an alert.
    fn release(&mut self, at: &At, flow: &FlowFacts, shared: &mut Shared, cx: &mut Context) {
        let held = std::mem::take(&mut self.reader.held);
        if !held.is_empty() {
            let mut out = Told { reader: &mut self.reader, flow, shared, cx };
            self.session.handle_data(at, Side::Acceptor, &held, &mut out);
        }
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
        if side == Side::Acceptor {
            self.release(at, flow, shared, cx);
        }
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
        self.release(at, flow, shared, cx);
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
        if let Some(link) = shared.link_mut() {
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
        self.reader.tally.as_deref()?.poll_timeout()
    }

    fn flush(&mut self, at: &At, flow: &FlowFacts, shared: &mut Shared, cx: &mut Context) {
        let quiet = cx.every_message;
        let Some(tally) = self.reader.tally.as_deref_mut() else { return };
        tally.flush(|activity| {
            if !quiet && activity.kind != ActivityKind::Reply {
                shared.tell(at, flow, EventBody::Activity(Box::new(activity)), cx);
            }
        });
    }
}

/// Copies what a handshake said into the link, and looks the cookie up once both halves of a proof are there.
fn take_handshake(facts: &Facts, cookie_checked: &mut bool, shared: &mut Shared, cx: &mut Context) {
    let Some(link) = shared.link_mut() else { return };
    if link.mid_stream && !facts.seen() {
        // What is known of both ends comes from elsewhere.
        return;
    }
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
            self.confirm(&message.at, message.side);
        }
        if self.shared.mid_stream {
            self.learn_name(message);
        }
        let action = activity::read(message);
        if may_hide(message, &action)
            && let Some(payload) = message.payload
            && let Some(plain) = self.expand(payload)
        {
            let plain = Message { payload: Some(payload.elsewhere(&plain)), ..*message };
            return self.act(&plain, &activity::read(&plain));
        }
        self.act(message, &action);
    }

    fn tick(&mut self, _: &At, _: Side) {}

    fn violation(&mut self, at: &At, side: Side, what: String) {
        if self.shared.link.is_none() || !self.shared.may_remark(Remark::Violation, self.cx) {
            return;
        }
        self.tell(at, EventBody::Violation { what, from_initiator: side == Side::Initiator });
    }

    fn undecodable(&mut self, at: &At, side: Side, layer: &'static str, what: String) {
        // What is only a candidate may be any protocol.
        if self.shared.link.is_some() {
            self.cx.counters.decode_error(layer);
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
    /// Looks into compressed terms, which no release sends: the session has said so, and what they do is said here.
    ///
    /// Never inlined: a decompressor's 50 KiB of stack would be touched, page by page, for every message.
    #[cold]
    #[inline(never)]
    fn expand(&mut self, payload: Cursor<'_>) -> Option<Vec<u8>> {
        if self.reader.expanded >= EXPANDED {
            self.cx.counters.limit("compressed_terms");
            return None;
        }
        let plain = inflate::expand(payload, EXPANDED_LEN)?;
        self.reader.expanded += 1;
        Some(plain)
    }

    fn act(&mut self, message: &Message<'_>, action: &Action<'_>) {
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
            let activity = Box::new(describe(action, &occasion));
            return self.tell(&message.at, EventBody::Activity(activity));
        }
        if action.kind == ActivityKind::Reply {
            return;
        }
        match self.reader.tally.get_or_insert_default().count(action, &occasion) {
            // Told with the next flush.
            Counted::Again => {}
            Counted::New(activity) => self.tell(&message.at, EventBody::Activity(activity)),
            Counted::OverLimit => self.cx.counters.limit("actions_per_link"),
        }
    }

    fn tell(&mut self, at: &At, body: EventBody) {
        self.shared.tell(at, self.flow, body, self.cx);
    }

    fn weird(&mut self, at: &At, side: Side, layer: &str, name: &str, detail: String) {
        let from = if side == Side::Initiator { "initiator" } else { "acceptor" };
        self.shared.weird(at, self.flow, layer, name, format!("from the {from}: {detail}"), self.cx);
    }

    /// The first message proves that the connection is distribution.
    fn confirm(&mut self, at: &At, side: Side) {
        self.reader.confirmed = true;
        let unseen = self.shared.link.is_none();
        self.shared.open_link(at, self.flow, Transport::Cleartext, self.cx);
        if unseen {
            self.cx.listeners.learn(self.flow.opening.acceptor, Expected::Distribution);
            if let Some(link) = self.shared.link_mut() {
                link.handshake.outcome = HandshakeOutcome::Unseen;
                // The frame that proves it; the session's own count comes with the end.
                let messages = match side {
                    Side::Initiator => &mut link.messages.from_initiator,
                    Side::Acceptor => &mut link.messages.from_acceptor,
                };
                *messages = 1;
            }
            self.shared.tell_link(at, self.flow, LinkChange::Handshake, self.cx);
        }
    }

    /// Without a handshake the names are those of the senders' own processes.
    fn learn_name(&mut self, message: &Message<'_>) {
        let Some(link) = self.shared.link.as_mut() else { return };
        let Some(named) = self.shared.named.get_mut(message.side.index()).filter(|named| !**named) else { return };
        let Some(pid) = message.element(Role::From).and_then(|mut from| from.pid()) else { return };
        if pid.node.text.is_none() || pid.node.inferred {
            return;
        }
        *named = true;
        let name = pid.node.to_text();
        let known = if message.side == Side::Initiator { &link.initiator.node } else { &link.acceptor.node };
        match known {
            Some(known) if !link.resumed || *known == name => return,
            // It only has the addresses and ports of the one that was known.
            Some(_) => disown(Arc::make_mut(link)),
            None => {}
        }
        let link = Arc::make_mut(link);
        let end = if message.side == Side::Initiator { &mut link.initiator } else { &mut link.acceptor };
        end.node = Some(name.into_owned());
        if let Some(tally) = &mut self.reader.tally {
            tally.rename([link.initiator.node.as_deref(), link.acceptor.node.as_deref()]);
        }
        self.shared.tell_link(&message.at, self.flow, LinkChange::Identified, self.cx);
    }

    /// Follows a request for a cookie to its answer. The cookie itself is never looked at.
    fn watch_cookie(&mut self, message: &Message<'_>, cookie: Cookie) {
        let from_initiator = message.side == Side::Initiator;
        match cookie {
            Cookie::Sent => {
                let how = "the arguments of a call that sets it".to_owned();
                return self.tell_cookie(&message.at, how, from_initiator);
            }
            Cookie::Asked => {
                let reference = message.element(Role::Ref).and_then(|mut reference| reference.reference());
                match reference.or_else(|| activity::call_reference(message)) {
                    Some(reference) => {
                        if self.reader.cookie_requests.len() >= COOKIE_REQUESTS {
                            self.reader.cookie_requests.remove(0);
                        }
                        let hash = self.hash(reference);
                        self.reader.cookie_requests.push((hash, message.side));
                    }
                    None => self.reader.cookie_by_rex = Some(message.side),
                }
                return;
            }
            Cookie::None => {}
        }
        if self.answers_cookie_request(message) {
            let how = "the answer to a call of get_cookie".to_owned();
            self.tell_cookie(&message.at, how, from_initiator);
        }
    }

    fn tell_cookie(&mut self, at: &At, how: String, from_initiator: bool) {
        if self.shared.may_remark(Remark::Cookie, self.cx) {
            self.tell(at, EventBody::CookieSent { how, from_initiator });
        }
    }

    fn answers_cookie_request(&mut self, message: &Message<'_>) -> bool {
        let asker = message.side.other();
        if self.reader.cookie_by_rex == Some(asker)
            && let Some(holds) = rex_answer(message)
        {
            self.reader.cookie_by_rex = None;
            return holds;
        }
        if self.reader.cookie_requests.is_empty() {
            return false;
        }
        let exit = matches!(message.operation, Operation::PAYLOAD_MONITOR_P_EXIT | Operation::MONITOR_P_EXIT);
        let reference = if exit {
            message.element(Role::Ref).and_then(|mut reference| reference.reference())
        } else {
            activity::answer_reference(message)
        };
        let Some(answered) = reference.map(|reference| (self.hash(reference), asker)) else { return false };
        let Some(place) = self.reader.cookie_requests.iter().position(|&asked| asked == answered) else { return false };
        self.reader.cookie_requests.remove(place);
        !exit || returned(message)
    }

    fn hash(&self, reference: Reference<'_>) -> u64 {
        self.reader.hasher.hash_one(reference.words)
    }
}

/// Whether a compressed term may hide what a message does: it is all of the payload, or a part without which a call is
/// no call. Asked of every message, so it looks at what was read and no further.
fn may_hide(message: &Message<'_>, action: &Action<'_>) -> bool {
    let Some(payload) = message.payload else { return false };
    payload.reader.peek() == Some(Tag::COMPRESSED.0)
        || match action.subject {
            Subject::Mfa { arity, .. } => arity.is_none(),
            Subject::Name(name) => action.kind == ActivityKind::SendNamed && (name.is("rex") || name.is("net_kernel")),
            _ => false,
        }
}

/// Whether a call that ends came back with a value: `{Ref, return, Value}`. Anything else says why it did not.
fn returned(message: &Message<'_>) -> bool {
    let Some(mut reason) = message.payload else { return true };
    reason.tuple() == Some(3) && reason.reference().is_some() && reason.take_atom("return")
}

/// Whether an answer of `rex`, `{rex, Value}`, holds a value and not `{badrpc, Reason}`; nothing for other messages.
fn rex_answer(message: &Message<'_>) -> Option<bool> {
    let mut payload = message.payload?;
    if payload.tuple() != Some(2) || !payload.take_atom("rex") {
        return None;
    }
    let failed = payload.tuple() == Some(2) && payload.take_atom("badrpc");
    Some(!failed)
}
