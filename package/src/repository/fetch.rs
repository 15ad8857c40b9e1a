//! From URLs to files of the machine.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Config, Error, Result};
use crate::{Location, Metadata};

/// The usual name of an index.
pub(super) const INDEX: &str = "stone.index";

/// The file of the index at `url`.
pub(super) fn index_file(url: &str) -> Result<PathBuf> {
    let problem = |problem| Error::Url { url: url.into(), problem };
    let path = match url.split_once("://") {
        Some(("file", path)) => decode(path).ok_or_else(|| problem("it has a malformed escape"))?,
        Some(("http" | "https", _)) => {
            return Err(problem("repositories on the network are not supported yet"));
        }
        Some(_) => return Err(problem("only file:// is supported")),
        None => url.into(),
    };
    let path = PathBuf::from(path);
    if !path.is_absolute() {
        return Err(problem("it must be an absolute path"));
    }
    let is_index = path.extension().is_some_and(|extension| extension == "index");
    Ok(if is_index { path } else { path.join(INDEX) })
}

/// Undoes the escapes of RFC 3986, section 2.1.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The file of a package: its URI, from the directory of the index.
pub(super) fn stone_file(config: &Config, package: &Metadata) -> Result<PathBuf> {
    let Location { uri, .. } = location(config, package)?;
    let index = index_file(&config.url)?;
    let directory = index.parent().unwrap_or(Path::new("/"));
    let relative = Path::new(uri);
    let is_allowed = !uri.is_empty()
        && !uri.contains("://")
        && !uri.contains('\0')
        && relative
            .components()
            .all(|it| matches!(it, Component::Normal(_) | Component::ParentDir));
    if !is_allowed {
        let (package, uri) = (package.name.clone(), uri.clone());
        return Err(Error::Location { repository: config.name.clone(), package, uri });
    }
    Ok(directory.join(relative))
}

fn location<'a>(config: &Config, package: &'a Metadata) -> Result<&'a Location> {
    package.location.as_ref().ok_or_else(|| Error::Location {
        repository: config.name.clone(),
        package: package.name.clone(),
        uri: String::new(),
    })
}

/// Compares a file with what the index says of it.
pub(super) fn verify(config: &Config, package: &Metadata, path: &Path) -> Result<()> {
    let Location { hash, size, .. } = location(config, package)?;
    let mismatch =
        |problem| Error::Mismatch { repository: config.name.clone(), path: path.into(), problem };
    let mut file = File::open(path).map_err(Error::io(path))?;
    if file.metadata().map_err(Error::io(path))?.len() != *size {
        return Err(mismatch("its size differs"));
    }
    if sha256(&mut file).map_err(Error::io(path))? != *hash {
        return Err(mismatch("its SHA-256 differs"));
    }
    Ok(())
}

/// SHA-256 as 64 lower-case hexadecimal digits.
pub(super) fn sha256(from: &mut impl Read) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buf = vec![0; 256 << 10];
    loop {
        match from.read(&mut buf)? {
            0 => break,
            len => hasher.update(&buf[..len]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::RepositoryName;

    #[test]
    fn an_index_is_a_file_of_the_machine() {
        for (url, expected) in [
            ("/srv/stones", "/srv/stones/stone.index"),
            ("file:///srv/a%20b/", "/srv/a b/stone.index"),
            ("file:///srv/x/other.index", "/srv/x/other.index"),
        ] {
            assert_eq!(index_file(url).unwrap(), Path::new(expected), "{url}");
        }
        for url in ["srv/stones", "https://example.org/x", "ftp://x/y", "file://%zz", ""] {
            assert!(index_file(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_package_lies_relative_to_its_index() {
        let config = Config {
            name: RepositoryName::new("x").unwrap(),
            url: "/srv/repo".into(),
            priority: 0,
            enabled: true,
        };
        let file = |uri: &str| {
            let location = Location { uri: uri.into(), hash: String::new(), size: 0 };
            let location = Some(location);
            stone_file(&config, &Metadata { location, ..Metadata::default() })
        };
        assert_eq!(file("a/b.stone").unwrap(), Path::new("/srv/repo/a/b.stone"));
        assert_eq!(file("../b.stone").unwrap(), Path::new("/srv/repo/../b.stone"));
        for uri in ["", "/etc/passwd", "http://x/y", "./x", "a\0b"] {
            assert!(file(uri).is_err(), "{uri:?}");
        }
    }
}
