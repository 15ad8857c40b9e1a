//! What happens inside the namespaces of a program: init, and the root that it
//! makes.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_store::workspace::LayerMarks;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::layer::overlay::Layers;
use crate::mount::attach;
use crate::mount::options::Trust;
use crate::mount::restrictions::Restrictions;
use crate::run::users::Users;
use crate::run::{Bind, GO, Program};
use crate::sys::{self, Forked, HeldSignals, Network};

/// Why a program could not be started, as it is told to the process outside.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// The state has no such directory.
    MountPoint(String),
    /// What could not be done, and its errno.
    Step(String, i32),
    /// The program could not be executed.
    Execute(i32),
}

impl Failure {
    /// The error for who wanted `program` to run.
    pub(crate) fn into_error(self, program: &OsStr) -> Error {
        let os = io::Error::from_raw_os_error;
        match self {
            Self::MountPoint(path) => Error::NoMountPoint { path: path.into() },
            Self::Step(step, errno) => Error::Enter { step, source: os(errno) },
            Self::Execute(errno) => Error::Execute { program: program.into(), source: os(errno) },
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Names the step that failed.
pub(crate) trait During<T> {
    fn during(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|err| Failure::Step(step(), err.raw_os_error().unwrap_or(libc::EIO)))
    }
}

/// How all of the root can be changed.
#[derive(Clone, Debug)]
pub(crate) struct Writable {
    /// The directory with the upper layer; none for one in memory.
    pub(crate) layer: Option<PathBuf>,
    pub(crate) marks: LayerMarks,
}

/// Is process 1 of the namespaces; the result is its exit code.
pub(crate) fn init(
    program: &Program,
    writable: Option<&Writable>,
    users: Option<Users>,
    mut outside: UnixStream,
    signals: &HeldSignals,
) -> i32 {
    match prepare(program, writable, users, &mut outside)
        .and_then(|()| start(program, &mut outside, signals))
    {
        Ok(child) => {
            // When the program has begun to run, nobody has the other end.
            drop(outside);
            wait_for_end(child, signals).unwrap_or(1)
        }
        Err(failure) => {
            report(&failure, &mut outside);
            1
        }
    }
}

pub(crate) fn report(failure: &Failure, outside: &mut UnixStream) {
    // Who waits for the mount takes the first byte for what goes with it.
    let mut text = vec![b'\n'];
    text.extend(serde_json::to_vec(failure).unwrap_or_default());
    // If nobody hears it, nobody wants to know.
    let _ = outside.write_all(&text);
}

/// Starts the program.
fn start(
    program: &Program,
    outside: &mut UnixStream,
    signals: &HeldSignals,
) -> Result<libc::pid_t> {
    match sys::fork().during(|| "start a process".into())? {
        Forked::Parent(child) => Ok(child),
        Forked::Child => {
            signals.release();
            let error = Command::new(&program.program)
                .args(&program.arguments)
                .env_clear()
                .envs(program.environment.iter().map(|(name, value)| (name, value)))
                .current_dir(&program.directory)
                .exec();
            report(&Failure::Execute(error.raw_os_error().unwrap_or(libc::EIO)), outside);
            sys::exit(127)
        }
    }
}

/// Passes signals on to the program, and collects every process that nobody
/// else waits for, until the program has ended. All others end with init.
fn wait_for_end(program: libc::pid_t, signals: &HeldSignals) -> io::Result<i32> {
    loop {
        let signal = signals.wait()?;
        if signal.number != libc::SIGCHLD {
            if signal.is_from_process {
                sys::kill(program, signal.number)?;
            }
            continue;
        }
        while let Some(ended) = sys::next_ended(sys::ANY_CHILD)? {
            if ended.child == program {
                return Ok(ended.code);
            }
        }
    }
}

/// Makes the state the root directory of this process.
fn prepare(
    program: &Program,
    writable: Option<&Writable>,
    users: Option<Users>,
    outside: &mut UnixStream,
) -> Result<()> {
    sys::end_with_parent().during(|| "bind the end of one process to another".into())?;
    let is_root = users.is_none();
    users.map_or(Ok(()), Users::map)?;
    // Nothing that is mounted from here on is seen outside.
    mount("none", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")?;
    // The stage may hide where the layer lies, which has this name from here on.
    let workspace = match writable.and_then(|writable| writable.layer.as_ref()?.parent()) {
        Some(path) => Some(File::open(path).during(|| format!("open {}", path.display()))?),
        None => None,
    };
    let stage = &program.stage;
    mount("tmpfs", stage, "tmpfs", 0, "mode=755")?;
    // From here on paths are short and relative, as overlayfs likes them.
    std::env::set_current_dir(stage).during(|| format!("change to {}", stage.display()))?;
    let state = Path::new("state");
    make_directory(state, 0o755)?;
    // Setuid programs work as in the system itself: the kernel heeds them only
    // in these namespaces.
    hand_over(state, &program.name, Trust::System, outside)?;
    let root = match writable {
        None => {
            // The defaults shine through where /etc has nothing.
            check_mount_points(state)?;
            cover(state, "etc", &["etc", "usr/share/defaults/etc"])?;
            cover(state, "var", &["var"])?;
            furnish(state, is_root)?;
            complete(state)?;
            state
        }
        Some(writable) => {
            let root = overlay(state, writable, workspace.as_ref(), &program.name)?;
            check_mount_points(root)?;
            furnish(root, is_root)?;
            root
        }
    };
    if program.network == Network::None {
        sys::bring_up_loopback().during(|| "bring up the loopback interface".into())?;
    }
    program.binds.iter().try_for_each(|it| bind(root, it))?;
    std::env::set_current_dir(root).during(|| "change to the state".into())?;
    // Puts the old root on top of the new one, where it is then taken away.
    sys::pivot_root(Path::new("."), Path::new(".")).during(|| "change the root".into())?;
    sys::unmount(Path::new("."), libc::MNT_DETACH).during(|| "leave the old root".into())?;
    std::env::set_current_dir("/").during(|| "change to the new root".into())
}

/// Mounts a connection on `state`, which the process outside gets to answer it, and
/// returns when that does.
pub(crate) fn hand_over(
    state: &Path,
    name: &str,
    trust: Trust,
    outside: &mut UnixStream,
) -> Result<()> {
    let restrictions = Restrictions::default().and(trust);
    let connection = attach::attach_as_root(state, name, restrictions);
    let connection = connection.map_err(|err| {
        let step = err.to_string();
        let (step, source) = match err {
            Error::NoFuse { source } => ("open /dev/fuse", source),
            Error::Mount { source, .. } | Error::Process { source } => ("mount it", source),
            _ => return Failure::Step(step, libc::EIO),
        };
        Failure::Step(step.into(), source.raw_os_error().unwrap_or(libc::EIO))
    })?;
    sys::send_descriptor(outside, connection.as_fd()).during(|| "hand over the mount".into())?;
    // As long as this process had it, the mount would outlive the other one.
    drop(connection);
    let mut answer = [0];
    match outside.read_exact(&mut answer) {
        Ok(()) if answer == [GO] => Ok(()),
        _ => sys::exit(1),
    }
}

/// How a state and what completes it are called where one mount shows both.
pub(crate) const STATE: &str = "state";
pub(crate) const BELOW: &str = "below";

/// Makes a root of the state, what completes it, and a layer above both.
fn overlay(
    state: &Path,
    writable: &Writable,
    workspace: Option<&File>,
    name: &str,
) -> Result<&'static Path> {
    let (layer, root) = (Path::new("layer"), Path::new("root"));
    make_directory(layer, 0o755)?;
    make_directory(root, 0o755)?;
    match (&writable.layer, workspace) {
        // Bound, so that its path may hold any character.
        (Some(path), Some(workspace)) => {
            let directory = format!("/proc/self/fd/{}", workspace.as_raw_fd());
            let source = Path::new(&directory).join(path.file_name().unwrap_or_default());
            sys::mount(source.as_os_str(), layer, "", libc::MS_BIND, OsStr::new(""))
                .during(|| format!("bind {}", path.display()))?;
        }
        _ => {
            let upper = layer.join("upper");
            make_directory(&upper, 0o755)?;
            make_directory(&layer.join("work"), 0o755)?;
            let like = fs::metadata(state.join(STATE)).during(|| "look at the state".into())?;
            chown(&upper, Some(like.uid()), Some(like.gid()))
                .and_then(|()| {
                    fs::set_permissions(&upper, Permissions::from_mode(like.mode() & 0o7777))
                })
                .during(|| "make the layer".into())?;
        }
    }
    let lower = [STATE, BELOW].map(|name| format!("{}/{name}", state.display()));
    let lower = lower.each_ref().map(String::as_str);
    let layers = Layers { lower: &lower, layer: "layer", marks: writable.marks };
    layers.mount_here(name, root, Trust::System).during(|| "mount the overlay".into())?;
    Ok(root)
}

fn check_mount_points(root: &Path) -> Result<()> {
    for name in ["dev", "etc", "proc", "run", "sys", "tmp", "var"] {
        if !root.join(name).is_dir() {
            return Err(Failure::MountPoint(format!("/{name}")));
        }
    }
    Ok(())
}

/// Mounts on the directories of a root what a running program expects there.
fn furnish(root: &Path, is_root: bool) -> Result<()> {
    let hidden = libc::MS_NOSUID | libc::MS_NODEV;
    mount("proc", &root.join("proc"), "proc", hidden | libc::MS_NOEXEC, "")?;
    let sys = root.join("sys");
    mount("/sys", &sys, "", libc::MS_BIND | libc::MS_REC, "")?;
    sys::make_read_only(&sys).during(|| "make /sys read-only".into())?;
    mount("tmpfs", &root.join("tmp"), "tmpfs", hidden, "mode=1777")?;
    mount("tmpfs", &root.join("run"), "tmpfs", hidden, "mode=755")?;
    devices_and_terminals(&root.join("dev"), is_root)
}

/// Puts into /etc and /var, which are in memory, what programs expect there.
fn complete(root: &Path) -> Result<()> {
    make_directory(&root.join("var/tmp"), 0o1777)?;
    for (name, content) in FILES {
        put(&root.join("etc").join(name), content.as_bytes())?;
    }
    let resolver = fs::read("/etc/resolv.conf").unwrap_or_default();
    put(&root.join("etc/resolv.conf"), &resolver)
}

/// What name services need, where the state says nothing else.
pub(crate) const FILES: [(&str, &str); 4] = [
    (
        "passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
];

/// Makes a directory of the root writable, in memory, above `layers` of it.
fn cover(root: &Path, name: &str, layers: &[&str]) -> Result<()> {
    let (upper, work) = (format!("{name}-upper"), format!("{name}-work"));
    make_directory(Path::new(&upper), 0o755)?;
    make_directory(Path::new(&work), 0o755)?;
    let layers = layers.iter().map(|layer| root.join(layer)).filter(|layer| layer.is_dir());
    let layers: Vec<_> = layers.map(|layer| layer.display().to_string()).collect();
    let options =
        format!("lowerdir={},upperdir={upper},workdir={work},userxattr", layers.join(":"));
    mount("overlay", &root.join(name), "overlay", libc::MS_NOSUID | libc::MS_NODEV, &options)
}

/// Shows a directory or file of the machine inside the root.
fn bind(root: &Path, Bind { from, to, writable }: &Bind) -> Result<()> {
    let target = root.join(to.strip_prefix("/").unwrap_or(to));
    // A link would lead out of the root.
    let is_there = fs::symlink_metadata(&target).is_ok_and(|it| !it.is_symlink());
    if !is_there {
        return Err(Failure::MountPoint(to.display().to_string()));
    }
    sys::mount(from.as_os_str(), &target, "", libc::MS_BIND | libc::MS_REC, OsStr::new(""))
        .during(|| format!("bind {} to {}", from.display(), to.display()))?;
    if !writable {
        sys::make_read_only(&target).during(|| format!("make {} read-only", to.display()))?;
    }
    Ok(())
}

/// Makes the devices that every program may use, and terminals.
fn devices_and_terminals(dev: &Path, is_root: bool) -> Result<()> {
    devices(dev, &["full", "null", "random", "tty", "urandom", "zero"])?;
    symlink("pts/ptmx", dev.join("ptmx")).during(|| "make /dev/ptmx".into())?;
    make_directory(&dev.join("pts"), 0o755)?;
    // The group of terminals exists only where all groups do.
    let group = if is_root { ",gid=5" } else { "" };
    let options = format!("newinstance,ptmxmode=0666,mode=620{group}");
    mount("devpts", &dev.join("pts"), "devpts", libc::MS_NOSUID | libc::MS_NOEXEC, &options)
}

/// Makes these devices of the machine, and what else is in every /dev.
pub(crate) fn devices(dev: &Path, names: &[&str]) -> Result<()> {
    mount("tmpfs", dev, "tmpfs", libc::MS_NOSUID, "mode=755")?;
    for name in names {
        let (outside, inside) = (Path::new("/dev").join(name), dev.join(name));
        fs::write(&inside, "").during(|| format!("make /dev/{name}"))?;
        sys::mount(outside.as_os_str(), &inside, "", libc::MS_BIND, OsStr::new(""))
            .during(|| format!("bind /dev/{name}"))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, dev.join(name)).during(|| format!("make /dev/{name}"))?;
    }
    make_directory(&dev.join("shm"), 0o1777)?;
    let hidden = libc::MS_NOSUID | libc::MS_NODEV;
    mount("tmpfs", &dev.join("shm"), "tmpfs", hidden, "mode=1777")
}

/// Writes a file that is not there yet.
pub(crate) fn put(path: &Path, content: &[u8]) -> Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    fs::write(path, content).during(|| format!("write {}", path.display()))
}

pub(crate) fn mount(
    source: &str,
    target: &Path,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> Result<()> {
    sys::mount(OsStr::new(source), target, kind, flags, OsStr::new(data)).during(|| {
        let what = if kind.is_empty() { source } else { kind };
        format!("mount {what} on {}", target.display())
    })
}

/// Makes a directory with this mode, or gives it to the one that is there.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<()> {
    let made = match fs::create_dir(path) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    };
    made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .during(|| format!("make {}", path.display()))
}
