//! Files of any size through a model, in the memory of one chunk.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cvae_data::{ArrayWriter, LoadOptions, Source};

use crate::progress;

/// Values of a chunk, input and output together.
const CHUNK_VALUES: usize = 1 << 22;
/// Rows of a chunk, at most.
const CHUNK_ROWS: usize = 1 << 16;

/// How many rows of `from` and `to` values to handle at a time.
pub(crate) fn chunk_rows(from: usize, to: usize) -> usize {
    (CHUNK_VALUES / from.saturating_add(to).max(1)).clamp(1, CHUNK_ROWS)
}

/// What the columns of an output are called.
pub(crate) enum Columns {
    /// The prefix and the number of the column.
    Numbered(&'static str),
    /// One name each.
    Named(Vec<String>),
}

/// A transformation of rows.
pub(crate) struct Pass<'a> {
    /// What the input rows are, in a word for messages: `rows` or `codes`.
    pub(crate) what: &'static str,
    /// Values of an input row.
    pub(crate) from: usize,
    /// Values of an output row.
    pub(crate) to: usize,
    /// Names of the output's columns, where the format has names.
    pub(crate) columns: Columns,
    /// Many input rows to as many output rows.
    pub(crate) apply: &'a dyn Fn(&[f32]) -> Result<Vec<f32>>,
}

/// Reads the rows of `source` by `options`, transforms them and writes them to `out`, which holds all of them or is left
/// as it was.
///
/// # Errors
/// A source or output that cannot be used, rows of another width, or a failed transformation.
pub(crate) fn run(source: &str, options: &LoadOptions, out: &Path, pass: &Pass<'_>) -> Result<()> {
    let source: Source = source.parse()?;
    let mut reader = source.open(options)?;
    if reader.width() != pass.from {
        let (what, from) = (pass.what, pass.from);
        bail!("{source}: the {what} have width {}, but the model takes {what} of width {from}", reader.width());
    }
    let mut writer = match &pass.columns {
        Columns::Numbered(prefix) => ArrayWriter::create(out, pass.to, prefix)?,
        Columns::Named(names) => ArrayWriter::create_named(out, names)?,
    };
    let bar = progress::rows(reader.rows());
    let chunk_rows = chunk_rows(pass.from, pass.to);
    let (mut chunk, mut done) = (Vec::new(), 0u64);
    loop {
        let rows = reader.next_chunk(chunk_rows, &mut chunk)?;
        if rows == 0 {
            break;
        }
        let output = (pass.apply)(&chunk).with_context(|| format!("{source}, from row {done}"))?;
        writer.write(&output)?;
        done += rows as u64;
        bar.set_position(done);
    }
    let rows = writer.finish()?;
    bar.finish_and_clear();
    eprintln!("wrote {}: {rows} rows of {}", out.display(), pass.to);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_at_least_one_row_and_not_too_many() {
        assert_eq!(chunk_rows(usize::MAX, 1), 1);
        assert_eq!(chunk_rows(1, 1), CHUNK_ROWS);
        assert_eq!(chunk_rows(784, 32), CHUNK_VALUES / 816);
    }
}
