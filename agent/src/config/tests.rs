//! Tests of the configuration file: what is refused, with which words, and that all views of the keys agree.
use super::*;
