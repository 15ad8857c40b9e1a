//! Each change that a command makes to the disk may be its last, or may fail: the store
//! is as it was or as it was to be, and the command can be said again. Each read may fail: that
//! is told with the file, and nothing else is said than what is true.
//!
//! The tests take a sample; `make crash` takes all.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cairn_store::Store;
use cairn_tests::{
    Cairn, Change, Deb, Ended, Fault, Listing, Mount, Need, Random, base_tool_and_app,
    room_comes_back,
};

/// A command that changes something, and what is done before it.
struct Case {
    name: &'static str,
    /// Commands, with `;` between them; TREE, OTHER, MORE and MODEL stand for paths.
    before: &'static str,
    words: &'static str,
    /// It is several changes one after the other: some of them may have been made.
    is_several: bool,
}

const fn case(name: &'static str, before: &'static str, words: &'static str) -> Case {
    Case { name, before, words, is_several: false }
}

const fn several(name: &'static str, before: &'static str, words: &'static str) -> Case {
    Case { name, before, words, is_several: true }
}

/// What each begins with: state 1 has the package base, 2 has tool, too, and is current.
const CASES: [Case; 34] = [
    case("install", "", "--yes install app"),
    case("reinstall", "", "--yes reinstall tool"),
    case("remove", "", "--yes remove tool"),
    several("upgrade", "repo add more file://MORE", "--yes upgrade"),
    case("downgrade", "repo add more file://MORE;--yes upgrade", "--yes downgrade base=1.0-1"),
    case("rollback", "", "rollback"),
    case("switch", "", "switch 1"),
    case("import", "", "import TREE"),
    case("import an archive", "", "import ARCHIVE --switch"),
    case("pull", "", "pull OTHER"),
    several("push", "", "push TARGET"),
    case("tag", "", "state tag second 2"),
    case("tag, for which the log is replaced", "LONG LOG", "state tag second 2"),
    case("untag", "state tag first 1", "state untag first"),
    case("state remove", "", "--yes state remove 1"),
    several("prune --gc", "--yes remove tool", "--yes state prune --keep-last 1 --gc"),
    case("gc", "--yes remove tool;--yes state remove 1 2", "gc --rewrite-below 100"),
    case("compact", "import TREE", "store compact"),
    case("rebuild", "", "store rebuild"),
    case("repair", "DAMAGE", "verify --repair"),
    several("rebuild --states", "LOG", "store rebuild --states"),
    several("apply", "", "--yes apply MODEL"),
    several("repo add", "", "repo add more file://MORE"),
    several("repo set", "", "repo set small --priority 7"),
    case("repo update", "", "repo update"),
    several("repo remove", "repo add more file://MORE", "--yes repo remove more"),
    case("fetch", "", "fetch app"),
    case("workspace reset", "WORKSPACE", "--yes workspace reset work"),
    several("workspace discard", "WORKSPACE", "--yes workspace discard work"),
    several("snapshot", "WORKSPACE", "snapshot work"),
    several("export", "", "export 2 TARGET"),
    several("export an archive", "", "export 2 TARGET.tar"),
    several("cache clean", "CACHE", "cache clean"),
    several("a new store", "NO STORE", "repo add small file://STONES"),
];

/// A machine with a store as the case wants it, and a copy of that.
struct Machine {
    cairn: Cairn,
    case: &'static Case,
    words: Vec<String>,
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    Random(seed).bytes(len)
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    if from.exists() {
        let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
        assert!(copied.success());
    }
}

