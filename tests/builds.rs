//! Real software from its upstream archive to installed packages, in a build root
//! of converted Debian packages.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cairn_tests::builder::{Builder, Built, needed, objdump, texts};
use cairn_tests::ordinary::{as_user, give_to_user};
use cairn_tests::{Cairn, Need, real};

/// Makes an archive of one directory `name-version`, and a recipe of it.
fn project(world: &Builder, name: &str, files: &[(&str, &str)], more: &str) {
    let mut tar = tar::Builder::new(Vec::new());
    for (file, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1_700_000_000);
        let path = format!("{name}-1.0/{file}");
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let archive = world.path(&format!("{name}-1.0.tar"));
    fs::write(&archive, tar.into_inner().unwrap()).unwrap();
    world.draft(&[&archive], name);
    world.edit(name, "release: 1\n", &format!("release: 1\ntoolchain: gnu\n{more}"));
}

const VERSION_C: &str = "#include <stdio.h>\n#include <zlib.h>\n\
                         int main(void) { puts(zlibVersion()); return 0; }\n";
const VERSION_MAKE: &str = "zversion: zversion.c\n\t$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< `pkg-config --libs zlib`\n\
     install:\n\tinstall -D zversion $(DESTDIR)$(PREFIX)/bin/zversion\n";

#[test]
fn a_library_becomes_packages_that_others_are_built_with_and_run_with() {
    let Some(world) = Builder::new() else { return };
    let Some(archive) = real::source("zlib") else { return };

    // A packager's work: a draft, and what it cannot know.
    let draft = world.draft(&[&archive], "zlib");
    for line in ["name: zlib", "summary: General purpose data compression library", "    - Zlib"] {
        assert!(draft.lines().any(|it| it == line), "{line:?} is not in {draft}");
    }
    world.edit("zlib", "release: 1\n", "release: 1\ntoolchain: gnu\n");
    world.cairn.data(["recipe", "check", "zlib"]);

    let built = world.build(&["zlib", "--to", "local"]);
    assert_eq!(built.names(), ["zlib", "zlib-dbginfo", "zlib-devel"]);
    let (library, devel) = (built.package("zlib"), built.package("zlib-devel"));
    assert!(texts(&library["provides"]).contains("soname(libz.so.1(x86_64))"), "{library}");
    assert!(texts(&devel["provides"]).contains("pkgconfig(zlib)"), "{devel}");
    assert!(texts(&devel["depends"]).contains("zlib"), "{devel}");
    let version = built.version();

    // What is needed is what objdump says, and what was split off belongs to it.
    let files = world.extracted(library);
    let file = files.join(format!("usr/lib/libz.so.{version}"));
    let depends: BTreeSet<String> =
        texts(&library["depends"]).into_iter().map(ToOwned::to_owned).collect();
    assert_eq!(depends, needed(&file));
    let sections = objdump("-h", &file);
    assert!(sections.contains(".gnu_debuglink"), "{sections}");
    assert!(!sections.contains(".debug_info"), "{sections}");

    // Once more, with other numbers of processes, nothing is different.
    world.assert_same_again("zlib", "local", &built);

    // A program that is built with it needs it.
    let files = [("zversion.c", VERSION_C), ("Makefile", VERSION_MAKE)];
    project(&world, "zversion", &files, "builddeps: [pkgconfig(zlib)]\n");
    let built = world.build(&["zversion", "--to", "local"]);
    let program = built.package("zversion");
    assert!(texts(&program["depends"]).contains("soname(libz.so.1(x86_64))"), "{program}");
    let files = world.extracted(program);
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
fn an_ordinary_user_builds_the_bytes_that_root_builds() {
    if !Need::all(&[Need::Program("fusermount3", "fuse3")]) {
        return;
    }
    let (Some(archive), Some(world)) = (real::source("zlib"), Builder::new()) else { return };
    let theirs = Cairn::new();
    let directory = theirs.directory();
    // The checkout may lie where the user must not look.
    let stones = real::build_repository().unwrap();
    let copied = Command::new("cp").arg("-r").args([&stones, &directory.join("stones")]).status();
    assert!(copied.unwrap().success());
    fs::copy(&archive, directory.join(archive.file_name().unwrap())).unwrap();
    give_to_user(directory);
    let told = as_user(
        &theirs,
        r#"
        c repo add debian "file://$PWD/stones" >said
        c recipe new zlib_*.orig.tar.* -o recipe --cache-dir cache >said
        user 65534 sed -i 's/^release: 1$/&\ntoolchain: gnu/' recipe/stone.yaml
        c build recipe --no-check --to local --cache-dir cache >said
        c build recipe --no-check -o again --cache-dir cache \
            --verify local/manifests/zlib/manifest.x86_64.bin >said
        c --yes install zlib >said
        c run -- /lib64/ld-linux-x86-64.so.2 --list /usr/lib/libz.so.1 | grep -c libc.so.6

        # A build that fails is looked at by them, too.
        cp -r recipe broken
        sed -i 's/%make$/%make nothing/; s/^name: .*/name: broken/' broken/stone.yaml
        chown -R 65534 broken
        c build broken -o out --cache-dir cache 2>said && exit 1
        grep -c "the phase build failed with exit code 2" said
        echo 'id -u; ls zlib.h; test -w zlib.h && echo writable' |
            c build --shell broken --cache-dir cache
        c mount
        "#,
    );
    let expected = "1\n1\n0\nzlib.h\nwritable\nNothing is mounted.\n";
    assert_eq!(told, expected);

    let recipe = directory.join("recipe");
    let _ = world.build(&[recipe.to_str().unwrap(), "--no-check", "-o", "ours"]);
    let (ours, built) = (stones_in(&world.path("ours")), stones_in(&directory.join("local")));
    assert_eq!(ours.len(), 3);
    for (path, name) in ours.iter().zip(&built) {
        assert_eq!(path.file_name(), name.file_name());
        let is_same = fs::read(path).unwrap() == fs::read(name).unwrap();
        assert!(is_same, "{} differs", name.display());
    }
}

/// The stones in a directory.
fn stones_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|it| it.unwrap().path());
    let mut stones: Vec<PathBuf> =
        entries.filter(|it| it.extension().is_some_and(|it| it == "stone")).collect();
    stones.sort();
    stones
}

