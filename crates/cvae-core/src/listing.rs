//! How programs print: one op a line, each value with the shape of a row.

use std::fmt;

use crate::program::{Graph, Op, ParamId, Program, ValueId};

impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

impl fmt::Display for ParamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &[ValueId]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let writes = self.writes();
        if !writes.is_empty() {
            write!(f, "{} = ", list(&writes))?;
        }
        f.write_str(self.name())?;
        match self {
            Self::Act { activation, .. } | Self::ActGrad { activation, .. } => write!(f, ".{activation}")?,
            Self::Noise { stream, .. } => write!(f, ".{}", stream.name())?,
            Self::Reconstruction { kind, .. } => write!(f, ".{kind}")?,
            _ => {}
        }
        let reads = self.reads();
        if !reads.is_empty() {
            write!(f, " {}", list(&reads))?;
        }
        match self {
            Self::Linear { weight, bias, .. } | Self::LinearGradWeight { weight, bias, .. } => {
                write!(f, ", {weight}")?;
                if let Some(bias) = bias {
                    write!(f, ", {bias}")?;
                }
            }
            Self::LinearGradInput { weight, .. } => write!(f, ", {weight}")?,
            Self::ParamNorm { params, .. } => {
                for param in params {
                    write!(f, " {param}")?;
                }
            }
            _ => {}
        }
        match self {
            Self::CollapsedPrior { beta, .. } | Self::KlDivergence { beta, .. } => write!(f, ", beta={beta}"),
            Self::ParamNorm { coefficient, .. } => write!(f, ", coefficient={coefficient}"),
            Self::LinearGradWeight { decay, .. } if *decay != 0.0 => write!(f, ", decay={decay}"),
            Self::AddScaled { scale, .. } => write!(f, ", scale={scale}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  input {}: {}", self.input, self.values[self.input.index()])?;
        for op in &self.ops {
            write!(f, "  {op}")?;
            if let Some(value) = op.writes().first() {
                write!(f, "  : {}", self.values[value.index()])?;
            }
            writeln!(f)?;
        }
        match self.output {
            Some(value) => writeln!(f, "  output {value}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "train:\n{}encode:\n{}decode:\n{}reconstruct:\n{}",
            self.train, self.encode, self.decode, self.reconstruct
        )
    }
}
