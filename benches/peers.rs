//! How fast is a mounted system beside every other way to have the same files: the native
//! filesystem, overlayfs, squashfs and EROFS of the kernel, composefs, and squashfuse?
//!
//! Debian 12 has no composefs, and no mkfs.erofs that knows zstd (1.8 and newer do); of Debian
//! 13's sources both can be built. What is not in PATH is left out, with a line that says so.
//! One tree for all: a root of real packages, with the bytecode of its Python and one large file
//! that is made of the others. Each question is asked cold (mounted anew, after
//! the caches of the machine were dropped) and warm. Words after `--` choose questions by
//! their names. Needs root.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cairn_benches::{Random, cairn, drop_caches, median_of, run};
use cairn_tests::real;

/// Bytes of the large file.
const LARGE: u64 = 256 << 20;

/// Where it lies in the tree.
const LARGE_PATH: &str = "var/large";

/// Work in a root that has the tree; returns something that is the same in all roots.
type Question = fn(&Path, &Tree) -> u64;

/// Mounts the tree on a directory.
type Mount = Box<dyn Fn(&Path)>;

/// What the design allows a warm mount, as a part of the native time.
const WARM: f64 = 1.4;

/// What is asked of each peer: the same work on the same tree; and what the design allows a
/// cold mount where it says so.
const QUESTIONS: &[(&str, Question, Option<f64>)] = &[
    ("walk", walk, Some(0.5)),
    ("stat, names that are there", stat_there, None),
    ("stat, names that are not", stat_missing, None),
    ("open and read small files", read_small, Some(1.0)),
    ("read all files", read_all, Some(0.8)),
    ("read the large file", read_large, None),
    ("4 KiB at 2,000 random places of it", read_random, None),
    ("map it, touch each page", map_large, None),
    ("exec 100 programs", execute, None),
    ("grep, two at once", grep, None),
    ("python3, many modules", import_modules, None),
];

/// The tree as it lies in the native directory.
struct Tree {
    /// Paths of all entries in a random order.
    paths: Vec<PathBuf>,
    /// Paths of files of at most 16 KiB in a random order.
    small: Vec<PathBuf>,
    /// Paths of all files, sorted.
    files: Vec<PathBuf>,
}

/// A way to have the tree.
struct Peer {
    name: &'static str,
    /// Makes it appear at a directory; nothing for the native one.
    mount: Option<Mount>,
    at: PathBuf,
}

impl Peer {
    fn root(&self) -> &Path {
        &self.at
    }

    fn appear(&self) {
        if let Some(mount) = &self.mount {
            mount(&self.at);
        }
    }

    fn vanish(&self) {
        if self.mount.is_some() {
            run(Command::new("umount").arg(&self.at));
        }
    }
}

#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let home = tempfile::tempdir_in(cairn_tests::target()).expect("a temporary directory");
    let native = home.path().join("native");
    let store = home.path().join("store");
    make_tree(home.path(), &native);
    let tree = Tree::of(&native);
    println!("{} entries, {} files", tree.paths.len(), tree.files.len());
    let peers = peers(home.path(), &native, &store);
    let is_asked = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));

    println!("\n| | {} |", peers.iter().map(|it| it.name).collect::<Vec<_>>().join(" | "));
    println!("|---|{}", "---:|".repeat(peers.len()));
    let mut missed = Vec::new();
    for (name, work, cold_budget) in QUESTIONS.iter().filter(|(name, ..)| is_asked(name)) {
        for (how, budget) in [("cold", *cold_budget), ("warm", Some(WARM))] {
            let mut expected = None;
            let mut times = Vec::new();
            for peer in &peers {
                let ask = || {
                    let begun = Instant::now();
                    let answer = work(peer.root(), &tree);
                    assert_eq!(*expected.get_or_insert(answer), answer, "{}: {name}", peer.name);
                    begun.elapsed()
                };
                times.push(if how == "cold" { cold(peer, ask) } else { warm(peer, ask) });
            }
            let cells: Vec<String> = times.iter().map(|time| cell(*time, times[0])).collect();
            println!("| {name}, {how} | {} |", cells.join(" | "));
            // The first is native, and the second Cairn.
            let ratio = times[1].as_secs_f64() / times[0].as_secs_f64();
            missed.extend(
                budget
                    .filter(|budget| ratio > *budget)
                    .map(|budget| format!("{name}, {how}: {ratio:.2}, budget {budget}: MISSED")),
            );
        }
    }
    println!("\n{}", missed.join("\n"));
}

