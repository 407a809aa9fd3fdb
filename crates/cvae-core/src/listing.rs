//! How programs print: one op a line, each value with the shape of a row.

use std::fmt;

use crate::columns::ColumnGroup;
use crate::objective::KlBound;
use crate::op::Op;
use crate::program::{Graph, ParamId, Program, ValueId};

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
            Self::Act { activation, .. } | Self::ActGrad { activation, .. } | Self::ActGradGrad { activation, .. } => {
                write!(f, ".{activation}")?
            }
            Self::Noise { stream, .. } | Self::Signs { stream, .. } => write!(f, ".{}", stream.name())?,
            Self::Reconstruction { kind, .. } | Self::MixedReconstruction { kind, .. } => write!(f, ".{kind}")?,
            _ => {}
        }
        let reads = match self {
            // The further pairs follow the parameters.
            Self::LinearGradWeight { input, grad, .. } => vec![*input, *grad],
            _ => self.reads(),
        };
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
            Self::KlBounded { bound: KlBound::Capacity { gamma, capacity }, .. } => {
                write!(f, ", gamma={gamma}, capacity={capacity}")
            }
            Self::KlBounded { bound: KlBound::FreeBits { beta, floor }, .. } => {
                write!(f, ", beta={beta}, floor={floor}")
            }
            Self::CodeL1 { weight, .. } | Self::Mmd { weight, .. } | Self::JacobianNorm { weight, .. } => {
                write!(f, ", weight={weight}")
            }
            Self::SigmaReconstruction { floor, .. } => write!(f, ", floor={floor}"),
            Self::Mask { share, units, .. } => write!(f, " share={share}, units={}", unit_count(units)),
            Self::Permute { units, .. } => write!(f, ", units={}", unit_count(units)),
            Self::Shift { shift, .. } => write!(f, ", distance={}, width={}", shift.distance, shift.width),
            Self::TopK { k, .. } => write!(f, ", k={k}"),
            Self::SpectralScale { weight, iterations, .. } => write!(f, " {weight}, iterations={iterations}"),
            Self::UnitVector { index, .. } => write!(f, " index={index}"),
            Self::MixedReconstruction { columns, .. } | Self::MixedOutput { columns, .. } => {
                let columns: Vec<String> = columns.iter().map(ColumnGroup::to_string).collect();
                write!(f, ", columns={}", columns.join("+"))
            }
            Self::ParamNorm { coefficient, .. } => write!(f, ", coefficient={coefficient}"),
            Self::LinearGradWeight { decay, extra, .. } => {
                if *decay != 0.0 {
                    write!(f, ", decay={decay}")?;
                }
                extra.iter().try_for_each(|(input, grad)| write!(f, ", extra=({input}, {grad})"))
            }
            Self::AddScaled { scale, .. } => write!(f, ", scale={scale}"),
            _ => Ok(()),
        }
    }
}

/// Number of different units of columns.
fn unit_count(units: &[u32]) -> u32 {
    units.iter().max().map_or(0, |last| last + 1)
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
