//! Packages come and go, a workspace is changed and published, states are switched to,
//! pruned, collected and compacted, in random order: each state that is left is, on a mount,
//! what the same steps have made of plain directories.
//!
//! The directories are made by dpkg-deb, tar, cp and system calls. `MODEL_SEEDS` is how many
//! sequences there are (1), `MODEL_FROM` the number of the first (1), and `MODEL_STEPS` how many
//! steps each has (15).

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use cairn_tests::{Cairn, Deb, Listing, Mount, Need, Plain, Random, amount, run};

const PACKAGES: usize = 8;

/// The package that another one needs; the others need none.
fn needs(package: usize) -> Option<usize> {
    (package >= PACKAGES / 2).then_some(package % 3)
}

fn with_needed(explicit: &BTreeSet<usize>) -> BTreeSet<usize> {
    explicit.iter().copied().chain(explicit.iter().filter_map(|it| needs(*it))).collect()
}

fn name(package: usize) -> String {
    format!("p{package}")
}

fn deb(package: usize) -> Deb {
    let (name, noise) = (name(package), |seed, len| Random(seed).bytes(len));
    let seed = 100 * package as u64;
    let mut deb = Deb::new(&name, "1.0-1");
    if let Some(other) = needs(package) {
        deb = deb.field("Depends", &self::name(other));
    }
    for number in 0..5 {
        let path = format!("usr/share/{name}/{number}");
        deb = deb.file(&path, 0o644, noise(seed + number + 1, 3000));
    }
    // Directories that several have, and the same file in different places.
    deb = deb.file(&format!("usr/lib/common/{name}.so"), 0o755, noise(seed + 7, 40_000));
    deb = deb.file(&format!("usr/share/doc/{name}/copyright"), 0o644, "the same everywhere\n");
    deb = deb.file(&format!("etc/{name}.conf"), 0o644, "one");
    deb.symlink(&format!("usr/bin/{name}"), &format!("../share/{name}/0"))
}

/// What a state has.
#[derive(Clone)]
struct Model {
    explicit: BTreeSet<usize>,
    /// A directory with all of it.
    plain: PathBuf,
}

/// A machine, and plain directories beside its store.
struct World<'c> {
    cairn: &'c Cairn,
    debs: Vec<PathBuf>,
    states: BTreeMap<u64, Model>,
    random: Random,
}

/// Where people write: below it, nothing is of a package.
const OWN: &str = "srv";

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

impl<'c> World<'c> {
    fn new(cairn: &'c Cairn, seed: u64) -> Self {
        let made = cairn.directory().join("made");
        let debs = (0..PACKAGES).map(|package| deb(package).write(&made)).collect();
        cairn.offer((0..PACKAGES).map(deb));
        let mut world = Self { cairn, debs, states: BTreeMap::new(), random: Random(seed) };
        world.cairn.data(["--yes", "install", "p0"]);
        world.note(BTreeSet::from([0]), None);
        world
    }

    fn model(&self) -> &Model {
        &self.states[&self.cairn.current()]
    }

    /// Notes what the current state has to be: these packages, and what people have written
    /// in another one, or there.
    fn note(&mut self, explicit: BTreeSet<usize>, own: Option<&Path>) {
        let current = self.cairn.current();
        let plain = self.cairn.directory().join(format!("plain-{current}"));
        fs::create_dir(&plain).unwrap();
        let debs = with_needed(&explicit).into_iter().map(|package| &self.debs[package]);
        let _ = Plain::unpack(debs, &plain);
        if let Some(own) = own {
            fs::remove_dir(plain.join(OWN)).unwrap();
            copy(own, &plain.join(OWN));
        }
        self.states.insert(current, Model { explicit, plain });
    }

    fn step(&mut self) -> String {
        match self.random.below(12) {
            0..3 => self.install(),
            3..5 => self.remove(),
            5..8 => self.snapshot(),
            8..10 => self.switch(),
            10 => self.prune(),
            _ => {
                let words = [&["gc", "--rewrite-below", "100"][..], &["gc"], &["store", "compact"]];
                let words = *self.random.choose(&words);
                self.cairn.data(words);
                words.join(" ")
            }
        }
    }

