//! What a mount tells of a file beside what its tree records: extended attributes
//! that can be asked for by name and are never listed, so that no copy carries them.
//!
//! Which there are: docs/semantics.md, "Where a file comes from".

use crate::serve::filesystem::{Filesystem, Refusal, View};
use crate::serve::node::{NodeId, PathHash};
use crate::serve::table::Position;
use crate::shape::Shape;
use crate::source::Source;

/// How the names begin.
const PREFIX: &[u8] = b"user.cairn.";

impl<S: Source> View<'_, S> {
    /// The value of the attribute `name` of a node, if the mount has one to tell.
    pub(crate) fn told(&self, id: NodeId, name: &[u8]) -> Result<Option<String>, Refusal> {
        match name.strip_prefix(PREFIX) {
            Some(b"blob") => self.blob_of(id),
            Some(b"state") => Ok(self.state_of(id)),
            Some(b"tree") => self.tree_id_of(id),
            _ => Ok(None),
        }
    }

    fn blob_of(&self, id: NodeId) -> Result<Option<String>, Refusal> {
        let digest = self.with_leaf(id, |leaf| leaf.blob().map(|blob| blob.digest.to_string()));
        match digest {
            Err(Refusal::IsADirectory) => Ok(None),
            answer => answer,
        }
    }

    fn tree_id_of(&self, id: NodeId) -> Result<Option<String>, Refusal> {
        match self.directory(id) {
            Err(Refusal::NotADirectory) => Ok(None),
            Ok(directory) => {
                let is_of_state = matches!(directory.position, Position::Inside(_));
                Ok(directory.tree.filter(|_| is_of_state).map(|tree| tree.to_string()))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// The state that a node is shown in. A file of a mount of all states is in all
    /// those that have it, with one inode, so that there is nothing to tell.
    fn state_of(&self, id: NodeId) -> Option<String> {
        if self.shape() != Shape::Folder {
            return self.state().map(|state| state.to_string());
        }
        let table = self.table();
        let mut directory = table.directory(id)?;
        while directory.position != Position::Inside(PathHash::ROOT) {
            // Above the states there is none.
            matches!(directory.position, Position::Inside(_)).then_some(())?;
            directory = table.directory(directory.parent)?;
        }
        let name = std::str::from_utf8(directory.name.as_ref()?.as_bytes()).ok()?;
        let group = table.directory(directory.parent)?;
        let state = match group.name.as_ref().map(|name| name.as_bytes()) {
            None => self.state(),
            Some(b"tags") => self.state_of_tag(name),
            Some(_) => name.parse().ok(),
        };
        state.map(|state| state.to_string())
    }
}

impl<S: Source> Filesystem<S> {
    /// Where a node lies on the mount, if the kernel knows it: one of its places, if it has
    /// several.
    pub(crate) fn path_of(&self, id: NodeId) -> Option<Vec<u8>> {
        let location = self.table().file(id);
        let mut names = Vec::new();
        let mut directory = id;
        if let Some(location) = location {
            let tree = self.source.tree(location.tree).ok()?;
            names.push(tree.entries().get(location.entry as usize)?.0.clone());
            directory = location.directory;
        }
        let table = self.table();
        while directory != NodeId::ROOT {
            let known = table.directory(directory)?;
            names.extend(known.name);
            directory = known.parent;
        }
        let mut path: Vec<u8> =
            names.iter().rev().flat_map(|it| [b"/", it.as_bytes()].concat()).collect();
        if path.is_empty() {
            path.push(b'/');
        }
        Some(path)
    }
}
