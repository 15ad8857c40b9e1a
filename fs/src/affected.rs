//! Processes that still use files of a mount which a switch has replaced, and
//! the services that own them.
//!
//! A file of another content is another inode, so that a file is outdated when
//! the name under which a process has it stands for another inode by now.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::mount::mountinfo::MountPoint;
use crate::mount::registration::list;
use crate::shape::Shape;

/// Who still uses what has been replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// The processes, by their numbers.
    pub processes: Vec<AffectedProcess>,
    /// How many processes the caller may not look at: without root, those of others.
    pub unseen: usize,
}

/// A process that still uses what has been replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AffectedProcess {
    /// Its number.
    pub pid: u32,
    /// What it calls itself.
    pub name: String,
    /// The service or other unit of systemd that owns it.
    pub unit: Option<String>,
    /// What it uses: the bytes of the path that it had in the root, and how.
    pub files: BTreeMap<Vec<u8>, Usage>,
}

/// How a file is used; what comes first says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Usage {
    Executed,
    Mapped,
    Open,
}

/// What the kernel adds to the path of a file whose name is gone.
const GONE: &[u8] = b" (deleted)";

/// A mount that shows another state after a switch.
struct Mount {
    target: PathBuf,
    device: u64,
    places: Vec<Place>,
}

/// Where a directory of a mount lies, seen from somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    target: PathBuf,
    /// The path on the mount.
    root: PathBuf,
}

/// Where directories of the mount with this device lie.
fn places(mounts: &[MountPoint], device: u64) -> Vec<Place> {
    let number = |mount: &MountPoint| libc::makedev(mount.device.0, mount.device.1);
    let its = mounts.iter().filter(|mount| number(mount) == device);
    its.map(|it| Place { target: it.target.clone(), root: it.root.clone() }).collect()
}

/// The path on the mount of what lies at `path`, where the nearest of `places` is.
fn find_in(places: &[Place], path: &Path) -> Option<PathBuf> {
    let near = places.iter().filter_map(|it| Some((it, path.strip_prefix(&it.target).ok()?)));
    let (place, below) = near.min_by_key(|(_, below)| below.as_os_str().len())?;
    Some(place.root.join(below).strip_prefix("/").ok()?.to_path_buf())
}

impl Affected {
    /// Looks at all processes of this machine for what the mounts that are
    /// registered below a store's `run` directory have replaced. Costs some reads
    /// of /proc for each process.
    ///
    /// # Errors
    /// Those of [`list`], and [`Error::Processes`] without /proc.
    pub fn find(run: &Path) -> Result<Self> {
        let registered = list(run)?;
        let follows = |shape| !matches!(shape, Shape::Pinned(_));
        let mounts = registered.into_iter().filter(|mount| follows(mount.shape));
        // Without it, only what lies on the mount itself is found.
        let points = MountPoint::all().unwrap_or_default();
        let mounts: Vec<Mount> = mounts
            .filter_map(|mount| {
                let target = PathBuf::from(mount.target);
                // One that has ended meanwhile shows nothing any more.
                let device = fs::symlink_metadata(&target).ok()?.dev();
                Some(Mount { target, device, places: places(&points, device) })
            })
            .collect();
        let mut found = Self::default();
        if mounts.is_empty() {
            return Ok(found);
        }
        let proc = Path::new("/proc");
        for entry in fs::read_dir(proc).map_err(|source| Error::Processes { source })?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if pid != std::process::id() {
                found.look_at(pid, &entry.path(), &mounts);
            }
        }
        found.processes.sort_by_key(|process| process.pid);
        Ok(found)
    }

    fn look_at(&mut self, pid: u32, proc: &Path, mounts: &[Mount]) {
        let mut files = BTreeMap::new();
        let looked = [executed(proc), mapped(proc), open(proc)];
        let is_denied = |err: &io::Error| err.kind() == io::ErrorKind::PermissionDenied;
        if looked.iter().any(|result| result.as_ref().is_err_and(is_denied)) {
            self.unseen += 1;
        }
        // Where the process has the mount, if that is elsewhere; asked for when it matters.
        let elsewhere = LazyCell::new(|| MountPoint::of(proc).unwrap_or_default());
        // What has ended meanwhile uses nothing.
        for used in looked.into_iter().flatten().flatten() {
            let mount = mounts.iter().find(|mount| mount.device == used.device);
            if let Some(path) = mount.and_then(|mount| mount.outdated(&used, &elsewhere)) {
                let usage = files.entry(path).or_insert(used.usage);
                *usage = used.usage.min(*usage);
            }
        }
        if !files.is_empty() {
            let name = fs::read_to_string(proc.join("comm")).unwrap_or_default();
            let unit = fs::read_to_string(proc.join("cgroup")).ok();
            self.processes.push(AffectedProcess {
                pid,
                name: name.trim_end().into(),
                unit: unit.and_then(|text| unit_of(&text)),
                files,
            });
        }
    }
}

