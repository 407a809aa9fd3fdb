//! `cvae encode`: rows to codes.

use anyhow::Result;

use crate::args::RowsArgs;
use crate::{model, stream};

/// Writes the code of every row.
///
/// # Errors
/// A run folder, source or output that cannot be used.
pub(crate) fn run(args: &RowsArgs) -> Result<()> {
    let model = model::load(&args.run, &args.engine)?;
    let pass = stream::Pass {
        what: "rows",
        from: model.width(),
        to: model.latent(),
        columns: stream::Columns::Numbered("z"),
        apply: &|rows| Ok(model.encode(rows)?),
    };
    stream::run(&args.data, &model::options(&model), &args.out, &pass)
}
