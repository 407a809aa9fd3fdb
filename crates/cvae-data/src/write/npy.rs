//! NumPy's array file, version 1.0.

use std::io::{self, Seek, SeekFrom, Write};

use super::RowWriter;
use crate::atomic::AtomicFile;

/// Bytes of the whole header, a multiple of 64 as the format asks; room for any shape.
const HEADER: usize = 128;

/// Writes the header with zero rows first and corrects it at the end.
pub(super) struct NpyWriter {
    width: usize,
}

impl NpyWriter {
    pub(super) fn start(file: &mut AtomicFile, width: usize) -> io::Result<Self> {
        file.writer.write_all(&header(0, width))?;
        Ok(Self { width })
    }
}

impl RowWriter for NpyWriter {
    fn write(&mut self, file: &mut AtomicFile, values: &[f32]) -> io::Result<()> {
        // A buffer of fixed size, so that memory does not depend on the chunk.
        let mut bytes = [0u8; 4096];
        for values in values.chunks(bytes.len() / 4) {
            let (slots, _) = bytes.as_chunks_mut::<4>();
            for (slot, value) in slots.iter_mut().zip(values) {
                *slot = value.to_le_bytes();
            }
            file.writer.write_all(&bytes[..values.len() * 4])?;
        }
        Ok(())
    }

    fn finish(&mut self, file: &mut AtomicFile, rows: u64) -> io::Result<()> {
        file.writer.seek(SeekFrom::Start(0))?;
        file.writer.write_all(&header(rows, self.width))?;
        file.writer.seek(SeekFrom::End(0)).map(|_| ())
    }
}

/// Magic number, version, length, and the dictionary padded with spaces to [`HEADER`] bytes.
fn header(rows: u64, width: usize) -> [u8; HEADER] {
    let mut bytes = [b' '; HEADER];
    let start = b"\x93NUMPY\x01\x00";
    let length = ((HEADER - start.len() - 2) as u16).to_le_bytes();
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    bytes[..8].copy_from_slice(start);
    bytes[8..10].copy_from_slice(&length);
    bytes[10..10 + text.len()].copy_from_slice(text.as_bytes());
    bytes[HEADER - 1] = b'\n';
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_shape_fits() {
        let bytes = header(u64::MAX, usize::MAX);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains(&format!("({}, {}), }}", u64::MAX, usize::MAX)));
        assert!(text.ends_with(" \n"));
        assert!(bytes.starts_with(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4'"));
    }
}
