//! Where packages come from: stones with an index, on this machine or at a
//! server.
//!
//! ```text
//! STORE/repositories/<name>.yaml             what somebody has set
//! STORE/repositories/<name>.seen             the newest signed index so far
//! STORE/cache/indices/<name>/in-use.json     which index is in use, and where it is from
//! STORE/cache/indices/<name>/<id>.index      an index, byte for byte
//! STORE/cache/indices/<name>/<id>.catalog    its packages, to be found one by one
//! STORE/cache/downloads/<sha-256>.stone      stones from servers
//! STORE/cache/downloads/<sha-256>.part       what is there of one so far
//! ```
//!
//! Format and rules: docs/repositories.md.

mod cache;
mod config;
mod download;
mod error;
mod fetch;
mod file;
mod hash;
mod held;
mod http;
mod index;
mod key;
mod root_index;
mod served;
mod signature;
mod update;
mod url;

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_store::disk::{Disk, RealDisk};
use serde::Serialize;

pub use cache::Cleaned;
pub use config::{
    ARCHITECTURE, CHANNEL, Config, InvalidConfig, InvalidName, RepositoryName, Source,
};
pub use download::{DownloadProgress, Retry, download};
pub use error::{Error, Result};
pub use fetch::copy;
pub use http::{Network, NetworkProblem, ProxyServer};
pub use index::{IndexProgress, IndexSignature, Indexed, Signer, index_directory};
pub use key::{KeyProblem, PublicKey, SecretKey};
pub use root_index::{Identifier, InvalidIdentifier, RootIndexProblem, Snapshot};
pub use served::ServedStore;
pub use signature::{Identity, InvalidIdentity, SignatureProblem, Statement};
pub use update::{Older, Update};
pub use url::{InvalidUrl, Url};

use crate::Metadata;
use crate::catalog::Catalog;
use crate::stone::read_index;

use held::{Held, Seen};
use http::Client;

/// The repositories of a store.
#[derive(Clone, Debug)]
pub struct Repositories {
    store: PathBuf,
    cache: PathBuf,
    disk: Arc<dyn Disk>,
    client: Arc<Client>,
    only_at_hand: bool,
}

/// A repository and its packages.
#[derive(Clone, Debug)]
pub struct Repository {
    /// Where it is and how much it counts.
    pub config: Config,
    /// What it offers; each package has a location.
    pub catalog: Arc<Catalog>,
    /// Since when its index should not be believed any more, in seconds since
    /// 1970.
    pub expired: Option<u64>,
    /// Its index at each place that it has, the best first.
    indices: Vec<Url>,
}

/// What is known of the index of a repository that is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Packages in it.
    pub packages: usize,
    /// When it was found to be the newest one last, in seconds since 1970.
    pub checked: u64,
    /// When it was taken over, in seconds since 1970.
    pub updated: u64,
    /// Where it is from.
    pub from: String,
    /// What its signature says, if the repository is pinned to a key.
    pub signature: Option<SignatureStatus>,
}

/// What the signature of the index says that is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignatureStatus {
    /// The number of the key that made it.
    pub key: String,
    /// Of which repository the index is.
    pub repository: Option<Identity>,
    /// Larger in each newer index.
    pub sequence: u64,
    /// When it was made, in seconds since 1970.
    pub signed: u64,
    /// Until when it is believed, in seconds since 1970; none for ever.
    pub expires: Option<u64>,
    /// Whether that is over.
    pub is_expired: bool,
}

impl Repositories {
    /// The repositories of the store in `store`, with the usual network.
    #[must_use]
    pub fn of(store: &Path) -> Self {
        Self::new(store, Network::default())
    }

    /// The repositories of the store in `store`.
    #[must_use]
    pub fn new(store: &Path, network: Network) -> Self {
        Self {
            store: store.into(),
            cache: store.join("cache"),
            disk: Arc::new(RealDisk),
            client: Arc::new(Client::new(network)),
            only_at_hand: false,
        }
    }

    /// The same without those whose index is not in the cache, for what needs none of them:
    /// a server may be out of reach, and a disk not plugged in.
    #[must_use]
    pub fn only_at_hand(self) -> Self {
        Self { only_at_hand: true, ..self }
    }

