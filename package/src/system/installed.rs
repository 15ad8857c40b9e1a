//! The packages of a state, read from its tree of packages.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_store::tree::{Content, Entry, Leaf};
use cairn_store::{
    Attributes, BytesSource, Name, Result, Store, Transaction, Tree, TreeId, TreePath, TreeReader,
    resolve,
};
use serde::{Deserialize, Serialize};

use super::claims;
use crate::Metadata;

/// One package of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledPackage {
    /// What it says of itself, and where it came from.
    pub metadata: Arc<Metadata>,
    /// Whether it was asked for by name.
    pub explicit: bool,
    /// Its own tree, from the root of the system.
    pub files: TreeId,
}

/// The packages of a state by name.
pub type Installed = BTreeMap<String, InstalledPackage>;

const EXPLICIT: &[u8] = b"explicit";
const FILES: &[u8] = b"files";
const META: &[u8] = b"meta";

impl InstalledPackage {
    /// Reads all packages of a state.
    ///
    /// Costs the packages of the state: some µs each where the index has a note
    /// of their bucket, else some tens.
    ///
    /// # Errors
    /// Besides those of reading: [`cairn_store::Error::NotADirectory`] with the
    /// path of what does not have the documented form.
    pub fn load_all(store: &Store, packages: TreeId) -> Result<Installed> {
        Self::load(store, buckets(store, packages)?.into_iter().map(|(_, bucket)| bucket))
    }

    /// Reads the packages of two states; those that both have may be missing.
    ///
    /// Costs the packages in those of 64 buckets that differ, as [`Self::load_all`] does.
    pub fn load_differing(
        store: &Store,
        old: TreeId,
        new: TreeId,
    ) -> Result<(Installed, Installed)> {
        let (old, new) = (buckets(store, old)?, buckets(store, new)?);
        let without = |these: &[(Name, TreeId)], others: &[(Name, TreeId)]| {
            let these = these.iter().filter(|bucket| !others.contains(bucket));
            Self::load(store, these.map(|(_, bucket)| *bucket))
        };
        Ok((without(&old, &new)?, without(&new, &old)?))
    }

    fn load(store: &Store, buckets: impl Iterator<Item = TreeId>) -> Result<Installed> {
        let mut installed = Installed::new();
        for bucket in buckets {
            let noted = store.note(&note_key(bucket))?;
            let noted = noted.and_then(|json| serde_json::from_slice::<Vec<Noted>>(&json).ok());
            let packages = match noted {
                Some(noted) => noted.into_iter().map(Self::from).collect(),
                None => Self::load_bucket(store, bucket)?,
            };
            for package in packages {
                installed.insert(package.metadata.name.clone(), package);
            }
        }
        Ok(installed)
    }

    fn load_bucket(store: &Store, bucket: TreeId) -> Result<Vec<Self>> {
        let tree = store.tree(bucket)?;
        let packages = tree.entries().iter().map(|(name, package)| {
            let path = || malformed(&format!("packages/{name}"));
            let package = store.tree(package.as_directory().ok_or_else(path)?.id)?;
            let meta = package.get(META).and_then(Entry::as_leaf).and_then(Leaf::blob);
            let json = store.read(meta.ok_or_else(path)?)?;
            let metadata = serde_json::from_slice(&json).map_err(|_| path())?;
            let files = package.get(FILES).and_then(Entry::as_directory).ok_or_else(path)?.id;
            let explicit = package.get(EXPLICIT).is_some();
            Ok(Self { metadata: Arc::new(metadata), explicit, files })
        });
        packages.collect()
    }

    /// The bytes of its regular files in sum.
    pub fn size(&self, store: &Store) -> Result<u64> {
        Ok(store.tree(self.files)?.summary().bytes)
    }

