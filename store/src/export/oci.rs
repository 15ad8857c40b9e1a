//! A tree as an OCI image layout: one image, of one layer or several.
//!
//! Format: OCI image specification 1.0. Nothing of the moment or the machine gets
//! in, so that the same tree with the same options has the same digest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::directory::claim;
use super::layers::Layers;
use super::tar::Archive;
use super::{ArchiveNames, ExportProgress, Exported, Packing, ParallelWriter};
use crate::error::{Error, Result};
use crate::hash::TreeId;
use crate::store::Store;

/// What an image says of itself.
#[derive(Clone, Debug)]
pub struct ImageOptions {
    /// Name of the image in the layout, such as `latest`.
    pub reference: Option<String>,
    /// How the layer is compressed.
    pub packing: Packing,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// How programs run in it.
    pub config: ImageConfig,
    /// Trees that the root was composed of, by groups: each has a layer of what the root has
    /// exactly like that, below the layer of everything else.
    pub groups: Vec<Vec<TreeId>>,
}

/// How programs run in an image; empty values are left out.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the OCI image specification has the words")]
pub struct ImageConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

/// Writes a tree as an image into the layout `target`, which must be empty or
/// not exist; returns the digest of the manifest as well.
///
/// When this returns, everything survives a power cut; after an error, what was
/// made stays.
///
/// # Errors
/// [`Error::OccupiedTarget`] and [`Error::Target`].
pub fn export_image(
    store: &Store,
    tree: TreeId,
    target: &Path,
    options: &ImageOptions,
    progress: &dyn ExportProgress,
) -> Result<(Exported, String)> {
    claim(target)?;
    let blobs = target.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(failed(&blobs))?;
    let layout = Layout { path: target, blobs };

    let layers = Layers { store, root: tree, groups: &options.groups };
    let mut exported = Exported::default();
    let (mut diff_ids, mut descriptors) = (Vec::new(), Vec::new());
    for number in (0..options.groups.len()).map(Some).chain([None]) {
        let (one, diff_id, layer) = layout.layer(&layers, number, options.packing, progress)?;
        exported.entries += one.entries;
        exported.bytes += one.bytes;
        exported.left_out.extend(one.left_out);
        diff_ids.push(diff_id);
        descriptors.push(layer);
    }
    let history = vec![serde_json::json!({ "created_by": "cairn export" }); diff_ids.len()];
    let config = serde_json::json!({
        "architecture": options.architecture,
        "os": "linux",
        "config": options.config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    });
    let config = layout.document(CONFIG, &config)?;
    let manifest = layout.document(
        MANIFEST,
        &serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": descriptors,
        }),
    )?;
    let digest = manifest.digest.clone();
    let name = options.reference.iter().map(|name| ("org.opencontainers.image.ref.name", name));
    let annotations = name.map(|(key, name)| (key, name.clone())).collect();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [Descriptor { annotations, ..manifest }],
    });
    layout.write("index.json", &index)?;
    // What makes it a layout comes last.
    layout.write("oci-layout", &serde_json::json!({ "imageLayoutVersion": "1.0.0" }))?;
    let directory = File::open(target).map_err(failed(target))?;
    crate::sys::syncfs(&directory).map_err(failed(target))?;
    Ok((exported, digest))
}

struct Layout<'a> {
    path: &'a Path,
    blobs: PathBuf,
}

impl Layout<'_> {
    /// Writes the layer of a group, or the last one; returns the digest of its plain bytes as
    /// well.
    fn layer(
        &self,
        layers: &Layers<'_>,
        number: Option<usize>,
        packing: Packing,
        progress: &dyn ExportProgress,
    ) -> Result<(Exported, String, Descriptor)> {
        let temporary = self.blobs.join("layer.new");
        let file = File::create(&temporary).map_err(failed(&temporary))?;
        let packed = Hashed::new(BufWriter::with_capacity(1 << 20, file));
        let mut plain = Hashed::new(ParallelWriter::new(packed, packing));
        let mut archive = Archive::new(layers.store, ArchiveNames::Bare, &mut plain, progress);
        match number {
            Some(number) => layers.group(number, &mut archive)?,
            None => layers.rest(&mut archive)?,
        }
        let exported = archive.finish()?;
        let (diff_id, _, packed) = plain.finish();
        let packed = packed.finish().map_err(failed(&temporary))?;
        let (digest, size, mut to) = packed.finish();
        to.flush().map_err(failed(&temporary))?;
        self.name_blob(&temporary, &digest)?;
        let suffix = match packing {
            Packing::None => "",
            Packing::Gzip => "+gzip",
            Packing::Zstd => "+zstd",
        };
        let media_type = format!("{LAYER}{suffix}");
        let annotations = BTreeMap::new();
        Ok((exported, diff_id, Descriptor { media_type, digest, size, annotations }))
    }

    fn document(&self, media_type: &str, value: &serde_json::Value) -> Result<Descriptor> {
        let bytes = serde_json::to_vec(value).expect("the value has no odd keys");
        let digest = digest_of(Sha256::digest(&bytes).as_ref());
        let temporary = self.blobs.join("document.new");
        fs::write(&temporary, &bytes).map_err(failed(&temporary))?;
        self.name_blob(&temporary, &digest)?;
        let (media_type, size) = (media_type.to_owned(), bytes.len() as u64);
        Ok(Descriptor { media_type, digest, size, annotations: BTreeMap::new() })
    }

    fn name_blob(&self, temporary: &Path, digest: &str) -> Result<()> {
        let name = digest.strip_prefix("sha256:").unwrap_or(digest);
        let path = self.blobs.join(name);
        fs::rename(temporary, &path).map_err(failed(&path))
    }

    fn write(&self, name: &str, value: &serde_json::Value) -> Result<()> {
        let path = self.path.join(name);
        let bytes = serde_json::to_vec(value).expect("the value has no odd keys");
        fs::write(&path, bytes).map_err(failed(&path))
    }
}

/// Hashes and counts what is written.
struct Hashed<W> {
    to: W,
    hasher: Sha256,
    size: u64,
}

impl<W> Hashed<W> {
    fn new(to: W) -> Self {
        Self { to, hasher: Sha256::new(), size: 0 }
    }

    fn finish(self) -> (String, u64, W) {
        (digest_of(self.hasher.finalize().as_ref()), self.size, self.to)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.to.write(bytes)?;
        self.hasher.update(&bytes[..len]);
        self.size += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn digest_of(hash: &[u8]) -> String {
    use std::fmt::Write;
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes it");
        text
    })
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let name = path.display().to_string();
    move |source| Error::Target { name: name.clone(), source }
}
