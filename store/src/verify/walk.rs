//! Which paths of states cannot be read.
//!
//! Each directory is looked into once, and what cannot be read below it is noted. Only then
//! the paths that lead there are walked: so a directory that lies at several paths, or in
//! several states, is told at each of them, and costs nothing where it is sound.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{Holding, Roots, Tables};
use crate::error::{Error, Result};
use crate::gc::{ByMark, Mark};
use crate::hash::{BlobKey, TreeId};
use crate::name::{Name, TreePath};
use crate::pack::ObjectId;
use crate::store::Store;
use crate::tree::{Entry, PAGED_FROM, Summary, Tree};

/// Paths that are kept of each damage.
const PATHS: usize = 1000;

/// Paths that are kept of all damage, beyond one for each directory that it is met in.
const MOST: usize = 1_000_000;

/// Paths that need an object.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// Each with the first that has it, up to [`PATHS`].
    pub(super) kept: Vec<(Holding, String)>,
    /// How many more there are.
    pub(super) more: u64,
    /// Names of all that were met, kept or not.
    met: HashSet<BlobKey>,
}

/// A directory that cannot be read, or not all below it.
#[derive(Debug)]
struct Broken {
    /// What is lost, and under which name; without one it is the directory itself.
    below: Vec<(Option<Name>, Lost)>,
    /// At how many paths it was walked.
    walked: usize,
    /// At how many more it was met.
    skipped: u64,
}

/// A directory that was looked into.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Its place in [`Walk::broken`], unless all of it can be read.
    broken: Option<usize>,
    summary: Option<Summary>,
}

#[derive(Clone, Copy, Debug)]
enum Lost {
    Object(ObjectId),
    /// Something below a directory: its place in [`Walk::broken`].
    Below(usize),
}

/// Walks states and notes what they lack.
pub(super) struct Walk<'a> {
    store: &'a Store,
    tables: &'a Tables,
    /// Directories that were looked into, with what is below them as far as that can be read.
    seen: HashMap<TreeId, Seen>,
    /// Contents that are there, with their sizes: each state has large directories of its own that
    /// name mostly what those of other states do.
    sound: ByMark<u64>,
    /// Each behind those that lie below it.
    broken: Vec<Broken>,
    /// Which of them were met at which path.
    met: HashSet<(usize, BlobKey)>,
    kept: usize,
    lost: BTreeMap<ObjectId, Paths>,
    /// Why something could not be read that may well be there, each by what it says.
    unread: BTreeMap<String, Error>,
}

/// Where the walk is.
struct At<'a> {
    holding: &'a Holding,
    prefix: &'static str,
    path: TreePath,
}

