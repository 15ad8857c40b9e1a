//! A state goes from one store to another: what is missing, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_store::transfer::{
    PackAt, PackRange, PullExtent, PullPhase, PullProgress, PullSource, Pulled, TakeBytes, pipe,
};
use cairn_store::tree::{HardLink, LinkGroup};
use cairn_store::{
    Attributes, BlobRef, BytesSource, Content, Draft, Entry, Error, ImportOptions, Leaf, Name,
    ObjectId, Refs, Standing, State, StateId, Store, Transaction, Tree, import_directory,
};

const ASIDE: PullExtent = PullExtent::Publish(Standing::Aside);

const PLAIN: ImportOptions<'_> = ImportOptions {
    request: "a test",
    parent: None,
    switch: true,
    leave_out: None,
    one_filesystem: false,
    afresh: true,
};

struct World {
    directory: tempfile::TempDir,
    from: Store,
    to: Store,
}

impl World {
    fn new() -> Self {
        let directory = support::fast_directory();
        let make = |name: &str| Store::create(&directory.path().join(name)).unwrap();
        let (from, to) = (make("from"), make("to"));
        fs::create_dir(directory.path().join("root")).unwrap();
        Self { directory, from, to }
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.directory.path().join("root").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn pull(&self, state: &State) -> Result<Pulled, Error> {
        self.pull_from(&self.from, state, &())
    }

    fn pull_from(
        &self,
        from: &dyn PullSource,
        state: &State,
        progress: &dyn PullProgress,
    ) -> Result<Pulled, Error> {
        let states = [state.clone()];
        let mut done = self.to.pull(from, &states, ASIDE, progress)?;
        Ok(done.pop().unwrap())
    }

    fn import(&self, store: &Store) -> State {
        let options = ImportOptions { parent: store.refs().current, ..PLAIN };
        import_directory(store, &self.directory.path().join("root"), &options, &()).unwrap().state
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn assert_sound(store: &Store) {
    let report = store.verify(&()).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

fn packs(store: &Store) -> BTreeSet<String> {
    let packs = fs::read_dir(store.path().join("packs")).unwrap();
    let names = packs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".pack")).collect()
}

#[test]
fn a_whole_state_arrives_in_the_packs_that_it_had() {
    let world = World::new();
    for at in 0..400 {
        world.write(&format!("many/{at}"), noise(at, 700));
    }
    world.write("large", noise(1000, 3 << 20));
    world.write("middle", noise(1001, 600_000));
    world.write("empty", b"");
    let state = world.import(&world.from);
    let pulled = world.pull(&state).unwrap();
    assert!(!pulled.was_there);
    let ours = pulled.state.unwrap();
    assert_eq!((ours.tree, ours.packages), (state.tree, state.packages));
    assert_eq!(world.to.refs().current, Some(ours.id), "the first is current");
    assert_sound(&world.to);
    let (theirs, mine) = (packs(&world.from), packs(&world.to));
    assert!(theirs.is_subset(&mine), "{theirs:?} {mine:?}");
    assert_eq!(left(&world.to), 0);

    let again = world.pull(&state).unwrap();
    assert!(again.was_there && again.transferred == 0);
    assert_eq!(again.state.unwrap().id, ours.id);
    assert_eq!(packs(&world.to), mine);
}

/// Files of an interrupted pull.
fn left(store: &Store) -> usize {
    fs::read_dir(store.path().join("cache/pull")).unwrap().count()
}

#[test]
fn only_what_is_missing_goes() {
    let world = World::new();
    for at in 0..3000 {
        world.write(&format!("directory {}/{at}", at % 10), noise(at, 2000));
    }
    let first = world.import(&world.from);
    world.pull(&first).unwrap();
    world.write("directory 3/3", noise(5000, 2000));
    world.write("directory 3/new", noise(5001, 100));
    let second = world.import(&world.from);
    let preview = world
        .to
        .pull(&world.from, std::slice::from_ref(&second), PullExtent::Preview, &())
        .unwrap();
    assert!(preview[0].state.is_none() && world.to.refs().states.len() == 1);
    let pulled = world.pull(&second).unwrap();
    // Two files, the two directories above them, and pages of one.
    assert!((4..16).contains(&pulled.objects), "{}", pulled.objects);
    assert!(pulled.transferred < 300_000, "{} bytes", pulled.transferred);
    assert_eq!(pulled.state.unwrap().parent.map(|id| id.0), Some(1));
    assert_sound(&world.to);

    // Without any state in common, blobs that are there do not go.
    let other = Store::create(&world.directory.path().join("other")).unwrap();
    fs::remove_dir_all(world.directory.path().join("root/directory 5")).unwrap();
    world.import(&other);
    let pulled = other.pull(&world.from, &[second], ASIDE, &()).unwrap().pop().unwrap();
    assert!((600_000..1_000_000).contains(&pulled.bytes), "300 files: {}", pulled.bytes);
    assert_sound(&other);
}

#[test]
fn what_is_damaged_is_not_taken() {
    let world = World::new();
    for at in 0..40 {
        world.write(&format!("{at}"), noise(at, 9000));
    }
    world.write("large", noise(99, 1 << 21));
    let state = world.import(&world.from);
    for name in packs(&world.from) {
        let path = world.from.path().join("packs").join(name);
        let whole = fs::read(&path).unwrap();
        for at in [100, whole.len() / 2, whole.len() - 60, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            let from = Store::open(world.from.path()).unwrap();
            let refused = world.pull_from(&from, &state, &());
            assert!(refused.is_err(), "byte {at} of {}", path.display());
            assert!(world.to.refs().states.is_empty());
            // What has arrived undamaged before would be taken.
            fs::remove_dir_all(world.to.path().join("cache/pull")).unwrap();
        }
        fs::write(&path, whole).unwrap();
    }
    let from = Store::open(world.from.path()).unwrap();
    world.pull_from(&from, &state, &()).unwrap();
    assert_sound(&world.to);
}

/// A store that answers as another one does, and does something about the bytes.
struct Through<'a> {
    store: &'a Store,
    /// Whether it says in which packs objects lie.
    locates: bool,
    /// Bytes after which it breaks.
    rest: Mutex<u64>,
}

impl PullSource for Through<'_> {
    fn name(&self) -> String {
        "a test".into()
    }

