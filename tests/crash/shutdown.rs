//! A filesystem goes away under the running program: it ends with an error or has done what
//! it was to do, and after the next mount the store is as it was or as it was to be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cairn_tests::Ended;
use cairn_tests::disk::{Disks, Filesystem, Mounted, shut_down};

use crate::check::{Promise, check};
use crate::operations::{OPERATIONS, Shown, World, damage, may_be_damaged};
use crate::{is_possible, random, seed};

/// Copies of a filesystem as it is before each operation, how long that takes, and what is
/// shown before it and after.
struct Stages {
    filesystem: Filesystem,
    directory: PathBuf,
    times: Vec<Duration>,
    shown: Vec<Shown>,
}

impl Stages {
    fn image(&self, stage: usize) -> PathBuf {
        self.directory.join(format!("stage-{stage}"))
    }

    fn mount(&self, image: &Path) -> Mounted {
        self.filesystem.mount(image, &self.directory.join("live")).unwrap()
    }

    fn store(&self) -> PathBuf {
        self.directory.join("live/store")
    }

    fn new(world: &World, filesystem: Filesystem) -> Self {
        let directory = world.cairn.directory().into();
        let mut stages = Self { filesystem, directory, times: Vec::new(), shown: Vec::new() };
        filesystem.make_in(&stages.image(0));
        let mounted = stages.mount(&stages.image(0));
        let copied =
            Command::new("cp").arg("-a").arg(world.cairn.store()).arg(mounted.path()).status();
        assert!(copied.unwrap().success());
        stages.shown.push(world.shown(&stages.store()).unwrap());
        drop(mounted);
        for (number, operation) in OPERATIONS.iter().enumerate() {
            copy(&stages.image(number), &stages.image(number + 1));
            let mounted = stages.mount(&stages.image(number + 1));
            let begun = Instant::now();
            match world.words(operation) {
                Some(words) => {
                    let ended = world.command(&stages.store(), &words).output().unwrap();
                    assert!(ended.status.success(), "{}: {ended:?}", operation.name);
                }
                None => damage(&stages.store()),
            }
            stages.times.push(begun.elapsed());
            stages.shown.push(world.shown(&stages.store()).unwrap());
            drop(mounted);
        }
        stages
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--sparse=always").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// Shuts the filesystem down at a random moment of an operation; returns whether the program
/// has met that.
fn round(world: &World, stages: &Stages, seed: u64, number: usize) -> Result<bool, String> {
    let mut random = random(seed, number as u64);
    let last = random.below(OPERATIONS.len());
    let Some(words) = world.words(&OPERATIONS[last]) else { return Ok(false) };
    let (file, store) = (stages.directory.join("cut"), stages.store());
    copy(&stages.image(last), &file);
    let mounted = stages.mount(&file);
    let mut command = world.command(&store, &words);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    thread::sleep(stages.times[last].mul_f64(random.below(1000) as f64 / 1000.0));
    // A sync that ext4 is at when it is shut down says that all is well, and nothing is on the
    // disk: the transaction that it waits for is given up and gone when it looks
    // (jbd2_complete_transaction). A machine that loses its power tells nobody anything.
    let is_done = child.try_wait().unwrap().is_some_and(|status| status.success());
    shut_down(mounted.path()).unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap());
    drop(mounted);
    let is_told = ended.status.success();
    let at = |problem| {
        let filesystem = stages.filesystem.name();
        format!("round {number}, {} on {filesystem}: {problem}", OPERATIONS[last].name)
    };
    let is_error = ["cairn: ", "\"error\": "].iter().any(|it| ended.stderr.contains(it));
    if ended.stderr.contains("panicked at") || !is_told && !is_error {
        return Err(at(format!("{} {}", ended.status, ended.stderr)));
    }
    let done = last + usize::from(is_done);
    let promise = Promise {
        shown: &stages.shown[done..=last + 1],
        again: (!is_done).then_some(words),
        is_damaged: may_be_damaged(last + 1, done),
        goes_on_first: number.is_multiple_of(2),
    };
    let mounted = stages.mount(&file);
    let checked = check(world, &store, &promise);
    drop(mounted);
    fs::remove_file(&file).unwrap();
    checked.map(|()| !is_told).map_err(at)
}

#[test]
#[ignore = "takes minutes: make crash"]
fn what_was_reported_is_there_when_the_filesystem_is_shut_down() {
    const ROUNDS: usize = 100;
    let filesystems = [Filesystem::Ext4, Filesystem::Xfs];
    assert!(is_possible(&filesystems), "something is missing");
    let seed = seed();
    let world = World::new();
    // For the mounts, which go away whatever happens.
    let _disks = Disks::serve().unwrap();
    for filesystem in filesystems {
        let stages = Stages::new(&world, filesystem);
        let rounds = (0..ROUNDS).map(|number| round(&world, &stages, seed, number));
        let (met, wrong): (Vec<_>, Vec<_>) = rounds.partition(Result::is_ok);
        let met = met.into_iter().flatten().filter(|it| *it).count();
        let name = filesystem.name();
        println!(
            "{name}: {ROUNDS} shutdowns, {met} of them met by a command, {} wrong",
            wrong.len()
        );
        assert!(wrong.is_empty(), "CRASH_SEED={seed}: {wrong:#?}");
        assert!(met > ROUNDS / 10, "only {met} commands met the shutdown");
    }
}
