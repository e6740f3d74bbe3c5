//! The books of a capture, as `status` prints them.

use serde_json::Value;

use crate::items;

/// Packets lost, by whatever stage.
#[must_use]
pub fn lost(books: &Value) -> u64 {
    match &books["lost"] {
        Value::Object(stages) => stages.values().filter_map(Value::as_u64).sum(),
        _ => items(books, "lost").iter().filter_map(|stage| stage["packets"].as_u64()).sum(),
    }
}

/// Packets that were seen and are nowhere in the books (negative: that are in them twice). Those under way are, for a moment.
#[must_use]
pub fn unaccounted(books: &Value) -> i64 {
    let number = |field: &str| books[field].as_u64().unwrap_or_default();
    let known = number("handed") + number("uninteresting") + number("counted") + number("refused") + lost(books);
    number("seen").cast_signed() - known.cast_signed()
}
