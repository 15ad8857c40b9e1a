//! Garbage goes and damage is mended, through the program: beside mounts, on a full
//! disk, and from repositories.
//!
//! `ENDURE_SECONDS` is for how long states are read while all else is collected; without it
//! that is a few seconds.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use cairn_tests::{
    Cairn, Deb, Listing, Mount, Need, Random, StopOnDrop, amount, drop_names, eventually, signal,
};

const DAMAGED: i32 = 3;

/// A store with three states: 1 has base, 2 has app, too, and 3 is without it again.
fn store() -> Cairn {
    let cairn = Cairn::new();
    let mut base = Deb::new("base", "1-1").file("usr/bin/base", 0o755, "#!/bin/sh\n");
    let mut app = Deb::new("app", "1-1").field("Depends", "base");
    for number in 0..40 {
        let path = format!("usr/share/base/{number}");
        base = base.file(&path, 0o644, Random(number + 1).bytes(3000));
        let path = format!("usr/share/app/{number}");
        app = app.file(&path, 0o644, Random(number + 100).bytes(3000));
    }
    app = app.file("usr/share/app/large", 0o644, Random(6).bytes(1_500_000));
    cairn.offer([base, app]);
    cairn.data(["--yes", "install", "base"]);
    cairn.data(["--yes", "install", "app"]);
    cairn.data(["--yes", "remove", "app"]);
    cairn
}

fn packs(cairn: &Cairn) -> Vec<PathBuf> {
    let entries = fs::read_dir(cairn.store().join("packs")).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

fn stored(cairn: &Cairn) -> u64 {
    packs(cairn).iter().map(|pack| pack.metadata().unwrap().len()).sum()
}

#[test]
fn what_a_mount_shows_stays_until_it_is_gone() {
    if !Need::all(&[Need::Fuse]) {
        return;
    }
    let cairn = store();
    let before = stored(&cairn);
    let pinned = Mount::new(&cairn, &["--state", "2"], "pinned");
    let following = Mount::new(&cairn, &["--follow"], "following");
    let shown = Listing::of_directory(pinned.path());
    let followed = Listing::of_directory(following.path());
    cairn.data(["--yes", "state", "prune", "--keep-last", "1"]);
    let would = cairn.json(["gc", "--dry-run"]);
    assert_eq!(stored(&cairn), before, "a dry run changes nothing");
    assert_eq!(would["dry_run"], true);
    let done = cairn.json(["gc", "--rewrite-below", "100"]);
    assert_eq!(done["states"], 1);
    assert_eq!(done["left"]["objects"], 0);
    // The mounts know where things were, and find them where they are now.
    Listing::of_directory(pinned.path()).assert_same(&shown, "the pinned mount");
    Listing::of_directory(following.path()).assert_same(&followed, "the following mount");
    assert!(stored(&cairn) > 1_500_000);
    pinned.umount();
    let done = cairn.json(["gc", "--rewrite-below", "100"]);
    assert!(done["freed"].as_u64().unwrap() > 1_500_000, "{done}");
    assert_eq!(done["stored"].as_u64().unwrap(), stored(&cairn));
    assert!(stored(&cairn) < 200_000, "{}", stored(&cairn));
    Listing::of_directory(following.path()).assert_same(&followed, "after the second gc");
    assert!(cairn.data(["verify"]).ends_with(": no damage.\n"));
    assert_eq!(cairn.json(["gc"])["freed"], 0);
}

#[test]
fn old_states_are_compacted_beside_a_mount_of_all_and_read_the_same() {
    if !Need::all(&[Need::Fuse]) {
        return;
    }
    let cairn = store();
    // Longer than any frame, and compressible.
    let root = cairn.directory().join("root");
    fs::create_dir(&root).unwrap();
    let words = |seed: u64| -> Vec<u8> {
        let mut random = Random(seed);
        (0..900_000).flat_map(|_| format!("{} ", random.below(5000)).into_bytes()).collect()
    };
    fs::write(root.join("long"), words(1)).unwrap();
    let imported = cairn.json(["import", "root"])["state"].to_string();
    let all = Mount::new(&cairn, &[], "all");
    let old = |state: &str| Listing::of_directory(&all.join(&format!("states/{state}")));
    let shown = ["1", "2", &imported].map(&old);
    // The mount of one state keeps it as it is.
    let pinned = Mount::new(&cairn, &["--state", "1"], "pinned");
    let before = stored(&cairn);
    let would = cairn.json(["store", "compact", "--dry-run"]);
    assert_eq!((&would["dry_run"], stored(&cairn)), (&true.into(), before));
    let done = cairn.json(["store", "compact"]);
    assert_eq!(done["stored"].as_u64().unwrap(), stored(&cairn));
    assert!(stored(&cairn) < before, "{before} {done}");
    assert_eq!((&done["bytes"], &done["bytes_before"]), (&would["bytes"], &would["bytes_before"]));
    for (state, shown) in ["1", "2", &imported].into_iter().zip(&shown) {
        old(state).assert_same(shown, "compacted");
    }
    // Not out of what the kernel or the daemon remembers.
    drop((all, pinned));
    let all = Mount::new(&cairn, &[], "all");
    for (state, shown) in ["1", "2", &imported].into_iter().zip(&shown) {
        Listing::of_directory(&all.join(&format!("states/{state}"))).assert_same(shown, "anew");
    }
    let long = fs::File::open(all.join(&format!("states/{imported}/long"))).unwrap();
    let mut buf = [0; 1000];
    std::os::unix::fs::FileExt::read_exact_at(&long, &mut buf, 4_194_304 - 500).unwrap();
    assert!(buf[..] == words(1)[4_194_304 - 500..][..1000], "over the end of a frame");
    let said = cairn.data(["store", "compact"]);
    assert!(said.contains("Nothing to compact") || said.contains("Made"), "{said}");
    assert!(cairn.data(["verify"]).ends_with(": no damage.\n"));
}

/// A directory of texts that changes, each time in an eighth of its files.
struct Changing {
    root: PathBuf,
    random: Random,
}

impl Changing {
    fn new(root: PathBuf) -> Self {
        let mut changing = Self { root, random: Random(17) };
        (0..Self::FILES).for_each(|number| changing.write(number));
        changing
    }

    const FILES: usize = 240;

    /// Most files are small and share frames, some fill frames, and some have packs of their own.
    fn write(&mut self, number: usize) {
        let len = match number % 100 {
            0 => 1_500_000,
            1..=4 => 200_000,
            _ => self.random.below(9000),
        };
        let directory = self.root.join(format!("d{}/e{}", number % 9, number % 31));
        fs::create_dir_all(&directory).unwrap();
        let words = (0..len / 4).map(|_| format!("{} ", self.random.below(1000)));
        fs::write(directory.join(number.to_string()), words.collect::<String>()).unwrap();
    }

    fn change(&mut self) {
        for _ in 0..Self::FILES / 8 {
            let number = self.random.below(Self::FILES);
            self.write(number);
        }
    }
}

/// A state that is read, and what is in it.
struct Version {
    state: String,
    listing: Listing,
}

/// The newest states of a store, which are read while older ones go.
struct Shelf<'c> {
    cairn: &'c Cairn,
    /// The oldest first.
    versions: RwLock<Vec<Arc<Version>>>,
    stop: AtomicBool,
    /// What was read: entries, walks of states that are there, and of one that is not.
    entries: AtomicU64,
    walks: AtomicU64,
    removed_walks: AtomicU64,
}

