//! The arguments, as clap reads them.
//!
//! Names of things (activations, objectives, backends, presets, densities) are taken as text: whether a name
//! is known is for the library to say, in the same words as for a configuration file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Train, apply and evaluate collapsed autoencoders.
///
/// A collapsed variational autoencoder ("C" is for collapsed, never conditional) is a VAE whose posterior
/// noise has been removed: encoding is deterministic. `cvae train` alone trains one on the embedded digits.
#[derive(Debug, Parser)]
#[command(name = "cvae", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a model and write its run folder.
    Train(Box<TrainArgs>),
    /// Measure a trained model on rows: errors, codes, and labels where there are any.
    Eval(EvalArgs),
    /// Turn rows into codes.
    Encode(RowsArgs),
    /// Turn codes into rows.
    Decode(DecodeArgs),
    /// Encode and decode rows.
    Reconstruct(RowsArgs),
    /// Draw new rows.
    Sample(SampleArgs),
    /// Decode the way between the codes of two rows.
    Interpolate(InterpolateArgs),
    /// Score how abnormal rows are; higher is more abnormal.
    Score(ScoreArgs),
    /// Put the figures of several runs beside each other.
    Compare(CompareArgs),
    /// Measure how far sets of rows are from a reference set.
    Distance(DistanceArgs),
    /// Write the model of a run in a form made for inference, in 32-bit floats or in bytes.
    #[cfg(feature = "cpu")]
    Freeze(FreezeArgs),
    /// Show what a run folder or a frozen model holds.
    Info(InfoArgs),
    /// List the backends and whether they can be used here.
    Backends(BackendsArgs),
}

/// Sources of rows, for the help of every command that reads some.
const SOURCES: &str = "\
Sources of rows:
  digits                          1797 images of 8x8 pixels, part of this program
  fashion-mnist[:train|:test]     looked for in $CVAE_DATA, datasets/ and /usr/share/datasets/
  mnist[:train|:test]             as above
  synthetic:normal:ROWSxWIDTH     independent N(0, 1) values
  FILE.npy                        an array of rows
  FILE.csv[.gz]                   one row a line; a column `label` is not a feature
  FILE.idx*[.gz], FILE-ubyte.gz   MNIST's format
  FILE.parquet                    float and integer columns
  FOLDER                          one PNG or JPEG image a row, labelled by sub-folder";

/// Arguments of `train`.
#[derive(Debug, Args)]
#[command(after_help = SOURCES)]
pub(crate) struct TrainArgs {
    /// Rows to train on [default: digits, or what the preset or configuration names].
    #[arg(value_name = "SRC")]
    pub(crate) source: Option<String>,

    /// Start from a named configuration: digits, reference.
    #[arg(long, value_name = "NAME", conflicts_with = "config", help_heading = "Configuration")]
    pub(crate) preset: Option<String>,
    /// Start from a configuration file, such as the config.toml of another run.
    #[arg(long, value_name = "FILE.toml", help_heading = "Configuration")]
    pub(crate) config: Option<PathBuf>,

    /// Widths of the encoder, the input first and the code last, such as 784-512-256-32.
    #[arg(long, value_name = "WIDTHS", help_heading = "Model")]
    pub(crate) layers: Option<Widths>,
    /// Widths of the decoder, the code first [default: the encoder's, mirrored].
    #[arg(long, value_name = "WIDTHS", help_heading = "Model")]
    pub(crate) decoder: Option<Widths>,
    /// Activation of hidden layers: relu, leaky_relu, elu, gelu, silu, tanh, sigmoid, identity.
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(crate) activation: Option<String>,
    /// Square linear layers at the end of the encoder, multiplied out by `cvae freeze` [default: 4 for irmae].
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub(crate) linear_layers: Option<usize>,
    /// Activation of the reconstruction: linear, sigmoid.
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(crate) output: Option<String>,

    #[command(flatten)]
    pub(crate) objective: ObjectiveArgs,

