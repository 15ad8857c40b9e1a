//! What calls of several steps do.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::{Command, Stdio};

use super::words::octal;
use super::{Call, Errno};
use crate::sys::{self, Arg};

pub(super) const AT: Arg<'static> = Arg::Number(libc::AT_FDCWD as i64);

pub(super) fn done() -> io::Result<String> {
    Ok("ok".into())
}

pub(super) fn c(path: &str) -> CString {
    CString::new(path).expect("pages have no NUL")
}

pub(super) fn fd(descriptor: &OwnedFd) -> Arg<'static> {
    Arg::Number(descriptor.as_raw_fd().into())
}

pub(super) fn size(len: i64) -> usize {
    usize::try_from(len).unwrap_or(0)
}

pub(super) fn unsigned(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

/// Bytes as pages show them.
#[expect(clippy::unnecessary_wraps, reason = "it ends what can fail")]
pub(super) fn text(bytes: &[u8]) -> io::Result<String> {
    Ok(format!("\"{}\"", bytes.escape_ascii()))
}

pub(super) fn open(path: &str, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    let path = c(path);
    let flags = Arg::Number((flags | libc::O_CLOEXEC).into());
    let arguments = [AT, Arg::Text(&path), flags, Arg::Number(mode.into())];
    sys::call(libc::SYS_openat, arguments).map(sys::owned)
}

/// A call whose first argument is a file that is open for reading.
pub(super) fn with_fd<const N: usize>(
    number: i64,
    path: &str,
    rest: [Arg<'_>; N],
) -> io::Result<String> {
    let opened = open(path, libc::O_RDONLY, 0)?;
    sys::call(number, std::iter::once(fd(&opened)).chain(rest))?;
    done()
}

pub(super) fn write(path: &str, text: &str, mode: u32) -> io::Result<String> {
    let opened = open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC, mode)?;
    File::from(opened).write_all(text.as_bytes())?;
    done()
}

pub(super) fn rename(from: &str, to: &str, flag: i32) -> io::Result<String> {
    let (from, to) = (c(from), c(to));
    let arguments = [AT, Arg::Text(&from), AT, Arg::Text(&to), Arg::Number(flag.into())];
    sys::call(libc::SYS_renameat2, arguments)?;
    done()
}

pub(super) fn mknod(
    path: &str,
    kind: &str,
    mode: &str,
    numbers: &[&str],
) -> Result<Result<String, Errno>, String> {
    let kind = match kind {
        "file" => libc::S_IFREG,
        "fifo" => libc::S_IFIFO,
        "socket" => libc::S_IFSOCK,
        "char" => libc::S_IFCHR,
        "block" => libc::S_IFBLK,
        _ => return Err(format!("`{kind}` is no kind of file")),
    };
    let device = match numbers {
        [] => 0,
        [major, minor] => {
            let parse = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number"));
            libc::makedev(parse(major)?, parse(minor)?)
        }
        _ => return Err("a device has two numbers".into()),
    };
    let (path, mode) = (c(path), octal(mode)? | kind);
    let device = Arg::Number(device.try_into().map_err(|_| "a device too large".to_owned())?);
    let arguments = [AT, Arg::Text(&path), Arg::Number(mode.into()), device];
    Ok(sys::call(libc::SYS_mknodat, arguments).and_then(|_| done()))
}

pub(super) fn copy_file_range(from: &str, to: &str) -> io::Result<String> {
    let from = open(from, libc::O_RDONLY, 0)?;
    let to = open(to, libc::O_WRONLY | libc::O_CREAT, 0o600)?;
    let nothing = || Arg::Number(0);
    let arguments = [fd(&from), nothing(), fd(&to), nothing(), Arg::Number(1 << 20), nothing()];
    Ok(sys::call(libc::SYS_copy_file_range, arguments)?.to_string())
}

pub(super) fn getxattr(path: &str, name: &str, len: usize) -> io::Result<String> {
    let (path, name, mut value) = (c(path), c(name), vec![0; len]);
    let arguments = [
        Arg::Text(&path),
        Arg::Text(&name),
        Arg::Buffer(&mut value),
        Arg::Number(len.try_into().expect("it is small")),
    ];
    let given = size(sys::call(libc::SYS_lgetxattr, arguments)?);
    if len == 0 { Ok(given.to_string()) } else { text(&value[..given]) }
}

pub(super) fn setxattr(path: &str, name: &str, value: &str, flag: i32) -> io::Result<String> {
    let (path, name, mut value) = (c(path), c(name), unescaped(value));
    let len = value.len().try_into().expect("it is small");
    let arguments = [
        Arg::Text(&path),
        Arg::Text(&name),
        Arg::Buffer(&mut value),
        Arg::Number(len),
        Arg::Number(flag.into()),
    ];
    sys::call(libc::SYS_lsetxattr, arguments)?;
    done()
}

/// `hex:0a0b` is two bytes; anything else is itself.
pub(super) fn unescaped(value: &str) -> Vec<u8> {
    let Some(digits) = value.strip_prefix("hex:") else { return value.into() };
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or("?"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("pages have hex digits")).collect()
}

pub(super) fn listxattr(path: &str) -> io::Result<String> {
    let (path, mut list) = (c(path), vec![0; 65_536]);
    let arguments = [Arg::Text(&path), Arg::Buffer(&mut list), Arg::Number(65_536)];
    let len = size(sys::call(libc::SYS_llistxattr, arguments)?);
    let mut names: Vec<&[u8]> = list[..len].split(|byte| *byte == 0).collect();
    names.sort_unstable();
    let names: Vec<&[u8]> = names.into_iter().filter(|name| !name.is_empty()).collect();
    // Whether there is a label depends on the machine.
    let names = names.into_iter().filter(|name| *name != b"security.selinux");
    text(&names.collect::<Vec<_>>().join(&b' '))
}

/// The names of a directory, sorted, each with the letter that ls(1) shows for its
/// kind.
pub(super) fn names(path: &str) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let mut name = entry.file_name().as_bytes().to_vec();
        name.extend_from_slice(match () {
            () if kind.is_dir() => b"/",
            () if kind.is_symlink() => b"@",
            () if kind.is_fifo() => b"|",
            () if kind.is_socket() => b"=",
            () if kind.is_char_device() || kind.is_block_device() => b"%",
            () => b"",
        });
        names.push(name);
    }
    names.sort();
    text(&names.join(&b' '))
}

