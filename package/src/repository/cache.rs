//! What may be removed of the cache at any time.

use std::fs::{self, File, TryLockError};
use std::io;

use serde::Serialize;

use super::Repositories;
use super::error::{Error, Result};

/// What a cleaning removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cleaned {
    /// Downloaded stones, and beginnings of them.
    pub stones: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Beginnings that another process is adding to, which stay.
    pub busy: usize,
}

impl Repositories {
    /// Removes downloaded stones for which `goes` is true, given their SHA-256
    /// as hexadecimal digits, and beginnings that nobody adds to.
    ///
    /// What is removed is downloaded again when it is needed.
    pub fn clean(&self, goes: impl Fn(&str) -> bool) -> Result<Cleaned> {
        let directory = self.downloads();
        let entries = match fs::read_dir(&directory) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Cleaned::default()),
            entries => entries.map_err(Error::io(&directory))?,
        };
        let mut cleaned = Cleaned::default();
        for entry in entries {
            let path = entry.map_err(Error::io(&directory))?.path();
            let (stem, suffix) = (path.file_stem(), path.extension());
            let hash = stem.and_then(|stem| stem.to_str()).unwrap_or_default();
            let is_part = suffix.is_some_and(|suffix| suffix == "part");
            let is_stone = suffix.is_some_and(|suffix| suffix == "stone");
            if !(is_part || (is_stone && goes(hash))) {
                continue;
            }
            // The lock is held until the name is gone, so that nobody begins
            // to add to a file without a name.
            let file = File::options().read(true).write(true).open(&path);
            let file = file.map_err(Error::io(&path))?;
            let locked = if is_part { file.try_lock() } else { Ok(()) };
            match locked {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    cleaned.busy += 1;
                    continue;
                }
                Err(TryLockError::Error(err)) => return Err(Error::io(&path)(err)),
            }
            cleaned.bytes += file.metadata().map_err(Error::io(&path))?.len();
            fs::remove_file(&path).map_err(Error::io(&path))?;
            cleaned.stones += 1;
        }
        Ok(cleaned)
    }
}