    /// Adds the tree by which merging makes it part of a tree of packages, and
    /// subtracting takes it out.
    pub(super) fn put_record(
        &self,
        transaction: &mut Transaction,
        shared: &[(TreePath, Entry)],
    ) -> Result<TreeId> {
        let name = name_of(&self.metadata)?;
        let json = serde_json::to_vec(&*self.metadata).expect("metadata has no odd keys");
        let mut sources = vec![BytesSource { name: "metadata of a package", bytes: &json }];
        if self.explicit {
            sources.push(BytesSource { name: "a mark", bytes: b"" });
        }
        let blobs = transaction.ingest(&sources, &())?;
        let summary = transaction.read_tree(self.files)?.summary();
        let files = cairn_store::Subtree { id: self.files, summary };
        let mut entries = vec![(plain(FILES), Entry::Directory(files))];
        for (name, blob) in [META, EXPLICIT].into_iter().zip(blobs) {
            let attributes = Attributes::of_root(0o644);
            let leaf = Leaf { attributes, content: Content::File(blob), link: None };
            entries.push((plain(name), Entry::Leaf(leaf)));
        }
        let mut nested = put(transaction, entries)?;
        for directory in [name.clone(), bucket(&name)] {
            nested = put(transaction, vec![(directory, nested)])?;
        }
        let mut top = vec![(plain(b"packages"), nested)];

        let mut claimed = shared.to_vec();
        let path = &mut TreePath::root();
        claims::listed_directories(transaction, self.files, path, &mut claimed)?;
        if let Some(claims) = claims::put_claims(transaction, &name, &claimed)? {
            top.push((plain(b"claims"), claims));
        }
        let root = Tree::new(Attributes::implied_directory(), top);
        transaction.put_tree(root.expect("the names differ"))
    }
}

/// The name of a package as that of a directory.
///
/// # Errors
/// [`cairn_store::Error::NotADirectory`] for one that cannot be, such as `..`.
pub(super) fn name_of(metadata: &Metadata) -> Result<Name> {
    let hidden = metadata.name.starts_with('.');
    match Name::new(metadata.name.as_bytes()) {
        Ok(name) if !hidden => Ok(name),
        _ => Err(malformed("packages")),
    }
}

/// One of 64 directories, so that the tree of packages changes by little.
fn bucket(name: &Name) -> Name {
    let number = cairn_store::Checksum::of(name).0 % 64;
    plain(format!("{number:02x}").as_bytes())
}

/// What the index notes of a package.
#[derive(Serialize, Deserialize)]
struct Noted {
    metadata: Metadata,
    explicit: bool,
    files: TreeId,
}

impl From<Noted> for InstalledPackage {
    fn from(Noted { metadata, explicit, files }: Noted) -> Self {
        Self { metadata: Arc::new(metadata), explicit, files }
    }
}

/// The id of a bucket says all about its packages, so that a note never ages.
fn note_key(bucket: TreeId) -> Vec<u8> {
    [b"bucket ", &bucket.as_bytes()[..]].concat()
}

fn buckets(from: &impl TreeReader, packages: TreeId) -> Result<Vec<(Name, TreeId)>> {
    let root = TreePath::new(b"packages").expect("it is a path");
    let Some(Entry::Directory(buckets)) = resolve(from, packages, &root)? else {
        return Ok(Vec::new());
    };
    let tree = from.read_tree(buckets.id)?;
    let buckets = tree.entries().iter().map(|(name, entry)| match entry {
        Entry::Directory(bucket) => Ok((name.clone(), bucket.id)),
        Entry::Leaf(_) => Err(malformed(&format!("packages/{name}"))),
    });
    buckets.collect()
}

/// Notes the buckets that only the tree of packages `after` has, of which
/// `packages` are all, and forgets those that only `before` had.
pub(super) fn note_buckets<'a>(
    transaction: &Transaction,
    before: TreeId,
    after: TreeId,
    packages: impl Iterator<Item = &'a InstalledPackage> + Clone,
) -> Result<()> {
    let before = buckets(transaction, before)?;
    let after = buckets(transaction, after)?;
    for (name, id) in after.iter().filter(|bucket| !before.contains(bucket)) {
        let mut noted = Vec::new();
        for package in packages.clone() {
            if bucket(&name_of(&package.metadata)?) == *name {
                let metadata = Metadata::clone(&package.metadata);
                noted.push(Noted { metadata, explicit: package.explicit, files: package.files });
            }
        }
        let json = serde_json::to_vec(&noted).expect("packages have no odd keys");
        transaction.set_note(&note_key(*id), Some(&json))?;
    }
    for (_, id) in before.iter().filter(|bucket| !after.contains(bucket)) {
        transaction.set_note(&note_key(*id), None)?;
    }
    Ok(())
}

fn put(transaction: &mut Transaction, entries: Vec<(Name, Entry)>) -> Result<Entry> {
    let tree = Tree::new(Attributes::implied_directory(), entries);
    transaction.put_subtree(tree.expect("the names differ"))
}

fn plain(bytes: &[u8]) -> Name {
    Name::new(bytes).expect("it is a name")
}

fn malformed(path: &str) -> cairn_store::Error {
    let path = TreePath::new(path.as_bytes()).unwrap_or_default();
    cairn_store::Error::NotADirectory(path)
}
