//! Trains on the embedded digits, keeps the run in a folder, loads it again and writes the codes of the test
//! rows as an array that NumPy reads.
//!
//! `cargo run --release --example train_and_encode -- FOLDER`
#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;

use cvae::{Autoencoder, Config, Existing, RunFolder, Trainer, evaluate, registry};
use cvae_data::{LoadOptions, write_array};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "digits-run".to_owned()));

    let config = Config { epochs: 50, ..Config::digits() };
    let rows = config.load_rows(&LoadOptions::default())?;
    let trained = Trainer::new(config.clone())
        .run_folder(&folder, Existing::Replace)
        .on_progress(|progress| {
            if let Some(epoch) = progress.record
                && epoch.epoch % 10 == 0
            {
                println!("epoch {:3}: loss {:.4}, {:.0} rows/s", epoch.epoch, epoch.loss, epoch.rows_per_second);
            }
            ControlFlow::Continue(())
        })
        .fit(&rows.train)?;
    println!("{} steps in {:.2} s on {}", trained.steps, trained.seconds, trained.model.backend());

    let test = rows.test.ok_or("the digits have test rows")?;
    let figures = evaluate(&trained.model, &rows.train, &test)?;
    println!("test MSE {:.5}, principal components {:.5}", figures.mse, figures.pca_mse);

    let selected = registry::select(&config.backend)?;
    let model = Autoencoder::load(&folder, selected.backend.as_ref())?;
    let codes = model.encode_dataset(&test)?;
    let path = folder.join("codes.npy");
    write_array(&path, model.latent(), &codes, "z")?;
    println!("{} codes of width {} in {}", test.rows(), model.latent(), path.display());
    println!("the model itself: {}", folder.join(RunFolder::MODEL).display());
    Ok(())
}
