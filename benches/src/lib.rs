//! What every benchmark shares: one way to measure, one way to report, one way
//! to make a system.

pub mod debian;
mod sys;

pub use sys::map;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_package::Metadata;
use cairn_package::system::{self, InstalledPackage};
use cairn_store::tree::{Content, Entry, Leaf};
use cairn_store::{
    Attributes, BytesSource, Draft, Name, State, Store, Timestamp, Transaction, Tree, TreeId,
};

/// Runs `work` once for nothing and then `runs` times; returns the median.
pub fn median(runs: usize, mut work: impl FnMut()) -> Duration {
    median_of(runs, || {
        let begin = Instant::now();
        work();
        begin.elapsed()
    })
}

/// Like [`median`], for work that measures its own time, set-up excluded.
pub fn median_of(runs: usize, mut work: impl FnMut() -> Duration) -> Duration {
    work();
    let mut times: Vec<Duration> = (0..runs).map(|_| work()).collect();
    times.sort();
    times[runs / 2]
}

/// Prints one result.
#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
pub fn report(name: &str, time: Duration) {
    println!("{name:<60} {:>12.3} ms", time.as_secs_f64() * 1e3);
}

/// Prints how two results compare: below 1 the first is faster.
#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
pub fn compare(name: &str, ours: Duration, peer: Duration) {
    let ratio = ours.as_secs_f64() / peer.as_secs_f64();
    println!("{name:<60} {ratio:>12.4} of the peer's time");
}

/// Prints how two results compare, and whether that is within a budget of the
/// design.
#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
pub fn judge(name: &str, ours: Duration, peer: Duration, budget: f64) {
    let ratio = ours.as_secs_f64() / peer.as_secs_f64();
    let kept = if ratio <= budget { "kept" } else { "MISSED" };
    println!("{name:<60} {ratio:>12.4} of the peer's time, budget {budget}: {kept}");
}

/// Prints whether a time is within a budget of the design.
#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
pub fn judge_time(name: &str, time: Duration, budget: Duration) {
    let kept = if time <= budget { "kept" } else { "MISSED" };
    let [time, budget] = [time, budget].map(|it| it.as_secs_f64() * 1e3);
    println!("{name:<60} {time:>12.3} ms, budget {budget} ms: {kept}");
}

/// Numbers without a pattern, the same in each run.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// How many entries of its own [`system_package`] makes for one package, at
/// least.
pub const PACKAGE_ENTRIES: u64 = 115;

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("names of benchmarks are names")
}

fn file(blob: cairn_store::BlobRef, number: u64) -> Entry {
    let mtime = Timestamp::new(1_700_000_000 + number.cast_signed(), 0).expect("no nanoseconds");
    let attributes = Attributes { mtime, ..Attributes::of_root(0o644) };
    Entry::Leaf(Leaf { attributes, content: Content::File(blob), link: None })
}

fn directory(transaction: &mut Transaction, entries: Vec<(Name, Entry)>) -> Entry {
    let tree = Tree::new(Attributes::implied_directory(), entries).expect("names differ");
    transaction.put_subtree(tree).expect("the store takes a tree")
}

/// Makes a package with about [`PACKAGE_ENTRIES`] entries as packages of a
/// desktop have them: a program, a library, documents, and data in small
/// directories. Contents have 200 to 4,000 bytes and differ.
pub fn system_package(transaction: &mut Transaction, number: u64) -> InstalledPackage {
    let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let contents: Vec<String> = (0..92)
        .map(|at| {
            let lines = 10 + usize::try_from(random.below(200)).expect("it is below 200");
            format!("{number} {at} line of text\n").repeat(lines)
        })
        .collect();
    let sources: Vec<BytesSource<'_>> = contents
        .iter()
        .map(|text| BytesSource { name: "a benchmark", bytes: text.as_bytes() })
        .collect();
    let blobs = transaction.ingest(&sources, &()).expect("the store takes contents");
    let mut blobs = blobs.into_iter();
    let mut files = |count: u64, prefix: &str| -> Vec<(Name, Entry)> {
        blobs
            .by_ref()
            .zip(0..count)
            .map(|(blob, at)| (name(&format!("{prefix}{at}")), file(blob, number)))
            .collect()
    };
    let package = format!("package{number:05}");
    let bin = files(1, &format!("{package}-"));
    let lib = files(1, &format!("lib{package}.so."));
    let doc = files(4, "doc");
    let data: Vec<Vec<(Name, Entry)>> = (0..17).map(|at| files(5, &format!("data{at}-"))).collect();

    let bin = directory(transaction, bin);
    let lib = directory(transaction, lib);
    let doc = directory(transaction, doc);
    let doc = directory(transaction, vec![(name(&package), doc)]);
    let data = data
        .into_iter()
        .enumerate()
        .map(|(at, entries)| (name(&format!("part{at}")), directory(transaction, entries)))
        .collect();
    let data = directory(transaction, data);
    let share = directory(transaction, vec![(name("doc"), doc), (name(&package), data)]);
    let below = vec![(name("bin"), bin), (name("lib"), lib), (name("share"), share)];
    let usr = directory(transaction, below);
    let root = Tree::new(Attributes::implied_directory(), vec![(name("usr"), usr)]);
    let files = transaction.put_tree(root.expect("one name")).expect("the store takes a tree");
    let metadata = Metadata {
        name: package,
        version: "1.0".into(),
        release: 1,
        summary: "A package of a benchmark".into(),
        description: "It stands for a real one.\n".repeat(5),
        ..Metadata::default()
    };
    InstalledPackage { metadata: Arc::new(metadata), explicit: true, files }
}

