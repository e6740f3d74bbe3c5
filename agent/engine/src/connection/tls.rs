//! A TLS connection that is distribution by its port, or turns out to be by the lengths of its records.

use super::Shared;
use crate::engine::Context;
use crate::event::LinkChange;
use crate::flow::FlowFacts;
use crate::model::{Answer, HandshakeOutcome, TlsOutcome, Transport};
use crate::packet::{At, Side};
use crate::tls::Session;

/// The conversation.
#[derive(Debug)]
pub(super) struct Tls {
    session: Session,
    /// The server has said anything at all.
    answered: bool,
}

impl Tls {
    pub(super) fn new(mid_stream: bool) -> Self {
        Self { session: Session::new(mid_stream), answered: false }
    }

    pub(super) fn handle_data(&mut self, at: &At, flow: &FlowFacts, side: Side, data: &[u8], shared: &mut Shared, cx: &mut Context) {
        self.answered |= side == Side::Acceptor;
        self.session.handle_data(at, side, data);
        if self.session.changed() {
            self.take_facts(at, flow, shared, cx);
        }
    }

    pub(super) fn handle_gap(&mut self, at: &At, side: Side, bytes: u64) {
        self.session.handle_gap(at, side, bytes);
    }

    pub(super) fn handle_close(&mut self, at: &At, flow: &FlowFacts, closed_by: Option<Side>, shared: &mut Shared, cx: &mut Context) {
        self.session.handle_close(at, closed_by);
        self.take_facts(at, flow, shared, cx);
        if !self.answered && closed_by == Some(Side::Acceptor) && !shared.mid_stream {
            // A cleartext node waits 7 s for a handshake of its own kind and closes (`docs/protocol.md` §2.4).
            if let Some(tls) = shared.link.as_mut().and_then(|link| link.tls.as_mut()) {
                tls.outcome = TlsOutcome::NotTls;
                shared.tell_link(at, flow, LinkChange::Handshake, cx);
            }
        }
    }

    pub(super) fn handle_end(&mut self, at: &At, flow: &FlowFacts, shared: &mut Shared, cx: &mut Context) {
        self.take_facts(at, flow, shared, cx);
    }

    pub(super) fn finished_looking(&self) -> bool {
        self.session.finished_looking()
    }

    pub(super) fn is_established(&self) -> bool {
        matches!(self.session.facts().outcome, TlsOutcome::Ok | TlsOutcome::Established | TlsOutcome::Unseen)
    }

    pub(super) fn memory(&self) -> usize {
        self.session.memory()
    }

    fn take_facts(&self, at: &At, flow: &FlowFacts, shared: &mut Shared, cx: &mut Context) {
        let facts = self.session.facts();
        if shared.link.is_none() && facts.distribution_inside != Answer::Yes {
            return;
        }
        shared.open_link(at, flow, Transport::Tls, cx);
        let Some(link) = shared.link.as_mut() else { return };
        if link.tls.as_ref() == Some(facts) {
            return;
        }
        let ended = link.tls.as_ref().is_none_or(|before| before.outcome != facts.outcome);
        link.handshake.outcome = match facts.outcome {
            TlsOutcome::BadCookie => HandshakeOutcome::BadCookie,
            _ => HandshakeOutcome::Unseen,
        };
        link.tls = Some(facts.clone());
        let change = if ended { LinkChange::Handshake } else { LinkChange::Progress };
        shared.tell_link(at, flow, change, cx);
    }
}

