//! How long does a question to the package manager take with all packages of Debian on
//! offer and a hundred installed: whole commands beside those of apt and dpkg?
//!
//! Both sides have the same packages on offer and the same ones installed, and caches
//! that are up to date. `apt-cache search` reads descriptions, too, where Cairn reads names
//! and summaries, so that it is asked for names alone as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cairn_benches::debian::{
    copy_without_scripts, dpkg_unpack, fetch_debs, offered_packages, unpack_without_scripts,
    write_repository,
};
use cairn_benches::{binary, cairn, compare, median, report, run};

/// What is installed, with all that these need.
const ROOTS: [&str; 8] =
    ["bash", "coreutils", "curl", "git", "python3", "rsync", "tmux", "vim-tiny"];

#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    let debs = fetch_debs(&binary().with_file_name("../debs"), &ROOTS);
    let [stones, store, repository, root] =
        ["stones", "store", "repository", "root"].map(|name| home.join(name));
    run(cairn(&store).args(["convert", "--without-triggers", "-o"]).arg(&stones).args(&debs));
    let stones = fs::read_dir(&stones).expect("a directory");
    let stones = stones.map(|entry| entry.expect("it can be read").path());
    run(cairn(&store).args(["install", "--yes"]).args(stones));
    fs::create_dir(&repository).expect("a new directory");
    let packages = offered_packages();
    println!("{} packages on offer, {} installed", packages.len(), debs.len());
    write_repository(packages, &repository);
    run(cairn(&store).args(["repo", "add", "debian"]).arg(&repository));

    let bare: Vec<PathBuf> = debs.iter().map(|deb| without_scripts(deb, home)).collect();
    dpkg_unpack(&root, &["--force-unsafe-io"], &bare);
    let apt = Apt::new(home, &root.join("var/lib/dpkg"));
    let searched = apt.median("apt-cache", &["search", "editor"]);
    let names = apt.median("apt-cache", &["search", "--names-only", "editor"]);
    let ours = ask(&store, &["search", "editor"]);
    report("search editor: cairn", ours);
    beside("search editor: apt-cache", ours, searched);
    beside("search editor: apt-cache --names-only", ours, names);
    for package in ["gimp", "git"] {
        let ours = ask(&store, &["info", package]);
        report(&format!("info {package}: cairn"), ours);
        beside(
            &format!("info {package}: apt-cache show"),
            ours,
            apt.median("apt-cache", &["show", package]),
        );
    }
    let path = "/usr/bin/git";
    let ours = ask(&store, &["owner", path]);
    report(&format!("owner of {path}: cairn"), ours);
    beside("owner: dpkg-query --search", ours, apt.median("dpkg-query", &["--search", path]));
    let file = "git-rebase";
    let ours = ask(&store, &["search", "--files", file]);
    report(&format!("installed files with {file}: cairn"), ours);
    let pattern = format!("*{file}*");
    beside("files: dpkg-query --search", ours, apt.median("dpkg-query", &["--search", &pattern]));
    for package in ["ed", "postfix", "gimp"] {
        let ours = ask(&store, &["install", "--dry-run", package]);
        report(&format!("plan of installing {package}: cairn"), ours);
        let words = ["--simulate", "--no-install-recommends", "install", package];
        beside(
            &format!("plan of installing {package}: apt-get"),
            ours,
            apt.median("apt-get", &words),
        );
    }
}

fn beside(name: &str, ours: Duration, theirs: Duration) {
    report(name, theirs);
    compare("    cairn", ours, theirs);
}

fn ask(store: &Path, words: &[&str]) -> Duration {
    median(15, || {
        // Not quiet: what is told is a part of the work.
        run(Command::new(binary()).arg("--store").arg(store).args(words));
    })
}

/// `deb` without its scripts, which an empty root cannot run.
fn without_scripts(deb: &Path, home: &Path) -> PathBuf {
    let directory = home.join("bare");
    let [package, copy] =
        [directory.join("package"), directory.join(deb.file_name().expect("a file"))];
    fs::create_dir_all(&directory).expect("a directory");
    unpack_without_scripts(deb, &package);
    copy_without_scripts(deb, &package.join("DEBIAN"), &copy);
    fs::remove_dir_all(&package).expect("it is ours");
    copy
}

/// The peers, told of a system other than that of this machine.
struct Apt {
    options: Vec<String>,
    state: PathBuf,
}

impl Apt {
    fn new(home: &Path, state: &Path) -> Self {
        // Nothing is configured in a root that cannot run anything.
        let status = state.join("status");
        let text = fs::read_to_string(&status).expect("dpkg has written it");
        fs::write(&status, text.replace(" ok unpacked\n", " ok installed\n")).expect("it is ours");
        let cache = home.join("apt");
        fs::create_dir(&cache).expect("a new directory");
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        let options = vec![
            option("Dir::State::status", &status),
            option("Dir::State::extended_states", &home.join("extended_states")),
            option("Dir::Cache", &cache),
        ];
        Self { options, state: state.into() }
    }

    /// The median time of a command of apt, or of dpkg-query.
    fn median(&self, program: &str, words: &[&str]) -> Duration {
        median(9, || {
            let mut command = Command::new(program);
            match program {
                "dpkg-query" => command.arg("--admindir").arg(&self.state),
                _ => command.args(self.options.iter().flat_map(|it| ["-o", it])),
            };
            run(command.args(words));
        })
    }
}
