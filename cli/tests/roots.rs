//! Roots of systems: what of the machine lies on them, and who mounts them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{World, can_mount, text, write_deb};

/// State 1 has /usr/bin/one and the defaults etc/conf and etc/sub/deep, state 2 the
/// default etc/late as well.
fn world() -> World {
    let world = World::new();
    let debs = world.path().join("debs");
    let files = [
        ("./usr/bin/one", "#!/bin/sh\necho one\n"),
        ("./etc/conf", "default\n"),
        ("./etc/sub/deep", "deep\n"),
    ];
    write_deb(&debs, "one", "", &files);
    write_deb(&debs, "two", "", &[("./usr/bin/two", "two\n"), ("./etc/late", "late\n")]);
    world.data(&["convert", "debs", "-o", "stones"]);
    world.data(&["repo", "index", "stones"]);
    world.data(&["repo", "add", "main", "stones"]);
    world.data(&["install", "-y", "one"]);
    world
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// What of the machine lies on a root in these tests, as options name it: a directory that
/// is missing, and one with another in it.
fn etc_and_home(world: &World) -> [String; 2] {
    fs::create_dir_all(world.path().join("home/user")).unwrap();
    ["etc", "home"].map(|name| format!("/{name}={}", world.path().join(name).display()))
}

#[test]
fn what_belongs_to_the_machine_lies_on_a_live_root_and_stays_there() {
    if !can_mount() {
        return;
    }
    let world = world();
    let at = |path: &str| world.path().join(path);
    let [etc, home] = etc_and_home(&world);
    let options = ["--follow", "--writable", &etc, "--bind", &home];
    let root = world.mount("root", &options);
    let on = |path: &str| root.path.join(path);
    // Filled from the defaults of the state, since it was not there.
    assert_eq!(fs::read_to_string(on("etc/conf")).unwrap(), "default\n");
    assert_eq!(fs::read_to_string(at("etc/sub/deep")).unwrap(), "deep\n");
    fs::write(on("etc/conf"), "mine\n").unwrap();
    assert_eq!(fs::read_to_string(at("etc/conf")).unwrap(), "mine\n");
    fs::write(on("home/user/file"), "x").unwrap();
    assert!(at("home/user/file").exists());
    assert!(fs::write(on("usr/new"), "x").is_err());

    // A switch changes the state and nothing of that.
    world.data(&["install", "-y", "two"]);
    assert!(on("usr/bin/two").exists());
    assert_eq!(fs::read_to_string(on("etc/conf")).unwrap(), "mine\n");
    assert!(!on("etc/late").exists(), "the defaults are for an empty directory");
    world.data(&["rollback"]);
    assert_eq!(fs::read_to_string(on("home/user/file")).unwrap(), "x");

    // All of it is unmounted, or nothing.
    let open = File::open(on("usr/bin/one")).unwrap();
    let complaint = world.failure(1, &["umount", "root"]);
    assert!(complaint.contains("is in use"), "{complaint}");
    assert_eq!(fs::read_to_string(on("etc/conf")).unwrap(), "mine\n");
    assert_eq!(fs::read_to_string(on("home/user/file")).unwrap(), "x");
    drop(open);
    world.data(&["umount", "root"]);
    for path in ["root", "root/etc", "root/home"] {
        assert!(!is_mounted(&at(path)), "{path}");
    }
    // Mounted again, it is as it was left.
    let root = world.mount("root", &options);
    assert_eq!(fs::read_to_string(root.path.join("etc/conf")).unwrap(), "mine\n");
    world.data(&["umount", "--lazy", "root"]);
    assert!(!is_mounted(&at("root/etc")) && !is_mounted(&at("root")));
}

#[test]
fn what_lies_on_a_root_survives_its_process_and_goes_with_the_mount() {
    if !can_mount() {
        return;
    }
    let world = world();
    let at = |path: &str| world.path().join(path);
    let [etc, home] = etc_and_home(&world);
    let root = world.mount("root", &["--follow", "--writable", &etc, "--bind", &home]);
    let conf = File::open(root.path.join("etc/conf")).unwrap();
    let pid = || world.json(&["mount"])[0]["pid"].as_i64().unwrap();
    let first = pid();
    let kill = || {
        let before = pid();
        let killed = Command::new("kill").args(["-KILL", &before.to_string()]).status().unwrap();
        assert!(killed.success());
        eventually("another process answers", || pid() != before);
    };
    kill();
    assert_ne!(pid(), first);
    assert_eq!(fs::read_to_string(root.path.join("etc/conf")).unwrap(), "default\n");
    assert!(root.path.join("home/user").exists() && root.path.join("usr/bin/one").exists());
    fs::write(root.path.join("home/user/file"), "x").unwrap();

    // Killed while it took off what lies there: all or nothing is what holds.
    let taken = Command::new("umount").arg(root.path.join("home")).status().unwrap();
    assert!(taken.success() && !root.path.join("home/user").exists());
    kill();
    eventually("it is put back", || root.path.join("home/user/file").exists());

    // What the successor has taken over it takes off.
    let complaint = world.failure(1, &["umount", "root"]);
    assert!(complaint.contains("is in use"), "{complaint}");
    assert!(is_mounted(&at("root/etc")) && is_mounted(&at("root/home")));
    drop(conf);
    world.data(&["umount", "root"]);
    for path in ["root", "root/etc", "root/home"] {
        assert!(!is_mounted(&at(path)), "{path}");
    }
}

/// Keeps descriptors as sd_notify(3) says, gives them to the next process as
/// sd_listen_fds(3) says, and starts one whenever one was killed.
const SUPERVISOR: &str = r#"
import os, socket, subprocess, sys
path, command = sys.argv[1], sys.argv[2:]
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(path)
notify.settimeout(20)
kept = []

def start():
    numbers = range(3, 3 + len(kept))
    def give():
        high = [os.dup2(fd, 100 + at) for at, (_, fd) in enumerate(kept)]
        for at, fd in zip(numbers, high):
            os.dup2(fd, at)
            os.close(fd)
    listen = {"LISTEN_FDS": str(len(kept)), "LISTEN_FDNAMES": ":".join(name for name, _ in kept)}
    words = ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh"] + command
    return subprocess.Popen(words, env={**os.environ, **listen, "NOTIFY_SOCKET": path},
                            preexec_fn=give, close_fds=False, stdout=subprocess.DEVNULL)

while True:
    child = start()
    try:
        while True:
            flags = socket.MSG_CMSG_CLOEXEC
            message, descriptors, _, _ = socket.recv_fds(notify, 4096, 1, flags)
            lines = dict(line.split("=", 1) for line in message.decode().splitlines())
            name = lines.get("FDNAME")
            if "FDSTOREREMOVE" in lines:
                kept = [(known, fd) for known, fd in kept if known != name]
            kept += [(name, fd) for fd in descriptors]
            if "READY" in lines:
                break
        print(child.pid, flush=True)
        if child.wait() != -9:
            sys.exit(child.returncode)
    finally:
        child.kill()
"#;

#[test]
fn a_supervisor_that_keeps_descriptors_gives_the_mount_to_the_next_process() {
    if !can_mount() {
        return;
    }
    if Command::new("python3").arg("--version").output().is_err() {
        let message = "there is no python3 (Debian: apt-get install python3)";
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("SKIPPED: {message}");
        return;
    }
    let world = world();
    fs::create_dir_all(world.path().join("home/user")).unwrap();
    fs::create_dir(world.path().join("root")).unwrap();
    let home = format!("/home={}", world.path().join("home").display());
    is_given_on(&world, &["--follow", "--bind", &home], |root| {
        assert!(root.join("home/user").exists());
    });
    // Workspaces of ordinary users end with their process.
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        is_given_on(&world, &["--rw", "work"], |root| {
            let file = root.join("written");
            let before = fs::read_to_string(&file).unwrap_or_default();
            fs::write(&file, before + "x").unwrap();
        });
        world.data(&["mount", "--rw", "work", "root"]);
        let written = fs::read_to_string(world.path().join("root/written")).unwrap();
        assert_eq!(written, "xxx", "each process has shown what was written before");
        world.data(&["umount", "root"]);
    }
}

