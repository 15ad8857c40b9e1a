//! The triggers that lie in a root.

use std::collections::HashSet;

use cairn_store::tree::Entry;
use cairn_store::{BlobReader, LastLink, TreeId, TreePath};

use super::file::{Problem, Trigger};

/// Which triggers: those of a transaction, or those of a system that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What they write becomes part of the new state.
    Transaction,
    /// They are done where the new state has become live.
    System,
}

/// Where triggers lie in a root.
pub(super) const DIRECTORY: &[u8] = b"usr/share/moss/triggers";

/// A trigger file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum LoadError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] cairn_store::Error),
    /// A file does not have the documented form.
    #[error("the trigger {file} cannot be used")]
    Trigger { file: TreePath, source: Problem },
}

/// Reads the triggers of a root, by the names of their files.
///
/// # Errors
/// A file that is no trigger is an error: what it was to do would silently not
/// be done.
pub fn load(
    from: &impl BlobReader,
    root: TreeId,
    scope: Scope,
) -> std::result::Result<Vec<Trigger>, LoadError> {
    let path = |name: &str| {
        let bytes = [DIRECTORY, name.as_bytes()].join(&b'/');
        TreePath::new(&bytes).expect("the names are names")
    };
    let find = |path: &TreePath| {
        let found = cairn_store::follow(from, root, &path.to_bytes(), LastLink::Follow);
        found.map(cairn_store::Followed::found)
    };
    let word = match scope {
        Scope::Transaction => "tx",
        Scope::System => "sys",
    };
    let mut files = Vec::new();
    for suffix in ["kdl", "yaml"] {
        files.push(path(&format!("{word}.{suffix}")));
    }
    let directory = path(&format!("{word}.d"));
    if let Some((directory, Entry::Directory(subtree))) = find(&directory)? {
        let names = from.read_tree(subtree.id)?;
        files.extend(names.entries().iter().map(|(name, _)| directory.join(name)));
    }
    let mut triggers = Vec::new();
    let mut stems = HashSet::new();
    for file in files {
        let bytes = file.to_bytes();
        let stem = bytes.strip_suffix(b".kdl").or(bytes.strip_suffix(b".yaml"));
        let Some(stem) = stem else { continue };
        let Some((_, Entry::Leaf(leaf))) = find(&file)? else { continue };
        let Some(blob) = leaf.blob() else { continue };
        // In the order of names, and so before `.yaml` of the same stem.
        if !stems.insert(stem.to_vec()) {
            continue;
        }
        let parsed = Trigger::parse(&file, &from.read_blob(blob)?);
        triggers.push(parsed.map_err(|source| LoadError::Trigger { file: file.clone(), source })?);
    }
    Ok(triggers)
}
