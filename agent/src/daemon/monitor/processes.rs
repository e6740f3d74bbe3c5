//! Whose the sockets are: asked of a thread of its own, told to the analysis.

use std::sync::mpsc::TrySendError;

use distwatch_engine::cluster::SocketOwner;

use super::Monitor;
use crate::source::live::SocketState;

/// Sockets that may wait to be asked about besides the batches that are under way: a megabyte, half a second's work.
const UNASKED: usize = 8192;

impl Monitor {
    /// Asks for the processes of sockets that the back end was told of. Who is asked may be slow: what there is no room for waits,
    /// and is counted where there is none even for that.
    pub(super) fn take_sockets(&mut self) {
        let mut seen = std::mem::take(&mut self.unasked);
        self.source.sockets(&mut |socket| {
            if socket.pid != 0 && socket.state != SocketState::Closed {
                seen.push(socket);
            }
        });
        if seen.is_empty() {
            return;
        }
        let mut left = match self.lookups.try_send(seen) {
            Ok(()) => return,
            Err(TrySendError::Full(seen) | TrySendError::Disconnected(seen)) => seen,
        };
        // Who had the oldest is the least likely to be there still.
        let beyond = left.len().saturating_sub(UNASKED);
        left.drain(..beyond);
        self.not_looked_up = self.not_looked_up.saturating_add(beyond as u64);
        self.unasked = left;
    }

    /// Tells the analysis whose sockets are.
    pub(super) fn take_owners(&mut self, owners: impl IntoIterator<Item = SocketOwner>) {
        let now = self.clock.now();
        for owner in owners {
            self.analysis.handle_process(now, &owner, &mut self.writer);
        }
    }
}
