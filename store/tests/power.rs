//! The power goes at every step of every change, and what was reported stays.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may fail")]

mod support;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use cairn_store::transfer::PullExtent;
use cairn_store::tree::{Content, Entry, Leaf};
use cairn_store::workspace::{Afterwards, LayerMarks};
use cairn_store::{
    Attributes, BytesSource, Draft, Error, GcOptions, ImportOptions, Name, Standing, State,
    StateId, Store, Tag, Transaction, Tree, WorkspaceName, import_directory,
};
use support::{FaultyDisk, Loss, Omitted, copy};

/// A change of a store, and what it reports.
type Operation = fn(&Store) -> Result<(), Error>;

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn contents(generation: u8, large: usize) -> Vec<Vec<u8>> {
    let mut contents: Vec<Vec<u8>> =
        (0..10).map(|at| [generation, at].repeat(usize::from(at) * 977)).collect();
    for at in 0..large {
        // Noise, so that it stays large.
        let mut word = 0x2545_f491_4f6c_dd1d_u64 + at as u64 + u64::from(generation);
        let noise = (0..132_000).flat_map(|_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_le_bytes()
        });
        contents.push(noise.collect());
    }
    contents
}

fn publish(store: &Store, generation: u8, large: usize) -> Result<State, Error> {
    let (transaction, draft) = prepare(store, generation, large)?;
    transaction.commit(draft)
}

fn prepare(store: &Store, generation: u8, large: usize) -> Result<(Transaction, Draft), Error> {
    let contents = contents(generation, large);
    let names: Vec<String> = (0..contents.len()).map(|at| format!("file {at}")).collect();
    let sources: Vec<BytesSource<'_>> =
        contents.iter().zip(&names).map(|(bytes, name)| BytesSource { name, bytes }).collect();
    let mut transaction = store.begin()?;
    let blobs = transaction.ingest(&sources, &())?;
    let entries = blobs.iter().zip(&names).map(|(blob, text)| {
        let content = Content::File(*blob);
        let leaf = Leaf { attributes: Attributes::of_root(0o644), content, link: None };
        (name(text), Entry::Leaf(leaf))
    });
    let below = Tree::new(Attributes::of_root(0o700), entries.collect()).unwrap();
    let below = transaction.put_subtree(below)?;
    let root = Tree::new(Attributes::of_root(0o755), vec![(name("below"), below)]).unwrap();
    let tree = transaction.put_tree(root)?;
    let packages = transaction.put_tree(Tree::empty(Attributes::of_root(0o755)))?;
    let parent = store.refs().current;
    let draft = Draft { parent, request: format!("test {generation}"), tree, packages };
    Ok((transaction, draft))
}

/// The workspace of the base.
fn old() -> WorkspaceName {
    WorkspaceName::new("old").unwrap()
}

/// On which state a workspace lies, and in which layer.
fn lies_on(store: &Store, name: &str) -> Option<(u64, u64)> {
    let record = store.workspace(&WorkspaceName::new(name).unwrap());
    record.ok().map(|record| (record.base.id.0, record.layer))
}

/// Reads every file of a state and compares it with what was put in.
fn check_contents(store: &Store, state: &State, generation: u8, large: usize) {
    let root = store.tree(state.tree).unwrap();
    let Some(Entry::Directory(below)) = root.get(b"below") else { panic!("no directory") };
    let below = store.tree(below.id).unwrap();
    for (at, bytes) in contents(generation, large).iter().enumerate() {
        let entry = below.get(format!("file {at}").as_bytes()).unwrap();
        let blob = entry.as_leaf().unwrap().blob().unwrap();
        assert_eq!(&store.read(blob).unwrap(), bytes, "file {at} of generation {generation}");
    }
}

fn import(store: &Store) -> Result<(), Error> {
    static TREE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let directory = support::fast_directory();
        for (at, bytes) in contents(9, 1).iter().enumerate() {
            std::fs::write(directory.path().join(at.to_string()), bytes).unwrap();
        }
        directory
    });
    let options = ImportOptions {
        request: "import a test",
        parent: None,
        switch: false,
        leave_out: None,
        one_filesystem: false,
        afresh: false,
    };
    import_directory(store, TREE.path(), &options, &()).map(drop)
}

struct Case {
    name: &'static str,
    base: fn(&Path),
    operation: Operation,
    /// What holds when it was done; what holds before is checked by the states.
    is_done: fn(&Store) -> bool,
    /// Generations that are published afterwards, and how many of their files are
    /// large.
    later: [(u8, usize); 2],
}