    fn refs(&self) -> Result<Refs, Error> {
        Ok(self.store.refs())
    }

    fn locate(&self, objects: &[ObjectId]) -> Result<Option<Vec<Option<PackAt>>>, Error> {
        if self.locates { self.store.locate(objects) } else { Ok(None) }
    }

    fn packs(&self) -> Result<Vec<PackAt>, Error> {
        PullSource::packs(self.store)
    }

    fn read(&self, ranges: &[PackRange], take: TakeBytes<'_>) -> Result<(), Error> {
        PullSource::read(self.store, ranges, &mut |number, bytes| {
            let mut rest = self.rest.lock().unwrap();
            let Some(less) = rest.checked_sub(bytes.len() as u64) else {
                let source = Box::new(std::io::Error::other("the line is cut"));
                return Err(Error::Remote { name: self.name(), source });
            };
            *rest = less;
            take(number, bytes)
        })
    }
}

#[test]
fn a_pull_that_was_cut_goes_on_where_it_stopped() {
    let world = World::new();
    for at in 0..8 {
        world.write(&format!("large {at}"), noise(at, 2 << 20));
    }
    for at in 0..200 {
        world.write(&format!("small {at}"), noise(100 + at, 9000));
    }
    let state = world.import(&world.from);
    let mut cuts = 0;
    let pulled = loop {
        // The sum is what all of it has, and a little for what was on its way.
        let rest = Mutex::new(5 << 20);
        let source = Through { store: &world.from, locates: true, rest };
        match world.pull_from(&source, &state, &()) {
            Err(Error::Remote { .. }) if cuts < 6 => cuts += 1,
            result => break result.unwrap(),
        }
        assert!(world.to.refs().states.is_empty());
        world.to.gc(cairn_store::GcOptions::default(), &()).unwrap();
    };
    assert!((3..=4).contains(&cuts), "{cuts}");
    assert!(pulled.transferred < 6 << 20);
    assert_sound(&world.to);
    assert_eq!(left(&world.to), 0);
}

