//! A live root under load, switched 200 times by `cairn switch`: no error, no mixed
//! content, nothing stale.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cairn_store::{StateId, Store};
use cairn_tests::{
    Cairn, Deb, Listing, Mount, Mounted, Need, Random, StopOnDrop, eventually, real,
};

/// Real packages that some states have and others have not.
const EXTRA: [&str; 6] = ["nano", "jq", "tree", "less", "bc", "make"];

/// What both files of a pair hold in version `number`.
fn text(number: u64) -> String {
    format!("{number}\n").repeat(60_000)
}

/// A version of a package that all states have, with a pair of files that belong
/// together.
fn pair(number: u64) -> Deb {
    Deb::new("pair", &format!("{number}-1"))
        .file("usr/share/pair/number", 0o644, number.to_string())
        .file("usr/share/pair/first", 0o644, text(number))
        .file("usr/share/pair/second", 0o644, text(number))
        .file(&format!("usr/share/pair/only-{number}/below/file"), 0o644, "x")
        .file("usr/share/same/file", 0o644, "same")
}

/// States of real packages; returns the version of the pair in each.
fn states(cairn: &Cairn, repository: &Path) -> BTreeMap<StateId, u64> {
    cairn.data(["repo", "add", "real", &format!("file://{}", repository.display())]);
    let mut versions = BTreeMap::new();
    for number in 1..=EXTRA.len() as u64 {
        cairn.offer([pair(number)]);
        if number == 1 {
            cairn.data(["--yes", "install", "pair", "bash", "coreutils"]);
        } else {
            cairn.data(["--yes", "upgrade"]);
        }
        versions.insert(StateId(cairn.current()), number);
        // Each has other directories than the one before.
        cairn.data(["--yes", "install", EXTRA[number as usize - 1]]);
        versions.insert(StateId(cairn.current()), number);
        if number % 2 == 0 {
            cairn.data(["--yes", "remove", EXTRA[number as usize - 2]]);
            versions.insert(StateId(cairn.current()), number);
        }
    }
    versions
}

/// What all threads of the load share.
struct Load<'a> {
    root: &'a Path,
    stop: AtomicBool,
    /// How often each kind of work was done.
    counts: [AtomicU64; 3],
}

