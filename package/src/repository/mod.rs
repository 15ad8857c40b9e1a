//! Where packages come from: directories with stones and an index.
//!
//! ```text
//! STORE/repositories/<name>.yaml     url, priority, enabled
//! STORE/cache/indices/<name>.index   the last good index
//! STORE/cache/indices/<name>.catalog its packages, to be found one by one
//! ```
//!
//! Format: docs/repositories.md.

mod config;
mod fetch;
mod index;

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use config::{Config, InvalidName, RepositoryName};
pub use index::{IndexProgress, Indexed, index_directory};

use crate::Metadata;
use crate::catalog::{self, Catalog, Stamp};
use crate::stone::{self, read_index};

/// Shorthand for what the functions here return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation with repositories failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot access {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The configuration of a repository does not have the documented form.
    #[error("cannot read {}", path.display())]
    Config { path: PathBuf, source: serde_yaml::Error },
    /// There is no repository with this name.
    #[error("there is no repository {0}")]
    Unknown(RepositoryName),
    /// There is one already.
    #[error("there is a repository {0} already")]
    Exists(RepositoryName),
    /// The URL is not of a form that is known.
    #[error("{url}: {problem}")]
    Url { url: String, problem: &'static str },
    /// The index of a repository cannot be used; the last good one stays.
    #[error("cannot use the index {}", path.display())]
    Index { path: PathBuf, source: stone::Error },
    /// A package of a directory cannot be used.
    #[error("cannot use the stone {}", path.display())]
    Stone { path: PathBuf, source: stone::Error },
    /// A directory has two packages with one name and one release.
    #[error("{} and {} are the same release of {name}", first.display(), second.display())]
    Twice { name: String, first: PathBuf, second: PathBuf },
    /// The URI of a package leads somewhere else than to a file.
    #[error("the index of {repository} places {package} at {uri:?}, which is not allowed")]
    Location { repository: RepositoryName, package: String, uri: String },
    /// A stone is not the one that the index announces.
    #[error("{} is not the file that the index of {repository} announces: {problem}", path.display())]
    Mismatch { repository: RepositoryName, path: PathBuf, problem: &'static str },
}

impl Error {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// The repositories of a store.
#[derive(Clone, Debug)]
pub struct Repositories {
    store: PathBuf,
}

/// A repository and its packages.
#[derive(Clone, Debug)]
pub struct Repository {
    /// Where it is and how much it counts.
    pub config: Config,
    /// What it offers; each package has a location.
    pub catalog: Arc<Catalog>,
}

impl Repositories {
    /// The repositories of the store in `store`.
    #[must_use]
    pub fn of(store: &Path) -> Self {
        Self { store: store.into() }
    }

    fn directory(&self) -> PathBuf {
        self.store.join("repositories")
    }

    fn config_path(&self, name: &RepositoryName) -> PathBuf {
        self.directory().join(format!("{name}.yaml"))
    }

    fn index_path(&self, name: &RepositoryName) -> PathBuf {
        self.store.join("cache/indices").join(format!("{name}.index"))
    }

    fn catalog_path(&self, name: &RepositoryName) -> PathBuf {
        self.store.join("cache/indices").join(format!("{name}.catalog"))
    }

    /// All repositories, the highest priority first, then by name.
    pub fn list(&self) -> Result<Vec<Config>> {
        let directory = self.directory();
        let entries = match fs::read_dir(&directory) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io(&directory))?,
        };
        let mut configs = Vec::new();
        for entry in entries {
            let file = entry.map_err(Error::io(&directory))?.file_name();
            let name = file.to_str().and_then(|name| name.strip_suffix(".yaml"));
            if let Some(name) = name.and_then(|name| RepositoryName::new(name).ok()) {
                configs.push(self.get(&name)?);
            }
        }
        configs.sort_by(|left, right| {
            right.priority.cmp(&left.priority).then_with(|| left.name.cmp(&right.name))
        });
        Ok(configs)
    }

    /// One repository.
    pub fn get(&self, name: &RepositoryName) -> Result<Config> {
        let path = self.config_path(name);
        match fs::read_to_string(&path) {
            Ok(text) => {
                Config::parse(name.clone(), &text).map_err(|source| Error::Config { path, source })
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => Err(Error::Unknown(name.clone())),
            Err(err) => Err(Error::io(path)(err)),
        }
    }

    /// Adds a repository whose index is good; returns how many packages it has.
    ///
    /// # Errors
    /// [`Error::Exists`], and those of [`Self::update`], after which it is not
    /// added.
    pub fn add(&self, config: &Config) -> Result<usize> {
        let path = self.config_path(&config.name);
        if path.exists() {
            return Err(Error::Exists(config.name.clone()));
        }
        let count = self.take_index(config)?;
        write_atomically(&path, config.to_yaml().as_bytes())?;
        Ok(count)
    }

    /// Changes what is known of a repository.
    pub fn set(&self, config: &Config) -> Result<()> {
        self.get(&config.name)?;
        write_atomically(&self.config_path(&config.name), config.to_yaml().as_bytes())
    }

    /// Removes a repository and its index; installed packages stay.
    pub fn remove(&self, name: &RepositoryName) -> Result<()> {
        self.get(name)?;
        let path = self.config_path(name);
        fs::remove_file(&path).map_err(Error::io(&path))?;
        sync_directory(&self.directory())?;
        for path in [self.catalog_path(name), self.index_path(name)] {
            match fs::remove_file(&path) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io(path)(err));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes over the index that a repository has now; returns how many packages
    /// it has.
    ///
    /// # Errors
    /// [`Error::Index`] when it cannot be decoded to the end; the last good one
    /// stays in use.
    pub fn update(&self, name: &RepositoryName) -> Result<usize> {
        self.take_index(&self.get(name)?)
    }

    fn take_index(&self, config: &Config) -> Result<usize> {
        let path = fetch::index_file(&config.url)?;
        let bytes = fs::read(&path).map_err(Error::io(&path))?;
        let packages =
            read_index(io::Cursor::new(&bytes)).map_err(|source| Error::Index { path, source })?;
        for package in &packages {
            fetch::stone_file(config, package)?;
        }
        write_atomically(&self.index_path(&config.name), &bytes)?;
        let count = packages.len();
        self.make_catalog(config, packages.into_iter().map(Arc::new).collect())?;
        Ok(count)
    }

    /// Writes the catalog that [`Self::load`] opens, of the packages of the
    /// index that was taken over last.
    fn make_catalog(&self, config: &Config, packages: Vec<Arc<Metadata>>) -> Result<()> {
        let index = self.index_path(&config.name);
        let stamp = Stamp::of(&index).map_err(Error::io(&index))?;
        let bytes = catalog::encode(packages, stamp)
            .map_err(|source| Error::Index { path: index, source })?;
        write_atomically(&self.catalog_path(&config.name), &bytes)
    }

    /// The packages of the index that was taken over last.
    fn catalog(&self, config: &Config) -> Result<Catalog> {
        let index = self.index_path(&config.name);
        let stamp = match Stamp::of(&index) {
            // The cache may be emptied at any time.
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                self.take_index(config)?;
                Stamp::of(&index)
            }
            stamp => stamp,
        };
        let stamp = stamp.map_err(Error::io(&index))?;
        // A catalog that is not there, or of another index or version, or
        // damaged, is made again of the index.
        if let Ok(Some(catalog)) = Catalog::open(&self.catalog_path(&config.name), stamp) {
            return Ok(catalog);
        }
        let file = File::open(&index).map_err(Error::io(&index))?;
        let packages = read_index(BufReader::new(file))
            .map_err(|source| Error::Index { path: index, source })?;
        let packages: Vec<Arc<Metadata>> = packages.into_iter().map(Arc::new).collect();
        // It only saves time, and the store may be read-only.
        let _ = self.make_catalog(config, packages.clone());
        Ok(Catalog::new(packages))
    }

    /// The packages of all enabled repositories, the highest priority first.
    ///
    /// Costs the tables of their catalogs; packages are read when somebody
    /// looks at them.
    pub fn load(&self) -> Result<Vec<Repository>> {
        let mut repositories = Vec::new();
        for config in self.list()?.into_iter().filter(|config| config.enabled) {
            let catalog = Arc::new(self.catalog(&config)?);
            repositories.push(Repository { config, catalog });
        }
        Ok(repositories)
    }

    /// Where the stone of a package that `config` offers lies; not verified.
    pub fn locate(&self, config: &Config, package: &Metadata) -> Result<PathBuf> {
        fetch::stone_file(config, package)
    }

    /// The stone of a package that `config` offers, verified by size and
    /// SHA-256.
    ///
    /// A file of the machine is used where it lies.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when it is not the announced file.
    pub fn fetch(&self, config: &Config, package: &Metadata) -> Result<PathBuf> {
        let path = fetch::stone_file(config, package)?;
        fetch::verify(config, package, &path)?;
        Ok(path)
    }
}

/// Replaces a file durably: whoever reads it sees the old or the new bytes.
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = path.parent().expect("files of a store lie in a directory");
    fs::create_dir_all(directory).map_err(Error::io(directory))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(err) = written {
        let _ = fs::remove_file(&temporary);
        return Err(Error::io(path)(err));
    }
    sync_directory(directory)
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(Error::io(path))
}
