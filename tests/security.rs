//! docs/security.md, tried by ordinary users: what they cannot do with mounts, stores
//! and control sockets, whatever they send.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cairn_tests::ordinary::{answer_to, as_user};
use cairn_tests::{Cairn, Mount, Need, Random, make_device, posix_acl, put_programs, set_xattr};

/// Two ordinary users: `nobody`, since fusermount3 asks for a name, and one without.
const USER: u32 = 65534;
const OTHER: u32 = 4243;

/// Longer than anything takes, so that a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// A tree with what a hostile user would like to have.
fn plant(directory: &Path) -> PathBuf {
    let tree = directory.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::set_permissions(&tree, Permissions::from_mode(0o755)).unwrap();
    let file = |name: &str, mode| {
        fs::write(tree.join(name), name).unwrap();
        fs::set_permissions(tree.join(name), Permissions::from_mode(mode)).unwrap();
    };
    file("public", 0o644);
    file("private", 0o600);
    fs::copy("/usr/bin/id", tree.join("setuid")).unwrap();
    fs::set_permissions(tree.join("setuid"), Permissions::from_mode(0o4755)).unwrap();
    // It may send raw packets, as ping may: linux/capability.h, version 2.
    fs::copy("/usr/bin/cat", tree.join("able")).unwrap();
    let raw_packets = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_xattr(&tree.join("able"), "security.capability", &raw_packets).unwrap();
    make_device(&tree.join("device"), 1, 3).unwrap();
    fs::set_permissions(tree.join("device"), Permissions::from_mode(0o666)).unwrap();
    fs::create_dir(tree.join("shared")).unwrap();
    fs::write(tree.join("shared/file"), "shared").unwrap();
    tree
}

fn planted() -> Cairn {
    let cairn = Cairn::new();
    let tree = plant(cairn.directory());
    cairn.data([Path::new("import"), &tree]);
    fs::set_permissions(cairn.directory(), Permissions::from_mode(0o755)).unwrap();
    cairn
}

/// The line of the kernel's table of mounts for `path`.
fn mount_line(path: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_it = |line: &&str| line.split(' ').nth(4) == path.to_str();
    table.lines().rfind(is_it).expect("it is mounted").into()
}

#[test]
fn setuid_programs_and_devices_have_effect_in_live_roots_alone() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = planted();
    let check = |arguments: &[&str], name: &str, below: &str, has_effect: bool| {
        let mount = Mount::new(&cairn, arguments, name);
        let root = mount.join(below);
        let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
        let user = answer_to(USER, &[&path("setuid"), "-u"]).unwrap();
        assert_eq!(user == "0", has_effect, "{arguments:?}: runs as {user}");
        let status = answer_to(USER, &[&path("able"), "/proc/self/status"]).unwrap();
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let capabilities = u64::from_str_radix(capabilities.trim(), 16).unwrap();
        let expected = if has_effect { 1 << 13 } else { 0 };
        assert_eq!(capabilities, expected, "{arguments:?}: capabilities of a file");
        let opened = answer_to(USER, &["sh", "-c", &format!(": <{}", path("device"))]);
        assert_eq!(opened.is_some(), has_effect, "{arguments:?}: the device");
        assert_eq!(answer_to(USER, &["cat", &path("public")]).unwrap(), "public");
        assert_eq!(answer_to(USER, &["cat", &path("private")]), None, "{arguments:?}");
        // Who lets others in has to let the kernel check the modes.
        let line = mount_line(mount.path());
        if line.contains(" fuse.cairn ") {
            for option in ["ro,", "default_permissions", "allow_other"] {
                assert!(line.contains(option), "{line}");
            }
        }
    };
    check(&[], "all", "current", false);
    check(&[], "old", "states/1", false);
    check(&["--state", "1"], "pinned", "", false);
    check(&["--rw", "work", "--state", "1"], "workspace", "", false);
    check(&["--follow"], "live", "", true);
    check(&["--follow", "-o", "nosuid,nodev"], "careful", "", false);
    check(&["--state", "1", "--system-root"], "root", "", true);
}