impl Machine {
    fn new(case: &'static Case) -> Self {
        let cairn = Cairn::new();
        let at = |name: &str| cairn.directory().join(name);
        cairn.offer(base_tool_and_app());
        fs::create_dir_all(at("tree/below")).unwrap();
        for number in 0..10 {
            fs::write(at(&format!("tree/below/{number}")), noise(number + 50, 3000)).unwrap();
        }
        fs::write(at("tree/large"), noise(49, 1_100_000)).unwrap();
        if case.name == "compact" {
            // Versions of a file, which only denser packs have as one.
            for number in 0..12 {
                let version = [&[number; 8][..], &noise(48, 90_000)].concat();
                fs::write(at("tree").join(format!("version {number}")), version).unwrap();
            }
        }
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(at("tree")).arg("-cf").arg(at("archive.tar")).arg(".");
        assert!(tar.status().unwrap().success());
        if case.before.contains("MORE") || case.words.contains("MORE") {
            let newer = Deb::new("base", "2.0-1").file("usr/bin/base", 0o755, "#!/bin/sh\nexit\n");
            let deb = newer.write(&at("debs"));
            let convert = ["--quiet", "convert", "-o"].into_iter().map(Into::into);
            cairn.data(convert.chain([at("more"), deb]));
            cairn.data(["repo".into(), "index".into(), at("more")]);
        }
        if case.words.contains("OTHER") {
            cairn.data(["--yes", "install", "app"]);
            fs::rename(cairn.store(), at("other")).unwrap();
            let stones = format!("file://{}", at("stones").display());
            cairn.data(["repo", "add", "small", &stones]);
        }
        fs::write(at("model.yaml"), "packages: [base, app]\n").unwrap();
        cairn.data(["--yes", "install", "base"]);
        cairn.data(["--yes", "install", "tool"]);
        let places = [
            ("TREE", "tree"),
            ("ARCHIVE", "archive.tar"),
            ("OTHER", "other"),
            ("MORE", "more"),
            ("MODEL", "model.yaml"),
            ("TARGET", "target"),
            ("STONES", "stones"),
        ];
        let split = |words: &str| -> Vec<String> {
            let place = |word: String, (name, place): (&str, &str)| {
                word.replace(name, at(place).to_str().unwrap())
            };
            words.split(' ').map(|word| places.into_iter().fold(word.into(), place)).collect()
        };
        match case.before {
            "" => {}
            "DAMAGE" => damage(&cairn.store()),
            "LOG" => {
                let log = cairn.store().join("refs/log");
                let mut bytes = fs::read(&log).unwrap();
                bytes[40] ^= 1;
                fs::write(log, bytes).unwrap();
            }
            "LONG LOG" => cairn.fill_log(),
            "WORKSPACE" => {
                let mount = Mount::new(&cairn, &["--rw", "work"], "work");
                fs::write(mount.join("written"), noise(8, 5000)).unwrap();
                fs::remove_file(mount.join("usr/bin/tool")).unwrap();
                mount.umount();
            }
            "CACHE" => {
                for name in ["downloads/a.stone", "downloads/b.part", "pull/1.new"] {
                    let path = cairn.store().join("cache").join(name);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, noise(7, 5000)).unwrap();
                }
            }
            "NO STORE" => fs::remove_dir_all(cairn.store()).unwrap(),
            words => words.split(';').for_each(|words| drop(cairn.data(split(words)))),
        }
        copy(&cairn.store(), &at("saved"));
        let words = split(case.words);
        Self { cairn, case, words }
    }

    fn restore(&self) {
        copy(&self.cairn.directory().join("saved"), &self.cairn.store());
        self.remove_made();
    }

    /// Removes what was made beside the store.
    fn remove_made(&self) {
        for name in ["target", "target.tar", "app-1.0-1-1-x86_64.stone"] {
            let path = self.cairn.directory().join(name);
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
    }

    /// The current state, all states, tags and repositories; nothing if there is no store.
    fn shown(&self) -> Vec<String> {
        let place = if self.case.name == "push" { "target" } else { "store" };
        let store = self.cairn.directory().join(place);
        let refs = match Store::open(&store) {
            Ok(store) => store.refs(),
            Err(cairn_store::Error::NotAStore { .. }) => return Vec::new(),
            Err(err @ cairn_store::Error::DamagedLog { .. }) => return vec![err.to_string()],
            Err(err) => panic!("{}: {err}", self.case.name),
        };
        let states = refs.states.values().map(|it| {
            // All but the time.
            format!("{:?} {:?} {} {} {}", it.id, it.parent, it.request, it.tree, it.packages)
        });
        let tags = refs.tags.iter().map(|tag| format!("{tag:?}"));
        let workspaces = self.cairn.json(["workspace", "list"]).to_string();
        let mut repositories = self.cairn.json(["repo", "list"]);
        for repository in repositories.as_array_mut().unwrap() {
            // What was read of it may vanish.
            repository.as_object_mut().unwrap().remove("index");
        }
        let shown = [format!("{:?}", refs.current), repositories.to_string()].into_iter();
        let made = self.made();
        shown.chain(states).chain(tags).chain([workspaces]).chain(made).collect()
    }

    /// What was exported, and what there is to clean.
    fn made(&self) -> Vec<String> {
        let at = |name: &str| self.cairn.directory().join(name);
        match self.case.name {
            "export" if at("target").exists() => {
                vec![format!("{:?}", Listing::of_directory(&at("target")))]
            }
            "export an archive" => {
                let archive = fs::read(at("target.tar"));
                vec![archive.map_or("none".into(), |bytes| blake3::hash(&bytes).to_string())]
            }
            "cache clean" => {
                let cache = self.cairn.store().join("cache");
                let left = ["downloads", "pull"].map(|name| fs::read_dir(cache.join(name)));
                let left = left.into_iter().flatten().flatten();
                let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
                left.map(|entry| name(entry).into_string().unwrap()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Replaces one change, and checks what comes of it.
    fn check(
        &self,
        change: &Change,
        fault: Fault,
        before: &[String],
        after: &[String],
    ) -> Result<(), String> {
        self.restore();
        let ended = change.replaced(&self.cairn, &self.words, fault);
        let now = self.shown();
        let is_done = now == after;
        let is_several = self.case.is_several;
        // An archive appears when it is whole, but it is there before its name is durable.
        let is_one = !is_several || self.case.name == "export an archive";
        if !is_done && now != before && is_one {
            return Err(format!("neither old nor new: {now:#?}"));
        }
        // Updating tells of each repository what has become of it.
        let said = &format!("{}{}", ended.stdout, ended.stderr);
        match (fault, ended.code()) {
            // The state is there, and that the workspace does not go on from it is told.
            (_, Some(0)) if said.contains("was not told of the state") => {}
            (_, Some(0)) if !is_done => return Err(format!("not done, and ends well: {said}")),
            (_, Some(0)) | (Fault::Kill, None) => {}
            (Fault::Kill, _) => return Err(format!("fails: {said}")),
            // Of what is lost no source could be used, which is told with the reason.
            (Fault::Error(error), Some(3)) if self.case.before == "DAMAGE" => {
                if !said.contains(text_of(error)) {
                    return Err(format!("does not say why: {said}"));
                }
            }
            (Fault::Error(error), Some(1)) => {
                if is_done && now != before && !is_several {
                    return Err(format!("is done, and fails: {said}"));
                }
                // Whether it is the disk or what the user may have of it is one to a collection.
                let is_full = error == "EDQUOT" && said.contains(text_of("ENOSPC"));
                if !said.contains(text_of(error)) && !is_full {
                    return Err(format!("does not say why: {said}"));
                }
                let home = self.cairn.directory().to_str().unwrap();
                if !said.contains(home) && !said.contains(" ./") {
                    return Err(format!("does not say where: {said}"));
                }
            }
            (_, code) => return Err(format!("ends with {code:?}: {said}")),
        }
        let is_damaged = matches!(self.case.before, "DAMAGE" | "LOG") && ended.code() != Some(0);
        self.sound(is_damaged)?;
        if self.case.name == "export" {
            // What is left of a directory is in the way.
            self.remove_made();
        }
        let again = self.cairn.run(&self.words);
        // What was done before the end cannot always be done twice.
        let is_over = is_done && before != after && again.code() == Some(1);
        if again.code() != Some(0) && !is_over {
            return Err(format!("and then: {}", again.stderr));
        }
        let finally = self.shown();
        // If it was done before, it may have been done twice.
        if finally != after && !is_done && !is_several {
            return Err(format!("said again: {finally:#?}"));
        }
        if self.case.name.starts_with("export") && finally != after {
            return Err(format!("said again: {finally:#?}"));
        }
        self.sound(false)?;
        if self.cairn.store().join("format").exists() {
            room_comes_back(&self.cairn.store())?;
        }
        Ok(())
    }

    fn sound(&self, is_damaged: bool) -> Result<(), String> {
        if self.cairn.store().join("format").exists() {
            let verified = self.cairn.run(["verify"]);
            let is_right = verified.code() == Some(0) || is_damaged && verified.code() == Some(3);
            if !is_right {
                return Err(format!("verify: {}{}", verified.stdout, verified.stderr));
            }
        }
        Ok(())
    }
}

/// Flips a byte of the smallest pack, which repositories have.
fn damage(store: &Path) {
    let packs = fs::read_dir(store.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    let packs = packs.filter(|path| path.is_file());
    let pack = packs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[3000] ^= 1;
    fs::write(pack, bytes).unwrap();
}

fn text_of(error: &str) -> &'static str {
    match error {
        "EIO" => "Input/output error",
        "ENOSPC" => "No space left on device",
        "EDQUOT" => "Disk quota exceeded",
        "EINTR" => "Interrupted system call",
        other => panic!("what does {other} say?"),
    }
}

/// What can be told of a call instead.
fn errors(call: &str) -> &'static [Fault] {
    const COMMON: [Fault; 3] =
        [Fault::Error("EIO"), Fault::Error("ENOSPC"), Fault::Error("EDQUOT")];
    const ALL: [Fault; 4] = [COMMON[0], COMMON[1], COMMON[2], Fault::Error("EINTR")];
    match call {
        "unlink" | "unlinkat" | "rmdir" | "fchmod" | "fchmodat" | "chmod" => &COMMON[..1],
        "write" | "pwrite64" | "writev" | "pwritev" | "ftruncate" | "fallocate" | "flock"
        | "fsync" | "fdatasync" | "openat" => &ALL,
        _ => &COMMON,
    }
}

/// Has changes of all cases replaced, each by what `faults` says of it; of all that, about
/// `sample` if that is given.
fn replace(faults: fn(&str) -> &'static [Fault], sample: Option<usize>) {
    if !Need::all(&[Need::Program("strace", "strace")]) {
        return;
    }
    let can_mount = Need::all(&[Need::Root, Need::Fuse]);
    let is_possible = |case: &&Case| can_mount || case.before != "WORKSPACE";
    let only = std::env::var("FAULT_CASES").unwrap_or_default();
    let cases: Vec<&Case> =
        CASES.iter().filter(|it| it.name.contains(&only)).filter(is_possible).collect();
    let (next, count) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = Mutex::new(Vec::new());
    let lines = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let machine = Machine::new(case);
                    let before = machine.shown();
                    let changes = Change::all(&machine.cairn, &machine.words);
                    let after = machine.shown();
                    let all: Vec<(&Change, Fault)> = changes
                        .iter()
                        .flat_map(|change| faults(&change.call).iter().map(move |it| (change, *it)))
                        .collect();
                    let mut random = Random(0x5eed ^ case.name.len() as u64);
                    let share = sample.map_or(all.len(), |sample| sample.div_ceil(cases.len()));
                    let mut here = 0;
                    for (number, (change, fault)) in all.iter().enumerate() {
                        let left = all.len() - number;
                        if random.below(left) >= share.saturating_sub(here) {
                            continue;
                        }
                        here += 1;
                        if let Err(problem) = machine.check(change, *fault, &before, &after) {
                            let what = format!("{}: {change:?}: {fault:?}: {problem}", case.name);
                            wrong.lock().unwrap().push(what);
                        }
                    }
                    count.fetch_add(here, Ordering::Relaxed);
                    let line =
                        format!("{:20}{:6} changes{here:8} faults", case.name, changes.len());
                    lines.lock().unwrap().push(line);
                }
            });
        }
    });
    lines.into_inner().unwrap().iter().for_each(|line| println!("{line}"));
    let wrong = wrong.into_inner().unwrap();
    println!("{} faults, {} wrong", count.into_inner(), wrong.len());
    assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
}

