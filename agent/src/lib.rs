//! Everything of distwatch that touches the world: sources of packets, sinks, configuration and the commands.

pub mod cli;
mod clocks;
pub mod cmd;
pub mod config;
pub mod daemon;
mod disk;
pub mod guideline;
pub mod host;
pub mod http;
mod key_files;
pub mod logging;
mod memory;
pub mod near;
pub mod notify;
pub mod pipeline;
mod priority;
pub mod privilege;
pub mod record;
pub mod report;
pub mod sink;
pub mod source;
#[cfg(test)]
mod testing;
mod text;
