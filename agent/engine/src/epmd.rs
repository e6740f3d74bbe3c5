//! One TCP connection to an EPMD: a request, its answer, and the registration that lasts as long as the connection.
//!
//! Rules: OTP, "Distribution Protocol", section "EPMD Protocol"; what the documents leave out is in `docs/protocol.md` §1.
//! Memory is bounded by [`MAX_ANSWER`] and the longest request. Either direction may be missing.

mod answer;
mod request;

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::model::{Endpoint, EpmdExchange, EpmdName, EpmdNode, EpmdRequest};
use crate::notice::{Notice, NoticeKind, Notices};
use crate::packet::{At, Side};
use crate::text::printable;

use answer::Answer;
use request::{Kind, MAX_LENGTH, Request};

pub use request::looks_like_request;

/// Octets of an answer that are kept. A list of 1,000 names of usual length is 40 KB; what comes beyond is counted
/// and not read.
pub const MAX_ANSWER: usize = 128 << 10;
/// Bytes of a name as text: the longest that epmd takes.
const NAME_TEXT: usize = 1020;

/// What a connection yields.
#[derive(Clone, Debug)]
pub enum Output {
    /// A request with its answer, or with the silence that it met.
    Finished(Box<Finished>),
    /// A registration ended, and with it the name's entry.
    Unregistered(Registration),
    /// What the client sent is no request of any epmd. Said once; nothing more is read.
    NotEpmd,
    /// The client began a request and the connection ended before it was whole.
    Unfinished {
        /// Octets of the request that were sent.
        octets: usize,
    },
    /// A remark.
    Notice(Notice),
}

/// A request with its answer; the connection layer adds the addresses with [`Finished::into_exchange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// When the request was complete (of an unseen request: when its answer was).
    pub at: At,
    /// What was asked.
    pub request: EpmdRequest,
    /// The name in the request, or in the answer where the request was not captured.
    pub name: String,
    /// The answer in words.
    pub result: String,
    /// The daemon closed without a word.
    pub silently_closed: bool,
    /// What was registered or answered.
    pub node: Option<EpmdNode>,
    /// The creation that a registration was given.
    pub creation: Option<u32>,
    /// The nodes of a list.
    pub names: Vec<EpmdName>,
    /// Whether the daemon did what was asked.
    pub accepted: bool,
}

impl Finished {
    /// The exchange as it is reported. Silence becomes `refused` where epmd refuses in that way: a request that is
    /// open to local peers alone, from a peer that is not local (erts/epmd/src/epmd_srv.c, `conn_local_peer_check`).
    #[must_use]
    pub fn into_exchange(self, client: Endpoint, server: Endpoint, flow_id: String) -> EpmdExchange {
        let local = is_local(client.ip, server.ip);
        let refused = self.silently_closed && !local && is_local_only(self.request);
        EpmdExchange {
            timestamp: self.at.time,
            client,
            server,
            request: self.request,
            name: self.name,
            result: if refused { "refused".into() } else { self.result },
            local,
            flow_id,
            node: self.node,
            creation: self.creation,
            names: self.names,
            accepted: self.accepted,
        }
    }
}

/// A registration that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The part of the node's name before the `@`.
    pub name: String,
    /// The creation that it had.
    pub creation: u32,
    /// When it began.
    pub since: At,
    /// When it ended.
    pub until: At,
    /// The client sent further octets, upon which epmd drops a registration; otherwise the connection ended.
    pub by_octets: bool,
}

/// Whether epmd takes the client for local: loopback, or the same address at both ends of the connection.
#[must_use]
pub fn is_local(client: IpAddr, server: IpAddr) -> bool {
    let (client, server) = (client.to_canonical(), server.to_canonical());
    client.is_loopback() || client == server
}

/// Whether epmd takes this request from local peers alone.
#[must_use]
pub const fn is_local_only(request: EpmdRequest) -> bool {
    matches!(request, EpmdRequest::Alive2 | EpmdRequest::Dump | EpmdRequest::Kill | EpmdRequest::Stop)
}

/// What is known of the request.
#[derive(Debug, Default)]
enum Asked {
    /// Not whole yet.
    #[default]
    Reading,
    /// Octets of it were not captured.
    Missed,
    /// Read.
    Known { at: At, request: EpmdRequest, name: String, node: Option<EpmdNode> },
}

/// Where the connection is.
#[derive(Debug, Default)]
enum State {
    /// Before the answer is whole.
    #[default]
    Open,
    /// A node is registered by it.
    Registered { name: String, creation: u32, since: At },
    /// Nothing more is read.
    Done,
}

/// One TCP connection to an EPMD.
#[derive(Debug, Default)]
pub struct Exchange {
    state: State,
    asked: Asked,
    request: Vec<u8>,
    /// Octets after the request were reported.
    beyond_request: bool,
    answer: Vec<u8>,
    /// Octets of the answer that were not kept.
    beyond_answer: u64,
    /// Octets of the answer are missing; those after the hole are not read.
    answer_gap: bool,
    outputs: VecDeque<Output>,
    notices: Notices,
}

