//! Programs in a sandbox: what they write, and what they must not reach.
//!
//! The tests start this program again with `helper` to be a sandbox's own.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cairn_fs::sandbox::{Ended, Limits, Outcome, Sandbox, SandboxOptions, inside};
use cairn_fs::{Error, Journal, Layer};
use cairn_store::host::{HostDirectory, ScanOptions, scan_opened};
use cairn_store::{TreeId, TreePath, resolve};
use support::{Directory, Lab, file, put};

const TESTS: &[(&str, fn())] = &[
    ("what_programs_write_is_in_the_layer_and_nowhere_else", layer),
    ("a_program_has_what_it_needs_and_no_more", surroundings),
    ("how_a_program_ended_is_told", endings),
    ("attacks_reach_nothing", attacks),
    ("what_takes_too_much_is_ended", excesses),
    ("why_there_is_no_sandbox_is_told", none),
    ("what_is_written_in_a_directory_stays", directory),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["helper"] {
        std::process::exit(inside());
    }
    support::run(TESTS, &arguments)
}

fn root() -> Directory {
    let mut root = Directory::new();
    let programs = [
        "bash", "cat", "chmod", "chown", "dd", "head", "id", "kill", "ln", "ls", "mkdir", "mknod",
        "mount", "mv", "nsenter", "rm", "setsid", "sh", "sleep", "touch", "unshare", "yes",
    ];
    support::with_programs(&mut root, &programs);
    support::with_skeleton(&mut root);
    put(&mut root, "usr/share/a/old", file("old"));
    put(&mut root, "usr/share/a/gone", file("gone"));
    put(&mut root, "usr/share/b/x/y", file("y"));
    put(&mut root, "usr/share/defaults/etc/from-defaults", file("default"));
    root
}

fn options(lab: &Lab) -> SandboxOptions {
    let helper = vec![std::env::current_exe().unwrap().into(), "helper".into()];
    SandboxOptions {
        helper,
        stage: lab.target(),
        name: "test".into(),
        environment: vec![("PATH".into(), "/usr/bin:/usr/sbin".into())],
        limits: Limits { time: Duration::from_secs(20), space: 64 << 20, processes: 512 },
    }
}

fn journal() -> Journal {
    Arc::new(|event| eprintln!("unexpected event: {event}"))
}

fn sandbox_with(lab: &Lab, limits: Limits) -> Sandbox {
    let options = SandboxOptions { limits, ..options(lab) };
    let state = lab.store.current().unwrap().id;
    Sandbox::of_tree(lab.store.clone(), state, &options, journal()).unwrap()
}

fn lab() -> Lab {
    let lab = Lab::default();
    lab.commit(&root());
    lab
}

fn sandbox(lab: &Lab) -> Sandbox {
    sandbox_with(lab, options(lab).limits)
}

fn sh(sandbox: &mut Sandbox, script: &str) -> Ended {
    sandbox.run(&["/usr/bin/sh".into(), "-c".into(), script.into()]).unwrap()
}

fn text(ended: &Ended) -> String {
    String::from_utf8_lossy(&ended.output).into_owned()
}

/// What a script prints, which has to succeed.
fn says(sandbox: &mut Sandbox, script: &str) -> String {
    let ended = sh(sandbox, script);
    assert!(ended.outcome.is_success(), "{script}: {:?} {}", ended.outcome, text(&ended));
    text(&ended)
}

/// The state with what was written over it.
fn result(lab: &Lab, sandbox: &Sandbox) -> (cairn_store::Transaction, TreeId) {
    let mut transaction = lab.store.begin().unwrap();
    let directory = HostDirectory::from(sandbox.layer().unwrap());
    let options = ScanOptions::default();
    let scan = scan_opened(directory, "layer".into(), &options, &()).unwrap();
    let below = lab.store.current().unwrap().tree;
    let mut layer = Layer::of(scan, sandbox.layer_rules(), &transaction, &[below]).unwrap();
    layer.scan.take_in(&mut transaction, &()).unwrap();
    let tree = layer.put(&mut transaction, below).unwrap();
    (transaction, tree)
}

