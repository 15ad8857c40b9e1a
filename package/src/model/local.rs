//! Files that no package brings: put into a root, and taken out again.
//!
//! They are kept in the tree of packages as `local/files`, what is in the root, and
//! `local/covered`, what packages have at the same paths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cairn_store::tree::{Content, Entry, Leaf};
use cairn_store::{
    Attributes, BlobRef, BytesSource, Edit, FileSource, Name, State, Store, Transaction, Tree,
    TreeId, TreePath, TreeReader, edit, resolve,
};

use super::{LocalContent, LocalFile};
use crate::trigger::{Thing, Things, put_things, things, undo_things};
use crate::{Error, Result};

/// The local files of a state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Local {
    files: Things,
    covered: Things,
}

const DIRECTORY: &[u8] = b"local";

impl Local {
    /// Reads those of a tree of packages.
    pub(crate) fn load(from: &impl TreeReader, packages: TreeId) -> Result<Self> {
        let part = |name: &str| {
            let path = TreePath::new(format!("local/{name}").as_bytes()).expect("it is a path");
            let entry = resolve(from, packages, &path)?;
            match entry.as_ref().and_then(Entry::as_directory) {
                Some(subtree) => things(from, subtree.id),
                None => Ok(Things::new()),
            }
        };
        Ok(Self { files: part("files")?, covered: part("covered")? })
    }

    /// Takes them out of a root.
    pub(crate) fn take_out(
        &self,
        transaction: &mut Transaction,
        root: TreeId,
        packages: TreeId,
    ) -> Result<(TreeId, Vec<TreePath>)> {
        undo_things(transaction, root, packages, &self.files, &self.covered)
    }

    /// Puts them into a root, over whatever packages have there; returns the root
    /// and the tree of packages that knows of them.
    pub(crate) fn put_in(
        self,
        transaction: &mut Transaction,
        root: TreeId,
        packages: TreeId,
    ) -> Result<(TreeId, TreeId)> {
        let mut covered = Things::new();
        let mut edits = BTreeMap::new();
        for (path, thing) in &self.files {
            match resolve(transaction, root, path)? {
                Some(Entry::Leaf(leaf)) => {
                    covered.insert(path.clone(), Thing::Leaf(leaf));
                }
                Some(Entry::Directory(_)) => {
                    return Err(cairn_store::Error::NotADirectory(path.clone()).into());
                }
                None => {}
            }
            if let Thing::Leaf(leaf) = thing {
                edits.insert(path.clone(), Edit::Leaf(leaf.clone()));
            }
        }
        let root = edit(transaction, root, &edits)?;
        let place = TreePath::new(DIRECTORY).expect("it is a path");
        let change = if self.files.is_empty() {
            if resolve(transaction, packages, &place)?.is_none() {
                return Ok((root, packages));
            }
            Edit::Remove
        } else {
            let mut parts = Vec::new();
            for (name, things) in [("covered", &covered), ("files", &self.files)] {
                let id = put_things(transaction, things)?;
                let tree = transaction.read_tree(id)?;
                let entry = transaction.put_subtree(Tree::clone(&tree))?;
                parts.push((Name::new(name.as_bytes()).expect("it is a name"), entry));
            }
            let tree = Tree::new(Attributes::implied_directory(), parts);
            Edit::Tree(transaction.put_tree(tree.expect("the names differ"))?)
        };
        let packages = edit(transaction, packages, &BTreeMap::from([(place, change)]))?;
        Ok((root, packages))
    }

    /// The paths and what is there.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = (&TreePath, &Leaf)> {
        self.files.iter().filter_map(|(path, thing)| match thing {
            Thing::Leaf(leaf) => Some((path, leaf)),
            Thing::Directory(_) => None,
        })
    }
}

/// Takes in the files of a model.
pub(crate) fn put_local(
    transaction: &mut Transaction,
    files: &BTreeMap<TreePath, LocalFile>,
) -> Result<Local> {
    let mut local = Local::default();
    for (path, file) in files {
        let content = match &file.content {
            LocalContent::Bytes(bytes) => Content::File(take_in(transaction, path, bytes)?),
            LocalContent::Source(source) => Content::File(take_in_file(transaction, source)?),
            LocalContent::Link(text) => Content::Symlink(text.as_bytes().into()),
        };
        let is_link = matches!(content, Content::Symlink(_));
        let mode = if is_link { 0o777 } else { file.mode };
        let attributes = Attributes { uid: file.uid, gid: file.gid, ..Attributes::of_root(mode) };
        local.files.insert(path.clone(), Thing::Leaf(Leaf { attributes, content, link: None }));
    }
    Ok(local)
}

fn take_in(transaction: &mut Transaction, path: &TreePath, bytes: &[u8]) -> Result<BlobRef> {
    let name = path.to_string();
    Ok(transaction.ingest(&[BytesSource { name: &name, bytes }], &())?[0])
}

fn take_in_file(transaction: &mut Transaction, path: &Path) -> Result<BlobRef> {
    let failed = |source| Error::Read { path: PathBuf::from(path), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    Ok(transaction.ingest(&[FileSource { path: path.into(), size }], &())?[0])
}

/// The local files of a state, as a model says them.
pub(crate) fn local_files(store: &Store, state: &State) -> Result<BTreeMap<TreePath, LocalFile>> {
    let mut files = BTreeMap::new();
    for (path, leaf) in Local::load(store, state.packages)?.leaves() {
        let content = match &leaf.content {
            Content::File(blob) => LocalContent::Bytes(store.read(blob)?),
            Content::Symlink(text) => {
                LocalContent::Link(String::from_utf8_lossy(text).into_owned())
            }
            _ => continue,
        };
        let Attributes { mode, uid, gid, .. } = leaf.attributes;
        files.insert(path.clone(), LocalFile { content, mode, uid, gid });
    }
    Ok(files)
}
