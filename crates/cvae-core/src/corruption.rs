//! What is done to the rows before the encoder sees them, in training only.
//!
//! Columns are corrupted in *units*: a column by itself, the columns of one categorical variable together, the pixels of
//! a square patch, or a whole image. One random word decides about a unit.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::columns::{ColumnGroup, ColumnKind};
use crate::error::SpecError;
use crate::rng::below;

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
    /// Each row, an image, is moved by whole pixels with probability `share`; what moves in is 0.
    Shift {
        /// Probability, at least 0 and below 1.
        share: f64,
        /// The images and how far they move.
        shift: Shift,
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

/// Moves of rows that are images, `height × width × channels` with the channel varying fastest: all by up to `distance`
/// pixels along either side, none of them 0 along both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// Farthest move in pixels.
    #[serde(default = "one")]
    pub distance: usize,
    /// Pixels of an image row.
    pub width: usize,
    /// Values of a pixel.
    #[serde(default = "one")]
    pub channels: usize,
}

impl Shift {
    /// The farthest move that is allowed: the number of moves fits 32 bits.
    pub const FARTHEST: usize = 1000;

    /// The number of moves, `(2·distance + 1)² − 1`.
    pub fn moves(self) -> u32 {
        let side = 2 * self.distance as u32 + 1;
        side * side - 1
    }

    /// Move number `index`, below [`Shift::moves`], in pixels down and to the right. They are numbered along image rows.
    pub fn offset(self, index: u32) -> (isize, isize) {
        let (side, distance) = (2 * self.distance as u32 + 1, self.distance as isize);
        // The middle of the square is no move.
        let place = index + u32::from(index >= self.moves() / 2);
        ((place / side) as isize - distance, (place % side) as isize - distance)
    }

    /// The move that a random word names, each with the same probability.
    pub fn drawn(self, word: u32) -> (isize, isize) {
        self.offset(below(word, self.moves()))
    }

    /// Whether rows of `size` values are such images, and the moves are few enough.
    pub(crate) fn fits(self, size: usize) -> bool {
        let line = self.width.checked_mul(self.channels);
        line.is_some_and(|line| line > 0 && size.is_multiple_of(line)) && (1..=Self::FARTHEST).contains(&self.distance)
    }

    /// The column that column `column` of a row of `size` values shows after a move; `None` where it comes from outside.
    pub fn source(self, (down, right): (isize, isize), column: usize, size: usize) -> Option<usize> {
        let line = self.width * self.channels;
        let y = (column / line).checked_add_signed(-down)?;
        let x = (column % line / self.channels).checked_add_signed(-right)?;
        let inside = x < self.width && y < size / line;
        inside.then(|| y * line + x * self.channels + column % self.channels)
    }
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
            Self::Shift { .. } => "shift",
            Self::Masked { .. } => "masked",
        }
    }

    /// Whether it does anything: one with a strength of 0 is not lowered.
    pub fn is_active(self) -> bool {
        match self {
            Self::None => false,
            Self::Gaussian { std: strength } | Self::Masking { share: strength } => strength > 0.0,
            Self::Permutation { share } | Self::Shift { share, .. } | Self::Masked { share, .. } => share > 0.0,
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
            Self::Shift { share: value, shift } => {
                share(value)?;
                let Shift { distance, width: image, channels } = shift;
                if shift.fits(width) { Ok(()) } else { Err(SpecError::Shift { distance, image, channels, width }) }
            }
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

    /// The unit of each of `width` columns, numbered from 0 in the order of their first columns. An image that moves is one.
    pub fn units(self, width: usize, columns: &[ColumnGroup]) -> Vec<u32> {
        if let Self::Masked { patch: Some(Patch { size, width: image, channels }), .. } = self {
            let across = image.div_ceil(size);
            let unit = |index: usize| {
                let (x, y) = (index / channels % image, index / channels / image);
                (y / size * across + x / size) as u32
            };
            return (0..width).map(unit).collect();
        }
        if let Self::Shift { .. } = self {
            return vec![0; width];
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
            Self::Shift { share, shift } => write!(f, "(share={share}, distance={})", shift.distance),
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
        let shift = Shift { distance: 1, width: 2, channels: 1 };
        assert_eq!(Corruption::Shift { share: 0.5, shift }.units(4, &[]), [0; 4]);
    }

    #[test]
    fn moves_are_all_but_none_at_all() {
        for distance in [1, 2] {
            let shift = Shift { distance, width: 5, channels: 1 };
            let reach = -(distance as isize)..=distance as isize;
            let all = reach.clone().flat_map(|down| reach.clone().map(move |right| (down, right)));
            let expected: Vec<_> = all.filter(|offset| *offset != (0, 0)).collect();
            assert_eq!((0..shift.moves()).map(|index| shift.offset(index)).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_moved_image_keeps_its_pixels_whole() {
        // Three rows of two pixels with two channels, numbered by column.
        let shift = Shift { distance: 2, width: 2, channels: 2 };
        let moved = |offset| (0..12).map(|column| shift.source(offset, column, 12)).collect::<Vec<_>>();
        let (none, some) = (None, Some);
        assert_eq!(
            moved((1, 0)),
            [none, none, none, none, some(0), some(1), some(2), some(3), some(4), some(5), some(6), some(7)]
        );
        assert_eq!(
            moved((0, -1)),
            [some(2), some(3), none, none, some(6), some(7), none, none, some(10), some(11), none, none]
        );
        assert_eq!(moved((-2, 1))[..4], [none, none, some(8), some(9)]);
        assert!(moved((-2, 1))[4..].iter().all(Option::is_none) && moved((0, 2)).iter().all(Option::is_none));
    }
}
