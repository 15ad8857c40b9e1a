//! Processes of mounts are killed, and nobody notices.
//!
//! The tests start this program again with `role NAME` to be such a process.
//! `ENDURE_KILLS` says how often to kill; without it that is a few times. With it, a call that
//! was held up for longer than it may be is a failure.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may fail"
)]

mod support;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cairn_fs::{Error, Event, Journal, Keeping, Options, Shape, Unmount, control};
use cairn_store::{Attributes, BlobRef, Plain, Refs, StateId, Store, Tree, TreeId};
use support::{
    Directory, Item, Lab, PATIENCE, directory, eventually, eventually_within, file, items_of, put,
    sys,
};

/// What the kernel has forgotten while nobody heard it, it is asked for every ten seconds,
/// three times at most until it is believed.
const FORGETTING: Duration = Duration::from_mins(1);

const TESTS: &[(&str, fn())] = &[
    ("what_was_open_gone_or_watched_stays_as_it_was_in_a_new_process", kept),
    ("a_mount_that_is_unmounted_while_nobody_answers_leaves_nothing", unmounted),
    ("a_mount_whose_processes_all_die_at_once_gives_errors_in_the_end", given_up),
    ("killing_the_process_of_a_mount_under_load_fails_no_system_call", under_load),
    ("what_the_kernel_reads_by_itself_stays_open_in_a_new_process", passed),
    ("killing_the_process_of_a_mount_that_passes_through_fails_no_system_call", passing),
    ("switches_go_on_while_the_process_of_a_mount_is_killed", switching),
    ("a_process_that_cannot_end_before_the_next_one_answers_does_not_keep_it_waiting", stuck),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, name, rest @ ..] = &arguments[..]
        && role == "role"
    {
        return play(name, rest);
    }
    support::run(TESTS, &arguments)
}

/// A store in which one tree, if a file is named, is read for ever, by whoever
/// is the first and makes that file.
struct Source {
    store: Store,
    slow: Option<PathBuf>,
}

/// The permission bits of the directory that is read for ever.
const SLOW: u16 = 0o712;

impl cairn_fs::Source for Source {
    fn tree(&self, id: TreeId) -> cairn_store::Result<Arc<Tree>> {
        let tree = self.store.tree(id)?;
        if let Some(marker) = &self.slow
            && tree.attributes.mode & 0o777 == SLOW
            && File::create_new(marker).is_ok()
        {
            loop {
                thread::park();
            }
        }
        Ok(tree)
    }

    fn read_at(&self, blob: &BlobRef, at: u64, buf: &mut [u8]) -> cairn_store::Result<usize> {
        self.store.read_at(blob, at, buf)
    }

    fn refs(&self) -> Refs {
        self.store.refs()
    }

    fn refresh(&self) -> cairn_store::Result<()> {
        self.store.refresh()
    }

    fn plain(&self) -> Option<Plain> {
        Some(self.store.plain())
    }
}

/// Leaves a mount behind that is kept. Its events go to a file beside it; with
/// the role `doomed` every process but the first ends before it has begun; with the role
/// `passing` the kernel reads large files by itself.
fn play(role: &str, arguments: &[String]) {
    let [store, target, shape] = arguments else { panic!("{arguments:?}") };
    let shape = match shape.as_str() {
        "folder" => Shape::Folder,
        "follow" => Shape::Follow,
        state => Shape::Pinned(StateId(state.parse().unwrap())),
    };
    let mut options = Options::new(shape, Path::new(target), Path::new(store));
    options.passthrough = role == "passing";
    let log = format!("{target}.log");
    let journal: Journal = Arc::new(move |event: &Event| {
        let mut file = File::options().append(true).create(true).open(&log).unwrap();
        writeln!(file, "{event}").unwrap();
    });
    let pid = cairn_fs::background_kept(
        |keeper, kept| -> Result<_, Error> {
            if role == "doomed" && kept.is_some() {
                std::process::abort();
            }
            let slow = (role == "stuck").then(|| Path::new(target).with_extension("blocked"));
            let source = Source { store: Store::open(Path::new(store))?, slow };
            match kept {
                None => {
                    let options = Options { keeper: Some(keeper.clone()), ..options.clone() };
                    cairn_fs::start(source, &options, journal.clone())
                }
                Some(kept) => cairn_fs::resume(source, kept, keeper, journal.clone()),
            }
        },
        &Keeping {
            target: target.clone(),
            journal: journal.clone(),
            is_system_root: false,
            successor: Vec::new(),
        },
    );
    options.keeper = None;
    println!("{}", pid.unwrap());
}

