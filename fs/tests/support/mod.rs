//! Stores with states that tests describe, mounted for real.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod sys;
pub mod twins;

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cairn_fs::control::{self, Refreshed};
use cairn_fs::{Event, Journal, Options, Running, Shape, Source, Stats};
use cairn_store::tree::{Content, HardLink, LinkGroup};
use cairn_store::{
    Attributes, BlobKey, BlobRef, BytesSource, Draft, Edit, Entry, Error, Leaf, Name, Plain, Reads,
    Refs, Result, State, StateId, Store, Timestamp, Transaction, Tree, TreeId, TreePath, edit,
};
use tempfile::TempDir;

/// The main function of a test file that cannot have the usual one, since it starts itself
/// again as another process: runs those tests of which the name contains one of `arguments`.
pub fn run(tests: &[(&str, fn())], arguments: &[String]) -> ! {
    let filters: Vec<_> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    let is_wanted = |name: &str| filters.is_empty() || filters.iter().any(|it| name.contains(*it));
    let mut failed = 0;
    for (name, test) in tests.iter().filter(|(name, _)| is_wanted(name)) {
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += i32::from(!passed);
    }
    std::process::exit(failed);
}

/// What a path of a described state is.
#[derive(Clone, Debug)]
pub enum Item {
    /// A regular file with its content.
    File(Attributes, Vec<u8>),
    /// Another member of the group of hard links whose first path is given.
    Link(String, u32, Attributes, Vec<u8>),
    /// Anything else that is not a directory.
    Other(Attributes, Content),
    /// A directory.
    Directory(Attributes, Directory),
}

pub type Directory = BTreeMap<Vec<u8>, Item>;

/// A file with mode 0644 that belongs to root.
pub fn file(bytes: impl AsRef<[u8]>) -> Item {
    Item::File(Attributes::of_root(0o644), bytes.as_ref().to_vec())
}

/// A program with mode 0755 that belongs to root.
pub fn program(bytes: Vec<u8>) -> Item {
    Item::File(Attributes::of_root(0o755), bytes)
}

/// A symbolic link.
pub fn symlink(target: &str) -> Item {
    Item::Other(Attributes::of_root(0o777), Content::Symlink(target.as_bytes().into()))
}

/// A directory with mode 0755 that belongs to root.
pub fn directory<const N: usize>(items: [(&str, Item); N]) -> Item {
    Item::Directory(Attributes::of_root(0o755), items_of(items))
}

pub fn items_of<const N: usize>(items: [(&str, Item); N]) -> Directory {
    items.into_iter().map(|(name, item)| (name.as_bytes().to_vec(), item)).collect()
}

pub fn at(seconds: i64, nanoseconds: u32) -> Timestamp {
    Timestamp::new(seconds, nanoseconds).expect("below a billion")
}

/// Puts an item at a path of plain names, making directories on the way.
pub fn put(directory: &mut Directory, path: &str, item: Item) {
    match path.split_once('/') {
        None => {
            directory.insert(path.into(), item);
        }
        Some((first, rest)) => {
            let below = directory
                .entry(first.into())
                .or_insert_with(|| Item::Directory(Attributes::of_root(0o755), Directory::new()));
            let Item::Directory(_, below) = below else { panic!("{first} is no directory") };
            put(below, rest, item);
        }
    }
}

/// A store in a temporary directory, and a directory to mount on.
pub struct Lab {
    pub temporary: TempDir,
    pub store: Store,
}

impl Default for Lab {
    fn default() -> Self {
        let fuse = fs::File::options().read(true).write(true).open("/dev/fuse");
        fuse.expect("these tests need /dev/fuse and the right to use it");
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let store = Store::create(&temporary.path().join("store")).expect("a store");
        fs::create_dir(temporary.path().join("mount")).expect("a directory");
        Self { temporary, store }
    }
}