const CASES: [Case; 18] = [
    Case {
        name: "publish in one pack",
        base: make_base,
        operation: |store| publish(store, 2, 0).map(drop),
        is_done: |store| store.refs().current == Some(StateId(3)),
        later: [(7, 1), (2, 3)],
    },
    Case {
        name: "publish in two packs",
        base: make_base,
        operation: |store| publish(store, 2, 1).map(drop),
        is_done: |store| store.refs().current == Some(StateId(3)),
        later: [(7, 1), (2, 3)],
    },
    Case {
        name: "publish in many packs",
        base: make_base,
        operation: |store| publish(store, 2, 3).map(drop),
        is_done: |store| store.refs().current == Some(StateId(3)),
        later: [(7, 1), (2, 3)],
    },
    Case {
        name: "switch",
        base: make_base,
        operation: |store| store.switch(StateId(1)).map(drop),
        is_done: |store| store.refs().current == Some(StateId(1)),
        later: [(7, 1), (2, 3)],
    },
    Case {
        name: "tag",
        base: make_base,
        operation: |store| store.tag(Tag::new("kept").unwrap(), StateId(1)),
        is_done: |store| store.refs().tags.len() == 1,
        later: [(7, 1), (2, 3)],
    },
    Case {
        name: "remove",
        base: make_base,
        operation: |store| store.remove_states(&[StateId(1)]),
        is_done: |store| store.refs().states.len() == 1,
        later: [(7, 1), (2, 3)],
    },
    Case {
        name: "make a workspace",
        base: make_base,
        operation: |store| {
            let workspace = store.lock_workspace(&WorkspaceName::new("new").unwrap())?;
            workspace.create(StateId(2), LayerMarks::Trusted).map(drop)
        },
        is_done: |store| lies_on(store, "new") == Some((2, 1)),
        later: [(7, 1), (2, 3)],
    },
    Case {
        name: "publish a workspace",
        base: make_base,
        operation: |store| {
            let _workspace = store.lock_workspace(&old())?;
            let (transaction, draft) = prepare(store, 2, 0)?;
            let (aside, goes_on) = (Standing::Aside, Afterwards::Continues);
            transaction.commit_workspace(draft, aside, &old(), goes_on)?.1.map(drop)
        },
        is_done: |store| lies_on(store, "old") == Some((3, 2)),
        later: [(7, 1), (2, 3)],
    },
    Case {
        name: "reset a workspace",
        base: make_base,
        operation: |store| store.lock_workspace(&old())?.rebase(StateId(2)).map(drop),
        is_done: |store| lies_on(store, "old") == Some((2, 2)),
        later: [(7, 1), (2, 3)],
    },
    Case {
        name: "remove a workspace",
        base: make_base,
        operation: |store| store.lock_workspace(&old())?.remove(),
        is_done: |store| lies_on(store, "old").is_none(),
        later: [(7, 1), (2, 3)],
    },
    Case {
        name: "gc",
        base: make_garbage,
        operation: |store| store.gc(GcOptions { rewrite_below: 100 }, &()).map(drop),
        is_done: |store| store.refs().current == Some(StateId(2)),
        // What was garbage is wanted again.
        later: [(3, 2), (0, 0)],
    },
    Case {
        name: "compact",
        base: make_history,
        operation: |store| {
            let compacted = store.compact(&())?;
            assert!(compacted.packs_replaced > 2, "{compacted:?}");
            Ok(())
        },
        is_done: |store| store.refs().current == Some(StateId(2)),
        // What was moved is wanted again.
        later: [(3, 1), (4, 2)],
    },
    Case {
        name: "repair",
        base: make_damaged,
        operation: |store| store.repair(&mut [&mut SOUND.1.clone()], &()).map(drop),
        is_done: |store| store.verify(&()).is_ok_and(|report| report.damage.is_empty()),
        later: [(3, 2), (0, 0)],
    },
    Case {
        name: "pull",
        base: make_base,
        operation: pull,
        is_done: |store| store.refs().states.contains_key(&StateId(3)),
        later: [(7, 1), (2, 3)],
    },
    Case {
        name: "import",
        base: make_base,
        operation: import,
        is_done: |store| store.refs().states.contains_key(&StateId(3)),
        later: [(7, 1), (2, 3)],
    },
    Case {
        name: "prune",
        base: make_states,
        operation: |store| {
            store.remove_states(&[StateId(1), StateId(3)])?;
            store.gc(GcOptions { rewrite_below: 100 }, &()).map(drop)
        },
        is_done: |store| store.refs().states.len() == 1,
        // What went is wanted again.
        later: [(3, 2), (0, 0)],
    },
    Case {
        // Of a rebuild no step reaches this disk, since the index lies beside it.
        name: "publish after a rebuild",
        base: make_garbage,
        operation: |store| {
            store.rebuild_index()?;
            publish(store, 2, 3).map(drop)
        },
        is_done: |store| store.refs().current == Some(StateId(4)),
        later: [(3, 2), (0, 0)],
    },
    Case {
        name: "tag, for which the log is replaced",
        base: make_long_log,
        operation: |store| {
            let before = records(store.path());
            store.tag(Tag::new("kept").unwrap(), StateId(1))?;
            store.tag(Tag::new("too").unwrap(), StateId(1))?;
            assert!(records(store.path()) < before, "the log was not replaced");
            Ok(())
        },
        is_done: |store| store.refs().tags.len() == 2,
        later: [(7, 1), (2, 3)],
    },
];

