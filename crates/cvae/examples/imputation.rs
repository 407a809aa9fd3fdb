//! Missing values: 30 % of the cells of a table are taken away at random, and put back by an autoencoder that was
//! trained on the incomplete table, by column means and by iterative principal components. Prints the root mean
//! square error of the missing cells, in standard deviations of their columns.
//!
//! `cargo run --release --example imputation [-- --json]`, in the root folder of the source tree
#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::error::Error;
use std::sync::Arc;

use cvae::metrics::Pca;
use cvae::{Config, Matrix, Trainer, registry};
use cvae_core::{Activation, Backend, Corruption, ModelSpec, Objective};
use cvae_data::{Dataset, FittedScaling, LoadOptions, Scaling, Source};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const TABLE: &str = "datasets/breast-cancer/breast-cancer.csv";
/// Share of the cells that are missing.
const MISSING: f64 = 0.3;
const SEEDS: u64 = 3;
const EPOCHS: u32 = 400;
const BATCH: usize = 32;
/// Code sizes and PCA ranks that are tried; the best of each on cells that are held out once more is reported.
const RANKS: [usize; 6] = [2, 3, 4, 6, 8, 10];
const PCA_ROUNDS: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let data = TABLE.parse::<Source>()?.load(&LoadOptions::default())?;
    let width = data.width();
    let mut table: [Vec<f64>; 3] = Default::default();
    for seed in 0..SEEDS {
        // Columns in standard deviations, so that errors compare; every method sees the same cells.
        let mut whole = data.to_f32().into_owned();
        FittedScaling::fit(Scaling::Standardize, &whole, width)?.apply(&mut whole)?;
        let (given, missing) = take_away(&whole, &vec![true; whole.len()], seed);
        let observed: Vec<bool> = missing.iter().map(|missing| !missing).collect();
        // One more set of cells is hidden to choose the rank by.
        let (tried, held_out) = take_away(&given, &observed, seed + 1000);

        let error = |found: &[f32], cells: &[bool]| rmse(&whole, found, cells);
        let means = column_means(&given, width);
        table[0].push(error(&means, &missing));
        let rank = best(|rank| Ok(error(&iterative_pca(&tried, width, rank)?, &held_out)))?;
        table[1].push(error(&iterative_pca(&given, width, rank)?, &missing));
        let latent = best(|latent| Ok(error(&autoencoder(&tried, width, latent, seed)?, &held_out)))?;
        table[2].push(error(&autoencoder(&given, width, latent, seed)?, &missing));
        eprintln!(
            "seed {seed}: means {:.4}, iterative PCA-{rank} {:.4}, autoencoder with {latent} latent dimensions {:.4}",
            table[0][seed as usize], table[1][seed as usize], table[2][seed as usize]
        );
    }
    let names =
        ["column means", "iterative PCA", "autoencoder (`cvae train --missing`), noise on a fifth of the cells"];
    if std::env::args().any(|word| word == "--json") {
        let about = format!(
            "Of the {} rows of [breast-cancer](../datasets/breast-cancer/README.md) {:.0} % of the cells are taken away \
             at random, {SEEDS} times; each method sees the rest and fills them in. Errors are root mean squares of \
             the missing cells, in standard deviations of their columns. The rank of the principal components and \
             the size of the code are chosen by cells that are hidden from both once more.",
            data.rows(),
            100.0 * MISSING
        );
        let methods: Vec<_> =
            names.iter().zip(&table).map(|(name, rmse)| serde_json::json!({ "name": name, "rmse": rmse })).collect();
        println!("{}", serde_json::json!({ "about": about, "methods": methods }));
        return Ok(());
    }
    for (name, errors) in names.iter().zip(&table) {
        println!("{:.4}  {name}", errors.iter().sum::<f64>() / errors.len() as f64);
    }
    Ok(())
}

/// A copy with a share of the `candidates` replaced by NaN, and which ones.
fn take_away(values: &[f32], candidates: &[bool], seed: u64) -> (Vec<f32>, Vec<bool>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = || f64::from(rng.next_u32()) / f64::from(u32::MAX) < MISSING;
    let taken: Vec<bool> = candidates.iter().map(|candidate| draw() && *candidate).collect();
    let rest = values.iter().zip(&taken).map(|(value, taken)| if *taken { f32::NAN } else { *value });
    (rest.collect(), taken)
}

/// Root mean square of the differences in the marked cells.
fn rmse(whole: &[f32], found: &[f32], cells: &[bool]) -> f64 {
    let marked = whole.iter().zip(found).zip(cells).filter(|(_, marked)| **marked);
    let count = cells.iter().filter(|marked| **marked).count();
    (marked.map(|((a, b), _)| f64::from(a - b).powi(2)).sum::<f64>() / count as f64).sqrt()
}

/// The rank of least error.
fn best(mut error: impl FnMut(usize) -> Result<f64, Box<dyn Error>>) -> Result<usize, Box<dyn Error>> {
    let mut found = (f64::INFINITY, RANKS[0]);
    for rank in RANKS {
        let error = error(rank)?;
        if error < found.0 {
            found = (error, rank);
        }
    }
    Ok(found.1)
}

/// Missing cells filled with the mean of their column.
fn column_means(given: &[f32], width: usize) -> Vec<f32> {
    let mean = |column: usize| {
        let observed = given.iter().skip(column).step_by(width).filter(|value| !value.is_nan());
        let (sum, count) = observed.fold((0.0, 0usize), |(sum, count), value| (sum + f64::from(*value), count + 1));
        (sum / count.max(1) as f64) as f32
    };
    let means: Vec<f32> = (0..width).map(mean).collect();
    let fill = |(index, value): (usize, &f32)| if value.is_nan() { means[index % width] } else { *value };
    given.iter().enumerate().map(fill).collect()
}

/// Fills, projects and fills again until it settles (Kiers 1997).
fn iterative_pca(given: &[f32], width: usize, rank: usize) -> Result<Vec<f32>, Box<dyn Error>> {
    let mut filled = column_means(given, width);
    for _ in 0..PCA_ROUNDS {
        let rows = Matrix::new(&filled, width)?;
        let pca = Pca::fit(rows, rank)?;
        let projected = pca.inverse_transform(Matrix::new(&pca.transform(rows)?, rank)?)?;
        for ((value, new), given) in filled.iter_mut().zip(projected).zip(given) {
            if given.is_nan() {
                *value = new;
            }
        }
    }
    Ok(filled)
}

/// Missing cells filled by an autoencoder that learns from the incomplete rows.
fn autoencoder(given: &[f32], width: usize, latent: usize, seed: u64) -> Result<Vec<f32>, Box<dyn Error>> {
    let data = Dataset::new("incomplete", cvae_data::Values::F32(given.to_vec()), width)?;
    let mut config = Config::for_data(data.rows(), width)?;
    config.model = ModelSpec::mlp(&[width, 128, latent], Activation::Gelu, Activation::Identity)?;
    config.objective =
        Objective { missing: true, corruption: Corruption::Masking { share: 0.2 }, ..Objective::default() };
    (config.epochs, config.batch_size, config.seed) = (EPOCHS, BATCH, seed);
    config.descend(data.rows());
    let trained = Trainer::new(config.clone()).backend(backend(&config)?).fit(&data)?;
    Ok(trained.model.impute(given)?)
}

/// The fastest backend that has the operations this objective needs.
fn backend(config: &Config) -> Result<Arc<dyn Backend>, Box<dyn Error>> {
    let plan = config.plan()?;
    let selected = registry::select(&config.backend)?.backend;
    selected.supports(&plan)?;
    Ok(selected)
}
