//! A TLS connection that is distribution by its port, or turns out to be by the lengths of its records.

use super::Shared;
use crate::engine::Context;
use crate::event::{Expected, LinkChange};
use crate::flow::FlowFacts;
use crate::model::{Answer, HandshakeOutcome, TlsOutcome, Transport};
use crate::packet::{At, Side};
use crate::tls::Session;

/// The conversation.
#[derive(Debug)]
pub(super) struct Tls {
    session: Session,
}

impl Tls {
    pub(super) fn new(mid_stream: bool) -> Self {
        Self { session: Session::new(mid_stream) }
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
        self.session.handle_data(at, side, data);
        if self.session.changed() {
            self.take_facts(at, flow, shared, cx);
        }
    }

    pub(super) fn handle_gap(&mut self, at: &At, side: Side, bytes: u64) {
        self.session.handle_gap(at, side, bytes);
    }

    pub(super) fn handle_close(
        &mut self,
        at: &At,
        flow: &FlowFacts,
        closed_by: Option<Side>,
        shared: &mut Shared,
        cx: &mut Context,
    ) {
        self.session.handle_close(at, closed_by);
        self.take_facts(at, flow, shared, cx);
    }

    pub(super) fn handle_end(&mut self, at: &At, flow: &FlowFacts, shared: &mut Shared, cx: &mut Context) {
        self.take_facts(at, flow, shared, cx);
    }

    pub(super) fn finished_looking(&self) -> bool {
        self.session.finished_looking()
    }

    pub(super) fn is_established(&self) -> bool {
        self.session.is_established()
    }

    pub(super) fn memory(&self) -> usize {
        self.session.memory()
    }

    fn take_facts(&mut self, at: &At, flow: &FlowFacts, shared: &mut Shared, cx: &mut Context) {
        while let Some(notice) = self.session.poll_notice() {
            if shared.link.is_some() {
                shared.tell_notice(&notice, flow, "tls", cx);
            }
        }
        let facts = self.session.facts();
        // EPMD may have named the port only after the connection began.
        let expected = cx.listeners.expected(flow.opening.acceptor) == Some(Expected::Distribution);
        if shared.link.is_none() && !expected && facts.distribution_inside != Answer::Yes {
            return;
        }
        shared.open_link(at, flow, Transport::Tls, cx);
        let before = shared.link.as_ref().and_then(|link| link.tls.as_deref());
        if before == Some(facts) {
            return;
        }
        let ended = before.is_none_or(|before| before.outcome != facts.outcome);
        let Some(link) = shared.link_mut() else { return };
        link.handshake.outcome = match facts.outcome {
            TlsOutcome::BadCookie => HandshakeOutcome::BadCookie,
            TlsOutcome::Ok | TlsOutcome::Established | TlsOutcome::Unseen => HandshakeOutcome::Unseen,
            // Without TLS there was none inside it.
            TlsOutcome::RefusedByServer | TlsOutcome::RefusedByClient | TlsOutcome::Incomplete | TlsOutcome::NotTls => {
                HandshakeOutcome::Incomplete
            }
        };
        link.tls = Some(Box::new(facts.clone()));
        let change = if ended { LinkChange::Handshake } else { LinkChange::Progress };
        shared.tell_link(at, flow, change, cx);
    }
}