#[test]
fn a_command_that_is_killed_at_a_change_leaves_the_old_or_the_new_state() {
    replace(|_| &[Fault::Kill], Some(112));
}

#[test]
#[ignore = "takes minutes: make crash"]
fn a_command_that_is_killed_at_any_change_leaves_the_old_or_the_new_state() {
    replace(|_| &[Fault::Kill], None);
}

#[test]
fn a_change_that_fails_ends_the_command_and_changes_nothing() {
    replace(errors, Some(112));
}

#[test]
#[ignore = "takes minutes: make crash"]
fn any_change_that_fails_ends_the_command_and_changes_nothing() {
    replace(errors, None);
}

/// Commands that only read, and what they find.
const READERS: [Case; 17] = [
    case("state list", "", "state list"),
    case("state show", "", "--json state show"),
    case("history", "", "history"),
    case("list", "", "list"),
    case("files", "", "files tool"),
    case("search", "", "search app"),
    case("check", "", "check"),
    case("ls", "", "ls -lR 2:/"),
    case("cat", "", "cat 2:/usr/bin/base"),
    case("find", "", "find 2 *ool"),
    case("diff", "", "diff 1 2"),
    case("log", "", "log /usr/bin/tool"),
    case("du", "", "du 1 2"),
    case("verify", "", "verify"),
    case("export", "", "export 2 TARGET"),
    case("export an archive", "", "export 2 TARGET.tar"),
    case("workspace diff", "WORKSPACE", "workspace diff work"),
];