/// Has a supervisor mount with these options, and kills the process again and again; `look` is
/// called three times meanwhile.
fn is_given_on(world: &World, options: &[&str], look: impl Fn(&Path)) {
    let root = world.path().join("root");
    let cairn = world.command(&[&["mount", "--foreground"], options, &["root"]].concat());
    let notify = world.path().join("notify");
    let _ = fs::remove_file(&notify);
    let mut supervisor = Command::new("python3");
    supervisor.args(["-c", SUPERVISOR]).arg(notify).arg(cairn.get_program());
    supervisor.args(cairn.get_args()).stdout(Stdio::piped());
    let variables = cairn.get_envs().filter_map(|(name, value)| Some((name, value?)));
    supervisor.envs(variables).current_dir(cairn.get_current_dir().unwrap());
    let mut supervisor = supervisor.spawn().unwrap();
    let mut started = BufReader::new(supervisor.stdout.take().unwrap()).lines();
    let open = {
        let pid = started.next().unwrap().unwrap();
        let open = File::open(root.join("usr/bin/one")).unwrap();
        let killed = Command::new("kill").args(["-KILL", &pid]).status().unwrap();
        assert!(killed.success());
        open
    };
    for _ in 0..3 {
        let pid = started.next().unwrap().unwrap();
        assert_eq!(io::read_to_string(&open).unwrap().len(), 19, "what was open can be read");
        (&open).rewind().unwrap();
        look(&root);
        assert_eq!(world.json(&["mount"])[0]["pid"].to_string(), pid);
        let killed = Command::new("kill").args(["-KILL", &pid]).status().unwrap();
        assert!(killed.success());
    }
    started.next().unwrap().unwrap();
    drop(open);
    world.data(&["umount", "root"]);
    assert!(supervisor.wait().unwrap().success(), "it ends in good order");
    assert!(!is_mounted(&root));
}

