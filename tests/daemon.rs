//! The processes of a mount: they go on as another program, end when they are told to, and
//! outlive the disk of their store.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use cairn_fs::{Error, control};
use cairn_tests::disk::{Filesystem, shut_down};
use cairn_tests::ordinary::{as_user, give_to_user};
use cairn_tests::{Cairn, Mount, Need, Random, StopOnDrop, drop_names, eventually, run, signal};

const LARGE: usize = 8 << 20;

fn noise(len: usize) -> Vec<u8> {
    Random(0x1234_5678_9abc_def1).bytes(len)
}

/// A directory to import: a program, a large file, and many small ones.
fn tree(cairn: &Cairn) -> PathBuf {
    let tree = cairn.directory().join("tree");
    fs::create_dir_all(tree.join("many")).unwrap();
    fs::copy("/usr/bin/cat", tree.join("cat")).unwrap();
    fs::write(tree.join("large"), noise(LARGE)).unwrap();
    for number in 0..200 {
        fs::write(tree.join(format!("many/{number}")), format!("{number}\n")).unwrap();
    }
    tree
}

fn prepared() -> Cairn {
    let cairn = Cairn::new();
    cairn.data([Path::new("import"), &tree(&cairn)]);
    cairn
}

/// Another file with the same program.
fn copy_of(program: &Path, copy: &Path) -> PathBuf {
    fs::copy(program, copy).unwrap();
    fs::set_permissions(copy, Permissions::from_mode(0o755)).unwrap();
    copy.into()
}

fn executed_by(process: u32) -> PathBuf {
    fs::read_link(format!("/proc/{process}/exe")).unwrap_or_default()
}

fn parent_of(process: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

fn is_running(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with('Z'))
}

fn registrations(cairn: &Cairn) -> usize {
    fs::read_dir(cairn.store().join("run/mounts")).map_or(0, Iterator::count)
}

fn mount_log(cairn: &Cairn) -> String {
    fs::read_to_string(cairn.store().join("run/mount.log")).unwrap_or_default()
}

/// A program of the mount that gives back each line that it is given.
struct Echo(std::process::Child);

