//! `cvae score`: how abnormal rows are.

use anyhow::Result;

use crate::args::RowsArgs;
use crate::{model, stream};

/// Writes the score of every row; higher is more abnormal.
///
/// # Errors
/// A run folder, source or output that cannot be used.
pub(crate) fn run(args: &RowsArgs) -> Result<()> {
    let model = model::load(&args.run, &args.engine)?;
    let pass = stream::Pass {
        what: "rows",
        from: model.width(),
        to: 1,
        column: "score",
        apply: &|rows| Ok(model.score(rows)?),
    };
    stream::run(&args.data, &args.out, &pass)
}
