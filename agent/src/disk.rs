//! What a disk says that takes nothing.

use std::io;

/// Whether an error says of a disk only that it is full, which passes.
#[must_use]
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
