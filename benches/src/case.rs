//! Cases: a workload, what is done with it, and how many rows at a time.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cvae_core::{
    Activation, Algorithm, Entry, ModelSpec, Noise, Objective, OptimizerSpec, Plan, Reconstruction, Stream,
};
use cvae_data::{LoadOptions, Source};

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Training steps.
    Train,
    /// An inference entry.
    Infer(Entry),
}

/// A workload, a mode and a batch, such as `F/train/128`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Case {
    /// `S`, `F` or `W` with a width.
    pub workload: String,
    /// What is timed.
    pub mode: Mode,
    /// Rows of a step or a call.
    pub batch: usize,
    /// `f32`, or a suffix that the engine must support.
    pub precision: String,
}

/// Rows that a case works on.
#[derive(Debug)]
pub struct Data {
    /// Row-major values.
    pub values: Vec<f32>,
    /// Elements of a row.
    pub width: usize,
    /// Where the rows come from.
    pub source: &'static str,
}

impl Case {
    /// The encoder's widths; the decoder mirrors them.
    fn widths(&self) -> Result<Vec<usize>> {
        match self.workload.as_str() {
            "S" => Ok(vec![784, 100, 784]),
            "F" => Ok(vec![784, 512, 256, 32]),
            other => match other.strip_prefix('W').and_then(|width| width.parse().ok()) {
                Some(width) if width > 0 => Ok(vec![width; 3]),
                _ => bail!("unknown workload `{other}`; known: S, F, W followed by a width"),
            },
        }
    }

    /// The plan: relu inside, linear code and output. S and W minimise the mean squared error, F the collapsed
    /// objective.
    pub fn plan(&self) -> Result<Arc<Plan>> {
        let widths = self.widths()?;
        let spec = ModelSpec::mlp(&widths, Activation::Relu, Activation::Identity)?;
        let (objective, eps) = match self.workload.as_str() {
            "F" => (Objective::collapsed(0.0064, 1e-4), 1e-8),
            _ => {
                let reconstruction = Reconstruction::MseMean;
                (Objective { reconstruction, ..Objective::ae() }, 1e-7)
            }
        };
        let algorithm = Algorithm::Adam { beta1: 0.9, beta2: 0.999, eps };
        let optimizer = OptimizerSpec { algorithm, ..OptimizerSpec::adam(1e-3) };
        Ok(Arc::new(Plan::new(spec, objective, optimizer, 1, self.batch)?))
    }

    /// Rows of the case: Fashion-MNIST for F where it is installed, else standard normal rows.
    pub fn data(&self) -> Result<Data> {
        let width = self.widths()?[0];
        if self.workload == "F"
            && let Ok(dataset) = "fashion-mnist:train".parse::<Source>()?.load(&LoadOptions::default())
        {
            return Ok(Data { values: dataset.to_f32().into_owned(), width, source: "fashion-mnist" });
        }
        let rows = if self.batch <= 1000 { 1000 } else { 4 * self.batch };
        let mut values = vec![0.0; rows * width];
        for (row, out) in values.chunks_mut(width).enumerate() {
            Noise::new(1, Stream::Data, 0).normal(row as u32, out);
        }
        Ok(Data { values, width, source: "synthetic" })
    }

    /// Mean rows of a training step: S ends each epoch of 1000 rows with a short batch, as a user's would.
    pub fn rows_per_step(&self) -> f64 {
        match self.mode {
            Mode::Train if self.workload == "S" && self.batch <= 1000 => 1000.0 / 1000usize.div_ceil(self.batch) as f64,
            _ => self.batch as f64,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Infer(Entry::Encode) => "encode",
            Self::Infer(Entry::Decode) => "decode",
            Self::Infer(Entry::Reconstruct) => "reconstruct",
        })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.workload, self.mode, self.batch)?;
        match self.precision.as_str() {
            "f32" => Ok(()),
            precision => write!(f, "/{precision}"),
        }
    }
}

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (workload, mode, batch, precision) = match parts[..] {
            [workload, mode, batch] => (workload, mode, batch, "f32"),
            [workload, mode, batch, precision] => (workload, mode, batch, precision),
            _ => bail!("`{text}` is not WORKLOAD/MODE/BATCH[/precision]"),
        };
        let mode = match mode {
            "train" => Mode::Train,
            "encode" => Mode::Infer(Entry::Encode),
            "decode" => Mode::Infer(Entry::Decode),
            "reconstruct" => Mode::Infer(Entry::Reconstruct),
            other => bail!("unknown mode `{other}` in `{text}`; known: train, encode, decode, reconstruct"),
        };
        let batch = batch.parse().ok().filter(|batch| *batch > 0);
        let batch = batch.with_context(|| format!("the batch of `{text}` is not a positive number"))?;
        if !["f32", "bf16", "int8"].contains(&precision) {
            bail!("unknown precision `{precision}` in `{text}`; known: f32, bf16, int8");
        }
        let case = Self { workload: workload.to_owned(), mode, batch, precision: precision.to_owned() };
        case.widths()?;
        Ok(case)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_errors_name_the_part() {
        for name in ["S/train/32", "F/reconstruct/1", "W512/encode/64/bf16"] {
            assert_eq!(name.parse::<Case>().unwrap().to_string(), name);
        }
        for (name, part) in [
            ("S/train", "S/train"),
            ("S/fly/1", "fly"),
            ("S/train/0", "S/train/0"),
            ("X/train/1", "X"),
            ("W0/train/1", "W0"),
            ("S/train/1/f8", "f8"),
        ] {
            let error = name.parse::<Case>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