impl Load<'_> {
    /// Does `work` until the load is stopped; a thread that fails stops the others.
    fn repeat(&self, kind: usize, work: impl Fn()) {
        let _stop = StopOnDrop(&self.stop);
        while !self.stop.load(Ordering::Relaxed) {
            work();
            self.counts[kind].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Switches `count` times, and until each kind of work has met many of them; then
    /// the load stops.
    fn repeat_switches(&self, count: usize, mut switch: impl FnMut(usize)) {
        let _stop = StopOnDrop(&self.stop);
        let deadline = Instant::now() + Duration::from_secs(120);
        for round in 0.. {
            assert!(!self.stop.load(Ordering::Relaxed), "a part of the load has failed");
            assert!(Instant::now() < deadline, "{round} switches: {:?}", self.counts);
            let is_worked = self.counts.iter().all(|it| it.load(Ordering::Relaxed) >= 20);
            if round >= count && is_worked {
                break;
            }
            switch(round);
        }
    }

    fn execute(&self) {
        let mut command = Command::new("chroot");
        command.arg(self.root).args(["/usr/bin/bash", "-c", "cat /usr/share/pair/first; pwd"]);
        let output = command.env("PATH", "/usr/sbin:/usr/bin").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{}: {stderr}", output.status);
        assert_whole(output.stdout.strip_suffix(b"/\n").expect("pwd comes last"));
    }

    fn read(&self) {
        let pair = self.root.join("usr/share/pair");
        for name in ["first", "second"] {
            assert_whole(&fs::read(pair.join(name)).unwrap());
        }
        // In two parts, with a switch between them or not.
        let mut open = File::open(pair.join("second")).unwrap();
        let mut bytes = vec![0; 5000];
        open.read_exact(&mut bytes).unwrap();
        thread::yield_now();
        open.read_to_end(&mut bytes).unwrap();
        assert_whole(&bytes);
        assert_eq!(fs::read(self.root.join("usr/share/same/file")).unwrap(), b"same");
    }

    /// Looks at everything, as find(1) does. A name that was listed may be gone when
    /// it is looked at; no other error may happen, and what all states have is listed.
    fn walk(&self) {
        let gone = |err: &std::io::Error| {
            matches!(err.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        };
        let mut stack = vec![self.root.to_path_buf()];
        let always = ["usr/bin/bash", "usr/bin/cat", "usr/share/pair", "usr/share/same"];
        let always = always.map(|path| self.root.join(path));
        let mut found = 0;
        while let Some(directory) = stack.pop() {
            let entries = match fs::read_dir(&directory) {
                Err(err) if gone(&err) => continue,
                entries => entries.unwrap_or_else(|err| panic!("{}: {err}", directory.display())),
            };
            for entry in entries {
                let entry = match entry {
                    Err(err) if gone(&err) => break,
                    entry => entry.unwrap_or_else(|err| panic!("{}: {err}", directory.display())),
                };
                let path = entry.path();
                found += usize::from(always.contains(&path));
                match fs::symlink_metadata(&path) {
                    Ok(metadata) if metadata.is_dir() => stack.push(path),
                    Err(err) if !gone(&err) => panic!("{}: {err}", path.display()),
                    _ => {}
                }
            }
        }
        assert_eq!(found, always.len(), "names that all states have");
    }
}

/// Checks that bytes are one version of a file of the pair.
fn assert_whole(bytes: &[u8]) {
    let number = bytes.first().map_or(0, |first| first.wrapping_sub(b'0'));
    let is_whole = bytes == text(number.into()).as_bytes();
    assert!(is_whole, "{} bytes that begin with {number} are a mixture", bytes.len());
}

#[test]
fn two_hundred_switches_under_load_disturb_nobody() {
    const SWITCHES: usize = 200;
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let Some(repository) = real::repository() else { return };
    let cairn = Cairn::new();
    let versions = states(&cairn, &repository);
    let store = Store::open(&cairn.store()).unwrap();
    let listings: BTreeMap<StateId, Listing> = versions
        .keys()
        .map(|id| (*id, Listing::of_tree(&store, store.state(*id).unwrap().tree)))
        .collect();
    let ids: Vec<StateId> = versions.keys().copied().collect();
    let root = Mount::new(&cairn, &["--follow"], "root");
    let load = Load { root: root.path(), stop: AtomicBool::new(false), counts: Default::default() };

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut times = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| load.repeat(0, || load.execute()));
        scope.spawn(|| load.repeat(1, || load.read()));
        scope.spawn(|| load.repeat(2, || load.walk()));
        load.repeat_switches(SWITCHES, |round| {
            let id = *random.choose(&ids);
            let begun = Instant::now();
            let told = cairn.json(["switch", &id.to_string()]);
            times.push(begun.elapsed());
            assert_eq!(told["mounts"][0]["failure"], serde_json::Value::Null, "{told}");
            let what = format!("after switch {round}, to state {id}");
            let number = fs::read_to_string(root.join("usr/share/pair/number")).unwrap();
            assert_eq!(number, versions[&id].to_string(), "{what}");
            let only = root.join(&format!("usr/share/pair/only-{number}/below/file"));
            assert_eq!(fs::read(only).unwrap(), b"x", "{what}");
            for extra in EXTRA {
                let path = format!("usr/bin/{extra}");
                let is_there = listings[&id].0.contains_key(path.as_bytes());
                assert_eq!(root.join(&path).exists(), is_there, "{what}: {path}");
            }
            if round % 40 == 0 {
                listings[&id].assert_same(&Listing::of_directory(root.path()), &what);
            }
        });
    });
    // What is left in the kernel's caches is true for every state.
    for id in &ids {
        cairn.data(["switch", &id.to_string()]);
        let what = format!("after the load, in state {id}");
        listings[id].assert_same(&Listing::of_directory(root.path()), &what);
    }
    times.sort();
    let counts = load.counts.map(AtomicU64::into_inner);
    eprintln!(
        "cairn switch under load: median {:?}, worst {:?}; programs, reads, walks: {counts:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
}

