//! The report of one analysis: all that was seen and judged, and the forms that it is printed in.

pub mod graph;
mod group;
pub mod json;
pub mod ndjson;
pub mod rules;
#[cfg(test)]
pub(crate) mod sample;
pub mod schema;
pub mod text;

use distwatch_engine::model::{Activity, Alert, Capture, EpmdExchange, Link, Node, SCHEMA_VERSION, Stats};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

/// What `analyze` found (`docs/contract.md`, "The report of analyze --format json"). Every array is printed, also an
/// empty one, in the order given here: order is the caller's, and the same input must give the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Report {
    /// The version of this shape.
    pub schema_version: SchemaVersion,
    /// What was read.
    pub captures: Vec<Capture>,
    /// Nodes that took part.
    pub nodes: Vec<Node>,
    /// Distribution connections, and attempts at one.
    pub links: Vec<Link>,
    /// EPMD requests with their answers.
    pub epmd: Vec<EpmdExchange>,
    /// Remote actions read in clear, aggregated.
    pub activity: Vec<Activity>,
    /// Findings in their last state.
    pub alerts: Vec<Alert>,
    /// Counters.
    pub stats: Stats,
}

/// The one version of the shapes that this program prints: always [`SCHEMA_VERSION`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchemaVersion;

impl Serialize for SchemaVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(SCHEMA_VERSION)
    }
}

impl JsonSchema for SchemaVersion {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SchemaVersion".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "const": SCHEMA_VERSION })
    }
}
