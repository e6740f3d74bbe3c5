//! The daemon's HTTP server: metrics, the state of the cluster, and the events as they come, for whoever may ask.
//!
//! ```text
//!  capture thread <── one question a second at most ── pictures ──> metrics, readiness, lists
//!  output ── every record ──> recent ──> events, for each client from where it left off
//! ```
//!
//! It only reads: GET and HEAD, HTTP/1.1 (streams in one connection are what this server does not need, and their
//! attacks are what it does not have). It cannot hold back the capture: a picture is made of pointers, and what a client does
//! not read is not kept for it. Every limit is in [`limits`].

mod access;
mod answer;
mod api;
mod counts;
mod events;
mod guests;
pub mod limits;
mod metrics;
mod page;
mod patient;
mod pictures;
mod query;
mod recent;
#[cfg(test)]
pub(crate) mod sample;
mod server;
mod settings;
mod site;
mod tls;

pub use counts::{Counts, Snapshot};
pub use metrics::Reload;
pub use pictures::{Ask, Silent};
pub use recent::Recent;
pub use server::{Listener, OpenError, Server};
pub use settings::{Fault, Metrics, Settings};
pub use site::Sources;