impl Echo {
    fn new(program: &Path) -> Self {
        let mut command = Command::new(program);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn assert_answers(&mut self, line: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
        assert_eq!(answer.trim_end(), line);
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_mount_goes_on_as_another_program_and_nobody_who_uses_it_notices() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = prepared();
    let copies = ["one", "two"].map(|name| copy_of(cairn.program(), &cairn.directory().join(name)));
    let large = noise(LARGE);
    let root = Mount::new(&cairn, &["--follow"], "root");
    let all = Mount::new(&cairn, &[], "all");
    let keeper = parent_of(root.process());
    let restart = |program: &Path, words: &[&OsStr]| {
        let mut command = Command::new(program);
        cairn.settle(&mut command).args(["--json", "mount", "--restart"]).args(words);
        run(&mut command)
    };
    let mut echo = Echo::new(&root.join("cat"));
    let open = File::open(root.join("large")).unwrap();
    let stop = AtomicBool::new(false);
    let reads = [const { AtomicUsize::new(0) }; 3];
    let repeat = |kind: usize, work: &dyn Fn(usize)| {
        let _stop = StopOnDrop(&stop);
        while !stop.load(Ordering::Relaxed) {
            work(reads[kind].fetch_add(1, Ordering::Relaxed));
        }
    };
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            repeat(0, &|round| {
                let number = round * 7 % 200;
                let text = fs::read_to_string(root.join(&format!("many/{number}"))).unwrap();
                assert_eq!(text, format!("{number}\n"));
            })
        });
        scope.spawn(|| {
            repeat(1, &|round| {
                let (at, mut buf) = (round * 777_777 % (LARGE - 4096), [0; 4096]);
                open.read_exact_at(&mut buf, at as u64).unwrap();
                assert!(buf[..] == large[at..at + 4096], "at {at}");
            })
        });
        // What nobody uses is asked for anew.
        scope.spawn(|| {
            repeat(2, &|_| {
                drop_names(root.path()).unwrap();
                assert_eq!(fs::read_dir(root.join("many")).unwrap().count(), 200);
                thread::sleep(Duration::from_millis(2));
            })
        });
        for round in 0..6 {
            let count = || reads.each_ref().map(|it| it.load(Ordering::Relaxed));
            let before = count();
            eventually("the mount is used", || {
                assert!(!stop.load(Ordering::Relaxed), "round {round}: a reader has failed");
                count().iter().zip(before).all(|(now, before)| *now > before + 1)
            });
            let (program, process) = (&copies[round % 2], root.process());
            let told = restart(program, &[root.path().as_os_str()]);
            assert_ne!(root.process(), process, "{told}");
            assert!(told.contains(&root.process().to_string()), "{told}");
            assert_eq!(executed_by(root.process()), *program, "round {round}");
            eventually("the keeper is that program", || executed_by(keeper) == *program);
            assert_eq!(parent_of(root.process()), keeper, "round {round}");
            echo.assert_answers("still here");
        }
        // What a process leaves that dies now is taken over by the same program.
        let process = root.process();
        signal(process, libc::SIGKILL).unwrap();
        eventually("another process answers", || root.process() != process);
        assert_eq!(executed_by(root.process()), copies[1]);
    });
    assert!(stop.load(Ordering::Relaxed));
    echo.assert_answers("until the end");
    drop((echo, open));
    // Without a directory all mounts of the store go on as the program.
    restart(&copies[0], &[]);
    for mount in [&root, &all] {
        assert_eq!(executed_by(mount.process()), copies[0]);
    }
    let log = mount_log(&cairn);
    let restarts = log.lines().filter(|it| it.ends_with("goes on with another program")).count();
    assert_eq!((restarts, log.lines().count()), (8, 9), "{log}");
    let processes = [root.process(), all.process(), keeper, parent_of(all.process())];
    root.umount();
    all.umount();
    for process in processes {
        eventually("its processes end", || !is_running(process));
    }
    assert_eq!(registrations(&cairn), 0);
}

#[test]
fn a_program_that_cannot_serve_a_mount_leaves_it_as_it_was() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = prepared();
    let root = Mount::new(&cairn, &["--follow"], "root");
    let (process, keeper) = (root.process(), parent_of(root.process()));
    let mut echo = Echo::new(&root.join("cat"));
    let script = cairn.directory().join("script");
    fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    let unsuitable = [Path::new("/bin/false"), Path::new("/bin/sleep"), &script];
    for (number, program) in unsuitable.into_iter().enumerate() {
        let copy = cairn.directory().join(format!("program-{number}"));
        let program = File::open(copy_of(program, &copy)).unwrap();
        let (run, mount) = cairn_fs::registered_at(root.path()).unwrap();
        let refused = control::restart(&run, &mount, &program, Duration::from_mins(1));
        let Err(Error::Refused { message, .. }) = refused else { panic!("{refused:?}") };
        assert!(message.contains("the program cannot serve it"), "{message}");
        assert_eq!((root.process(), parent_of(root.process())), (process, keeper));
        let programs = [process, keeper].map(executed_by);
        assert_eq!(programs, [cairn.program(), cairn.program()]);
        drop_names(root.path()).unwrap();
        assert_eq!(fs::read(root.join("many/7")).unwrap(), b"7\n");
        echo.assert_answers("as before");
    }
    // Who has asked is answered before.
    eventually("each is told", || {
        let log = mount_log(&cairn);
        log.lines().filter(|it| it.contains("cannot go on with another")).count() == 3
    });
    // One that can do the work and dies over it leaves the mount to the one before.
    let (run, mount) = cairn_fs::registered_at(root.path()).unwrap();
    let registration = run.join("mounts");
    let hidden = run.join("hidden");
    fs::rename(&registration, &hidden).unwrap();
    fs::create_dir(&registration).unwrap();
    for entry in fs::read_dir(&hidden).unwrap().map(Result::unwrap) {
        if entry.path().extension() == Some(OsStr::new("sock")) {
            fs::rename(entry.path(), registration.join(entry.file_name())).unwrap();
        }
    }
    let program = File::open(cairn.program()).unwrap();
    let refused = thread::scope(|scope| {
        let asked =
            scope.spawn(|| control::restart(&run, &mount, &program, Duration::from_mins(1)));
        eventually("it is tried", || mount_log(&cairn).contains("cannot take over the mount"));
        for entry in fs::read_dir(&hidden).unwrap().map(Result::unwrap) {
            fs::rename(entry.path(), registration.join(entry.file_name())).unwrap();
        }
        asked.join().unwrap()
    });
    assert!(refused.is_err(), "{refused:?}");
    eventually("it is answered again", || {
        cairn_fs::list(&run).unwrap().iter().any(|it| it.pid != process)
    });
    drop_names(root.path()).unwrap();
    assert_eq!(fs::read(root.join("many/8")).unwrap(), b"8\n");
    echo.assert_answers("at last");
    drop(echo);
    root.umount();
    eventually("the keeper ends", || !is_running(keeper));
}

