//! Inside of a sandbox: its root is made, and programs run in it.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::confine::confine;
use super::request::{Base, Excerpt, Outcome, Reply, Request, Setup, read_line, write_line};
use crate::mount::options::Trust;
use crate::run::inside::{
    During, FILES, Failure, Result, devices, hand_over, make_directory, mount, put, report,
};
use crate::run::users::Users;
use crate::sys::{self, Forked};

/// Is the helper of a sandbox; the result is its exit code.
///
/// Its standard input is a socket to the process that wants the sandbox. A
/// process that is started for anything else has no business here: it ends at
/// once.
#[must_use]
pub fn inside() -> i32 {
    // After an error, whoever was to hear it has gone, or never was.
    begin().unwrap_or(2)
}

fn begin() -> io::Result<i32> {
    let socket: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let mut outside = UnixStream::from(socket);
    let setup: Setup = read_line(&mut outside)?;
    sys::end_with_parent()?;
    // It may have ended before this process could be bound to it.
    if std::os::unix::process::parent_id() != setup.parent {
        return Ok(1);
    }
    let users = Users::root_alone();
    match sys::clone_into_namespaces(users.is_some(), sys::Network::None) {
        Ok(Forked::Child) => sys::exit(init(&setup, users, outside)),
        Ok(Forked::Parent(init)) => {
            // Only init speaks from here on.
            drop(outside);
            sys::replace(0, File::open("/dev/null")?.as_fd())?;
            let status = sys::wait_for(init)?;
            Ok(ExitStatus::from_raw(status).code().unwrap_or(1))
        }
        Err(err) => {
            let step = "make namespaces, which the machine may forbid to ordinary users".into();
            let failure = Failure::Step(step, err.raw_os_error().unwrap_or(libc::EIO));
            report(&failure, &mut outside);
            Ok(1)
        }
    }
}

/// Is process 1 of the namespaces.
fn init(setup: &Setup, users: Option<Users>, mut outside: UnixStream) -> i32 {
    let prepared = prepare(setup, users, &mut outside).and_then(|layer| {
        // Only now, since the failures before are told in the place of this.
        sys::send_descriptor(&outside, layer.as_fd()).during(|| "hand over the layer".into())
    });
    if let Err(failure) = prepared {
        report(&failure, &mut outside);
        return 1;
    }
    while let Ok(request) = read_line::<Request>(&mut outside) {
        let (outcome, output) = match serve(setup, &request, &outside) {
            Ok(ended) => ended,
            Err(err) => (Outcome::NotStarted(err.raw_os_error().unwrap_or(libc::EIO)), Vec::new()),
        };
        let reply = Reply { outcome, len: output.len() };
        let said = write_line(&mut outside, &reply).and_then(|()| outside.write_all(&output));
        if said.is_err() {
            break;
        }
    }
    0
}

/// Does what is asked for in a process of its own, and ends whatever that leaves.
fn serve(setup: &Setup, request: &Request, outside: &UnixStream) -> io::Result<(Outcome, Vec<u8>)> {
    let (output, output_of_child) = io::pipe()?;
    let (mut trouble, mut trouble_of_child) = io::pipe()?;
    let child = match sys::fork()? {
        Forked::Parent(child) => child,
        Forked::Child => {
            let attempt = || {
                sys::new_session()?;
                sys::replace(0, File::open("/dev/null")?.as_fd())?;
                sys::replace(1, output_of_child.as_fd())?;
                sys::replace(2, output_of_child.as_fd())?;
                confine()?;
                perform(setup, request)
            };
            let errno = match attempt() {
                Ok(()) => sys::exit(0),
                Err(err) => err.raw_os_error().unwrap_or(libc::EIO),
            };
            // If it is not heard, the exit code tells of the failure.
            let _ = trouble_of_child.write_all(&errno.to_ne_bytes());
            sys::exit(127)
        }
    };
    drop((output_of_child, trouble_of_child));
    let mut excerpt = Excerpt::default();
    let is_in_time = watch(child, &output, outside, setup, &mut excerpt)?;
    // Whatever it has left behind has no business any more.
    sys::kill(-1, libc::SIGKILL).or_else(|err| match err.raw_os_error() {
        Some(libc::ESRCH) => Ok(()),
        _ => Err(err),
    })?;
    let mut code = None;
    loop {
        match sys::wait_for_any() {
            Ok((ended, status)) if ended == child => code = Some(status),
            Ok(_) => {}
            Err(err) if err.raw_os_error() == Some(libc::ECHILD) => break,
            Err(err) => return Err(err),
        }
    }
    // Nobody is left who could write.
    let mut rest = Vec::new();
    let mut output = output;
    let mut buf = vec![0; 64 << 10];
    loop {
        match output.read(&mut buf)? {
            0 => break,
            len => excerpt.push(&buf[..len]),
        }
    }
    trouble.read_to_end(&mut rest)?;
    let outcome = match (rest.first_chunk(), code) {
        _ if !is_in_time => Outcome::TimedOut,
        (Some(errno), _) => Outcome::NotStarted(i32::from_ne_bytes(*errno)),
        (None, Some(status)) => {
            let status = ExitStatus::from_raw(status);
            match (status.code(), status.signal()) {
                (Some(code), _) => Outcome::Exited(code),
                (None, signal) => Outcome::Killed(signal.unwrap_or(libc::SIGKILL)),
            }
        }
        (None, None) => Outcome::Killed(libc::SIGKILL),
    };
    Ok((outcome, excerpt.finish()))
}

