//! What the packs say lies in them, and whether the index says the same.

use std::collections::{HashMap, HashSet};

use super::PackScan;
use crate::error::Result;
use crate::gc::{ByMark, Mark};
use crate::hash::{BlobRef, PackId};
use crate::index::{Batch, Index};
use crate::pack::{Location, ObjectId, Pack};
use crate::store::Inner;

/// The sound objects of the packs that were read.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// One place of each object.
    places: HashMap<ObjectId, Location>,
    /// Further places of objects that lie in several.
    copies: HashSet<(ObjectId, Location)>,
    /// Packs that were read and are sound.
    whole: HashSet<PackId>,
    damaged: HashSet<PackId>,
    /// Contents that lie where the index says, with their sizes, as far as it was compared.
    indexed: ByMark<u64>,
}

impl Tables {
    pub(crate) fn note(&mut self, scan: &PackScan) {
        for (object, at) in &scan.sound {
            if *self.places.entry(*object).or_insert(*at) != *at {
                self.copies.insert((*object, *at));
            }
        }
        if scan.damage.is_empty() {
            self.whole.insert(scan.id);
        } else {
            self.damaged.insert(scan.id);
        }
    }

    /// How many packs were read.
    pub(super) fn packs(&self) -> u64 {
        self.whole.union(&self.damaged).count() as u64
    }

    fn was_read(&self, pack: PackId) -> bool {
        self.whole.contains(&pack) || self.damaged.contains(&pack)
    }

    /// Whether the object is sound in some pack.
    pub(crate) fn has(&self, object: ObjectId) -> bool {
        self.places.contains_key(&object)
    }

    /// Whether the object is known not to lie there.
    pub(super) fn denies(&self, object: ObjectId, at: &Location) -> bool {
        self.whole.contains(&at.pack) && !self.has_at(object, at)
    }

    /// Notes that the index says that an object lies there; whether the packs deny it.
    pub(super) fn compare(&mut self, object: ObjectId, at: &Location) -> bool {
        let is_blob = matches!(object, ObjectId::Blob(..));
        if is_blob && self.has_at(object, at) {
            self.indexed.insert(Mark::of(object), at.len);
        }
        self.denies(object, at)
    }

    /// Whether a content was found where the index says.
    pub(super) fn is_indexed(&self, blob: &BlobRef) -> bool {
        let object = ObjectId::Blob(blob.key, blob.digest);
        self.indexed.get(&Mark::of(object)) == Some(&blob.size)
    }

    fn has_at(&self, object: ObjectId, at: &Location) -> bool {
        self.places.get(&object) == Some(at) || self.copies.contains(&(object, *at))
    }

    /// Objects that do not lie where the index says, or, if it is damaged, of which it
    /// cannot say it: then that may be none.
    pub(crate) fn wrong_entries(&mut self, inner: &Inner, index: &Index) -> Result<Vec<ObjectId>> {
        match self.differing(inner, index) {
            Err(err) if err.is_of_damaged_index() => {
                let objects = self.places.keys().copied();
                Ok(objects.filter(|object| index.location_of(*object).is_err()).collect())
            }
            found => found,
        }
    }

    /// Objects that do not lie where the index says.
    ///
    /// Entries for packs that are gone are passed over: whoever meets one looks where the
    /// object is now. So are those for damaged packs, whose damage is told.
    fn differing(&mut self, inner: &Inner, index: &Index) -> Result<Vec<ObjectId>> {
        let mut wrong = Vec::new();
        let mut later: HashMap<PackId, Vec<(ObjectId, Location)>> = HashMap::new();
        index.each_object(|object, at| {
            if self.compare(object, &at) {
                wrong.push(object);
            } else if !self.was_read(at.pack) {
                later.entry(at.pack).or_default().push((object, at));
            }
        })?;
        // Packs that came while the others were read.
        for (id, entries) in later {
            let Ok(table) = Pack::open(&inner.pack_path(id), id).and_then(|it| it.objects()) else {
                continue;
            };
            let table: HashSet<_> = table.into_iter().collect();
            let strays = entries.iter().filter(|entry| !table.contains(entry));
            wrong.extend(strays.map(|(object, _)| *object));
        }
        Ok(wrong)
    }

