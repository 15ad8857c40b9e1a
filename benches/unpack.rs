//! How long does it take until 100 real packages from local files are an installed
//! system: `cairn install` into an empty store beside `dpkg --unpack` into an empty root,
//! and beside plain extraction?
//!
//! All have their files in the page cache, and none runs a script of a package: an empty
//! root has no shell for one. Debian's packages are compressed with xz, stones with zstd,
//! so that the peers get the packages of Debian and the same ones compressed as the stones
//! are. What is durable when a line is done differs, and the line says so: Cairn syncs,
//! `dpkg` does unless it is told not to, and extraction does where `sync -f` follows.
//! After `dpkg --unpack` the packages are not configured, and after extraction nobody
//! knows of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cairn_benches::debian::{
    copy_without_scripts, dpkg_unpack, hundred_debs, unpack_without_scripts,
};
use cairn_benches::{cairn, compare, median_of, report, run};

#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    let fetched = hundred_debs();
    let [stones, store, xz, zstd, tars] =
        ["stones", "store of conversion", "xz", "zstd", "tar"].map(|name| home.join(name));
    run(cairn(&store).args(["convert", "--without-triggers", "-o"]).arg(&stones).args(&fetched));
    let stones = files_of(&stones);
    let [xz, zstd, tars] = [xz, zstd, tars].map(|directory| {
        fs::create_dir(&directory).expect("a new directory");
        directory
    });
    for deb in &fetched {
        prepare(deb, &home.join("package"), &xz, &zstd, &tars);
    }
    println!("{} packages: {}", fetched.len(), sizes(&[("deb", &xz), ("deb, zstd", &zstd)]));

    let to = home.join("root");
    let install = || run(cairn(&to).args(["install", "--yes"]).args(&stones));
    let ours = measure(&to, install);
    report("cairn install, synced", ours);
    install();
    println!("    {} entries, {}", entries(&to), sizes(&[("store", &to)]));
    remove(&to);
    for (kind, debs) in [("xz", &xz), ("zstd", &zstd)] {
        let debs = files_of(debs);
        for (durable, force) in
            [("synced", "--no-force-unsafe-io"), ("not synced", "--force-unsafe-io")]
        {
            let name = format!("dpkg --unpack, {kind}, {durable}");
            let theirs = measure(&to, || dpkg_unpack(&to, &[force], &debs));
            beside(&name, ours, theirs);
        }
        let extract = || {
            fs::create_dir(&to).expect("a new directory");
            for deb in &debs {
                run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&to));
            }
        };
        beside(&format!("dpkg-deb -x, {kind}, not synced"), ours, measure(&to, extract));
    }
    let tars = files_of(&tars);
    let extract = || {
        fs::create_dir(&to).expect("a new directory");
        for tar in &tars {
            run(Command::new("tar").arg("-xpf").arg(tar).arg("-C").arg(&to));
        }
    };
    beside("tar -x, nothing compressed, not synced", ours, measure(&to, extract));
    let synced = || {
        extract();
        run(Command::new("sync").arg("-f").arg(&to));
    };
    beside("tar -x, nothing compressed, then sync -f", ours, measure(&to, synced));
}

fn beside(name: &str, ours: Duration, theirs: Duration) {
    report(name, theirs);
    compare("    cairn install", ours, theirs);
}

/// The median time of `work`, which makes `to`; what was written before is on the disk.
fn measure(to: &Path, work: impl Fn()) -> Duration {
    median_of(3, || {
        run(&mut Command::new("sync"));
        let begun = Instant::now();
        work();
        let time = begun.elapsed();
        remove(to);
        time
    })
}

fn remove(directory: &Path) {
    fs::remove_dir_all(directory).expect("it is ours");
}

/// Writes `deb` without its scripts, as it is compressed and with zstd, and its files as
/// an archive that is not compressed.
fn prepare(deb: &Path, work: &Path, xz: &Path, zstd: &Path, tars: &Path) {
    let name = deb.file_name().expect("a file");
    unpack_without_scripts(deb, work);
    copy_without_scripts(deb, &work.join("DEBIAN"), &xz.join(name));
    let build = ["--uniform-compression", "-Zzstd", "-z3", "--build"];
    run(Command::new("dpkg-deb").args(build).arg(work).arg(zstd.join(name)));
    let tar = fs::File::create(tars.join(name)).expect("a new file");
    let mut extract = Command::new("dpkg-deb");
    let status = extract.arg("--fsys-tarfile").arg(deb).stdout(tar).status();
    assert!(status.expect("dpkg-deb starts").success(), "{}", deb.display());
    remove(work);
}

fn files_of(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("it is a directory");
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("it can be read").path()).collect();
    files.sort();
    files
}

/// How many files the current state of `store` has.
fn entries(store: &Path) -> String {
    let output = cairn(store).args(["find", "current", "*"]).output().expect("it starts");
    String::from_utf8_lossy(&output.stdout).lines().count().to_string()
}

fn sizes(directories: &[(&str, &Path)]) -> String {
    let size = |(name, directory): &(&str, &Path)| {
        let output = Command::new("du").arg("-sm").arg(directory).output().expect("du is here");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        format!("{name} {} MiB", text.split_whitespace().next().unwrap_or_default())
    };
    directories.iter().map(size).collect::<Vec<_>>().join(", ")
}
