//! Folders of PNG and JPEG images, one image a row.

use std::fs;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageReader};

use super::{Block, Meta, RowReader};
use crate::dataset::{BYTE_SCALE, ImageShape};
use crate::error::DataError;

/// The images of a folder and its sub-folders, ordered by path.
///
/// The first level of sub-folders names the classes, provided that every image lies in one. Images keep
/// their channels (grey, grey and alpha, colour, colour and alpha) and must agree in them; more than 8 bits
/// a channel are reduced to 8.
struct ImagesReader {
    images: std::vec::IntoIter<Image>,
    shape: ImageShape,
    labelled: bool,
    /// The values of the first image, which told the shape.
    first: Option<Vec<u8>>,
}

/// One file.
struct Image {
    path: PathBuf,
    class: Option<String>,
}

/// Opens a folder and decodes its first image.
pub(super) fn open(folder: &Path) -> Result<(Meta, Box<dyn RowReader>), DataError> {
    let mut images = Vec::new();
    collect(folder, None, &mut images)?;
    images.sort_by(|a, b| a.path.cmp(&b.path));
    let Some(first) = images.first() else {
        return Err(DataError::NoImages { path: folder.to_path_buf() });
    };
    let (shape, values) = decode(&first.path)?;
    if shape.is_empty() {
        return Err(DataError::NoColumns { name: first.path.display().to_string() });
    }
    let meta = Meta {
        path: folder.to_path_buf(),
        width: shape.len(),
        rows: Some(images.len() as u64),
        image: Some(shape),
        feature_names: None,
        byte_scale: Some(BYTE_SCALE),
    };
    let reader = ImagesReader {
        labelled: images.iter().all(|image| image.class.is_some()),
        images: images.into_iter(),
        shape,
        first: Some(values),
    };
    Ok((meta, Box::new(reader)))
}

/// Adds the images below `folder`, which belong to `class`. Links to folders are not followed, so that
/// the search ends.
fn collect(folder: &Path, class: Option<&str>, images: &mut Vec<Image>) -> Result<(), DataError> {
    let fail = |source| DataError::read(folder, source);
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        if entry.file_type().map_err(fail)?.is_dir() {
            let name = entry.file_name().to_string_lossy().into_owned();
            collect(&path, Some(class.unwrap_or(&name)), images)?;
        } else if is_image(&path) {
            images.push(Image { path, class: class.map(str::to_owned) });
        }
    }
    Ok(())
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    matches!(extension.to_str(), Some("png" | "jpg" | "jpeg"))
}

/// The shape and the values of one image, the channel varying fastest. The library limits the memory an
/// image may take.
fn decode(path: &Path) -> Result<(ImageShape, Vec<u8>), DataError> {
    let fail = |source| DataError::read(path, source);
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(fail)?;
    let image = reader.decode().map_err(|error| DataError::Corrupt {
        path: path.to_path_buf(),
        format: "image",
        source: Box::new(error),
    })?;
    let (height, width) = (image.height() as usize, image.width() as usize);
    let channels = usize::from(image.color().channel_count());
    let values = match channels {
        1 => image.into_luma8().into_raw(),
        2 => image.into_luma_alpha8().into_raw(),
        3 => image.into_rgb8().into_raw(),
        _ => DynamicImage::into_rgba8(image).into_raw(),
    };
    let shape = ImageShape { height, width, channels };
    Ok((shape, values))
}

impl RowReader for ImagesReader {
    fn read(&mut self, max_rows: usize, block: &mut Block) -> Result<usize, DataError> {
        let mut rows = 0;
        while rows < max_rows {
            let Some(image) = self.images.next() else {
                break;
            };
            let values = match self.first.take() {
                Some(values) => values,
                None => {
                    let (shape, values) = decode(&image.path)?;
                    if shape != self.shape {
                        return Err(DataError::ImageSize { path: image.path, expected: self.shape, found: shape });
                    }
                    values
                }
            };
            block.bytes.extend_from_slice(&values);
            if let (true, Some(class)) = (self.labelled, &image.class) {
                block.labels.push_name(class);
            }
            rows += 1;
        }
        Ok(rows)
    }
}