impl Lab {
    /// One of which the kernel can read large files by itself. Where it cannot, the test
    /// has to end; that is a failure with CI=true.
    pub fn for_passthrough() -> Option<Self> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let mut number = || -> u32 { numbers.next().expect("two numbers").expect("a number") };
        if (number(), number()) >= (6, 9) {
            return Some(Self::default());
        }
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "it needs Linux 6.9");
        eprintln!("skipped: it needs Linux 6.9");
        None
    }

    pub fn target(&self) -> PathBuf {
        self.temporary.path().join("mount")
    }

    pub fn run_directory(&self) -> PathBuf {
        self.store.path().join("run")
    }

    /// Publishes a state with this root and makes it current.
    pub fn commit(&self, root: &Directory) -> State {
        self.commit_with(&Attributes::of_root(0o755), root)
    }

    pub fn commit_with(&self, attributes: &Attributes, root: &Directory) -> State {
        let mut transaction = self.store.begin().expect("no other writer");
        let tree = put_directory(&mut transaction, attributes, root);
        let packages = transaction.put_tree(Tree::empty(Attributes::of_root(0o755)));
        let draft = Draft {
            parent: self.store.refs().current,
            request: "test".into(),
            tree,
            packages: packages.expect("a tree"),
        };
        transaction.commit(draft).expect("a state")
    }

    pub fn options(&self, shape: Shape) -> Options {
        Options::new(shape, &self.target(), self.store.path())
    }

    /// Mounts the store and fails the test on any event.
    pub fn mount(&self, shape: Shape) -> Running {
        let journal: Journal = Arc::new(|event| eprintln!("unexpected event: {event}"));
        cairn_fs::start(self.store.clone(), &self.options(shape), journal).expect("it mounts")
    }

    /// Mounts the store so that the kernel reads large files by itself, and keeps the
    /// events.
    pub fn mount_passing(&self, shape: Shape) -> (Running, Events) {
        let events = Events::default();
        let options = Options { passthrough: true, ..self.options(shape) };
        let mounted = cairn_fs::start(self.store.clone(), &options, events.journal());
        (mounted.expect("it mounts"), events)
    }

    /// What the only mount has done.
    pub fn stats(&self) -> Stats {
        let mounts = cairn_fs::list(&self.run_directory()).expect("a list");
        let [mount] = &mounts[..] else { panic!("{mounts:?}") };
        control::stats(&self.run_directory(), mount, PATIENCE).expect("stats")
    }

    /// Where a content lies that the kernel reads by itself.
    pub fn plain(&self, bytes: &[u8]) -> PathBuf {
        let BlobRef { key, digest, .. } = BlobRef::of(bytes);
        self.store.path().join(format!("plain/{key}{digest}"))
    }

    /// Lets the only mount show what is current.
    pub fn refresh(&self) -> Refreshed {
        let mut answers = control::refresh_all(&self.run_directory(), PATIENCE).expect("a list");
        assert_eq!(answers.len(), 1);
        answers.remove(0).1.expect("it refreshes")
    }

    /// Lets the mounts that follow show what is current.
    pub fn refresh_following(&self) {
        for (mount, answer) in control::refresh_all(&self.run_directory(), PATIENCE).unwrap() {
            answer.unwrap_or_else(|err| panic!("{}: {err}", mount.target));
        }
    }

    /// Mounts a source that can be made to fail, and keeps the events.
    pub fn mount_faulty(&self, shape: Shape) -> (Running, Arc<Faulty>, Events) {
        self.mount_faulty_with(&self.options(shape))
    }

    pub fn mount_faulty_with(&self, options: &Options) -> (Running, Arc<Faulty>, Events) {
        let source = Arc::new(Faulty {
            store: self.store.clone(),
            breaks_all: AtomicBool::new(false),
            faults: Mutex::default(),
        });
        let events = Events::default();
        let mounted = cairn_fs::start(source.clone(), options, events.journal());
        (mounted.expect("it mounts"), source, events)
    }
}