/// Copies the libraries of a program to where it finds them in a root directory.
fn give_libraries(program: &Path, root: &Path) {
    let listed = run(Command::new("ldd").arg(program));
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(&library[1..]);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(library, place).unwrap();
    }
}

#[test]
fn the_mount_of_a_systems_root_goes_on_as_a_program_that_needs_no_file_of_it() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = prepared();
    let root = Mount::new(&cairn, &["--system-root", "--follow"], "root");
    let (process, keeper) = (root.process(), parent_of(root.process()));
    let words = ["mount", "--restart", root.path().to_str().unwrap()];
    // Its processes see the store and nothing else, no libraries either.
    let refused = cairn.fails(1, words);
    assert!(refused.contains("the program cannot serve it"), "{refused}");
    assert_eq!((root.process(), executed_by(process)), (process, cairn.program().into()));
    give_libraries(cairn.program(), &cairn.store());
    let mut echo = Echo::new(&root.join("cat"));
    for _ in 0..2 {
        cairn.data(words);
        eventually("the keeper is that program", || {
            executed_by(keeper).to_str().unwrap().starts_with("/memfd:")
        });
        for process in [root.process(), keeper] {
            let proc = Path::new("/proc").join(process.to_string());
            assert!(fs::read(proc.join("cmdline")).unwrap().starts_with(b"@cairn\0"));
            assert_eq!(fs::read_link(proc.join("root")).unwrap(), cairn.store());
        }
        drop_names(root.path()).unwrap();
        assert_eq!(fs::read(root.join("many/9")).unwrap(), b"9\n");
        echo.assert_answers("still here");
    }
    drop(echo);
    // What it has to do outside of the store, it can do.
    let process = root.process();
    signal(process, libc::SIGTERM).unwrap();
    for process in [process, keeper] {
        eventually("its processes end", || !is_running(process));
    }
    assert_eq!(registrations(&cairn), 0);
}

#[test]
fn the_processes_of_a_mount_end_with_it_when_they_are_told_to() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = prepared();
    for (words, to_keeper) in
        [(&["--follow"][..], false), (&["--follow"], true), (&["--rw", "w"], false)]
    {
        let root = Mount::new(&cairn, words, "root");
        let process = root.process();
        let keeper = (words[0] == "--follow").then(|| parent_of(process));
        let told = if to_keeper { keeper.unwrap() } else { process };
        let open = File::open(root.join("large")).unwrap();
        signal(told, libc::SIGTERM).unwrap();
        let is_shown = || fs::exists(root.join("large")).unwrap();
        eventually("it is out of sight", || !is_shown());
        // Whoever has something open goes on.
        let mut last = [0; 10];
        open.read_exact_at(&mut last, (LARGE - 10) as u64).unwrap();
        assert_eq!(last[..], noise(LARGE)[LARGE - 10..], "{words:?}");
        drop(open);
        for process in [Some(process), keeper].into_iter().flatten() {
            eventually("its processes end", || !is_running(process));
        }
        assert_eq!(registrations(&cairn), 0, "{words:?}");
        assert_eq!(cairn.data(["mount"]), "Nothing is mounted.\n");
    }
    assert_eq!(mount_log(&cairn), "");
}

