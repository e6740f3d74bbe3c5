//! Everything of distwatch that touches the world: captures in, reports and records out.

pub mod record;
pub mod report;
