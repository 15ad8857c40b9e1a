//! The static program, `make static`: it works where there is nothing else, and where
//! what there is has been destroyed.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_tests::{Authority, Cairn, Ended, Need, Room, Server, Stones, put_programs, real};

/// The program without libraries.
fn program() -> PathBuf {
    let program = cairn_tests::target().join("static/cairn");
    assert!(program.exists(), "{} is missing: run `make static`", program.display());
    program
}

/// What a program needs to be started: the lines of readelf(1) that name an interpreter
/// or a library.
fn needed(program: &Path) -> Vec<String> {
    let readelf = Command::new("readelf").args(["-W", "-l", "-d"]).arg(program).output().unwrap();
    assert!(readelf.status.success(), "{}", program.display());
    let text = String::from_utf8(readelf.stdout).unwrap();
    assert!(text.contains("LOAD"), "{text}");
    let names = |line: &&str| line.contains("program interpreter") || line.contains("(NEEDED)");
    text.lines().filter(names).map(Into::into).collect()
}

#[test]
#[ignore = "make static builds what it looks at"]
fn it_is_one_file_that_needs_neither_an_interpreter_nor_a_library() {
    if !Need::all(&[Need::Program("readelf", "binutils")]) {
        return;
    }
    assert_eq!(needed(&program()), [""; 0]);
    let usual = needed(Cairn::new().program()).join("\n");
    assert!(usual.contains("ld-linux") && usual.contains("libc.so"), "{usual}");
}

/// A directory with the static program as `/cairn`, and whatever a test puts beside it, as
/// the root of all that is run.
struct World {
    room: Room,
    root: PathBuf,
    cairn: Cairn,
}

impl World {
    fn new() -> Self {
        let cairn = Cairn::new();
        let root = cairn.directory().join("root");
        let room = Room::new(&root);
        fs::copy(program(), root.join("cairn")).unwrap();
        Self { room, root, cairn }
    }

    /// `/cairn ARGS` in there, with the store /store.
    fn run(&self, args: &[&str]) -> Ended {
        self.run_in("", "/cairn", args)
    }

    /// The same of another `cairn` that is in the directory `root` of the room, as the root.
    fn run_in(&self, root: &str, cairn: &str, args: &[&str]) -> Ended {
        self.room.run(root, [&[cairn, "--yes", "--store", "/store"], args].concat())
    }

    /// Runs `/cairn ARGS`, which has to succeed; returns what it said.
    fn does(&self, args: &[&str]) -> String {
        let Ended { status, stdout, stderr } = self.run(args);
        assert!(status.success(), "cairn {args:?}: {status}\n{stdout}{stderr}");
        stdout + &stderr
    }

    /// A path beside the root, that nothing in there sees.
    fn outside(&self, name: &str) -> PathBuf {
        self.cairn.directory().join(name)
    }

    /// The names of what is in the root.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.root).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
#[ignore = "make static builds what it runs"]
fn in_an_empty_root_it_installs_mounts_verifies_and_rolls_back() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let world = World::new();
    let stones = Stones::new(&world.root.join("stones"));
    stones.add("small", 1, 5_000);
    stones.index(None);
    fs::create_dir(world.root.join("live")).unwrap();
    let before = ["cairn", "dev", "live", "proc", "stones"];
    assert_eq!(world.names(), before, "there is no library in there");
    // What needs libraries cannot be started.
    fs::copy(world.cairn.program(), world.root.join("usual")).unwrap();
    let usual = world.run_in("", "/usual", &["--version"]);
    assert_eq!(usual.code(), Some(127), "{}{}", usual.stdout, usual.stderr);
    fs::remove_file(world.root.join("usual")).unwrap();

    world.does(&["repo", "add", "main", "file:///stones"]);
    world.does(&["install", "small"]);
    world.does(&["mount", "--follow", "/live"]);
    let size = || fs::metadata(world.room.path("/live/usr/share/small/data")).unwrap().len();
    assert_eq!(size(), 5_000);
    stones.add("small", 2, 70_000);
    stones.index(None);
    world.does(&["upgrade", "--update"]);
    let data = fs::read(world.room.path("/live/usr/share/small/data")).unwrap();
    assert_eq!(data.len(), 70_000, "the live root follows");
    world.does(&["rollback"]);
    assert_eq!(size(), 5_000);
    assert!(world.does(&["verify"]).contains("2 states walked: no damage."));
    world.does(&["umount", "/live"]);
    assert_eq!(world.names(), ["cairn", "dev", "live", "proc", "stones", "store"]);
}

