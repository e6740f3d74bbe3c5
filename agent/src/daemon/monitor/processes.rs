//! Whose the sockets are: asked of a thread of its own, told to the analysis.

use std::sync::mpsc::TrySendError;

use distwatch_engine::cluster::SocketOwner;

use super::Monitor;
use crate::source::live::SocketState;

impl Monitor {
    /// Asks for the processes of sockets that the back end was told of. Who is asked may be slow; what does not fit is counted.
    pub(super) fn take_sockets(&mut self) {
        let mut seen = Vec::new();
        self.source.sockets(&mut |socket| {
            if socket.pid != 0 && socket.state != SocketState::Closed {
                seen.push(socket);
            }
        });
        if seen.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(seen) | TrySendError::Disconnected(seen)) = self.lookups.try_send(seen) {
            self.not_looked_up = self.not_looked_up.saturating_add(seen.len() as u64);
        }
    }

    /// Tells the analysis whose sockets are.
    pub(super) fn take_owners(&mut self, owners: impl IntoIterator<Item = SocketOwner>) {
        let now = self.clock.now();
        for owner in owners {
            self.analysis.handle_process(now, &owner, &mut self.writer);
        }
    }
}
