//! `cvae reconstruct`: rows to codes and back.

use anyhow::Result;

use crate::args::RowsArgs;
use crate::{model, stream};

/// Writes the reconstruction of every row.
///
/// # Errors
/// A run folder, source or output that cannot be used.
pub(crate) fn run(args: &RowsArgs) -> Result<()> {
    let model = model::load(&args.run, &args.engine)?;
    let pass = stream::Pass {
        what: "rows",
        from: model.width(),
        to: model.width(),
        columns: stream::Columns::Numbered("x"),
        apply: &|rows| Ok(model.reconstruct(rows)?),
    };
    stream::run(&args.data, &model::options(&model), &args.out, &pass)
}