#[test]
fn processes_that_still_use_replaced_files_are_named() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = Cairn::new();
    let sleep = fs::read("/usr/bin/sleep").unwrap();
    // What follows a program's sections changes nothing but the content.
    let other = [&sleep[..], b"newer"].concat();
    let version = |number: u8, sleep: &[u8]| {
        Deb::new("napper", &format!("{number}-1"))
            .file("usr/bin/napper", 0o755, sleep)
            .file("usr/share/napper/data", 0o644, [number; 5000])
            .file("usr/share/napper/same", 0o644, "same")
    };
    cairn.offer([version(1, &sleep)]);
    cairn.data(["--yes", "install", "napper"]);
    cairn.offer([version(2, &other)]);
    let root = Mount::new(&cairn, &["--follow"], "root");
    let mut child = Command::new(root.join("usr/bin/napper")).arg("1000").spawn().unwrap();
    let (data, same) = ("usr/share/napper/data", "usr/share/napper/same");
    let open = [data, same].map(|path| File::open(root.join(path)).unwrap());

    let upgraded = cairn.json(["--yes", "upgrade", "--list-affected"]);
    let processes = &upgraded["affected"]["processes"];
    let files = |pid: u32| {
        let processes = processes.as_array().unwrap();
        processes.iter().find(|it| it["pid"] == pid).unwrap_or(&serde_json::Value::Null)["files"]
            .clone()
    };
    let sleeping = child.id();
    assert_eq!(
        files(sleeping),
        serde_json::json!([{"path": "/usr/bin/napper", "use": "executed"}]),
        "{upgraded}"
    );
    assert_eq!(
        files(std::process::id()),
        serde_json::json!([{"path": "/usr/share/napper/data", "use": "open"}]),
        "{upgraded}"
    );
    assert_eq!(processes.as_array().unwrap().len(), 2, "{upgraded}");
    // In the state that they are from they use nothing old.
    let back = cairn.data(["rollback", "--list-affected"]);
    assert!(back.contains("No process uses a file that has been replaced.\n"), "{back}");
    let forth = cairn.data(["switch", "2", "--list-affected"]);
    assert!(forth.contains("2 processes still use files that have been replaced"), "{forth}");
    let line = forth.lines().find(|line| line.contains("/usr/bin/napper")).expect("it is named");
    assert!(line.trim_start().starts_with(&sleeping.to_string()), "{forth}");
    // Without the option nobody looks.
    assert!(cairn.json(["switch", "1"]).get("affected").is_none());
    child.kill().unwrap();
    child.wait().unwrap();
    drop(open);
    root.umount();
}

/// A process that naps until this is dropped.
struct Napping(Child);

impl Napping {
    fn new(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }
}

