//! The size of a linear layer.

use crate::ParseError;

/// A weight matrix of `m` outputs (rows) and `k` inputs (columns). Written `MxK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// Number of outputs (rows), at least 1.
    pub m: usize,
    /// Number of inputs (columns), at least 1.
    pub k: usize,
}

impl Shape {
    /// The largest `m` that is accepted.
    pub const MAX_M: usize = 1 << 24;
    /// The largest `k` that is accepted. Every int32 step of every algorithm is exact up to here; the
    /// tightest is `dot`, whose x64 bank reaches 64 * 2 * 128 * k / 16 = 2^30 per lane.
    pub const MAX_K: usize = 1 << 20;

    /// A shape of `m` outputs and `k` inputs.
    ///
    /// # Errors
    /// When either side is 0, `m` is above [`Shape::MAX_M`] or `k` above [`Shape::MAX_K`].
    pub fn new(m: usize, k: usize) -> Result<Self, ParseError> {
        if (1..=Self::MAX_M).contains(&m) && (1..=Self::MAX_K).contains(&k) {
            Ok(Self { m, k })
        } else {
            let (max_m, max_k) = (Self::MAX_M, Self::MAX_K);
            let (near_m, near_k) = (m.clamp(1, max_m), k.clamp(1, max_k));
            let rule = format!(
                "outputs must be 1..={max_m} and inputs 1..={max_k}; nearest: {near_m}x{near_k}"
            );
            Err(ParseError::new("shape", &format!("{m}x{k}"), rule))
        }
    }

    /// The number of weights, `m * k`.
    pub const fn weights(self) -> usize {
        self.m * self.k
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{}x{}", self.m, self.k))
    }
}

impl std::str::FromStr for Shape {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let rule = || ParseError::new("shape", text, "MxK, such as 2560x6912 (outputs x inputs)");
        let (m, k) = text.split_once(['x', 'X']).ok_or_else(rule)?;
        let side = |s: &str| s.trim().parse::<usize>().map_err(|_| rule());
        Self::new(side(m)?, side(k)?)
    }
}

impl serde::Serialize for Shape {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Shape {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_and_written_alike() {
        let shape: Shape = "2560x6912".parse().unwrap();
        assert_eq!((shape.m, shape.k), (2560, 6912));
        assert_eq!(shape.to_string().parse(), Ok(shape));
    }

    #[test]
    fn empty_and_absurd_shapes_are_refused() {
        for text in [
            "0x128",
            "128x0",
            "x",
            "12",
            "-1x4",
            "1x99999999999999999999",
            "16777217x1",
            "1x1048577",
        ] {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
    }
}
