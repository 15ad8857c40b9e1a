//! How long does a switch take until a mount that follows shows it, process start
//! and all, in systems of 2,000 and of 231,000 entries, all of which the kernel knows?
//! Beside it: the same program doing nothing, which is process start; and the plain
//! way to switch between roots that are there, a symbolic link that is made anew.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cairn_benches::{
    Mounted, binary, cairn, grown, judge, judge_time, make_system, median_of, report, run, walk,
};
use cairn_store::{State, Store};

/// Switches that are timed.
const RUNS: usize = 41;

fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let start = median_of(RUNS, || time(Command::new(binary()).arg("--version")));
    report("cairn --version", start);
    let [small, large] = [2_000, 231_000].map(|entries| {
        let path = home.path().join(format!("store {entries}"));
        let store = Store::create(&path).expect("a new store");
        let (first, installed) = make_system(&store, entries);
        let one = grown(&store, &first, &installed, 1);
        let ten = grown(&store, &first, &installed, 10);
        drop(store);
        let root = home.path().join(format!("root {entries}"));
        fs::create_dir(&root).expect("a new directory");
        run(cairn(&path).args(["mount", "--follow"]).arg(&root));
        let mounted = Mounted(&root);
        let times = [("1 package", one), ("10 packages", ten)].map(|(what, other)| {
            let time = time_switch(&path, &root, &first, &other);
            let name = format!("switch/{entries} entries, {what}");
            report(&name, time);
            let beyond = time.saturating_sub(start);
            judge_time(&format!("{name}, beyond process start"), beyond, Duration::from_millis(10));
            time
        });
        drop(mounted);
        times[0]
    });
    // Independent of the size, but for what a measurement varies by.
    judge("switch/231000 entries, beside 2000 entries", large, small, 1.2);

    let links = ["one", "two"].map(|name| home.path().join(name));
    let current = home.path().join("current");
    let mut turn = 0;
    let peer = median_of(RUNS, || {
        turn += 1;
        let time = time(Command::new("ln").arg("-sfn").arg(&links[turn % 2]).arg(&current));
        assert_eq!(fs::read_link(&current).expect("a link"), links[turn % 2]);
        time
    });
    report("ln -sfn", peer);
}

/// The median time until a file of `other` comes or goes, with everything known to
/// the kernel before.
fn time_switch(store: &Path, root: &Path, first: &State, other: &State) -> Duration {
    let file = root.join("usr/bin/package1000000-0");
    let mut is_there = fs::exists(&file).expect("the mount answers");
    median_of(RUNS, || {
        let _ = walk(root);
        is_there = !is_there;
        let to = if is_there { other } else { first };
        let begin = Instant::now();
        run(cairn(store).arg("switch").arg(to.id.to_string()));
        assert_eq!(fs::exists(&file).expect("the mount answers"), is_there);
        begin.elapsed()
    })
}

fn time(command: &mut Command) -> Duration {
    let begin = Instant::now();
    run(command);
    begin.elapsed()
}
