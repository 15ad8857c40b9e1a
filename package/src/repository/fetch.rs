//! From a package of an index to a proved stone on this machine.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::config::RepositoryName;
use super::download::{DownloadProgress, Remote};
use super::error::{Error, Result};
use super::hash::{self, Expected, verify};
use super::url::Url;
use super::{Repositories, Repository};
use crate::stone::ProvedStone;
use crate::{Location, Metadata};

impl Repositories {
    /// Where the stone of a package lies that `repository` offers, if it is on
    /// this machine: in the repository itself, or downloaded before.
    ///
    /// It is not proved, and may not be there any more.
    pub fn at_hand(&self, repository: &Repository, package: &Metadata) -> Result<Option<PathBuf>> {
        let name = &repository.config.name;
        let location = location(name, package)?;
        for index in &repository.indices {
            if let Some(path) = place(name, index, package)?.local() {
                return Ok(Some(path));
            }
        }
        let path = self.download_path(&location.hash);
        let is_there = fs::metadata(&path).is_ok_and(|it| it.len() == location.size);
        Ok(is_there.then_some(path))
    }

    /// The stone of a package that `repository` offers, proved by size and
    /// hashes.
    ///
    /// A file of the machine is used where it lies. One of a server is
    /// downloaded, unless it was before, from the first place that has it.
    /// `progress` is told of all its bytes in any case but the former.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when it is not the announced file, and
    /// [`Error::Network`].
    pub fn fetch(
        &self,
        repository: &Repository,
        package: &Metadata,
        progress: &dyn DownloadProgress,
    ) -> Result<ProvedStone> {
        let name = &repository.config.name;
        let expected = Expected::from(location(name, package)?);
        let mut urls = Vec::new();
        let mut failure = None;
        for index in &repository.indices {
            let url = place(name, index, package)?;
            match url.local() {
                Some(path) => match verify(name, &expected, &path) {
                    Ok(stamp) => return Ok(ProvedStone::new(path, stamp)),
                    Err(err) => drop(failure.get_or_insert(err)),
                },
                None => urls.push(url),
            }
        }
        if let (Some(failure), true) = (failure, urls.is_empty()) {
            return Err(failure);
        }
        let path = self.download_path(expected.hash);
        if path.exists() {
            if hash::is(&expected, &path) {
                progress.advance(expected.size);
                return Ok(ProvedStone::own(path));
            }
            // It was damaged since, and is only a copy.
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
        Remote { repository: name, urls, expected }.download(&self.client, &path, progress)?;
        Ok(ProvedStone::own(path))
    }

    /// Whether fetching the stone would need a server.
    pub fn is_remote(&self, repository: &Repository, package: &Metadata) -> Result<bool> {
        Ok(self.at_hand(repository, package)?.is_none())
    }

    /// The stone of a package that was downloaded before, proved by size and
    /// hashes, whatever repositories offer now.
    #[must_use]
    pub fn downloaded(&self, package: &Metadata) -> Option<PathBuf> {
        let location = package.location.as_ref()?;
        let path = self.download_path(&location.hash);
        hash::is(&Expected::from(location), &path).then_some(path)
    }

    pub(super) fn downloads(&self) -> PathBuf {
        self.cache.join("downloads")
    }

    fn download_path(&self, hash: &str) -> PathBuf {
        // Decoding has made sure that it is 64 digits.
        self.downloads().join(format!("{hash}.stone"))
    }
}

/// Checks where the index at `index` places a package.
pub(super) fn check_location(
    repository: &RepositoryName,
    index: &Url,
    package: &Metadata,
) -> Result<()> {
    place(repository, index, package).map(drop)
}

/// The address of a package, whose URI stands in the index at `index`.
fn place(repository: &RepositoryName, index: &Url, package: &Metadata) -> Result<Url> {
    let Location { uri, .. } = location(repository, package)?;
    let not_allowed = || Error::Location {
        repository: repository.clone(),
        package: package.name.clone(),
        uri: uri.clone(),
    };
    // Whoever makes an index has no business at other hosts, nor with files
    // of the machine that are named from its root.
    let is_relative = !uri.is_empty() && !uri.starts_with('/') && !uri.contains("://");
    let is_plain = !uri.contains(['?', '#', '\\', '\0']);
    if !is_relative || !is_plain {
        return Err(not_allowed());
    }
    index.join(uri).map_err(|_| not_allowed())
}

fn location<'a>(repository: &RepositoryName, package: &'a Metadata) -> Result<&'a Location> {
    package.location.as_ref().ok_or_else(|| Error::Location {
        repository: repository.clone(),
        package: package.name.clone(),
        uri: String::new(),
    })
}

/// Copies a stone that [`Repositories::fetch`] has proved to where somebody
/// wants it.
pub fn copy(stone: &ProvedStone, to: &Path) -> Result<()> {
    let not_read = |source| Error::Stone { path: stone.path().into(), source };
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut file = stone.open().map_err(not_read)?;
    let copied = fs::File::create(&part).and_then(|mut part| io::copy(&mut file, &mut part));
    copied.map_err(Error::io(&part))?;
    stone.check(&file).map_err(not_read)?;
    fs::rename(&part, to).map_err(Error::io(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_lies_relative_to_its_index() {
        let name = RepositoryName::new("x").unwrap();
        let file = |index: &str, uri: &str| {
            let location = Location { uri: uri.into(), ..Location::default() };
            let package = Metadata { location: Some(location), ..Metadata::default() };
            place(&name, &index.parse::<Url>().unwrap().index(), &package).ok()
        };
        let check = |index: &str, uri: &str, expected: Option<&str>| {
            assert_eq!(file(index, uri).as_ref().map(Url::as_str), expected, "{index} {uri:?}");
        };
        check("/srv/repo", "a/b.stone", Some("file:///srv/repo/a/b.stone"));
        check("/srv/repo", "../b c.stone", Some("file:///srv/b%20c.stone"));
        check("http://h/repo", "../b.stone", Some("http://h/b.stone"));
        check("http://h/repo/x.index", "a+1~b.stone", Some("http://h/repo/a+1~b.stone"));
        for uri in
            ["", "/etc/passwd", "//h/x", "http://x/y", "a\0b", "ftp:x", "x?y", "x#y", "..\\x"]
        {
            check("/srv/repo", uri, None);
            check("http://h/repo", uri, None);
        }
    }
}