    /// The same with indices and downloads in the directory `cache`.
    #[must_use]
    pub fn with_cache(self, cache: &Path) -> Self {
        Self { cache: cache.into(), ..self }
    }

    /// The same on another disk, for tests.
    #[must_use]
    pub fn on_disk(self, disk: Arc<dyn Disk>) -> Self {
        Self { disk, ..self }
    }

    /// How servers are spoken to.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.client.network
    }

    fn directory(&self) -> PathBuf {
        self.store.join("repositories")
    }

    fn config_path(&self, name: &RepositoryName) -> PathBuf {
        self.directory().join(format!("{name}.yaml"))
    }

    fn seen_path(&self, name: &RepositoryName) -> PathBuf {
        self.directory().join(format!("{name}.seen"))
    }

    /// The directory of what is held of a repository's indices.
    fn indices(&self, name: &RepositoryName) -> PathBuf {
        self.cache.join("indices").join(name.as_str())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        file::replace(&*self.disk, path, bytes)
    }

    /// What is known of the index in the cache, if it is the one that `config`
    /// wants.
    fn held(&self, config: &Config) -> Option<Held> {
        Held::read(&self.indices(&config.name), config)
    }

    /// The newest signed index that was ever taken over.
    fn seen(&self, name: &RepositoryName) -> Result<Option<Seen>> {
        let path = self.seen_path(name);
        match fs::read(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(Error::io(path)(err)),
            // Not to be passed over: an older index could be taken over then.
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|err| Error::io(path)(io::Error::new(io::ErrorKind::InvalidData, err))),
        }
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

    /// What is known of the index in use; nothing if none was taken over that
    /// fits the configuration.
    #[must_use]
    pub fn status(&self, config: &Config) -> Option<Status> {
        let Held { checked, updated, url, packages, signed, .. } = self.held(config)?;
        let seen = self.seen(&config.name).ok().flatten();
        let signature = signed.filter(|_| config.is_pinned()).map(|signed| SignatureStatus {
            key: signed.key.parse().map_or(signed.key, |key: PublicKey| key.id().into()),
            repository: seen.as_ref().and_then(Seen::identity),
            sequence: signed.sequence,
            signed: signed.signed,
            expires: signed.expires,
            is_expired: signed.expires.is_some_and(|expires| expires <= signature::now()),
        });
        let from = url.parse().map_or(url, |url: Url| url.to_string());
        Some(Status { packages, checked, updated, from, signature })
    }

    /// Adds a repository whose index is good; returns how many packages it has.
    ///
    /// # Errors
    /// [`Error::Exists`], and those of [`Self::update`], after which it is not
    /// added.
    pub fn add(&self, config: &Config, progress: &dyn DownloadProgress) -> Result<usize> {
        let path = self.config_path(&config.name);
        if path.exists() {
            return Err(Error::Exists(config.name.clone()));
        }
        // What is left of one that had the name before says nothing of this one.
        file::remove(&*self.disk, &self.seen_path(&config.name))?;
        let update = self.take_index(config, Older::Refused, progress)?;
        self.write(&path, config.to_yaml().as_bytes())?;
        Ok(update.packages)
    }

    /// Changes what is known of a repository. If another index is wanted or
    /// another key, the index is updated first.
    ///
    /// # Errors
    /// [`Error::Unknown`], and those of [`Self::update`], after which nothing is
    /// changed.
    pub fn set(&self, config: &Config, progress: &dyn DownloadProgress) -> Result<()> {
        let before = self.get(&config.name)?;
        if config.enabled && (before.source != config.source || before.keys != config.keys) {
            self.take_index(config, Older::Refused, progress)?;
        }
        self.write(&self.config_path(&config.name), config.to_yaml().as_bytes())
    }

    /// Removes a repository and its index; installed packages stay.
    pub fn remove(&self, name: &RepositoryName) -> Result<()> {
        let path = self.config_path(name);
        if !path.exists() {
            return Err(Error::Unknown(name.clone()));
        }
        file::remove(&*self.disk, &path)?;
        file::remove(&*self.disk, &self.seen_path(name))?;
        let directory = self.directory();
        self.disk.sync_directory(&directory).map_err(Error::io(&directory))?;
        match fs::remove_dir_all(self.indices(name)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(self.indices(name))(err))
            }
            _ => Ok(()),
        }
    }

    /// Takes over the index that a repository has now.
    ///
    /// # Errors
    /// Those of servers and files, and whatever is wrong with the index or its
    /// signature. The last good one stays in use.
    pub fn update(
        &self,
        name: &RepositoryName,
        older: Older,
        progress: &dyn DownloadProgress,
    ) -> Result<Update> {
        self.take_index(&self.get(name)?, older, progress)
    }

    /// The packages of all enabled repositories, the highest priority first.
    ///
    /// Costs the tables of their catalogs; packages are read when somebody
    /// looks at them. A repository whose index is not there, or was taken over
    /// from somewhere else than its configuration says, is updated first.
    pub fn load(&self, progress: &dyn DownloadProgress) -> Result<Vec<Repository>> {
        let mut repositories = Vec::new();
        for config in self.list()?.into_iter().filter(|config| config.enabled) {
            if self.only_at_hand && self.held(&config).is_none() {
                continue;
            }
            let (held, catalog) = self.open(&config, progress)?;
            let index = |source: Source| match &held.path {
                Some(path) => source.url().below(path),
                None => source.url().index(),
            };
            let indices = config.places().map(index).collect();
            let expires = held.signed.as_ref().and_then(|signed| signed.expires);
            let is_over = |&expires: &u64| config.is_pinned() && expires <= signature::now();
            let (catalog, expired) = (Arc::new(catalog), expires.filter(is_over));
            repositories.push(Repository { config, catalog, expired, indices });
        }
        Ok(repositories)
    }

    /// The packages of all enabled repositories whose index is there, for whoever must not
    /// wait for a server.
    pub fn at_hand_now(&self) -> Result<Vec<Catalog>> {
        let enabled = self.list()?.into_iter().filter(|config| config.enabled);
        let open = |config: Config| {
            let held = self.held(&config)?;
            self.catalog(&config.name, &held).ok()
        };
        Ok(enabled.filter_map(open).collect())
    }

    /// The packages of the index in use, and what is known of it.
    fn open(&self, config: &Config, progress: &dyn DownloadProgress) -> Result<(Held, Catalog)> {
        let mut tries = 0;
        loop {
            let Some(held) = self.held(config) else {
                self.take_index(config, Older::Refused, progress)?;
                let gone = || Error::io(self.indices(&config.name))(io::ErrorKind::NotFound.into());
                let held = self.held(config).ok_or_else(gone)?;
                let catalog = self.catalog(&config.name, &held)?;
                return Ok((held, catalog));
            };
            match self.catalog(&config.name, &held) {
                Ok(catalog) => return Ok((held, catalog)),
                // Another process may have taken over a newer one meanwhile.
                Err(_) if tries < 2 => tries += 1,
                Err(err) => return Err(err),
            }
        }
    }

    /// The packages of an index.
    fn catalog(&self, name: &RepositoryName, held: &Held) -> Result<Catalog> {
        let directory = self.indices(name);
        // A catalog that is not there, or of another version, or damaged, is
        // made again of the index.
        if let Ok(Some(catalog)) = Catalog::open(&held.catalog(&directory), held.stamp) {
            return Ok(catalog);
        }
        let index = held.index(&directory);
        let file = File::open(&index).map_err(Error::io(&index))?;
        let packages = read_index(BufReader::new(file))
            .map_err(|source| Error::Index { at: index.display().to_string(), source })?;
        let packages: Vec<Arc<Metadata>> = packages.into_iter().map(Arc::new).collect();
        // It only saves time, and the store may be read-only.
        let _ = self.make_catalog(&directory, held, packages.clone());
        Ok(Catalog::new(packages))
    }
}

/// An address as people are told of it: a file by its path.
fn shown(url: &Url) -> String {
    url.local().map_or_else(|| url.to_string(), |path| path.display().to_string())
}