/// The median of five, each on a new mount.
fn cold(peer: &Peer, mut ask: impl FnMut() -> Duration) -> Duration {
    median_of(5, || {
        drop_caches();
        peer.appear();
        let time = ask();
        peer.vanish();
        time
    })
}

/// The median of seven on one mount, after one that does not count.
fn warm(peer: &Peer, ask: impl FnMut() -> Duration) -> Duration {
    peer.appear();
    let time = median_of(7, ask);
    peer.vanish();
    time
}

/// The time of the first, and the ratio to it of each other.
fn cell(time: Duration, first: Duration) -> String {
    if time == first {
        return format!("{:.1} ms", time.as_secs_f64() * 1e3);
    }
    format!("{:.2}", time.as_secs_f64() / first.as_secs_f64())
}

/// A root of real packages as a plain directory, as somebody would have it on a disk.
fn make_tree(home: &Path, native: &Path) {
    let repository = real::repository().expect("packages of Debian");
    let store = home.join("store of packages");
    run(cairn(&store).args(["repo", "add", "debian"]).arg(&repository));
    run(cairn(&store).args(["--yes", "install"]).args(real::ROOTS));
    run(cairn(&store).args(["export", "1"]).arg(native));
    fs::remove_dir_all(&store).expect("it was ours");
    let compile = "import compileall; compileall.compile_dir('/usr/lib/python3.11', quiet=2)";
    run(Command::new("chroot").arg(native).args(["python3", "-c", compile]));
    let mut large = File::create(native.join(LARGE_PATH)).expect("a new file");
    let mut rest = LARGE;
    for path in Tree::of(native).files {
        let bytes = fs::read(native.join(path)).expect("it is there");
        let len = rest.min(bytes.len() as u64);
        large.write_all(&bytes[..usize::try_from(len).expect("of a file")]).expect("there is room");
        rest -= len;
    }
    assert_eq!(rest, 0, "the tree is too small for its large file");
}