#[test]
fn a_store_that_cannot_tell_where_objects_lie_is_read_as_well() {
    let world = World::new();
    for at in 0..300 {
        world.write(&format!("{}/{at}", at % 7), noise(at, 3000));
    }
    let state = world.import(&world.from);
    let source = Through { store: &world.from, locates: false, rest: Mutex::new(u64::MAX) };
    world.pull_from(&source, &state, &()).unwrap();
    assert_sound(&world.to);
}

#[test]
fn a_state_goes_through_a_pipe() {
    let world = World::new();
    for at in 0..300 {
        world.write(&format!("{}/{at}", at % 7), noise(at, 3000));
    }
    let state = world.import(&world.from);
    let (here, there) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let served = scope.spawn(|| {
            let from = there.try_clone().unwrap();
            pipe::serve(&world.from, from, &there, &()).unwrap()
        });
        let name = "the other side".to_owned();
        let source = pipe::Pipe::open(name, here.try_clone().unwrap(), &here).unwrap();
        assert_eq!(source.refs().unwrap(), world.from.refs());
        world.pull_from(&source, &state, &()).unwrap();
        source.done("well".into()).unwrap();
        assert_eq!(served.join().unwrap(), Some("well".into()));
    });
    assert_sound(&world.to);
    let noise = pipe::Pipe::open("noise".into(), &b"Welcome\n"[..], std::io::sink());
    assert!(matches!(noise, Err(Error::Remote { .. })), "{noise:?}");
}

#[test]
fn more_ranges_than_are_asked_for_at_once_come_through_a_pipe_in_order() {
    let world = World::new();
    world.write("large", noise(1, 3 << 20));
    world.import(&world.from);
    let pack = PullSource::packs(&world.from).unwrap().into_iter().max_by_key(|it| it.len).unwrap();
    let ranges: Vec<PackRange> = (0..3000)
        .map(|at| PackRange { pack: pack.id, from: at * 1000, len: 1 + at % 900 })
        .collect();
    let all = |source: &dyn PullSource| {
        let mut taken = vec![Vec::new(); ranges.len()];
        let take = &mut |number: usize, bytes: &[u8]| {
            taken[number].extend_from_slice(bytes);
            Ok(())
        };
        source.read(&ranges, take).unwrap();
        taken
    };
    let (here, there) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let from = there.try_clone().unwrap();
            pipe::serve(&world.from, from, &there, &()).unwrap()
        });
        let source = pipe::Pipe::open("it".into(), here.try_clone().unwrap(), &here).unwrap();
        assert!(all(&source) == all(&world.from));
        source.done("well".into()).unwrap();
    });
}

/// What is asked of a store of which a collection takes packs away meanwhile.
#[test]
fn a_pack_that_goes_during_a_pull_through_a_pipe_costs_another_look() {
    let world = World::new();
    for at in 0..20 {
        world.write(&format!("kept/{at}"), noise(at, 30_000));
    }
    world.import(&world.from);
    for at in 0..40 {
        world.write(&format!("more/{at}"), noise(100 + at, 30_000));
    }
    world.write("junk", noise(200, 9000));
    world.import(&world.from);
    fs::remove_file(world.directory.path().join("root/junk")).unwrap();
    let state = world.import(&world.from);
    let there = Store::open(world.from.path()).unwrap();
    std::thread::scope(|scope| {
        // Closed as soon as a look fails, so that the other side ends.
        let (here, other) = UnixStream::pair().unwrap();
        let there = &there;
        scope.spawn(move || {
            let from = other.try_clone().unwrap();
            pipe::serve(there, from, &other, &()).unwrap()
        });
        let pipe = pipe::Pipe::open("it".into(), here.try_clone().unwrap(), &here).unwrap();

        let packs = PullSource::packs(&world.from).unwrap();
        let mut ranges: Vec<PackRange> =
            (0..700).map(|at| PackRange { pack: packs[0].id, from: at, len: 100 }).collect();
        let missing = "00000000000000000000000000000001".parse().unwrap();
        ranges[300].pack = missing;
        let read = pipe.read(&ranges, &mut |_, _| Ok(()));
        assert!(matches!(read, Err(Error::MissingPack { pack }) if pack == missing), "{read:?}");
        ranges.remove(300);
        pipe.read(&ranges, &mut |_, _| Ok(())).unwrap();

        let source = Collected { pipe: &pipe, store: &world.from, questions: AtomicUsize::new(0) };
        world.pull_from(&source, &state, &()).unwrap();
        assert!(source.questions.into_inner() > 2);
        pipe.done("well".into()).unwrap();
    });
    assert_sound(&world.to);
}