#[test]
fn what_cannot_be_put_on_a_root_is_told_and_nothing_stays() {
    if !can_mount() {
        return;
    }
    let world = world();
    fs::create_dir(world.path().join("root")).unwrap();
    let here = world.path().display().to_string();
    for (path, told) in [
        ("/none", "the state has no /none to put a directory of this machine on"),
        ("/bin/none", "the state has no /bin/none"),
        // A link of the state, which would lead out of the mount.
        ("/bin", "the state has no /bin to put"),
    ] {
        let bind = format!("{path}={here}/debs");
        let complaint = world.failure(1, &["mount", "--follow", "--bind", &bind, "root"]);
        assert!(complaint.contains(told), "{complaint}");
        assert!(!is_mounted(&world.path().join("root")));
    }
    let missing = format!("/home={here}/none");
    let etc = format!("/etc={here}/etc");
    let options = ["--follow", "--writable", &etc, "--bind", &missing];
    let complaint = world.failure(1, &[&["mount"], &options[..], &["root"]].concat());
    assert!(complaint.contains("none"), "{complaint}");
    assert!(!world.path().join("etc").exists(), "nothing is filled in vain");
    for arguments in [
        &["--bind", "/home=/home"][..],
        &["--follow", "--bind", "home=/home"],
        &["--follow", "-o", "state=1"],
        &["--follow", "-o", "nonsense"],
    ] {
        world.failure(2, &[&["mount"], arguments, &["root"]].concat());
    }
    // A root that would hide the store that it is made of.
    let complaint = world.failure(1, &["mount", "--follow", "."]);
    assert!(complaint.contains("lies below"), "{complaint}");
    assert_eq!(world.data(&["mount"]), "Nothing is mounted.\n");
}

/// The program under the name by which mount(8) calls it.
fn helper(world: &World) -> PathBuf {
    let helpers = world.path().join("helpers");
    fs::create_dir_all(&helpers).unwrap();
    let helper = helpers.join("mount.fuse.cairn");
    symlink(env!("CARGO_BIN_EXE_cairn"), &helper).unwrap();
    helper
}

