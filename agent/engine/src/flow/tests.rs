//! Hostile and unusual TCP against the whole layer.
