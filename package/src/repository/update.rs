//! From the index that a repository has now to the one that is in use.
//!
//! Nothing is taken over before it is proved, decoded to the end, and newer.
//! What was taken over last stays in use otherwise.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use cairn_store::Digest;

use super::config::{Config, Source};
use super::download::{self, DownloadProgress, InMemory, network};
use super::error::{Error, Result};
use super::fetch;
use super::held::{Held, Seen, Signed, file_of};
use super::http::Validators;
use super::root_index;
use super::signature::{self, SignatureProblem, Statement};
use super::url::Url;
use super::{Repositories, shown};
use crate::Metadata;
use crate::catalog::{self, Stamp};
use crate::stone::read_index;

/// An index may not be longer.
const MAX_INDEX: u64 = 256 << 20;

/// What an update came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// Packages in the index.
    pub packages: usize,
    /// Whether it differs from the one before.
    pub changed: bool,
}

/// Whether an index may be older than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Older {
    /// A signed index is refused if it is.
    #[default]
    Refused,
    /// Somebody who knows why says so.
    Allowed,
}

/// One attempt to take over an index.
struct Taking<'a> {
    repositories: &'a Repositories,
    config: &'a Config,
    older: Older,
    progress: &'a dyn DownloadProgress,
}

/// Where an index is.
struct Place {
    url: Url,
    /// The part of it that a root index says.
    path: Option<String>,
}

impl Repositories {
    /// Takes over the index that `config` leads to now, from the first place
    /// that has a good one.
    pub(super) fn take_index(
        &self,
        config: &Config,
        older: Older,
        progress: &dyn DownloadProgress,
    ) -> Result<Update> {
        let taking = Taking { repositories: self, config, older, progress };
        let mut first = None;
        for source in config.places() {
            match taking.take_from(&source) {
                Ok(update) => return Ok(update),
                Err(err) => drop(first.get_or_insert(err)),
            }
        }
        Err(first.expect("a repository has at least one place"))
    }

    /// Writes the catalog that is opened later, of the packages of an index.
    pub(super) fn make_catalog(
        &self,
        directory: &Path,
        held: &Held,
        packages: Vec<Arc<Metadata>>,
    ) -> Result<()> {
        let at = || held.index(directory).display().to_string();
        let bytes = catalog::encode(packages, held.stamp)
            .map_err(|source| Error::Index { at: at(), source })?;
        self.write(&held.catalog(directory), &bytes)
    }
}

