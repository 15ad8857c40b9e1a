//! How long does it take to put one small package into a system, without
//! reading indices, solving and process start? Systems of 2,000 and 231,000
//! entries.

use std::time::Instant;

use cairn_benches::{compare, make_system, median_of, report, system_package};
use cairn_package::system::{self, InstalledPackage};
use cairn_store::{Draft, Store};

fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let [small, large] = [2_000, 231_000].map(|entries| {
        let path = home.path().join(format!("{entries}"));
        let store = Store::create(&path).expect("a new store");
        let begin = Instant::now();
        let (state, _) = make_system(&store, entries);
        let count = store.tree(state.tree).expect("it is there").summary().entries;
        report(&format!("compose/{count} entries"), begin.elapsed());
        let mut number = 1_000_000;
        let time = median_of(15, || {
            let store = Store::open(&path).expect("the store opens");
            let state = store.switch(state.id).expect("it is there");
            let begin = Instant::now();
            let installed =
                InstalledPackage::load_all(&store, state.packages).expect("it is sound");
            let read = begin.elapsed();
            let mut transaction = store.begin().expect("nobody else has the store");
            let begun = begin.elapsed();
            number += 1;
            let coming = [system_package(&mut transaction, number)];
            let made = system::change(&mut transaction, Some(&state), &installed, &[], &coming)
                .expect("no conflicts");
            let changed = begin.elapsed();
            let draft = Draft {
                parent: Some(state.id),
                request: "install".into(),
                tree: made.tree,
                packages: made.packages,
            };
            transaction.commit(draft).expect("the store commits");
            let time = begin.elapsed();
            eprintln!("  read {read:?}, begun {begun:?}, changed {changed:?}, committed {time:?}");
            time
        });
        report(&format!("install/{entries} entries"), time);
        time
    });
    compare("install/231000 entries, peer: 2000 entries", large, small);
}
