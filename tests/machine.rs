//! A machine that is booted from a root of Cairn: kernel, initial file system, systemd.
//!
//! `make boot` runs it. The machine is an emulated one (qemu), so that it takes minutes and
//! needs no right but that to run programs.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cairn_tests::{Cairn, Mount, Need, Random, real, run};

/// What is asked for: a small system with systemd, and a kernel for virtual machines.
const PACKAGES: &[&str] = &[
    "bash",
    "coreutils",
    "grep",
    "less",
    "linux-image-cloud-amd64",
    "mawk",
    "mount",
    "nano",
    "procps",
    "sed",
    "systemd-sysv",
    "util-linux",
];

/// Modules of the kernel that the way to the store needs.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "ext4", "fuse"];

/// How long a machine may run.
const PATIENCE: Duration = Duration::from_secs(600);

/// The first program: goes to the store, has the chosen state mounted, and gives it the
/// machine.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
mount -t tmpfs none /run
mkdir -p /run/cairn/disk /sysroot
for module in $(cat /modules/order); do insmod /modules/$module; done
mount -t ext4 /dev/vda /run/cairn/disk
export CAIRN_STORE=/run/cairn/disk/store
cairn boot switch
cairn mount --system-root --follow --writable /var=/run/cairn/disk/var /sysroot
for place in dev proc sys run; do mount --move /$place /sysroot/$place; done
exec switch_root /sysroot /sbin/init </dev/console >/dev/console 2>&1
"#;

/// What the machine does when it has started. It is heard over the second serial port; the
/// first is the console, which is taken away from others when people can log in.
const WORK: &str = r#"#!/bin/bash
exec >/dev/ttyS1 2>&1
export CAIRN_STORE=/run/cairn/disk/store PATH=/run/cairn/disk:$PATH
say() { echo "CAIRN $*"; }
say root "$(findmnt -n -o FSTYPE /)" "state $(cat /etc/which)"
say failed "$(systemctl --failed --no-legend --plain | cut -d' ' -f1 | tr '\n' ' ')"
say stayed "$(cat /var/stays 2>/dev/null)"
work=$(sed -n 's/.*cairn.work=\([a-z]*\).*/\1/p' /proc/cmdline)
say work "$work"
case $work in
look) say nano "$(test -e /usr/bin/nano && echo there || echo gone)" ;;
live)
    echo here >/var/stays
    touch /usr/x 2>&1 | grep -q 'Read-only' && say read-only
    cairn switch 2 >/dev/null && say switched "$(cat /etc/which)"
    cairn switch 1 >/dev/null && say switched "$(cat /etc/which)"
    cairn --yes remove nano >/dev/null && say removed "$(test -e /usr/bin/nano || echo yes)"
    cairn rollback >/dev/null && say back "$(test -e /usr/bin/nano && echo yes)"
    # Nobody answers for the root for a moment, and then somebody does.
    process=$(cairn mount | sed -n 's|^/ .*process ||p')
    kill -9 "$process" && say killed
    for number in 1 2 3; do ls -lR /usr/share/doc >/dev/null || say 'cannot read'; done
    say found "$(ls /usr/bin | wc -l)"
    # As systemd does at shutdown, only that it is sure to need something meanwhile.
    process=$(cairn mount | sed -n 's|^/ .*process ||p')
    echo 3 >/proc/sys/vm/drop_caches
    kill -STOP "$process" && ls -lR /usr/lib >/dev/null && say resumed
    cairn verify >/dev/null && say verified
    ;;
units)
    unit=cairn-mount@var-watched
    asked() { systemctl show --value -p "$1" $unit; }
    mkdir /var/watched
    systemctl start $unit && say started "$(cat /var/watched/etc/which)" "$(asked ActiveState)"
    # Somebody reads while the process is killed, and systemd starts another one.
    (while :; do cat /var/watched/usr/bin/nano >/dev/null || echo failed; done) >/run/read 2>&1 &
    reader=$! process=$(asked MainPID) mount=$(findmnt -n -o ID /var/watched)
    kill -9 "$process"
    for number in $(seq 300); do
        test "$(asked ActiveState)" = active -a "$(asked MainPID)" != "$process" && break
        sleep 0.2
    done
    say restarted "$(asked NRestarts)" "$(asked ActiveState)"
    ls -lR /var/watched/usr/share/doc >/dev/null && say reads
    kill $reader
    say errors "$(wc -l </run/read)"
    test "$mount" = "$(findmnt -n -o ID /var/watched)" && say same mount
    systemctl stop $unit; findmnt /var/watched || say stopped "$(asked ActiveState)"
    systemctl start var-listed.mount && say listed "$(cat /var/listed/etc/which)"
    findmnt -n -o FSTYPE /var/listed
    systemctl stop var-listed.mount; findmnt /var/listed || say unmounted
    say failed "$(systemctl --failed --no-legend --plain | cut -d' ' -f1 | tr '\n' ' ')"
    cairn mount | grep -q /var/ || say nothing left
    ;;