/// How many records the log of a store has.
fn records(store: &Path) -> usize {
    std::fs::read(store.join("refs/log")).unwrap().split(|byte| *byte == b'\n').count() - 1
}

/// The base with as many records in its log as there may be.
fn make_long_log(path: &Path) {
    make_base(path);
    let store = Store::open(path).unwrap();
    while records(path) < 2 * 4 + 256 {
        store.switch(StateId(2)).unwrap();
    }
}

/// A store with a state that the base does not have; it has one small pack and a large one.
static OTHER: LazyLock<(tempfile::TempDir, Store)> = LazyLock::new(|| {
    let home = support::fast_directory();
    let store = Store::create(&home.path().join("other")).unwrap();
    publish(&store, 2, 1).unwrap();
    (home, store)
});

fn pull(store: &Store) -> Result<(), Error> {
    let states = [OTHER.1.state(StateId(1))?];
    store.pull(&OTHER.1, &states, PullExtent::Publish(Standing::Aside), &()).map(drop)
}

/// The same with two states less, of which one has most of a pack, and the other all
/// of several.
fn make_garbage(path: &Path) {
    make_states(path);
    let store = Store::open(path).unwrap();
    store.remove_states(&[StateId(1), StateId(3)]).unwrap();
}

/// The same before they are removed.
fn make_states(path: &Path) {
    make_base(path);
    let store = Store::open(path).unwrap();
    publish(&store, 3, 2).unwrap();
    store.switch(StateId(2)).unwrap();
}

/// The base with three old states, and one with a tag that shares some files of the first.
fn make_history(path: &Path) {
    make_base(path);
    let store = Store::open(path).unwrap();
    let old = publish(&store, 3, 1).unwrap();
    let mut transaction = store.begin().unwrap();
    let root = store.tree(old.tree).unwrap();
    let below = store.tree(root.get(b"below").unwrap().as_directory().unwrap().id).unwrap();
    let some = below.entries().iter().take(4).cloned().collect();
    let tree = transaction.put_tree(Tree::new(Attributes::of_root(0o755), some).unwrap()).unwrap();
    let draft = Draft { parent: None, request: "some".into(), tree, packages: old.packages };
    let some = transaction.commit(draft).unwrap();
    store.tag(Tag::new("some").unwrap(), some.id).unwrap();
    publish(&store, 5, 0).unwrap();
    publish(&store, 6, 0).unwrap();
    store.switch(StateId(2)).unwrap();
}

/// The base, whole.
static SOUND: LazyLock<(tempfile::TempDir, Store)> = LazyLock::new(|| {
    let home = support::fast_directory();
    let path = home.path().join("sound");
    make_base(&path);
    let store = Store::open(&path).unwrap();
    (home, store)
});