impl Drop for Napping {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A control group that goes away with the test, after its processes.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let groups = Need::control_groups().expect("they were asked for");
        let path = groups.join(format!("cairn-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn take(&self, process: &Napping) {
        fs::write(self.0.join("cgroup.procs"), process.0.id().to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel may still be at the end of its last process.
        for _ in 0..1000 {
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn the_service_of_a_process_is_named_wherever_it_has_the_mount() {
    if !Need::all(&[Need::Fuse, Need::Root, Need::ControlGroups]) {
        return;
    }
    let cairn = Cairn::new();
    let sleep = fs::read("/usr/bin/sleep").unwrap();
    let version = |number: u8, more: &[u8]| {
        Deb::new("napper", &format!("{number}-1"))
            .file("usr/bin/napper", 0o755, [&sleep[..], more].concat())
            .file("usr/bin/same", 0o755, &sleep)
    };
    cairn.offer([version(1, b"")]);
    cairn.data(["--yes", "install", "napper"]);
    cairn.offer([version(2, b"newer")]);
    let root = Mount::new(&cairn, &["--follow"], "root");
    let bin = root.join("usr/bin").display().to_string();
    let bound = Mounted::new(&cairn.directory().join("bound"), &["--bind", &bin]);
    let group = Group::new("napper.service");
    let nap = |program: PathBuf| Napping::new(Command::new(program).arg("1000"));
    // One has it from the mount, one from a directory of it that lies elsewhere, and one
    // where only it sees that.
    let apart = "mount --bind \"$1\" \"$2\" && exec \"$2\"/napper 1000";
    let other = cairn.directory().join("other");
    fs::create_dir(&other).unwrap();
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", apart, "sh", &bin]);
    let children = [
        nap(root.join("usr/bin/napper")),
        nap(bound.path().join("napper")),
        Napping::new(unshare.arg(&other)),
        nap(bound.path().join("same")),
    ];
    children.iter().for_each(|child| group.take(child));
    let comm = |it: &Napping| fs::read_to_string(format!("/proc/{}/comm", it.0.id())).unwrap();
    eventually("all nap", || children[..3].iter().all(|child| comm(child) == "napper\n"));

    let upgraded = cairn.json(["--yes", "upgrade", "--list-affected"]);
    let affected = &upgraded["affected"];
    let mut expected: Vec<u32> = children[..3].iter().map(|it| it.0.id()).collect();
    expected.sort_unstable();
    let processes = affected["processes"].as_array().unwrap();
    let found: Vec<u64> = processes.iter().map(|it| it["pid"].as_u64().unwrap()).collect();
    assert_eq!(found, expected.into_iter().map(u64::from).collect::<Vec<_>>(), "{upgraded}");
    let unit = group.0.file_name().unwrap().to_str().unwrap();
    for process in processes {
        assert_eq!(process["unit"], unit);
        let files = serde_json::json!([{"path": "/usr/bin/napper", "use": "executed"}]);
        assert_eq!(process["files"], files);
    }
    assert_eq!(affected["units"], serde_json::json!([unit]));
    let shown = cairn.data(["switch", "2", "--list-affected"]);
    assert!(shown.contains(&format!("systemctl restart {unit}\n")), "{shown}");
    drop((children, group));
    bound.umount();
    root.umount();
}

#[test]
fn a_mount_tells_what_it_was_asked_for_and_what_that_took() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = Cairn::new();
    let data = Random(1).bytes(300_000);
    let mut deb = Deb::new("data", "1-1").file("usr/share/data", 0o644, &data);
    let name = |number| format!("usr/share/many/{number:02}");
    // In a frame each.
    for number in 0..40 {
        deb = deb.file(&name(number), 0o644, Random(number).bytes(100_000));
    }
    cairn.offer([deb]);
    cairn.data(["--yes", "install", "data"]);
    let root = Mount::new(&cairn, &["--follow"], "root");
    let stats = || cairn.json(["stats", root.path().to_str().unwrap()]);
    let count = |stats: &serde_json::Value, kind: &str| {
        let all = stats["requests"].as_array().unwrap().iter();
        all.filter(|it| it["operation"] == kind)
            .map(|it| it["count"].as_u64().unwrap())
            .sum::<u64>()
    };
    let before = stats();
    assert_eq!((count(&before, "read"), &before["bytes_read"]), (0, &0.into()));
    assert_eq!(fs::read(root.join("usr/share/data")).unwrap(), data);
    let cold = stats();
    assert!(count(&cold, "lookup") >= 3 && count(&cold, "read") >= 1, "{cold}");
    assert_eq!(cold["bytes_read"], data.len());
    assert!(cold["store"]["frames_decoded"].as_u64().unwrap() >= 3, "{cold}");
    assert!(cold["store"]["bytes_decoded"].as_u64().unwrap() >= data.len() as u64, "{cold}");
    let decoded = |slow: &serde_json::Value| slow["frames_decoded"].as_u64().unwrap();
    assert!(cold["slowest"].as_array().unwrap().iter().map(decoded).sum::<u64>() >= 3, "{cold}");
    assert_eq!(cold["pid"], root.process());
    // What the kernel has it does not ask for.
    assert_eq!(fs::read(root.join("usr/share/data")).unwrap(), data);
    assert_eq!(count(&stats(), "read"), count(&cold, "read"));
    // Of files that lie behind each other the next ones are decoded while one is looked at.
    for number in 0..40 {
        let bytes = fs::read(root.join(&name(number))).unwrap();
        assert!(bytes == Random(number).bytes(100_000), "{number}");
        thread::sleep(Duration::from_millis(5));
    }
    let ahead = &stats()["store"];
    let [read, used] = ["frames_read_ahead", "frames_read_ahead_used"].map(|it| ahead[it].as_u64());
    assert!(used >= Some(10) && read >= used, "{ahead}");
    let shown = cairn.data(["stats", root.path().to_str().unwrap()]);
    for line in [
        "lookup",
        "read",
        "Frames decoded",
        "Frames read ahead",
        "Memory of the process",
        "Slowest requests",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    // A mount is found whichever store it shows.
    let other = cairn.directory().join("other").display().to_string();
    cairn.data(["--store", &other, "stats", root.path().to_str().unwrap()]);
    let nowhere = cairn.directory().to_str().unwrap().to_owned();
    let refused = cairn.fails(1, ["stats", &nowhere]);
    assert!(refused.contains("there is no mount of Cairn on"), "{refused}");
    root.umount();
}
