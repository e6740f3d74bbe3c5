//! What single rules remember over a restart: not what they found, but what they will judge later things by.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::saved::nanos;
use crate::time::Timestamp;

/// One such thing. A later version may know others, and leaves out what it does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// A listener was seen to carry distribution inside TLS (`tls-downgrade`).
    SecuredListener {
        /// The listener.
        at: SocketAddr,
        /// When, as it is printed.
        since: String,
    },
    /// So were two ends, whatever the port.
    SecuredPair {
        /// The initiator's address.
        from: IpAddr,
        /// The acceptor's name.
        to: String,
        /// When, as it is printed.
        since: String,
    },
    /// The last life of a node that was seen (`node-restarted`, `node-name-conflict`).
    Life {
        /// Its name.
        name: String,
        /// Its creation.
        creation: u32,
        /// Its address.
        ip: IpAddr,
        /// Where it accepts distribution, where that is known.
        port: Option<u16>,
        /// The connection that showed it.
        flow: String,
    },
    /// Somebody failed the cookie check often enough to be guessing (`cookie-guessed`).
    Guesses {
        /// The address.
        from: IpAddr,
        /// Who it is there.
        peer: String,
        /// How often.
        count: u64,
        /// When last.
        #[serde(with = "nanos")]
        last: Timestamp,
    },
    /// One of another version.
    #[serde(other)]
    Unknown,
}
