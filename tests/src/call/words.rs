//! Words of calls, and what they stand for.

#![allow(clippy::cast_possible_wrap, reason = "flags are bits")]

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

pub(super) fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

pub(super) fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).map_err(|_| format!("`{text}` is no mode"))
}

pub(super) fn both<A, B>(
    one: Result<A, String>,
    other: Result<B, String>,
) -> Result<(A, B), String> {
    Ok((one?, other?))
}

pub(super) type Flags = &'static [(&'static str, i32)];

macro_rules! flags {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), libc::$name as i32)),*] };
}

pub(super) const OPEN: Flags = flags![
    O_RDONLY,
    O_WRONLY,
    O_RDWR,
    O_CREAT,
    O_EXCL,
    O_TRUNC,
    O_APPEND,
    O_DIRECTORY,
    O_NOFOLLOW,
    O_NOATIME,
    O_PATH,
    O_TMPFILE,
    O_DIRECT,
    O_SYNC,
    O_NONBLOCK
];
pub(super) const PROTECTION: Flags = flags![PROT_READ, PROT_WRITE, PROT_EXEC];
pub(super) const SHARING: Flags = flags![MAP_SHARED, MAP_PRIVATE];
pub(super) const WHENCE: Flags = flags![SEEK_SET, SEEK_END, SEEK_DATA, SEEK_HOLE];
pub(super) const ACCESS: Flags = flags![F_OK, R_OK, W_OK, X_OK];
pub(super) const XATTR: Flags = flags![XATTR_CREATE, XATTR_REPLACE];
pub(super) const RENAME: Flags = flags![RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT];
pub(super) const LOCK: Flags = flags![LOCK_SH, LOCK_EX];
pub(super) const FCNTL: Flags = flags![F_SETLK, F_OFD_SETLK];
pub(super) const RECORD: Flags = flags![F_RDLCK, F_WRLCK];
pub(super) const ADVICE: Flags =
    flags![POSIX_FADV_WILLNEED, POSIX_FADV_DONTNEED, POSIX_FADV_SEQUENTIAL];
pub(super) const FALLOCATE: Flags = &[
    ("0", 0),
    ("KEEP_SIZE", libc::FALLOC_FL_KEEP_SIZE),
    ("PUNCH_HOLE", libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE),
];
/// Numbers of linux/fs.h; the large ones wrap, as ioctl(2) takes them.
pub(super) const IOCTL: Flags = &[
    ("FIGETBSZ", 2),
    ("FIONREAD", 0x541b),
    ("FS_IOC_GETFLAGS", 0x8008_6601_u32 as i32),
    ("FS_IOC_FIEMAP", 0xc020_660b_u32 as i32),
    ("TCGETS", 0x5401),
];

pub(super) fn flags_of(text: &str, known: Flags) -> Result<i32, String> {
    text.split('|').try_fold(0, |flags, name| {
        let found = known.iter().find(|(it, _)| *it == name);
        found.map(|(_, flag)| flags | flag).ok_or_else(|| format!("`{name}` is no flag here"))
    })
}

pub(super) fn field_of(field: &str) -> Result<fn(&Metadata) -> String, String> {
    Ok(match field {
        "mode" => |data| format!("{:o}", data.mode()),
        "nlink" => |data| data.nlink().to_string(),
        "uid" => |data| data.uid().to_string(),
        "gid" => |data| data.gid().to_string(),
        "size" => |data| data.size().to_string(),
        "blocks" => |data| data.blocks().to_string(),
        "blksize" => |data| data.blksize().to_string(),
        "mtime" => |data| format!("{}.{:09}", data.mtime(), data.mtime_nsec()),
        "atime" => |data| format!("{}.{:09}", data.atime(), data.atime_nsec()),
        "is ctime mtime" => |data| {
            let times = [(data.ctime(), data.ctime_nsec()), (data.mtime(), data.mtime_nsec())];
            if times[0] == times[1] { "yes" } else { "no" }.into()
        },
        "rdev" => |data| format!("{}:{}", libc::major(data.rdev()), libc::minor(data.rdev())),
        "btime" => |data| match data.created() {
            Ok(time) if time > UNIX_EPOCH => "known".into(),
            _ => "unknown".into(),
        },
        _ => return Err(format!("stat has no `{field}`")),
    })
}

/// The fields of `struct statfs` on 64-bit machines: see statfs(2).
pub(super) fn statfs_field(field: &str) -> Result<fn(&[u8]) -> String, String> {
    fn at(buf: &[u8], index: usize) -> i64 {
        i64::from_ne_bytes(buf[index * 8..index * 8 + 8].try_into().expect("8 bytes"))
    }
    Ok(match field {
        "type" => |buf| format!("{:x}", at(buf, 0)),
        "bsize" => |buf| at(buf, 1).to_string(),
        "bavail" => |buf| if at(buf, 4) == 0 { "0" } else { "some" }.into(),
        "namelen" => |buf| at(buf, 8).to_string(),
        "readonly" => |buf| if at(buf, 10) & 1 == 1 { "yes" } else { "no" }.into(),
        _ => return Err(format!("statfs has no `{field}`")),
    })
}