impl Machine {
    /// Has one read fail, and checks what comes of it.
    fn check_read(&self, read: &Change, whole: &Ended, before: &[String]) -> Result<(), String> {
        self.remove_made();
        let ended = read.replaced(&self.cairn, &self.words, Fault::Error("EIO"));
        let said = format!("{}{}", ended.stdout, ended.stderr);
        let made = self.made();
        self.remove_made();
        match ended.code() {
            // It was not needed, or read from elsewhere.
            Some(0) if self.is_same(&ended, whole) && before.ends_with(&made) => {}
            Some(0) => return Err(format!("says {said}, and not {}", whole.stdout)),
            // It was not even loaded.
            Some(127) if said.contains("loading shared libraries") => {}
            Some(1 | 3) => {
                let home = self.cairn.directory().to_str().unwrap();
                if !said.contains(text_of("EIO")) || !said.contains(home) {
                    return Err(format!("does not say what and where: {said}"));
                }
            }
            code => return Err(format!("ends with {code:?}: {said}")),
        }
        let again = self.cairn.run(&self.words);
        if again.code() != Some(0) || !self.is_same(&again, whole) || self.shown() != before {
            return Err(format!("and then: {}{}", again.stdout, again.stderr));
        }
        self.sound(false)
    }

    /// Whether two runs say the same; some say how long they took.
    fn is_same(&self, one: &Ended, other: &Ended) -> bool {
        let tells_time = ["verify", "export", "export an archive"].contains(&self.case.name);
        tells_time || one.stdout == other.stdout
    }
}

