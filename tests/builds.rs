//! Real software from its upstream archive to installed packages, in a build root
//! of converted Debian packages.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cairn_tests::{Cairn, Need, real};
use serde_json::Value;

/// A store with what building needs, and a cache that goes away with it.
struct World {
    cairn: Cairn,
}

impl World {
    fn new() -> Option<Self> {
        if !Need::all(&[Need::Fuse, Need::Root, Need::Program("objdump", "binutils")]) {
            return None;
        }
        let stones = real::build_repository()?;
        let cairn = Cairn::new();
        cairn.data(["repo", "add", "debian", &format!("file://{}", stones.display())]);
        Some(Self { cairn })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cairn.directory().join(name)
    }

    fn words(&self, words: &[&str]) -> Vec<String> {
        let cache = self.path("cache").display().to_string();
        words.iter().map(|it| (*it).to_owned()).chain(["--cache-dir".into(), cache]).collect()
    }

    /// Builds, and returns what is told of the only recipe.
    fn build(&self, words: &[&str]) -> Value {
        let built = self.cairn.json(self.words(&[&["build"], words].concat()));
        built["recipes"][0].clone()
    }

    /// Makes an archive of one directory `name-version`, and a recipe of it.
    fn project(&self, name: &str, files: &[(&str, &str)], more: &str) {
        let mut tar = tar::Builder::new(Vec::new());
        for (file, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o755);
            header.set_mtime(1_700_000_000);
            let path = format!("{name}-1.0/{file}");
            tar.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        let archive = self.path(&format!("{name}-1.0.tar"));
        fs::write(&archive, tar.into_inner().unwrap()).unwrap();
        self.cairn.data(self.words(&["recipe", "new", archive.to_str().unwrap(), "-o", name]));
        self.edit(name, "release: 1\n", &format!("release: 1\ntoolchain: gnu\n{more}"));
    }

    /// What a packager changes in a recipe.
    fn edit(&self, recipe: &str, from: &str, to: &str) {
        let file = self.path(recipe).join("stone.yaml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from:?} is not in {text}");
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
    }

    /// Everything below a package's files.
    fn extracted(&self, stone: &str) -> PathBuf {
        let to = self.path(Path::new(stone).file_name().unwrap().to_str().unwrap());
        self.cairn.data(["extract", stone, to.to_str().unwrap()]);
        to
    }
}

fn names(of: &Value) -> Vec<&str> {
    let packages = of["packages"].as_array().expect("packages were built").iter();
    packages.map(|it| it["name"].as_str().expect("a name")).collect()
}

fn package<'a>(of: &'a Value, name: &str) -> &'a Value {
    let mut packages = of["packages"].as_array().expect("packages were built").iter();
    packages.find(|it| it["name"] == name).unwrap_or_else(|| panic!("{name} is not in {of}"))
}

fn texts(list: &Value) -> BTreeSet<&str> {
    list.as_array().expect("a list").iter().map(|it| it.as_str().expect("a text")).collect()
}

/// The libraries that `objdump` says an ELF file needs, as dependencies.
fn needed(file: &Path) -> BTreeSet<String> {
    let output = Command::new("objdump").arg("-p").arg(file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("NEEDED"));
    lines.map(|name| format!("soname({}(x86_64))", name.trim())).collect()
}

