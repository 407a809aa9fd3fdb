//! `cvae freeze`: a run's model reduced to what inference needs.

use anyhow::{Result, bail};
use cvae::checkpoint::Model;
use cvae::{BackendConfig, FrozenAutoencoder, FrozenPrecision, RunFolder};
use cvae_data::{Dataset, LoadOptions, Source};
use serde::Serialize;

use crate::args::FreezeArgs;
use crate::{output, progress};

/// Rows measured at a time.
const MEASURED_ROWS: usize = 4096;

/// What `--json` prints.
#[derive(Serialize)]
struct Results {
    out: String,
    precision: &'static str,
    bytes: u64,
    /// Absent where nothing was quantised.
    quantised: Option<Quantised>,
}

/// What quantisation costs: mean squared errors over scaled features, as `score` gives them.
#[derive(Serialize)]
struct Quantised {
    calibration_rows: usize,
    /// Which rows both errors were measured on: `test`, or `calibration` where the run has no others.
    measured_on: &'static str,
    mse: f64,
    mse_f32: f64,
}

/// Writes the frozen model and says what it costs.
///
/// # Errors
/// A run folder, precision, source or output that cannot be used.
pub(crate) fn run(args: &FreezeArgs) -> Result<()> {
    let Some(precision) = FrozenPrecision::ALL.into_iter().find(|known| known.name() == args.precision) else {
        let known = FrozenPrecision::ALL.map(FrozenPrecision::name).join(", ");
        bail!("unknown precision `{}`; known: {known}", args.precision);
    };
    if args.calibration.is_some() && precision != FrozenPrecision::Int8 {
        bail!("--calibration fixes the levels of int8 activations; {} has none", precision.name());
    }
    if !args.run.is_dir() {
        bail!("{}: there is no such run folder", args.run.display());
    }
    let model = RunFolder::new(&args.run).read_model()?.folded()?;
    let (frozen, quantised) = match precision {
        FrozenPrecision::F32 | FrozenPrecision::Bf16 => (FrozenAutoencoder::new(&model, precision, &[])?, None),
        FrozenPrecision::Int8 => {
            let (frozen, quantised) = quantise(&model, args.calibration.as_deref())?;
            (frozen, Some(quantised))
        }
    };
    frozen.write(&args.out)?;
    let results = Results {
        out: args.out.display().to_string(),
        precision: precision.name(),
        bytes: std::fs::metadata(&args.out)?.len(),
        quantised,
    };
    if args.json {
        return output::json(&results);
    }
    let mut rows = vec![
        ("frozen model".to_owned(), format!("{}, {}, {} bytes", results.out, results.precision, results.bytes)),
        ("next".to_owned(), format!("cvae encode --run {} --data SRC --out z.npy", results.out)),
    ];
    if let Some(Quantised { measured_on, mse, mse_f32, .. }) = results.quantised {
        rows.insert(1, (format!("MSE on {measured_on} rows"), output::figure(mse)));
        rows.insert(2, ("in 32-bit floats".to_owned(), output::figure(mse_f32)));
    }
    output::table(&rows)
}

/// The model in bytes, and its error beside that of the floats.
fn quantise(model: &Model, calibration: Option<&str>) -> Result<(FrozenAutoencoder, Quantised)> {
    let width = model.plan.spec.width();
    let (source, test) = match calibration {
        Some(source) => (source.parse::<Source>()?.load(&LoadOptions::default())?, None),
        None => {
            let rows = model.config.load_rows(&LoadOptions::default())?;
            (rows.train, rows.test)
        }
    };
    source.expect_width(width)?;
    let samples = evenly(&source, FrozenAutoencoder::CALIBRATION_ROWS)?;
    let values = samples.to_f32();
    let spinner = progress::spinner("quantising and measuring");
    let frozen = FrozenAutoencoder::new(model, FrozenPrecision::Int8, &values)?;
    let floats = FrozenAutoencoder::new(model, FrozenPrecision::F32, &[])?;
    let (rows, measured_on) = match &test {
        Some(test) => (test, "test"),
        None => (&samples, "calibration"),
    };
    rows.expect_width(width)?;
    let quantised = Quantised {
        calibration_rows: samples.rows(),
        measured_on,
        mse: mean_score(&frozen, rows)?,
        mse_f32: mean_score(&floats, rows)?,
    };
    spinner.finish_and_clear();
    Ok((frozen, quantised))
}

/// At most `count` rows, spread evenly.
fn evenly(data: &Dataset, count: usize) -> Result<Dataset> {
    let step = data.rows().div_ceil(count).max(1);
    let rows: Vec<u32> = (0..data.rows()).step_by(step).filter_map(|row| row.try_into().ok()).collect();
    Ok(data.select(&rows)?)
}

/// Mean reconstruction error of the rows.
fn mean_score(frozen: &FrozenAutoencoder, data: &Dataset) -> Result<f64> {
    let model = frozen.compile(&BackendConfig::default())?;
    let (mut block, mut sum) = (Vec::new(), 0.0);
    for start in (0..data.rows()).step_by(MEASURED_ROWS) {
        data.copy_rows(start..data.rows().min(start + MEASURED_ROWS), &mut block)?;
        sum += model.score(&block)?.into_iter().map(f64::from).sum::<f64>();
    }
    Ok(sum / data.rows().max(1) as f64)
}