impl<'c> Shelf<'c> {
    const KEPT: usize = 3;

    fn new(cairn: &'c Cairn) -> Self {
        let [entries, walks, removed_walks] = [const { AtomicU64::new(0) }; 3];
        let (versions, stop) = (RwLock::default(), AtomicBool::new(false));
        Self { cairn, versions, stop, entries, walks, removed_walks }
    }

    fn kept(&self) -> Vec<Arc<Version>> {
        self.versions.read().unwrap().clone()
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Makes a state of what is there now the newest.
    fn add(&self, changing: &mut Changing) {
        changing.change();
        let state = self.cairn.json(["import", "root"])["state"].to_string();
        self.cairn.data(["switch", &state]);
        let listing = Listing::of_directory(&changing.root);
        self.versions.write().unwrap().push(Arc::new(Version { state, listing }));
    }

    /// Reads every byte of a state, and has the kernel forget it.
    fn read(&self, version: &Version, mount: &Mount<'_>, path: &str) {
        let found = Listing::of_directory(&mount.join(path));
        found.assert_same(&version.listing, &format!("state {}", version.state));
        self.entries.fetch_add(found.0.len() as u64, Ordering::Relaxed);
        drop_names(mount.path()).unwrap();
    }

    /// Reads states that are kept, until all is over.
    fn read_kept(&self, all: &Mount<'_>, seed: u64) {
        let _stop = StopOnDrop(&self.stop);
        let mut random = Random(seed);
        while self.goes_on() {
            let version = random.choose(&self.kept()).clone();
            self.read(&version, all, &format!("states/{}", version.state));
            self.walks.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads states that nothing keeps but that they are mounted, until all is over.
    fn read_removed(&self) {
        let _stop = StopOnDrop(&self.stop);
        while self.goes_on() {
            let oldest = self.kept()[0].clone();
            let mount = Mount::new(self.cairn, &["--state", &oldest.state], "pinned");
            let version = Version { state: oldest.state.clone(), listing: oldest.listing.clone() };
            drop(oldest);
            let mut walks = 0;
            while self.goes_on() && walks < 3 {
                if self.kept().iter().all(|kept| kept.state != version.state) {
                    walks += 1;
                    // The next process has nothing in memory, and no pack open.
                    kill(&mount);
                }
                self.read(&version, &mount, "");
            }
            self.removed_walks.fetch_add(walks, Ordering::Relaxed);
            mount.umount();
        }
    }

    /// Removes the oldest state when nobody reads it, and collects and compacts what is left.
    /// Returns how many packs were rewritten, how many replaced, and how much was freed.
    fn collect(&self) -> [u64; 3] {
        let oldest = self.versions.write().unwrap().remove(0);
        eventually("the oldest state is left", || {
            assert!(self.goes_on(), "a reader has failed");
            Arc::strong_count(&oldest) == 1
        });
        let kept = Self::KEPT.to_string();
        self.cairn.data(["--yes", "state", "prune", "--keep-last", &kept]);
        let collected = self.cairn.json(["gc", "--rewrite-below", "100"]);
        let compacted = self.cairn.json(["store", "compact"]);
        let packs = [&collected["packs_rewritten"], &compacted["packs_replaced"]];
        [packs[0], packs[1], &collected["freed"]].map(|told| told.as_u64().unwrap())
    }
}

/// Kills the process of a mount. One that has just taken over answers before it is named.
fn kill(mount: &Mount<'_>) {
    eventually("its process is killed", || signal(mount.process(), libc::SIGKILL).is_ok());
}

#[test]
fn old_states_are_read_while_all_around_them_is_collected_and_compacted() {
    let length = Duration::from_secs(amount("ENDURE_SECONDS", 3) as u64);
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = Cairn::new();
    let shelf = Shelf::new(&cairn);
    let mut changing = Changing::new(cairn.directory().join("root"));
    (0..Shelf::KEPT).for_each(|_| shelf.add(&mut changing));
    let all = Mount::new(&cairn, &[], "all");
    let (mut done, mut rounds) = ([0; 3], 0);
    thread::scope(|scope| {
        let (shelf, all, _stop) = (&shelf, &all, StopOnDrop(&shelf.stop));
        for seed in 1..=3 {
            scope.spawn(move || shelf.read_kept(all, seed));
        }
        scope.spawn(move || shelf.read_removed());
        let begun = Instant::now();
        // On a slow machine, until each kind of work has been done.
        let has_read_removed = || shelf.removed_walks.load(Ordering::Relaxed) > 0;
        while begun.elapsed() < length || done.contains(&0) || !has_read_removed() {
            assert!(
                begun.elapsed() < length + Duration::from_mins(2),
                "too little is done: {done:?}"
            );
            shelf.add(&mut changing);
            done.iter_mut().zip(shelf.collect()).for_each(|(sum, more)| *sum += more);
            kill(all);
            rounds += 1;
        }
    });
    let [entries, walks, removed] =
        [&shelf.entries, &shelf.walks, &shelf.removed_walks].map(|it| it.load(Ordering::Relaxed));
    let [rewritten, replaced, freed] = done;
    println!(
        "{length:?}: 4 readers read {entries} entries in {walks} walks of states, and {removed} of \
         removed ones; {rounds} times pruned, collected and compacted: {rewritten} packs \
         rewritten, {replaced} replaced by denser ones, {} KiB freed",
        freed >> 10,
    );
    assert!(walks > 0);
    assert!(cairn.data(["verify"]).ends_with(": no damage.\n"));
}

#[test]
fn pruning_keeps_what_was_asked_for_and_says_what_it_frees() {
    let cairn = store();
    cairn.data(["state", "tag", "kept", "1"]);
    let words = ["state", "prune", "--keep-last", "1"];
    let would = cairn.json([&words[..], &["--dry-run"]].concat());
    assert_eq!(would["removed"][0]["state"], 2);
    assert!(would["gc"]["freed"].as_u64().unwrap() > 1_500_000, "{would}");
    assert_eq!(cairn.json(["state", "list"]).as_array().unwrap().len(), 3);
    let done = cairn.json([&["--yes"][..], &words[..], &["--gc"]].concat());
    assert_eq!(done["kept"][0]["reasons"][0], "tag kept");
    assert!(done["gc"]["freed"].as_u64().unwrap() > 1_500_000, "{done}");
    assert_eq!(cairn.json(["state", "list"]).as_array().unwrap().len(), 2);
    assert!(cairn.data(["verify"]).ends_with(": no damage.\n"));
    cairn.fails(2, ["--yes", "state", "prune"]);
    // Nothing is removed unasked.
    cairn.data(["state", "untag", "kept"]);
    let asked = cairn.run(["state", "prune", "--keep-daily", "0"]);
    assert!(asked.stderr.contains("cannot ask"), "{}", asked.stderr);
    assert_eq!(cairn.json(["state", "list"]).as_array().unwrap().len(), 2);
}

/// A small filesystem; unmounted when dropped.
struct Small(PathBuf);

impl Small {
    /// In memory.
    fn tmpfs(at: &Path, size: &str) -> Self {
        Self::mount(at, &["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "cairn-test"])
    }

    /// In a file, with blocks of 1 KiB, none of them reserved.
    fn ext4(at: &Path, size: u64) -> Self {
        let image = at.with_extension("image");
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        let mut make = Command::new("mkfs.ext4");
        let made = make.args(["-q", "-b", "1024", "-m", "0"]).arg(&image).status().unwrap();
        assert!(made.success());
        Self::mount(at, &["-o", "loop", image.to_str().unwrap()])
    }

    fn mount(at: &Path, words: &[&str]) -> Self {
        fs::create_dir_all(at).unwrap();
        assert!(Command::new("mount").args(words).arg(at).status().unwrap().success());
        Self(at.into())
    }

    /// Copies a store onto it; returns the path of the copy.
    fn take(&self, cairn: &Cairn) -> String {
        let path = self.0.join("store");
        let copied = Command::new("cp").arg("-a").arg(cairn.store()).arg(&path).status().unwrap();
        assert!(copied.success());
        path.to_str().unwrap().into()
    }

    /// Leaves no byte of it free.
    fn fill(&self) {
        let mut filler = fs::File::create(self.0.join("filler")).unwrap();
        let mut written = 0;
        for len in [1 << 16, 1 << 12, 1] {
            while std::io::Write::write_all(&mut filler, &vec![0; len]).is_ok() {
                written += len;
            }
        }
        assert!(written > 1 << 16, "there was room");
        filler.sync_all().unwrap();
    }

    fn unfill(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_emptied() {
    if !Need::all(&[Need::Root]) {
        return;
    }
    let cairn = store();
    let small = Small::tmpfs(&cairn.directory().join("small"), "8m");
    let path = small.take(&cairn);
    let at = path.as_str();
    cairn.data(["--yes", "--store", at, "state", "prune", "--keep-last", "1"]);
    small.fill();
    let done = cairn.json(["--store", at, "gc", "--rewrite-below", "100"]);
    assert!(done["freed"].as_u64().unwrap() > 1_500_000, "{done}");
    let verified = cairn.data(["--store", at, "verify"]);
    assert!(verified.ends_with(": no damage.\n"), "{verified}");
    small.unfill();
    cairn.data(["--yes", "--store", at, "install", "app"]);
}

#[test]
fn states_can_be_removed_and_read_where_there_is_no_room_for_a_byte() {
    if !Need::all(&[Need::Root, Need::Program("mkfs.ext4", "e2fsprogs")]) {
        return;
    }
    let cairn = store();
    let listing = cairn.data(["ls", "-lR", "2:/"]);
    for has_index in [true, false] {
        let small = Small::ext4(&cairn.directory().join("small"), 16 << 20);
        let path = small.take(&cairn);
        let at = path.as_str();
        if !has_index {
            fs::remove_dir_all(small.0.join("store/index")).unwrap();
        }
        small.fill();
        assert_eq!(cairn.data(["--store", at, "ls", "-lR", "2:/"]), listing);
        let failed = cairn.run(["--yes", "--store", at, "install", "app"]);
        assert!(failed.stderr.contains("No space left"), "{}", failed.stderr);
        let words = ["--yes", "--store", at, "state", "prune", "--keep-last", "1", "--gc"];
        let done = cairn.json(words);
        assert!(done["gc"]["freed"].as_u64().unwrap() > 1_500_000, "{done}");
        let verified = cairn.data(["--store", at, "verify"]);
        assert!(verified.ends_with(": no damage.\n"), "{verified}");
        small.unfill();
        cairn.data(["--yes", "--store", at, "install", "app"]);
    }
}

#[test]
fn a_store_that_cannot_be_written_is_read_also_without_its_index() {
    if !Need::all(&[Need::Root, Need::Fuse, Need::Program("mkfs.ext4", "e2fsprogs")]) {
        return;
    }
    let cairn = store();
    let listing = cairn.data(["ls", "-lR", "2:/"]);
    for has_index in [true, false] {
        let small = Small::ext4(&cairn.directory().join("small"), 16 << 20);
        let path = small.take(&cairn);
        let at = path.as_str();
        if !has_index {
            fs::remove_dir_all(small.0.join("store/index")).unwrap();
        }
        let mut remount = Command::new("mount");
        assert!(remount.args(["-o", "remount,ro"]).arg(&small.0).status().unwrap().success());
        assert_eq!(cairn.data(["--store", at, "ls", "-lR", "2:/"]), listing);
        assert!(cairn.data(["--store", at, "verify"]).ends_with(": no damage.\n"));
        let failed = cairn.run(["--yes", "--store", at, "switch", "2"]);
        assert!(failed.stderr.contains("Read-only file system"), "{}", failed.stderr);
    }
}

#[test]
fn damage_is_repaired_from_repositories_or_another_store_and_told_if_it_cannot_be() {
    let cairn = store();
    let whole = cairn.directory().join("whole");
    let copied = Command::new("cp").arg("-a").arg(cairn.store()).arg(&whole).status().unwrap();
    assert!(copied.success());
    let listing = cairn.data(["ls", "-lR", "2:/"]);
    let flip = |pack: &Path, at: usize| {
        let mut bytes = fs::read(pack).unwrap();
        bytes[at] ^= 4;
        fs::write(pack, bytes).unwrap();
    };
    // Each pack, in its frames and in its tables.
    let anew = || {
        fs::remove_dir_all(cairn.store()).unwrap();
        let copied = Command::new("cp").arg("-a").arg(&whole).arg(cairn.store()).status().unwrap();
        assert!(copied.success());
    };
    let from = whole.to_str().unwrap();
    // Files come from repositories; where the tables are gone, what a state has is known
    // only elsewhere.
    for pack in packs(&cairn) {
        let len = pack.metadata().unwrap().len() as usize;
        let words: [(usize, &[&str]); 2] =
            [(50, &["verify", "--repair"]), (len - 10, &["verify", "--repair", "--from", from])];
        for (at, words) in words {
            anew();
            flip(&pack, at);
            assert_eq!(cairn.run(["verify"]).code(), Some(DAMAGED));
            let repaired = cairn.run(words);
            assert_eq!(repaired.code(), Some(0), "{}{}", repaired.stdout, repaired.stderr);
            assert!(repaired.stdout.contains("Nothing is lost"), "{}", repaired.stdout);
            assert!(cairn.data(["verify"]).ends_with(": no damage.\n"));
            assert_eq!(cairn.data(["ls", "-lR", "2:/"]), listing);
            assert_eq!(fs::read_dir(cairn.store().join("quarantine")).unwrap().count(), 1);
        }
    }

    // Without repositories another store helps.
    anew();
    cairn.data(["--yes", "repo", "remove", &repository(&cairn)]);
    let large = packs(&cairn).into_iter().max_by_key(|pack| pack.metadata().unwrap().len());
    flip(&large.unwrap(), 9000);
    let failed = cairn.run(["verify", "--repair"]);
    assert_eq!(failed.code(), Some(DAMAGED), "{}", failed.stdout);
    assert!(failed.stdout.contains("lost: blob "), "{}", failed.stdout);
    let repaired = cairn.json(["verify", "--repair", "--from", from]);
    assert_eq!(repaired["repair"]["restored"][from], 1, "{repaired}");
    assert!(cairn.data(["verify"]).ends_with(": no damage.\n"));
    assert_eq!(cairn.data(["ls", "-lR", "2:/"]), listing);
}

fn repository(cairn: &Cairn) -> String {
    cairn.json(["repo", "list"])[0]["name"].as_str().unwrap().into()
}