/// Makes a system of at least `entries` entries out of packages, and commits
/// it.
pub fn make_system(store: &Store, entries: u64) -> (State, system::Installed) {
    let mut transaction = store.begin().expect("nobody else has the store");
    let coming: Vec<InstalledPackage> = (0..entries.div_ceil(PACKAGE_ENTRIES))
        .map(|number| system_package(&mut transaction, number))
        .collect();
    let none = system::Installed::new();
    let made = system::change(&mut transaction, None, &none, &[], &coming).expect("no conflicts");
    let draft = Draft {
        parent: None,
        request: format!("a system of {entries} entries"),
        tree: made.tree,
        packages: made.packages,
    };
    let state = transaction.commit(draft).expect("the store commits");
    let installed =
        coming.into_iter().map(|package| (package.metadata.name.clone(), package)).collect();
    (state, installed)
}

/// Publishes a state with `packages` more than `base`, whose numbers begin at 1,000,000.
pub fn grown(store: &Store, base: &State, installed: &system::Installed, packages: u64) -> State {
    let mut transaction = store.begin().expect("nobody else has the store");
    let coming: Vec<InstalledPackage> =
        (0..packages).map(|at| system_package(&mut transaction, 1_000_000 + at)).collect();
    let made = system::change(&mut transaction, Some(base), installed, &[], &coming)
        .expect("no conflicts");
    let draft = Draft {
        parent: Some(base.id),
        request: format!("{packages} more"),
        tree: made.tree,
        packages: made.packages,
    };
    transaction.commit(draft).expect("the store commits")
}

/// The binary of this build, told to use `store`.
#[must_use]
pub fn cairn(store: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg("--quiet").arg("--store").arg(store);
    command
}

/// Where the binary of this build is.
#[must_use]
pub fn binary() -> PathBuf {
    let bench = std::env::current_exe().expect("a benchmark knows where it is");
    // target/release/deps/bench -> target/release/cairn
    let release = bench.parent().and_then(Path::parent).expect("it lies in target/release/deps");
    let binary = release.join("cairn");
    assert!(binary.exists(), "{} is missing: cargo build --release", binary.display());
    binary
}

/// A mount that goes away however this ends.
#[derive(Debug)]
pub struct Mounted<'a>(pub &'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let target = self.0.to_string_lossy();
        if mounts.lines().any(|line| line.split(' ').nth(1) == Some(&target)) {
            let _ = Command::new(binary()).args(["--quiet", "umount"]).arg(self.0).status();
        }
    }
}

/// Runs a command that must succeed, with its output kept for the case that it
/// does not.
pub fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("the command starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}

/// Writes out what is not on the disk yet, and has the kernel forget pages, names and
/// inodes. Needs root.
pub fn drop_caches() {
    run(Command::new("sync").arg("-f").arg("/"));
    fs::write("/proc/sys/vm/drop_caches", "3").expect("root may drop caches");
}

/// Lists all directories and stats every entry; returns how many there are, with the
/// sizes of what is not a directory.
#[must_use]
pub fn walk(root: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(root).expect("it can be listed") {
        let entry = entry.expect("it can be listed");
        let metadata = entry.metadata().expect("it is there");
        sum += 1 + if metadata.is_dir() { walk(&entry.path()) } else { metadata.size() };
    }
    sum
}

/// Reads a file to its end; returns how many bytes it has.
#[must_use]
pub fn read(path: &Path) -> u64 {
    let mut file = fs::File::open(path).expect("it opens");
    let mut buf = vec![0; 128 << 10];
    let mut sum = 0;
    loop {
        match file.read(&mut buf).expect("it reads") {
            0 => return sum,
            len => sum += len as u64,
        }
    }
}

/// Writes a tree of directories, files and symbolic links into a new directory.
pub fn write_out(store: &Store, id: TreeId, to: &Path) {
    let tree = store.tree(id).expect("it is there");
    fs::create_dir(to).expect("a new directory");
    for (name, entry) in tree.entries() {
        let path = to.join(std::str::from_utf8(name).expect("names of benchmarks are UTF-8"));
        match entry {
            Entry::Directory(subtree) => write_out(store, subtree.id, &path),
            Entry::Leaf(leaf) => match &leaf.content {
                Content::File(blob) => {
                    let bytes = store.read(blob).expect("it is sound");
                    let mut file = fs::File::create(&path).expect("a new file");
                    file.write_all(&bytes).expect("there is room");
                    let mode = fs::Permissions::from_mode(leaf.attributes.mode.into());
                    file.set_permissions(mode).expect("it is ours");
                }
                Content::Symlink(target) => {
                    let target = std::str::from_utf8(target).expect("a link of a benchmark");
                    symlink(target, &path).expect("a new link");
                }
                _ => {}
            },
        }
    }
    let mode = fs::Permissions::from_mode(tree.attributes.mode.into());
    fs::set_permissions(to, mode).expect("it is ours");
}
