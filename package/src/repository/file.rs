//! Files that are replaced as a whole.

use std::fs;
use std::path::{Path, PathBuf};

use cairn_store::disk::{Disk, create_directories};

use super::error::{Error, Result};

/// Replaces a file durably: whoever reads it sees the old or the new bytes,
/// and after a power cut as well.
pub(super) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = path.parent().expect("a file lies in a directory");
    make_directory(disk, directory)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = PathBuf::from(temporary);
    // Of a process that had this number before and was killed.
    let _ = fs::remove_file(&temporary);
    let written = disk.create(&temporary).and_then(|mut file| {
        file.write_at(bytes, 0)?;
        file.sync()
    });
    if let Err(err) = written.and_then(|()| disk.rename(&temporary, path)) {
        let _ = fs::remove_file(&temporary);
        return Err(Error::io(path)(err));
    }
    disk.sync_directory(directory).map_err(Error::io(directory))
}

/// Makes a directory, and those above it that are missing.
pub(super) fn make_directory(disk: &dyn Disk, path: &Path) -> Result<()> {
    create_directories(disk, path).map_err(Error::io(path))
}

/// Removes a file; that it is not there is fine.
pub(super) fn remove(disk: &dyn Disk, path: &Path) -> Result<()> {
    match disk.remove(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path)(err)),
        _ => Ok(()),
    }
}
