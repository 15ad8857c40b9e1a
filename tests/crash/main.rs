//! The power goes at any moment, on real filesystems: what was reported as done is there,
//! the rest is as it was or done, and the store goes on.
//!
//! `make crash` cuts it `CRASH_POINTS` times (1,000), as `CRASH_SEED` says, on all filesystems or
//! on those that have `CRASH_ON` in their names; what is found wrong is told with its seed,
//! and the first disk of that kind is kept in target/crash.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod check;
mod operations;
mod record;
mod report;
mod shutdown;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cairn_tests::disk::{Disks, Event, Filesystem, Image, Loss, Replay};
use cairn_tests::{Need, Random};

use check::{Promise, check};
use operations::{OPERATIONS, World, may_be_damaged};
use record::{Company, LeftOut, Recording, base, record};
use report::Report;

/// How the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// All that was written is there.
    InOrder,
    /// Of what was not flushed, some writes are.
    Reordered,
    /// Of some writes, some sectors are.
    Torn,
    /// It goes again while the store is mounted and collected.
    Twice,
}

impl Mode {
    const ALL: [Self; 4] = [Self::InOrder, Self::Reordered, Self::Torn, Self::Twice];

    fn loss(self, filesystem: Filesystem) -> Loss {
        match self {
            Self::InOrder => Loss::Nothing,
            Self::Reordered | Self::Twice => Loss::Some,
            Self::Torn => Loss::Torn(filesystem.sector()),
        }
    }
}

/// One power cut.
#[derive(Clone, Copy, Debug)]
struct Point {
    operation: usize,
    mode: Mode,
    /// After so many events.
    at: usize,
    seed: u64,
}

/// A seed as a number: from the environment, or the time.
fn seed() -> u64 {
    let given =
        std::env::var("CRASH_SEED").ok().map(|it| it.parse().expect("CRASH_SEED is a number"));
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let seed = given.unwrap_or(now);
    println!("CRASH_SEED={seed}");
    seed
}

/// Numbers that follow from a seed, which may be anything.
fn random(seed: u64, number: u64) -> Random {
    let mixed = blake3::hash(&[seed.to_le_bytes(), number.to_le_bytes()].concat());
    Random(u64::from_le_bytes(*mixed.as_bytes().first_chunk().unwrap()) | 1)
}

/// Where the power goes in one operation: first where it was reported as done, then anywhere
/// from its beginning to that of the next one.
fn points(recording: &Recording, operation: usize, (seed, count): (u64, usize)) -> Vec<Point> {
    let next = recording.begun.get(operation + 1).map_or(recording.events.len(), |next| next - 1);
    let (begun, done) = (recording.begun[operation], recording.done[operation]);
    let point = |number: usize| {
        let mode = Mode::ALL[number % Mode::ALL.len()];
        let seed = seed ^ (number as u64) << 32 ^ (operation as u64) << 24;
        let mut random = random(seed, 1);
        let at = if number < Mode::ALL.len() && number.is_multiple_of(2) {
            done
        } else {
            begun + random.below(next - begun + 1)
        };
        Point { operation, mode, at, seed }
    };
    (0..count).map(point).collect()
}

/// Cuts the power at each point and checks what is found.
fn cut(world: &World, disks: &Disks, recording: &Recording, points: &[Point], report: &Report) {
    let next = AtomicUsize::new(0);
    let mut points = points.to_vec();
    points.sort_by_key(|point| point.at);
    let replay = Mutex::new(Replay::new(&recording.base, &recording.events));
    // Most of the time goes to waiting, for filesystems that come and go.
    let workers = 3 * thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for worker in 0..workers {
            let (next, replay, points) = (&next, &replay, &points);
            scope.spawn(move || {
                loop {
                    // In order: the disk goes forward only.
                    let mut replay = replay.lock().unwrap();
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(point) = points.get(number) else { return };
                    let mut random = random(point.seed, 2);
                    let image =
                        replay.cut(point.at, point.mode.loss(recording.filesystem), &mut random);
                    drop(replay);
                    let place = format!("cut-{}-{worker}", recording.filesystem.name());
                    let target = world.cairn.directory().join(place);
                    let checked = catch_unwind(AssertUnwindSafe(|| {
                        check_point(
                            (world, disks, &target),
                            recording,
                            point,
                            image.clone(),
                            &mut random,
                        )
                    }));
                    let checked = checked.unwrap_or_else(|_| Err("a panic".into()));
                    report.note(recording, point, checked, &image);
                }
            });
        }
    });
}

