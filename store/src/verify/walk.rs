//! Which paths of states cannot be read.
//!
//! Each directory, and each page of a large one, is looked into once, and what cannot be read
//! below it is noted. Only then the paths that lead there are walked: so a directory that lies at
//! several paths, or in several states, is told at each of them, and costs nothing where it is
//! sound.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::slice;

use super::{Holding, Roots, Tables};
use crate::error::Error;
use crate::hash::{BlobKey, PageId, TreeId};
use crate::name::{Name, TreePath};
use crate::pack::ObjectId;
use crate::store::Store;
use crate::tree::{Entry, Listed, Summary, ends_page};

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
    /// Who needs it.
    pub(super) needed_by: Numbers,
    /// Names of all that were met, kept or not.
    met: HashSet<BlobKey>,
}

/// A directory or a page that cannot be read, or not all below it.
#[derive(Debug)]
struct Broken {
    /// What is lost, and under which name; without one it is the directory itself, or a page
    /// of it.
    below: Vec<(Option<Name>, Lost)>,
    /// At how many paths it was walked.
    walked: usize,
    /// At how many more it was met.
    skipped: u64,
    /// Who has it, also below something that is broken only once [`Walk::finish`] has come there.
    needed_by: Numbers,
}

/// Numbers of what keeps trees, in the order in which it was walked; a state mostly lacks what
/// those beside it do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers(Vec<Range<usize>>);

impl Numbers {
    fn add(&mut self, others: &[Range<usize>]) {
        self.0.extend_from_slice(others);
        self.0.sort_unstable_by_key(|run| run.start);
        self.0.dedup_by(|next, last| {
            let meet = next.start <= last.end;
            last.end = if meet { last.end.max(next.end) } else { last.end };
            meet
        });
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().cloned().flatten()
    }
}

/// A directory that was looked into.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Its place in [`Walk::broken`], unless all of it can be read.
    broken: Option<usize>,
    summary: Option<Summary>,
}

/// A page that was looked into.
#[derive(Debug)]
struct SeenPage {
    /// As of a directory.
    broken: Option<usize>,
    /// Nothing if it cannot be read.
    read: Option<ReadPage>,
}

#[derive(Debug)]
struct ReadPage {
    count: usize,
    /// Its first and its last name.
    names: (Name, Name),
    summary: Summary,
}

impl ReadPage {
    /// Nothing for no entries, which are no page.
    fn of(entries: &[(Name, Entry)]) -> Option<Self> {
        let ((first, _), (last, _)) = (entries.first()?, entries.last()?);
        let names = (first.clone(), last.clone());
        Some(Self { count: entries.len(), names, summary: summary_of(entries) })
    }
}