/// Reads what a child writes until it has ended, or its time has; returns whether
/// it has ended in time.
fn watch(
    child: libc::pid_t,
    output: &PipeReader,
    outside: &UnixStream,
    setup: &Setup,
    excerpt: &mut Excerpt,
) -> io::Result<bool> {
    let pid = Pid::from_raw(child).ok_or(io::ErrorKind::InvalidInput)?;
    let child = pidfd_open(pid, PidfdFlags::empty())?;
    let begun = Instant::now();
    let mut buf = vec![0; 64 << 10];
    let mut is_open = true;
    loop {
        let Some(left) = setup.time.checked_sub(begun.elapsed()) else { return Ok(false) };
        let wanted = if is_open { PollFlags::IN } else { PollFlags::empty() };
        let mut polled = [
            PollFd::new(&child, PollFlags::IN),
            PollFd::new(outside, PollFlags::empty()),
            PollFd::new(output, wanted),
        ];
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut polled, Some(&left)) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        let [has_ended, is_alone, can_read] = polled.map(|polled| polled.revents());
        if is_alone.intersects(PollFlags::HUP | PollFlags::ERR) {
            // Nobody waits for it any more: all processes in here end with this one.
            sys::exit(1);
        }
        if is_open && can_read.intersects(PollFlags::IN | PollFlags::HUP) {
            match (&*output).read(&mut buf)? {
                0 => is_open = false,
                len => excerpt.push(&buf[..len]),
            }
            continue;
        }
        if has_ended.contains(PollFlags::IN) {
            return Ok(true);
        }
        if !is_open && has_ended.is_empty() && can_read.contains(PollFlags::HUP) {
            // The pipe says so each time: wait for the child alone.
            let mut polled =
                [PollFd::new(&child, PollFlags::IN), PollFd::new(outside, PollFlags::empty())];
            match poll(&mut polled, Some(&left)) {
                Err(rustix::io::Errno::INTR) => {}
                result => drop(result?),
            }
        }
    }
}

/// Becomes the program, or does what needs none.
fn perform(setup: &Setup, request: &Request) -> io::Result<()> {
    match request {
        Request::Run(words) => {
            let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
            let environment = setup.environment.iter().map(|(name, value)| (name, value));
            let mut command = Command::new(program);
            command.args(arguments).env_clear().envs(environment);
            command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
            Err(command.exec())
        }
        Request::Delete(path) => {
            let removed = match fs::symlink_metadata(path) {
                Ok(data) if data.is_dir() => fs::remove_dir_all(path),
                Ok(_) => fs::remove_file(path),
                Err(err) => Err(err),
            };
            match removed {
                Err(err) if err.kind() != io::ErrorKind::NotFound => {
                    // It goes where the output of a program goes.
                    let _ = writeln!(io::stderr(), "cannot delete {path}: {err}");
                    sys::exit(1)
                }
                _ => Ok(()),
            }
        }
    }
}

