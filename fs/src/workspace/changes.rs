//! What has changed in a workspace, told.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use cairn_store::host::{Scan, ScannedEntry, ScannedLeaf};
use cairn_store::{
    BlobHasher, BlobKey, BlobRef, Content, Digest, Entry, Scratch, State, Store, Tree, TreeId,
    TreePath, TreeReader, TreeWriter, WorkspaceName, resolve,
};

use super::completion::Completion;
use super::snapshot::{LayerRead, read_layer};
use crate::error::{Error, Result};

/// Files that kept their size are read up to this one, to tell whether their
/// content is another.
const READ_TO_COMPARE: u64 = 1 << 20;

/// The changes of a workspace: a tree to compare with that of a state.
#[derive(Debug)]
pub struct Changes {
    /// The state that the changes are told against: the last one that was
    /// published from the layer, else the one below it.
    pub reference: State,
    /// What the workspace shows. Files whose content is another for certain are in
    /// it with their size, but with no true name of their content.
    pub tree: TreeId,
    store: Store,
    trees: Scratch<Store>,
    layer: Option<Own>,
}

/// Where contents are that are not in the store.
#[derive(Debug)]
struct Own {
    scan: Scan,
    /// The files of the layer that have their content there.
    files: BTreeSet<TreePath>,
    completion: Completion,
}

impl TreeReader for Changes {
    fn read_tree(&self, id: TreeId) -> cairn_store::Result<Arc<Tree>> {
        self.trees.read_tree(id)
    }
}

impl Changes {
    /// The content of the file that the workspace shows at `path` with `blob`: no more of it
    /// than it had when its layer was read, and nothing if it went since.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn read(&self, path: &TreePath, blob: &BlobRef) -> Result<Vec<u8>> {
        let Some(own) = &self.layer else { return Ok(self.store.read(blob)?) };
        if !own.files.contains(path) {
            let completing = own.completion.content(blob.key);
            return Ok(completing.map_or_else(|| self.store.read(blob), |it| Ok(it.to_vec()))?);
        }
        let mut bytes = Vec::new();
        let read = open_if_there(&own.scan, path)
            .and_then(|file| file.map_or(Ok(0), |it| it.take(blob.size).read_to_end(&mut bytes)));
        read.map_err(|source| Error::Layer { path: path_on_disk(&own.scan, path), source })?;
        Ok(bytes)
    }
}

/// What has changed in a workspace, whoever uses it just now.
///
/// Costs a walk of its layer. Of files only those are read of which it is not
/// clear from their size and time whether they changed: that have their time as
/// before, or another one and at most 1 MiB.
///
/// # Errors
/// [`cairn_store::Error::UnknownWorkspace`], [`Error::DamagedLayer`].
pub fn changes(store: &Store, name: &WorkspaceName) -> Result<Changes> {
    let record = store.workspace(name)?;
    let reference = record.reference().clone();
    let mut trees = Scratch::new(store.clone());
    let Some(LayerRead { mut layer, completion }) = read_layer(store, name, &record, &())? else {
        let (store, tree) = (store.clone(), record.base.tree);
        return Ok(Changes { reference, tree, store, trees, layer: None });
    };
    let files = name_contents(&mut layer.scan, store, reference.tree)?;
    for tree in completion.trees() {
        trees.write_tree(tree)?;
    }
    let tree = layer.put(&mut trees, record.base.tree)?;
    let layer = Some(Own { scan: layer.scan, files, completion });
    Ok(Changes { reference, tree, store: store.clone(), trees, layer })
}

/// Gives each file of a layer a content to compare with; returns which files these are.
fn name_contents(scan: &mut Scan, store: &Store, reference: TreeId) -> Result<BTreeSet<TreePath>> {
    let (mut named, mut paths) = (Vec::new(), BTreeSet::new());
    let mut stack = vec![(0, TreePath::root())];
    while let Some((number, path)) = stack.pop() {
        let Some(directory) = scan.directory(number) else { continue };
        for (at, (name, entry)) in directory.entries.iter().enumerate() {
            let path = path.join(name);
            match entry {
                ScannedEntry::Directory(number) => stack.push((*number, path)),
                ScannedEntry::Leaf(leaf) if leaf.content.is_none() => {
                    let before = resolve(store, reference, &path)?;
                    let blob = content_to_compare(scan, &path, leaf, before.as_ref());
                    let blob = blob.map_err(|source| Error::Layer {
                        path: path_on_disk(scan, &path),
                        source,
                    })?;
                    named.push((number, at, Content::File(blob)));
                    paths.insert(path);
                }
                ScannedEntry::Leaf(_) => {}
            }
        }
    }
    for (number, at, content) in named {
        scan.set_content(number, at, content);
    }
    Ok(paths)
}

fn content_to_compare(
    scan: &Scan,
    path: &TreePath,
    leaf: &ScannedLeaf,
    before: Option<&Entry>,
) -> io::Result<BlobRef> {
    let size = leaf.status.size;
    let unread =
        BlobRef { key: BlobKey::from_bytes([0; 16]), digest: Digest::from_bytes([0; 32]), size };
    let before = before.and_then(Entry::as_leaf);
    let is_unclear = before.is_some_and(|before| {
        let keeps_time = before.attributes.mtime == leaf.attributes.mtime;
        before.blob().is_some_and(|blob| blob.size == size)
            && (keeps_time || size <= READ_TO_COMPARE)
    });
    if !is_unclear {
        return Ok(unread);
    }
    let Some(mut file) = open_if_there(scan, path)? else { return Ok(unread) };
    let (mut hasher, mut buf) = (BlobHasher::default(), vec![0; 128 << 10]);
    loop {
        match file.read(&mut buf)? {
            0 => return Ok(hasher.finish()),
            len => hasher.update(&buf[..len]),
        }
    }
}

/// A file of a layer, unless it went since that was read, as it might have a moment later.
fn open_if_there(scan: &Scan, path: &TreePath) -> io::Result<Option<File>> {
    match scan.open_file(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn path_on_disk(scan: &Scan, path: &TreePath) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let names = path.names().iter().map(|name| std::ffi::OsStr::from_bytes(name));
    scan.path().iter().chain(names).collect()
}