    fn install(&mut self) -> String {
        let Model { mut explicit, plain } = self.model().clone();
        let chosen: BTreeSet<usize> =
            (0..=self.random.below(2)).map(|_| self.random.below(PACKAGES)).collect();
        let names: Vec<String> = chosen.iter().map(|package| name(*package)).collect();
        let before = self.cairn.current();
        self.cairn.data(["--yes", "install"].into_iter().chain(names.iter().map(String::as_str)));
        explicit.extend(chosen);
        if self.cairn.current() != before {
            self.note(explicit, Some(&plain.join(OWN)));
        }
        format!("install {names:?}")
    }

    fn remove(&mut self) -> String {
        let Model { mut explicit, plain } = self.model().clone();
        let there: Vec<usize> = with_needed(&explicit).into_iter().collect();
        let chosen = *self.random.choose(&there);
        explicit.retain(|package| *package != chosen && needs(*package) != Some(chosen));
        let what = format!("remove {}", name(chosen));
        if explicit.is_empty() {
            return format!("no {what}");
        }
        self.cairn.data(["--yes", "remove", &name(chosen)]);
        self.note(explicit, Some(&plain.join(OWN)));
        what
    }

    /// Writes in a workspace and in a plain directory, and publishes the former.
    fn snapshot(&mut self) -> String {
        let Model { explicit, plain } = self.model().clone();
        let (before, own) = (self.cairn.current(), self.cairn.directory().join("own"));
        copy(&plain.join(OWN), &own);
        let mount = Mount::new(self.cairn, &["--rw", "work"], "work");
        let mut changes = 0;
        for _ in 0..self.random.below(12) {
            let change = Change::new(&own, &mut self.random);
            // The kernel refuses more on an overlay: a rename of a directory from below.
            if change.make(&mount.join(OWN)).is_ok() {
                change.make(&own).unwrap();
                changes += 1;
            }
        }
        let shown = Listing::of_directory(&mount.join(OWN));
        Listing::of_directory(&own).assert_same(&shown, "the workspace");
        let is_live = self.random.below(3) == 0;
        if is_live {
            self.cairn.data(["snapshot", "work"]);
            mount.umount();
        } else {
            mount.umount();
            self.cairn.data(["snapshot", "work"]);
        }
        self.cairn.data(["--yes", "workspace", "discard", "work"]);
        if self.cairn.current() != before {
            self.note(explicit, Some(&own));
        }
        fs::remove_dir_all(own).unwrap();
        format!("snapshot of {changes} changes{}", if is_live { ", live" } else { "" })
    }

    fn switch(&mut self) -> String {
        let states: Vec<u64> = self.states.keys().copied().collect();
        let state = self.random.choose(&states).to_string();
        self.cairn.data(["switch", &state]);
        format!("switch {state}")
    }

    fn prune(&mut self) -> String {
        let kept = (1 + self.random.below(6)).to_string();
        self.cairn.data(["--yes", "state", "prune", "--keep-last", &kept, "--gc"]);
        let listed = self.cairn.json(["state", "list"]);
        let left: BTreeSet<u64> =
            listed.as_array().unwrap().iter().map(|it| it["state"].as_u64().unwrap()).collect();
        let current = self.cairn.current();
        let newest = self.states.keys().rev().take(kept.parse().unwrap()).copied();
        let expected: BTreeSet<u64> = newest.chain([current]).collect();
        assert_eq!(left, expected, "pruned to {kept}");
        self.states.retain(|state, _| left.contains(state));
        format!("prune to {kept}")
    }
}

/// A change of what people write. The same of two equal directories leaves them equal.
#[derive(Debug)]
enum Change {
    Write(PathBuf, Vec<u8>),
    Append(PathBuf),
    Directory(PathBuf),
    Link(PathBuf, String),
    Rename(PathBuf, PathBuf),
    Mode(PathBuf, u32),
    Remove(PathBuf),
}

