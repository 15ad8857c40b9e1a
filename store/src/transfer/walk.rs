//! What a state needs that is not here: its trees from the roots down to the last blob.
//!
//! Level by level, so that a whole level of directories is asked for at once. What lies at the same
//! path in a state that is here needs no look; of everything else each directory is decoded,
//! which only its canonical form can be, and what its parent says of it is compared.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::PullPhase;
use super::links::Links;
use super::mirror::Mirror;
use crate::error::{Error, Result};
use crate::hash::{BlobKey, BlobRef, PackId, PageId, TreeId};
use crate::name::TreePath;
use crate::pack::{Location, ObjectId};
use crate::state::{State, StateId};
use crate::store::Store;
use crate::tree::{Entry, Listed, PAGED_FROM, Subtree, Summary, Tree};

/// What is missing, and what is relied on.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Where it lies there.
    pub(super) packs: BTreeMap<PackId, Vec<(ObjectId, Location)>>,
    pub(super) objects: u64,
    /// Plain bytes.
    pub(super) bytes: u64,
    /// Objects that are here, and have to stay until the state is published.
    pub(super) relied: Vec<ObjectId>,
    /// The state of which parts were passed over; it has to stay as well.
    pub(super) base: Option<StateId>,
}

/// A directory that waits, and the one that lies at its path in the base.
struct Step {
    id: TreeId,
    base: Option<TreeId>,
}

pub(super) struct Walk<'a> {
    store: &'a Store,
    mirror: &'a Mirror<'a>,
    /// Directories that were decoded or wait for that.
    seen: HashMap<TreeId, Option<Summary>>,
    /// What directories say of those below them.
    told: Vec<Subtree>,
    blobs: HashMap<BlobKey, BlobRef>,
    links: Links,
    missing: Vec<ObjectId>,
    needs: Needs,
}

impl<'a> Walk<'a> {
    /// Finds what `state` needs; `base` is a state that is here and is like it.
    pub(super) fn run(
        store: &'a Store,
        mirror: &'a Mirror<'a>,
        state: &State,
        base: Option<&State>,
    ) -> Result<Needs> {
        mirror.begin(PullPhase::Compare, None);
        let mut walk = Self {
            store,
            mirror,
            seen: HashMap::new(),
            told: Vec::new(),
            blobs: HashMap::new(),
            links: Links::default(),
            missing: Vec::new(),
            needs: Needs { base: base.map(|base| base.id), ..Needs::default() },
        };
        let roots = [
            (state.packages, base.map(|base| base.packages)),
            (state.tree, base.map(|base| base.tree)),
        ];
        let mut level = Vec::new();
        for (id, base) in roots {
            if base != Some(id) && walk.seen.insert(id, None).is_none() {
                level.push(Step { id, base });
            }
        }
        let mut depth = 0;
        while !level.is_empty() {
            if depth > TreePath::MAX_DEPTH {
                return Err(mirror.damaged(Error::TooDeep { path: TreePath::root() }));
            }
            level = walk.level(level)?;
            depth += 1;
        }
        for Subtree { id, summary } in &walk.told {
            if walk.seen.get(id) != Some(&Some(*summary)) {
                return Err(mirror.damaged(Error::DamagedTree { id: *id }));
            }
        }
        for (root, _) in roots {
            let summary = walk.seen.get(&root).copied().flatten();
            if summary.is_some_and(|summary| summary.linked > 0)
                && let Some(id) = walk.links.wrong(root, store)?
            {
                return Err(mirror.damaged(Error::DamagedTree { id }));
            }
        }
        walk.find_blobs()?;
        Ok(walk.needs)
    }

    /// Reads the directories of a level; returns those below them.
    fn level(&mut self, level: Vec<Step>) -> Result<Vec<Step>> {
        let mut next = Vec::new();
        let mut far = Vec::new();
        for step in level {
            match self.here(step.id)? {
                Some(tree) => self.directory(&step, &tree, &mut next)?,
                None => far.push(step),
            }
        }
        let ids: Vec<ObjectId> = far.iter().map(|step| ObjectId::Tree(step.id)).collect();
        let trees = self.fetch(&ids)?;
        let bytes_of = |id| trees.get(&ObjectId::Tree(id)).map_or(&[][..], |bytes| bytes);
        let malformed = |err: crate::tree::InvalidTree| self.mirror.damaged(err.into());
        let mut pages = Vec::new();
        for step in &far {
            pages.extend(Listed::of_tree(bytes_of(step.id)).map_err(malformed)?.pages());
        }
        pages.sort_unstable();
        pages.dedup();
        let mut far_pages = Vec::new();
        for page in pages {
            if self.page_here(page).is_some() {
                self.needs.relied.push(ObjectId::Page(page));
            } else {
                far_pages.push(ObjectId::Page(page));
            }
        }
        let far_pages = self.fetch(&far_pages)?;
        for step in far {
            let tree = Tree::decode(bytes_of(step.id), |page| {
                let bytes = far_pages.get(&ObjectId::Page(page)).cloned();
                let bytes = bytes.or_else(|| self.page_here(page));
                bytes.ok_or(Error::MissingPage { id: page })
            });
            let tree = tree.map_err(|err| self.mirror.damaged(err))?;
            self.directory(&step, &tree, &mut next)?;
        }
        Ok(next)
    }

