//! All operations once, on a disk that logs what reaches it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cairn_tests::disk::{Disks, Event, Filesystem, Image};
use cairn_tests::{Ended, StopOnDrop};

use serde_json::Value;

use crate::operations::{COMPACT, OPERATIONS, Shown, World, damage};

/// Whether somebody else syncs files of the same filesystem meanwhile, which makes some of
/// what was not synced durable, and some not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    Alone,
    Beside,
}

/// What happened to a disk, and what was promised.
pub struct Recording {
    pub filesystem: Filesystem,
    pub base: Image,
    pub events: Vec<Event>,
    /// Where each operation begins in the log, and where it was reported as done.
    pub begun: Vec<usize>,
    pub done: Vec<usize>,
    /// What is shown before the first operation, and after each.
    pub shown: Vec<Shown>,
}

/// A filesystem with the store of the world.
pub fn base(world: &World, disks: &Disks, filesystem: Filesystem) -> Image {
    let target = world.cairn.directory().join(format!("base-{}", filesystem.name()));
    let disk = disks.add(filesystem.make());
    let mounted = filesystem.mount(disk.path(), &target).unwrap();
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(world.cairn.store()).arg(mounted.path());
    assert!(copy.status().unwrap().success());
    drop(mounted);
    let image = disk.image();
    disk.clear();
    image
}

/// A sync that is left out: the call, and its file in the store.
#[derive(Clone, Copy, Debug)]
pub struct LeftOut {
    pub operation: &'static str,
    pub call: &'static str,
    pub path: &'static str,
}

/// Does all operations, or those up to the one in which a sync is left out.
pub fn record(
    world: &World,
    disks: &Disks,
    (filesystem, base): (Filesystem, &Image),
    company: Company,
    left_out: Option<LeftOut>,
) -> Recording {
    let target: PathBuf = world.cairn.directory().join(format!("live-{}", filesystem.name()));
    let disk = disks.add(base.clone());
    let mounted = filesystem.mount(disk.path(), &target).unwrap();
    let store = mounted.path().join("store");
    let mut shown = vec![world.shown(&store).unwrap()];
    let operations = match left_out {
        Some(LeftOut { operation, .. }) => crate::operations::number_of(operation) + 1,
        None => OPERATIONS.len(),
    };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let _stop = StopOnDrop(stop);
        if company == Company::Beside {
            let file = File::create(mounted.path().join("beside")).unwrap();
            scope.spawn(move || disturb(&file, stop));
        }
        for (number, operation) in OPERATIONS[..operations].iter().enumerate() {
            disk.mark(2 * number);
            let here = left_out.filter(|it| it.operation == operation.name);
            match world.words(operation) {
                Some(words) => {
                    let ended = run(world, &store, &words, here);
                    assert!(ended.status.success(), "{}: {}", operation.name, ended.stderr);
                    if words.join(" ") == COMPACT {
                        assert_compacted(&ended);
                    }
                }
                None => damage(&store),
            }
            disk.mark(2 * number + 1);
            shown.push(world.shown(&store).unwrap());
        }
    });
    let events = disk.take_events();
    let is_replaced = fs::read_to_string(store.join("refs/log")).unwrap().contains("checkpoint");
    assert!(left_out.is_some() || is_replaced, "the log was replaced by some operation");
    drop(mounted);
    disk.clear();
    let marks: Vec<usize> = (0..events.len())
        .filter(|at| matches!(events[*at], Event::Mark(_)))
        .map(|at| at + 1)
        .collect();
    let every_second =
        |from: usize| -> Vec<usize> { marks.iter().copied().skip(from).step_by(2).collect() };
    Recording {
        filesystem,
        base: base.clone(),
        begun: every_second(0),
        done: every_second(1),
        events,
        shown,
    }
}

/// Otherwise nothing was written whose power could be cut.
fn assert_compacted(ended: &Ended) {
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(told["packs_replaced"].as_u64() > Some(0), "nothing was replaced: {told}");
}

fn disturb(file: &File, stop: &AtomicBool) {
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        file.write_all_at(&number.to_le_bytes(), number * 8 % 4096).unwrap();
        file.sync_all().unwrap();
        thread::sleep(Duration::from_millis(number % 7));
    }
}

/// Runs the program, which does not get through to the disk with the sync that is left out.
fn run(world: &World, store: &Path, words: &[String], left_out: Option<LeftOut>) -> Ended {
    let Some(LeftOut { call, path, .. }) = left_out else {
        return world.command(store, words).output().unwrap().into();
    };
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:retval=0")]);
    // As strace finds it in /proc.
    strace.arg("-P").arg(fs::canonicalize(store).unwrap().join(path));
    strace.arg(world.cairn.program()).arg("--store").arg(store).args(words);
    world.cairn.settle(&mut strace).output().unwrap().into()
}