#[test]
fn an_acl_that_a_switch_brings_or_takes_has_effect_at_once() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = planted();
    let tree = cairn.directory().join("tree");
    // For user 65534 nothing, for all others as before.
    let none = u32::MAX;
    let acl = [(1, 7, none), (2, 0, USER), (4, 5, none), (16, 5, none), (32, 5, none)];
    let acl = posix_acl(&acl);
    set_xattr(&tree.join("shared"), "system.posix_acl_access", &acl).unwrap();
    cairn.data([Path::new("import"), &tree]);
    let live = Mount::new(&cairn, &["--follow"], "live");
    let path = live.join("shared/file");
    let reads = |user| answer_to(user, &["cat", path.to_str().unwrap()]).is_some();
    for (state, is_open) in [("2", false), ("1", true), ("2", false), ("1", true)] {
        cairn.data(["switch", state]);
        assert_eq!((reads(USER), reads(OTHER)), (is_open, true), "state {state}");
    }
}

/// Gives all of the store to an ordinary user.
fn hand_over(cairn: &Cairn, user: u32) {
    let mut chown = Command::new("chown");
    chown.args(["-R", &format!("{user}:{user}")]).arg(cairn.store());
    assert!(chown.status().unwrap().success());
}

#[test]
fn the_mount_of_an_ordinary_user_is_for_that_user_alone() {
    let fusermount = Need::Program("fusermount3", "fuse3");
    if !Need::all(&[Need::Fuse, Need::Root, fusermount]) {
        return;
    }
    let cairn = planted();
    hand_over(&cairn, USER);
    let place = cairn.directory().join("place");
    fs::create_dir(&place).unwrap();
    chown(&place, Some(USER), Some(USER)).unwrap();
    let told = as_user(
        &cairn,
        "
        user 65534 ./cairn --quiet mount --follow place >mounted
        grep -F \"$PWD/place \" /proc/self/mountinfo | cut -d\" \" -f6
        user 65534 cat place/public; echo
        user 65534 place/setuid -u
        user 65534 cat place/private 2>/dev/null || echo forbidden by its mode
        user 4243 cat place/public 2>/dev/null || echo not for others
        cat place/public 2>/dev/null || echo not for root
        user 4243 ./cairn --quiet umount place 2>/dev/null || echo not taken away by others
        user 65534 ./cairn --quiet umount place >unmounted
        ls place
        ",
    );
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("ro,nosuid,nodev"), "{told}");
    let expected = [
        "public",
        "65534",
        "forbidden by its mode",
        "not for others",
        "not for root",
        "not taken away by others",
    ];
    assert_eq!(lines[1..], expected);
}

#[test]
fn a_user_gains_nothing_by_copying_a_setuid_program_into_a_layer() {
    let fusermount = Need::Program("fusermount3", "fuse3");
    if !Need::all(&[Need::Fuse, Need::Root, fusermount]) {
        return;
    }
    let cairn = planted();
    let tree = cairn.directory().join("tree");
    put_programs(&tree, &["/usr/bin/touch"]);
    cairn.data([Path::new("import"), &tree]);
    hand_over(&cairn, USER);
    let told =
        as_user(&cairn, "user 65534 ./cairn run --rw layer --state 2 -- /usr/bin/touch /setuid");
    assert_eq!(told, "");
    let layer = cairn.store().join("workspaces/layer");
    let found = Command::new("find").arg(&layer).args(["-name", "setuid"]).output().unwrap();
    let path = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim_end());
    let copy = fs::metadata(&path).expect("it was copied into the layer");
    assert_eq!((copy.uid(), copy.gid()), (USER, USER), "it belongs to who copied it");
    // Others cannot come near it; and if they could, it is not root's.
    assert_eq!(answer_to(OTHER, &[path.to_str().unwrap(), "-u"]), None);
    assert_eq!(answer_to(USER, &[path.to_str().unwrap(), "-u"]).unwrap(), "65534");
}