/// Mounts what a power cut has left, and checks the store in it.
fn check_point(
    (world, disks, target): (&World, &Disks, &Path),
    recording: &Recording,
    point: &Point,
    image: Image,
    random: &mut Random,
) -> Result<(), String> {
    let filesystem = recording.filesystem;
    let done = recording.done.iter().filter(|done| **done <= point.at).count();
    let begun = recording.begun.iter().filter(|begun| **begun <= point.at).count();
    let again = (done < begun).then(|| world.words(&OPERATIONS[done])).flatten();
    let promise = Promise {
        shown: &recording.shown[done..=begun],
        again,
        is_damaged: may_be_damaged(begun, done),
        goes_on_first: random.below(2) == 0,
    };
    let disk = disks.add(image.clone());
    let mount = |path: &Path| {
        filesystem.mount(path, target).map_err(|err| format!("the disk cannot be mounted: {err}"))
    };
    let mounted = mount(disk.path())?;
    let store = target.join("store");
    if point.mode != Mode::Twice {
        let checked = check(world, &store, &promise);
        drop(mounted);
        disk.clear();
        return checked;
    }
    for words in ["gc --rewrite-below 100", "store rebuild"] {
        // Each is checked for itself in other modes.
        let _ = world.run(&store, words);
    }
    let events = disk.take_events();
    drop(mounted);
    disk.clear();
    let torn = Loss::Torn(filesystem.sector());
    let loss = *random.choose(&[Loss::Nothing, Loss::Some, torn]);
    let at = random.below(events.len() + 1);
    let image = Replay::new(&image, &events).cut(at, loss, random);
    let disk = disks.add(image);
    let checked = mount(disk.path()).and_then(|mounted| {
        let checked = check(world, &store, &promise);
        drop(mounted);
        checked
    });
    disk.clear();
    let again = format!("{loss:?} at {at} of {} events since", events.len());
    checked.map_err(|problem| format!("{again}: {problem}"))
}

/// What all of this needs, beside what makes the filesystems.
fn is_possible(filesystems: &[Filesystem]) -> bool {
    let needs = [Need::Root, Need::Fuse, Need::Loop].into_iter();
    Need::all(&needs.chain(filesystems.iter().map(|it| it.need())).collect::<Vec<_>>())
}

/// Cuts the power so many times on each of the filesystems.
fn cut_on(filesystems: &[Filesystem], companies: &[Company], count: usize, seed: u64) -> Report {
    let world = World::new();
    let disks = Disks::serve().unwrap();
    let report = Report::new(seed);
    let parts = filesystems.len() * companies.len() * OPERATIONS.len();
    for (number, filesystem) in filesystems.iter().enumerate() {
        let base = base(&world, &disks, *filesystem);
        for (company, beside) in companies.iter().enumerate() {
            let recording = record(&world, &disks, (*filesystem, &base), *beside, None);
            let first = (number * companies.len() + company) * OPERATIONS.len();
            let points: Vec<Point> = (0..OPERATIONS.len())
                .flat_map(|operation| {
                    let part = first + operation;
                    let here = (part + 1) * count / parts - part * count / parts;
                    points(&recording, operation, (seed ^ part as u64, here))
                })
                .collect();
            cut(&world, &disks, &recording, &points, &report);
        }
    }
    report
}

#[test]
fn what_was_reported_is_there_after_a_power_cut() {
    const POINTS: usize = 76;
    let filesystems = [Filesystem::Ext4Small];
    if is_possible(&filesystems) {
        cut_on(&filesystems, &[Company::Alone], POINTS, seed()).assert_right();
    }
}

