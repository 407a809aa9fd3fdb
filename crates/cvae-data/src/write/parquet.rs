//! Apache Parquet.

use std::fs::File;
use std::io;
use std::sync::Arc;

use ::parquet::basic::{Compression, Repetition, Type as Physical};
use ::parquet::data_type::FloatType;
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::types::Type;

use super::RowWriter;
use crate::atomic::AtomicFile;

/// Bytes of values in a row group, which is held in memory while it fills.
const GROUP_BYTES: usize = 32 << 20;

/// Collects row groups and writes each as columns of required 32-bit floats, compressed with Snappy.
pub(super) struct ParquetWriter {
    writer: SerializedFileWriter<File>,
    pending: Vec<f32>,
    width: usize,
    group_rows: usize,
}

impl ParquetWriter {
    /// Starts the file; `name` gives the name of a column.
    pub(super) fn start(file: &AtomicFile, width: usize, name: &dyn Fn(usize) -> String) -> io::Result<Self> {
        let field = |column| {
            Type::primitive_type_builder(&name(column), Physical::FLOAT)
                .with_repetition(Repetition::REQUIRED)
                .build()
                .map(Arc::new)
        };
        let fields = (0..width).map(field).collect::<Result<_, _>>();
        let schema =
            fields.and_then(|fields| Type::group_type_builder("rows").with_fields(fields).build()).map_err(failed)?;
        // Hardly two floats are equal: a dictionary would only cost time.
        let properties =
            WriterProperties::builder().set_compression(Compression::SNAPPY).set_dictionary_enabled(false).build();
        // The library buffers and counts bytes itself, so it gets the file directly.
        let handle = file.writer.get_ref().as_file().try_clone()?;
        let writer = SerializedFileWriter::new(handle, Arc::new(schema), Arc::new(properties));
        Ok(Self {
            writer: writer.map_err(failed)?,
            pending: Vec::new(),
            width,
            group_rows: (GROUP_BYTES / 4 / width).max(1),
        })
    }

    /// Writes the pending rows as one row group.
    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        let mut values = Vec::with_capacity(self.pending.len() / self.width);
        let mut column = 0;
        while let Some(mut writer) = group.next_column()? {
            values.clear();
            values.extend(self.pending.iter().skip(column).step_by(self.width));
            writer.typed::<FloatType>().write_batch(&values, None, None)?;
            writer.close()?;
            column += 1;
        }
        group.close()?;
        self.pending.clear();
        Ok(())
    }
}

impl RowWriter for ParquetWriter {
    fn write(&mut self, _file: &mut AtomicFile, values: &[f32]) -> io::Result<()> {
        let full = self.group_rows * self.width;
        let mut rest = values;
        while !rest.is_empty() {
            let count = rest.len().min(full - self.pending.len());
            let (now, later) = rest.split_at(count);
            self.pending.extend_from_slice(now);
            rest = later;
            if self.pending.len() == full {
                self.write_group().map_err(failed)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, _file: &mut AtomicFile, _rows: u64) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.write_group().map_err(failed)?;
        }
        self.writer.finish().map(|_| ()).map_err(failed)
    }
}

/// What the Parquet library says, as an error of writing.
fn failed(error: ParquetError) -> io::Error {
    io::Error::other(error)
}