/// Has reads of all readers fail; of all that, about `sample` if that is given.
fn fail_reads(sample: Option<usize>) {
    let needs = [Need::Program("strace", "strace"), Need::Root, Need::Fuse];
    if !Need::all(&needs) {
        return;
    }
    let only = std::env::var("FAULT_CASES").unwrap_or_default();
    let cases: Vec<&Case> = READERS.iter().filter(|it| it.name.contains(&only)).collect();
    let (next, count) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let machine = Machine::new(case);
                    let (reads, whole) = Change::reads(&machine.cairn, &machine.words);
                    let before = machine.shown();
                    let mut random = Random(0x5eed ^ case.name.len() as u64);
                    let share = sample.map_or(reads.len(), |sample| sample.div_ceil(cases.len()));
                    let mut here = 0;
                    for (number, read) in reads.iter().enumerate() {
                        let left = reads.len() - number;
                        if random.below(left) >= share.saturating_sub(here) {
                            continue;
                        }
                        here += 1;
                        if let Err(problem) = machine.check_read(read, &whole, &before) {
                            let what = format!("{}: {read:?}: {problem}", case.name);
                            wrong.lock().unwrap().push(what);
                        }
                    }
                    count.fetch_add(here, Ordering::Relaxed);
                    println!("{:20}{:6} reads{here:8} failed", case.name, reads.len());
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    println!("{} reads failed, {} wrong", count.into_inner(), wrong.len());
    assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
}

#[test]
fn a_read_that_fails_is_told_with_its_file_and_changes_nothing() {
    fail_reads(Some(51));
}

#[test]
#[ignore = "takes minutes: make crash"]
fn any_read_that_fails_is_told_with_its_file_and_changes_nothing() {
    fail_reads(None);
}
