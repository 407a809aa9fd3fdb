//! `cvae interpolate`: rows between two rows.

use anyhow::{Result, bail};
use cvae::density;
use cvae_data::{Dataset, Source, write_array};

use crate::args::InterpolateArgs;
use crate::model;

/// Rows that one path may have.
const MOST_STEPS: usize = 1_000_000;

/// Joins the codes of two rows by a path and writes its decoded points.
///
/// # Errors
/// A run folder, source, row number or output that cannot be used.
pub(crate) fn run(args: &InterpolateArgs) -> Result<()> {
    if !(2..=MOST_STEPS).contains(&args.steps) {
        bail!("--steps must be from 2 to {MOST_STEPS}, got {}", args.steps);
    }
    let model = model::load(&args.run, &args.engine)?;
    cvae_data::check_output(&args.out)?;
    let data = match &args.data {
        Some(name) => name.parse::<Source>()?.load(&model::options(&model))?,
        None => {
            let rows = model::rows(&model)?;
            rows.test.unwrap_or(rows.train)
        }
    };
    data.expect_width(model.width())?;
    let path = if args.spherical { density::Path::Spherical } else { density::Path::Linear };
    let rows = model.interpolate(&row(&data, args.from)?, &row(&data, args.to)?, args.steps, path)?;
    write_array(&args.out, model.width(), &rows, "x")?;
    eprintln!("wrote {}: {} rows of {}", args.out.display(), args.steps, model.width());
    Ok(())
}

/// The values of one row.
fn row(data: &Dataset, number: usize) -> Result<Vec<f32>> {
    if number >= data.rows() {
        bail!("{}: there is no row {number}; it has {} rows, counted from 0", data.name(), data.rows());
    }
    let mut values = Vec::new();
    data.copy_rows(number..number + 1, &mut values)?;
    Ok(values)
}