    /// A directory that is in this store, and undamaged.
    fn here(&mut self, id: TreeId) -> Result<Option<Arc<Tree>>> {
        let inner = self.store.inner();
        if inner.with_index(|index| index.tree(id))?.is_none() {
            return Ok(None);
        }
        let tree = match self.store.tree(id) {
            Err(err) if err.is_damage() => return Ok(None),
            tree => tree?,
        };
        self.needs.relied.push(ObjectId::Tree(id));
        if tree.entries().len() >= PAGED_FROM {
            let pages = inner.listed(id)?.pages();
            self.needs.relied.extend(pages.map(ObjectId::Page));
        }
        Ok(Some(tree))
    }

    fn page_here(&self, id: PageId) -> Option<Vec<u8>> {
        let inner = self.store.inner();
        inner.with_index(|index| index.page(id)).ok()??;
        inner.page_bytes(id).ok()
    }

    fn directory(&mut self, step: &Step, tree: &Tree, next: &mut Vec<Step>) -> Result<()> {
        self.mirror.advance(1)?;
        self.seen.insert(step.id, Some(tree.summary()));
        self.links.note(step.id, tree);
        let base = step.base.and_then(|id| self.store.tree(id).ok());
        for (name, entry) in tree.entries() {
            match entry {
                Entry::Directory(subtree) => {
                    let base = base.as_ref().and_then(|base| base.get(name));
                    let base = base.and_then(Entry::as_directory);
                    if base == Some(subtree) {
                        continue;
                    }
                    self.told.push(*subtree);
                    if let std::collections::hash_map::Entry::Vacant(new) =
                        self.seen.entry(subtree.id)
                    {
                        new.insert(None);
                        next.push(Step { id: subtree.id, base: base.map(|base| base.id) });
                    }
                }
                Entry::Leaf(leaf) => {
                    if let Some(blob) = leaf.blob() {
                        self.blob(*blob)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn blob(&mut self, blob: BlobRef) -> Result<()> {
        let BlobRef { key, digest, size } = blob;
        let collides = |stored| Error::Collision { key, stored, offered: digest };
        if let Some(before) = self.blobs.insert(key, blob) {
            return match before {
                _ if before.digest != digest => Err(collides(before.digest)),
                _ if before.size != size => Err(self.mirror.damaged(Error::DamagedBlob { key })),
                _ => Ok(()),
            };
        }
        match self.store.inner().with_index(|index| index.blob(key))? {
            None => self.missing.push(ObjectId::Blob(key, digest)),
            Some((stored, _)) if stored != digest => return Err(collides(stored)),
            Some((_, at)) if at.len != size => {
                return Err(self.mirror.damaged(Error::DamagedBlob { key }));
            }
            Some(_) => self.needs.relied.push(ObjectId::Blob(key, digest)),
        }
        Ok(())
    }

    /// Fetches directories or pages, and notes that they are needed.
    fn fetch(&mut self, objects: &[ObjectId]) -> Result<HashMap<ObjectId, Vec<u8>>> {
        if objects.is_empty() {
            return Ok(HashMap::new());
        }
        let found = self.mirror.locate(objects)?;
        let bytes = self.mirror.fetch(&found)?;
        found.into_iter().for_each(|(object, at)| self.need(object, at));
        Ok(bytes)
    }

    fn find_blobs(&mut self) -> Result<()> {
        let missing = std::mem::take(&mut self.missing);
        for (object, at) in self.mirror.locate(&missing)? {
            if let ObjectId::Blob(key, _) = object
                && self.blobs.get(&key).is_none_or(|blob| blob.size != at.len)
            {
                return Err(self.mirror.damaged(Error::DamagedBlob { key }));
            }
            self.need(object, at);
        }
        Ok(())
    }

    fn need(&mut self, object: ObjectId, at: Location) {
        self.needs.objects += 1;
        self.needs.bytes += at.len;
        self.needs.packs.entry(at.pack).or_default().push((object, at));
    }
}