#[test]
#[ignore = "takes minutes: make crash"]
fn what_was_reported_is_there_after_any_of_many_power_cuts() {
    let only = std::env::var("CRASH_ON").unwrap_or_default();
    let on = Filesystem::ALL.into_iter().filter(|it| it.name().contains(&only));
    let on: Vec<Filesystem> = on.collect();
    assert!(is_possible(&on), "something is missing");
    let count = std::env::var("CRASH_POINTS").ok();
    let count = count.map_or(1000, |it| it.parse().expect("CRASH_POINTS is a number"));
    let report = cut_on(&on, &[Company::Alone, Company::Beside], count, seed());
    report.print();
    report.assert_right();
}

/// Each of these syncs is left out, and it has to show. On ext4 and XFS a sync of one file
/// makes all names durable that were given before, so that a missing one of a directory
/// shows on Btrfs alone.
const LEFT_OUT: [(Filesystem, LeftOut); 16] = [
    (Filesystem::Ext4, left_out("import", "syncfs", "packs")),
    (Filesystem::Xfs, left_out("import", "fdatasync", "refs/log")),
    (Filesystem::Ext4, left_out("snapshot", "fdatasync", "packs/new/0.pack")),
    (Filesystem::Xfs, left_out("snapshot", "fdatasync", "refs/log")),
    (Filesystem::Btrfs, left_out("snapshot", "fdatasync", "workspaces/work/base.new")),
    (Filesystem::Ext4, left_out("install", "fdatasync", "packs/new/0.pack")),
    (Filesystem::Ext4, left_out("install, large", "syncfs", "packs")),
    (Filesystem::Btrfs, left_out("install, large", "fsync", "packs")),
    (Filesystem::Ext4, left_out("tag", "fdatasync", "refs/log")),
    (Filesystem::Xfs, left_out("switch", "fdatasync", "refs/log")),
    (Filesystem::Ext4, left_out("compact", "fdatasync", "packs/gc/0.pack")),
    (Filesystem::Xfs, left_out("prune --gc", "fdatasync", "refs/log")),
    (Filesystem::Ext4, left_out("gc", "fdatasync", "packs/gc/0.pack")),
    (Filesystem::Ext4, left_out("pull", "fdatasync", "packs/new/0.pack")),
    (Filesystem::Xfs, left_out("pull", "fdatasync", "refs/log")),
    (Filesystem::Btrfs, left_out("repo add", "fsync", "repositories")),
];

const fn left_out(operation: &'static str, call: &'static str, path: &'static str) -> LeftOut {
    LeftOut { operation, call, path }
}

#[test]
#[ignore = "takes minutes: make crash"]
fn each_sync_that_is_left_out_is_noticed() {
    const POINTS: usize = 60;
    assert!(is_possible(&Filesystem::ALL), "something is missing");
    assert!(Need::all(&[Need::Program("strace", "strace")]), "strace is missing");
    let world = World::new();
    let disks = Disks::serve().unwrap();
    let seed = seed();
    let only = std::env::var("CRASH_SYNCS").unwrap_or_default();
    let mut bases: BTreeMap<&str, Image> = BTreeMap::new();
    let mut missed = Vec::new();
    let syncs = LEFT_OUT.iter().filter(|(_, it)| it.operation.contains(&only));
    for (filesystem, left_out) in syncs.copied() {
        let base =
            bases.entry(filesystem.name()).or_insert_with(|| base(&world, &disks, filesystem));
        let company = Company::Alone;
        let recording = record(&world, &disks, (filesystem, base), company, Some(left_out));
        let operation = operations::number_of(left_out.operation);
        let points = points(&recording, operation, (seed, POINTS));
        let report = Report::of_control(seed);
        let mut cuts = 0;
        // Once is enough.
        for some in points.chunks(POINTS / 3) {
            cut(&world, &disks, &recording, some, &report);
            cuts += some.len();
            if !report.wrong().is_empty() {
                break;
            }
        }
        let wrong = report.wrong();
        println!("{:8} {left_out:?}: {} of {cuts} wrong", filesystem.name(), wrong.len());
        if wrong.is_empty() {
            missed.push(left_out);
        }
    }
    assert!(missed.is_empty(), "nothing was found wrong without {missed:?}");
}

/// How many of the events are flushes, for the report.
fn flushes(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Flush)).count()
}