    /// Has the index say of these objects where they lie, or nothing if they are lost.
    pub(crate) fn correct(&self, wrong: Vec<ObjectId>, index: &Index) -> Result<()> {
        let mut changes = Batch::default();
        for object in wrong {
            match self.places.get(&object) {
                Some(at) => changes.relocate(object, *at),
                None => changes.forget(object),
            }
        }
        index.write(&changes)
    }

    /// Tells the index where everything lies that it does not know; returns how much that
    /// was. Garbage that a collection had it forget is told as well.
    pub(crate) fn complete(&self, index: &Index) -> Result<u64> {
        let mut changes = Batch::default();
        let mut count = 0;
        for (object, at) in &self.places {
            let is_indexed = !matches!(object, ObjectId::State(_));
            if is_indexed && index.location_of(*object)?.is_none() {
                changes.relocate(*object, *at);
                count += 1;
            }
        }
        index.write(&changes)?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::Error;
    use crate::tree::{Attributes, Content, Entry, Leaf, Tree};
    use crate::verify::Report;
    use crate::{BlobRef, BytesSource, Draft, Name, Store};

    /// A store with a state of two files.
    fn publish(path: &Path) -> (Store, Vec<BlobRef>) {
        let store = Store::create(path).expect("makes a store");
        let mut transaction = store.begin().expect("begins");
        let sources =
            [("one", b"first"), ("two", b"other")].map(|(name, bytes)| BytesSource { name, bytes });
        let blobs = transaction.ingest(&sources, &()).expect("takes in");
        let entries = blobs.iter().zip(["one", "two"]).map(|(blob, name)| {
            let content = Content::File(*blob);
            let leaf = Leaf { attributes: Attributes::of_root(0o644), content, link: None };
            (Name::new(name.as_bytes()).expect("a name"), Entry::Leaf(leaf))
        });
        let tree = Tree::new(Attributes::of_root(0o755), entries.collect()).expect("a tree");
        let tree = transaction.put_tree(tree).expect("puts a tree");
        let draft = Draft { parent: None, request: "test".into(), tree, packages: tree };
        transaction.commit(draft).expect("commits");
        (store, blobs)
    }

    #[test]
    fn an_entry_of_the_index_that_differs_from_the_packs_is_found_and_mended() {
        let home = tempfile::tempdir().expect("a directory");
        let (store, blobs) = publish(&home.path().join("store"));
        let inner = store.inner();
        let state = store.current().expect("a state").id;
        let [one, two] = [0, 1].map(|at| ObjectId::Blob(blobs[at].key, blobs[at].digest));
        let place = inner
            .index()
            .and_then(|index| index.location_of(two))
            .expect("the index can be read")
            .expect("it is indexed");
        let nowhere = Location { offset: place.offset + 1, ..place };
        for (harm, at) in [
            ("the place of another", Some(place)),
            ("no place of anything", Some(nowhere)),
            ("no place at all", None),
        ] {
            inner.set_index(None);
            let index = inner.open_writer(&inner.log()).expect("opens");
            let mut batch = Batch::default();
            match at {
                Some(at) => batch.relocate(one, at),
                None => batch.forget(one),
            }
            index.write(&batch).expect("writes");
            drop(index);
            let of_all = store.verify(&());
            for (report, told_always) in
                [(of_all, true), (store.verify_states(&[state], &()), false)]
            {
                let Report { damage, packs, .. } = report.expect("can be verified");
                let told = damage
                    .iter()
                    .any(|damage| matches!(damage.error, Error::WrongIndex { entries: 1, .. }));
                let affected = damage.iter().flat_map(|damage| &damage.paths);
                let affected: Vec<_> = affected.map(|(_, path)| path.as_str()).collect();
                // Of a state only those packs are read that it needs by the index.
                assert_eq!(told, told_always || at.is_some(), "{harm}: {damage:?}");
                let expected = vec!["/one", "packages:/one"];
                assert_eq!((packs, affected), (1, expected), "{harm}: {damage:?}");
            }
            let repaired = store.repair(&mut [], &()).expect("can be repaired");
            assert_eq!(repaired.corrected, 1, "{harm}");
            assert!(repaired.missing.is_empty(), "{harm}: {repaired:?}");
            assert_eq!(store.read(&blobs[0]).expect("can be read"), b"first", "{harm}");
            let damage = store.verify(&()).expect("can be verified").damage;
            assert!(damage.is_empty(), "{harm}: {damage:?}");
        }
    }
}
