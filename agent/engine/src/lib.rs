//! Decoding and judgement of Erlang distribution and EPMD: bytes and time in, events and alerts out.
//!
//! Nothing in here does I/O, reads a clock or spawns a thread, so the daemon, the offline analysis, the tests
//! and the fuzzers all run the same code.

pub mod activity;
pub mod analysis;
#[cfg(test)]
mod captured;
pub mod cluster;
mod connection;
pub mod cookies;
pub mod detect;
pub mod dist;
pub mod engine;
pub mod epmd;
pub mod etf;
pub mod event;
pub mod flow;
pub mod limits;
pub mod listeners;
pub mod model;
pub mod net;
pub mod notice;
pub mod packet;
pub mod policy;
pub mod recall;
pub mod saved;
pub mod stats;
pub mod text;
pub mod time;
pub mod tls;
pub mod wire;
