//! How fast are large files on a mount, read by the kernel itself and not, beside the same
//! files on the native filesystem? Reading and mapping all of a file of 256 MiB, and
//! executing a large program; small files opened, which passthrough makes slower.
//!
//! Cold means: mounted anew, and the caches of the machine dropped; with passthrough what
//! is opened is hashed then. Evicted means: the caches dropped, by a mount that has read all
//! of it before. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_benches::{
    Random, binary, compare, drop_caches, map, median_of, read, report, write_out,
};
use cairn_fs::{Journal, Options, Running, Shape};
use cairn_store::{ImportOptions, Store, import_directory};

const LARGE: usize = 256 << 20;
const SMALL: usize = 2000;

fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = home.path().join("store");
    let store = Store::create(&path).expect("a new store");
    let made = home.path().join("made");
    make(&made);
    let options = ImportOptions {
        request: "large",
        parent: None,
        switch: true,
        leave_out: None,
        one_filesystem: false,
        afresh: true,
    };
    let imported = import_directory(&store, &made, &options, &());
    let tree = imported.expect("the store takes a directory").state.tree;
    fs::remove_dir_all(&made).expect("it goes");
    let native = home.path().join("native");
    write_out(&store, tree, &native);
    drop(store);
    let places = Places { store: path, native, mounted: home.path().join("mounted") };
    fs::create_dir(&places.mounted).expect("a new directory");

    let begun = Instant::now();
    {
        let _running = places.mount(true);
        let _ = read(&places.mounted.join("large"));
        report("read/the first time, expanded/passthrough", begun.elapsed());
        execute(&places.mounted);
    }
    let states: [(&str, Measure); 3] =
        [("warm", Places::warm), ("evicted", Places::evicted), ("cold", Places::cold)];
    for (state, measure) in states {
        for (name, work) in WORK {
            let peer = measure(&places, None, *work);
            let ours = [false, true].map(|how| measure(&places, Some(how), *work));
            tell(&format!("{name}/{state}"), peer, ours);
        }
    }
}

/// Measures work on the native files, or on a mount with passthrough or without.
type Measure = fn(&Places, Option<bool>, Work) -> Duration;

type Work = fn(&Path) -> u64;

const WORK: &[(&str, Work)] = &[
    ("read 256 MiB", |root| read(&root.join("large"))),
    ("map 256 MiB", |root| map(&root.join("large"))),
    ("execute 5 times", |root| (0..5).map(|_| execute(root)).sum()),
    ("read 2,000 files of 2 KiB", |root| {
        (0..SMALL).map(|at| read(&root.join(format!("small/{at}")))).sum()
    }),
];

fn tell(name: &str, peer: Duration, [mount, passthrough]: [Duration; 2]) {
    report(&format!("{name}/native"), peer);
    for (how, ours) in [("mount", mount), ("passthrough", passthrough)] {
        report(&format!("{name}/{how}"), ours);
        compare(&format!("{name}/{how}"), ours, peer);
    }
}

/// A file that compresses to about a half, a program, and small files.
fn make(root: &Path) {
    fs::create_dir_all(root.join("small")).expect("a new directory");
    let mut random = Random(1);
    let mut words = Vec::with_capacity(LARGE + 8);
    while words.len() < LARGE {
        words.extend_from_slice(&(random.below(1 << 32)).to_le_bytes());
    }
    fs::write(root.join("large"), &words[..LARGE]).expect("there is room");
    fs::copy(binary(), root.join("program")).expect("there is room");
    for at in 0..SMALL {
        fs::write(root.join(format!("small/{at}")), &words[at * 2048..][..2048]).expect("it fits");
    }
}

fn execute(root: &Path) -> u64 {
    let mut command = Command::new(root.join("program"));
    let status = command.arg("--version").stdout(Stdio::null()).status().expect("it runs");
    assert!(status.success(), "it runs");
    1
}

struct Places {
    store: PathBuf,
    native: PathBuf,
    mounted: PathBuf,
}

impl Places {
    fn mount(&self, passthrough: bool) -> Running {
        let source = Store::open(&self.store).expect("the store opens");
        let options = Options::new(Shape::Follow, &self.mounted, &self.store);
        let options = Options { run: None, passthrough, ..options };
        let journal: Journal = Arc::new(|event| panic!("{event}"));
        cairn_fs::start(source, &options, journal).expect("a mount, as root")
    }

    /// Mounts, unless the native files are meant; returns where they are.
    fn at(&self, passthrough: Option<bool>) -> (Option<Running>, &Path) {
        match passthrough {
            Some(passthrough) => (Some(self.mount(passthrough)), &self.mounted),
            None => (None, &self.native),
        }
    }

    fn warm(&self, passthrough: Option<bool>, work: Work) -> Duration {
        let (_running, root) = self.at(passthrough);
        median_of(7, || time(|| work(root)))
    }

    fn evicted(&self, passthrough: Option<bool>, work: Work) -> Duration {
        let (_running, root) = self.at(passthrough);
        work(root);
        median_of(5, || {
            drop_caches();
            time(|| work(root))
        })
    }

    fn cold(&self, passthrough: Option<bool>, work: Work) -> Duration {
        median_of(5, || {
            drop_caches();
            let (_running, root) = self.at(passthrough);
            time(|| work(root))
        })
    }
}

fn time(work: impl FnOnce() -> u64) -> Duration {
    let begin = Instant::now();
    assert!(work() > 0);
    begin.elapsed()
}