/// A store at the other end of a pipe, in which everything moves into other packs before the
/// second question.
struct Collected<'a> {
    pipe: &'a dyn PullSource,
    store: &'a Store,
    questions: AtomicUsize,
}

impl PullSource for Collected<'_> {
    fn name(&self) -> String {
        "a test".into()
    }

    fn refs(&self) -> Result<Refs, Error> {
        self.pipe.refs()
    }

    fn locate(&self, objects: &[ObjectId]) -> Result<Option<Vec<Option<PackAt>>>, Error> {
        if self.questions.fetch_add(1, Ordering::Relaxed) == 1 {
            let before = packs(self.store);
            let states: Vec<StateId> = self.store.refs().states.keys().copied().collect();
            self.store.remove_states(&states[..2]).unwrap();
            self.store.gc(cairn_store::GcOptions { rewrite_below: 100 }, &()).unwrap();
            assert!(before.difference(&packs(self.store)).count() >= 2, "those with contents");
        }
        self.pipe.locate(objects)
    }

    fn packs(&self) -> Result<Vec<PackAt>, Error> {
        self.pipe.packs()
    }

    fn read(&self, ranges: &[PackRange], take: TakeBytes<'_>) -> Result<(), Error> {
        self.pipe.read(ranges, take)
    }
}

#[test]
fn hard_links_that_are_not_as_many_as_they_say_are_not_taken() {
    let world = World::new();
    let file = |count| {
        let link = HardLink { group: LinkGroup::of(b"/a"), count };
        let content = Content::File(BlobRef::of(b""));
        let attributes = Attributes::of_root(0o644);
        Entry::Leaf(Leaf { attributes, content, link: Some(link) })
    };
    let directory = |transaction: &mut Transaction, entries: &[(&str, &Entry)]| {
        let entries = entries
            .iter()
            .map(|(name, entry)| (Name::new(name.as_bytes()).unwrap(), Entry::clone(entry)));
        let tree = Tree::new(Attributes::of_root(0o755), entries.collect()).unwrap();
        transaction.put_subtree(tree).unwrap()
    };
    // In each the file has four paths: `a`, and three of one directory.
    for (number, count) in [3, 5, 4].into_iter().enumerate() {
        let mut transaction = world.from.begin().unwrap();
        transaction.ingest(&[BytesSource { name: "f", bytes: b"" }], &()).unwrap();
        let file = file(count);
        let low = directory(&mut transaction, &[("f", &file)]);
        let middle = directory(&mut transaction, &[("x", &low), ("y", &low)]);
        let root = directory(&mut transaction, &[("a", &file), ("b", &middle), ("c", &low)]);
        let empty = directory(&mut transaction, &[]);
        let id = |entry: &Entry| entry.as_directory().unwrap().id;
        let (tree, packages) = (id(&root), id(&empty));
        let draft = Draft { parent: None, request: number.to_string(), tree, packages };
        let state = transaction.commit(draft).unwrap();
        match world.pull(&state) {
            Err(Error::DamagedSource { .. }) => assert_ne!(count, 4),
            pulled => assert!(pulled.unwrap().state.is_some() && count == 4),
        }
    }
}

/// Stops at once.
struct Stop;

impl PullProgress for Stop {
    fn begin(&self, _: PullPhase, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn is_cancelled(&self) -> bool {
        true
    }
}

#[test]
fn a_pull_that_is_stopped_leaves_the_states_as_they_were() {
    let world = World::new();
    world.write("file", noise(1, 9000));
    let state = world.import(&world.from);
    let stopped = world.pull_from(&world.from, &state, &Stop);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert!(world.to.refs().states.is_empty() && packs(&world.to).is_empty());
}
