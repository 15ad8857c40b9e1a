//! How long does it take from `cairn build` until the first phase of a recipe runs, in
//! a build root of at least 150 real packages? Three times: with a new store, which
//! has nothing yet; with one that has the packages, in a root that differs by one;
//! and with one that has the root. Beside it: `dpkg-deb -x` of the same packages into
//! a directory, one after the other and as many at once as there are processors.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cairn_benches::debian::fetch_debs;
use cairn_benches::{binary, cairn, compare, median_of, report, run};
use cairn_tests::real::BUILD_ROOTS;

/// What is asked for beside [`BUILD_ROOTS`]; with all that these need it is a build root.
const MORE: &[&str] = &[
    "cmake",
    "git",
    "libcurl4-openssl-dev",
    "libglib2.0-dev",
    "libncurses-dev",
    "libssl-dev",
    "meson",
    "ninja-build",
    "patch",
    "perl",
    "python3",
];

/// Those of them that no other needs.
const UNNEEDED: [&str; 4] = ["patch", "meson", "git", "libcurl4-openssl-dev"];

#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let debs = fetch_debs(&binary().with_file_name("../debs"), &[BUILD_ROOTS, MORE].concat());
    assert!(debs.len() >= 150, "{} packages are too few", debs.len());
    println!("{} packages", debs.len());
    let stones = home.path().join("stones");
    let store = home.path().join("store of conversion");
    run(cairn(&store).args(["convert", "--without-triggers", "-o"]).arg(&stones).args(&debs));
    run(cairn(&store).args(["repo", "index"]).arg(&stones));
    let all: Vec<String> = debs.iter().map(|deb| name_of(deb)).collect();
    let [whole, other] = ["whole", "other"].map(|name| home.path().join(name));
    write_recipe(&whole, &all);
    let mut number = 0;
    let cold = median_of(3, || {
        number += 1;
        let store = home.path().join(format!("store {number}"));
        run(cairn(&store).args(["repo", "add", "debian"]).arg(&stones));
        first_phase(&store, &whole, home.path(), " packages unpacked")
    });
    report("first phase, new store", cold);
    let store = home.path().join("store 1");
    let mut turn = 0;
    let near = median_of(3, || {
        // A root of its own each time: one after the other is left out.
        turn += 1;
        let left_out = &UNNEEDED[..turn];
        let fewer = all.iter().filter(|name| !left_out.contains(&name.as_str()));
        write_recipe(&other, &fewer.cloned().collect::<Vec<_>>());
        first_phase(&store, &other, home.path(), ", 0 packages unpacked")
    });
    report("first phase, the packages are there", near);
    let warm = median_of(9, || first_phase(&store, &whole, home.path(), ", was there"));
    report("first phase, the root is there", warm);

    let processors = std::thread::available_parallelism().map_or(1, Into::into);
    for (what, at_once) in [("one by one", 1), ("all processors", processors)] {
        let peer = median_of(3, || {
            let to = home.path().join("unpacked");
            let begun = Instant::now();
            unpack(&debs, &to, at_once);
            let time = begun.elapsed();
            fs::remove_dir_all(&to).expect("it is ours");
            time
        });
        report(&format!("dpkg-deb -x, {what}"), peer);
        for (name, ours) in [("new store", cold), ("packages there", near), ("root there", warm)] {
            compare(&format!("first phase, {name}, beside dpkg-deb {what}"), ours, peer);
        }
    }
}

fn name_of(deb: &Path) -> String {
    let file = deb.file_name().expect("a file").to_string_lossy();
    file.split('_').next().expect("a name").to_owned()
}

fn write_recipe(directory: &Path, packages: &[String]) {
    let list: String = packages.iter().map(|name| format!("    - {name}\n")).collect();
    let text = format!(
        "name: bench\nversion: 1\nrelease: 1\nhomepage: https://example.org\nlicense: MIT\n\
         toolchain: gnu\nbuilddeps:\n{list}install: |\n    install -D /dev/null %(installroot)/usr/share/bench\n"
    );
    fs::create_dir_all(directory).expect("a directory");
    fs::write(directory.join("stone.yaml"), text).expect("a recipe");
}

/// The time from the start of `cairn build` until its first phase begins; `root` is
/// what has to be told of the build root.
fn first_phase(store: &Path, recipe: &Path, home: &Path, root: &str) -> Duration {
    let begun = Instant::now();
    let mut build = Command::new(binary())
        .arg("--store")
        .arg(store)
        .arg("build")
        .arg(recipe)
        .args(["--cache-dir".as_ref(), home.join("cache").as_os_str()])
        .args(["--output".as_ref(), home.join("out").as_os_str()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut said = String::new();
    let mut time = None;
    for line in BufReader::new(build.stderr.take().expect("it is piped")).lines() {
        let line = line.expect("it says text");
        if line.contains("bench: install for") {
            time = Some(begun.elapsed());
        }
        said.push_str(&line);
        said.push('\n');
    }
    assert!(build.wait().expect("it ends").success(), "{said}");
    assert!(said.contains(root), "{root:?} is not in {said}");
    time.unwrap_or_else(|| panic!("it never began: {said}"))
}

/// Unpacks packages into a directory, so many at once.
fn unpack(debs: &[PathBuf], to: &Path, at_once: usize) {
    fs::create_dir(to).expect("a new directory");
    std::thread::scope(|scope| {
        for part in 0..at_once {
            scope.spawn(move || {
                for deb in debs.iter().skip(part).step_by(at_once) {
                    run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(to));
                }
            });
        }
    });
}
