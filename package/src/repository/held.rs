//! What is known of the index that was taken over last.
//!
//! [`Held`] lies in the cache and may vanish with it. [`Seen`] lies beside the
//! configuration: it is what keeps an older index from being taken over.

use std::fs;
use std::path::{Path, PathBuf};

use cairn_store::Digest;
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::http::Validators;
use super::key::PublicKey;
use super::signature::{Identity, Statement};
use crate::catalog::Stamp;

/// What is known of an index that lies in the cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Held {
    /// The configuration's source when it was taken over.
    pub(super) source: String,
    /// Of the bytes of the index.
    pub(super) digest: Digest,
    /// The file that has them.
    pub(super) stamp: Stamp,
    /// Where it came from.
    pub(super) url: String,
    /// Where it is below each place of the repository, if a root index says
    /// so.
    pub(super) path: Option<String>,
    pub(super) validators: Validators,
    /// When a server said last that it is the newest one, in seconds since 1970.
    pub(super) checked: u64,
    /// When it was taken over.
    pub(super) updated: u64,
    pub(super) packages: usize,
    pub(super) signed: Option<Signed>,
}

/// What the signature of an index said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Signed {
    pub(super) key: String,
    pub(super) sequence: u64,
    pub(super) signed: u64,
    pub(super) expires: Option<u64>,
}

impl Signed {
    pub(super) fn new(statement: &Statement, key: &PublicKey) -> Self {
        let &Statement { sequence, signed, expires, .. } = statement;
        Self { key: key.to_string(), sequence, signed, expires }
    }
}

impl Held {
    /// The file that says which index is in use: whoever replaces it takes over
    /// another one.
    pub(super) fn path(directory: &Path) -> PathBuf {
        directory.join("in-use.json")
    }

    /// Reads what is known of the index in use; nothing if it is gone or
    /// changed, or if it is not what the configuration wants.
    pub(super) fn read(directory: &Path, config: &Config) -> Option<Self> {
        let held: Self = serde_json::from_slice(&fs::read(Self::path(directory)).ok()?).ok()?;
        let is_it = Stamp::of(&held.index(directory)).ok()? == held.stamp;
        let is_wanted = held.source == config.source.to_string() && held.is_believed(config);
        (is_it && is_wanted).then_some(held)
    }

    fn is_believed(&self, config: &Config) -> bool {
        let is_key = |signed: &Signed| config.keys.iter().any(|key| key.to_string() == signed.key);
        !config.is_pinned() || self.signed.as_ref().is_some_and(is_key)
    }

    /// The index.
    pub(super) fn index(&self, directory: &Path) -> PathBuf {
        file_of(directory, self.digest, "index")
    }

    /// Its packages, to be found one by one.
    pub(super) fn catalog(&self, directory: &Path) -> PathBuf {
        file_of(directory, self.digest, "catalog")
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("it has no odd keys")
    }
}

/// A file of the index with this digest.
pub(super) fn file_of(directory: &Path, digest: Digest, suffix: &str) -> PathBuf {
    directory.join(format!("{}.{suffix}", &digest.to_string()[..16]))
}

/// The newest signed index that was ever taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) repository: String,
    pub(super) sequence: u64,
    /// Of the bytes of the index.
    pub(super) digest: Digest,
}

impl Seen {
    pub(super) fn identity(&self) -> Option<Identity> {
        self.repository.parse().ok()
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("it has no odd keys")
    }
}