#[test]
fn a_store_whose_disk_goes_away_and_comes_back_is_read_again() {
    let needs = [Need::Fuse, Need::Root, Need::Loop, Filesystem::Ext4.need()];
    if !Need::all(&needs) {
        return;
    }
    let cairn = Cairn::new();
    let [disk, again, live] = ["disk", "again", "live"].map(|it| cairn.directory().join(it));
    Filesystem::Ext4.make_in(&disk);
    let mounted = Filesystem::Ext4.mount(&disk, &live).unwrap();
    let store = live.join("store");
    let store = store.to_str().unwrap();
    cairn.data([OsStr::new("--store"), store.as_ref(), "import".as_ref(), tree(&cairn).as_ref()]);
    let root = Mount::new(&cairn, &["--follow", "--store", store], "root");
    let (large, open) = (noise(LARGE), File::open(root.join("large")).unwrap());
    let at = |offset: usize| {
        let mut buf = [0; 4096];
        open.read_exact_at(&mut buf, offset as u64)
            .map(|()| buf[..] == large[offset..offset + 4096])
    };
    let small = |name: &str| fs::read_to_string(root.join("many").join(name));
    assert!(at(0).unwrap());
    assert_eq!(small("1").unwrap(), "1\n");
    run(Command::new("sync").arg("-f").arg(&live));
    shut_down(&live).unwrap();
    let is_lost = |offset| at(offset).unwrap_err().raw_os_error() == Some(libc::EIO);
    assert!(is_lost(LARGE / 2));
    assert!(at(0).unwrap(), "what the kernel has stays");
    // What the process has open keeps the dead filesystem, and the next one is another.
    drop(mounted);
    assert!(is_lost(LARGE / 2 + (1 << 20)));
    assert!(fs::read(root.join("cat")).is_err());
    assert_eq!(fs::read_dir(&live).unwrap().count(), 0, "nothing is made in its place");
    fs::copy(&disk, &again).unwrap();
    let mounted = Filesystem::Ext4.mount(&again, &live).unwrap();
    for offset in (0..LARGE - 4096).step_by(300_000) {
        assert!(at(offset).unwrap(), "at {offset}");
    }
    drop_names(root.path()).unwrap();
    assert_eq!(fs::read(root.join("cat")).unwrap(), fs::read("/usr/bin/cat").unwrap());
    for name in ["1", "150"] {
        assert_eq!(small(name).unwrap(), format!("{name}\n"));
    }
    drop(open);
    let process = cairn_fs_process(&root);
    root.umount();
    eventually("its process ends", || process.iter().all(|process| !is_running(*process)));
    drop(mounted);
}

/// All processes that were started for a mount.
fn cairn_fs_process(mount: &Mount<'_>) -> Vec<u32> {
    let target = mount.path().to_str().unwrap().to_owned();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
    let is_its = |process: &u32| {
        let words = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
        words.contains("mount\0") && words.split('\0').any(|word| word == target)
    };
    numbers.filter(is_its).collect()
}

#[test]
fn an_ordinary_user_walks_more_files_than_a_process_may_have_open_by_default() {
    let fusermount = Need::Program("fusermount3", "fuse3");
    if !Need::all(&[Need::Fuse, Need::Root, fusermount]) {
        return;
    }
    let cairn = Cairn::new();
    let tree = tree(&cairn);
    for path in [cairn.directory(), &tree] {
        give_to_user(path);
    }
    fs::create_dir(cairn.directory().join("place")).unwrap();
    give_to_user(&cairn.directory().join("place"));
    let told = as_user(
        &cairn,
        "
        c import tree >said
        user 65534 sh -c 'ulimit -Sn 100; exec ./cairn --quiet mount --rw web place' >said
        user 65534 sh -c 'ls -lR place | wc -l; cat place/many/* | sort -n | tail -n 1'
        c umount place >said
        ",
    );
    assert!(told.ends_with("\n199\n"), "{told}");
}