/// The control socket of the only mount.
fn socket(cairn: &Cairn) -> PathBuf {
    let entries = fs::read_dir(cairn.store().join("run/mounts")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.find(|path| path.extension().is_some_and(|it| it == "sock")).expect("there is one")
}

/// The answer to one request; nothing if there was none.
fn ask(socket: &Path, request: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A request may be refused before all of it was read.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Memory in KiB, and open descriptors.
fn burden(process: u32) -> (u64, usize) {
    let process = Path::new("/proc").join(process.to_string());
    let status = fs::read_to_string(process.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = line.trim().trim_end_matches(" kB").parse().unwrap();
    (memory, fs::read_dir(process.join("fd")).unwrap().count())
}

#[test]
fn the_control_socket_is_for_root_and_the_owner() {
    let perl = Need::Program("perl", "perl-base");
    if !Need::all(&[Need::Fuse, Need::Root, perl]) {
        return;
    }
    let cairn = planted();
    let mount = Mount::new(&cairn, &["--state", "1"], "mount");
    let socket = socket(&cairn);
    let private = fs::metadata(cairn.store()).unwrap().mode() & 0o777;
    assert_eq!((private, fs::metadata(&socket).unwrap().mode() & 0o777), (0o700, 0o600));
    // As if somebody had opened all doors to it: the kernel says who is there.
    for path in socket.ancestors().skip(1).take(3) {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    let client = "
        use Socket;
        for my $request (@ARGV[1..$#ARGV]) {
            socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die;
            connect($s, pack_sockaddr_un($ARGV[0])) or die;
            local $SIG{PIPE} = 'IGNORE';
            syswrite($s, \"$request\\n\");
            while (sysread($s, my $buf, 4096)) { print $buf }
        }";
    let path = socket.to_str().unwrap();
    let requests =
        ["status", "stats", "refresh", "settle", "unmount", "detach", "restart", "nonsense"];
    let words = [&["perl", "-e", client, path][..], &requests[..]].concat();
    assert_eq!(answer_to(USER, &words).expect("it connects"), "", "somebody else got an answer");
    assert_eq!(fs::read(mount.join("public")).unwrap(), b"public", "it is still there");
    assert!(ask(&socket, b"status\n").starts_with(b"{\"status\":"));
}

#[test]
fn whatever_comes_over_the_control_socket_the_mount_lives_and_stays_small() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    let cairn = planted();
    let mount = Mount::new(&cairn, &["--follow"], "mount");
    let (socket, process) = (socket(&cairn), mount.process());
    let is_well = |what: &str| {
        let begun = Instant::now();
        while !ask(&socket, b"status\n").starts_with(b"{\"status\":") {
            assert!(begun.elapsed() < PATIENCE, "no answer after {what}");
        }
        assert_eq!(fs::read(mount.join("public")).unwrap(), b"public", "after {what}");
    };
    is_well("the beginning");
    let before = burden(process);

    let mut random = Random(0x5eed_0000_0021);
    let requests: [&[u8]; 3] = [b"status\n", b"refresh\n", b"unmount\n"];
    for _ in 0..2000 {
        let mut bytes = match random.below(3) {
            // Bytes without a pattern.
            0 => {
                let len = random.below(300);
                random.bytes(len)
            }
            // A request with something changed, and one that is cut short.
            1 => random.choose(&requests).to_vec(),
            _ => [b"sta".to_vec(), random.bytes(3)].concat(),
        };
        if !bytes.is_empty() {
            let at = random.below(bytes.len());
            bytes[at] = bytes[at].wrapping_add(1).max(1);
        }
        // The line ends, so that nobody has to wait for the rest.
        bytes.push(b'\n');
        ask(&socket, &bytes);
    }
    is_well("2000 lines");

    // A line without an end: it is not waited for beyond what lines may have.
    let answer = ask(&socket, &vec![b'a'; 32 << 20]);
    assert_eq!(answer, b"");
    is_well("a line of 32 MiB");

    // Many at once, of which each goes away in the middle of its line.
    for _ in 0..20 {
        let streams: Vec<UnixStream> =
            (0..100).map(|_| UnixStream::connect(&socket).unwrap()).collect();
        for mut stream in streams {
            let _ = stream.write_all(b"stat");
        }
    }
    is_well("2000 connections");

    let after = burden(process);
    assert!(after.0 < before.0 + (16 << 10), "memory in KiB: {before:?}, then {after:?}");
    assert!(after.1 <= before.1 + 2, "descriptors: {before:?}, then {after:?}");
}

#[test]
fn a_user_who_asks_for_all_that_is_not_there_costs_the_mount_nothing() {
    const NAMES: usize = 60_000;
    let perl = Need::Program("perl", "perl-base");
    if !Need::all(&[Need::Fuse, Need::Root, perl]) {
        return;
    }
    let cairn = planted();
    let mount = Mount::new(&cairn, &["--state", "1"], "mount");
    let asks =
        format!("for (1..{NAMES}) {{ lstat(\"$ARGV[0]/$_\") and die; $!{{ENOENT}} or die }}");
    let words = ["perl", "-MErrno", "-e", &asks, mount.path().to_str().unwrap()];
    // What the first of them cost stays.
    answer_to(USER, &words).expect("each is missing");
    let before = burden(mount.process());
    let other = asks.replace("$_", "x$_");
    let words = ["perl", "-MErrno", "-e", &other, mount.path().to_str().unwrap()];
    answer_to(USER, &words).expect("each is missing");
    let after = burden(mount.process());
    assert!(after.0 < before.0 + (4 << 10), "memory in KiB: {before:?}, then {after:?}");
    assert_eq!(after.1, before.1);
    assert_eq!(fs::read(mount.join("public")).unwrap(), b"public");
}

#[test]
fn a_store_is_closed_to_others_from_the_beginning() {
    if !Need::all(&[Need::Root]) {
        return;
    }
    let cairn = planted();
    assert_eq!(fs::metadata(cairn.store()).unwrap().mode() & 0o7777, 0o700);
    let store = cairn.store().to_str().unwrap().to_owned();
    assert_eq!(answer_to(USER, &["ls", &store]), None);
    // Also with the program itself, which is not setuid.
    let program = cairn.directory().join("cairn");
    fs::copy(cairn.program(), &program).unwrap();
    let shown =
        answer_to(USER, &[program.to_str().unwrap(), "--store", &store, "cat", "1:private"]);
    assert_eq!(shown, None);
    assert_eq!(fs::metadata(&program).unwrap().mode() & 0o6000, 0);
}

#[test]
fn a_store_of_somebody_else_leads_nobody_to_files_outside_of_it() {
    if !Need::all(&[Need::Fuse, Need::Root]) {
        return;
    }
    // Its owner has put links to what only root can read in the place of its files.
    let cairn = planted();
    let secret = cairn.directory().join("secret");
    fs::write(&secret, "root:secret\n").unwrap();
    for path in ["format", "refs/log", "run/mount.log"].map(|path| cairn.store().join(path)) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(&secret, path).unwrap();
    }
    hand_over(&cairn, USER);
    let mount = Mount::expected(&cairn, "mount");
    fs::create_dir(mount.path()).unwrap();
    let commands = [
        &["state", "list"][..],
        &["verify"],
        &["gc"],
        &["cat", "1:public"],
        &["import", "tree"],
        &["mount", "mount"],
    ];
    for words in commands {
        let said = cairn.fails(1, words);
        assert!(said.contains(&format!("belongs to user {USER}\n")), "{words:?}: {said}");
        assert!(!said.contains("secret"), "{words:?}: {said}");
    }
    assert_eq!(fs::read(&secret).unwrap(), b"root:secret\n");
}