/// A file that a process uses.
struct Used {
    device: u64,
    inode: u64,
    /// As the kernel names it.
    path: PathBuf,
    usage: Usage,
}

fn executed(proc: &Path) -> io::Result<Vec<Used>> {
    Ok(vec![linked(&proc.join("exe"), Usage::Executed)?])
}

fn open(proc: &Path) -> io::Result<Vec<Used>> {
    let links = fs::read_dir(proc.join("fd"))?;
    Ok(links.flatten().filter_map(|link| linked(&link.path(), Usage::Open).ok()).collect())
}

fn linked(link: &Path, usage: Usage) -> io::Result<Used> {
    let path = fs::read_link(link)?;
    // Asks about nothing that is no path: it could be of another mount that is stuck.
    if !path.has_root() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let metadata = fs::metadata(link)?;
    // A directory shows the new state.
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(Used { device: metadata.dev(), inode: metadata.ino(), path, usage })
}

/// Format: `/proc/PID/maps` in proc(5).
fn mapped(proc: &Path) -> io::Result<Vec<Used>> {
    let text = fs::read(proc.join("maps"))?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(mapping).collect())
}

fn mapping(line: &[u8]) -> Option<Used> {
    let at = line.iter().position(|byte| *byte == b'/')?;
    let (fields, path) = line.split_at(at);
    let mut fields = std::str::from_utf8(fields).ok()?.split_ascii_whitespace().skip(3);
    let (major, minor) = fields.next()?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    Some(Used {
        device: libc::makedev(number(major)?, number(minor)?),
        inode: fields.next()?.parse().ok()?,
        path: PathBuf::from(std::ffi::OsStr::from_bytes(path)),
        usage: Usage::Mapped,
    })
}

impl Mount {
    /// Where a file lay in this mount whose name stands for something else now.
    fn outdated(&self, used: &Used, elsewhere: &[MountPoint]) -> Option<Vec<u8>> {
        let path = used.path.as_os_str().as_bytes();
        let (path, is_gone) = match path.strip_suffix(GONE) {
            Some(path) => (path, true),
            None => (path, false),
        };
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let below = find_in(&self.places, path)
            .or_else(|| find_in(&places(elsewhere, self.device), path))
            // Of a process with a root of its own it begins there.
            .or_else(|| Some(path.strip_prefix("/").ok()?.to_path_buf()))?;
        match fs::symlink_metadata(self.target.join(&below)) {
            Ok(now) if now.ino() == used.inode => return None,
            Ok(_) => {}
            // Another name of it may be mounted elsewhere.
            Err(_) if !is_gone => return None,
            Err(_) => {}
        }
        Some([b"/", below.as_os_str().as_bytes()].concat())
    }
}

/// The unit of systemd to which a process belongs; `text` is its
/// `/proc/PID/cgroup`.
fn unit_of(text: &str) -> Option<String> {
    let of_systemd = |line: &str| {
        let path = line.strip_prefix("0::").or_else(|| line.split_once(":name=systemd:")?.1.into());
        path.map(str::to_owned)
    };
    let path = text.lines().find_map(of_systemd)?;
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    path.rsplit('/').find(is_unit).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_a_process_is_the_innermost() {
        for (text, unit) in [
            ("0::/system.slice/sshd.service\n", Some("sshd.service")),
            ("0::/user.slice/user-1000.slice/session-2.scope\n", Some("session-2.scope")),
            ("0::/user.slice/user@1000.service/app.slice/x.service/y\n", Some("x.service")),
            ("12:cpu:/\n1:name=systemd:/system.slice/cron.service\n", Some("cron.service")),
            ("0::/\n", None),
            ("", None),
        ] {
            assert_eq!(unit_of(text).as_deref(), unit, "{text}");
        }
    }

    #[test]
    fn a_mapping_of_a_file_has_its_device_its_inode_and_its_path() {
        let line = b"7f10-7f11 r-xp 00001000 00:2b 67307  /usr/lib/a b.so (deleted)";
        let used = mapping(line).unwrap();
        assert_eq!((used.device, used.inode), (libc::makedev(0, 0x2b), 67307));
        assert_eq!(used.path, Path::new("/usr/lib/a b.so (deleted)"));
        for line in ["", "7f10-7f11 rw-p 0 00:00 0 [heap]", "7f10 /x", "a b c d:e / /"] {
            assert!(mapping(line.as_bytes()).is_none(), "{line}");
        }
    }
}