fn put_directory(
    transaction: &mut Transaction,
    attributes: &Attributes,
    items: &Directory,
) -> TreeId {
    let mut entries = Vec::with_capacity(items.len());
    let contents: Vec<&[u8]> = items
        .values()
        .filter_map(|item| match item {
            Item::File(_, bytes) | Item::Link(_, _, _, bytes) => Some(&bytes[..]),
            _ => None,
        })
        .collect();
    let sources: Vec<_> =
        contents.iter().map(|bytes| BytesSource { name: "content", bytes }).collect();
    let mut blobs = transaction.ingest(&sources, &()).expect("it ingests").into_iter();
    for (name, item) in items {
        let name = Name::new(name).expect("a name");
        let leaf = |attributes: &Attributes, content, link| {
            Entry::Leaf(Leaf { attributes: attributes.clone(), content, link })
        };
        let mut blob = || Content::File(blobs.next().expect("as many blobs as contents"));
        let entry = match item {
            Item::File(attributes, _) => leaf(attributes, blob(), None),
            Item::Link(first, count, attributes, _) => {
                let group = LinkGroup::of(first.as_bytes());
                leaf(attributes, blob(), Some(HardLink { group, count: *count }))
            }
            Item::Other(attributes, content) => leaf(attributes, content.clone(), None),
            Item::Directory(attributes, below) => {
                let id = put_directory(transaction, attributes, below);
                let tree = cairn_store::TreeReader::read_tree(transaction, id).expect("a tree");
                Entry::Directory(cairn_store::Subtree { id, summary: tree.summary() })
            }
        };
        entries.push((name, entry));
    }
    let tree = Tree::new(attributes.clone(), entries).expect("no name twice");
    transaction.put_tree(tree).expect("a tree")
}

/// Events of a mount, as text.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    pub fn journal(&self) -> Journal {
        let events = self.0.clone();
        Arc::new(move |event: &Event| events.lock().expect("no panic").push(event.to_string()))
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no panic"))
    }
}

/// What a source does with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Panic,
    Missing,
    Damaged,
    Short,
}

/// A store that fails for chosen objects.
pub struct Faulty {
    store: Store,
    breaks_all: AtomicBool,
    faults: Mutex<(BTreeMap<TreeId, Fault>, BTreeMap<BlobKey, Fault>)>,
}

impl Faulty {
    pub fn break_tree(&self, id: TreeId, fault: Fault) {
        self.faults.lock().expect("no panic").0.insert(id, fault);
    }

    pub fn break_blob(&self, bytes: &[u8], fault: Fault) {
        self.faults.lock().expect("no panic").1.insert(BlobKey::of(bytes), fault);
    }

    /// Has every request panic, whatever it is about.
    pub fn break_all(&self) {
        self.breaks_all.store(true, Ordering::Relaxed);
    }

    pub fn heal(&self) {
        self.breaks_all.store(false, Ordering::Relaxed);
        *self.faults.lock().expect("no panic") = Default::default();
    }
}

impl Source for Faulty {
    fn tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        let fault = self.faults.lock().expect("no panic").0.get(&id).copied();
        match fault {
            None => self.store.tree(id),
            Some(Fault::Panic) => panic!("a defect that the test has put here"),
            Some(Fault::Missing) => Err(Error::MissingTree { id }),
            Some(Fault::Damaged | Fault::Short) => Err(Error::DamagedTree { id }),
        }
    }

    fn differing(&self, old: TreeId, new: TreeId) -> Result<(Arc<Tree>, Arc<Tree>)> {
        let is_faulty = |id| self.faults.lock().expect("no panic").0.contains_key(&id);
        if is_faulty(old) || is_faulty(new) {
            return Ok((self.tree(old)?, self.tree(new)?));
        }
        self.store.differing(old, new)
    }

    fn read_at(&self, blob: &BlobRef, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let key = blob.key;
        let fault = self.faults.lock().expect("no panic").1.get(&key).copied();
        match fault {
            None => self.store.read_at(blob, offset, buf),
            Some(Fault::Panic) => panic!("a defect that the test has put here"),
            Some(Fault::Missing) => Err(Error::MissingBlob { key }),
            Some(Fault::Damaged) => Err(Error::DamagedBlob { key }),
            Some(Fault::Short) => Ok(buf.len() / 2),
        }
    }

    fn refs(&self) -> Refs {
        self.store.refs()
    }

    fn refresh(&self) -> Result<()> {
        self.store.refresh()
    }

    fn reads(&self) -> Reads {
        assert!(!self.breaks_all.load(Ordering::Relaxed), "a defect that the test has put here");
        self.store.reads()
    }

    fn plain(&self) -> Option<Plain> {
        Some(self.store.plain())
    }
}

