//! A day in a minute: a real C project is compiled, Python's own tests run and all of the
//! system is searched by two processes at once, in a live root that is switched
//! 1,000 times between two states which differ in 1 % of their entries.
//!
//! What differs is used by all three: headers that the compiler includes, modules that Python
//! imports and texts that are searched. Each says at its beginning and at its end which
//! state it is of, with pages between.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use cairn_tests::{Cairn, Deb, Mount, Need, StopOnDrop, real};

const SWITCHES: u64 = 1_000;

/// Needed beside what builds packages.
const PYTHON: [&str; 2] = ["python3", "libpython3.11-testsuite"];

/// Tests that need neither network nor a terminal, and import much.
const SUITE: &str = "test_argparse test_statistics test_re test_textwrap test_heapq";

/// Lines between the beginning and the end of a file that differs.
const LINES: usize = 600;

/// `count` files in version `version`, a third each for compiler, Python and search.
fn changing(version: u32, count: usize) -> Deb {
    let mut deb = Deb::new("changing", &format!("{version}-1"));
    let padding = |comment: &str| format!("{comment} version {version} of all\n").repeat(LINES);
    for at in 0..count {
        let (path, text) = match at % 3 {
            0 => (
                format!("usr/include/changing/{at}.h"),
                format!(
                    "#undef FIRST\n#define FIRST {version}\n{}#if FIRST != {version}\n\
                     #error mixed\n#endif\n",
                    padding("//")
                ),
            ),
            1 => (
                format!("usr/lib/python3/dist-packages/changing/m{at}.py"),
                format!("FIRST = {version}\n{}LAST = {version}\n", padding("#")),
            ),
            _ => (format!("usr/share/changing/{at}"), padding("")),
        };
        deb = deb.file(&path, 0o644, text);
    }
    deb
}

/// Includes every header, imports every module, and counts lines of every text.
fn write_checks(tmp: &Path, count: usize) {
    let numbers = |kind: usize| (0..count).filter(move |at| at % 3 == kind);
    let includes = numbers(0).map(|at| format!("#include <changing/{at}.h>\n"));
    fs::write(tmp.join("check.c"), includes.collect::<String>() + "int main(void) { return 0; }\n")
        .unwrap();
    let imports = numbers(1).map(|at| {
        format!("import changing.m{at} as m\nassert m.FIRST == m.LAST, ({at}, m.FIRST, m.LAST)\n")
    });
    fs::write(tmp.join("check.py"), imports.collect::<String>()).unwrap();
}

/// Work that is done again and again until all of it was done often enough.
struct Work {
    name: &'static str,
    script: String,
    least: u64,
    done: AtomicU64,
}

impl Work {
    fn new(name: &'static str, least: u64, script: impl Into<String>) -> Self {
        Self { name, script: script.into(), least, done: AtomicU64::new(0) }
    }

    /// Runs it once in the root; it has to succeed, and to say nothing on standard
    /// error.
    fn run(&self, root: &Path) {
        let mut command = Command::new("chroot");
        command.arg(root).args(["/bin/sh", "-euc", &self.script]).env_clear();
        let ended = command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        let [stdout, stderr] =
            [&ended.stdout, &ended.stderr].map(|text| String::from_utf8_lossy(text));
        let is_fine = ended.status.success() && stderr.is_empty();
        assert!(is_fine, "{}: {}\n{stdout}\n{stderr}", self.name, ended.status);
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

#[test]
#[ignore = "make long runs it"]
fn a_day_of_work_meets_a_thousand_switches() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let roots = [real::BUILD_ROOTS, &PYTHON].concat();
    let Some(debs) = real::debs_for(&roots, "list-day") else { return };
    let Some(zlib) = real::source("zlib") else { return };
    let repository = real::repository_of(&debs, "stones-day");
    let cairn = Cairn::new();
    cairn.data(["repo", "add", "real", &format!("file://{}", repository.display())]);
    cairn.data(["--yes", "install"].into_iter().chain(roots));
    let entries = cairn.json(["state", "show"])["entries"].as_u64().unwrap();
    let count = usize::try_from(entries).unwrap() / 100;
    let states = [1, 2].map(|version| {
        cairn.offer([changing(version, count)]);
        let words: &[&str] = if version == 1 { &["install", "changing"] } else { &["upgrade"] };
        cairn.data(["--yes"].iter().chain(words));
        cairn.current().to_string()
    });

    let tmp = cairn.directory().join("tmp");
    fs::create_dir(&tmp).unwrap();
    fs::create_dir(tmp.join("zlib")).unwrap();
    let unpack = ["--strip-components=1", "-C"];
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(zlib).args(unpack).arg(tmp.join("zlib"));
    assert!(tar.status().unwrap().success());
    write_checks(&tmp, count);
    let writable = format!("/tmp={}", tmp.display());
    let args =
        ["--follow", "--bind", "/dev=/dev", "--bind", "/proc=/proc", "--writable", &writable];
    let root = Mount::new(&cairn, &args, "root");

    let expected = {
        let work = Work::new("count", 0, SEARCH_FIXED.to_owned() + " >/tmp/expected");
        work.run(root.path());
        assert!(fs::read_to_string(tmp.join("expected")).unwrap().lines().count() > 10);
        format!("{SEARCH_FIXED} >/tmp/found; cmp /tmp/expected /tmp/found")
    };
    let works = [
        Work::new(
            "compile zlib",
            2,
            "rm -rf /tmp/build; cp -r /tmp/zlib /tmp/build; cd /tmp/build; \
             ./configure >log; make >>log; make test >>log; grep -q 'zlib test OK' log",
        ),
        Work::new("compile what changes", 20, "gcc -fsyntax-only /tmp/check.c"),
        Work::new("Python's tests", 2, format!("cd /tmp; python3 -m test -q {SUITE} >/tmp/suite")),
        Work::new("import what changes", 20, "python3 -B /tmp/check.py"),
        Work::new("search what stays", 2, expected),
        Work::new("search what changes", 20, SEARCH_CHANGING),
    ];
    let stop = AtomicBool::new(false);
    let mut switches = 0;
    thread::scope(|scope| {
        // One thread does what takes long, one what is short.
        for half in [[0, 2, 4], [1, 3, 5]] {
            let (works, root, stop) = (&works, &root, &stop);
            scope.spawn(move || {
                let _stop = StopOnDrop(stop);
                for at in half.into_iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    works[at].run(root.path());
                }
            });
        }
        let _stop = StopOnDrop(&stop);
        while switches < SWITCHES || works.iter().any(|work| work.count() < work.least) {
            assert!(!stop.load(Ordering::Relaxed), "a part of the work has failed");
            switches += 1;
            let state = &states[usize::from(switches % 2 == 0)];
            let told = cairn.json(["switch", state]);
            assert_eq!(told["mounts"][0]["failure"], serde_json::Value::Null, "{told}");
        }
    });
    println!("{entries} entries, {count} of them differ, {switches} switches");
    for work in &works {
        println!("{:>6}  {}", work.count(), work.name);
    }
    root.umount();
}

/// Lines with a word in each file of directories that do not change.
const SEARCH_FIXED: &str = "find /usr/share/doc /usr/include/linux -type f -print0 | sort -z \
    | xargs -0 -n 50 -P 2 grep -c Copyright | sort";

/// A text has all lines of one version, or none.
const SEARCH_CHANGING: &str = "find /usr/share/changing -type f -print0 \
    | xargs -0 -n 5 -P 2 grep -c 'version 1' \
    | gawk -F: '$2 != 0 && $2 != 600 { print; bad = 1 } END { exit bad }'";