fn peers(home: &Path, native: &Path, store: &Path) -> Vec<Peer> {
    let at = |name: &str| {
        let path = home.join("mounts").join(name);
        fs::create_dir_all(&path).expect("a new directory");
        path
    };
    let image = |name: &str, make: &mut Command| {
        run(make);
        home.join(name)
    };
    let squashfs = image(
        "squashfs",
        Command::new("mksquashfs").arg(native).arg(home.join("squashfs")).args([
            "-quiet",
            "-no-progress",
            "-comp",
            "zstd",
            "-Xcompression-level",
            "3",
        ]),
    );
    let erofs = image(
        "erofs",
        Command::new("mkfs.erofs").args(["--quiet"]).arg(home.join("erofs")).arg(native),
    );
    let compressed = |name: &str, how: &[&str]| {
        let mut mkfs = Command::new("mkfs.erofs");
        image(name, mkfs.arg("--quiet").args(how).arg(home.join(name)).arg(native))
    };
    let erofs_lz4 = compressed("erofs-lz4", &["-zlz4hc"]);
    run(cairn(store).arg("import").arg(native));

    let on_loop = |image: PathBuf, kind: &'static str| -> Option<Mount> {
        Some(Box::new(move |at| {
            run(Command::new("mount").args(["-o", "loop,ro", "-t", kind]).arg(&image).arg(at));
        }))
    };
    let [upper, work] = ["upper", "work"].map(|name| at(&format!("overlay-{name}")));
    let lower = native.to_owned();
    let overlay = move |at: &Path| {
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        run(Command::new("mount").args(["-t", "overlay", "-o", &options, "overlay"]).arg(at));
    };
    let squashfs_too = squashfs.clone();
    let squashfuse = move |at: &Path| {
        run(Command::new("squashfuse_ll").arg(&squashfs_too).arg(at));
    };
    let store = store.to_owned();
    let ours = |options: &'static [&'static str]| -> Option<Mount> {
        let store = store.clone();
        Some(Box::new(move |at| {
            run(cairn(&store).args(["mount", "--state", "1"]).args(options).arg(at));
        }))
    };
    let mut peers = vec![
        Peer { name: "ext4", mount: None, at: native.into() },
        Peer { name: "Cairn", mount: ours(&[]), at: at("cairn") },
        Peer {
            name: "Cairn, --passthrough",
            mount: ours(&["--passthrough"]),
            at: at("passthrough"),
        },
        Peer { name: "overlayfs", mount: Some(Box::new(overlay)), at: at("overlay") },
        Peer { name: "squashfs, zstd", mount: on_loop(squashfs, "squashfs"), at: at("squashfs") },
        Peer { name: "EROFS", mount: on_loop(erofs, "erofs"), at: at("erofs") },
        Peer { name: "EROFS, lz4hc", mount: on_loop(erofs_lz4, "erofs"), at: at("erofs-lz4") },
        Peer { name: "squashfuse, zstd", mount: Some(Box::new(squashfuse)), at: at("squashfuse") },
    ];
    if says(Command::new("mkfs.erofs").arg("--help"), "zstd") {
        let erofs = compressed("erofs-zstd", &["-zzstd,9", "-C65536"]);
        let mount = on_loop(erofs, "erofs");
        peers.push(Peer { name: "EROFS, zstd", mount, at: at("erofs-zstd") });
    }
    if says(Command::new("mkcomposefs").arg("--help"), "digest-store") {
        let (objects, image) = (home.join("objects"), home.join("composefs"));
        let store = format!("--digest-store={}", objects.display());
        run(Command::new("mkcomposefs").arg(store).arg(native).arg(&image));
        let options = format!("basedir={}", objects.display());
        let composefs = move |at: &Path| {
            run(Command::new("mount.composefs").args(["-o", &options]).arg(&image).arg(at));
        };
        let mount: Option<Mount> = Some(Box::new(composefs));
        peers.push(Peer { name: "composefs", mount, at: at("composefs") });
    }
    peers
}

/// Whether a program is there and speaks of something; says so if not.
#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
fn says(program: &mut Command, word: &str) -> bool {
    let told = program.output().is_ok_and(|output| {
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).contains(word)
    });
    if !told {
        println!("left out: {} with {word}", program.get_program().display());
    }
    told
}

impl Tree {
    fn of(root: &Path) -> Self {
        let mut tree = Self { paths: Vec::new(), small: Vec::new(), files: Vec::new() };
        tree.add(root, Path::new(""));
        tree.files.sort();
        let mut random = Random(0x51_7c_c1_b7_27_22_0a_95);
        shuffle(&mut tree.paths, &mut random);
        shuffle(&mut tree.small, &mut random);
        tree
    }

    fn add(&mut self, root: &Path, below: &Path) {
        for entry in fs::read_dir(root.join(below)).expect("it can be listed") {
            let entry = entry.expect("it can be listed");
            let path = below.join(entry.file_name());
            let metadata = entry.metadata().expect("it is there");
            if metadata.is_dir() {
                self.add(root, &path);
            } else if metadata.is_file() {
                self.files.push(path.clone());
                if metadata.len() <= 16 << 10 {
                    self.small.push(path.clone());
                }
            }
            self.paths.push(path);
        }
    }
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for at in (1..items.len()).rev() {
        let other = random.below(at as u64 + 1);
        items.swap(at, usize::try_from(other).expect("it is below a length"));
    }
}

