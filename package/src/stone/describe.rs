//! Everything that a stone holds, as data to show.

use std::io::{Read, Seek};

use cairn_store::{BlobKey, Digest};
use serde::Serialize;

use super::bytes::records;
use super::error::{Error, Result};
use super::header::{Compression, FileType, PayloadHeader, PayloadKind};
use super::layout::{Extra, Record};
use super::package::{Attribute, IndexRecord, Warning};
use super::reader::{Payload, Reader};
use super::{extras, meta};
use crate::metadata::Metadata;

/// Everything that a stone holds but the bytes of its files.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// What the file is for.
    pub file_type: FileType,
    /// Length of the file in bytes.
    pub size: u64,
    /// Its payloads in the order of the file.
    pub payloads: Vec<PayloadDescription>,
    /// One for a package, any number for an index or a manifest.
    pub packages: Vec<Metadata>,
    /// The entries of a package.
    pub layout: Vec<EntryDescription>,
    /// The unique files of a package.
    pub index: Vec<IndexDescription>,
    /// Pairs of key and value, with everything but printable ASCII escaped.
    pub attributes: Vec<(String, String)>,
    /// What was odd.
    pub warnings: Vec<String>,
}

/// One payload of a file.
#[derive(Clone, Debug, Serialize)]
pub struct PayloadDescription {
    /// What it holds.
    pub kind: PayloadKind,
    /// How its body is stored.
    pub compression: Compression,
    /// Version of the payload, which nobody looks at.
    pub version: u16,
    /// How many records it announces.
    pub records: u32,
    /// Offset of its body in the file.
    pub offset: u64,
    /// Length of its body in the file, in bytes.
    pub stored_size: u64,
    /// Length of its decompressed body in bytes, as its header says.
    pub plain_size: u64,
    /// XXH3-64 of the stored body in hexadecimal digits.
    pub checksum: String,
    /// Why it could not be read.
    pub problem: Option<String>,
}

/// One entry of a package. Texts have everything but printable ASCII escaped.
#[derive(Clone, Debug, Serialize)]
pub struct EntryDescription {
    /// With a leading slash, not checked in any way.
    pub path: String,
    /// Such as `file` or `directory`; the number of an unknown kind.
    pub kind: String,
    /// All bits of `st_mode` in octal digits.
    pub mode: String,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// The format's reserved number.
    pub tag: u32,
    /// Key of a regular file, text of a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Seconds since 1970 and nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime: Option<(i64, u32)>,
    /// Names and values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(String, String)>,
    /// Number of its group of hard links.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<u32>,
    /// Major and minor number of a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
}

