//! Extended headers of tar archives: long names, and what pax knows more.

use std::collections::BTreeSet;
use std::str::FromStr;

use tar::EntryType;

use super::error::EntryProblem;
use super::sparse::SparseRecords;
use crate::tree::{Timestamp, Xattr};

/// What extended headers say of the entry after them.
#[derive(Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) user: Option<Vec<u8>>,
    pub(super) group: Option<Vec<u8>>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) size: Option<u64>,
    pub(super) xattrs: Vec<Xattr>,
    /// The ACL, and that which new files in a directory get; as text.
    pub(super) acl: Option<Vec<u8>>,
    pub(super) default_acl: Option<Vec<u8>>,
    pub(super) selinux: Option<Vec<u8>>,
    pub(super) sparse: Option<SparseRecords>,
    /// Keys of records that mean something to others.
    pub(super) ignored: BTreeSet<Vec<u8>>,
}

/// What is known, and is of no use: other times, remarks, and where the file was.
const OF_NO_USE: [&[u8]; 8] = [
    b"atime",
    b"ctime",
    b"comment",
    b"hdrcharset",
    b"LIBARCHIVE.creationtime",
    b"SCHILY.dev",
    b"SCHILY.ino",
    b"SCHILY.nlink",
];

/// The most bytes of an extended attribute: setxattr(2).
pub(super) const MAX_XATTR_LEN: usize = 65_536;

/// libarchive writes attributes twice: so, and as all others do.
const XATTR_OF_LIBARCHIVE: &[u8] = b"LIBARCHIVE.xattr.";

impl Extended {
    /// Whether entries of this kind are extended headers.
    pub(super) fn is_header(kind: EntryType) -> bool {
        kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions()
    }

    /// Whether no header said anything.
    pub(super) fn is_empty(&self) -> bool {
        let Self { path, link, uid, gid, user, group, mtime, size, xattrs, .. } = self;
        let Self { acl, default_acl, selinux, sparse, .. } = self;
        let texts = [path, link, user, group, acl, default_acl, selinux];
        let numbers = uid.is_none() && gid.is_none() && mtime.is_none() && size.is_none();
        let has_text = texts.into_iter().any(Option::is_some);
        !has_text && numbers && xattrs.is_empty() && sparse.is_none()
    }

    /// The name that they give the entry.
    pub(super) fn name(&self) -> Option<&Vec<u8>> {
        // Sparse files have another path for readers that do not know them.
        self.sparse.as_ref().and_then(|sparse| sparse.name.as_ref()).or(self.path.as_ref())
    }

    /// Keys of records that mean something, and not here.
    pub(super) fn take_ignored(&mut self) -> Vec<Vec<u8>> {
        let mut ignored = std::mem::take(&mut self.ignored);
        if !self.xattrs.is_empty() {
            ignored.remove(XATTR_OF_LIBARCHIVE);
        }
        ignored.into_iter().collect()
    }

    /// Takes over what one header says.
    pub(super) fn add(&mut self, kind: EntryType, bytes: &[u8]) -> Result<(), EntryProblem> {
        let text = || bytes.strip_suffix(b"\0").unwrap_or(bytes).to_vec();
        match kind {
            EntryType::GNULongName => set(&mut self.path, text()),
            EntryType::GNULongLink => set(&mut self.link, text()),
            kind => {
                let is_global = kind.is_pax_global_extensions();
                records(bytes)?.into_iter().try_for_each(|(k, v)| self.record(k, v, is_global))
            }
        }
    }