fn walk(root: &Path, _: &Tree) -> u64 {
    cairn_benches::walk(root)
}

/// Up to 20,000 names in a random order.
fn stat_there(root: &Path, tree: &Tree) -> u64 {
    let paths = tree.paths.iter().take(20_000);
    paths
        .map(|path| u64::from(fs::symlink_metadata(root.join(path)).expect("it is there").mode()))
        .sum()
}

/// The same names with two letters more.
fn stat_missing(root: &Path, tree: &Tree) -> u64 {
    let mut count = 0;
    for path in tree.paths.iter().take(20_000) {
        let mut name = root.join(path).into_os_string();
        name.push(".x");
        count += u64::from(fs::symlink_metadata(name).is_err());
    }
    count
}

/// Up to 5,000 files in a random order.
fn read_small(root: &Path, tree: &Tree) -> u64 {
    let paths = tree.small.iter().take(5_000);
    paths.map(|path| fs::read(root.join(path)).expect("it reads").len() as u64).sum()
}

fn read_all(root: &Path, tree: &Tree) -> u64 {
    tree.files.iter().map(|path| cairn_benches::read(&root.join(path))).sum()
}

fn read_large(root: &Path, _: &Tree) -> u64 {
    cairn_benches::read(&root.join(LARGE_PATH))
}

fn read_random(root: &Path, _: &Tree) -> u64 {
    let file = File::open(root.join(LARGE_PATH)).expect("it opens");
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut buf = [0; 4096];
    let mut sum = 0;
    for _ in 0..2_000 {
        let offset = random.below(LARGE / 4096) * 4096;
        file.read_exact_at(&mut buf, offset).expect("it reads");
        sum += u64::from(buf[0]);
    }
    sum
}

/// With the Python of the machine, which costs each peer the same.
fn map_large(root: &Path, _: &Tree) -> u64 {
    let program = "import mmap, sys\n\
         f = open(sys.argv[1], 'rb')\n\
         m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)\n\
         print(sum(m[0::4096]))";
    number(Command::new("python3").args(["-c", program]).arg(root.join(LARGE_PATH)))
}

fn execute(root: &Path, _: &Tree) -> u64 {
    let script = "i=0; while [ $i -lt 50 ]; do /usr/bin/true; /usr/bin/expr 1 + 1 >/dev/null; \
                  i=$((i + 1)); done; echo $i";
    number(Command::new("chroot").arg(root).args(["/bin/sh", "-c", script]))
}

/// Over what has text: /usr/share and /usr/lib/python3.
fn grep(root: &Path, _: &Tree) -> u64 {
    let script = "cd \"$1\" && find usr/share usr/lib/python3* -type f -print0 \
                  | xargs -0 -n 100 -P 2 grep -cF 'Copyright' \
                  | awk -F: '{ sum += $NF } END { print sum }'";
    number(Command::new("sh").args(["-c", script, "sh"]).arg(root))
}

fn import_modules(root: &Path, _: &Tree) -> u64 {
    let program = "import argparse, asyncio, csv, ctypes, decimal, difflib, email.mime.text, http.client, \
                   http.server, json, logging.handlers, multiprocessing, pydoc, sqlite3, ssl, tarfile, \
                   unittest.mock, urllib.request, xml.dom.minidom, zipfile, sys; print(len(sys.modules))";
    number(Command::new("chroot").arg(root).args(["python3", "-c", program]))
}

/// What a program prints, which must be a number.
fn number(command: &mut Command) -> u64 {
    let output = command.output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let problem = String::from_utf8_lossy(&output.stderr);
    text.parse().unwrap_or_else(|_| panic!("{command:?}: {text}{problem}"))
}