#[test]
#[ignore = "make static builds what it runs"]
fn without_proc_and_devices_it_goes_back_and_says_what_else_lacks_proc() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let world = World::new();
    let bare = world.root.join("bare");
    let stones = Stones::new(&bare.join("stones"));
    stones.add("small", 1, 5_000);
    stones.index(None);
    for directory in [bare.join("here"), world.root.join("live")] {
        fs::create_dir(directory).unwrap();
    }
    fs::copy(program(), bare.join("cairn")).unwrap();
    let run = |args: &[&str]| world.run_in("/bare", "/cairn", args);
    let does = |args: &[&str]| {
        let ended = run(args);
        assert_eq!(ended.code(), Some(0), "{args:?}: {ended:?}");
    };
    does(&["repo", "add", "main", "file:///stones"]);
    does(&["install", "small"]);
    stones.add("small", 2, 70_000);
    stones.index(None);
    does(&["upgrade", "--update"]);

    // A live root that the other root shows.
    let mount = ["/cairn", "--store", "/bare/store", "mount", "--follow", "/live"];
    let ended = world.room.run("", mount);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let size = || fs::metadata(world.room.path("/live/usr/share/small/data")).unwrap().len();
    assert_eq!(size(), 70_000);
    does(&["rollback"]);
    assert_eq!(size(), 5_000, "the live root was told");
    world.does(&["umount", "/live"]);

    for args in [["mount", "/here"], ["umount", "/here"], ["import", "/here"]] {
        let Ended { status, stderr, .. } = run(&args);
        assert_eq!(status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains("/proc is not mounted"), "{args:?}: {stderr}");
        assert!(stderr.contains("mount -t proc proc /proc"), "{args:?}: {stderr}");
        assert!(!stderr.contains("mkdir"), "{args:?}: {stderr}");
    }
    assert!(!bare.join("proc").exists() && !bare.join("dev").exists());
}

/// The C library of a converted Debian system, and what starts programs with it.
const LIBRARY: &str = "usr/lib/x86_64-linux-gnu/libc.so.6";
const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

#[test]
#[ignore = "make static builds what it runs"]
fn a_system_whose_c_library_is_destroyed_is_recovered_from_inside() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let Some(debs) = real::debs_for(&["bash", "coreutils", "libstdc++6"], "list-static") else {
        return;
    };
    let repository = real::repository_of(&debs, "stones-static");
    let world = World::new();
    for name in ["stones", "live", "work"] {
        fs::create_dir(world.root.join(name)).unwrap();
    }
    for entry in fs::read_dir(repository).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), world.root.join("stones").join(entry.file_name())).unwrap();
    }
    world.does(&["repo", "add", "main", "file:///stones"]);
    world.does(&["install", "bash", "coreutils", "libstdc++6"]);

    // A system with both programs in it, the store of which is at its usual place.
    world.does(&["mount", "--rw", "work", "/work"]);
    let work = |path: &str| world.room.path("/work").join(path);
    fs::create_dir_all(work("store")).unwrap();
    fs::copy(program(), work("usr/bin/cairn-static")).unwrap();
    fs::copy(world.cairn.program(), work("usr/bin/cairn")).unwrap();
    world.does(&["snapshot", "work"]);
    world.does(&["mount", "--follow", "--bind", "/proc=/proc", "--bind", "/store=/store", "/live"]);
    let live = |words: &[&str]| world.room.run("/live", words);
    let all_work = || {
        for (words, said) in PROGRAMS {
            let ended = live(words);
            assert_eq!((ended.code(), ended.stdout.as_str()), (Some(0), *said), "{ended:?}");
        }
    };
    all_work();

    for (destroyed, how) in [
        (&[LIBRARY][..], destroy as fn(&Path)),
        (&[LIBRARY], |path| fs::remove_file(path).unwrap()),
        (&[LIBRARY, LOADER], |path| fs::remove_file(path).unwrap()),
    ] {
        destroyed.iter().for_each(|path| how(&work(path)));
        world.does(&["snapshot", "work"]);
        // The one C library of the system is gone, for all programs that need one.
        for (words, _) in PROGRAMS {
            let ended = live(words);
            assert!(matches!(ended.code(), Some(126 | 127)), "{destroyed:?}: {ended:?}");
        }
        // From inside, where nothing else runs any more.
        let run = |args: &[&str]| {
            let ended = world.run_in("/live", "/usr/bin/cairn-static", args);
            assert_eq!(ended.code(), Some(0), "{args:?}: {ended:?}");
            ended.stdout + &ended.stderr
        };
        let broken = run(&["--json", "state", "show"]);
        run(&["rollback"]);
        all_work();
        assert!(run(&["verify"]).contains("no damage"));
        assert_ne!(run(&["--json", "state", "show"]), broken);
        // The workspace begins anew from the sound state.
        world.does(&["umount", "/work"]);
        world.does(&["workspace", "discard", "work"]);
        world.does(&["mount", "--rw", "work", "/work"]);
    }
    for directory in ["/work", "/live"] {
        world.does(&["umount", directory]);
    }
}

