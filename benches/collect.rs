//! A system with 1,000 states, in each of which a package takes the place of another: how long
//! does it take to drop an old state with room given back, to collect, to verify, and to tell
//! what states take, what differs between them, when a file changed and where one is; and how
//! does that grow, from a system of 231,000 entries to one of 1,000,000?

use std::path::Path;
use std::time::{Duration, Instant};

use cairn_benches::{
    cairn, compare, judge_time, make_system, median, median_of, report, run, system_package,
};
use cairn_package::system::{self, InstalledPackage};
use cairn_store::{Draft, GcOptions, State, Store};

const SIZES: [u64; 2] = [231_000, 1_000_000];

const STATES: usize = 1000;

/// What was measured of one system.
type Times = Vec<(&'static str, Duration)>;

#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
fn main() {
    let [(few, before), (many, after)] = SIZES.map(measure);
    println!("{few} objects to {many}, growth of {:.2}:", many as f64 / few as f64);
    for ((name, small), (_, large)) in before.iter().zip(&after) {
        compare(name, *large, *small);
    }
}

/// Measures a system of so many entries; returns how many objects its states need.
#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
fn measure(entries: u64) -> (u64, Times) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = home.path().join("store");
    let store = Store::create(&path).expect("a new store");
    make_system(&store, entries);
    let mut number = 1_000_000;
    let mut add = || {
        number += 1;
        install(&store, number)
    };
    for _ in 0..20 {
        add();
    }
    println!("{entries} entries");
    let mut times = Times::new();
    let mut note = |name, time| {
        report(name, time);
        times.push((name, time));
    };
    let time = median_of(9, || {
        add();
        let old = store.refs().states.keys().nth(1).copied().expect("there are states");
        let store = Store::open(&path).expect("the store opens");
        let begin = Instant::now();
        store.remove_states(&[old]).expect("it is neither current nor tagged");
        let collected = store.gc(GcOptions::default(), &()).expect("the store is sound");
        assert!(collected.removed.objects > 0, "{collected:?}");
        begin.elapsed()
    });
    // The design says so of a system of this size.
    if entries == SIZES[0] {
        judge_time("drop one state, gc included", time, Duration::from_secs(1));
    }
    note("drop one state, gc included", time);

    while store.refs().states.len() < STATES {
        add();
    }
    let objects = store.preview_gc(GcOptions::default(), &[], &()).expect("it is sound").kept;
    println!("{STATES} states, {} objects", objects.objects);
    let time = median_of(5, || {
        let store = Store::open(&path).expect("the store opens");
        let begin = Instant::now();
        store.gc(GcOptions::default(), &()).expect("the store is sound");
        begin.elapsed()
    });
    note("gc", time);
    let time = median_of(3, || {
        let store = Store::open(&path).expect("the store opens");
        let begin = Instant::now();
        let report = store.verify(&()).expect("the store can be read");
        assert!(report.damage.is_empty());
        begin.elapsed()
    });
    note("verify", time);
    for (name, command) in QUESTIONS {
        note(name, ask(&path, command));
    }
    (objects.objects, times)
}

/// Whole commands, by what they are called here.
const QUESTIONS: [(&str, &[&str]); 6] = [
    ("cairn du", &["du"]),
    ("cairn diff, two states in a row", &["diff"]),
    ("cairn diff, first state to last", &["diff", "1", "current"]),
    ("cairn log /usr/bin", &["log", "/usr/bin"]),
    ("cairn log /etc", &["log", "/etc"]),
    (
        "cairn find current '/usr/share/doc/package00001/*'",
        &["find", "current", "/usr/share/doc/package00001/*"],
    ),
];

fn ask(store: &Path, command: &[&str]) -> Duration {
    median(5, || run(cairn(store).args(command)))
}

/// Makes a state with the package `number` in place of the one before, if that is there.
fn install(store: &Store, number: u64) -> State {
    store.refresh().expect("the store can be read");
    let state = store.current().expect("there is one");
    let installed = InstalledPackage::load_all(store, state.packages).expect("it is sound");
    let mut transaction = store.begin().expect("nobody else has the store");
    let coming = [system_package(&mut transaction, number)];
    let leaving = installed.get(&format!("package{:05}", number - 1)).cloned();
    let leaving = leaving.as_slice();
    let made = system::change(&mut transaction, Some(&state), &installed, leaving, &coming)
        .expect("no conflicts");
    let draft = Draft {
        parent: Some(state.id),
        request: "install".into(),
        tree: made.tree,
        packages: made.packages,
    };
    transaction.commit(draft).expect("the store commits")
}
