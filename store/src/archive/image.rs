//! An image in an OCI layout, read layer by layer.
//!
//! Format: OCI image specification 1.0, also with the media types of Docker.
//! Every blob is verified by its digest; a layer that differs fails the import,
//! before anything is committed.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::compression::Compression;
use crate::error::{Error, Result};

/// The most bytes of a document.
const MAX_DOCUMENT_LEN: u64 = 4 << 20;
/// How deep indices may lie in each other.
const MAX_INDICES: usize = 4;

/// The layers of an image, the lowest first.
#[derive(Debug)]
pub struct Image {
    blobs: PathBuf,
    layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutFile {
    image_layout_version: String,
}

impl Image {
    /// Opens the image called `reference` in the layout at `path`; without a name
    /// there must be only one. Of an image for several machines the one for
    /// `architecture` (as Go names it) and Linux is taken.
    ///
    /// # Errors
    /// [`Error::Image`] says what is missing or wrong.
    pub fn open(path: &Path, reference: Option<&str>, architecture: &str) -> Result<Self> {
        let invalid = |problem: &str| Error::Image { path: path.into(), problem: problem.into() };
        let layout: LayoutFile = read_document(&path.join("oci-layout"), None)?;
        if !layout.image_layout_version.starts_with("1.") {
            return Err(invalid("its layout has an unknown version"));
        }
        let blobs = path.join("blobs/sha256");
        let index: Index = read_document(&path.join("index.json"), None)?;
        let name_of = |descriptor: &Descriptor| {
            descriptor.annotations.get("org.opencontainers.image.ref.name").cloned()
        };
        let mut candidates = index.manifests;
        if let Some(reference) = reference {
            candidates.retain(|it| name_of(it).as_deref() == Some(reference));
        }
        for _ in 0..MAX_INDICES {
            if candidates.len() > 1 {
                candidates.retain(|it| {
                    it.platform.as_ref().is_some_and(|platform| {
                        platform.os == "linux" && platform.architecture == architecture
                    })
                });
                if candidates.len() != 1 {
                    return Err(invalid("it has several images; name one"));
                }
            }
            let Some(chosen) = candidates.pop() else {
                return Err(invalid("it has no such image"));
            };
            let blob = blob_path(&blobs, &chosen.digest).ok_or_else(|| invalid(BAD_DIGEST))?;
            let is_index =
                chosen.media_type.contains("index") || chosen.media_type.contains("manifest.list");
            if is_index {
                candidates = read_document::<Index>(&blob, Some(&chosen.digest))?.manifests;
                continue;
            }
            let manifest: Manifest = read_document(&blob, Some(&chosen.digest))?;
            if manifest.layers.iter().any(|layer| blob_path(&blobs, &layer.digest).is_none()) {
                return Err(invalid(BAD_DIGEST));
            }
            return Ok(Self { blobs, layers: manifest.layers });
        }
        Err(invalid("its indices lie too deep in each other"))
    }

    /// The plain bytes of each layer, of at most `limit` bytes each.
    pub fn layers(&self, limit: u64) -> impl Iterator<Item = Result<Box<dyn Read>>> {
        self.layers.iter().map(move |layer| {
            let path = blob_path(&self.blobs, &layer.digest).expect("it was checked");
            let failed = |source| Error::Source { name: path.display().to_string(), source };
            let file = File::open(&path).map_err(failed)?;
            let mut file = BufReader::with_capacity(256 << 10, Verified::new(file, layer));
            let begin = io::BufRead::fill_buf(&mut file).map_err(failed)?;
            let compression = Compression::of_magic(begin);
            compression.reader(file, limit).map_err(failed)
        })
    }
}

const BAD_DIGEST: &str = "it has a digest that is not SHA-256";

/// Where a blob is; `None` for what is no digest, so that no name leads out of
/// the layout.
fn blob_path(blobs: &Path, digest: &str) -> Option<PathBuf> {
    let hex = digest.strip_prefix("sha256:")?;
    let is_hex =
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| blobs.join(hex))
}

fn read_document<T: DeserializeOwned>(path: &Path, digest: Option<&str>) -> Result<T> {
    let invalid = |problem: String| Error::Image { path: path.into(), problem };
    let failed = |source| Error::Source { name: path.display().to_string(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_DOCUMENT_LEN + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_DOCUMENT_LEN {
        return Err(invalid("it is too long".into()));
    }
    if digest.is_some_and(|digest| digest != hex(Sha256::digest(&bytes).as_ref())) {
        return Err(invalid("it is not what its digest says".into()));
    }
    serde_json::from_slice(&bytes).map_err(|err| invalid(format!("it is malformed: {err}")))
}

fn hex(hash: &[u8]) -> String {
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// Verifies length and digest when the end is reached.
struct Verified {
    file: File,
    hasher: Option<Sha256>,
    len: u64,
    digest: String,
    size: u64,
}

impl Verified {
    fn new(file: File, layer: &Descriptor) -> Self {
        let (digest, size) = (layer.digest.clone(), layer.size);
        Self { file, hasher: Some(Sha256::new()), len: 0, digest, size }
    }
}

impl Read for Verified {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read(buf)?;
        self.len += len as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..len]);
        }
        if len == 0
            && !buf.is_empty()
            && let Some(hasher) = self.hasher.take()
            && (self.len != self.size || hex(hasher.finalize().as_ref()) != self.digest)
        {
            let problem = "the layer is not what its digest says";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(len)
    }
}
