//! Where builds keep what they need, on the machine.
//!
//! ```text
//! CACHE/upstreams/ab/<sha256>   what was downloaded
//! CACHE/upstreams/git/<name>    mirrors of git repositories
//! CACHE/ccache and so on        what compilers keep
//! CACHE/work/<id>/build         what is built; <id> is name, version and release
//! CACHE/work/<id>/install       what was installed
//! CACHE/work/<id>/sources       the upstreams of the recipe
//! CACHE/work/<id>/logs          what each phase has said
//! CACHE/work/<id>/control       scripts, and how the build was entered
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::guest;
use crate::recipe::{Hash, Recipe};

/// Where builds keep what they need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The directory of everything.
    pub cache: PathBuf,
}

/// Where one recipe is built; nobody else builds there at the same time.
#[derive(Debug)]
pub struct Work {
    /// The directory of everything.
    pub path: PathBuf,
    _lock: File,
}

/// The directories of a recipe's build.
const OF_WORK: [&str; 7] =
    ["build", "install", "sources", "tmp", "logs", "control", "control/stage"];

impl Places {
    /// Where the upstream with this hash is, or will be.
    #[must_use]
    pub fn upstream(&self, hash: &Hash) -> PathBuf {
        let hash = hash.to_string();
        self.cache.join("upstreams").join(&hash[..2]).join(hash)
    }

    /// Where the mirror of a git repository is, or will be.
    #[must_use]
    pub fn mirror(&self, url: &str) -> PathBuf {
        let plain = url.split_once("://").map_or(url, |(_, rest)| rest);
        let safe = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '.' };
        let mut name: String = plain.chars().map(safe).collect();
        name.truncate(150);
        // Two addresses may look alike without their odd characters.
        let digest = cairn_store::Digest::of(url.as_bytes()).to_string();
        self.cache.join("upstreams/git").join(format!("{name}-{}", &digest[..8]))
    }

    /// Where a recipe is built, whether it has been or not.
    #[must_use]
    pub fn work_path(&self, recipe: &Recipe) -> PathBuf {
        let Recipe { name, version, release, .. } = recipe;
        self.cache.join("work").join(format!("{name}-{version}-{release}"))
    }

    /// Takes the directory of a recipe for this process, and makes what is
    /// missing in it.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Io`].
    pub fn work(&self, recipe: &Recipe) -> Result<Work> {
        let path = self.work_path(recipe);
        fs::create_dir_all(&path).map_err(Error::io(&path))?;
        let path = path.canonicalize().map_err(Error::io(&path))?;
        let lock = path.join("lock");
        let file = File::options().write(true).create(true).truncate(false).open(&lock);
        let file = file.map_err(Error::io(&lock))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(Error::Io { path: lock, source }),
        }
        for name in OF_WORK {
            let path = path.join(name);
            fs::create_dir_all(&path).map_err(Error::io(&path))?;
        }
        Ok(Work { path, _lock: file })
    }

    /// The caches of compilers, with where they are seen from inside.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn caches(&self) -> Result<Vec<(PathBuf, String)>> {
        let cache = |name: &&str| {
            let path = self.cache.join(name);
            fs::create_dir_all(&path).map_err(Error::io(&path))?;
            let path = path.canonicalize().map_err(Error::io(&path))?;
            Ok((path, guest::below(name)))
        };
        guest::CACHES.iter().map(cache).collect()
    }
}

impl Work {
    /// A directory in it.
    #[must_use]
    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Empties a directory in it, whatever modes were given to what is in there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn empty(&self, name: &str) -> Result<()> {
        let path = self.at(name);
        remove_all(&path).map_err(Error::io(&path))?;
        fs::create_dir_all(&path).map_err(Error::io(&path))
    }
}

/// Removes a directory with everything below it, also what its owner may not
/// write to.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    match fs::remove_dir_all(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {}
        result => return result,
    }
    let mut directories = vec![path.to_path_buf()];
    while let Some(directory) = directories.pop() {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn two_builds_of_one_recipe_do_not_meet() {
        let cache = tempfile::tempdir().expect("a directory");
        let places = Places { cache: cache.path().into() };
        let text =
            "name: x\nversion: 1\nrelease: 1\nhomepage: https://x\nlicense: MIT\ninstall: x\n";
        let recipe = Recipe::parse(text).expect("a recipe").recipe;
        let work = places.work(&recipe).expect("it is free");
        assert!(matches!(places.work(&recipe), Err(Error::InUse { .. })));
        let odd = work.at("build/a/b");
        fs::create_dir_all(&odd).expect("a directory");
        fs::write(odd.join("c"), "").expect("a file");
        fs::set_permissions(&odd, fs::Permissions::from_mode(0o555)).expect("a mode");
        work.empty("build").expect("emptied");
        assert_eq!(fs::read_dir(work.at("build")).expect("a directory").count(), 0);
        drop(work);
        places.work(&recipe).expect("it is free again");
    }

    #[test]
    fn mirrors_are_named_after_their_address() {
        let places = Places { cache: "/c".into() };
        let name = |url: &str| places.mirror(url).file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name("https://example.org/a/b.git").starts_with("example.org.a.b.git-"));
        assert_ne!(name("https://example.org/a/b"), name("https://example.org/a.b"));
        assert!(!name("https://x/../../y").contains('/'));
    }
}
