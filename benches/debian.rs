//! What does an install cost in the whole index of Debian, beside
//! `apt-get --simulate install`?
//!
//! Both answer the same question: apt with its lists and the packages of this
//! machine, Cairn with the same index as a repository and the same packages
//! installed. Cairn's time is that of opening the catalog and of solving; apt's
//! is that of the whole command, which opens a cache of its own.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use cairn_benches::debian::{offered_packages, write_repository};
use cairn_benches::{median, report};
use cairn_package::Dependency;
use cairn_package::repository::{Config, Older, Repositories, Source as Place};
use cairn_package::solve::{Installed, Request, Source, Universe, solve};

/// One that needs little, one that needs much, and one with many providers.
const PACKAGES: [&str; 3] = ["ed", "gimp", "postfix"];

fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().expect("apt is here");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
fn main() {
    let packages = offered_packages();
    let manual = run("apt-mark", &["showmanual"]);
    let manual: std::collections::BTreeSet<&str> = manual.lines().collect();
    let status = fs::read_to_string("/var/lib/dpkg/status").expect("dpkg is here");
    let is_there = |paragraph: &&str| paragraph.contains("\nStatus: install ok installed\n");
    let there: Vec<&str> = status
        .split("\n\n")
        .filter(is_there)
        .filter_map(|paragraph| paragraph.strip_prefix("Package: ")?.lines().next())
        .collect();
    let find = |name: &&str| packages.iter().find(|package| package.name == **name);
    let installed: Vec<Installed> = there
        .iter()
        .filter_map(find)
        .map(|metadata| Installed {
            metadata: Arc::new(metadata.clone()),
            explicit: manual.contains(metadata.name.as_str()),
        })
        .collect();
    println!("{} packages, {} of {} installed", packages.len(), installed.len(), there.len());

    let directory = tempfile::tempdir().expect("a directory");
    let index_len = write_repository(packages, directory.path());
    println!("    stone.index: {index_len} bytes");
    let repositories = Repositories::of(&directory.path().join("store"));
    let url = directory.path().display().to_string().parse().expect("a path");
    let name = "debian".parse().expect("a name");
    let config = Config::new(name, Place::direct(url));
    repositories.add(&config, &()).expect("a good index");
    let update = || {
        let directory = directory.path().join("store/cache");
        fs::remove_dir_all(directory).expect("removed");
        repositories.update(&config.name, Older::Refused, &()).expect("a good index");
    };
    report("take over the index of all packages", median(3, update));
    report("open the catalog", median(9, || drop(repositories.load(&()))));

    for wanted in PACKAGES {
        let request =
            Request { install: vec![Dependency::on_package(wanted)], ..Request::default() };
        let mut changes = 0;
        let ours = median(9, || {
            let loaded = repositories.load(&()).expect("it is there");
            let sources = loaded.into_iter().map(|repository| Source {
                name: repository.config.name.to_string(),
                priority: 0,
                catalog: repository.catalog,
            });
            let universe = Universe::new(installed.clone(), sources.collect(), Vec::new());
            let solution = solve(&universe, &request);
            changes = solution.map_or(0, |it| it.installs.len() + it.removals.len());
        });
        let words = ["--simulate", "--no-install-recommends", "install", wanted];
        let theirs = median(5, || drop(run("apt-get", &words)));
        report(&format!("install {wanted}: cairn, {changes} changes"), ours);
        report(&format!("install {wanted}: apt-get --simulate"), theirs);
        println!("    {:.2} of apt's time", ours.as_secs_f64() / theirs.as_secs_f64());
    }
}