impl Exchange {
    /// A connection of which nothing has been seen.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next octets of one side, in any portions.
    pub fn handle_data(&mut self, at: &At, side: Side, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        match side {
            Side::Initiator => self.handle_request(at, data),
            Side::Acceptor => self.handle_answer(at, data),
        }
    }

    /// `bytes` octets of one side were sent and not captured.
    pub fn handle_gap(&mut self, at: &At, side: Side, bytes: u64) {
        if bytes == 0 || matches!(self.state, State::Done) {
            return;
        }
        match (side, &self.state) {
            (Side::Initiator, State::Registered { .. }) => self.unregister(at, true),
            (Side::Initiator, _) if matches!(self.asked, Asked::Reading) => {
                self.asked = Asked::Missed;
                self.request = Vec::new();
            }
            (Side::Initiator, _) => {}
            (Side::Acceptor, _) => self.answer_gap = true,
        }
    }

    /// The connection ended; `closed_by` is the side that ended it first, where that is known.
    pub fn handle_close(&mut self, at: &At, closed_by: Option<Side>) {
        match self.state {
            State::Done => return,
            State::Registered { .. } => return self.unregister(at, false),
            State::Open => {}
        }
        match self.asked {
            Asked::Known { .. } => self.read_answer(at, Some(closed_by)),
            Asked::Reading if !self.request.is_empty() => {
                self.outputs.push_back(Output::Unfinished { octets: self.request.len() });
            }
            Asked::Reading | Asked::Missed => self.infer_request(at),
        }
        self.finish();
    }

    /// The next thing that became known.
    pub fn poll(&mut self) -> Option<Output> {
        self.notices.poll().map(Output::Notice).or_else(|| self.outputs.pop_front())
    }

    /// Nothing more will come of this connection: its further octets need not be handed over.
    #[must_use]
    pub const fn finished_looking(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// A node is registered by this connection.
    #[must_use]
    pub const fn is_registration(&self) -> bool {
        matches!(self.state, State::Registered { .. })
    }

    /// Bytes held, with the buffers.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.request.capacity() + self.answer.capacity() + self.notices.memory()
    }

    fn handle_request(&mut self, at: &At, data: &[u8]) {
        match (&self.state, &self.asked) {
            (State::Done, _) | (State::Open, Asked::Missed) => {}
            (State::Registered { .. }, _) => self.unregister(at, true),
            (State::Open, Asked::Known { .. }) => self.note_beyond_request(at),
            (State::Open, Asked::Reading) => self.read_request(at, data),
        }
    }

    fn read_request(&mut self, at: &At, data: &[u8]) {
        let kept = (2 + MAX_LENGTH - self.request.len()).min(data.len());
        let (front, mut rest) = data.split_at_checked(kept).unwrap_or((data, &[]));
        self.request.extend_from_slice(front);
        let [high, low, body @ ..] = self.request.as_slice() else { return };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let known = body.first().is_none_or(|&opcode| request::kind(opcode).is_some());
        if length == 0 || length > MAX_LENGTH || !known {
            self.outputs.push_back(Output::NotEpmd);
            return self.finish();
        }
        let Some((body, after)) = body.split_at_checked(length) else { return };
        if !after.is_empty() {
            rest = after;
        }
        let beyond = !rest.is_empty();
        match Request::decode(body) {
            Ok(request) => {
                let remark = remark(&request);
                let asked = match request.kind {
                    Kind::Known(kind) => {
                        let name = printable(request.name, NAME_TEXT);
                        Some(Asked::Known { at: *at, request: kind, name, node: request.node })
                    }
                    Kind::Obsolete(_) => None,
                };
                if let Some(remark) = remark {
                    self.notices.push(at, Side::Initiator, remark);
                }
                match asked {
                    Some(asked) => self.asked = asked,
                    None => return self.finish(),
                }
            }
            Err(error) => {
                let opcode = body.first().copied().unwrap_or_default();
                let title = match request::kind(opcode) {
                    Some(Kind::Known(kind)) => request::title(kind),
                    _ => "request",
                };
                self.notices.push(at, Side::Initiator, NoticeKind::Violation(format!("{title}: {error}")));
                return self.finish();
            }
        }
        self.request = Vec::new();
        if beyond {
            self.note_beyond_request(at);
        }
        self.read_answer(at, None);
    }

    fn handle_answer(&mut self, at: &At, data: &[u8]) {
        if !matches!(self.state, State::Open) || self.answer_gap {
            return;
        }
        let kept = (MAX_ANSWER - self.answer.len()).min(data.len());
        self.answer.extend_from_slice(data.get(..kept).unwrap_or_default());
        if kept < data.len() {
            if self.beyond_answer == 0 {
                self.notices.push(at, Side::Acceptor, NoticeKind::Limit("epmd_answer"));
            }
            self.beyond_answer = self.beyond_answer.saturating_add((data.len() - kept) as u64);
        }
        self.read_answer(at, None);
    }