fn layer() {
    let lab = lab();
    let before = lab.store.current().unwrap().tree;
    let mut sandbox = sandbox(&lab);
    says(
        &mut sandbox,
        "cd /usr/share && echo new >a/new && rm a/gone && mkdir -p c/d && ln -s x c/link && \
         chmod 4755 a/old && rm -r b && mkdir b && echo z >b/z && touch /var/x && echo t >/tmp/t && \
         echo r >/run/r && touch usr-less",
    );
    assert!(sandbox.delete("/usr/share/usr-less").unwrap().outcome.is_success());
    assert!(sandbox.delete("/usr/share/never/was").unwrap().outcome.is_success());
    assert!(!sandbox.delete("/proc/1").unwrap().outcome.is_success());
    let (transaction, tree) = result(&lab, &sandbox);
    let entry =
        |path: &str| resolve(&transaction, tree, &TreePath::new(path.as_bytes()).unwrap()).unwrap();
    for path in ["usr/share/a/new", "usr/share/c/d", "usr/share/c/link", "usr/share/b/z", "var/x"] {
        assert!(entry(path).is_some(), "{path}");
    }
    for path in
        ["usr/share/a/gone", "usr/share/b/x", "tmp/t", "run/r", "usr/share/usr-less", "etc/passwd"]
    {
        assert!(entry(path).is_none(), "{path}");
    }
    let old = entry("usr/share/a/old").unwrap();
    assert_eq!(old.as_leaf().unwrap().attributes.mode, 0o4755);
    drop(sandbox);
    assert_eq!(lab.store.current().unwrap().tree, before);
    // Nothing of it is left on the machine.
    assert_eq!(fs::read_dir(lab.target()).unwrap().count(), 0);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&lab.target().display().to_string()));
}

fn surroundings() {
    let lab = lab();
    let mut sandbox = sandbox(&lab);
    let said = says(
        &mut sandbox,
        "pwd; id -u; cat /etc/from-defaults; head -n 1 /etc/passwd; echo; ls /dev; cat </dev/null; \
         echo gone >/dev/null; echo $PATH; echo ${HOME-none}; ls /tmp /run; ls /proc | head -n 1",
    );
    let expected = "/\n0\ndefaultroot:x:0:0:root:/root:/bin/sh\n\nfd\nfull\nnull\nrandom\nshm\n\
                    stderr\nstdin\nstdout\nurandom\nzero\n/usr/bin:/usr/sbin\nnone\n/run:\n\n/tmp:\n1\n";
    assert_eq!(said, expected);
    // One after the other, in the same root.
    says(&mut sandbox, "echo one >/usr/share/one");
    assert_eq!(says(&mut sandbox, "cat /usr/share/one"), "one\n");
}

fn endings() {
    let lab = lab();
    let mut sandbox = sandbox(&lab);
    let ended = sh(&mut sandbox, "echo to output; echo to error >&2; exit 7");
    assert_eq!(
        (ended.outcome, text(&ended).as_str()),
        (Outcome::Exited(7), "to output\nto error\n")
    );
    assert_eq!(sh(&mut sandbox, "kill -9 $$").outcome, Outcome::Killed(libc::SIGKILL));
    let missing = sandbox.run(&["/usr/bin/missing".into()]).unwrap();
    assert_eq!(missing.outcome, Outcome::NotStarted(libc::ENOENT));
    assert_eq!(sandbox.run(&["/etc".into()]).unwrap().outcome, Outcome::NotStarted(libc::EACCES));
    assert!(sandbox.run(&["sh".into(), "-c".into(), "true".into()]).unwrap().outcome.is_success());
    let much = sh(&mut sandbox, "yes | head -c 30000000; echo end");
    assert!(much.outcome.is_success() && much.output.len() < 80_000);
    assert!(text(&much).ends_with("y\nend\n") && text(&much).contains("[...]"));
}