install)
    # Until the machine is switched off; it may have been in the middle of the two.
    test -e /usr/bin/nano || cairn rollback >/dev/null || say failed to go back
    while :; do
        cairn --yes remove nano >/dev/null || say failed to remove
        cairn rollback >/dev/null || say failed to go back
        say round
    done
    ;;
esac
say done
systemctl poweroff
"#;

/// What is mounted when somebody starts it, as the machine's files say.
const MOUNTS: &str = r#"  /usr/bin/cairn:
    link: /run/cairn/disk/cairn
  /usr/sbin/mount.fuse.cairn:
    link: /run/cairn/disk/cairn
  /etc/systemd/system/cairn-mount@.service:
    source: mount.service
  /etc/cairn/mount/var-watched:
    content: "CAIRN_STORE=/run/cairn/disk/store\nCAIRN_MOUNT=--state 2\n"
  /etc/fstab:
    content: "/run/cairn/disk/store /var/listed fuse.cairn state=1,noauto 0 0\n"
"#;

const UNIT: &str = "[Unit]\nDescription=What a test wants to know\n\
    After=multi-user.target\n[Service]\nType=oneshot\nExecStart=/usr/local/bin/work\n";

/// A system of real packages in three states, its disk, and what starts it.
struct Machine {
    cairn: Cairn,
    esp: PathBuf,
    disk: PathBuf,
}

