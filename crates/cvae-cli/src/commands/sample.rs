//! `cvae sample`: new rows, decoded from codes drawn at random.

use anyhow::{Result, bail};
use cvae::density::{Density, DensityError, DensitySpec};
use cvae_data::ArrayWriter;

use crate::args::SampleArgs;
use crate::{model, progress, stream};

/// Rows that one call can draw: their numbers are 32 bits wide.
const MOST_ROWS: usize = u32::MAX as usize;

/// Draws codes from a density and writes their rows.
///
/// # Errors
/// A run folder, density or output that cannot be used.
pub(crate) fn run(args: &SampleArgs) -> Result<()> {
    if !(1..=MOST_ROWS).contains(&args.rows) {
        bail!("the number of rows to draw must be from 1 to {MOST_ROWS}, got {}", args.rows);
    }
    let spec: DensitySpec = args.density.parse()?;
    if !(args.temperature.is_finite() && args.temperature >= 0.0) {
        return Err(DensityError::Temperature(args.temperature).into());
    }
    let mut model = model::load(&args.run, &args.engine)?;
    cvae_data::check_output(&args.out)?;
    let density = model::density(&mut model, &args.run, spec)?;
    let codes = draw(&density, args)?;
    let mut writer = ArrayWriter::create(&args.out, model.width(), "x")?;
    let bar = progress::rows(Some(args.rows as u64));
    for codes in codes.chunks(stream::chunk_rows(model.latent(), model.width()) * model.latent()) {
        writer.write(&model.decode(codes)?)?;
        bar.set_position(writer.rows());
    }
    let rows = writer.finish()?;
    bar.finish_and_clear();
    eprintln!("wrote {}: {rows} rows of {}, codes drawn from {}", args.out.display(), model.width(), density.spec());
    Ok(())
}

/// Draws codes, where there is room for them.
fn draw(density: &Density, args: &SampleArgs) -> Result<Vec<f32>> {
    let values = args.rows.saturating_mul(density.latent());
    if Vec::<f32>::new().try_reserve_exact(values).is_err() {
        bail!("{} codes of width {} do not fit into memory: draw fewer rows", args.rows, density.latent());
    }
    Ok(density.sample(args.rows, args.seed, args.temperature)?)
}
