//! Making the index of a directory of stones.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io::Seek;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::fetch::{INDEX, sha256};
use super::{Error, Result, write_atomically};
use crate::stone::{Package, write_index};
use crate::{Location, Metadata};

/// Is told how far an indexing has come; called from several threads.
pub trait IndexProgress: Sync {
    /// There are so many stones.
    fn begin(&self, stones: u64);
    /// One more was read.
    fn advance(&self);
}

impl IndexProgress for () {
    fn begin(&self, _: u64) {}
    fn advance(&self) {}
}

/// What an indexing made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Indexed {
    /// The index.
    pub path: PathBuf,
    /// Packages in it.
    pub packages: usize,
    /// Older releases that are left out.
    pub older: Vec<PathBuf>,
}

/// Writes `stone.index` into `directory`, for all stones in it at any depth.
///
/// Of several releases of a package the newest is taken. Stones are read and
/// hashed in parallel.
///
/// # Errors
/// [`Error::Stone`] names a file that cannot be read, [`Error::Twice`] two that
/// are the same release of a package. The old index then stays.
pub fn index_directory(directory: &Path, progress: &dyn IndexProgress) -> Result<Indexed> {
    let mut stones = Vec::new();
    find_stones(directory, &mut stones)?;
    stones.sort();
    progress.begin(stones.len() as u64);

    let next = AtomicUsize::new(0);
    let read = Mutex::new(BTreeMap::new());
    let workers = std::thread::available_parallelism().map_or(1, Into::into);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(path) = stones.get(at) else { break };
                    let metadata = read_stone(directory, path);
                    read.lock().unwrap_or_else(PoisonError::into_inner).insert(at, metadata);
                    progress.advance();
                }
            });
        }
    });

    let mut newest: BTreeMap<String, (Metadata, PathBuf)> = BTreeMap::new();
    let mut older = Vec::new();
    for (at, metadata) in read.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let (metadata, path) = (metadata?, stones[at].clone());
        match newest.entry(metadata.name.clone()) {
            Entry::Vacant(entry) => drop(entry.insert((metadata, path))),
            Entry::Occupied(mut entry) => {
                let (other, first) = entry.get();
                if other.age() == metadata.age() {
                    let (name, first) = (metadata.name, first.clone());
                    return Err(Error::Twice { name, first, second: path });
                }
                let is_newer = metadata.age() > other.age();
                older.push(if is_newer { entry.insert((metadata, path)).1 } else { path });
            }
        }
    }
    let packages: Vec<Metadata> = newest.into_values().map(|(metadata, _)| metadata).collect();
    let path = directory.join(INDEX);
    let mut bytes = Vec::new();
    write_index(&packages, &mut bytes)
        .map_err(|source| Error::Index { path: path.clone(), source })?;
    write_atomically(&path, &bytes)?;
    Ok(Indexed { path, packages: packages.len(), older })
}

/// Regular files only: a link to a directory could lead around in circles.
fn find_stones(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).map_err(Error::io(directory))? {
        let entry = entry.map_err(Error::io(directory))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io(&path))?;
        if kind.is_dir() {
            find_stones(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "stone") {
            found.push(path);
        }
    }
    Ok(())
}

fn read_stone(directory: &Path, path: &Path) -> Result<Metadata> {
    let package =
        Package::open(path).map_err(|source| Error::Stone { path: path.into(), source })?;
    let mut file = File::open(path).map_err(Error::io(path))?;
    let hash = sha256(&mut file).map_err(Error::io(path))?;
    let size = file.stream_position().map_err(Error::io(path))?;
    let relative = path.strip_prefix(directory).expect("it was found there");
    let Some(uri) = relative.to_str().map(str::to_owned) else {
        let source = std::io::Error::other("its name is not UTF-8");
        return Err(Error::Io { path: path.into(), source });
    };
    Ok(Metadata { location: Some(Location { uri, hash, size }), ..package.metadata })
}
