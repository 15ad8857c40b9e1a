//! How long does it take to drop one old state of a system of 231,000 entries, room
//! given back, and how long to collect and to verify when there are 1,000 states?

use std::time::Instant;

use cairn_benches::{make_system, median_of, report, system_package};
use cairn_package::system::{self, InstalledPackage};
use cairn_store::{Draft, GcOptions, State, Store};

fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = home.path().join("store");
    let store = Store::create(&path).expect("a new store");
    make_system(&store, 231_000);
    let mut number = 1_000_000;
    let mut add = || {
        number += 1;
        install(&store, number)
    };
    for _ in 0..20 {
        add();
    }
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
    report("drop/one state of 231000 entries, gc included", time);

    while store.refs().states.len() < 1000 {
        add();
    }
    let objects = store.preview_gc(GcOptions::default(), &[], &()).expect("it is sound").kept;
    let time = median_of(5, || {
        let store = Store::open(&path).expect("the store opens");
        let begin = Instant::now();
        store.gc(GcOptions::default(), &()).expect("the store is sound");
        begin.elapsed()
    });
    report(&format!("gc/1000 states, {} objects", objects.objects), time);
    let time = median_of(3, || {
        let store = Store::open(&path).expect("the store opens");
        let begin = Instant::now();
        let report = store.verify(&()).expect("the store can be read");
        assert!(report.damage.is_empty());
        begin.elapsed()
    });
    report(&format!("verify/1000 states, {} objects", objects.objects), time);
}

/// Makes a state with one more package.
fn install(store: &Store, number: u64) -> State {
    store.refresh().expect("the store can be read");
    let state = store.current().expect("there is one");
    let installed = InstalledPackage::load_all(store, state.packages).expect("it is sound");
    let mut transaction = store.begin().expect("nobody else has the store");
    let coming = [system_package(&mut transaction, number)];
    let made = system::change(&mut transaction, Some(&state), &installed, &[], &coming)
        .expect("no conflicts");
    let draft = Draft {
        parent: Some(state.id),
        request: "install".into(),
        tree: made.tree,
        packages: made.packages,
    };
    transaction.commit(draft).expect("the store commits")
}