/// The base with damage in a pack of many objects, and in one of one object.
fn make_damaged(path: &Path) {
    make_base(path);
    let packs = std::fs::read_dir(path.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    let mut packs: Vec<_> = packs.filter(|path| path.is_file()).collect();
    packs.sort_by_key(|path| path.metadata().unwrap().len());
    for pack in [&packs[1], &packs[2]] {
        let mut bytes = std::fs::read(pack).unwrap();
        bytes[100] ^= 1;
        std::fs::write(pack, bytes).unwrap();
    }
}

/// A store with the states 1 and 2, of which 2 is current, and a workspace on 1.
fn make_base(path: &Path) {
    let store = Store::create(path).unwrap();
    publish(&store, 0, 0).unwrap();
    publish(&store, 1, 1).unwrap();
    let workspace = store.lock_workspace(&old()).unwrap();
    workspace.create(StateId(1), LayerMarks::User).unwrap();
}

/// Cuts the power of `case` after each number of steps, and returns what was
/// found wrong.
fn cut_everywhere(case: &Case, omitted: Omitted) -> Vec<String> {
    let home = support::fast_directory();
    let base = home.path().join("base");
    (case.base)(&base);
    let mut wrong = Vec::new();
    // What a sync is for may show only when several things are lost together.
    let seeds = match omitted {
        Omitted::Nothing => 2,
        Omitted::Sync(_) => 40,
        _ => 4,
    };
    let (all, syncs) = count(case);
    assert!(all > 1, "{}: the steps are counted", case.name);
    let cuts: Box<dyn Iterator<Item = usize>> = match omitted {
        Omitted::Nothing => Box::new(0..=all),
        // What is lost shows soonest where most was done, and before a sync all is as usual.
        Omitted::Sync(number) => Box::new((syncs[number]..=all).rev()),
        _ => Box::new((0..=all).rev()),
    };
    for steps in cuts {
        let live = home.path().join(format!("live {steps}"));
        copy(&base, &live);
        let disk = FaultyDisk::over(&live, steps, omitted);
        let store = Store::open_on(Arc::new(disk.clone()), &live).unwrap();
        let reported = (case.operation)(&store).is_ok();
        drop(store);
        let losses = [Loss::All, Loss::None]
            .into_iter()
            .chain((0..seeds).map(|seed| Loss::Some(seed + 100 * steps as u64)));
        for (at, loss) in losses.enumerate() {
            // The index may be gone, old or as it was when the power went.
            {
                let index = ["none", "old", "new"][(at + steps) % 3];
                let found = home.path().join("found");
                disk.restart(&found, loss);
                match index {
                    "old" => copy(&base.join("index"), &found.join("index")),
                    "new" => copy(&live.join("index"), &found.join("index")),
                    _ => {}
                }
                let what = format!("{}, {steps} steps, loss {at}, index {index}", case.name);
                let goes_on_first = (at + steps) % 4 > 1;
                let check = || check_found(&found, case, reported, goes_on_first);
                let outcome = std::panic::catch_unwind(check);
                match outcome {
                    Ok(Ok(())) => {}
                    Ok(Err(problem)) => wrong.push(format!("{what}: {problem}")),
                    Err(_) => wrong.push(format!("{what}: a panic")),
                }
                std::fs::remove_dir_all(&found).unwrap();
            }
            if !wrong.is_empty() && omitted != Omitted::Nothing {
                return wrong;
            }
        }
        std::fs::remove_dir_all(&live).unwrap();
        assert!(steps < all || reported, "{}: all steps were taken", case.name);
    }
    wrong
}

/// How much that a state needs is lost in a store.
fn lost_objects(store: &Store) -> Result<usize, String> {
    let report = store.verify(&()).map_err(|err| format!("cannot be verified: {err}"))?;
    Ok(report.damage.iter().filter(|it| !it.paths.is_empty()).count())
}

/// What is lost in the store that is to be repaired.
static DAMAGE: LazyLock<usize> = LazyLock::new(|| {
    let home = support::fast_directory();
    let path = home.path().join("damaged");
    make_damaged(&path);
    lost_objects(&Store::open(&path).unwrap()).unwrap()
});

fn check_found(
    found: &Path,
    case: &Case,
    reported: bool,
    goes_on_first: bool,
) -> Result<(), String> {
    let store = Store::open(found).map_err(|err| format!("does not open: {err}"))?;
    let done = (case.is_done)(&store);
    if reported && !done {
        return Err("what was reported is lost".into());
    }
    if !done && store.refs().current != Some(StateId(2)) {
        return Err("neither the old nor the new state is current".into());
    }
    let workspaces = store.workspaces().map_err(|err| format!("cannot list workspaces: {err}"))?;
    let is_known = |base| matches!(base, (1, 1) | (2, 1 | 2) | (3, 2));
    let is_right = workspaces.iter().all(|(_, it)| is_known((it.base.id.0, it.layer)));
    if !is_right || !done && lies_on(&store, "old") != Some((1, 1)) {
        return Err(format!("{workspaces:?}"));
    }
    let second = store.refs().states.get(&StateId(2)).cloned();
    if case.name == "repair" && reported {
        let aside = std::fs::read_dir(found.join("quarantine")).map_or(0, Iterator::count);
        if aside < 2 {
            return Err(format!("{aside} of 2 damaged packs are in quarantine"));
        }
    }
    if case.name == "repair" && !done {
        let lost = lost_objects(&store)?;
        if lost > *DAMAGE {
            return Err(format!("{lost} objects are lost, before it were {}", *DAMAGE));
        }
        (case.operation)(&store).map_err(|err| format!("cannot be repaired: {err}"))?;
    }
    let look = || {
        let report = store.verify(&()).map_err(|err| format!("cannot be verified: {err}"))?;
        // A pack that is not complete, and that no state needs, is no damage.
        let lost: Vec<_> = report.damage.iter().filter(|it| !it.paths.is_empty()).collect();
        if !lost.is_empty() {
            return Err(format!("{lost:?}"));
        }
        for (_, record) in &workspaces {
            // Only what is kept for a workspace may still have it.
            let (generation, large) = [(0, 0), (1, 1), (2, 0)][record.base.id.0 as usize - 1];
            check_contents(&store, &record.base, generation, large);
        }
        if let Some(state) = &second {
            check_contents(&store, state, 1, 1);
        }
        if case.name == "compact" {
            check_contents(&store, &store.state(StateId(3)).unwrap(), 3, 1);
        }
        Ok(())
    };
    // Looking heals, so that it must not always come first.
    if !goes_on_first {
        look()?;
    }
    // The store goes on, and what it takes in next is whole as well.
    for (generation, large) in case.later {
        let published = publish(&store, generation, large);
        let state = published.map_err(|err| format!("cannot go on: {err}"))?;
        check_contents(&store, &state, generation, large);
    }
    if goes_on_first {
        look()?;
    }
    if case.name == "compact" {
        let compacted = store.compact(&());
        compacted.map_err(|err| format!("cannot compact: {err}"))?;
        look()?;
    }
    if matches!(case.name, "gc" | "compact" | "prune") {
        let collected = store.gc(GcOptions { rewrite_below: 100 }, &());
        collected.map_err(|err| format!("cannot collect: {err}"))?;
        look()?;
    }
    Ok(())
}

#[test]
fn a_power_cut_leaves_the_old_state_or_the_reported_one() {
    for case in &CASES {
        let wrong = cut_everywhere(case, Omitted::Nothing);
        assert!(wrong.is_empty(), "{} wrong, first: {}", wrong.len(), wrong[0]);
    }
}

#[test]
fn the_test_above_notices_each_sync_that_is_left_out() {
    let mut missed = Vec::new();
    std::panic::set_hook(Box::new(|_| {}));
    for (case, omitted) in [
        (&CASES[0], Omitted::FileSyncs),
        (&CASES[0], Omitted::DirectorySyncs),
        (&CASES[2], Omitted::FilesystemSyncs),
        (&CASES[3], Omitted::FileSyncs),
        (&CASES[4], Omitted::FileSyncs),
        (&CASES[5], Omitted::FileSyncs),
        (&CASES[6], Omitted::FileSyncs),
        (&CASES[6], Omitted::DirectorySyncs),
        (&CASES[7], Omitted::FileSyncs),
        (&CASES[7], Omitted::DirectorySyncs),
        (&CASES[8], Omitted::FileSyncs),
        (&CASES[8], Omitted::DirectorySyncs),
        (&CASES[9], Omitted::DirectorySyncs),
    ] {
        if cut_everywhere(case, omitted).is_empty() {
            missed.push(format!("{} without {omitted:?}", case.name));
        }
    }
    let each = ["publish a workspace", "gc", "compact", "repair", "pull", "import", "prune"];
    let is_meant = |name| each.contains(&name) || name.ends_with("replaced");
    for case in CASES.iter().filter(|case| is_meant(case.name)) {
        // A repair begins with the two syncs of quarantine. This one writes several
        // packs, so that the sync of the filesystem that follows is for those as well. What a
        // prune has removed is reported after the sync of the log by its collection, and the
        // first of two tags after that of the log that replaces it.
        let first = match case.name {
            "repair" => 2,
            "prune" | "tag, for which the log is replaced" => 1,
            _ => 0,
        };
        // What this one makes durable in a pull is the pack of the state's record alone, which
        // the log has as well.
        let spare = if case.name == "pull" { 1 } else { usize::MAX };
        for sync in (first..count(case).1.len()).filter(|sync| *sync != spare) {
            if cut_everywhere(case, Omitted::Sync(sync)).is_empty() {
                missed.push(format!("{} without sync {sync}", case.name));
            }
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "{missed:?}");
}

/// How many steps an operation makes, and after how many of them each sync comes.
fn count(case: &Case) -> (usize, Vec<usize>) {
    let home = support::fast_directory();
    let live = home.path().join("live");
    (case.base)(&live);
    let disk = FaultyDisk::over(&live, usize::MAX, Omitted::Nothing);
    let store = Store::open_on(Arc::new(disk.clone()), &live).unwrap();
    (case.operation)(&store).unwrap();
    (disk.steps_done(), disk.syncs())
}