/// Programs of the system, and what they print.
const PROGRAMS: &[(&[&str], &str)] = &[
    (&["/usr/bin/bash", "-c", "echo $((6 * 7))"], "42\n"),
    (&["/usr/bin/basename", "/a/b"], "b\n"),
    (&["/usr/bin/cairn", "--store", "/store", "ls", "1:/usr/bin/bash"], "bash\n"),
];

/// Puts something else in the place of a file's content.
fn destroy(path: &Path) {
    let len = fs::metadata(path).unwrap().len();
    fs::write(path, vec![0xa5; usize::try_from(len).unwrap()]).unwrap();
}

/// A module for looking up hosts that ends the program that loads it.
const MODULE: &str = "#include <unistd.h>\n\
    __attribute__((constructor)) static void end(void) { _exit(77); }\n";

#[test]
#[ignore = "make static builds what it runs"]
fn it_finds_hosts_without_loading_the_modules_of_a_machine() {
    let programs = [Need::Program("cc", "gcc"), Need::Program("getent", "libc-bin")];
    if !Need::all(&[&[Need::Fuse, Need::Root], &programs[..]].concat()) {
        return;
    }
    let world = World::new();
    let stones = Stones::new(&world.outside("stones"));
    stones.add("small", 1, 1_000);
    stones.index(None);
    let server = Server::new(stones.path());
    let by_number = server.url("/");
    let by_name = by_number.replace("127.0.0.1", "some.host");
    let add = |url: &str| world.run(&["repo", "add", "main", url]);

    // Nothing in there says where a host is.
    let ended = add(&by_name);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("some.host"), "{}", ended.stderr);
    world.does(&["repo", "add", "by-number", &by_number]);
    world.does(&["install", "small"]);

    // A whole machine is around it, with a C library and a module that is named first.
    put_programs(&world.root, &["/usr/bin/getent"]);
    fs::write(world.root.join("etc/hosts"), "127.0.0.1 some.host\n").unwrap();
    fs::write(world.root.join("etc/nsswitch.conf"), "hosts: end files\n").unwrap();
    let source = world.outside("module.c");
    fs::write(&source, MODULE).unwrap();
    let libraries = world.root.join(LIBRARY).with_file_name("");
    let module = libraries.join("libnss_end.so.2");
    let words = ["-shared", "-fPIC", "-o"].map(OsStr::new);
    let cc = Command::new("cc").args(words).arg(module).arg(source).status().unwrap();
    assert!(cc.success());
    let usual = world.room.run("", ["/usr/bin/getent", "ahosts", "some.host"]);
    assert_eq!(usual.code(), Some(77), "the module is loaded by whoever goes by the file");
    let ended = add(&by_name);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
}

#[test]
#[ignore = "make static builds what it runs"]
fn it_believes_whom_the_certificates_in_its_root_vouch_for() {
    if !Need::all(&[Need::Fuse, Need::Root, Need::Program("openssl", "openssl")]) {
        return;
    }
    let world = World::new();
    let stones = Stones::new(&world.outside("stones"));
    stones.add("small", 1, 1_000);
    stones.index(None);
    let server = Server::new(stones.path());
    let authority = Authority::new(&world.outside("authority"));
    let http = server.url("");
    let tls = authority.serve(http.trim_start_matches("http://"), "localhost");
    fs::create_dir_all(world.root.join("etc/ssl/certs")).unwrap();
    fs::write(world.root.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();

    let ended = world.run(&["repo", "add", "main", &tls.url("/")]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("certificate"), "{}", ended.stderr);
    let bundle = world.root.join("etc/ssl/certs/ca-certificates.crt");
    fs::copy(authority.certificate(), bundle).unwrap();
    world.does(&["repo", "add", "main", &tls.url("/")]);
    world.does(&["install", "small"]);
}