/// Each has to fail, or to have no effect that could be seen outside.
fn attacks() {
    let lab = lab();
    let secret = lab.temporary.path().join("secret");
    fs::write(&secret, "of the machine").unwrap();
    let mut victim = std::process::Command::new("sleep").arg("300").spawn().unwrap();
    let pid_max = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut sandbox = sandbox(&lab);
    let refused = [
        // Outside of the root, and what belongs to the machine.
        format!("cat {}", secret.display()),
        format!("cat /proc/1/root{}", secret.display()),
        "ls /proc/1/fd/0".into(),
        "cat /etc/shadow".into(),
        "echo x >/etc/passwd".into(),
        "rm /etc/from-defaults".into(),
        "echo 1 >/proc/sys/kernel/pid_max".into(),
        "echo x >/proc/sys/kernel/core_pattern".into(),
        "echo b >/proc/sysrq-trigger".into(),
        "echo x >/sys/kernel/uevent_helper".into(),
        "ls /sys/kernel/debug/x /sys/fs/cgroup/cgroup.procs".into(),
        // Mounts, namespaces, devices.
        "mount -t tmpfs none /usr".into(),
        "mount -o remount,rw /proc".into(),
        "unshare -U true".into(),
        "unshare -m true".into(),
        "unshare -r mount -t tmpfs none /usr".into(),
        "nsenter -t 1 -m true".into(),
        "mknod /usr/share/disk b 8 0".into(),
        "mknod /usr/share/kmem c 1 2".into(),
        "mknod /usr/share/whiteout c 0 0".into(),
        // Others.
        format!("kill -9 {}", victim.id()),
        "kill -9 1; kill -0 1 && exit 1".into(),
    ];
    for script in &refused {
        let ended = sh(&mut sandbox, script);
        assert!(!ended.outcome.is_success(), "{script} succeeds: {}", text(&ended));
    }
    // The network: nothing but an interface that is down.
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    let ended = sandbox.run(&["/usr/bin/bash".into(), "-c".into(), connect]);
    assert!(!ended.unwrap().outcome.is_success());
    assert!(listener.set_nonblocking(true).is_ok() && listener.accept().is_err());
    // What is started in the background ends with who has started it.
    says(&mut sandbox, "setsid sleep 297 >/dev/null 2>&1 & setsid sh -c 'sleep 297' & true");
    let running = says(&mut sandbox, "cat /proc/[0-9]*/cmdline");
    assert!(running.contains("cmdline") && !running.contains("297"), "{running:?}");
    drop(sandbox);
    assert!(victim.try_wait().unwrap().is_none(), "it goes on");
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(fs::read_to_string("/proc/sys/kernel/pid_max").unwrap(), pid_max);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "of the machine");
    assert!(Path::new("/etc/passwd").exists());
}

fn excesses() {
    let lab = lab();
    let limits = Limits { time: Duration::from_secs(2), space: 8 << 20, processes: 400 };
    let mut sandbox = sandbox_with(&lab, limits);
    assert_eq!(sh(&mut sandbox, "while true; do :; done").outcome, Outcome::TimedOut);
    assert_eq!(sh(&mut sandbox, "echo first; sleep 300").output, b"first\n");
    let full = sh(&mut sandbox, "dd if=/dev/zero of=/usr/share/big bs=1M count=100 2>&1");
    assert!(!full.outcome.is_success() && text(&full).contains("No space left"), "{}", text(&full));
    says(&mut sandbox, "rm -f /usr/share/big");
    // Each starts two, and so on.
    let bomb = sh(&mut sandbox, "f() { f & f & }; f; sleep 300");
    assert!(!bomb.outcome.is_success());
    // The sandbox works on.
    assert_eq!(says(&mut sandbox, "echo well"), "well\n");
}

fn none() {
    let lab = Lab::default();
    let mut without_etc = root();
    without_etc.remove(&b"etc"[..]);
    lab.commit(&without_etc);
    let state = lab.store.current().unwrap().id;
    let start = |options: &SandboxOptions| {
        Sandbox::of_tree(lab.store.clone(), state, options, journal()).map(drop)
    };
    let error = start(&options(&lab)).unwrap_err();
    assert!(
        matches!(&error, Error::NoMountPoint { path } if path == Path::new("/etc")),
        "{error:?}"
    );
    let nowhere = SandboxOptions { stage: "/nowhere".into(), ..options(&lab) };
    assert!(matches!(start(&nowhere), Err(Error::Enter { .. })));
    let helpless = SandboxOptions { helper: vec!["/nowhere".into()], ..options(&lab) };
    assert!(matches!(start(&helpless), Err(Error::Process { .. })));
    let deaf = SandboxOptions { helper: vec!["true".into()], ..options(&lab) };
    assert!(matches!(start(&deaf), Err(Error::Process { .. })));
}

fn directory() {
    let lab = lab();
    let mount = lab.mount(cairn_fs::Shape::Follow);
    let etc = lab.temporary.path().join("machine-etc");
    fs::create_dir(&etc).unwrap();
    support::sys::bind(&etc, &lab.target().join("etc"));
    let stage = lab.temporary.path().join("stage");
    fs::create_dir(&stage).unwrap();
    let options = SandboxOptions { stage, ..options(&lab) };
    let mut sandbox = Sandbox::of_directory(lab.target(), &options).unwrap();
    says(&mut sandbox, "echo kept >/etc/written; cat /usr/share/a/old");
    assert!(!sh(&mut sandbox, "echo x >/usr/share/new").outcome.is_success());
    drop(sandbox);
    assert_eq!(fs::read_to_string(etc.join("written")).unwrap(), "kept\n");
    support::sys::unmount(&lab.target().join("etc"));
    drop(mount);
}
