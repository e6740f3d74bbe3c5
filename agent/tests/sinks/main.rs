//! Sinks as an operator relies on them: every record arrives, in order, whatever happens to server, disk and process.

mod child;
mod delivery;
mod faults;
mod grpc;
mod harness;
mod loki;
mod real;
mod standin;
