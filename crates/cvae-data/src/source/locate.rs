//! Finding the files of named data sets.

use std::path::PathBuf;

use super::Part;
use crate::error::DataError;
use crate::manifest::Manifest;

/// The images file of one part, in the first of `folders` that has it.
///
/// A data set's folder may be spelled with hyphens or underscores, and a file may be compressed or not and
/// have a dot before `idx` as some archives unpack it.
pub(super) fn find(manifest: &Manifest, part: Part, folders: &[PathBuf]) -> Result<PathBuf, DataError> {
    let images = manifest.files.iter().find(|file| file.part == part.name() && file.name.contains("images"));
    let spellings = images.map(|file| spellings(&file.name)).unwrap_or_default();
    let mut searched = Vec::new();
    for folder in folders {
        for name in [manifest.name.clone(), manifest.name.replace('-', "_")] {
            let folder = folder.join(name);
            if searched.contains(&folder) {
                continue;
            }
            for file in &spellings {
                let path = folder.join(file);
                if path.is_file() {
                    return Ok(path);
                }
            }
            searched.push(folder);
        }
    }
    Err(DataError::DataSetNotFound {
        name: format!("{}:{}", manifest.name, part.name()),
        searched,
        obtain: manifest.obtain.clone(),
    })
}

/// The names under which a file is distributed, the manifest's own first.
fn spellings(name: &str) -> Vec<String> {
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    let dotted = plain.replace("-idx", ".idx");
    vec![format!("{plain}.gz"), plain.to_owned(), format!("{dotted}.gz"), dotted]
}