/// A mount that is kept, until this is dropped.
struct Mount<'a> {
    lab: &'a Lab,
    keeper: u32,
}

impl<'a> Mount<'a> {
    fn new(lab: &'a Lab, role: &str, shape: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["role", role]).arg(lab.store.path()).arg(lab.target()).arg(shape);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let pid: u32 = String::from_utf8(output.stdout).unwrap().trim_end().parse().unwrap();
        Self { lab, keeper: parent_of(pid) }
    }

    fn pid(&self) -> u32 {
        cairn_fs::list(&self.lab.run_directory()).unwrap()[0].pid
    }

    /// Kills the process and waits for the next one.
    fn kill(&self) -> Duration {
        let (pid, begun) = (self.pid(), Instant::now());
        sys::kill(pid, libc::SIGKILL);
        eventually("another process takes over", || (self.pid() != pid).then_some(()));
        begun.elapsed()
    }

    fn events(&self) -> String {
        let path = format!("{}.log", self.lab.target().display());
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Unmounts; nothing of it is left then.
    fn end(self) {
        let pid = self.pid();
        cairn_fs::unmount(&self.lab.target(), Unmount::Now).unwrap();
        eventually("both processes end", || {
            (!is_running(pid) && !is_running(self.keeper)).then_some(())
        });
        assert_eq!(fs::read_dir(self.lab.run_directory().join("mounts")).unwrap().count(), 0);
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("events of the mount:\n{}", self.events());
        }
        let _ = cairn_fs::unmount(&self.lab.target(), Unmount::WhenUnused);
    }
}

fn parent_of(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with('Z'))
}

fn kills(usual: usize) -> usize {
    std::env::var("ENDURE_KILLS").map_or(usual, |text| text.parse().unwrap())
}

/// For how long a system call may be held up when the process that answers is killed.
const LONGEST_STALL: Duration = Duration::from_millis(200);

/// The longest of the calls that were made since it was asked last.
#[derive(Default)]
struct Stopwatch(AtomicU64);

impl Stopwatch {
    fn time<T>(&self, call: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let given = call();
        self.0.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        given
    }

    fn longest(&self) -> Duration {
        Duration::from_micros(self.0.swap(0, Ordering::Relaxed))
    }
}

/// What half, nine tenths and all of some times are below.
fn spread(times: &mut [Duration]) -> String {
    times.sort();
    let below = |tenths: usize| times[(times.len() * tenths / 10).min(times.len() - 1)];
    format!(
        "{:.1?} in the middle, {:.1?} for 9 of 10, {:.1?} at worst",
        below(5),
        below(9),
        below(10)
    )
}

fn content(name: &str, len: usize) -> Vec<u8> {
    name.bytes().cycle().take(len).collect()
}

const BIG: usize = 3 << 20;

/// A root with programs, many small files and a large one.
fn root(state: u64) -> Directory {
    let mut root = Directory::new();
    support::with_programs(&mut root, &["sh", "cat"]);
    for i in 0..40 {
        for j in 0..20 {
            let path = format!("tree/d{i}/f{j}");
            put(&mut root, &path, file(content(&path, 100 * (j + 1))));
        }
    }
    put(&mut root, "big", file(content("big", BIG)));
    put(&mut root, "number", file(format!("{state}\n").repeat(20_000)));
    root
}

