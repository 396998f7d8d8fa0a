//! What ternary weights are multiplied with.

/// What the weights of a matrix are multiplied with.
#[derive(Debug, Clone, PartialEq)]
pub enum Scales {
    /// One number for all.
    One(f32),
    /// One for each row.
    Rows(Vec<f32>),
    /// One for each `inputs` weights of a row.
    Groups {
        /// Weights of a group; a row is a whole number of groups.
        inputs: usize,
        /// By row, then by group.
        scales: Vec<f32>,
    },
}

impl Scales {
    /// The scale of a weight, by its position in a row-major matrix of rows of `k`.
    pub fn at(&self, index: usize, k: usize) -> f32 {
        match self {
            Self::One(scale) => *scale,
            Self::Rows(scales) => scales[index / k],
            Self::Groups { inputs, scales } => scales[index / inputs],
        }
    }

    /// Every number that is there.
    pub fn all(&self) -> &[f32] {
        match self {
            Self::One(scale) => std::slice::from_ref(scale),
            Self::Rows(scales) | Self::Groups { scales, .. } => scales,
        }
    }

    /// All scales times a factor.
    pub fn times(mut self, factor: f32) -> Self {
        match &mut self {
            Self::One(scale) => *scale *= factor,
            Self::Rows(scales) | Self::Groups { scales, .. } => {
                scales.iter_mut().for_each(|scale| *scale *= factor);
            }
        }
        self
    }
}
