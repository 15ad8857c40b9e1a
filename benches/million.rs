//! A system of 1,000,000 entries: mount, walk, memory and switch, within the budgets that
//! hold for one of 231,000, beside the same tree on the native filesystem. Needs root.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cairn_benches::{
    Mounted, binary, cairn, drop_caches, grown, judge, judge_time, make_system, median_of, report,
    run, walk, write_out,
};
use cairn_store::Store;

const ENTRIES: u64 = 1_000_000;

/// What the process of the mount may have in memory after the walk.
const MEMORY_MB: u64 = 100;

#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = home.path().join("store");
    let store = Store::create(&path).expect("a new store");
    let (first, installed) = make_system(&store, ENTRIES);
    let second = grown(&store, &first, &installed, 1);
    let native = home.path().join("native");
    write_out(&store, second.tree, &native);
    drop(store);
    let root = home.path().join("root");
    fs::create_dir(&root).expect("a new directory");
    let mount = || run(cairn(&path).args(["mount", "--follow"]).arg(&root));
    let umount = || run(cairn(&path).arg("umount").arg(&root));
    let _mounted = Mounted(&root);

    let start = median_of(21, || time(|| run(Command::new(binary()).arg("--version"))));
    let mounting = median_of(5, || {
        let took = time(mount);
        umount();
        took
    });
    report("cairn mount", mounting);
    let beyond = mounting.saturating_sub(start);
    judge_time("cairn mount, beyond process start", beyond, Duration::from_millis(50));

    let expected = walk(&native);
    let [ours, theirs] = [true, false].map(|is_ours| {
        median_of(3, || {
            drop_caches();
            if is_ours {
                mount();
            }
            let root = if is_ours { &root } else { &native };
            let took = time(|| assert_eq!(walk(root), expected, "both trees are the same"));
            if is_ours {
                umount();
            }
            took
        })
    });
    report("walk, cold, mount", ours);
    report("walk, cold, native", theirs);
    judge("walk, cold", ours, theirs, 0.5);

    mount();
    let [ours, theirs] =
        [&root, &native].map(|root| median_of(3, || time(|| assert_eq!(walk(root), expected))));
    report("walk, warm, mount", ours);
    report("walk, warm, native", theirs);
    judge("walk, warm", ours, theirs, 1.4);
    let memory = resident_mb(&path);
    let kept = if memory <= MEMORY_MB { "kept" } else { "MISSED" };
    println!("memory of the mount after the walk: {memory} MB, budget {MEMORY_MB} MB: {kept}");

    let mut turn = 0;
    let switch = median_of(21, || {
        turn += 1;
        let state = if turn % 2 == 0 { second.id } else { first.id };
        time(|| run(cairn(&path).arg("switch").arg(state.to_string())))
    });
    report("cairn switch, all known to the kernel", switch);
    let beyond = switch.saturating_sub(start);
    judge_time("cairn switch, beyond process start", beyond, Duration::from_millis(10));
    umount();
}

fn time(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// Megabytes that the process of the only mount of a store has in memory.
fn resident_mb(store: &Path) -> u64 {
    let mounts = cairn_fs::list(&store.join("run")).expect("mounts are registered");
    let [mount] = mounts.as_slice() else { panic!("{} mounts", mounts.len()) };
    let status = fs::read_to_string(format!("/proc/{}/status", mount.pid)).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024 / 1_000_000
}
