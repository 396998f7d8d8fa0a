//! The tuned presets that ship with trilut, as text.
//!
//! A crate of its own, so that a new preset never rebuilds the kernels; the program hands
//! [`SHIPPED`] to `trilut_presets::ladder`.

/// `(name, TOML text)` of every shipped preset, sorted by name.
pub const SHIPPED: &[(&str, &str)] = &[];