#[test]
fn mount_and_fstab_know_how_to_mount_a_root() {
    if !can_mount() {
        return;
    }
    let world = world();
    let helper = helper(&world);
    let root = world.path().join("root");
    fs::create_dir(&root).unwrap();
    let fstab = world.path().join("fstab");
    let etc = world.path().join("etc");
    let line = format!(
        "{} {} fuse.cairn follow,nodev,nofail,x-systemd.requires=/,writable=/etc={} 0 0\n",
        world.store().display(),
        root.display(),
        etc.display()
    );
    fs::write(&fstab, line).unwrap();
    // In a mount namespace with the helper in /sbin, where mount(8) looks for it.
    let script = "set -e; sbin=$(readlink -f /sbin)
        mount -t overlay helpers -o \"lowerdir=$1:$sbin\" \"$sbin\"
        mount --fstab \"$2\" \"$3\"
        cat \"$3/usr/bin/one\" \"$3/etc/conf\"
        grep \" $3 fuse.cairn \" /proc/self/mounts
        mount --fstab \"$2\" -o remount,noexec \"$3\"
        grep \" $3 fuse.cairn \" /proc/self/mounts
        umount \"$3/etc\"
        umount \"$3\"
        mount -t fuse.cairn -o state=1 \"$4\" \"$3\"
        ls \"$3/usr/bin\"
        umount \"$3\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    unshare.args([helper.parent().unwrap(), &fstab, &root, &world.store()]);
    let output = unshare.output().unwrap();
    let (said, complaint) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}{complaint}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(&lines[..3], ["#!/bin/sh", "echo one", "default"], "{said}");
    assert!(lines[3].contains(" ro,nodev,"), "{said}");
    assert!(lines[4].contains("noexec"), "{said}");
    assert_eq!(&lines[5..], ["one"], "{said}");
    assert!(!is_mounted(&root));

    // The exit codes are those that mount(8) knows.
    let call = |arguments: &[&str]| {
        let mut command = Command::new(&helper);
        let output = command.args(arguments).current_dir(world.path()).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    assert_eq!(call(&["nowhere", "root", "-o", "rw"]).0, Some(32));
    assert_eq!(call(&["store", "root", "-o", "follow,nonsense"]).0, Some(32));
    assert_eq!(call(&["store"]).0, Some(1));
    assert_eq!(call(&["store", "root", "-f", "-o", "follow"]).0, Some(0));
    assert!(!is_mounted(&root));
    // A root begins anew under another name, and is no less of a helper.
    assert_eq!(call(&["store", "root", "-o", "system-root,nonsense"]).0, Some(32));
    assert_eq!(call(&["store", "root", "-o", "system-root,state=7"]).0, Some(32));
}

#[test]
fn the_process_of_a_system_root_is_one_that_shutdown_leaves_alone() {
    if !can_mount() {
        return;
    }
    let world = world();
    let root = world.mount("root", &["--follow", "--system-root"]);
    let pid = world.json(&["mount"])[0]["pid"].as_u64().unwrap();
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(arguments.starts_with(b"@cairn\0"), "{}", arguments.escape_ascii());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    let locked: u64 = locked.trim().trim_end_matches(" kB").parse().unwrap();
    // The program itself and all that it has loaded.
    assert!(locked > 4 << 10, "{locked} KiB are locked");
    assert!(root.path.join("usr/bin/one").exists());
    // Nothing that the process has open lies on the mount that it serves.
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let open = fs::read_link(entry.unwrap().path()).unwrap();
        assert!(!open.starts_with(&root.path), "{}", open.display());
    }
    // One that has the name already is not started once more.
    fs::create_dir(world.path().join("other")).unwrap();
    let mut command = world.command(&["mount", "--follow", "--system-root", "other"]);
    assert!(command.arg0("@mine").status().unwrap().success());
    let mounts = world.json(&["mount"]);
    let pid = mounts.as_array().unwrap().iter().map(|it| it["pid"].as_u64().unwrap()).max();
    let arguments = fs::read(format!("/proc/{}/cmdline", pid.unwrap())).unwrap();
    assert!(arguments.starts_with(b"@"), "{}", arguments.escape_ascii());
    world.data(&["umount", "other"]);
}

#[test]
fn the_units_are_what_systemd_takes() {
    let version = Command::new("systemd-analyze").arg("--version").output();
    if version.is_err() {
        let message = "there is no systemd-analyze (Debian: apt-get install systemd)";
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("SKIPPED: {message}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/systemd");
    let program = env!("CARGO_BIN_EXE_cairn");
    for (file, instance, kind) in [
        ("cairn-mount@.service", "cairn-mount@srv-root.service", "notify"),
        ("cairn-sysroot.service", "cairn-sysroot.service", "forking"),
    ] {
        let unit = fs::read_to_string(units.join(file)).unwrap();
        assert!(unit.contains(&format!("\nType={kind}\n")), "{file}");
        let path = directory.path().join(instance);
        fs::write(&path, unit.replace("/usr/bin/cairn", program)).unwrap();
        let mut verify = Command::new("systemd-analyze");
        let output = verify.args(["verify", "--man=no"]).arg(&path).output().unwrap();
        let complaint = text(&output.stderr);
        let ours: Vec<_> = complaint.lines().filter(|line| line.contains("cairn")).collect();
        assert!(output.status.success() && ours.is_empty(), "{file}: {complaint}");
    }
}
