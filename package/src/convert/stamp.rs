//! Recognises a stone that a conversion would make again.
//!
//! Each stone has an attribute that hashes everything that decides its bytes.
//! A stone with the right stamp is kept only if all of it can be read: an
//! interrupted copy or a damaged disk must not survive a repeated conversion.

use std::num::NonZeroUsize;
use std::path::Path;

use cairn_store::Digest;

use super::deb::Deb;
use super::error::Problem;
use crate::metadata::Metadata;
use crate::stone::{Attribute, ContentOptions, Package};

/// The key of the attribute.
const KEY: &[u8] = b"cairn.converted";

/// Grows when the same package becomes another stone than before.
const REVISION: u32 = 2;

/// Hashes the package, the settings that decide the stone's bytes, and what
/// the `control` file became with all that is known of other packages.
pub(super) fn stamp(
    deb: &Deb,
    metadata: &Metadata,
    settings: (i32, bool),
) -> Result<Attribute, Problem> {
    let zstd = zstd::zstd_safe::version_number();
    let decides = (REVISION, zstd, settings, deb.digest()?, metadata);
    let text = serde_json::to_vec(&decides).expect("numbers, texts and sets of texts");
    let value = Digest::of(&text).as_bytes().as_slice().into();
    Ok(Attribute { key: KEY.into(), value })
}

/// A stone that is there already.
pub(super) struct There {
    pub(super) metadata: Metadata,
    pub(super) stone_size: u64,
    pub(super) plain_size: u64,
}

/// Reads the stone at `path`; `None` if there is none, if it has another stamp,
/// or if anything about it is damaged.
pub(super) fn find(
    path: &Path,
    stamp: &Attribute,
    directory: &Path,
    threads: NonZeroUsize,
) -> Option<There> {
    let stone_size = path.metadata().ok()?.len();
    let mut package = Package::open(path).ok()?;
    if !package.attributes.contains(stamp) || !package.warnings.is_empty() {
        return None;
    }
    package.content(&ContentOptions { memory: 16 << 20, directory, threads }).ok()?;
    let plain_size = package.content_size();
    Some(There { metadata: package.metadata, stone_size, plain_size })
}