/// Makes the root; returns the directory that takes what is written.
fn prepare(setup: &Setup, users: Option<Users>, outside: &mut UnixStream) -> Result<OwnedFd> {
    sys::end_with_parent().during(|| "bind the end of one process to another".into())?;
    sys::close_all_but_standard(outside).during(|| "close what it was given".into())?;
    let is_root = users.is_none();
    users.map_or(Ok(()), Users::map)?;
    // Whoever runs out of memory in here goes before anything else of the machine.
    fs::write("/proc/self/oom_score_adj", "1000").during(|| "offer itself to be ended".into())?;
    // Nothing that is mounted from here on is seen outside.
    mount("none", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")?;
    let root = Path::new("root");
    let base = match &setup.base {
        Base::Directory(directory) => {
            // Before the stage is mounted over, which may hold it.
            Some(File::open(directory).during(|| format!("open {}", directory.display()))?)
        }
        Base::Tree => None,
    };
    mount("tmpfs", &setup.stage, "tmpfs", 0, &format!("mode=755,size={}", setup.space))?;
    std::env::set_current_dir(&setup.stage)
        .during(|| format!("change to {}", setup.stage.display()))?;
    make_directory(root, 0o755)?;
    let layer = match base {
        None => {
            let state = Path::new("state");
            make_directory(state, 0o755)?;
            hand_over(state, &setup.name, Trust::Inspect, outside)?;
            let upper = layer_above(state, root, !is_root)?;
            check_mount_points(root)?;
            cover_etc(state, root)?;
            let parts = |name: &str| root.join(name);
            mount("tmpfs", &parts("run"), "tmpfs", HIDDEN, "mode=755")?;
            upper
        }
        Some(directory) => {
            let source = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
            let flags = libc::MS_BIND | libc::MS_REC;
            sys::mount(source.as_os_str(), root, "", flags, OsStr::new(""))
                .during(|| "bind the root".into())?;
            check_mount_points(root)?;
            directory
        }
    };
    furnish(root, setup, is_root)?;
    std::env::set_current_dir(root).during(|| "change to the root".into())?;
    // Puts the old root on top of the new one, where it is then taken away.
    sys::pivot_root(Path::new("."), Path::new(".")).during(|| "change the root".into())?;
    sys::unmount(Path::new("."), libc::MNT_DETACH).during(|| "leave the old root".into())?;
    std::env::set_current_dir("/").during(|| "change to the new root".into())?;
    Ok(layer.into())
}

const HIDDEN: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;

fn check_mount_points(root: &Path) -> Result<()> {
    for name in ["dev", "etc", "proc", "run", "sys", "tmp"] {
        let is_directory = fs::symlink_metadata(root.join(name)).is_ok_and(|data| data.is_dir());
        if !is_directory {
            return Err(Failure::MountPoint(format!("/{name}")));
        }
    }
    Ok(())
}

/// Puts a layer in memory over the state; returns its directory.
fn layer_above(state: &Path, root: &Path, with_users: bool) -> Result<File> {
    let [upper, work] = ["upper", "work"].map(Path::new);
    make_directory(upper, 0o755)?;
    make_directory(work, 0o755)?;
    // The root of the overlay is what the root of the layer is.
    let of_state = fs::metadata(state).during(|| "look at the state".into())?;
    chown(upper, Some(of_state.uid()), Some(of_state.gid()))
        .and_then(|()| fs::set_permissions(upper, Permissions::from_mode(of_state.mode() & 0o7777)))
        .during(|| "prepare the layer".into())?;
    let marks = if with_users { ",userxattr" } else { "" };
    // Everything is to be whole in the layer: nothing that only refers to below.
    let options = format!(
        "lowerdir=state,upperdir=upper,workdir=work,redirect_dir=nofollow,metacopy=off,index=off{marks}"
    );
    mount("overlay", root, "overlay", HIDDEN, &options)?;
    File::open(upper).during(|| "open the layer".into())
}

/// Shows /etc of the state, completed from the defaults and with what a name
/// service needs; nobody can write there, since it belongs to the machine.
fn cover_etc(state: &Path, root: &Path) -> Result<()> {
    let needed = Path::new("etc");
    make_directory(needed, 0o755)?;
    for (name, content) in FILES {
        put(&needed.join(name), content.as_bytes())?;
    }
    let layers = ["etc", "usr/share/defaults/etc"].map(|name| state.join(name));
    let mut layers: Vec<String> = layers
        .iter()
        .filter(|layer| fs::symlink_metadata(layer).is_ok_and(|data| data.is_dir()))
        .map(|layer| layer.display().to_string())
        .collect();
    layers.push("etc".into());
    let options = format!("lowerdir={}", layers.join(":"));
    mount("overlay", &root.join("etc"), "overlay", HIDDEN | libc::MS_RDONLY, &options)
}

/// Puts on the directories of the root what a program expects there.
fn furnish(root: &Path, setup: &Setup, is_root: bool) -> Result<()> {
    let [proc, sys] = ["proc", "sys"].map(|name| root.join(name));
    mount("proc", &proc, "proc", HIDDEN | libc::MS_NOEXEC, "")?;
    limit_processes(&proc, setup.processes);
    // What is in there besides processes are the switches of the machine.
    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | libc::MS_NOEXEC | HIDDEN;
    mount("none", &proc, "", flags, "")?;
    // For users, the kernel does not let the mounts below be left behind.
    let bind = if is_root { libc::MS_BIND } else { libc::MS_BIND | libc::MS_REC };
    mount("/sys", &sys, "", bind, "")?;
    sys::make_read_only(&sys).during(|| "make /sys read-only".into())?;
    mount("tmpfs", &root.join("tmp"), "tmpfs", HIDDEN, &format!("mode=1777,size={}", setup.space))?;
    devices(&root.join("dev"), &["full", "null", "random", "urandom", "zero"])
}

/// Limits the processes in these namespaces, where that does not limit those of
/// the machine: since Linux 6.14 each namespace has a number of its own.
fn limit_processes(proc: &Path, limit: u32) {
    let release = fs::read_to_string(proc.join("sys/kernel/osrelease")).unwrap_or_default();
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map(str::parse::<u32>);
    if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next())
        && (major, minor) >= (6, 14)
    {
        // Without it the time limit is what ends them.
        let _ = fs::write(proc.join("sys/kernel/pid_max"), limit.to_string());
    }
}
