//! `distwatch schema`: the JSON Schema of what `analyze` prints.

use super::{Exit, print};
use crate::cli::{SchemaArgs, SchemaOf};
use crate::report::schema;

/// Prints a schema.
///
/// # Errors
/// Standard output fails.
pub fn run(arguments: SchemaArgs) -> anyhow::Result<Exit> {
    let schema = match arguments.of {
        SchemaOf::Records => schema::records(),
        SchemaOf::Report => schema::report(),
    };
    print(|out| writeln!(out, "{schema:#}"))
}