impl Machine {
    /// States 1 to 3 differ in /etc/which, and the third is current.
    fn new() -> Option<Self> {
        let programs = [
            Need::Fuse,
            Need::Program("qemu-system-x86_64", "qemu-system-x86"),
            Need::Program("cpio", "cpio"),
            Need::Program("depmod", "kmod"),
            Need::Program("busybox", "busybox-static"),
            Need::Program("mkfs.ext4", "e2fsprogs"),
        ];
        if !Need::all(&programs) {
            return None;
        }
        let debs = real::debs_for(PACKAGES, "machine")?;
        let cairn = Cairn::new();
        let stones = real::repository_of(&debs, "machine-stones");
        cairn.data(["repo", "add", "debian", &format!("file://{}", stones.display())]);
        let work = cairn.directory().join("work");
        fs::write(&work, WORK).unwrap();
        let unit =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/systemd/cairn-mount@.service");
        fs::copy(unit, cairn.directory().join("mount.service")).unwrap();
        for state in 1..=3 {
            let mut model = String::from("packages:\n");
            PACKAGES.iter().for_each(|name| model += &format!("  - {name}\n"));
            model += &format!(
                "files:\n  /etc/which:\n    content: \"{state}\\n\"\n\
                 \x20 /etc/hostname:\n    content: \"cairn\\n\"\n\
                 \x20 /etc/machine-id:\n    content: \"0123456789abcdef0123456789abcdef\\n\"\n\
                 \x20 /etc/passwd:\n    content: \"root:x:0:0:root:/root:/bin/bash\\n\"\n\
                 \x20 /etc/group:\n    content: \"root:x:0:\\ntty:x:5:\\n\"\n\
                 \x20 /usr/local/bin/work:\n    source: work\n    mode: \"0755\"\n\
                 \x20 /etc/systemd/system/work.service:\n    content: {UNIT:?}\n\
                 \x20 /etc/systemd/system/default.target.wants/work.service:\n\
                 \x20   link: ../work.service\n{MOUNTS}"
            );
            let path = cairn.directory().join("system.yaml");
            fs::write(&path, model).unwrap();
            cairn.data(["--yes", "apply", path.to_str().unwrap()]);
        }
        // The machine has no repository.
        cairn.data(["--yes", "repo", "remove", "debian"]);
        let esp = cairn.directory().join("esp");
        fs::create_dir(&esp).unwrap();
        let words = ["boot", "sync", "--cmdline", "console=ttyS0 quiet", "--esp"];
        cairn.data([&words[..], &[esp.to_str().unwrap()]].concat());
        let disk = cairn.directory().join("disk");
        let machine = Self { cairn, esp, disk };
        machine.make_disk();
        machine.make_initrd();
        Some(machine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cairn.directory().join(name)
    }

    /// A disk with the store, and the program for what the machine itself does.
    fn make_disk(&self) {
        let content = self.path("content");
        fs::create_dir(&content).unwrap();
        fs::create_dir(content.join("var")).unwrap();
        fs::copy(program(), content.join("cairn")).unwrap();
        run(Command::new("cp").arg("-a").arg(self.cairn.store()).arg(content.join("store")));
        let mut mkfs = Command::new("mkfs.ext4");
        run(mkfs.args(["-q", "-d"]).arg(&content).arg(&self.disk).arg("2G"));
    }

    /// Checks what the machine has left on its disk, with the program of this machine.
    fn check_disk(&self) {
        let away = self.path("away");
        fs::create_dir(&away).unwrap();
        let script = "mount -o loop \"$1\" \"$2\" && \"$3\" --store \"$2/store\" verify";
        let mut check = Command::new("unshare");
        check.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        run(check.arg(&self.disk).arg(&away).arg(self.cairn.program()));
    }

    /// The initial file system: busybox, the static program, and modules.
    fn make_initrd(&self) {
        let root = self.path("initrd.root");
        for place in ["bin", "dev", "proc", "sys", "run", "sysroot", "modules"] {
            fs::create_dir_all(root.join(place)).unwrap();
        }
        let busybox = ["/usr/bin/busybox", "/bin/busybox"].map(PathBuf::from);
        let busybox = busybox.iter().find(|path| path.exists()).unwrap();
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        fs::copy(program(), root.join("bin/cairn")).unwrap();
        symlink("busybox", root.join("bin/sh")).unwrap();
        fs::write(root.join("init"), INIT).unwrap();
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
        let tree = self.path("modules");
        fs::create_dir_all(tree.join("lib")).unwrap();
        let mount = Mount::new(&self.cairn, &["--follow"], "system");
        let modules = mount.path().join("usr/lib/modules");
        run(Command::new("cp").arg("-a").arg(&modules).arg(tree.join("lib")));
        let version = fs::read_dir(&modules).unwrap().next().unwrap().unwrap().file_name();
        let version = version.to_str().unwrap();
        mount.umount();
        run(Command::new("depmod").arg("-b").arg(&tree).arg(version));
        let mut order: Vec<String> = Vec::new();
        for module in MODULES {
            let mut modprobe = Command::new("modprobe");
            modprobe.arg("-d").arg(&tree).args(["-S", version, "--show-depends", module]);
            let output = modprobe.output().unwrap();
            assert!(output.status.success(), "{module}");
            for line in String::from_utf8(output.stdout).unwrap().lines() {
                let Some(path) = line.trim().strip_prefix("insmod ") else { continue };
                let name = Path::new(path).file_name().unwrap().to_str().unwrap().to_owned();
                if !order.contains(&name) {
                    fs::copy(path, root.join("modules").join(&name)).unwrap();
                    order.push(name);
                }
            }
        }
        fs::write(root.join("modules/order"), order.join("\n")).unwrap();
        let pack = "cd \"$1\" && find . | cpio --quiet -o -H newc >\"$2\"";
        run(Command::new("sh").args(["-c", pack, "sh"]).arg(&root).arg(self.path("initrd")));
    }

    /// Starts the machine with the entry whose name has `which`, to do `work`.
    fn start(&self, which: &str, work: &str) -> Started {
        let entries = fs::read_dir(self.esp.join("loader/entries")).unwrap();
        let names = entries.map(|entry| entry.unwrap().path());
        let entry = names.filter(|path| path.to_str().unwrap().contains(which));
        let text = fs::read_to_string(entry.into_iter().next().unwrap()).unwrap();
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        let kernel = self.esp.join(value("linux /"));
        let options = format!("{} panic=-1 cairn.work={work}", value("options "));
        let [console, log] = ["console", "serial"].map(|name| self.path(name));
        let _ = fs::remove_file(&log);
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-accel", "tcg", "-cpu", "max", "-m", "1024", "-nodefaults", "-no-reboot"]);
        qemu.args(["-display", "none"]);
        for port in [&console, &log] {
            qemu.arg("-serial").arg(format!("file:{}", port.display()));
        }
        qemu.arg("-drive");
        // What the machine has synced is on the disk of this one, if not further.
        qemu.arg(format!("file={},format=raw,if=virtio,cache=writethrough", self.disk.display()));
        qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(self.path("initrd"));
        qemu.args(["-append", &options]).stdin(Stdio::null());
        Started { process: qemu.spawn().unwrap(), console, log, begun: Instant::now() }
    }
}

/// A machine that runs; it is switched off at the end.
struct Started {
    process: Child,
    console: PathBuf,
    log: PathBuf,
    begun: Instant,
}

impl Started {
    /// What it has said of its work so far.
    fn said(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        let lines =
            text.lines().filter_map(|line| Some(line.strip_prefix("CAIRN ")?.trim().into()));
        lines.collect()
    }