    /// One pax record.
    fn record(&mut self, key: &[u8], value: &[u8], is_global: bool) -> Result<(), EntryProblem> {
        // What holds for all entries is nothing but a remark in practice.
        if is_global && key != b"comment" {
            return Err(EntryProblem::Extended("it is for the whole archive"));
        }
        let text = std::str::from_utf8(value).ok();
        match key {
            b"path" => set(&mut self.path, value.to_vec()),
            b"linkpath" => set(&mut self.link, value.to_vec()),
            b"uid" => set(&mut self.uid, parse(text, "its user")?),
            b"gid" => set(&mut self.gid, parse(text, "its group")?),
            b"uname" => set(&mut self.user, value.to_vec()),
            b"gname" => set(&mut self.group, value.to_vec()),
            b"mtime" => {
                let time = text.and_then(decimal_time).ok_or(EntryProblem::Number("its time"))?;
                set(&mut self.mtime, time)
            }
            b"size" => set(&mut self.size, parse(text, "its size")?),
            b"SCHILY.acl.access" => set(&mut self.acl, value.to_vec()),
            b"SCHILY.acl.default" => set(&mut self.default_acl, value.to_vec()),
            b"RHT.security.selinux" => set(&mut self.selinux, value.to_vec()),
            // The map is in the bytes of the file.
            b"SCHILY.realsize" => Err(EntryProblem::Sparse("it has a form that is not known")),
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    return self.sparse.get_or_insert_default().add(key, value);
                }
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    return self.xattr(name, value);
                }
                if key.starts_with(XATTR_OF_LIBARCHIVE) {
                    self.ignored.insert(XATTR_OF_LIBARCHIVE.into());
                } else if !OF_NO_USE.contains(&key) {
                    self.ignored.insert(key.into());
                }
                Ok(())
            }
        }
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), EntryProblem> {
        let is_name = (1..=255).contains(&name.len()) && !name.contains(&0);
        if !is_name || value.len() > MAX_XATTR_LEN {
            return Err(EntryProblem::Extended("no attribute that a file can have"));
        }
        self.xattrs.push(Xattr { name: name.into(), value: value.into() });
        Ok(())
    }
}

fn set<T>(slot: &mut Option<T>, value: T) -> Result<(), EntryProblem> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(EntryProblem::Extended("it says the same thing twice")),
    }
}

fn parse<N: FromStr>(text: Option<&str>, what: &'static str) -> Result<N, EntryProblem> {
    let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(EntryProblem::Number(what))
}

/// A key and its value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// The records of a pax header: `<length> <key>=<value>\n`, where the length
/// is that of the whole record, so that values may hold any bytes.
fn records(bytes: &[u8]) -> Result<Vec<Record<'_>>, EntryProblem> {
    let broken = || EntryProblem::Extended("a record is damaged");
    let mut found = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let blank = rest.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
        let digits = std::str::from_utf8(&rest[..blank]).map_err(|_| broken())?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        let len: usize = digits.parse().ok().filter(|_| is_number).ok_or_else(broken)?;
        let record = rest.get(blank + 1..len).and_then(|record| record.strip_suffix(b"\n"));
        let record = record.ok_or_else(broken)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        found.push((&record[..equals], &record[equals + 1..]));
        rest = &rest[len..];
    }
    Ok(found)
}

/// Reads seconds with an optional fraction, of which nine digits count.
fn decimal_time(text: &str) -> Option<Timestamp> {
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits = fraction.bytes().map(|byte| u32::from(byte - b'0'));
    let nanoseconds = digits.chain(std::iter::repeat(0)).take(9).fold(0, |sum, d| sum * 10 + d);
    match (is_negative, nanoseconds) {
        (false, _) => Timestamp::new(seconds, nanoseconds),
        (true, 0) => Timestamp::new(-seconds, 0),
        (true, _) => Timestamp::new(-seconds - 1, 1_000_000_000 - nanoseconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond() {
        let check = |text: &str, expected: Option<(i64, u32)>| {
            let expected = expected.and_then(|(s, ns)| Timestamp::new(s, ns));
            assert_eq!(decimal_time(text), expected, "{text}");
        };
        check("5", Some((5, 0)));
        check("5.25", Some((5, 250_000_000)));
        check("5.1234567899", Some((5, 123_456_789)));
        check("-1.25", Some((-2, 750_000_000)));
        check("-1", Some((-1, 0)));
        check("", None);
        check("1.2.3", None);
        check("+1", None);
        check("99999999999999999999", None);
    }
}
