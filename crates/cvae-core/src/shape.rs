//! Shape of one row of a value.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The shape of one row of an activation, without the row dimension: `[784]` for a flat vector.
///
/// Values are stored `rows × size()`, row-major, whatever the number of dimensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// A shape with the given dimensions.
    pub fn new(dims: impl Into<Vec<usize>>) -> Self {
        Self(dims.into())
    }

    /// A flat vector of `width` elements.
    pub fn flat(width: usize) -> Self {
        Self(vec![width])
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Elements in one row; saturates instead of overflowing.
    pub fn size(&self) -> usize {
        self.0.iter().fold(1, |size, dim| size.saturating_mul(*dim))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, dim) in self.0.iter().enumerate() {
            write!(f, "{}{dim}", if i > 0 { "x" } else { "" })?;
        }
        Ok(())
    }
}