    /// Waits until it has switched itself off; returns what it said.
    fn ended(mut self) -> Vec<String> {
        self.wait(|started| started.process.try_wait().unwrap().is_some());
        self.said()
    }

    fn wait(&mut self, mut until: impl FnMut(&mut Self) -> bool) {
        while !until(self) {
            if self.begun.elapsed() > PATIENCE {
                let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
                panic!("{}\n{}", text(&self.console), text(&self.log));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> PathBuf {
    let program = cairn_tests::target().join("static/cairn");
    assert!(program.exists(), "{} is missing: run `make static`", program.display());
    program
}

#[test]
#[ignore = "make boot builds the static program that it needs"]
fn a_machine_lives_in_a_root_of_cairn() {
    let Some(machine) = Machine::new() else { return };
    let said = machine.start("current", "live").ended();
    let console = fs::read_to_string(machine.path("console")).unwrap();
    assert!(!console.contains("Failed to remount"), "{console}");
    let expected = [
        "root fuse.cairn state 3",
        "failed",
        "stayed",
        "work live",
        "read-only",
        "switched 2",
        "switched 1",
        "removed yes",
        "back yes",
        "killed",
    ];
    assert_eq!(said[..expected.len()], expected, "{said:#?}");
    let rest: Vec<&str> = said[expected.len()..].iter().map(String::as_str).collect();
    assert!(
        matches!(rest[..], [found, "resumed", "verified", "done"] if found.starts_with("found ")),
        "{rest:?}"
    );

    // It went down in state 1, and comes up in that, or in what is chosen in the menu.
    let said = machine.start("current", "look").ended();
    assert_eq!(said[..3], ["root fuse.cairn state 1", "failed", "stayed here"], "{said:#?}");
    let said = machine.start("00000002", "look").ended();
    assert_eq!(said[0], "root fuse.cairn state 2", "{said:#?}");
    let said = machine.start("current", "look").ended();
    assert_eq!(said[0], "root fuse.cairn state 2", "what was chosen is current: {said:#?}");
    machine.check_disk();
}

#[test]
#[ignore = "make boot builds the static program that it needs"]
fn systemd_supervises_mounts_and_mounts_what_fstab_lists() {
    let Some(machine) = Machine::new() else { return };
    let said = machine.start("current", "units").ended();
    let expected = [
        "root fuse.cairn state 3",
        "failed",
        "stayed",
        "work units",
        "started 2 active",
        "restarted 1 active",
        "reads",
        "errors 0",
        "same mount",
        "stopped inactive",
        "listed 1",
        "unmounted",
        "failed",
        "nothing left",
        "done",
    ];
    assert_eq!(said, expected, "{}", fs::read_to_string(machine.path("serial")).unwrap());
}

#[test]
#[ignore = "make boot builds the static program that it needs"]
fn a_machine_that_is_switched_off_in_a_transaction_comes_up_with_one_state_or_the_other() {
    let Some(machine) = Machine::new() else { return };
    let mut random = Random(seed());
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..cuts() {
        let mut started = machine.start("current", "install");
        let more = 1 + random.below(3);
        started.wait(|it| it.said().iter().filter(|line| *line == "round").count() >= more);
        std::thread::sleep(Duration::from_millis(random.below(1500) as u64));
        let said = started.said();
        let log = || fs::read_to_string(machine.path("serial")).unwrap();
        assert!(!said.iter().any(|line| line.starts_with("failed to")), "{}", log());
        // As if somebody had pulled the plug.
        drop(started);
        let said = machine.start("current", "look").ended();
        assert_eq!(said[..4], ["root fuse.cairn state 3", "failed", "stayed", "work look"]);
        *found.entry(said[4].clone()).or_default() += 1;
        println!("switched off and on again: {found:?}");
    }
    machine.check_disk();
}

fn seed() -> u64 {
    number("BOOT_SEED", u64::from(std::process::id()))
}

/// How often the machine is switched off.
fn cuts() -> u64 {
    number("BOOT_CUTS", 3)
}

fn number(variable: &str, usual: u64) -> u64 {
    let number = std::env::var(variable).ok().map_or(usual, |text| text.parse().unwrap());
    eprintln!("{variable}={number}");
    number
}
