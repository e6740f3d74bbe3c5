//! A connection to an EPMD: its exchange becomes an event, and its answers teach where nodes listen.

use std::net::SocketAddr;

use super::Shared;
use crate::engine::Context;
use crate::epmd::{Exchange, Finished, Output};
use crate::event::{EventBody, Expected};
use crate::flow::FlowFacts;
use crate::model::{Endpoint, EpmdExchange, EpmdRequest};
use crate::packet::{At, Side};

/// The conversation.
#[derive(Debug)]
pub(super) struct Epmd {
    exchange: Exchange,
}

impl Epmd {
    pub(super) fn new() -> Self {
        Self { exchange: Exchange::new() }
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
        self.exchange.handle_data(at, side, data);
        self.drain(at, flow, shared, cx);
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
        self.exchange.handle_gap(at, side, bytes);
        self.drain(at, flow, shared, cx);
    }

    pub(super) fn handle_close(
        &mut self,
        at: &At,
        flow: &FlowFacts,
        closed_by: Option<Side>,
        shared: &mut Shared,
        cx: &mut Context,
    ) {
        self.exchange.handle_close(at, closed_by);
        self.drain(at, flow, shared, cx);
    }

    /// The capture ends before the connection: what was asked is told, whatever the answer would have been.
    pub(super) fn handle_end(&mut self, at: &At, flow: &FlowFacts, shared: &mut Shared, cx: &mut Context) {
        self.handle_close(at, flow, None, shared, cx);
    }

    pub(super) fn memory(&self) -> usize {
        self.exchange.memory()
    }

    fn drain(&mut self, at: &At, flow: &FlowFacts, shared: &mut Shared, cx: &mut Context) {
        while let Some(output) = self.exchange.poll() {
            match output {
                Output::Finished(finished) => finish(*finished, at, flow, shared, cx),
                // The listener of an ended registration may live on (EPMD was ended, say), so nothing is forgotten.
                Output::Unregistered(_) => {}
                Output::NotEpmd => foreign("unknown bytes", at, flow, shared, cx),
                Output::Unfinished { octets } => {
                    let detail = format!("a request was cut off after {octets} octets");
                    shared.weird(at, flow, "epmd", "unfinished-request", detail, cx);
                }
                Output::Notice(notice) => shared.tell_notice(&notice, flow, "epmd", cx),
            }
        }
    }
}

fn foreign(looks_like: &'static str, at: &At, flow: &FlowFacts, shared: &mut Shared, cx: &mut Context) {
    shared.tell(at, flow, EventBody::Foreign { expected: Expected::Epmd, looks_like }, cx);
}

fn finish(finished: Finished, at: &At, flow: &FlowFacts, shared: &mut Shared, cx: &mut Context) {
    let end = |address: SocketAddr| Endpoint { ip: address.ip(), port: address.port() };
    let flow_id = shared.info(flow, cx).id.clone();
    let exchange = finished.into_exchange(end(flow.opening.initiator), end(flow.opening.acceptor), flow_id);
    if exchange.accepted {
        // Whoever answers like an EPMD is one; whoever asks like its client may be anybody.
        cx.listeners.learn(flow.opening.acceptor, Expected::Epmd);
        learn(&exchange, cx);
    }
    shared.tell(at, flow, EventBody::Epmd(Box::new(exchange)), cx);
}

/// A registration comes from the node's own host; an answer is about nodes of EPMD's host.
fn learn(exchange: &EpmdExchange, cx: &mut Context) {
    let mut listens = |ip, port| cx.listeners.learn(SocketAddr::new(ip, port), Expected::Distribution);
    match (exchange.request, &exchange.node) {
        (EpmdRequest::Alive2, Some(node)) if exchange.local => {
            listens(exchange.client.ip, node.port);
            listens(exchange.server.ip, node.port);
        }
        (EpmdRequest::PortPlease2, Some(node)) => {
            listens(exchange.server.ip, node.port);
        }
        _ => {}
    }
    for name in &exchange.names {
        listens(exchange.server.ip, name.port);
    }
}
