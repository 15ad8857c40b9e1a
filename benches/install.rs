//! How long does `cairn install` of one small package take, process start and
//! all, in a system of 231,000 entries: beside making the same root again as a
//! farm of hard links (`cp -al`), and beside the same command in a system of
//! 2,000 entries? The index is cached, the stone lies on the same disk.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cairn_benches::{cairn, judge, make_system, median_of, report, run, write_out};
use cairn_package::Metadata;
use cairn_package::stone::{Builder, Encoding, Layout, LayoutContent, Source};
use cairn_store::{Store, TreePath};

fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let repository = make_repository(home.path());
    let [small, large] = [2_000, 231_000].map(|entries| {
        let path = home.path().join(format!("store {entries}"));
        let store = Store::create(&path).expect("a new store");
        make_system(&store, entries);
        drop(store);
        let time = time_install(&path, &repository);
        report(&format!("install/{entries} entries"), time);
        time
    });
    judge("install/231000 entries, beside 2000 entries", large, small, 1.5);

    let store = Store::open(&home.path().join("store 231000")).expect("it is there");
    let state = store.current().expect("it has a state");
    let root = home.path().join("root");
    write_out(&store, state.tree, &root);
    let farm = home.path().join("farm");
    let links = median_of(3, || {
        let begin = Instant::now();
        run(Command::new("cp").arg("-al").arg(&root).arg(&farm));
        let time = begin.elapsed();
        run(Command::new("rm").arg("-rf").arg(&farm));
        time
    });
    report("cp -al of the same root", links);
    judge("install/231000 entries, beside cp -al", large, links, 0.01);
}

/// A directory with one small stone and its index.
fn make_repository(home: &Path) -> PathBuf {
    let repository = home.join("repository");
    fs::create_dir(&repository).expect("a new directory");
    let metadata = Metadata {
        name: "small".into(),
        version: "1.0".into(),
        release: 1,
        build_release: 1,
        architecture: "x86_64".into(),
        ..Metadata::default()
    };
    let mut builder = Builder::new(metadata);
    for (at, size) in [200_000, 30_000, 4_000, 900].into_iter().enumerate() {
        let bytes = format!("{at} of a small program\n").repeat(size / 24).into_bytes();
        let blob = builder.add_source(Source::Bytes(bytes.into())).expect("bytes are hashed");
        let path = TreePath::new(format!("usr/bin/small-{at}").as_bytes()).expect("a path");
        builder.layout.push(Layout::new(path, 0o755, LayoutContent::Regular(blob.key)));
    }
    let path = repository.join("small.stone");
    let file = fs::File::create(&path).expect("a new file");
    builder
        .write(Encoding::Fast { level: 3, threads: NonZeroUsize::MIN }, file)
        .expect("a stone is written");
    run(cairn(home).args(["repo", "index"]).arg(&repository));
    repository
}

/// The median time of installing the small package.
fn time_install(store: &Path, repository: &Path) -> Duration {
    run(cairn(store).args(["repo", "add", "bench"]).arg(repository));
    median_of(15, || {
        let begin = Instant::now();
        run(cairn(store).args(["install", "--yes", "small"]));
        let time = begin.elapsed();
        run(cairn(store).arg("rollback"));
        time
    })
}
