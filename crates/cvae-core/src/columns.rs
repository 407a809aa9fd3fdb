//! Rows of mixed columns: numeric, binary and one-hot categorical groups, each with a loss of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the columns of a group hold, and so how their reconstruction is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// Real numbers, compared by [`crate::Reconstruction`].
    Numeric,
    /// Independent values in [0, 1], compared by the cross-entropy of a sigmoid of the output.
    Binary,
    /// One categorical variable as a one-hot group, compared by the cross-entropy of a softmax of the output.
    Categorical,
}

impl ColumnKind {
    /// The name used in files and program listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Numeric => "numeric",
            Self::Binary => "binary",
            Self::Categorical => "categorical",
        }
    }
}

/// Consecutive columns of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnGroup {
    /// What they hold.
    pub kind: ColumnKind,
    /// How many they are; the classes of a categorical variable.
    pub width: usize,
    /// Factor of the group's loss.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

impl ColumnGroup {
    /// A group of weight 1.
    pub fn new(kind: ColumnKind, width: usize) -> Self {
        Self { kind, width, weight: 1.0 }
    }

    /// Each group with the columns that it covers.
    pub fn ranges(groups: &[Self]) -> impl Iterator<Item = (Self, std::ops::Range<usize>)> + '_ {
        groups.iter().scan(0, |start, group| {
            let range = *start..*start + group.width;
            *start = range.end;
            Some((*group, range))
        })
    }
}

impl fmt::Display for ColumnGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.name(), self.width)?;
        if self.weight != 1.0 {
            write!(f, "*{}", self.weight)?;
        }
        Ok(())
    }
}
