//! The inference runtime.
