//! How long does it take to see which states there are, and to enter one, when there are
//! 5,000 of a system of 2,000 entries? On a mount of all states, and with `cairn state list`;
//! beside it the plain way to keep states: a directory for each on the native filesystem.
//! And how long when most of them were removed? Needs root.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cairn_benches::{
    Mounted, binary, cairn, compare, drop_caches, make_system, median_of, report, run, walk,
    write_out,
};
use cairn_store::{Draft, StateId, Store};

const STATES: usize = 5_000;

/// So many are left in the end.
const LEFT: usize = 20;

/// Asks what there is in a directory of states.
type Question = fn(&Path);

fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = home.path().join("store");
    let store = Store::create(&path).expect("a new store");
    let (first, _) = make_system(&store, 2_000);
    for number in 1..STATES {
        let draft = Draft {
            parent: Some(first.id),
            request: format!("number {number}"),
            tree: first.tree,
            packages: first.packages,
        };
        store.begin().expect("nobody else has it").commit(draft).expect("the store commits");
    }
    let native = home.path().join("native");
    fs::create_dir(&native).expect("a new directory");
    for number in 1..STATES {
        fs::create_dir(native.join(number.to_string())).expect("a new directory");
    }
    write_out(&store, first.tree, &native.join(STATES.to_string()));
    drop(store);
    let root = home.path().join("root");
    fs::create_dir(&root).expect("a new directory");
    let mount = || run(cairn(&path).arg("mount").arg(&root));
    let umount = || run(cairn(&path).arg("umount").arg(&root));
    let _mounted = Mounted(&root);

    let mounting = median_of(5, || {
        let took = time(mount);
        umount();
        took
    });
    report("mount of 5000 states, process start and all", mounting);
    let states = root.join("states");
    let questions: [(&str, Question); 3] = [
        ("names of 5000 states", |at| assert_eq!(names(at), STATES)),
        ("names and attributes of 5000 states", |at| assert_eq!(attributes(at), STATES)),
        ("walk of one state of 2000 entries", |at| {
            assert!(walk(&at.join(STATES.to_string())) > 2_000);
        }),
    ];
    for (question, ask) in questions {
        let cold = |is_ours: bool, at: &Path| {
            median_of(5, || {
                drop_caches();
                if is_ours {
                    mount();
                }
                let took = time(|| ask(at));
                if is_ours {
                    umount();
                }
                took
            })
        };
        let (ours, theirs) = (cold(true, &states), cold(false, &native));
        report(&format!("{question}, cold, mount"), ours);
        report(&format!("{question}, cold, native"), theirs);
        compare(&format!("{question}, cold"), ours, theirs);
        mount();
        let [ours, theirs] = [&states, &native].map(|at| median_of(9, || time(|| ask(at))));
        umount();
        report(&format!("{question}, warm, mount"), ours);
        report(&format!("{question}, warm, native"), theirs);
        compare(&format!("{question}, warm"), ours, theirs);
    }

    let start = median_of(21, || time(|| run(Command::new(binary()).arg("--version"))));
    report("process start", start);
    let list = || median_of(9, || time(|| run(cairn(&path).args(["state", "list"]))));
    report("cairn state list, of 5000 states", list());
    let store = Store::open(&path).expect("the store");
    let old: Vec<StateId> = store.refs().states.into_keys().take(STATES - LEFT).collect();
    store.remove_states(&old).expect("they can be removed");
    report(&format!("cairn state list, {LEFT} of them left"), list());
}

fn time(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn names(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).expect("it can be listed");
    entries.filter(|entry| entry.as_ref().expect("a name").file_type().is_ok()).count()
}

fn attributes(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).expect("it can be listed");
    let entries = entries.map(|entry| entry.expect("a name").metadata().expect("it is there"));
    entries.filter(fs::Metadata::is_dir).count()
}