/// Runs each load in a thread of its own, again and again, while `meanwhile`
/// runs; it gets how often each has run.
fn during(loads: Vec<Box<dyn Fn() + Send + '_>>, meanwhile: impl FnOnce(&[AtomicU64])) {
    /// Ends the others also when this thread fails.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let counts: Vec<AtomicU64> = loads.iter().map(|_| AtomicU64::new(0)).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for (load, count) in loads.into_iter().zip(&counts) {
            let stop = &stop;
            scope.spawn(move || {
                let _stop = Stop(stop);
                while !stop.load(Ordering::Relaxed) {
                    load();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _stop = Stop(&stop);
        meanwhile(&counts);
    });
}

/// Waits until each load has begun and ended anew.
fn all_have_run(counts: &[AtomicU64]) {
    let read = || counts.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let before = read();
    eventually("every load goes on", || {
        read().iter().zip(&before).all(|(now, before)| *now >= before + 2).then_some(())
    });
}

fn under_load() {
    let lab = Lab::default();
    lab.commit(&root(1));
    let mount = Mount::new(&lab, "kept", "follow");
    let target = lab.target();
    let watch = Stopwatch::default();
    let read_all = |seed: usize| {
        for i in 0..40 {
            let path = format!("tree/d{}/f{}", (i * 7 + seed) % 40, (i * 3 + seed) % 20);
            let bytes = watch.time(|| fs::read(target.join(&path)));
            let bytes = bytes.unwrap_or_else(|err| panic!("{path}: {err}"));
            assert!(bytes == content(&path, bytes.len()), "{path}");
        }
    };
    // Open and mapped all the time; its pages are read anew again and again.
    let open = File::open(target.join("big")).unwrap();
    let mapped = Mutex::new(sys::Mapped::new(&open, BIG));
    let mut loads: Vec<Box<dyn Fn() + Send>> = Vec::new();
    for seed in 0..8 {
        loads.push(Box::new(move || read_all(seed)));
    }
    loads.push(Box::new(|| assert_eq!(support::count(&target.join("tree")), 40 * 21)));
    loads.push(Box::new(|| {
        let script = ["/usr/bin/sh", "-c", "cat /tree/d1/f1 && exec cat /tree/d2/f2"];
        let output = Command::new("chroot").arg(&target).args(script).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(
            output.stdout,
            [content("tree/d1/f1", 200), content("tree/d2/f2", 300)].concat()
        );
    }));
    loads.push(Box::new(|| {
        let mapped = mapped.lock().unwrap();
        mapped.drop_pages();
        sys::drop_pages(open.as_fd());
        assert!(mapped.bytes() == content("big", BIG));
        let mut some = [0; 3];
        open.read_exact_at(&mut some, 3 * 12345).unwrap();
        assert_eq!(&some, b"big");
    }));
    // What nobody uses has to be asked for anew.
    loads.push(Box::new(|| {
        sys::drop_names(&target);
        thread::sleep(Duration::from_millis(3));
    }));
    let kills = kills(20);
    let [mut taken_over, mut undisturbed, mut held_up] = [const { Vec::new() }; 3];
    during(loads, |counts| {
        for _ in 0..kills {
            watch.longest();
            all_have_run(counts);
            undisturbed.push(watch.longest());
            taken_over.push(mount.kill());
            all_have_run(counts);
            held_up.push(watch.longest());
        }
    });
    println!("{kills} kills; taken over after {}", spread(&mut taken_over));
    println!("the longest of the reads around each: {}", spread(&mut held_up));
    println!("the same without a kill: {}", spread(&mut undisturbed));
    let late = |times: &[Duration]| times.iter().filter(|time| **time > LONGEST_STALL).count();
    let (late, anyway) = (late(&held_up), late(&undisturbed));
    println!("longer than {LONGEST_STALL:?}: {late} with a kill, {anyway} without");
    assert!(late == 0 || std::env::var_os("ENDURE_KILLS").is_none());
    let events = mount.events();
    let expected = "was ended by signal 9; another has taken over";
    assert_eq!(events.lines().filter(|line| line.ends_with(expected)).count(), kills, "{events}");
    assert_eq!(events.lines().count(), kills, "{events}");
    drop((mapped, open));
    mount.end();
}

/// Does what a program does with a file, by its path.
fn read_whole(path: &Path, expected: &[u8]) {
    let bytes = fs::read(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    assert!(bytes == expected, "{}", path.display());
}

fn passed() {
    let Some(lab) = Lab::for_passthrough() else { return };
    let state = |name: &str| {
        items_of([("big", file(content(name, BIG))), ("same", file(content("same", BIG)))])
    };
    lab.commit(&state("one"));
    let mount = Mount::new(&lab, "passing", "follow");
    let [big, same] = ["big", "same"].map(|name| lab.target().join(name));
    let opened = || {
        let passed = lab.stats().passthrough;
        (passed.opens, passed.fallbacks, passed.open, passed.backing_ids)
    };
    let old = File::open(&big).unwrap();
    let mapped = sys::Mapped::new(&old, BIG);
    read_whole(&same, &content("same", BIG));
    eventually("it is closed", || (opened() == (2, 0, 1, 2)).then_some(()));
    for _ in 0..3 {
        mount.kill();
        // With a backing id of its own the new process would be refused by the kernel.
        read_whole(&big, &content("one", BIG));
        read_whole(&same, &content("same", BIG));
        assert!(mapped.bytes() == content("one", BIG));
        eventually("they are closed", || (opened() == (2, 0, 1, 2)).then_some(()));
        assert_eq!(lab.stats().bytes_read, 0);
    }
    lab.commit(&state("two"));
    lab.refresh();
    mount.kill();
    read_whole(&big, &content("two", BIG));
    let mut bytes = vec![0; BIG];
    old.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == content("one", BIG));
    // What is closed is let go, also by a process that did not open it.
    drop((old, mapped));
    eventually("all is closed", || (opened() == (1, 0, 0, 3)).then_some(()));
    let log = mount.events();
    assert_eq!(log.lines().count(), 4, "{log}");
    mount.end();
}

fn passing() {
    const FILES: usize = 60;
    let Some(lab) = Lab::for_passthrough() else { return };
    let mut state = root(1);
    let large = |i: usize| content(&format!("large {i}"), (256 << 10) + i);
    (0..FILES).for_each(|i| put(&mut state, &format!("large/{i}"), file(large(i))));
    lab.commit(&state);
    let mount = Mount::new(&lab, "passing", "follow");
    let (target, plain) = (lab.target(), lab.store.path().join("plain"));
    let big = target.join("big");
    let open = File::open(&big).unwrap();
    let mapped = Mutex::new(sys::Mapped::new(&open, BIG));
    let mut loads: Vec<Box<dyn Fn() + Send>> = Vec::new();
    // Some of them for the first time, some while others have them open.
    for _ in 0..4 {
        loads.push(Box::new(|| {
            let i = rand() as usize % FILES;
            let path = target.join(format!("large/{i}"));
            let held = File::open(&path).unwrap();
            read_whole(&path, &large(i));
            let mut end = [0];
            held.read_exact_at(&mut end, (256 << 10) + i as u64 - 1).unwrap();
        }));
    }
    loads.push(Box::new(|| read_whole(&big, &content("big", BIG))));
    loads.push(Box::new(|| {
        let mapped = mapped.lock().unwrap();
        mapped.drop_pages();
        assert!(mapped.bytes() == content("big", BIG));
    }));
    loads.push(Box::new(|| {
        let script = ["/usr/bin/sh", "-c", "exec cat /large/1"];
        let output = Command::new("chroot").arg(&target).args(script).output().unwrap();
        assert!(output.stdout == large(1), "{}", String::from_utf8_lossy(&output.stderr));
    }));
    // It is expanded anew.
    loads.push(Box::new(|| {
        let files = fs::read_dir(&plain).unwrap().map(|entry| entry.unwrap().path());
        for whole in files.filter(|path| path.extension().is_none()).take(3) {
            fs::remove_file(whole).unwrap();
        }
        thread::sleep(Duration::from_millis(20));
    }));
    loads.push(Box::new(|| {
        sys::drop_names(&target);
        thread::sleep(Duration::from_millis(3));
    }));
    let kills = kills(20);
    during(loads, |counts| {
        for _ in 0..kills {
            all_have_run(counts);
            mount.kill();
        }
        all_have_run(counts);
    });
    let log = mount.events();
    let expected = "was ended by signal 9; another has taken over";
    assert_eq!(log.lines().filter(|line| line.ends_with(expected)).count(), kills, "{log}");
    assert_eq!(log.lines().count(), kills, "{log}");
    drop((mapped, open));
    sys::drop_names(&target);
    let is_closed = || (lab.stats().passthrough.open == 0).then_some(());
    eventually_within(FORGETTING, "all is closed", is_closed);
    mount.end();
}

fn switching() {
    let lab = Lab::default();
    for state in 1..=3 {
        lab.commit(&root(state));
    }
    let mount = Mount::new(&lab, "kept", "folder");
    let target = lab.target();
    let whole = |bytes: &[u8]| {
        let first = u64::from(bytes[0] - b'0');
        assert!(bytes == format!("{first}\n").repeat(20_000).as_bytes(), "a mixture");
        first
    };
    let mut loads: Vec<Box<dyn Fn() + Send>> = Vec::new();
    for _ in 0..3 {
        loads.push(Box::new(|| {
            whole(&fs::read(target.join("current/number")).unwrap());
            for state in 1..=3 {
                let path = target.join(format!("states/{state}/number"));
                assert_eq!(whole(&fs::read(path).unwrap()), state);
            }
            assert_eq!(support::count(&target.join("current/tree")), 40 * 21);
        }));
    }
    loads.push(Box::new(|| {
        sys::drop_names(&target);
        thread::sleep(Duration::from_millis(3));
    }));
    // Kills at any moment of a switch.
    let kill = || {
        thread::sleep(Duration::from_micros(2000 + rand() % 15_000));
        mount.kill();
    };
    loads.push(Box::new(kill));
    let rounds = kills(30);
    during(loads, |counts| {
        for round in 0..rounds as u64 {
            let state = round % 3 + 1;
            lab.store.switch(StateId(state)).unwrap();
            let refreshed = lab.refresh();
            assert_eq!(refreshed.state, Some(StateId(state)), "round {round}");
            let seen = whole(&fs::read(target.join("current/number")).unwrap());
            assert_eq!(seen, state, "stale after switch {round}");
        }
        all_have_run(counts);
    });
    for state in 1..=3 {
        let bytes = fs::read(target.join(format!("states/{state}/number"))).unwrap();
        assert_eq!(whole(&bytes), state);
    }
    mount.end();
}

/// Some number.
fn rand() -> u64 {
    static STATE: AtomicU64 = AtomicU64::new(0x9e37_79b9);
    let mut state = STATE.load(Ordering::Relaxed);
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    STATE.store(state, Ordering::Relaxed);
    state
}

fn kept() {
    let lab = Lab::default();
    let with = |text: &str| {
        let below = directory([(text, file(text)), ("same", file("same"))]);
        items_of([("dir", below), ("file", file(text.repeat(5000)))])
    };
    let mut first = with("one");
    put(&mut first, "gone/below/f", file("f"));
    let first = lab.commit(&first);
    let mount = Mount::new(&lab, "kept", "follow");
    let target = lab.target();
    let relative = |open: &File, name: &str| {
        use std::os::fd::AsRawFd;
        fs::read_to_string(format!("/proc/self/fd/{}/{name}", open.as_raw_fd()))
    };
    let [gone, below, dir] = ["gone", "gone/below", "dir"].map(|name| {
        let open = File::open(target.join(name)).unwrap();
        (open, sys::watch(&target.join(name)))
    });
    let old = File::open(target.join("file")).unwrap();
    let numbers = |open: &File| (open.metadata().unwrap().ino(), open.metadata().unwrap().nlink());
    let before = numbers(&dir.0);
    mount.kill();
    assert_eq!(numbers(&dir.0), before);
    lab.commit(&with("two"));
    lab.refresh();
    for _ in 0..3 {
        mount.kill();
        sys::drop_names(&target);
        sys::drop_pages(old.as_fd());
        // What is gone stays empty, what is open keeps its content.
        assert_eq!((numbers(&gone.0).1, numbers(&below.0).1), (0, 0));
        assert_eq!(relative(&gone.0, "below").unwrap_err().kind(), io::ErrorKind::NotFound);
        let mut text = vec![0; 15_000];
        old.read_exact_at(&mut text, 0).unwrap();
        assert_eq!(text, "one".repeat(5000).as_bytes());
        assert_eq!(relative(&dir.0, "two").unwrap(), "two");
        assert_eq!(relative(&dir.0, "one").unwrap_err().kind(), io::ErrorKind::NotFound);
        // gc keeps what the open file is from.
        let trees = cairn_fs::list(&lab.run_directory()).unwrap().remove(0).trees;
        assert!(trees.contains(&first.tree) && trees.len() == 2, "{trees:?}");
    }
    // It comes back as what it was.
    let mut third = with("three");
    put(&mut third, "gone/below/g", file("g"));
    let third = lab.commit(&third);
    lab.refresh();
    mount.kill();
    assert_eq!(relative(&below.0, "g").unwrap(), "g");
    assert_eq!(relative(&below.0, "f").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(fs::read_dir(target.join("dir")).unwrap().count(), 2);
    // What is closed is let go, also by a process that did not open it.
    drop((gone, below, dir, old));
    sys::drop_names(&target);
    let mount_is_clean = || {
        let registered = cairn_fs::list(&lab.run_directory()).unwrap().remove(0);
        let known = control::status(&lab.run_directory(), &registered, PATIENCE).unwrap().nodes;
        (registered.trees == [third.tree] && known == 1).then_some(())
    };
    eventually_within(FORGETTING, "all is forgotten", mount_is_clean);
    mount.end();
}

fn unmounted() {
    let lab = Lab::default();
    lab.commit(&items_of([("f", file("f"))]));
    for round in 0..10 {
        let mount = Mount::new(&lab, "kept", "follow");
        fs::read(lab.target().join("f")).unwrap();
        let pid = mount.pid();
        sys::kill(pid, libc::SIGKILL);
        // While there is no process, or when it has just begun.
        thread::sleep(Duration::from_micros(rand() % 20_000));
        cairn_fs::unmount(&lab.target(), Unmount::WhenUnused).unwrap();
        eventually("the keeper ends", || (!is_running(mount.keeper)).then_some(()));
        let left = cairn_fs::list(&lab.run_directory()).unwrap();
        assert!(left.is_empty(), "round {round}: {left:?}");
        assert_eq!(fs::read_dir(lab.run_directory().join("mounts")).unwrap().count(), 0);
    }
}

fn given_up() {
    let lab = Lab::default();
    lab.commit(&items_of([("f", file("f"))]));
    let mount = Mount::new(&lab, "doomed", "follow");
    sys::kill(mount.pid(), libc::SIGKILL);
    // Whoever asks gets an error in the end instead of waiting for ever.
    let error = fs::read(lab.target().join("f")).unwrap_err();
    assert!(matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED)), "{error}");
    eventually("the keeper ends", || (!is_running(mount.keeper)).then_some(()));
    assert!(mount.events().trim_end().ends_with("none is started"), "{}", mount.events());
    assert_eq!(cairn_fs::list(&lab.run_directory()).unwrap(), []);
}

