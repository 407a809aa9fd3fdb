//! MNIST's array file: a big-endian header and the values, often compressed.
//!
//! Format: two zero bytes, one byte for the type, one for the number of axes, then the size of each axis
//! in four bytes; <http://yann.lecun.com/exdb/mnist/>.

use std::path::{Path, PathBuf};

use super::array::{ArrayReader, Element, Header, Kind};
use super::bytes::{Input, bad_magic};
use super::{Meta, RowReader};
use crate::error::{DataError, HeaderFault};

/// Opens an idx file, with the labels of the file beside it that its name points to.
pub(super) fn open(path: &Path) -> Result<(Meta, Box<dyn RowReader>), DataError> {
    let mut input = Input::open(path)?;
    let header = read_header(&mut input)?;
    let (meta, mut reader) = ArrayReader::new(input, "idx", &header)?;
    if let Some(labels) = labels_beside(path) {
        reader.set_labels(read_labels(&labels)?)?;
    }
    Ok((meta, Box::new(reader)))
}

fn read_header(input: &mut Input) -> Result<Header, DataError> {
    let mut magic = Vec::new();
    input.read(4, &mut magic)?;
    let &[0, 0, kind, axes] = magic.as_slice() else {
        return Err(bad_magic(input.path(), "an idx", &magic));
    };
    let kind = match kind {
        0x08 => Kind::U8,
        0x09 => Kind::I8,
        0x0b => Kind::I16,
        0x0c => Kind::I32,
        0x0d => Kind::F32,
        0x0e => Kind::F64,
        _ => return Err(bad_magic(input.path(), "an idx", &magic)),
    };
    let mut sizes = Vec::new();
    let wanted = usize::from(axes) * 4;
    if input.read(wanted, &mut sizes)? < wanted {
        return Err(DataError::BadHeader {
            path: input.path().to_path_buf(),
            format: "idx",
            fault: HeaderFault::Short,
        });
    }
    let (sizes, _) = sizes.as_chunks::<4>();
    Ok(Header {
        element: Element { kind, big_endian: true },
        shape: sizes.iter().map(|&size| u64::from(u32::from_be_bytes(size))).collect(),
    })
}

/// `train-images-idx3-ubyte.gz` has its labels in `train-labels-idx1-ubyte.gz`, compressed or not.
fn labels_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    if !name.contains("images") {
        return None;
    }
    let labels = name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1");
    let plain = labels.strip_suffix(".gz").unwrap_or(&labels);
    [labels.clone(), plain.to_owned(), format!("{plain}.gz")]
        .iter()
        .map(|name| path.with_file_name(name))
        .find(|path| path.is_file())
}

/// The labels of an idx file with one axis of bytes.
fn read_labels(path: &Path) -> Result<Vec<u32>, DataError> {
    let mut input = Input::open(path)?;
    let header = read_header(&mut input)?;
    if header.element.kind != Kind::U8 {
        return Err(DataError::UnsupportedType {
            path: path.to_path_buf(),
            dtype: "labels that are not bytes".to_owned(),
        });
    }
    let &[count] = header.shape.as_slice() else {
        return Err(DataError::LabelDimensions { path: path.to_path_buf(), dimensions: header.shape.len() });
    };
    input.check_payload(count)?;
    let mut labels = Vec::new();
    let got = input.read(usize::try_from(count).unwrap_or(usize::MAX), &mut labels)?;
    if (got as u64) < count {
        return Err(DataError::Truncated { path: path.to_path_buf(), expected: count, found: got as u64 });
    }
    input.expect_end(count)?;
    Ok(labels.into_iter().map(u32::from).collect())
}