    /// Passes over the rows.
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) epochs: Option<u32>,
    /// Rows of a training step.
    #[arg(long, value_name = "B", help_heading = "Training")]
    pub(crate) batch_size: Option<usize>,
    /// Learning rate.
    #[arg(long, value_name = "R", allow_negative_numbers = true, help_heading = "Training")]
    pub(crate) lr: Option<f64>,
    /// Key of every random number.
    #[arg(long, value_name = "S", help_heading = "Training")]
    pub(crate) seed: Option<u64>,
    /// Share of the training rows held out to watch training.
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, help_heading = "Training")]
    pub(crate) validation: Option<f64>,
    /// Stop after this many epochs without a better validation loss, and restore the best.
    #[arg(long, value_name = "EPOCHS", help_heading = "Training")]
    pub(crate) patience: Option<u32>,
    /// How features are scaled: none, min-max, standardize.
    #[arg(long, value_name = "NAME", help_heading = "Training")]
    pub(crate) scaling: Option<String>,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Precision of the arithmetic: f32, bf16.
    #[arg(long, value_name = "NAME", help_heading = "Backend")]
    pub(crate) precision: Option<String>,

    /// Rows to test on [default: the published test part, or a fifth of the rows].
    #[arg(long, value_name = "SRC", help_heading = "Run")]
    pub(crate) test: Option<String>,
    /// Run folder [default: a new one under runs/].
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    pub(crate) out: Option<PathBuf>,
    /// Go on with the run in the folder.
    #[arg(long, requires = "out", conflicts_with = "force", help_heading = "Run")]
    pub(crate) resume: bool,
    /// Seconds between checkpoints, written after an epoch; 0 writes one after every epoch.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, allow_negative_numbers = true, help_heading = "Run")]
    pub(crate) checkpoint_every: f64,
    /// Replace the run in the folder.
    #[arg(long, requires = "out", help_heading = "Run")]
    pub(crate) force: bool,
    /// Print one JSON object as the last line of standard output.
    #[arg(long, help_heading = "Run")]
    pub(crate) json: bool,
}

/// What is minimised.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ObjectiveArgs {
    /// What is asked of the model: collapsed (or rae-l2), rae-gp, rae-sn, ae, vae, beta-vae, capacity, free-bits, sigma-vae,
    /// contractive, denoising, masked, sparse, top-k, wae-mmd, irmae [default: collapsed].
    #[arg(long, value_name = "NAME", help_heading = "Objective")]
    pub(crate) objective: Option<String>,
    /// How reconstructions are compared: mse_sum, mse_mean, bce, l1, huber.
    #[arg(long, value_name = "NAME", help_heading = "Objective")]
    pub(crate) reconstruction: Option<String>,
    /// Weight of the latent term: the prior, the divergence, the discrepancy, the absolute values.
    #[arg(long, value_name = "B", allow_negative_numbers = true, help_heading = "Objective")]
    pub(crate) beta: Option<f64>,
    /// Weight of half the squared norm of the decoder's parameters.
    #[arg(long, value_name = "L", allow_negative_numbers = true, help_heading = "Objective")]
    pub(crate) decoder_l2: Option<f64>,
    /// Weight of the penalty on a Jacobian, of rae-gp and contractive.
    #[arg(long, value_name = "W", allow_negative_numbers = true, help_heading = "Objective")]
    pub(crate) penalty: Option<f64>,
    /// Nats of the divergence: aimed at by capacity, free of cost in each dimension for free-bits.
    #[arg(long, value_name = "C", allow_negative_numbers = true, help_heading = "Objective")]
    pub(crate) nats: Option<f64>,
    /// Elements of the code that are kept, those of largest magnitude.
    #[arg(long, value_name = "K", help_heading = "Objective")]
    pub(crate) top_k: Option<usize>,
    /// Noise on the input while training: none, gaussian:STD, masking:SHARE, permutation:SHARE, masked:SHARE,
    /// masked:SHARE:PATCH, shift:SHARE, shift:SHARE:PIXELS.
    #[arg(long, value_name = "NOISE", help_heading = "Objective")]
    pub(crate) corruption: Option<String>,
    /// Take NaN and empty cells for missing values: they are left out of the loss.
    #[arg(long, help_heading = "Objective")]
    pub(crate) missing: bool,
    /// Coordinates of codes after training: trained, or aligned, where moves of an image by the corruption `shift` weigh
    /// less [default: aligned for collapsed models of images, else trained].
    #[arg(long, value_name = "NAME", help_heading = "Objective")]
    pub(crate) codes: Option<String>,
}