fn read(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|it| it == "stone"))
        .map(|entry| (entry.file_name().to_string_lossy().into(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

const VERSION_C: &str = "#include <stdio.h>\n#include <zlib.h>\n\
                         int main(void) { puts(zlibVersion()); return 0; }\n";
const VERSION_MAKE: &str = "zversion: zversion.c\n\t$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< `pkg-config --libs zlib`\n\
     install:\n\tinstall -D zversion $(DESTDIR)$(PREFIX)/bin/zversion\n";

#[test]
fn a_library_becomes_packages_that_others_are_built_with_and_run_with() {
    let Some(world) = World::new() else { return };
    let Some(archive) = real::source("zlib") else { return };

    // A packager's work: a draft, and what it cannot know.
    world.cairn.data(world.words(&["recipe", "new", archive.to_str().unwrap(), "-o", "zlib"]));
    let draft = fs::read_to_string(world.path("zlib/stone.yaml")).unwrap();
    for line in ["name: zlib", "summary: General purpose data compression library", "    - Zlib"] {
        assert!(draft.lines().any(|it| it == line), "{line:?} is not in {draft}");
    }
    world.edit("zlib", "release: 1\n", "release: 1\ntoolchain: gnu\n");
    world.cairn.data(["recipe", "check", "zlib"]);

    let built = world.build(&["zlib", "--to", "local"]);
    assert_eq!(names(&built), ["zlib", "zlib-dbginfo", "zlib-devel"]);
    let (library, devel) = (package(&built, "zlib"), package(&built, "zlib-devel"));
    assert!(texts(&library["provides"]).contains("soname(libz.so.1(x86_64))"), "{library}");
    assert!(texts(&devel["provides"]).contains("pkgconfig(zlib)"), "{devel}");
    assert!(texts(&devel["depends"]).contains("zlib"), "{devel}");
    let version = built["version"].as_str().unwrap();

    // What is needed is what objdump says, and what was split off belongs to it.
    let files = world.extracted(library["stone"].as_str().unwrap());
    let file = files.join(format!("usr/lib/libz.so.{version}"));
    let depends: BTreeSet<String> =
        texts(&library["depends"]).into_iter().map(ToOwned::to_owned).collect();
    assert_eq!(depends, needed(&file));
    let sections = Command::new("objdump").arg("-h").arg(&file).output().unwrap();
    let sections = String::from_utf8(sections.stdout).unwrap();
    assert!(sections.contains(".gnu_debuglink"), "{sections}");
    assert!(!sections.contains(".debug_info"), "{sections}");

    // Once more, with other numbers of processes, nothing is different.
    let manifest = "local/manifests/zlib/manifest.x86_64.bin";
    world.build(&["zlib", "--no-check", "-j1", "-o", "again", "--verify", manifest]);
    let (first, second) = (read(&world.path("local")), read(&world.path("again")));
    assert_eq!(first.len(), 3);
    for (one, other) in first.iter().zip(&second) {
        assert!(one == other, "{} differs from the first build", other.0);
    }

    // A program that is built with it needs it.
    let files = [("zversion.c", VERSION_C), ("Makefile", VERSION_MAKE)];
    world.project("zversion", &files, "builddeps: [pkgconfig(zlib)]\n");
    let built = world.build(&["zversion", "--to", "local"]);
    let program = package(&built, "zversion");
    assert!(texts(&program["depends"]).contains("soname(libz.so.1(x86_64))"), "{program}");
    let files = world.extracted(program["stone"].as_str().unwrap());
    let file = files.join("usr/bin/zversion");
    let depends = texts(&program["depends"]).into_iter().filter(|it| it.starts_with("soname"));
    assert_eq!(depends.map(ToOwned::to_owned).collect::<BTreeSet<_>>(), needed(&file));

    // Another program than the manifest says is told, and what differs.
    world.edit("zversion", "release: 1\n", "release: 1\nrundeps: [bash]\n");
    let manifest = "local/manifests/zversion/manifest.x86_64.bin";
    let words = ["build", "zversion", "-o", "other", "--verify", manifest];
    let complaint = world.cairn.fails(1, world.words(&words));
    assert!(complaint.contains("bash"), "{complaint}");

    // It is installed with what was built, and runs.
    world.cairn.data(["-y", "install", "zversion"]);
    let installed = world.cairn.installed();
    assert!(installed.contains("zlib") && !installed.contains("zlib-devel"), "{installed:?}");
    let said = world.cairn.data(["run", "zversion"]);
    assert_eq!(said.trim(), version);
}

#[test]
fn a_build_that_fails_is_looked_at_in_a_shell() {
    let Some(world) = World::new() else { return };
    let make = "all:\n\techo broken >&2\n\tfalse\nhello:\n\techo hello from make\n";
    world.project("broken", &[("Makefile", make)], "");
    let complaint = world.cairn.fails(1, world.words(&["build", "broken", "-o", "out"]));
    assert!(complaint.contains("the phase build failed with exit code 2"), "{complaint}");
    assert!(!world.path("out").join("broken-1.0-1-1-x86_64.stone").exists());
    let log = complaint.split("its log is ").nth(1).and_then(|it| it.lines().next()).unwrap();
    assert!(fs::read_to_string(log).unwrap().contains("broken"), "{log}");

    let mut shell = world
        .cairn
        .command(world.words(&["build", "--shell", "broken"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let script = b"pwd\necho libraries in $d_libdir\na_make hello\nfalse\necho still here\n";
    shell.stdin.take().unwrap().write_all(script).unwrap();
    let output = shell.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    for text in [
        "/mason/build/x86_64/broken-1.0.tar",
        "libraries in /usr/lib",
        "hello from make",
        "still here",
    ] {
        assert!(said.lines().any(|line| line == text), "{text:?}: {said}{complained}");
    }
}

const GREET_MAKE: &str = "\
libgreet.so.1: greet.c
\t$(CC) $(CFLAGS) $(LDFLAGS) -shared -fPIC -Wl,-soname,libgreet.so.1 -o $@ $<
install:
\tinstall -D libgreet.so.1 $(DESTDIR)$(PREFIX)/lib/libgreet.so.1
\tln -s libgreet.so.1 $(DESTDIR)$(PREFIX)/lib/libgreet.so
\tinstall -D -m644 greet.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig/greet.pc
";
const APP_MAKE: &str = "\
app: app.c
\t$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< `pkg-config --libs greet`
install:
\tinstall -D app $(DESTDIR)$(PREFIX)/bin/app
";

#[test]
fn a_set_of_recipes_is_built_in_order_and_stops_at_a_failure() {
    let Some(world) = World::new() else { return };
    let greet_c = "int greet(void);\nint greet(void) { return 7; }\n";
    let pc = "Name: greet\nDescription: greets\nVersion: 1\nLibs: -lgreet\n";
    let files = [("Makefile", GREET_MAKE), ("greet.c", greet_c), ("greet.pc", pc)];
    world.project("greet", &files, "");
    let app_c = "int greet(void);\nint main(void) { return greet(); }\n";
    let files = [("Makefile", APP_MAKE), ("app.c", app_c)];
    world.project("app", &files, "builddeps: [pkgconfig(greet)]\n");
    let alone = "all:\ninstall:\n\tinstall -D Makefile $(DESTDIR)$(PREFIX)/share/alone\n";
    world.project("alone", &[("Makefile", alone)], "");
    world.project("broken", &[("Makefile", "all:\n\tfalse\n")], "");
    world.project("late", &[("Makefile", alone)], "builddeps: [name(broken)]\n");

    // Given in the wrong order, and built side by side where it is possible.
    let words = ["build", "app", "greet", "alone", "--to", "local", "--parallel", "2"];
    let built = world.cairn.json(world.words(&words));
    let recipes = built["recipes"].as_array().unwrap();
    let position = |name: &str| recipes.iter().position(|it| it["recipe"] == name).unwrap();
    assert!(position("greet") < position("app"));
    assert_eq!(recipes.len(), 3);
    let app = package(&recipes[position("app")], "app");
    assert!(texts(&app["depends"]).contains("soname(libgreet.so.1(x86_64))"), "{app}");
    for name in ["app", "greet", "alone"] {
        let manifest = format!("local/manifests/{name}/manifest.x86_64.bin");
        assert!(world.path(&manifest).exists(), "{manifest}");
    }

    let words = ["build", "late", "broken", "greet", "-o", "out", "--parallel", "1"];
    let complaint = world.cairn.fails(1, world.words(&words));
    assert!(complaint.contains("Built: none. Not begun: late, greet."), "{complaint}");
    let words = ["build", "app", "late", "alone", "--dry-run"];
    let planned = world.cairn.json(world.words(&words));
    assert_eq!(planned.as_array().unwrap().len(), 3);
}

#[test]
fn compilers_keep_what_they_have_compiled() {
    let Some(world) = World::new() else { return };
    let make = "hello: hello.o\n\t$(CC) $(LDFLAGS) -o $@ $<\nhello.o: hello.c\n\t$(CC) -c -o $@ $<\n\
                \tccache --show-stats --verbose\n\
                install:\n\tinstall -D hello $(DESTDIR)$(PREFIX)/bin/hello\n";
    let files = [("Makefile", make), ("hello.c", "int main(void) { return 0; }\n")];
    world.project("hello", &files, "");
    let log = || {
        let built = world.build(&["hello", "-o", "out", "--compiler-cache"]);
        let logs = PathBuf::from(built["logs"].as_str().unwrap());
        fs::read_to_string(logs.join("x86_64-build.log")).unwrap()
    };
    let hits = |log: &str| {
        let line = log.lines().find(|line| line.trim_start().starts_with("Hits:"));
        let line = line.unwrap_or_else(|| panic!("no statistics: {log}"));
        line.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
    };
    assert_eq!((hits(&log()), hits(&log())), (0, 1));
}