#[test]
fn a_build_that_fails_is_looked_at_in_a_shell() {
    let Some(world) = Builder::new() else { return };
    let make = "all:\n\techo broken >&2\n\tfalse\nhello:\n\techo hello from make\n";
    project(&world, "broken", &[("Makefile", make)], "");
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

const HOT_C: &str = "#include <stdio.h>\nint main(int argc, char **argv) { unsigned sum = 0;\n\
                     for (unsigned at = 0; at < 1000; at++) sum += at % 3 ? at : argc * at;\n\
                     printf(\"%u\\n\", sum); return 0; }\n";

#[test]
fn a_program_is_built_again_for_what_its_workload_has_counted() {
    let Some(world) = Builder::new() else { return };
    let make = "hot: hot.o\n\t$(CC) $(LDFLAGS) -o $@ $<\n\
                hot.o: hot.c\n\t$(CC) $(CFLAGS) -c -o $@ $<\ninstall:\n\tinstall -D hot $(DESTDIR)$(PREFIX)/bin/hot\n";
    project(&world, "hot", &[("Makefile", make), ("hot.c", HOT_C)], "");
    let workload = "workload: |\n    echo this is stage $PGO_STAGE\n    ./hot\ninstall: |\n";
    world.edit("hot", "install: |\n", workload);
    let built = world.build(&["hot", "--to", "local"]);
    let log = |name: &str| {
        let logs = PathBuf::from(built.0["logs"].as_str().unwrap());
        fs::read_to_string(logs.join(name)).unwrap()
    };
    let compiled = |stage: &str| {
        let log = log(&format!("x86_64-{stage}-build.log"));
        let line = log.lines().find(|line| line.contains("-c -o hot.o"));
        assert!(!log.contains("profile count data file"), "{log}");
        line.unwrap_or_else(|| panic!("it was not compiled: {log}")).to_owned()
    };
    assert!(compiled("one").contains("-fprofile-generate="));
    let counted = log("x86_64-one-workload.log");
    assert!(counted.contains("this is stage ONE"), "{counted}");
    assert!(compiled("use").contains("-fprofile-use="), "{}", compiled("use"));
    world.assert_same_again("hot", "local", &built);
    world.cairn.data(["-y", "install", "hot"]);
    assert_eq!(world.cairn.data(["run", "hot"]), "499500\n");
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
    let Some(world) = Builder::new() else { return };
    let greet_c = "int greet(void);\nint greet(void) { return 7; }\n";
    let pc = "Name: greet\nDescription: greets\nVersion: 1\nLibs: -lgreet\n";
    let files = [("Makefile", GREET_MAKE), ("greet.c", greet_c), ("greet.pc", pc)];
    project(&world, "greet", &files, "");
    let app_c = "int greet(void);\nint main(void) { return greet(); }\n";
    let files = [("Makefile", APP_MAKE), ("app.c", app_c)];
    project(&world, "app", &files, "builddeps: [pkgconfig(greet)]\n");
    let alone = "all:\ninstall:\n\tinstall -D Makefile $(DESTDIR)$(PREFIX)/share/alone\n";
    project(&world, "alone", &[("Makefile", alone)], "");
    project(&world, "broken", &[("Makefile", "all:\n\tfalse\n")], "");
    project(&world, "late", &[("Makefile", alone)], "builddeps: [name(broken)]\n");

    // Given in the wrong order, and built side by side where it is possible.
    let words = ["build", "app", "greet", "alone", "--to", "local", "--parallel", "2"];
    let built = world.cairn.json(world.words(&words));
    let recipes = built["recipes"].as_array().unwrap();
    let position = |name: &str| recipes.iter().position(|it| it["recipe"] == name).unwrap();
    assert!(position("greet") < position("app"));
    assert_eq!(recipes.len(), 3);
    let app = Built(recipes[position("app")].clone());
    let app = app.package("app");
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
    let Some(world) = Builder::new() else { return };
    let make = "hello: hello.o\n\t$(CC) $(LDFLAGS) -o $@ $<\nhello.o: hello.c\n\t$(CC) -c -o $@ $<\n\
                \tccache --show-stats --verbose\n\
                install:\n\tinstall -D hello $(DESTDIR)$(PREFIX)/bin/hello\n";
    let files = [("Makefile", make), ("hello.c", "int main(void) { return 0; }\n")];
    project(&world, "hello", &files, "");
    let log = || {
        let built = world.build(&["hello", "-o", "out", "--compiler-cache"]);
        let logs = PathBuf::from(built.0["logs"].as_str().unwrap());
        fs::read_to_string(logs.join("x86_64-build.log")).unwrap()
    };
    let hits = |log: &str| {
        let line = log.lines().find(|line| line.trim_start().starts_with("Hits:"));
        let line = line.unwrap_or_else(|| panic!("no statistics: {log}"));
        line.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
    };
    assert_eq!((hits(&log()), hits(&log())), (0, 1));
}

#[test]
fn a_build_that_is_killed_leaves_nothing_running() {
    let Some(world) = Builder::new() else { return };
    // A number that no other process sleeps for.
    let make = "all:\n\techo begun; sleep 86417\n";
    project(&world, "sleepy", &[("Makefile", make)], "");
    let is_sleeping = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let mut lines = processes.filter_map(|it| fs::read(it.path().join("cmdline")).ok());
        lines.any(|line| line == b"sleep\x0086417\0")
    };
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let mut build = world
            .cairn
            .command(world.words(&["build", "sleepy", "-o", "out"]))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(build.stderr.take().unwrap());
        assert!(said.lines().any(|line| line.unwrap().ends_with("| begun")), "it never began");
        cairn_tests::signal(build.id(), signal).unwrap();
        assert!(!build.wait().unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(20);
        while is_sleeping() {
            assert!(Instant::now() < deadline, "it still sleeps after signal {signal}");
            std::thread::sleep(Duration::from_millis(20));
        }
        // Nobody holds the directory of the build, and it can be built again.
        let work = world.path("cache/work/sleepy-1.0-1/lock");
        assert!(fs::File::open(work).unwrap().try_lock().is_ok());
    }
}