impl At<'_> {
    fn key(&self) -> BlobKey {
        BlobKey::of(&[self.prefix.as_bytes(), &self.path.to_bytes()].concat())
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(store: &'a Store, tables: &'a Tables) -> Self {
        Self {
            store,
            tables,
            seen: HashMap::new(),
            sound: ByMark::default(),
            broken: Vec::new(),
            met: HashSet::new(),
            kept: 0,
            lost: BTreeMap::new(),
            unread: BTreeMap::new(),
        }
    }

    /// Notes an error that is none of what is in the store.
    fn note(&mut self, err: Error) {
        if !err.is_damage() {
            self.unread.entry(err.to_string()).or_insert(err);
        }
    }

    /// What was noted so far.
    pub(super) fn take_unread(&mut self) -> impl Iterator<Item = Error> + use<> {
        std::mem::take(&mut self.unread).into_values()
    }

    /// Notes what trees lack that something keeps.
    pub(super) fn roots(&mut self, holding: &Holding, roots: &Roots) {
        for &(root, prefix) in roots {
            if let Some(broken) = self.look(root).broken {
                self.walk(broken, &mut At { holding, prefix, path: TreePath::root() });
            }
        }
    }

    /// What is lost, and which paths need it.
    pub(super) fn finish(mut self) -> BTreeMap<ObjectId, Paths> {
        // From above to below: how often a directory was skipped is known before those below.
        while let Some(Broken { below, skipped, .. }) = self.broken.pop() {
            for (_, lost) in below.iter().filter(|_| skipped > 0) {
                let count = match lost {
                    Lost::Object(object) => &mut self.lost.entry(*object).or_default().more,
                    Lost::Below(broken) => &mut self.broken[*broken].skipped,
                };
                *count = count.saturating_add(skipped);
            }
        }
        self.lost
    }

    /// Looks into a directory and all below it that is new.
    fn look(&mut self, id: TreeId) -> Seen {
        if let Some(known) = self.seen.get(&id) {
            return *known;
        }
        let tree = self.store.tree(id);
        let summary = tree.as_ref().ok().map(|tree| tree.summary());
        let below = self.lost_below(id, tree);
        let broken = (!below.is_empty()).then_some(self.broken.len());
        if broken.is_some() {
            self.broken.push(Broken { below, walked: 0, skipped: 0 });
        }
        let seen = Seen { broken, summary };
        self.seen.insert(id, seen);
        seen
    }

    fn lost_below(&mut self, id: TreeId, tree: Result<Arc<Tree>>) -> Vec<(Option<Name>, Lost)> {
        let object = ObjectId::Tree(id);
        let tree = match tree {
            Ok(tree) if self.tables.has(object) => tree,
            Err(Error::MissingPage { id }) => {
                return vec![(None, Lost::Object(ObjectId::Page(id)))];
            }
            Ok(_) => return vec![(None, Lost::Object(object))],
            Err(err) => {
                self.note(err);
                return vec![(None, Lost::Object(object))];
            }
        };
        let mut below = Vec::new();
        if tree.entries().len() >= PAGED_FROM {
            let pages = tree.encode().pages.into_iter().map(|(page, _)| ObjectId::Page(page));
            let lost = pages.filter(|page| !self.tables.has(*page));
            below.extend(lost.map(|page| (None, Lost::Object(page))));
        }
        for (name, entry) in tree.entries() {
            let mut lose = |lost| below.push((Some(name.clone()), lost));
            match entry {
                Entry::Directory(subtree) => {
                    let Seen { broken, summary } = self.look(subtree.id);
                    broken.into_iter().for_each(|broken| lose(Lost::Below(broken)));
                    if summary.is_some_and(|summary| summary != subtree.summary) {
                        lose(Lost::Object(object));
                    }
                }
                Entry::Leaf(leaf) => {
                    let Some(blob) = leaf.blob() else { continue };
                    let object = ObjectId::Blob(blob.key, blob.digest);
                    if self.sound.get(&Mark::of(object)) == Some(&blob.size) {
                        continue;
                    }
                    let is_read = match self.store.inner().at_blob(blob, |at| Ok(*at)) {
                        Ok(at) => !self.tables.denies(object, &at),
                        Err(err) => {
                            self.note(err);
                            false
                        }
                    };
                    if is_read && self.tables.has(object) {
                        self.sound.insert(Mark::of(object), blob.size);
                    } else {
                        lose(Lost::Object(object));
                    }
                }
            }
        }
        below
    }

    /// Tells the paths below a directory that is broken.
    ///
    /// Costs no more than [`PATHS`] times all that is broken: where equal directories lie in
    /// equal directories, there may be more paths than anybody can walk.
    fn walk(&mut self, number: usize, at: &mut At<'_>) {
        if !self.met.insert((number, at.key())) {
            return;
        }
        let broken = &mut self.broken[number];
        if broken.walked >= PATHS || (broken.walked > 0 && self.kept >= MOST) {
            broken.skipped += 1;
            return;
        }
        broken.walked += 1;
        // A directory does not lie below itself.
        let below = std::mem::take(&mut broken.below);
        for (name, lost) in &below {
            name.iter().for_each(|name| at.path.push(name.clone()));
            match lost {
                Lost::Object(object) => self.lose(*object, at),
                Lost::Below(broken) => self.walk(*broken, at),
            }
            name.iter().for_each(|_| drop(at.path.pop()));
        }
        self.broken[number].below = below;
    }

    fn lose(&mut self, object: ObjectId, at: &At<'_>) {
        let paths = self.lost.entry(object).or_default();
        if !paths.met.insert(at.key()) {
            return;
        }
        if paths.kept.len() < PATHS {
            paths.kept.push((at.holding.clone(), format!("{}{}", at.prefix, at.path)));
            self.kept += 1;
        } else {
            paths.more += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::index::Batch;
    use crate::pack::ObjectId;
    use crate::tree::{Attributes, Content, Entry, Leaf, Tree};
    use crate::{
        BlobRef, BytesSource, Damage, Draft, Holding, Name, StateId, Store, Transaction, TreeId,
    };

    fn directory(transaction: &mut Transaction, entries: &[(&str, &Entry)]) -> Entry {
        let entries = entries.iter().map(|(name, entry)| {
            let name = Name::new(name.as_bytes()).expect("a name");
            (name, Entry::clone(entry))
        });
        let tree = Tree::new(Attributes::of_root(0o755), entries.collect()).expect("a tree");
        transaction.put_subtree(tree).expect("puts a tree")
    }

    fn id(entry: &Entry) -> TreeId {
        entry.as_directory().expect("a directory").id
    }

    /// A store with two states: directories `a` and `b` in each other, so deep, with the
    /// file `f` in the lowest ones; then the same with one more of the latter. Returns the
    /// file and the lowest directory.
    fn publish(store: &Store, depth: usize) -> (BlobRef, TreeId) {
        let mut transaction = store.begin().expect("begins");
        let source = BytesSource { name: "f", bytes: b"content" };
        let blob = transaction.ingest(&[source], &()).expect("takes in")[0];
        let content = Content::File(blob);
        let leaf = Leaf { attributes: Attributes::of_root(0o644), content, link: None };
        let lowest = directory(&mut transaction, &[("f", &Entry::Leaf(leaf))]);
        let mut top = lowest.clone();
        for _ in 0..depth {
            top = directory(&mut transaction, &[("a", &top), ("b", &top)]);
        }
        let packages = directory(&mut transaction, &[]);
        let states = [vec![("x", &top)], vec![("x", &top), ("y", &lowest)]];
        let mut parent = None;
        for entries in states {
            let root = directory(&mut transaction, &entries);
            let (tree, packages) = (id(&root), id(&packages));
            let draft = Draft { parent, request: "test".into(), tree, packages };
            parent = Some(transaction.commit(draft).expect("commits").id);
            transaction = store.begin().expect("begins");
        }
        (blob, id(&lowest))
    }

    /// The only damage of a store in which the index has forgotten an object.
    fn damage_without(store: &Store, object: ObjectId) -> Damage {
        let inner = store.inner();
        // What a cache holds would hide it.
        inner.forget_all();
        inner.set_index(None);
        let index = inner.open_writer(&inner.log()).expect("opens");
        let mut batch = Batch::default();
        batch.forget(object);
        index.write(&batch).expect("writes");
        drop(index);
        let mut damage = store.verify(&()).expect("can be verified").damage;
        damage.retain(|damage| !matches!(damage.error, crate::Error::WrongIndex { .. }));
        assert_eq!(damage.len(), 1, "{damage:?}");
        damage.remove(0)
    }

    fn number(holding: &Holding) -> StateId {
        let Holding::State(id) = holding else { panic!("{holding:?}") };
        *id
    }

    #[test]
    fn what_is_lost_is_told_at_each_path_of_equal_directories() {
        let home = tempfile::tempdir().expect("a directory");
        let store = Store::create(&home.path().join("store")).expect("makes a store");
        let (blob, lowest) = publish(&store, 3);
        let of_file = damage_without(&store, ObjectId::Blob(blob.key, blob.digest));
        store.rebuild_index().expect("makes the index anew");
        let of_directory = damage_without(&store, ObjectId::Tree(lowest));
        for (damage, end) in [(of_file, "/f"), (of_directory, "")] {
            let told: Vec<_> =
                damage.paths.iter().map(|(of, path)| format!("{}:{path}", number(of))).collect();
            let letters = ["a", "b"];
            let mut expected = Vec::new();
            for (one, two) in letters.iter().flat_map(|one| letters.map(|two| (one, two))) {
                expected.extend(letters.map(|three| format!("1:/x/{one}/{two}/{three}{end}")));
            }
            expected.push(format!("2:/y{end}"));
            assert_eq!((told, damage.more), (expected, 0));
        }
    }

    #[test]
    fn more_paths_than_anybody_can_walk_are_counted() {
        let home = tempfile::tempdir().expect("a directory");
        for (depth, paths) in [(9, 513), (10, 1025), (50, (1 << 50) + 1)] {
            let store = Store::create(&home.path().join(depth.to_string())).expect("makes one");
            let (blob, _) = publish(&store, depth);
            let damage = damage_without(&store, ObjectId::Blob(blob.key, blob.digest));
            let kept = damage.paths.len() as u64;
            assert_eq!(kept, paths.min(1000), "{depth}");
            assert_eq!(damage.more.saturating_add(kept), paths, "{depth}");
        }
    }
}