/// Copies programs of this machine with the libraries that they need, under
/// their own paths, so that they can be run from a mount.
pub fn with_programs(root: &mut Directory, names: &[&str]) {
    let mut wanted = HashSet::new();
    for name in names {
        let path = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
            .iter()
            .map(|directory| Path::new(directory).join(name))
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("these tests need the program {name}"));
        let listed = std::process::Command::new("ldd").arg(&path).output().expect("ldd");
        let text = String::from_utf8(listed.stdout).expect("text");
        for word in text.split_whitespace().filter(|word| word.starts_with('/')) {
            wanted.insert(PathBuf::from(word));
        }
        put(root, &format!("usr/bin/{name}"), program(fs::read(path).expect("readable")));
    }
    for library in wanted {
        let bytes = fs::read(&library).expect("readable");
        // The machine may have /lib as a link or as a directory.
        let path =
            library.to_str().expect("text").trim_start_matches("/usr").trim_start_matches('/');
        put(root, &format!("usr/{path}"), program(bytes));
    }
    for name in ["bin", "lib", "lib64"] {
        if root.get(&b"usr"[..]).is_some_and(|usr| match usr {
            Item::Directory(_, usr) => usr.contains_key(name.as_bytes()),
            _ => false,
        }) {
            root.insert(name.into(), symlink(&format!("usr/{name}")));
        }
    }
}

/// The directories of a system's root that are mounted on.
pub fn with_skeleton(root: &mut Directory) {
    for (name, mode) in [
        ("dev", 0o755),
        ("etc", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("run", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("var", 0o755),
    ] {
        let item = Item::Directory(Attributes::of_root(mode), Directory::new());
        root.entry(name.into()).or_insert(item);
    }
}

/// Waits until `f` gives something.
pub fn eventually<T>(what: &str, f: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, f)
}

/// Waits for so long until `f` gives something.
pub fn eventually_within<T>(patience: Duration, what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = f() {
            return value;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// How long a mount may take to answer on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const FIRST: StateId = StateId(1);

/// Stats everything below a directory.
pub fn count(path: &Path) -> usize {
    let mut sum = 0;
    let mut stack = vec![path.to_owned()];
    while let Some(directory) = stack.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            sum += 1;
            if fs::symlink_metadata(entry.path()).unwrap().is_dir() {
                stack.push(entry.path());
            }
        }
    }
    sum
}

const DIRECTORIES: usize = 22_000;
const PER_DIRECTORY: usize = 9;
pub const TOPS: usize = 220;
pub const ENTRIES: usize = DIRECTORIES * (1 + PER_DIRECTORY) + TOPS;

/// Two states of the size of a desktop system that differ in one file.
pub fn commit_system(lab: &Lab) {
    let mut transaction = lab.store.begin().unwrap();
    let contents: Vec<String> = (0..1000).map(|i| format!("content {i}")).collect();
    let sources: Vec<_> = contents
        .iter()
        .map(|text| BytesSource { name: "content", bytes: text.as_bytes() })
        .collect();
    let blobs = transaction.ingest(&sources, &()).unwrap();
    let name = |text: String| Name::new(text.as_bytes()).unwrap();
    let leaf = |i: usize| {
        let mut attributes = Attributes::of_root(0o644);
        attributes.mtime = at(i64::try_from(i).unwrap(), 0);
        Entry::Leaf(Leaf { attributes, content: Content::File(blobs[i % 1000]), link: None })
    };
    let mut tree = |entries| {
        transaction.put_subtree(Tree::new(Attributes::of_root(0o755), entries).unwrap()).unwrap()
    };
    let mut tops = Vec::new();
    for top in 0..TOPS {
        let below = DIRECTORIES / TOPS;
        let directories = (0..below).map(|at| {
            let number = (top * below + at) * PER_DIRECTORY;
            let files =
                (0..PER_DIRECTORY).map(|i| (name(format!("lib-file-{i}.so")), leaf(number + i)));
            (name(format!("directory-{at}")), tree(files.collect()))
        });
        let directories = directories.collect();
        tops.push((name(format!("top-{top}")), tree(directories)));
    }
    let first = tree(tops).as_directory().unwrap().id;
    publish(transaction, first);
    let mut transaction = lab.store.begin().unwrap();
    let path = TreePath::new(b"top-7/directory-3/lib-file-1.so").unwrap();
    let changed = Edit::Leaf(leaf(77).as_leaf().unwrap().clone());
    let second = edit(&mut transaction, first, &[(path, changed)].into()).unwrap();
    publish(transaction, second);
    lab.store.switch(FIRST).unwrap();
}

fn publish(transaction: Transaction, tree: TreeId) {
    let draft = Draft { parent: None, request: "test".into(), tree, packages: tree };
    transaction.commit(draft).unwrap();
}
