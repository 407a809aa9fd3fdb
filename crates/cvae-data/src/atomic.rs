//! Files that are either complete or absent.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::error::DataError;

/// Writes a file so that `path` holds either what it held before or all that `write` wrote.
///
/// The bytes go to a temporary file in the same folder, which is flushed to the disk and then renamed
/// over `path`; the folder is flushed too, so that the file survives a power cut from then on. When
/// `write` or any step fails, the temporary file is removed and `path` is untouched. A process killed
/// half-way can leave the temporary file (`.cvae-*.tmp`) behind, never a partial `path`. Where `path` is a
/// symbolic link, the link itself is replaced.
///
/// ```
/// use std::io::Write;
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("note.txt");
/// cvae_data::atomic_write(&path, |file| file.write_all(b"whole"))?;
/// assert_eq!(std::fs::read(&path)?, b"whole");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`DataError::Write`] with the path and the cause.
pub fn atomic_write<F>(path: impl AsRef<Path>, write: F) -> Result<(), DataError>
where
    F: FnOnce(&mut dyn Write) -> io::Result<()>,
{
    let mut file = AtomicFile::create(path.as_ref())?;
    let result = write(&mut file.writer);
    result.map_err(|source| DataError::write(path.as_ref(), source))?;
    file.commit()
}

/// A file being written that takes its name only when it is complete; dropping it removes it.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    path: PathBuf,
    pub(crate) writer: BufWriter<NamedTempFile>,
}

impl AtomicFile {
    /// Opens the temporary file beside `path`.
    pub(crate) fn create(path: &Path) -> Result<Self, DataError> {
        let fail = |source| DataError::write(path, source);
        if path.file_name().is_none() || path.is_dir() {
            return Err(fail(io::ErrorKind::IsADirectory.into()));
        }
        let mut builder = Builder::new();
        builder.prefix(".cvae-").suffix(".tmp");
        #[cfg(unix)]
        {
            // The permissions an ordinary new file has: the process's umask still applies.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(folder_of(path)).map_err(fail)?;
        Ok(Self { path: path.to_path_buf(), writer: BufWriter::with_capacity(1 << 16, file) })
    }

    /// The final path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Flushes to the disk and takes the final name.
    pub(crate) fn commit(self) -> Result<(), DataError> {
        let Self { path, writer } = self;
        let fail = |source| DataError::write(&path, source);
        let file = writer.into_inner().map_err(|e| fail(e.into_error()))?;
        file.as_file().sync_all().map_err(fail)?;
        file.persist(&path).map_err(|e| fail(e.error))?;
        sync_folder(folder_of(&path)).map_err(fail)
    }
}

/// The folder a path lies in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Flushes a folder's entries, where the system knows such a thing.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        atomic_write(&path, |f| f.write_all(b"old")).unwrap();
        let error = atomic_write(&path, |f| {
            f.write_all(&[0; 200_000])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(error.to_string().starts_with(&path.display().to_string()));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn unwritable_places_are_named() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("missing/a.npy"), folder.path().to_path_buf(), PathBuf::from("/")] {
            let error = atomic_write(&path, |_| Ok(())).unwrap_err();
            assert!(matches!(error, DataError::Write { .. }), "{error}");
            assert!(error.to_string().contains(&path.display().to_string()));
        }
        assert!(names(folder.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_an_ordinary_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (plain, atomic) = (folder.path().join("plain"), folder.path().join("atomic"));
        fs::write(&plain, b"x").unwrap();
        atomic_write(&atomic, |f| f.write_all(b"x")).unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode();
        assert_eq!(mode(&plain), mode(&atomic));
    }
}
