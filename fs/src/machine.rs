//! Whether this machine can do what mounting needs, and whether somebody answers for
//! the mounts that it has.
//!
//! Nothing here waits for a mount that hangs: a copy of the process asks it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::mount::mountinfo::MountPoint;
use crate::run::users::Users;
use crate::sys::{self, Forked, Network};

/// Where the kernel shows connections of FUSE, by the minor device number of what is
/// mounted (Documentation/filesystems/fuse/fuse.rst).
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// A mount of Cairn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MountHealth {
    /// Where it is.
    pub target: PathBuf,
    /// Whether somebody answers for it.
    pub condition: Condition,
    /// The number of its connection; none for an overlay.
    pub connection: Option<u32>,
}

/// Whether somebody answers for a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// It answers.
    Alive,
    /// Its process has ended; every call fails.
    Dead,
    /// No answer comes in time.
    Hanging,
}

/// Room on a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that can still be written.
    pub free: u64,
    /// Bytes that it has.
    pub total: u64,
    /// Whether files can still be made.
    pub has_inodes: bool,
}

/// Whether /dev/fuse is there and can be opened.
///
/// # Errors
/// Why not.
pub fn fuse_device() -> io::Result<()> {
    File::options().read(true).write(true).open("/dev/fuse").map(drop)
}

/// Whether the kernel can show overlays, which workspaces are: `false` where its module
/// has to be loaded first.
pub fn knows_overlays() -> io::Result<bool> {
    let known = fs::read_to_string("/proc/filesystems")?;
    Ok(known.lines().any(|line| line.split_whitespace().last() == Some("overlay")))
}

/// Major and minor version of the kernel.
pub fn kernel() -> io::Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    parse_release(&release).ok_or_else(|| io::Error::other(format!("it is called {release:?}")))
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|it: char| !it.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Tries whether this user may have namespaces of its own; the process must have one
/// thread.
///
/// # Errors
/// Why not: `EPERM` or `ENOSPC` where the machine forbids it.
pub fn namespaces() -> io::Result<()> {
    alone()?;
    match sys::clone_into_namespaces(!rustix::process::geteuid().is_root(), Network::None)? {
        Forked::Child => sys::exit(0),
        Forked::Parent(child) => sys::wait_for(child).map(drop),
    }
}

/// Tries whether this user is more than root in a namespace of its own: what takes programs
/// that the machine may lack, and a range of users ([`crate::workspace`]). The process must have
/// one thread.
///
/// # Errors
/// When there are no namespaces.
pub fn further_users() -> io::Result<bool> {
    alone()?;
    let Some(users) = Users::all()? else { return Ok(true) };
    match sys::clone_into_namespaces(true, Network::None)? {
        Forked::Child => {
            let is_mapped = users.map().is_ok();
            let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            sys::exit(i32::from(!is_mapped || map.lines().count() < 2))
        }
        Forked::Parent(child) => {
            drop(users);
            sys::wait_for(child).map(|status| status == 0)
        }
    }
}

/// Room on the filesystem that has `path`.
pub fn room(path: &Path) -> io::Result<Room> {
    let data = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(data.f_frsize);
    // Some filesystems make inodes as they need them, and tell of none.
    let has_inodes = data.f_files == 0 || data.f_favail > 0;
    Ok(Room { free: bytes(data.f_bavail), total: bytes(data.f_blocks), has_inodes })
}

/// A filesystem where it is mounted (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// Where it is mounted.
    pub target: PathBuf,
    /// Its type, such as `ext4`.
    pub kind: String,
    /// What is mounted, as it calls it itself: mostly a device.
    pub source: PathBuf,
    /// What of it is mounted, as a path in it.
    pub root: PathBuf,
}

impl Filesystem {
    /// The one on which `path` lies, which has to be without symbolic links.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let mounts = MountPoint::all()?.into_iter().filter(|mount| path.starts_with(&mount.target));
        // Of several on the same directory the last one covers the others.
        Ok(mounts.max_by_key(|mount| mount.target.as_os_str().len()).map(Self::from))
    }

    /// The one that is mounted on `target` itself.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn mounted_on(target: &Path) -> io::Result<Option<Self>> {
        Ok(MountPoint::at(target)?.map(Self::from))
    }
}

impl From<MountPoint> for Filesystem {
    fn from(mount: MountPoint) -> Self {
        Self {
            kind: String::from_utf8_lossy(&mount.kind).into(),
            source: OsString::from_vec(mount.source).into(),
            root: mount.root,
            target: mount.target,
        }
    }
}

/// The mounts of Cairn on this machine, in the order in which they were mounted. Each
/// has `patience` to answer; the process must have one thread.
pub fn mounts(patience: Duration) -> io::Result<Vec<MountHealth>> {
    alone()?;
    let ours = MountPoint::all()?.into_iter().filter(MountPoint::is_ours);
    let health = |mount: MountPoint| {
        let condition = ask(&mount.target, patience)?;
        let connection = mount.is_fuse().then_some(mount.device.1);
        Ok(MountHealth { target: mount.target, condition, connection })
    };
    ours.map(health).collect()
}

/// Ends a connection: whoever waits for it gets an error, and so does every call from
/// now on. What is mounted stays until it is unmounted.
///
/// The filesystem of connections is mounted for the moment where it is not.
pub fn abort(connection: u32) -> io::Result<()> {
    let path = format!("{CONNECTIONS}/{connection}/abort");
    match fs::write(&path, "1") {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        written => return written,
    }
    let place = Path::new(CONNECTIONS);
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    sys::mount("fusectl".as_ref(), place, "fusectl", flags, "".as_ref())?;
    let written = fs::write(&path, "1");
    sys::unmount(place, libc::UMOUNT_NOFOLLOW)?;
    written
}

fn alone() -> io::Result<()> {
    match sys::is_alone()? {
        true => Ok(()),
        false => Err(io::Error::other("the process has other threads")),
    }
}

/// Asks what is mounted on `target`, in a copy of this process, since a call that waits
/// for FUSE cannot always be interrupted.
fn ask(target: &Path, patience: Duration) -> io::Result<Condition> {
    const ALIVE: i32 = 0;
    const DEAD: i32 = 1;
    let child = match sys::fork()? {
        Forked::Child => sys::exit(match sys::is_dead(target) {
            Ok(true) => DEAD,
            _ => ALIVE,
        }),
        Forked::Parent(child) => child,
    };
    let begun = Instant::now();
    loop {
        match sys::next_ended(child)? {
            Some(ended) if ended.code == DEAD => return Ok(Condition::Dead),
            Some(_) => return Ok(Condition::Alive),
            None if begun.elapsed() >= patience => break,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    // It ends now or when the connection does; whoever comes after us waits for it.
    let _ = sys::kill(child, libc::SIGKILL);
    Ok(Condition::Hanging)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_known_by_its_first_two_numbers() {
        assert_eq!(parse_release("6.12.48+deb13-amd64\n"), Some((6, 12)));
        assert_eq!(parse_release("5.4-rc1"), Some((5, 4)));
        assert_eq!(parse_release("linux"), None);
    }

    #[test]
    fn there_is_room_on_the_filesystem_of_a_test() {
        let directory = tempfile::tempdir().expect("a directory");
        let room = room(directory.path()).expect("it is there");
        assert!(room.free > 0 && room.free <= room.total && room.has_inodes, "{room:?}");
    }
}
