//! `cvae decode`: codes to rows.

use anyhow::Result;

use crate::args::DecodeArgs;
use crate::{model, stream};

/// Writes the row of every code.
///
/// # Errors
/// A run folder, source or output that cannot be used.
pub(crate) fn run(args: &DecodeArgs) -> Result<()> {
    let model = model::load(&args.run, &args.engine)?;
    let pass = stream::Pass {
        what: "codes",
        from: model.latent(),
        to: model.width(),
        columns: stream::Columns::Numbered("x"),
        apply: &|codes| Ok(model.decode(codes)?),
    };
    stream::run(&args.latents, &cvae_data::LoadOptions::default(), &args.out, &pass)
}
