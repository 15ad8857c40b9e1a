//! Writing a tar archive: the same tree gives the same bytes.
//!
//! Format: pax interchange format of POSIX.1-2001, with extended headers only
//! where a plain one cannot say it: fractions of seconds, long names, large
//! numbers, extended attributes (as `SCHILY.xattr.`, which GNU tar and
//! libarchive write).

use std::io::{self, Write};

use crate::tree::{Attributes, Device, Timestamp};

/// Bytes of a block.
const BLOCK: usize = 512;

/// One entry to be written.
pub(crate) struct Header<'a> {
    /// Without a slash at the end.
    pub(crate) path: &'a [u8],
    pub(crate) attributes: &'a Attributes,
    pub(crate) kind: HeaderKind<'a>,
}

pub(crate) enum HeaderKind<'a> {
    File(u64),
    HardLink(&'a [u8]),
    Symlink(&'a [u8]),
    CharDevice(Device),
    BlockDevice(Device),
    Directory,
    Fifo,
}

/// Writes the header of an entry, after which the bytes of a regular file
/// follow, and then [`padding`].
pub(crate) fn write_header(to: &mut impl Write, header: &Header<'_>) -> io::Result<()> {
    let Header { path, attributes, kind } = header;
    let (flag, link, size, device): (u8, &[u8], u64, Option<Device>) = match kind {
        HeaderKind::File(size) => (b'0', b"", *size, None),
        HeaderKind::HardLink(target) => (b'1', target, 0, None),
        HeaderKind::Symlink(text) => (b'2', text, 0, None),
        HeaderKind::CharDevice(device) => (b'3', b"", 0, Some(*device)),
        HeaderKind::BlockDevice(device) => (b'4', b"", 0, Some(*device)),
        HeaderKind::Directory => (b'5', b"", 0, None),
        HeaderKind::Fifo => (b'6', b"", 0, None),
    };
    let path = match kind {
        HeaderKind::Directory => [path, &b"/"[..]].concat(),
        _ => path.to_vec(),
    };
    let records = records(&path, link, attributes, matches!(kind, HeaderKind::HardLink(_)));
    if !records.is_empty() {
        let name = path.strip_suffix(b"/").unwrap_or(&path);
        let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let name = [b"PaxHeaders/", &name[..name.len().min(80)]].concat();
        let nobody = Attributes::of_root(0o644);
        let size = records.len() as u64;
        to.write_all(&block(&name, b"", b'x', &nobody, size, None))?;
        to.write_all(&records)?;
        to.write_all(padding(size))?;
    }
    to.write_all(&block(&path, link, flag, attributes, size, device))
}

/// The zeros that fill the last block of so many bytes.
pub(crate) fn padding(size: u64) -> &'static [u8] {
    let used = usize::try_from(size % BLOCK as u64).expect("it is below a block");
    &[0; BLOCK][..(BLOCK - used) % BLOCK]
}

/// Writes what stands at the end of an archive.
pub(crate) fn write_end(to: &mut impl Write) -> io::Result<()> {
    to.write_all(&[0; 2 * BLOCK])
}

/// Whether an attribute of this name can be written: the format separates names
/// from values by a sign that a name may have.
pub(crate) fn can_hold(xattr_name: &[u8]) -> bool {
    !xattr_name.contains(&b'=')
}