/// What a directory or a page lacks, each under its name.
type Lack = Vec<(Option<Name>, Lost)>;

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
    seen_pages: HashMap<PageId, SeenPage>,
    /// How many have been walked that keep trees.
    walked: usize,
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
            seen_pages: HashMap::new(),
            walked: 0,
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

    /// Notes what trees lack that something keeps; its number is how many came before.
    pub(super) fn roots(&mut self, holding: &Holding, roots: &Roots) {
        let number = self.walked;
        self.walked += 1;
        for &(root, prefix) in roots {
            if let Some(broken) = self.look(root).broken {
                self.broken[broken].needed_by.add(slice::from_ref(&(number..number + 1)));
                self.walk(broken, &mut At { holding, prefix, path: TreePath::root() });
            }
        }
    }

    /// What is lost, and which paths need it.
    pub(super) fn finish(mut self) -> BTreeMap<ObjectId, Paths> {
        // From above to below: who has a directory, and how often it was skipped, is known
        // before those below.
        while let Some(Broken { below, skipped, needed_by, .. }) = self.broken.pop() {
            for (_, lost) in &below {
                let (more, numbers) = match lost {
                    Lost::Object(object) => {
                        let paths = self.lost.entry(*object).or_default();
                        (&mut paths.more, &mut paths.needed_by)
                    }
                    Lost::Below(broken) => {
                        let broken = &mut self.broken[*broken];
                        (&mut broken.skipped, &mut broken.needed_by)
                    }
                };
                *more = more.saturating_add(skipped);
                numbers.add(&needed_by.0);
            }
        }
        self.lost
    }

    /// Looks into a directory and all below it that is new.
    fn look(&mut self, id: TreeId) -> Seen {
        if let Some(known) = self.seen.get(&id) {
            return *known;
        }
        let (lack, summary) = self.directory(id);
        let seen = Seen { broken: self.break_off(lack), summary };
        self.seen.insert(id, seen);
        seen
    }

    /// Notes what a directory or a page lacks, if it lacks anything.
    fn break_off(&mut self, below: Lack) -> Option<usize> {
        let is_broken = !below.is_empty();
        is_broken.then(|| {
            self.broken.push(Broken {
                below,
                walked: 0,
                skipped: 0,
                needed_by: Numbers::default(),
            });
            self.broken.len() - 1
        })
    }

    /// What a directory lacks, and what is below it, if all of it can be read.
    fn directory(&mut self, id: TreeId) -> (Lack, Option<Summary>) {
        let object = ObjectId::Tree(id);
        match self.store.inner().listed(id) {
            Ok(Listed::Entries(entries)) if self.tables.has(object) => {
                (self.entries(object, &entries), Some(summary_of(&entries)))
            }
            Ok(Listed::Pages(pages)) if self.tables.has(object) => self.pages(object, &pages),
            Ok(_) => (vec![(None, Lost::Object(object))], None),
            Err(err) => {
                self.note(err);
                (vec![(None, Lost::Object(object))], None)
            }
        }
    }

    /// The same of a directory with pages.
    fn pages(&mut self, of: ObjectId, pages: &[(PageId, usize)]) -> (Lack, Option<Summary>) {
        pages.iter().for_each(|(id, _)| self.look_into(*id));
        let mut lack = Lack::new();
        let mut summaries = Vec::new();
        let mut is_canonical = true;
        let mut end: Option<&Name> = None;
        for (number, (id, count)) in (1..).zip(pages) {
            let SeenPage { broken, read } = &self.seen_pages[id];
            lack.extend(broken.map(|broken| (None, Lost::Below(broken))));
            let Some(ReadPage { count: there, names: (first, last), summary }) = read else {
                end = None;
                continue;
            };
            is_canonical &= there == count
                && end.is_none_or(|end| end < first)
                && (number == pages.len() || ends_page(last));
            end = Some(last);
            summaries.push(*summary);
        }
        if !is_canonical {
            lack.push((None, Lost::Object(of)));
        }
        let is_whole = summaries.len() == pages.len();
        (lack, is_whole.then(|| summaries.into_iter().sum()))
    }

    /// Looks into a page and all below it, if it is new.
    fn look_into(&mut self, id: PageId) {
        if self.seen_pages.contains_key(&id) {
            return;
        }
        let object = ObjectId::Page(id);
        let (lack, read) = match self.store.inner().page_entries(id) {
            Ok(entries) if self.tables.has(object) => {
                (self.entries(object, &entries), ReadPage::of(&entries))
            }
            Ok(_) => (vec![(None, Lost::Object(object))], None),
            Err(err) => {
                self.note(err);
                (vec![(None, Lost::Object(object))], None)
            }
        };
        let broken = self.break_off(lack);
        self.seen_pages.insert(id, SeenPage { broken, read });
    }

    /// What lies below entries of a directory or a page and is lost.
    fn entries(&mut self, of: ObjectId, entries: &[(Name, Entry)]) -> Lack {
        let mut below = Lack::new();
        for (name, entry) in entries {
            let mut lose = |lost| below.push((Some(name.clone()), lost));
            match entry {
                Entry::Directory(subtree) => {
                    let Seen { broken, summary } = self.look(subtree.id);
                    broken.into_iter().for_each(|broken| lose(Lost::Below(broken)));
                    if summary.is_some_and(|summary| summary != subtree.summary) {
                        lose(Lost::Object(of));
                    }
                }
                Entry::Leaf(leaf) => {
                    let Some(blob) = leaf.blob() else { continue };
                    if self.tables.is_indexed(blob) {
                        continue;
                    }
                    let object = ObjectId::Blob(blob.key, blob.digest);
                    let is_read = match self.store.inner().at_blob(blob, |at| Ok(*at)) {
                        Ok(at) => !self.tables.denies(object, &at),
                        Err(err) => {
                            self.note(err);
                            false
                        }
                    };
                    if !(is_read && self.tables.has(object)) {
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

fn summary_of(entries: &[(Name, Entry)]) -> Summary {
    entries.iter().map(|(_, entry)| entry.summary()).sum()
}

#[cfg(test)]
mod tests {
    use super::{Numbers, Tables, Walk};
    use crate::hash::PageId;
    use crate::index::Batch;
    use crate::pack::ObjectId;
    use crate::tree::{Attributes, Content, Entry, Leaf, Listed, Tree};
    use crate::verify::in_a_row;
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

    /// A store with two states, in the second of which one of 600 files in `large` has gone.
    /// Returns what `large` is in both, and the contents of the files.
    fn publish_large(store: &Store) -> ([TreeId; 2], Vec<BlobRef>) {
        let mut transaction = store.begin().expect("begins");
        let names: Vec<_> = (0..600).map(|number| format!("{number:03}")).collect();
        let sources = names.iter().map(|name| BytesSource { name, bytes: name.as_bytes() });
        let sources: Vec<_> = sources.collect();
        let blobs = transaction.ingest(&sources, &()).expect("takes in");
        let files = blobs.iter().map(|blob| {
            let content = Content::File(*blob);
            Entry::Leaf(Leaf { attributes: Attributes::of_root(0o644), content, link: None })
        });
        let files: Vec<_> = files.collect();
        let files: Vec<_> = names.iter().map(String::as_str).zip(&files).collect();
        let (mut large, mut parent) = (Vec::new(), None);
        for count in [600, 599] {
            let files = directory(&mut transaction, &files[..count]);
            let packages = id(&directory(&mut transaction, &[]));
            let tree = id(&directory(&mut transaction, &[("large", &files)]));
            let draft = Draft { parent, request: "test".into(), tree, packages };
            parent = Some(transaction.commit(draft).expect("commits").id);
            large.push(id(&files));
            transaction = store.begin().expect("begins");
        }
        let large = large.try_into().expect("two");
        (large, blobs)
    }

    #[test]
    fn what_a_page_lacks_is_told_where_its_directory_is() {
        let home = tempfile::tempdir().expect("a directory");
        let store = Store::create(&home.path().join("store")).expect("makes a store");
        let (large, blobs) = publish_large(&store);
        let pages = large.map(|id| {
            let listed = store.inner().listed(id).expect("can be read");
            listed.pages().collect::<Vec<_>>()
        });
        assert!(pages[0].len() > 8, "{pages:?}");
        let (shared, own) = (pages[0][3], *pages[0].last().expect("a page"));
        assert!(pages[1].contains(&shared) && !pages[1].contains(&own));
        let first = blobs[0];
        // Each path is told once, with the first state that has it.
        for (object, expected, needed_by) in [
            (ObjectId::Page(shared), vec!["1:/large"], 1..=2),
            (ObjectId::Page(own), vec!["1:/large"], 1..=1),
            (ObjectId::Blob(first.key, first.digest), vec!["1:/large/000"], 1..=2),
            (ObjectId::Tree(large[1]), vec!["2:/large"], 2..=2),
        ] {
            let damage = damage_without(&store, object);
            let told: Vec<_> =
                damage.paths.iter().map(|(of, path)| format!("{}:{path}", number(of))).collect();
            assert_eq!((told, damage.more), (expected.into_iter().map(Into::into).collect(), 0));
            let [runs] = &damage.needed_by[..] else { panic!("{damage:?}") };
            assert_eq!(number(runs.start()).0..=number(runs.end()).0, needed_by);
            store.rebuild_index().expect("makes the index anew");
        }
    }

    #[test]
    fn pages_that_do_not_make_one_directory_are_damage() {
        let home = tempfile::tempdir().expect("a directory");
        let store = Store::create(&home.path().join("store")).expect("makes a store");
        let ([large, _], _) = publish_large(&store);
        let mut tables = Tables::default();
        store.scan(&(), |scan| tables.note(&scan)).expect("can be read");
        let Ok(Listed::Pages(pages)) = store.inner().listed(large) else { panic!("no pages") };
        let mut walk = Walk::new(&store, &tables);
        let object = ObjectId::Tree(large);
        let mut is_sound = |pages: &[(PageId, usize)]| walk.pages(object, pages).0.is_empty();
        assert!(is_sound(&pages));
        let mut swapped = pages.clone();
        swapped.swap(2, 3);
        let mut miscounted = pages.clone();
        miscounted[2].1 += 1;
        miscounted[3].1 -= 1;
        let twice = [&pages[..4], &pages[3..]].concat();
        // The last page ends where its directory does.
        let early = [&pages[pages.len() - 1..], &pages[..]].concat();
        for wrong in [swapped, miscounted, twice, early] {
            assert!(!is_sound(&wrong), "{wrong:?}");
        }
    }

    #[test]
    fn who_needs_something_is_told_in_rows_of_states() {
        let mut numbers = Numbers::default();
        for run in [5..6, 0..1, 6..9, 1..3, 2..4, 20..21] {
            numbers.add(&[run]);
        }
        assert_eq!(numbers.0, [0..4, 5..9, 20..21]);
        let states = [1, 2, 3, 7, 9, 10].map(|number| Holding::State(StateId(number)));
        let web = Holding::Workspace("web".parse().expect("a name"));
        let runs = in_a_row(states.into_iter().chain([web.clone()]));
        let state = |number| Holding::State(StateId(number));
        let expected =
            [state(1)..=state(3), state(7)..=state(7), state(9)..=state(10), web.clone()..=web];
        assert_eq!(runs, expected);
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