impl Taking<'_> {
    fn take_from(&self, source: &Source) -> Result<Update> {
        let place = self.place(source)?;
        let held = self.repositories.held(self.config);
        if self.config.is_pinned() {
            self.take_signed(&place, held.as_ref())
        } else {
            self.take_unsigned(&place, held.as_ref())
        }
    }

    /// Where the index is, for which a root index may have to be read.
    fn place(&self, source: &Source) -> Result<Place> {
        let Source::Root { base, channel, version, architecture } = source else {
            return Ok(Place { url: source.url().index(), path: None });
        };
        let url = root_index::url(base, channel);
        let bytes = self.read_anew(&url, root_index::MAX_LEN)?.bytes;
        let path = root_index::resolve(&bytes, channel, version, architecture)
            .map_err(|source| Error::RootIndex { url: shown(&url), source })?;
        Ok(Place { url: base.below(&path), path: Some(path) })
    }

    fn take_unsigned(&self, place: &Place, held: Option<&Held>) -> Result<Update> {
        let known = held.filter(|held| held.url == place.url.as_str());
        let known = known.map(|held| &held.validators);
        match (self.read(&place.url, MAX_INDEX, known, Caches::Allowed)?, held) {
            (None, Some(held)) => self.confirm(held.clone()),
            // A server that says so without having been asked.
            (None, None) => self.accept(place, self.read_anew(&place.url, MAX_INDEX)?, None),
            (Some(file), held) => {
                match held.filter(|held| held.digest == Digest::of(&file.bytes)) {
                    Some(held) => {
                        let url = place.url.as_str().into();
                        self.confirm(Held { validators: file.validators, url, ..held.clone() })
                    }
                    None => self.accept(place, file, None),
                }
            }
        }
    }

    fn take_signed(&self, place: &Place, held: Option<&Held>) -> Result<Update> {
        let name = &self.config.name;
        let url = place.url.with_suffix(signature::SUFFIX);
        let known = held.filter(|held| held.url == place.url.as_str());
        let known = known.map(|held| &held.validators);
        let mut caches = Caches::Allowed;
        loop {
            let signature = match self.read(&url, signature::MAX_LEN, None, caches) {
                Ok(file) => file.map(|file| file.bytes).unwrap_or_default(),
                Err(err) if err.is_missing_file() => {
                    return Err(Error::Unsigned { repository: name.clone(), url: shown(&url) });
                }
                Err(err) => return Err(err),
            };
            let index = match self.read(&place.url, MAX_INDEX, known, caches)? {
                Some(file) => file,
                None => self.in_use(held)?,
            };
            match Statement::verify(&signature, &index.bytes, &self.config.keys) {
                // The one may be from before a change and the other from after
                // it, here or in a cache on the way.
                Err(SignatureProblem::Forged) if caches == Caches::Allowed => {
                    caches = Caches::Avoided;
                }
                Err(source) => {
                    let (repository, url) = (name.clone(), shown(&url));
                    return Err(Error::Signature { repository, url, source });
                }
                Ok((statement, key)) => {
                    let seen = self.judge(&statement, &index.bytes)?;
                    let signed = Signed::new(&statement, key);
                    let Some(held) = held.filter(|held| held.digest == seen.digest) else {
                        return self.accept(place, index, Some((seen, signed)));
                    };
                    self.remember(&seen)?;
                    let (url, validators) = (place.url.as_str().into(), index.validators);
                    let signed = Some(signed);
                    return self.confirm(Held { signed, url, validators, ..held.clone() });
                }
            }
        }
    }

    /// Whether a statement that is proved may replace what was seen before.
    fn judge(&self, statement: &Statement, index: &[u8]) -> Result<Seen> {
        let repository = self.config.name.clone();
        let digest = Digest::of(index);
        let seen = self.repositories.seen(&repository)?;
        if let Some(seen) = &seen {
            if let Some(expected) = seen.identity()
                && expected != statement.repository
            {
                let found = statement.repository.clone();
                return Err(Error::OtherRepository { repository, expected, found });
            }
            let (seen, offered) = ((seen.sequence, seen.digest), statement.sequence);
            if self.older == Older::Refused {
                if offered < seen.0 {
                    return Err(Error::Rollback { repository, seen: seen.0, offered });
                }
                if offered == seen.0 && digest != seen.1 {
                    return Err(Error::SameNumber { repository, sequence: offered });
                }
            }
        }
        let now = signature::now();
        match statement.expires {
            Some(expires) if statement.is_expired(now) => {
                Err(Error::Expired { repository, since: now - expires })
            }
            _ => {
                let Statement { repository, sequence, .. } = statement;
                Ok(Seen { repository: repository.to_string(), sequence: *sequence, digest })
            }
        }
    }

    /// The index in use, which a server says is the newest.
    fn in_use(&self, held: Option<&Held>) -> Result<InMemory> {
        let directory = self.repositories.indices(&self.config.name);
        let held = held.ok_or_else(|| Error::io(&directory)(io::ErrorKind::NotFound.into()))?;
        let path = held.index(&directory);
        let bytes = fs::read(&path).map_err(Error::io(path))?;
        Ok(InMemory { bytes, validators: held.validators.clone() })
    }

    /// What is in use is the newest.
    fn confirm(&self, held: Held) -> Result<Update> {
        let held = Held { checked: signature::now(), ..held };
        self.put_in_use(&held)?;
        Ok(Update { packages: held.packages, changed: false })
    }

    /// Remembers durably what was seen before it is used: whoever goes back to
    /// an older one is found out from now on.
    fn remember(&self, seen: &Seen) -> Result<()> {
        let (repositories, name) = (self.repositories, &self.config.name);
        if repositories.seen(name)?.as_ref() == Some(seen) {
            return Ok(());
        }
        repositories.write(&repositories.seen_path(name), &seen.to_bytes())
    }

    fn put_in_use(&self, held: &Held) -> Result<()> {
        let directory = self.repositories.indices(&self.config.name);
        self.repositories.write(&Held::path(&directory), &held.to_bytes())
    }

    /// Takes over a new index.
    fn accept(
        &self,
        place: &Place,
        index: InMemory,
        proof: Option<(Seen, Signed)>,
    ) -> Result<Update> {
        let (repositories, name) = (self.repositories, &self.config.name);
        let InMemory { bytes, validators } = index;
        let packages = read_index(io::Cursor::new(&bytes))
            .map_err(|source| Error::Index { at: shown(&place.url), source })?;
        for package in &packages {
            fetch::check_location(name, &place.url, package)?;
        }
        let mut signed = None;
        if let Some((seen, of)) = proof {
            self.remember(&seen)?;
            signed = Some(of);
        }
        let directory = repositories.indices(name);
        let digest = Digest::of(&bytes);
        let path = file_of(&directory, digest, "index");
        repositories.write(&path, &bytes)?;
        let now = signature::now();
        let held = Held {
            source: self.config.source.to_string(),
            digest,
            stamp: Stamp::of(&path).map_err(Error::io(&path))?,
            url: place.url.as_str().into(),
            path: place.path.clone(),
            validators,
            checked: now,
            updated: now,
            packages: packages.len(),
            signed,
        };
        let count = packages.len();
        let packages = packages.into_iter().map(Arc::new).collect();
        repositories.make_catalog(&directory, &held, packages)?;
        self.put_in_use(&held)?;
        remove_others(&directory, &held);
        Ok(Update { packages: count, changed: true })
    }

    fn read_anew(&self, url: &Url, limit: u64) -> Result<InMemory> {
        let file = self.read(url, limit, None, Caches::Avoided)?;
        file.ok_or_else(|| Error::io(shown(url))(io::ErrorKind::NotFound.into()))
    }

    /// Reads a file of this machine or of a server; `None` if it has not
    /// changed since `known`.
    fn read(
        &self,
        url: &Url,
        limit: u64,
        known: Option<&Validators>,
        caches: Caches,
    ) -> Result<Option<InMemory>> {
        let Some(path) = url.local() else {
            let client = &self.repositories.client;
            let anew = caches == Caches::Avoided;
            return download::read(client, url, limit, known, anew, self.progress)
                .map_err(network(url));
        };
        let mut bytes = Vec::new();
        let file = fs::File::open(&path).map_err(Error::io(&path))?;
        file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io(&path))?;
        if bytes.len() as u64 > limit {
            let source = io::Error::other(format!("it is longer than {limit} bytes"));
            return Err(Error::Io { path, source });
        }
        Ok(Some(InMemory { bytes, validators: Validators::default() }))
    }
}

/// Whether caches on the way may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caches {
    Allowed,
    Avoided,
}

/// Removes the files of indices that are not in use any more. What cannot be
/// removed now is removed after the next update.
fn remove_others(directory: &Path, held: &Held) {
    let kept = [held.index(directory), held.catalog(directory), Held::path(directory)];
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !kept.contains(&entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
