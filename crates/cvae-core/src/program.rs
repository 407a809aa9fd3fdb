//! The intermediate representation: ops over values in single-assignment form.
//!
//! A [`Program`] has one training [`Graph`] (forward, derived backward pass, update) and one graph per
//! inference entry. Core fuses nothing and owns no buffers: a backend decides both.

use crate::backend::Entry;
use crate::error::VerifyError;
use crate::layout::ParamLayout;
use crate::op::Op;
use crate::shape::Shape;

/// A value of a graph: `rows ×` its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

impl ValueId {
    /// Position in [`Graph::values`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A parameter of the [`ParamLayout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(pub u32);

impl ParamId {
    /// Position in [`ParamLayout::params`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Ops in execution order, over values in single-assignment form.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Shape of one row of each value.
    pub values: Vec<Shape>,
    /// The value that holds the caller's rows.
    pub input: ValueId,
    /// The value that the caller receives; none in a training graph.
    pub output: Option<ValueId>,
    /// The ops.
    pub ops: Vec<Op>,
}

impl Graph {
    /// Elements in one row of a value.
    pub fn size(&self, value: ValueId) -> usize {
        self.values[value.index()].size()
    }

    /// Index of the last op that reads each value; `None` for a value never read.
    pub fn last_uses(&self) -> Vec<Option<usize>> {
        let mut last = vec![None; self.values.len()];
        for (index, op) in self.ops.iter().enumerate() {
            for value in op.reads() {
                last[value.index()] = Some(index);
            }
        }
        last
    }
}

/// The lowering of a plan: one graph per function.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Forward pass, backward pass, update.
    pub train: Graph,
    /// Rows to codes.
    pub encode: Graph,
    /// Codes to rows.
    pub decode: Graph,
    /// Rows to rows.
    pub reconstruct: Graph,
}

impl Program {
    /// The graph of an inference entry.
    pub fn entry(&self, entry: Entry) -> &Graph {
        match entry {
            Entry::Encode => &self.encode,
            Entry::Decode => &self.decode,
            Entry::Reconstruct => &self.reconstruct,
        }
    }

    /// Every graph: training, encoding, decoding, reconstruction.
    pub fn graphs(&self) -> [&Graph; 4] {
        [&self.train, &self.encode, &self.decode, &self.reconstruct]
    }

    /// Verifies every graph.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn verify(&self, layout: &ParamLayout) -> Result<(), VerifyError> {
        self.graphs().into_iter().try_for_each(|graph| graph.verify(layout))
    }
}
