//! From stones to trees in a store.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufReader, Read};
use std::num::NonZeroUsize;
use std::path::Path;

use cairn_store::tree::{Content as LeafContent, Entry, HardLink, Leaf, LinkGroup};
use cairn_store::{
    Attributes, BlobKey, BlobRef, IngestProgress, Name, Source, Timestamp, Transaction, Tree,
    TreeId, TreePath,
};

use crate::stone::{
    self, Blob, Content, ContentOptions, Layout, LayoutContent, Package, ProvedStone,
};
use crate::{Error, Metadata, Result};

/// A package whose files are in the store.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// What the stone says.
    pub metadata: Metadata,
    /// Its tree, from the root of the system.
    pub files: TreeId,
    /// Devices without a number, which are left out.
    pub left_out: Vec<TreePath>,
}

/// Contents of several packages are taken in together up to this many bytes.
const BATCH: u64 = 64 << 20;
/// Contents up to this size are decompressed in memory.
const MEMORY: u64 = 256 << 20;

/// Takes the files of stones into the store; returns the packages in the same
/// order.
///
/// # Errors
/// [`Error::Stone`] names the stone that could not be read, or is not what was verified.
pub fn unpack(
    transaction: &mut Transaction,
    stones: &[ProvedStone],
    progress: &dyn IngestProgress,
) -> Result<Vec<Unpacked>> {
    let directory = transaction.store().path().join("cache");
    let mut unpacked = Vec::with_capacity(stones.len());
    let mut batch = Vec::new();
    let mut bytes = 0;
    for stone in stones {
        let failed = |source| Error::Stone { path: stone.path().into(), source };
        let file = stone.open().map_err(failed)?;
        let read = file.try_clone().map_err(|source| failed(stone::Error::Read(source)))?;
        let mut package = Package::read(BufReader::new(read)).map_err(failed)?;
        let content = package.content(&options(&directory)).map_err(failed)?;
        stone.check(&file).map_err(failed)?;
        bytes += package.content_size();
        batch.push((package, content));
        if bytes >= BATCH {
            take_in(transaction, std::mem::take(&mut batch), progress, &mut unpacked)?;
            bytes = 0;
        }
    }
    take_in(transaction, batch, progress, &mut unpacked)?;
    Ok(unpacked)
}

fn options(directory: &Path) -> ContentOptions<'_> {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    ContentOptions { memory: MEMORY, directory, threads }
}

/// One content of a stone, which has hashed it.
struct StoneFile<'a> {
    path: &'a TreePath,
    blob: Blob<'a>,
}

impl Source for StoneFile<'_> {
    fn name(&self) -> Cow<'_, str> {
        self.path.to_string().into()
    }

    fn size(&self) -> u64 {
        self.blob.id().size
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.blob.reader()))
    }

    fn identity(&self) -> Option<BlobRef> {
        Some(self.blob.id())
    }
}

fn take_in<R>(
    transaction: &mut Transaction,
    batch: Vec<(Package<R>, Content)>,
    progress: &dyn IngestProgress,
    unpacked: &mut Vec<Unpacked>,
) -> Result<()> {
    let mut sources = Vec::new();
    for (package, content) in &batch {
        let mut met = std::collections::HashSet::new();
        // In the order of the paths, so that neighbours lie together.
        let mut layout: Vec<&Layout> = package.layout.iter().collect();
        layout.sort_by(|left, right| left.path.cmp(&right.path));
        for entry in layout {
            let LayoutContent::Regular(key) = &entry.content else { continue };
            if met.insert(key)
                && let Some(blob) = content.get(key)
            {
                sources.push(StoneFile { path: &entry.path, blob });
            }
        }
    }
    transaction.ingest(&sources, progress)?;
    drop(sources);
    for (package, content) in batch {
        let blobs: HashMap<BlobKey, BlobRef> =
            content.blobs().map(|blob| (blob.id().key, blob.id())).collect();
        let mut left_out = Vec::new();
        let files = put_files(transaction, &package.layout, &blobs, &mut left_out)?;
        unpacked.push(Unpacked { metadata: package.metadata, files, left_out });
    }
    Ok(())
}

/// A directory that is being put together.
#[derive(Default)]
struct Draft {
    attributes: Option<Attributes>,
    leaves: Vec<(Name, Leaf)>,
    below: BTreeMap<Name, Draft>,
}

impl Draft {
    fn at(&mut self, names: &[Name]) -> &mut Self {
        names.iter().fold(self, |draft, name| draft.below.entry(name.clone()).or_default())
    }

    fn put(self, transaction: &mut Transaction) -> Result<Tree> {
        let mut entries: Vec<(Name, Entry)> =
            self.leaves.into_iter().map(|(name, leaf)| (name, Entry::Leaf(leaf))).collect();
        for (name, draft) in self.below {
            let tree = draft.put(transaction)?;
            entries.push((name, transaction.put_subtree(tree)?));
        }
        let attributes = self.attributes.unwrap_or(Attributes::implied_directory());
        Tree::new(attributes, entries).map_err(|name| Error::RepeatedName { name })
    }
}

/// Adds the tree of a package.
fn put_files(
    transaction: &mut Transaction,
    layout: &[Layout],
    blobs: &HashMap<BlobKey, BlobRef>,
    left_out: &mut Vec<TreePath>,
) -> Result<TreeId> {
    let mut groups: HashMap<u32, (Vec<u8>, u32)> = HashMap::new();
    for entry in layout {
        if let Some(group) = entry.extra.link {
            let path = entry.path.to_bytes();
            let (first, count) = groups.entry(group).or_insert_with(|| (path.clone(), 0));
            *count += 1;
            if path < *first {
                *first = path;
            }
        }
    }
    let mut root = Draft::default();
    for entry in layout {
        let attributes = Attributes {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.extra.mtime.unwrap_or(Timestamp::default()),
            xattrs: entry.extra.xattrs.clone(),
        };
        let content = match (&entry.content, entry.extra.device) {
            (LayoutContent::Directory, _) => {
                // Times of directories would make a tree depend on which of the
                // packages that share them came first.
                let mtime = Timestamp::default();
                root.at(entry.path.names()).attributes = Some(Attributes { mtime, ..attributes });
                continue;
            }
            (LayoutContent::Regular(key), _) => {
                let missing =
                    || stone::Error::MissingContent { path: entry.path.clone(), key: *key };
                LeafContent::File(*blobs.get(key).ok_or_else(missing)?)
            }
            (LayoutContent::Symlink(target), _) => LeafContent::Symlink(target.clone()),
            (LayoutContent::CharDevice, Some(device)) => LeafContent::CharDevice(device),
            (LayoutContent::BlockDevice, Some(device)) => LeafContent::BlockDevice(device),
            (LayoutContent::CharDevice | LayoutContent::BlockDevice, None) => {
                left_out.push(entry.path.clone());
                continue;
            }
            (LayoutContent::Fifo, _) => LeafContent::Fifo,
            (LayoutContent::Socket, _) => LeafContent::Socket,
        };
        let is_symlink = matches!(content, LeafContent::Symlink(_));
        let mode = if is_symlink { 0o777 } else { attributes.mode };
        let link = entry.extra.link.and_then(|group| {
            let (first, count) = &groups[&group];
            (*count > 1).then(|| HardLink { group: LinkGroup::of(first), count: *count })
        });
        let leaf = Leaf { attributes: Attributes { mode, ..attributes }, content, link };
        let Some((parent, name)) = entry.path.split_last() else { continue };
        root.at(parent.names()).leaves.push((name.clone(), leaf));
    }
    let root = root.put(transaction)?;
    Ok(transaction.put_tree(root)?)
}
