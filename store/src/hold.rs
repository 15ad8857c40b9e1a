//! What running processes need of a store, noted where gc finds it.
//!
//! A process that shows trees writes a file `STORE/run/mounts/NAME.json` and keeps it
//! locked (flock(2)) for as long as it shows them. The kernel takes the lock away
//! with the process, however that ends, so that a file without a lock is what a dead
//! process left behind. Whoever meets it removes it, with the socket `NAME.sock` beside
//! it.
//!
//! The file is a JSON object. This floor reads its key `trees`, the ids of the
//! roots to keep with all below them, and `all_states`, whether they are there because all
//! states are shown and none more than another, and `passthrough`, whether the kernel reads
//! large files of them from [plain files](crate::Plain); the rest belongs to the floor that
//! wrote it.
//!
//! Order: a process writes the file, and only then looks whether what it names is
//! still there; gc first takes the writer's lock, under which no state goes, and then
//! reads the files.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::hash::TreeId;

/// The file of a running process.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Its name without `.json`.
    pub name: String,
    /// The JSON that it holds.
    pub text: String,
}

#[derive(Deserialize)]
struct Held {
    trees: Vec<TreeId>,
    #[serde(default)]
    all_states: bool,
    #[serde(default)]
    passthrough: bool,
}

impl Holder {
    /// The holders below a store's `run` directory, sorted by name; removes
    /// what dead ones left behind.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read: it may name what must be kept.
    pub fn list(run: &Path) -> Result<Vec<Self>> {
        let directory = Self::directory(run);
        let entries = match fs::read_dir(&directory) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(Error::io(&directory))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let file_name = entry.map_err(Error::io(&directory))?.file_name();
            let Some(name) = file_name.to_str().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            let text = read(&directory, name)?;
            found.extend(text.map(|text| Self { name: name.into(), text }));
        }
        found.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(found)
    }

    /// Where the files of the holders lie.
    #[must_use]
    pub fn directory(run: &Path) -> PathBuf {
        run.join("mounts")
    }

    /// The roots to keep.
    pub(crate) fn trees(&self, run: &Path) -> Result<Vec<TreeId>> {
        Ok(self.held(run)?.trees)
    }

    /// The roots of which somebody has chosen to see them.
    pub(crate) fn chosen_trees(&self, run: &Path) -> Result<Vec<TreeId>> {
        let held = self.held(run)?;
        Ok(if held.all_states { Vec::new() } else { held.trees })
    }

    /// The roots of which files are read plain.
    pub(crate) fn plain_trees(&self, run: &Path) -> Result<Vec<TreeId>> {
        let held = self.held(run)?;
        Ok(if held.passthrough { held.trees } else { Vec::new() })
    }

    fn held(&self, run: &Path) -> Result<Held> {
        serde_json::from_str(&self.text).map_err(|err| {
            Error::io(Self::directory(run).join(format!("{}.json", self.name)))(err.into())
        })
    }
}

/// The content of a holder's file; removes it when its process is dead.
fn read(directory: &Path, name: &str) -> Result<Option<String>> {
    let path = directory.join(format!("{name}.json"));
    loop {
        let mut file = match File::open(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(Error::io(&path))?,
        };
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(Error::io(&path))?;
                return Ok(Some(text));
            }
            Err(TryLockError::Error(err)) => return Err(Error::io(&path)(err)),
            Ok(()) => {}
        }
        // It may have been replaced, and unlocked, since it was opened.
        let opened = file.metadata().map_err(Error::io(&path))?.ino();
        match fs::metadata(&path) {
            Ok(now) if now.ino() == opened => {
                let _ = fs::remove_file(directory.join(format!("{name}.sock")));
                let _ = fs::remove_file(&path);
                return Ok(None);
            }
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(Error::io(&path)(err)),
        }
    }
}