    /// Reads the answer if it is whole. `ended` is set at the end of the connection, with the side that ended it.
    fn read_answer(&mut self, at: &At, ended: Option<Option<Side>>) {
        let Asked::Known { at: asked_at, request, name, node } = &self.asked else { return };
        let (asked_at, request) = (*asked_at, *request);
        if self.answer.is_empty() {
            let Some(closed_by) = ended else { return };
            let finished = Finished {
                at: asked_at,
                request,
                name: name.clone(),
                result: "none".into(),
                silently_closed: closed_by == Some(Side::Acceptor) && !self.answer_gap,
                node: node.clone(),
                creation: None,
                names: Vec::new(),
                accepted: false,
            };
            self.outputs.push_back(Output::Finished(Box::new(finished)));
            return self.finish();
        }
        let Some(answer) = Answer::read(request, &self.answer, ended.is_some()) else { return };
        let (name, node) = (name.clone(), node.clone());
        self.tell(at, asked_at, request, name, node, answer);
    }

    /// At the end of a connection whose request was not captured: the answer tells most of it.
    fn infer_request(&mut self, at: &At) {
        if self.answer.is_empty() {
            return;
        }
        let Some(request) = Answer::request_of(&self.answer) else {
            let what = "an answer without its request that no epmd gives".into();
            return self.notices.push(at, Side::Acceptor, NoticeKind::Undecodable(what));
        };
        if let Some(answer) = Answer::read(request, &self.answer, true) {
            self.tell(at, *at, request, String::new(), None, answer);
        }
    }

    fn tell(
        &mut self,
        at: &At,
        asked_at: At,
        request: EpmdRequest,
        name: String,
        node: Option<EpmdNode>,
        answer: Answer,
    ) {
        if let Some(what) = answer.unreadable {
            // A list that a limit or a hole cut is no fault of the daemon.
            if !self.answer_gap && self.beyond_answer == 0 {
                let what = format!("answer to {}: {what}", request::title(request));
                self.notices.push(at, Side::Acceptor, NoticeKind::Undecodable(what));
            }
        }
        if answer.odd_name {
            let detail = "a registered name holds spaces or control characters and may forge lines of a list".into();
            self.notices.push(at, Side::Acceptor, NoticeKind::Weird("odd-epmd-name", detail));
        }
        if answer.names_left_out > 0 {
            self.notices.push(at, Side::Acceptor, NoticeKind::Limit("epmd_names"));
        }
        let name = if name.is_empty() { answer.name } else { name };
        self.state = match answer.creation {
            Some(creation) => State::Registered { name: name.clone(), creation, since: asked_at },
            None => State::Done,
        };
        self.answer = Vec::new();
        self.outputs.push_back(Output::Finished(Box::new(Finished {
            at: asked_at,
            request,
            name,
            result: answer.result,
            silently_closed: false,
            node: node.or(answer.node),
            creation: answer.creation,
            names: answer.names,
            accepted: answer.accepted,
        })));
    }

    /// epmd drops a connection that sends more than its request.
    fn note_beyond_request(&mut self, at: &At) {
        if !self.beyond_request {
            self.beyond_request = true;
            let what = "octets after the request, for which epmd drops the connection".into();
            self.notices.push(at, Side::Initiator, NoticeKind::Violation(what));
        }
    }

    fn unregister(&mut self, at: &At, by_octets: bool) {
        if let State::Registered { name, creation, since } = std::mem::replace(&mut self.state, State::Done) {
            let registration = Registration { name, creation, since, until: *at, by_octets };
            self.outputs.push_back(Output::Unregistered(registration));
        }
    }

    fn finish(&mut self) {
        self.state = State::Done;
        self.request = Vec::new();
        self.answer = Vec::new();
    }
}

/// What is odd about a request that epmd would still take.
fn remark(request: &Request<'_>) -> Option<NoticeKind> {
    match request.kind {
        Kind::Obsolete(opcode) => {
            let detail = format!("request {opcode} was dropped before R5; epmd closes the connection on it");
            Some(NoticeKind::Weird("obsolete-request", detail))
        }
        Kind::Known(kind) if request.ignored > 0 => {
            let (title, ignored) = (request::title(kind), request.ignored);
            Some(NoticeKind::Violation(format!("{title} with {ignored} octets that do not belong to it")))
        }
        Kind::Known(kind) if request.name.iter().any(|&byte| byte <= b' ' || byte == 0x7f) => {
            let detail = format!("the name in {} holds spaces or control characters", request::title(kind));
            Some(NoticeKind::Weird("odd-epmd-name", detail))
        }
        Kind::Known(_) => None,
    }
}

#[cfg(test)]
mod tests;
