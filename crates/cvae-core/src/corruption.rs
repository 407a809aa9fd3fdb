//! What is done to the rows before the encoder sees them, in training only.
//!
//! Columns are corrupted in *units*: a column by itself, the columns of one categorical variable together, or
//! the pixels of a square patch. One random word decides about a unit.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::columns::{ColumnGroup, ColumnKind};
use crate::error::SpecError;

/// Noise on the input of the encoder. The target stays clean, and evaluation draws no noise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Corruption {
    /// None.
    #[default]
    None,
    /// `x + std·ε` with `ε ~ N(0, I)`.
    Gaussian {
        /// Standard deviation, in the units of the rows.
        std: f64,
    },
    /// Each unit is set to 0 with probability `share`.
    Masking {
        /// Probability, at least 0 and below 1.
        share: f64,
    },
    /// Each unit takes the values of another row of the batch with probability `share`.
    Permutation {
        /// Probability, at least 0 and below 1.
        share: f64,
    },
    /// The masked autoencoder: each unit is set to 0 with probability `share`, and the reconstruction term
    /// counts those units alone.
    Masked {
        /// Probability, above 0 and below 1; 0.75 is usual for images.
        share: f64,
        /// Square patches of an image as units.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        patch: Option<Patch>,
    },
}

/// Square patches of rows that are images, `height × width × channels` with the channel varying fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// Pixels of a side; patches at the right and lower border may be smaller.
    pub size: usize,
    /// Pixels of an image row.
    pub width: usize,
    /// Values of a pixel.
    #[serde(default = "one")]
    pub channels: usize,
}

fn one() -> usize {
    1
}

impl Corruption {
    /// Share of masked units that [`crate::Objective::masked`] uses (He et al., CVPR 2022).
    pub const DEFAULT_MASKED: f64 = 0.75;

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gaussian { .. } => "gaussian",
            Self::Masking { .. } => "masking",
            Self::Permutation { .. } => "permutation",
            Self::Masked { .. } => "masked",
        }
    }

    /// Whether it does anything: one with a strength of 0 is not lowered.
    pub fn is_active(self) -> bool {
        match self {
            Self::None => false,
            Self::Gaussian { std: strength } | Self::Masking { share: strength } => strength > 0.0,
            Self::Permutation { share } | Self::Masked { share, .. } => share > 0.0,
        }
    }

    /// Checks the corruption against rows of `width` values.
    ///
    /// # Errors
    /// A strength out of its range, or patches that do not fit the rows.
    pub(crate) fn validate(self, width: usize) -> Result<(), SpecError> {
        let share = |value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(SpecError::Decay { name: "share", value }),
        };
        match self {
            Self::None => Ok(()),
            Self::Gaussian { std } if std.is_finite() && std >= 0.0 => Ok(()),
            Self::Gaussian { std } => Err(SpecError::Weight { name: "std", value: std }),
            Self::Masking { share: value } | Self::Permutation { share: value } => share(value),
            Self::Masked { share: value, .. } if value == 0.0 => Err(SpecError::NotPositive { name: "share", value }),
            Self::Masked { share: value, patch } => {
                share(value)?;
                match patch {
                    Some(Patch { size, width: image, channels })
                        if size == 0
                            || image == 0
                            || channels == 0
                            || !width.is_multiple_of(image.saturating_mul(channels)) =>
                    {
                        Err(SpecError::Patch { size, image, channels, width })
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// The unit of each of `width` columns, numbered from 0 in the order of their first columns.
    pub fn units(self, width: usize, columns: &[ColumnGroup]) -> Vec<u32> {
        if let Self::Masked { patch: Some(Patch { size, width: image, channels }), .. } = self {
            let across = image.div_ceil(size);
            let unit = |index: usize| {
                let (x, y) = (index / channels % image, index / channels / image);
                (y / size * across + x / size) as u32
            };
            return (0..width).map(unit).collect();
        }
        if columns.is_empty() {
            return (0..width as u32).collect();
        }
        let mut units = Vec::with_capacity(width);
        let mut next = 0;
        for group in columns {
            for _ in 0..group.width {
                units.push(next);
                next += u32::from(group.kind != ColumnKind::Categorical);
            }
            next += u32::from(group.kind == ColumnKind::Categorical);
        }
        units
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::None => Ok(()),
            Self::Gaussian { std } => write!(f, "(std={std})"),
            Self::Masking { share } | Self::Permutation { share } | Self::Masked { share, patch: None } => {
                write!(f, "(share={share})")
            }
            Self::Masked { share, patch: Some(patch) } => write!(f, "(share={share}, patch={})", patch.size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_columns_groups_and_patches() {
        let masking = Corruption::Masking { share: 0.5 };
        assert_eq!(masking.units(3, &[]), [0, 1, 2]);
        let columns = [
            ColumnGroup::new(ColumnKind::Numeric, 2),
            ColumnGroup::new(ColumnKind::Categorical, 3),
            ColumnGroup::new(ColumnKind::Categorical, 2),
            ColumnGroup::new(ColumnKind::Binary, 2),
        ];
        assert_eq!(masking.units(9, &columns), [0, 1, 2, 2, 2, 3, 3, 4, 5]);
        // 3 rows of 3 pixels in patches of 2: four patches, three of them cut by the border.
        let patch = |channels| Corruption::Masked { share: 0.5, patch: Some(Patch { size: 2, width: 3, channels }) };
        assert_eq!(patch(1).units(9, &[]), [0, 0, 1, 0, 0, 1, 2, 2, 3]);
        assert_eq!(patch(2).units(6, &[]), [0, 0, 0, 0, 1, 1], "the channels of a pixel go together");
    }
}
