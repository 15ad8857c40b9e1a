//! A tree as a tar archive.

use std::collections::HashMap;
use std::io::{self, Write};

use super::{ExportProgress, Exported};
use crate::archive::write::{Header, HeaderKind, can_hold, padding, write_end, write_header};
use crate::edit::TreeReader;
use crate::error::{Error, Result};
use crate::hash::{BlobRef, TreeId};
use crate::name::TreePath;
use crate::store::Store;
use crate::tree::{Attributes, Content, Entry, Leaf, LinkGroup};

/// How an archive names its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveNames {
    /// `./usr/bin`, as `tar -C DIR .` does.
    Dotted,
    /// `usr/bin`, as layers of OCI images do.
    Bare,
}

/// Writes a tree as a tar archive: the same tree as the same bytes.
///
/// Entries are sorted by path, a directory before what lies in it. Sockets are
/// left out, since no tar archive can hold them, and extended attributes with an
/// equals sign in the name.
///
/// # Errors
/// [`Error::Target`] when `to` does not take the bytes.
pub fn export_archive(
    store: &Store,
    tree: TreeId,
    names: ArchiveNames,
    to: &mut impl Write,
    progress: &dyn ExportProgress,
) -> Result<Exported> {
    let mut archive = Archive::new(store, names, to, progress);
    archive.directory(tree, &mut TreePath::root())?;
    archive.finish()
}

/// An archive that is being written.
pub(super) struct Archive<'a, W> {
    store: &'a Store,
    names: ArchiveNames,
    to: &'a mut W,
    progress: &'a dyn ExportProgress,
    /// The path under which a file is in the archive.
    links: HashMap<LinkGroup, Vec<u8>>,
    done: Exported,
}

impl<'a, W: Write> Archive<'a, W> {
    pub(super) fn new(
        store: &'a Store,
        names: ArchiveNames,
        to: &'a mut W,
        progress: &'a dyn ExportProgress,
    ) -> Self {
        Self { store, names, to, progress, links: HashMap::new(), done: Exported::default() }
    }

    /// Writes what stands at the end.
    pub(super) fn finish(self) -> Result<Exported> {
        write_end(self.to).map_err(failed)?;
        Ok(self.done)
    }

    /// Writes a directory without what lies in it.
    pub(super) fn directory_entry(
        &mut self,
        path: &TreePath,
        attributes: &Attributes,
    ) -> Result<()> {
        if self.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let name = self.name(path);
        self.note_lost(path, &attributes.xattrs);
        let header = Header { path: &name, attributes, kind: HeaderKind::Directory };
        write_header(self.to, &header).map_err(failed)?;
        if !path.names().is_empty() {
            self.done.entries += 1;
            self.progress.advance(1, 0);
        }
        Ok(())
    }

    fn directory(&mut self, id: TreeId, path: &mut TreePath) -> Result<()> {
        let tree = self.store.read_tree(id)?;
        self.directory_entry(path, &tree.attributes)?;
        for (name, entry) in tree.entries() {
            path.push(name.clone());
            match entry {
                Entry::Directory(subtree) => self.directory(subtree.id, path)?,
                Entry::Leaf(leaf) => self.leaf(leaf, path)?,
            }
            path.pop();
        }
        Ok(())
    }

    /// Writes anything else.
    pub(super) fn leaf(&mut self, leaf: &Leaf, path: &TreePath) -> Result<()> {
        let name = self.name(path);
        let first = leaf.link.and_then(|link| self.links.get(&link.group));
        let kind = match (first, &leaf.content) {
            (Some(first), _) => HeaderKind::HardLink(first),
            (None, Content::File(blob)) => HeaderKind::File(blob.size),
            (None, Content::Symlink(text)) => HeaderKind::Symlink(text),
            (None, Content::CharDevice(device)) => HeaderKind::CharDevice(*device),
            (None, Content::BlockDevice(device)) => HeaderKind::BlockDevice(*device),
            (None, Content::Fifo) => HeaderKind::Fifo,
            (None, Content::Socket) => {
                let reason = "no archive can hold a socket";
                self.done.left_out.push((path.clone(), reason));
                return Ok(());
            }
        };
        let is_first = first.is_none();
        let header = Header { path: &name, attributes: &leaf.attributes, kind };
        write_header(self.to, &header).map_err(failed)?;
        let mut bytes = 0;
        if is_first {
            self.note_lost(path, &leaf.attributes.xattrs);
            if let Some(link) = leaf.link {
                self.links.insert(link.group, name);
            }
            if let Some(blob) = leaf.blob() {
                self.content(blob)?;
                bytes = blob.size;
            }
        }
        self.done.entries += 1;
        self.done.bytes += bytes;
        self.progress.advance(1, bytes);
        Ok(())
    }

    fn content(&mut self, blob: &BlobRef) -> Result<()> {
        self.store.write_to(blob, |piece| {
            if self.progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            self.to.write_all(piece).map_err(failed)
        })?;
        self.to.write_all(padding(blob.size)).map_err(failed)
    }

    fn name(&self, path: &TreePath) -> Vec<u8> {
        let bytes = path.to_bytes();
        match (self.names, &bytes[1..]) {
            (_, []) => b".".to_vec(),
            (ArchiveNames::Bare, bare) => bare.to_vec(),
            (ArchiveNames::Dotted, _) => [b".", &bytes[..]].concat(),
        }
    }

    fn note_lost(&mut self, path: &TreePath, xattrs: &[crate::Xattr]) {
        if xattrs.iter().any(|xattr| !can_hold(&xattr.name)) {
            let reason = "an extended attribute has an equals sign in its name";
            self.done.left_out.push((path.clone(), reason));
        }
    }
}

fn failed(source: io::Error) -> Error {
    Error::Target { name: "the archive".into(), source }
}
