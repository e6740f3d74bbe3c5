//! Everything of distwatch that touches the world: sources of packets, sinks, configuration and the commands.

pub mod record;
pub mod report;
pub mod source;