/// The records of the extended header; none where the plain one says it all.
fn records(path: &[u8], link: &[u8], attributes: &Attributes, is_link: bool) -> Vec<u8> {
    let Attributes { uid, gid, mtime, xattrs, .. } = attributes;
    let mut records = Vec::new();
    let texts = [(&b"path"[..], path), (b"linkpath", link)];
    let long = texts.iter().filter(|(_, text)| text.len() > 100);
    if long.clone().any(|(_, text)| std::str::from_utf8(text).is_err()) {
        push_record(&mut records, b"hdrcharset", b"BINARY");
    }
    for (key, text) in long {
        push_record(&mut records, key, text);
    }
    for (key, number) in [(&b"uid"[..], uid), (b"gid", gid)] {
        if u64::from(*number) > MAX_OCTAL_7 {
            push_record(&mut records, key, number.to_string().as_bytes());
        }
    }
    if mtime.nanoseconds() > 0 || octal_seconds(*mtime).is_none() {
        push_record(&mut records, b"mtime", decimal(*mtime).as_bytes());
    }
    for xattr in xattrs.iter().filter(|xattr| can_hold(&xattr.name) && !is_link) {
        let key = [b"SCHILY.xattr.", &xattr.name[..]].concat();
        push_record(&mut records, &key, &xattr.value);
    }
    records
}

fn push_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // Blank, equals sign and line feed; the length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let len = (1..20).map(|digits| rest + digits).find(|len| rest + digits_of(*len) == *len);
    let len = len.expect("some length counts itself");
    records.extend_from_slice(len.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits_of(number: usize) -> usize {
    number.to_string().len()
}

fn decimal(time: Timestamp) -> String {
    let (seconds, nanoseconds) = (time.seconds(), time.nanoseconds());
    let (sign, seconds, nanoseconds) = match (seconds < 0, nanoseconds) {
        (false, _) => ("", seconds.unsigned_abs(), nanoseconds),
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, _) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
    };
    let fraction = format!("{nanoseconds:09}");
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{seconds}"),
        fraction => format!("{sign}{seconds}.{fraction}"),
    }
}

/// The most that 7 and 11 octal digits hold.
const MAX_OCTAL_7: u64 = (1 << 21) - 1;
pub(super) const MAX_OCTAL_11: u64 = (1 << 33) - 1;

fn octal_seconds(time: Timestamp) -> Option<u64> {
    u64::try_from(time.seconds()).ok().filter(|seconds| *seconds <= MAX_OCTAL_11)
}

fn block(
    path: &[u8],
    link: &[u8],
    flag: u8,
    attributes: &Attributes,
    size: u64,
    device: Option<Device>,
) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let octal_7 = |number: u64| format!("{:07o}", if number > MAX_OCTAL_7 { 0 } else { number });
    put(0, &path[..path.len().min(100)]);
    put(100, octal_7(attributes.mode.into()).as_bytes());
    put(108, octal_7(attributes.uid.into()).as_bytes());
    put(116, octal_7(attributes.gid.into()).as_bytes());
    if size <= MAX_OCTAL_11 {
        put(124, format!("{size:011o}").as_bytes());
    } else {
        // As GNU tar does it: every reader of today understands it, and one that
        // does not cannot take it for another size.
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, format!("{:011o}", octal_seconds(attributes.mtime).unwrap_or(0)).as_bytes());
    put(148, b"        ");
    put(156, &[flag]);
    put(157, &link[..link.len().min(100)]);
    put(257, b"ustar\x0000");
    if let Some(Device { major, minor }) = device {
        put(329, octal_7(major.into()).as_bytes());
        put(337, octal_7(minor.into()).as_bytes());
    }
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for len in 0..2000 {
            let mut records = Vec::new();
            push_record(&mut records, b"key", &vec![b'x'; len]);
            let text = String::from_utf8(records).expect("ASCII");
            let said: usize = text.split(' ').next().expect("a number").parse().expect("digits");
            assert_eq!(said, text.len(), "{len}");
        }
    }

    #[test]
    fn times_are_written_to_the_nanosecond() {
        let check = |seconds, nanoseconds, expected: &str| {
            let time = Timestamp::new(seconds, nanoseconds).expect("a time");
            assert_eq!(decimal(time), expected);
        };
        check(5, 0, "5");
        check(5, 250_000_000, "5.25");
        check(-2, 750_000_000, "-1.25");
        check(-1, 750_000_000, "-0.25");
        check(-1, 0, "-1");
    }
}
