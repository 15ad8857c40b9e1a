//! Which filesystems are mounted where, as the kernel tells.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use cairn_store::NoProc;

/// The name of mounts of Cairn in /proc/mounts and for mount(8).
pub(crate) const KIND: &str = "fuse.cairn";

/// How the source of an overlay of ours, and of its mirror, begins in /proc/mounts;
/// what follows is the path of the workspace.
pub(crate) const WORKSPACE: &str = "cairn:";

/// One line of /proc/self/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountPoint {
    /// Device number that the files on it have: major and minor.
    pub(crate) device: (u32, u32),
    /// What of that filesystem is there, as a path in it.
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) kind: Vec<u8>,
    /// What is mounted, as its filesystem calls it.
    pub(crate) source: Vec<u8>,
}

impl MountPoint {
    /// What is mounted on `target`: of several mounts the uppermost, which
    /// covers the others.
    pub(crate) fn at(target: &Path) -> io::Result<Option<Self>> {
        Ok(Self::all()?.into_iter().rfind(|mount| mount.target == target))
    }

    /// All that this process sees; of several mounts on one directory the last one
    /// covers the others.
    pub(crate) fn all() -> io::Result<Vec<Self>> {
        // Of a thread, since tests have threads with mounts of their own.
        let lines = fs::read("/proc/thread-self/mountinfo").map_err(NoProc::or)?;
        Ok(parse(&lines).collect())
    }

    /// All that a process sees, whose directory below /proc this is.
    pub(crate) fn of(process: &Path) -> io::Result<Vec<Self>> {
        Ok(parse(&fs::read(process.join("mountinfo"))?).collect())
    }

    /// Whether Cairn has made it: it shows states, or a workspace.
    pub(crate) fn is_ours(&self) -> bool {
        self.is_fuse() || self.workspace().is_some()
    }

    /// Whether it is a filesystem and not a directory of one.
    pub(crate) fn is_whole(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Whether a process of Cairn answers for it, and not an overlay of the kernel.
    pub(crate) fn is_fuse(&self) -> bool {
        self.kind == KIND.as_bytes()
    }

    /// The path of the workspace that it shows.
    pub(crate) fn workspace(&self) -> Option<&[u8]> {
        let path = self.source.strip_prefix(WORKSPACE.as_bytes());
        path.filter(|_| self.kind == b"overlay" || self.is_fuse())
    }
}

/// Reads lines of the form of proc(5); leaves out what does not have it.
fn parse(lines: &[u8]) -> impl Iterator<Item = MountPoint> {
    lines.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let device = std::str::from_utf8(fields.nth(2)?).ok()?;
        let (major, minor) = device.split_once(':')?;
        let (root, target) = (unescape(fields.next()?), unescape(fields.next()?));
        let mut fields = fields.skip_while(|field| *field != b"-");
        let (kind, source) = (fields.nth(1)?, fields.next()?);
        Some(MountPoint {
            device: (major.parse().ok()?, minor.parse().ok()?),
            root: PathBuf::from(OsString::from_vec(root)),
            target: PathBuf::from(OsString::from_vec(target)),
            kind: kind.into(),
            source: unescape(source),
        })
    })
}

/// Undoes the kernel's `\040` for a space and the like.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.first_chunk::<3>().filter(|_| *first == b'\\');
        let value = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match value.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &behind[3..];
            }
            None => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uppermost_mount_is_found_by_its_real_path() {
        let lines = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            90 27 0:50 / /a\\040b\\134 ro shared:1 master:2 - tmpfs x rw\n\
            91 27 0:51 / /a\\040b\\134 ro - fuse.cairn /s rw,user_id=0\n\
            92 27 0:52 / /w rw - overlay cairn:/s\\040t/workspaces/w rw,lowerdir=lower\n\
            93 27 0:53 / /o rw - overlay overlay rw,lowerdir=lower\n\
            94 27 0:54 / /u rw - fuse.cairn cairn:/u/workspaces/w rw,user_id=7\n\
            nonsense\n";
        let mounts: Vec<_> = parse(lines).collect();
        assert_eq!(mounts.len(), 6);
        let found = mounts.iter().rfind(|mount| mount.target == Path::new("/a b\\")).unwrap();
        assert_eq!((found.device, found.is_ours()), ((0, 51), true));
        assert_eq!(mounts[3].workspace(), Some(&b"/s t/workspaces/w"[..]));
        assert_eq!(mounts[5].workspace(), Some(&b"/u/workspaces/w"[..]));
        assert!(mounts[3].is_ours() && !mounts[4].is_ours());
        assert!(!mounts[3].is_fuse() && mounts[5].is_fuse());
    }

    #[test]
    fn a_backslash_that_begins_nothing_stays() {
        for (field, expected) in [
            (&b"\\04"[..], &b"\\04"[..]),
            (b"\\9999", b"\\9999"),
            (b"a\\011", b"a\t"),
            (b"\\", b"\\"),
        ] {
            assert_eq!(unescape(field), expected, "{}", field.escape_ascii());
        }
    }
}