/// One unique file of a package.
#[derive(Clone, Debug, Serialize)]
pub struct IndexDescription {
    /// Offset of its first byte in the plain content.
    pub start: u64,
    /// Offset after its last byte.
    pub end: u64,
    /// XXH3-128 of its bytes.
    pub key: BlobKey,
    /// BLAKE3 of its bytes, if the package tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// Describes a stone of any type, also one that could not be installed: a
/// payload that cannot be read is described by what is wrong with it, and
/// nothing else is checked.
///
/// Reads the whole file once, for the checksums.
///
/// # Errors
/// Those of [`Reader::new`], and [`Error::Read`].
pub fn describe<R: Read + Seek>(from: R) -> Result<Description> {
    let mut reader = Reader::new(from)?;
    let mut description = Description {
        file_type: reader.file_type(),
        size: reader.size(),
        payloads: Vec::new(),
        packages: Vec::new(),
        layout: Vec::new(),
        index: Vec::new(),
        attributes: Vec::new(),
        warnings: Vec::new(),
    };
    let mut extras = Vec::new();
    let mut digests = Vec::new();
    for payload in reader.payloads().to_vec() {
        let result = description.add(&mut reader, &payload, &mut extras, &mut digests);
        let problem = match result {
            Ok(()) => None,
            Err(Error::Read(err)) => return Err(Error::Read(err)),
            Err(err) => Some(with_causes(&err)),
        };
        description.payloads.push(PayloadDescription::new(&payload, problem));
    }
    for (entry, extra) in description.layout.iter_mut().zip(extras) {
        entry.add(extra);
    }
    for (record, digest) in description.index.iter_mut().zip(digests) {
        record.digest = Some(digest);
    }
    if reader.trailing() > 0 {
        description.warnings.push(Warning::TrailingBytes(reader.trailing()).to_string());
    }
    Ok(description)
}

/// The error and its causes in one line, as it is data here.
fn with_causes(err: &Error) -> String {
    let mut text = err.to_string();
    let mut cause = std::error::Error::source(err);
    while let Some(err) = cause {
        text = format!("{text}: {err}");
        cause = err.source();
    }
    text
}

impl Description {
    fn add<R: Read + Seek>(
        &mut self,
        reader: &mut Reader<R>,
        payload: &Payload,
        extras: &mut Vec<Extra>,
        digests: &mut Vec<Digest>,
    ) -> Result<()> {
        let PayloadHeader { kind, records: count, .. } = payload.header;
        if matches!(kind, PayloadKind::Content | PayloadKind::Unknown(_)) {
            return reader.verify(payload);
        }
        let plain = reader.table(payload)?;
        match kind {
            PayloadKind::Meta => {
                let mut warnings = Vec::new();
                self.packages.push(meta::decode(count, &plain, &mut warnings)?);
                self.warnings.extend(warnings.iter().map(Warning::to_string));
            }
            PayloadKind::Layout => {
                for record in records(kind, count, &plain, Record::decode) {
                    self.layout.push(EntryDescription::new(&record?));
                }
            }
            PayloadKind::Index => {
                for record in records(kind, count, &plain, IndexRecord::decode) {
                    self.index.push(IndexDescription::new(&record?));
                }
            }
            PayloadKind::Attributes => {
                for record in records(kind, count, &plain, Attribute::decode) {
                    let Attribute { key, value } = record?;
                    self.attributes.push((escaped(&key), escaped(&value)));
                }
            }
            PayloadKind::Extras => {
                for record in records(kind, count, &plain, Extra::decode) {
                    extras.push(record?);
                }
            }
            PayloadKind::Digests => {
                for record in records(kind, count, &plain, extras::decode_digest) {
                    digests.push(record?);
                }
            }
            PayloadKind::Content | PayloadKind::Unknown(_) => {}
        }
        Ok(())
    }
}

impl PayloadDescription {
    fn new(payload: &Payload, problem: Option<String>) -> Self {
        let header = payload.header;
        Self {
            kind: header.kind,
            compression: header.compression,
            version: header.version,
            records: header.records,
            offset: payload.offset,
            stored_size: header.stored_size,
            plain_size: header.plain_size,
            checksum: format!("{:016x}", header.checksum.0),
            problem,
        }
    }
}

impl EntryDescription {
    fn new(record: &Record) -> Self {
        let kind = match record.kind {
            1 => "file".into(),
            2 => "symlink".into(),
            3 => "directory".into(),
            4 => "character device".into(),
            5 => "block device".into(),
            6 => "fifo".into(),
            7 => "socket".into(),
            number => format!("unknown ({number})"),
        };
        let key = <[u8; BlobKey::LEN]>::try_from(&*record.source);
        let source = match (record.kind, key) {
            (1, Ok(key)) => Some(BlobKey::from_bytes(key).to_string()),
            _ if record.source.is_empty() => None,
            _ => Some(escaped(super::bytes::without_nuls(&record.source))),
        };
        Self {
            path: escaped(&record.full_path()),
            kind,
            mode: format!("{:06o}", record.mode),
            uid: record.uid,
            gid: record.gid,
            tag: record.tag,
            source,
            mtime: None,
            xattrs: Vec::new(),
            link: None,
            device: None,
        }
    }

    fn add(&mut self, extra: Extra) {
        self.mtime = extra.mtime.map(|mtime| (mtime.seconds(), mtime.nanoseconds()));
        self.xattrs =
            extra.xattrs.iter().map(|it| (escaped(&it.name), escaped(&it.value))).collect();
        self.link = extra.link;
        self.device = extra.device.map(|device| (device.major, device.minor));
    }
}

impl IndexDescription {
    fn new(record: &IndexRecord) -> Self {
        let IndexRecord { start, end, key, digest } = *record;
        Self { start, end, key, digest }
    }
}

fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
