//! Making the index of a directory of stones.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io::Seek;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cairn_store::disk::RealDisk;

use super::error::{Error, Result};
use super::file::replace;
use super::hash::Hasher;
use super::key::SecretKey;
use super::signature::{self, Identity, Statement};
use super::url::{INDEX, escape};
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
    /// What its signature says, if it is signed.
    pub signature: Option<IndexSignature>,
}

/// What the signature of a new index says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct IndexSignature {
    /// The number of the key.
    pub key: String,
    /// Of which repository the index is.
    pub repository: Identity,
    /// Larger in each newer index.
    pub sequence: u64,
    /// Until when it is believed, in seconds since 1970; none for ever.
    pub expires: Option<u64>,
}

/// Who signs an index, and what for.
#[derive(Debug)]
pub struct Signer {
    /// The key.
    pub key: SecretKey,
    /// Of which repository the index is; if nothing is said, of the one that
    /// the index was before, else of one that is called like the directory.
    pub repository: Option<Identity>,
    /// How long it is believed; for ever if nothing is said.
    pub valid_for: Option<Duration>,
}

/// Writes `stone.index` into `directory`, for all stones in it at any depth,
/// and its signature beside it, if somebody signs it.
///
/// Of several releases of a package the newest is taken. Stones are read and
/// hashed in parallel.
///
/// # Errors
/// [`Error::Stone`] names a file that cannot be read, [`Error::Twice`] two that
/// are the same release of a package; [`Error::WasSigned`]: there is a
/// signature, and nobody signs. The old index then stays.
pub fn index_directory(
    directory: &Path,
    signer: Option<&Signer>,
    progress: &dyn IndexProgress,
) -> Result<Indexed> {
    let path = directory.join(INDEX);
    let signature_path = directory.join(format!("{INDEX}{}", signature::SUFFIX));
    let before = match fs::read(&signature_path) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => None,
        // Whoever has the key believes only what is signed, so that nothing
        // would be offered to them any more.
        Ok(_) if signer.is_none() => return Err(Error::WasSigned { path }),
        before => Some(before.map_err(Error::io(&signature_path))?),
    };
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
    let mut bytes = Vec::new();
    write_index(&packages, &mut bytes)
        .map_err(|source| Error::Index { at: path.display().to_string(), source })?;
    let before = before.as_deref().and_then(Statement::unproved);
    let signed = signer.map(|signer| signer.sign(directory, &bytes, before)).transpose()?;
    replace(&RealDisk, &path, &bytes)?;
    let signature = match signed {
        Some((signature, file)) => {
            replace(&RealDisk, &signature_path, file.as_bytes())?;
            Some(signature)
        }
        None => None,
    };
    Ok(Indexed { path, packages: packages.len(), older, signature })
}

impl Signer {
    /// What the signature of a new index says, and its file.
    fn sign(
        &self,
        directory: &Path,
        index: &[u8],
        before: Option<Statement>,
    ) -> Result<(IndexSignature, String)> {
        let signed = signature::now();
        let last = before.as_ref().map_or(0, |before| before.sequence);
        let named = self.repository.clone().or(before.map(|before| before.repository));
        let statement = Statement {
            repository: named.unwrap_or_else(|| called_like(directory)),
            // Also after the last signature was lost, or came from a machine
            // whose clock is ahead.
            sequence: signed.max(last.saturating_add(1)),
            signed,
            expires: self.valid_for.map(|time| signed.saturating_add(time.as_secs())),
        };
        let file = statement
            .sign(index, &self.key)
            .map_err(|source| Error::Key { path: directory.join(INDEX), source })?;
        let Statement { repository, sequence, expires, .. } = statement;
        let key = self.key.public().id().into();
        Ok((IndexSignature { key, repository, sequence, expires }, file))
    }
}

/// The name of a directory as far as it can be that of a repository.
fn called_like(directory: &Path) -> Identity {
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.into());
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned());
    let graphic = |it: char| if it.is_ascii_graphic() { it } else { '-' };
    let name: String = name.unwrap_or_default().chars().map(graphic).take(128).collect();
    let fallback = || "stones".parse().expect("it has no spaces");
    name.parse().unwrap_or_else(|_| fallback())
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
    let mut hasher = Hasher::default();
    hasher.read(&mut file).map_err(Error::io(path))?;
    let (hash, digest) = hasher.finish();
    let size = file.stream_position().map_err(Error::io(path))?;
    let relative = path.strip_prefix(directory).expect("it was found there");
    let mut uri = String::new();
    escape(relative.as_os_str().as_bytes(), &mut uri);
    let installed_size = Some(package.installed_size());
    let location = Location { uri, hash, size, digest: Some(digest), installed_size };
    Ok(Metadata { location: Some(location), ..package.metadata })
}