impl Change {
    /// One that can be made of what is below `root`.
    fn new(root: &Path, random: &mut Random) -> Self {
        let (mut all, mut directories) = (Vec::new(), vec![PathBuf::new()]);
        let mut at = 0;
        while let Some(directory) = directories.get(at).cloned() {
            at += 1;
            let entries = fs::read_dir(root.join(&directory)).unwrap();
            let mut entries: Vec<_> = entries.map(|entry| entry.unwrap()).collect();
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let path = directory.join(entry.file_name());
                if entry.file_type().unwrap().is_dir() {
                    directories.push(path.clone());
                }
                all.push(path);
            }
        }
        let place = random.choose(&directories).join(random.choose(&["a", "b", "c", "d"]));
        let len = *random.choose(&[0, 10, 5000, 200_000]);
        let kind = random.below(10);
        let some = if all.is_empty() { place.clone() } else { random.choose(&all).clone() };
        let is_file = root.join(&some).symlink_metadata().is_ok_and(|it| it.is_file());
        match kind {
            0..2 if place != some => Self::Rename(some, place),
            2 if is_file => Self::Append(some),
            3 if is_file => Self::Mode(some, *random.choose(&[0o600, 0o644, 0o4755])),
            4 => Self::Remove(some),
            5 => Self::Directory(place),
            // It leads nowhere: what is written through it would be somewhere else.
            6 => Self::Link(place, format!("nowhere/{}", random.below(100))),
            _ => Self::Write(place, random.bytes(len)),
        }
    }

    fn make(&self, root: &Path) -> io::Result<()> {
        match self {
            Self::Write(path, bytes) => {
                let mut file = File::create(root.join(path))?;
                file.write_all(bytes)?;
                settle(&file)
            }
            Self::Append(path) => {
                let mut file = File::options().append(true).open(root.join(path))?;
                file.write_all(b"more")?;
                settle(&file)
            }
            Self::Directory(path) => fs::create_dir(root.join(path)),
            Self::Link(path, text) => {
                symlink(text, root.join(path))?;
                let mut touch = Command::new("touch");
                run(touch.args(["-h", "-d", "@1700000000"]).arg(root.join(path)));
                Ok(())
            }
            Self::Rename(from, to) => fs::rename(root.join(from), root.join(to)),
            Self::Mode(path, mode) => {
                fs::set_permissions(root.join(path), Permissions::from_mode(*mode))
            }
            Self::Remove(path) => {
                let path = root.join(path);
                if path.symlink_metadata()?.is_dir() {
                    fs::remove_dir_all(path)
                } else {
                    fs::remove_file(path)
                }
            }
        }
    }
}

/// Gives a file a time that does not depend on when it was written.
fn settle(file: &File) -> io::Result<()> {
    let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    file.set_times(FileTimes::new().set_modified(time))
}

/// What rsync would change to make `mounted` what `plain` is; directories of composed roots
/// have no time of their own.
fn rsync(plain: &Path, mounted: &Path) -> String {
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAXnO", "--checksum", "--modify-window=-1", "--itemize-changes", "--delete"]);
    run(rsync.args([plain, mounted].map(|path| format!("{}/", path.display()))))
}

#[test]
fn whatever_is_done_each_state_is_what_the_same_makes_of_plain_directories() {
    let (seeds, steps) = (amount("MODEL_SEEDS", 1), amount("MODEL_STEPS", 15));
    let first = amount("MODEL_FROM", 1);
    let needs = [Need::Root, Need::Fuse, Need::Program("rsync", "rsync")];
    if !Need::all(&needs) {
        return;
    }
    let mut compared = 0;
    for seed in (first as u64..).take(seeds) {
        let cairn = Cairn::new();
        let mut world = World::new(&cairn, number_of(seed));
        let root = Mount::new(&cairn, &["--follow"], "root");
        for step in 0..steps {
            let what = world.step();
            let what = format!("seed {seed}, step {step}: {what}");
            let shown = Listing::of_directory(root.path());
            Listing::of_directory(&world.model().plain).assert_same(&shown, &what);
            compared += shown.0.len();
        }
        let what = format!("seed {seed}, at the end");
        assert_eq!(rsync(&world.model().plain, root.path()), "", "{what}");
        let all = Mount::new(&cairn, &[], "all");
        for (state, model) in &world.states {
            let state = all.join(&format!("states/{state}"));
            assert_eq!(rsync(&model.plain, &state), "", "{what}: {}", state.display());
        }
        all.umount();
        root.umount();
        let verified = cairn.data(["verify"]);
        assert!(verified.ends_with(": no damage.\n"), "{what}: {verified}");
    }
    println!("{seeds} sequences of {steps} steps: {compared} entries compared");
}

/// A number that looks like no other seed's.
fn number_of(seed: u64) -> u64 {
    let hash = blake3::hash(&seed.to_le_bytes());
    u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap()) | 1
}