fn stuck() {
    let lab = Lab::default();
    let many = |text: &str| {
        let mut root = Directory::new();
        (0..20_000).for_each(|i| put(&mut root, &format!("dir/f{i}"), file(text)));
        root
    };
    lab.commit(&many("one"));
    let mut second = many("two");
    for i in 0..2000 {
        let slow = Item::Directory(Attributes::of_root(SLOW), Directory::new());
        put(&mut second, &format!("dir/new{i}"), slow);
    }
    lab.commit(&second);
    lab.store.switch(support::FIRST).unwrap();
    let mount = Mount::new(&lab, "stuck", "follow");
    let target = lab.target();
    assert_eq!(support::count(&target.join("dir")), 20_000);
    let blocked = target.with_extension("blocked");
    lab.store.switch(StateId(2)).unwrap();
    thread::scope(|scope| {
        let refresh = scope.spawn(|| lab.refresh());
        // As soon as the switch has happened, somebody waits in the directory of
        // which the kernel is being told.
        let look = scope.spawn(|| {
            let names = (0..2000).map(|i| target.join(format!("dir/new{i}")));
            names.map(fs::metadata).find_map(Result::ok)
        });
        eventually("a directory is read for ever", || blocked.exists().then_some(()));
        let pid = mount.pid();
        eventually("a thread waits for whoever looks", || waits(pid).then_some(()));
        mount.kill();
        assert!(look.join().unwrap().expect("it is seen").is_dir());
        assert_eq!(refresh.join().unwrap().state, Some(StateId(2)));
    });
    assert_eq!(fs::read(target.join("dir/f7")).unwrap(), b"two");
    mount.end();
}

/// Whether a thread of a process is where not even SIGKILL ends it.
fn waits(pid: u32) -> bool {
    let states = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| {
        let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().unwrap_or_default().starts_with('D')
    });
    states.into_iter().any(|is_uninterruptible| is_uninterruptible)
}