/// Goes to the place behind each entry, and checks that the next one comes; gives
/// how many entries there are, with `.` and `..`.
pub(super) fn seek_everywhere(path: &str) -> io::Result<String> {
    let opened = open(path, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let next = |len: i64| {
        let mut buf = vec![0; 4096];
        let arguments = [fd(&opened), Arg::Buffer(&mut buf), Arg::Number(len)];
        let filled = size(sys::call(libc::SYS_getdents64, arguments)?);
        let mut rest = &buf[..filled];
        let mut entries = Vec::new();
        while let [_, _, _, _, _, _, _, _, cookie @ ..] = rest {
            let record = usize::from(u16::from_ne_bytes([cookie[8], cookie[9]]));
            let offset = cookie[..8].try_into().map(i64::from_ne_bytes);
            entries.push((offset.map_err(io::Error::other)?, rest[19..record].to_vec()));
            rest = &rest[record..];
        }
        Ok::<_, io::Error>(entries)
    };
    let mut all = Vec::new();
    loop {
        let some = next(4096)?;
        if some.is_empty() {
            break;
        }
        all.extend(some);
    }
    for (index, (offset, _)) in all.iter().enumerate() {
        let set = Arg::Number(libc::SEEK_SET.into());
        sys::call(libc::SYS_lseek, [fd(&opened), Arg::Number(*offset), set])?;
        if next(4096)?.first() != all.get(index + 1) {
            return Ok(format!("another entry behind entry {index}"));
        }
    }
    Ok(all.len().to_string())
}

pub(super) fn same_inode(one: &str, other: &str) -> io::Result<String> {
    let [one, other] = [fs::symlink_metadata(one)?, fs::symlink_metadata(other)?];
    let is_same = (one.dev(), one.ino()) == (other.dev(), other.ino());
    Ok(if is_same { "yes" } else { "no" }.into())
}

/// Takes each of the locks through a descriptor of its own.
pub(super) fn flock(path: &str, kinds: &[i32]) -> io::Result<String> {
    let mut held = Vec::new();
    for kind in kinds {
        let opened = open(path, libc::O_RDONLY, 0)?;
        let kind = Arg::Number((kind | libc::LOCK_NB).into());
        sys::call(libc::SYS_flock, [fd(&opened), kind])?;
        held.push(opened);
    }
    done()
}

/// Locks the whole file with a `struct flock`: see fcntl(2).
pub(super) fn lock_record(path: &str, command: i32, kind: i32) -> io::Result<String> {
    let flags = if kind == libc::F_WRLCK { libc::O_RDWR } else { libc::O_RDONLY };
    let opened = open(path, flags, 0)?;
    let mut record = [0_u8; 32];
    record[..2].copy_from_slice(&i16::try_from(kind).unwrap_or_default().to_ne_bytes());
    let command = Arg::Number(command.into());
    sys::call(libc::SYS_fcntl, [fd(&opened), command, Arg::Buffer(&mut record)])?;
    done()
}

/// The `struct file_handle` of a path: see name_to_handle_at(2).
pub(super) fn handle(path: &str) -> io::Result<Vec<u8>> {
    let (path, mut handle, mut mount) = (c(path), vec![0; 8 + 128], [0; 8]);
    handle[0] = 128;
    let arguments =
        [AT, Arg::Text(&path), Arg::Buffer(&mut handle), Arg::Buffer(&mut mount), Arg::Number(0)];
    sys::call(libc::SYS_name_to_handle_at, arguments)?;
    Ok(handle)
}

/// A copy of the mount of a path, not yet mounted anywhere, with the ids of another
/// user namespace: see mount_setattr(2).
pub(super) fn mount_idmapped(path: &str) -> io::Result<String> {
    const IDMAP: u64 = libc::MOUNT_ATTR_IDMAP;
    let path = c(path);
    let clone = Arg::Number(libc::OPEN_TREE_CLONE.into());
    let copy = sys::owned(sys::call(libc::SYS_open_tree, [AT, Arg::Text(&path), clone])?);
    let mut inhabitant = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", "echo; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut inside = [0];
    inhabitant.stdout.as_mut().expect("it is a pipe").read_exact(&mut inside)?;
    let namespace = File::open(format!("/proc/{}/ns/user", inhabitant.id()))?;
    let descriptor = u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
    let mut attributes = [IDMAP, 0, 0, descriptor].map(u64::to_ne_bytes).concat();
    let here = Arg::Number(libc::AT_EMPTY_PATH.into());
    let arguments =
        [fd(&copy), Arg::Text(c""), here, Arg::Buffer(&mut attributes), Arg::Number(32)];
    let set = sys::call(libc::SYS_mount_setattr, arguments);
    inhabitant.kill()?;
    inhabitant.wait()?;
    set.and_then(|_| done())
}

/// What inotify(7) tells of a path while a call is made.
pub(super) fn events(path: &str, call: &Call) -> Result<io::Result<String>, String> {
    const EVENTS: [(u32, &str); 10] = [
        (libc::IN_ACCESS, "access"),
        (libc::IN_MODIFY, "modify"),
        (libc::IN_ATTRIB, "attrib"),
        (libc::IN_CLOSE_WRITE, "close_write"),
        (libc::IN_CLOSE_NOWRITE, "close_nowrite"),
        (libc::IN_OPEN, "open"),
        (libc::IN_CREATE, "create"),
        (libc::IN_DELETE, "delete"),
        (libc::IN_MOVED_FROM, "moved_from"),
        (libc::IN_MOVED_TO, "moved_to"),
    ];
    let watch = || {
        let flags = Arg::Number((libc::IN_NONBLOCK | libc::IN_CLOEXEC).into());
        let watcher = sys::owned(sys::call(libc::SYS_inotify_init1, [flags])?);
        let path = c(path);
        let all = Arg::Number(libc::IN_ALL_EVENTS.into());
        sys::call(libc::SYS_inotify_add_watch, [fd(&watcher), Arg::Text(&path), all])?;
        Ok(File::from(watcher))
    };
    let mut watcher = match watch() {
        Ok(watcher) => watcher,
        Err(err) => return Ok(Err(err)),
    };
    call.perform()?;
    let (mut told, mut buf) = (Vec::new(), vec![0; 65_536]);
    let len = watcher.read(&mut buf).unwrap_or(0);
    let mut rest = &buf[..len];
    while let [_, _, _, _, a, b, c, d, _, _, _, _, e, f, g, h, names @ ..] = rest {
        let mask = u32::from_ne_bytes([*a, *b, *c, *d]);
        let of_mask = EVENTS.iter().filter(|(event, _)| mask & event != 0);
        told.extend(of_mask.map(|(_, name)| *name));
        let len = u32::from_ne_bytes([*e, *f, *g, *h]);
        rest = names.get(usize::try_from(len).unwrap_or(usize::MAX)..).unwrap_or_default();
    }
    told.dedup();
    Ok(Ok(if told.is_empty() { "nothing".into() } else { told.join(" ") }))
}
