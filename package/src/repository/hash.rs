//! Whether bytes are those that an index announces.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use cairn_store::Digest;
use sha2::{Digest as _, Sha256};

use super::config::RepositoryName;
use super::error::{Error, Result};
use crate::Location;
use crate::stone::Stamp;

/// What an index says of the bytes of a stone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    pub(super) size: u64,
    /// SHA-256 as 64 lower-case hexadecimal digits.
    pub(super) hash: &'a str,
    /// BLAKE3, in indices of Cairn.
    pub(super) digest: Option<Digest>,
}

impl<'a> From<&'a Location> for Expected<'a> {
    fn from(location: &'a Location) -> Self {
        Self { size: location.size, hash: &location.hash, digest: location.digest }
    }
}

/// Hashes bytes in all ways that indices know.
#[derive(Clone, Default)]
pub(super) struct Hasher {
    sha256: Sha256,
    blake3: blake3::Hasher,
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.blake3.update(bytes);
    }

    pub(super) fn check(self, expected: &Expected<'_>) -> Result<(), &'static str> {
        let (hash, digest) = self.finish();
        if hash != expected.hash {
            return Err("its SHA-256 differs");
        }
        match expected.digest {
            Some(expected) if expected != digest => Err("its BLAKE3 differs"),
            _ => Ok(()),
        }
    }

    /// SHA-256 as 64 lower-case hexadecimal digits, and BLAKE3.
    pub(super) fn finish(self) -> (String, Digest) {
        let hash = self.sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        (hash, Digest::from_bytes(*self.blake3.finalize().as_bytes()))
    }

    pub(super) fn read(&mut self, from: &mut impl Read) -> io::Result<()> {
        let mut buf = vec![0; 256 << 10];
        loop {
            match from.read(&mut buf)? {
                0 => return Ok(()),
                len => self.update(&buf[..len]),
            }
        }
    }
}

/// Whether a file of this machine is what an index announces.
pub(super) fn is(expected: &Expected<'_>, path: &Path) -> bool {
    compare(expected, path).is_ok_and(|compared| compared.is_ok())
}

/// Compares a file of this machine with what an index says of it; returns how the kernel
/// knew it before that.
pub(super) fn verify(
    repository: &RepositoryName,
    expected: &Expected<'_>,
    path: &Path,
) -> Result<Stamp> {
    let mismatch = |problem| Error::Mismatch {
        repository: repository.clone(),
        at: path.display().to_string(),
        problem,
    };
    compare(expected, path).map_err(Error::io(path))?.map_err(mismatch)
}

fn compare(expected: &Expected<'_>, path: &Path) -> io::Result<Result<Stamp, &'static str>> {
    let mut file = File::open(path)?;
    let stamp = Stamp::of(&file)?;
    if file.metadata()?.len() != expected.size {
        return Ok(Err("its size differs"));
    }
    let mut hasher = Hasher::default();
    hasher.read(&mut file)?;
    Ok(hasher.check(expected).map(|()| stamp))
}