/// What computes.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct EngineArgs {
    /// Backend: auto, cpu, cuda, candle, or one by its full name (see `cvae backends`).
    #[arg(long, value_name = "NAME", help_heading = "Backend")]
    pub(crate) backend: Option<String>,
    /// Worker threads [default: one for each core].
    #[arg(long, value_name = "T", help_heading = "Backend")]
    pub(crate) threads: Option<usize>,
}

/// Arguments of `eval`.
#[derive(Debug, Args)]
#[command(after_help = SOURCES)]
pub(crate) struct EvalArgs {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,
    /// Rows to measure on [default: the run's test rows].
    #[arg(long, value_name = "SRC")]
    pub(crate) data: Option<String>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Print one JSON object as the last line of standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `encode` and `reconstruct`.
#[derive(Debug, Args)]
#[command(after_help = SOURCES)]
pub(crate) struct RowsArgs {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,
    /// Rows to read; files of any size are read in chunks.
    #[arg(long, value_name = "SRC")]
    pub(crate) data: String,
    /// Array to write: .npy, .csv or .parquet.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// Arguments of `decode`.
#[derive(Debug, Args)]
pub(crate) struct DecodeArgs {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,
    /// Codes to read: .npy, .csv or .parquet; files of any size are read in chunks.
    #[arg(long, value_name = "FILE")]
    pub(crate) latents: String,
    /// Array to write: .npy, .csv or .parquet.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// Arguments of `sample`.
#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,
    /// How many rows to draw.
    #[arg(short = 'n', long = "rows", value_name = "N")]
    pub(crate) rows: usize,
    /// Key of the random numbers.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Density of the codes: prior, gaussian, gmm:K, gmm:auto, gmm-diag:K, gmm-diag:auto, flow. It is fitted once
    /// and kept in the run folder. `auto` is the size that held-out codes choose.
    #[arg(long, value_name = "NAME", default_value = "gmm:auto")]
    pub(crate) density: String,
    /// Factor of the deviation from the mean: 1 samples the density, 0 gives its means.
    #[arg(long, value_name = "T", default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) temperature: f64,
    /// Array to write: .npy, .csv or .parquet.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// Arguments of `interpolate`.
#[derive(Debug, Args)]
#[command(after_help = SOURCES)]
pub(crate) struct InterpolateArgs {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,
    /// Rows to take both ends from [default: the run's test rows].
    #[arg(long, value_name = "SRC")]
    pub(crate) data: Option<String>,
    /// Number of the first row, counted from 0.
    #[arg(long, value_name = "ROW")]
    pub(crate) from: usize,
    /// Number of the last row, counted from 0.
    #[arg(long, value_name = "ROW")]
    pub(crate) to: usize,
    /// How many rows to write, both ends included.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) steps: usize,
    /// Follow the great arc between the codes instead of the straight line.
    #[arg(long)]
    pub(crate) spherical: bool,
    /// Array to write: .npy, .csv or .parquet.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// Arguments of `score`.
#[derive(Debug, Args)]
#[command(after_help = SOURCES)]
pub(crate) struct ScoreArgs {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,
    /// Rows to score; files of any size are read in chunks.
    #[arg(long, value_name = "SRC")]
    pub(crate) data: String,
    /// Array to write: .npy, .csv or .parquet. Its columns are `score`, with --threshold-fpr `abnormal` (1 or 0),
    /// and with --explain pairs `feature1`, `share1`, … (-1 where a row has fewer).
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// What to score with, separated by commas: reconstruction, standardized-residual,
    /// smooth-residual (of images), mahalanobis, density, neighbors.
    /// One alone keeps its units; several are calibrated on held-out rows and added up.
    #[arg(long, value_name = "LIST", default_value = "reconstruction", help_heading = "Scoring")]
    pub(crate) terms: String,
    /// Density of the codes for the term `density`.
    #[arg(long, value_name = "NAME", default_value = "gmm:5", help_heading = "Scoring")]
    pub(crate) density: String,
    /// Nearest training codes whose mean distance the term `neighbors` is.
    #[arg(long, value_name = "K", default_value_t = cvae::scoring::Neighbors::DEFAULT_COUNT, help_heading = "Scoring")]
    pub(crate) neighbors: usize,
    /// Flag rows so that at most this share of normal rows is flagged.
    #[arg(long, value_name = "RATE", allow_negative_numbers = true, help_heading = "Scoring")]
    pub(crate) threshold_fpr: Option<f64>,
    /// Normal rows that were not trained on, for the threshold and for calibration [default: the run's validation
    /// rows, or else its test rows].
    #[arg(long, value_name = "SRC", help_heading = "Scoring")]
    pub(crate) held_out: Option<String>,
    /// Name the features with the largest part in each row's residual, this many.
    #[arg(long, value_name = "K", help_heading = "Scoring")]
    pub(crate) explain: Option<usize>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Print one JSON object as the last line of standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Run folders.
    #[arg(value_name = "RUN", required = true)]
    pub(crate) runs: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Print one JSON object as the last line of standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `distance`.
#[derive(Debug, Args)]
#[command(after_help = SOURCES)]
pub(crate) struct DistanceArgs {
    /// Rows to compare with.
    #[arg(long, value_name = "SRC")]
    pub(crate) reference: String,
    /// Sets of rows, of the same width.
    #[arg(value_name = "SRC", required = true)]
    pub(crate) data: Vec<String>,
    /// What is compared: classifier (its features of 28x28 images of clothes), raw (the values themselves).
    #[arg(long, value_name = "NAME", default_value = "classifier")]
    pub(crate) features: String,
    /// Print one JSON object as the last line of standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `freeze`.
#[cfg(feature = "cpu")]
#[derive(Debug, Args)]
#[command(after_help = SOURCES)]
pub(crate) struct FreezeArgs {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,
    /// How weights are stored: f32, bf16, int8.
    #[arg(long, value_name = "NAME", default_value = "f32")]
    pub(crate) precision: String,
    /// Typical rows, which fix the levels of int8 activations [default: the run's training rows].
    #[arg(long, value_name = "SRC")]
    pub(crate) calibration: Option<String>,
    /// File to write, such as model.frozen.safetensors; the other commands take it in place of a run folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Print one JSON object as the last line of standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,
    /// Print one JSON object as the last line of standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `backends`.
#[derive(Debug, Args)]
pub(crate) struct BackendsArgs {
    /// Print one JSON object as the last line of standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Layer widths, written `784-512-32`. Which widths make a model is for the model to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Widths(pub(crate) Vec<usize>);

impl std::str::FromStr for Widths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let widths: Result<Vec<usize>, _> = text.split('-').map(str::parse).collect();
        widths.map(Self).map_err(|_| format!("`{text}` is not a list of widths such as 784-512-256-32"))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn widths_are_read() {
        assert_eq!("784-512-32".parse(), Ok(Widths(vec![784, 512, 32])));
        assert_eq!("0".parse(), Ok(Widths(vec![0])));
        for text in ["", "-", "784-", "784-x", "784--3", "1.5-2", "99999999999999999999-1"] {
            assert!(text.parse::<Widths>().is_err(), "{text}");
        }
    }

    #[test]
    fn exclusive_arguments_are_refused() {
        for line in
            ["train --preset a --config b", "train --resume", "train --out a --resume --force", "encode --run a"]
        {
            let words = std::iter::once("cvae").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
