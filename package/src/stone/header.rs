//! What a file and each of its payloads begin with: 32 bytes each.

use std::fmt;

use cairn_store::Checksum;

use super::error::{Error, Result};

/// Length of the prelude, and of the header of a payload.
pub(super) const HEADER_LEN: usize = 32;

const MAGIC: [u8; 4] = *b"\0mos";
/// Says nothing but that nobody changed line ends or zero bytes.
const PATTERN: [u8; 21] = [0, 0, 1, 0, 0, 2, 0, 0, 3, 0, 0, 4, 0, 0, 5, 0, 0, 6, 0, 0, 7];
const VERSION: u32 = 1;
const PAYLOAD_VERSION: u16 = 1;

/// Gives an enum of named numbers with [`Unknown`](FileType::Unknown) for the
/// rest both directions and a name to show.
macro_rules! numbered {
    ($type:ident { $($variant:ident = $number:literal $shown:literal,)* }) => {
        impl $type {
            pub(super) fn from_number(number: u8) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    other => Self::Unknown(other),
                }
            }

            /// The number in a file.
            #[must_use]
            pub fn number(self) -> u8 {
                match self {
                    $(Self::$variant => $number,)*
                    Self::Unknown(number) => number,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($shown),)*
                    Self::Unknown(number) => write!(f, "unknown ({number})"),
                }
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    };
}

/// What a stone file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// A package.
    Package,
    /// Reserved for the difference of two packages; nobody writes it.
    Delta,
    /// The index of a repository.
    Index,
    /// A build manifest.
    Manifest,
    /// A number that this version does not know.
    Unknown(u8),
}

numbered!(FileType {
    Package = 1 "package",
    Delta = 2 "delta",
    Index = 3 "index",
    Manifest = 4 "manifest",
});

/// What a payload holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PayloadKind {
    /// What a package says of itself.
    Meta,
    /// The bytes of all unique files.
    Content,
    /// Paths and what lies there.
    Layout,
    /// Where each unique file lies in the content.
    Index,
    /// Reserved pairs of key and value.
    Attributes,
    /// Cairn's: the BLAKE3 of each unique file.
    Digests,
    /// Cairn's: times, extended attributes, hard links, device numbers.
    Extras,
    /// A number that this version does not know; such payloads are skipped.
    Unknown(u8),
}

numbered!(PayloadKind {
    Meta = 1 "Meta",
    Content = 2 "Content",
    Layout = 3 "Layout",
    Index = 4 "Index",
    Attributes = 5 "Attributes",
    Digests = 0xc0 "Digests",
    Extras = 0xc1 "Extras",
});

/// How the body of a payload is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    Plain,
    /// As Zstandard frames.
    Zstd,
    /// A number that this version does not know; such payloads are skipped.
    Unknown(u8),
}

numbered!(Compression {
    Plain = 1 "plain",
    Zstd = 2 "zstd",
});

/// The first 32 bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prelude {
    pub(super) payloads: u16,
    pub(super) file_type: FileType,
}

impl Prelude {
    pub(super) fn encode(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.payloads.to_be_bytes());
        bytes[6..27].copy_from_slice(&PATTERN);
        bytes[27] = self.file_type.number();
        bytes[28..].copy_from_slice(&VERSION.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self> {
        let [m0, m1, m2, m3, p0, p1, pattern @ .., file_type, v0, v1, v2, v3] = bytes;
        if [*m0, *m1, *m2, *m3] != MAGIC {
            return Err(Error::NotAStone);
        }
        let version = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
        if version != VERSION {
            return Err(Error::UnsupportedVersion(version));
        }
        if *pattern != PATTERN {
            return Err(Error::DamagedPrelude);
        }
        let payloads = u16::from_be_bytes([*p0, *p1]);
        Ok(Self { payloads, file_type: FileType::from_number(*file_type) })
    }
}

/// The 32 bytes before the body of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadHeader {
    /// Length of the body in the file, in bytes.
    pub stored_size: u64,
    /// Length of the decompressed body in bytes, as the file says. Writers
    /// exist that count too much for Meta and Attributes.
    pub plain_size: u64,
    /// XXH3-64 of the body as it is stored.
    pub checksum: Checksum,
    /// How many records the body has; without meaning for Content.
    pub records: u32,
    /// Always 1; nobody looks at it.
    pub version: u16,
    /// What the body holds.
    pub kind: PayloadKind,
    /// How the body is stored.
    pub compression: Compression,
}

impl PayloadHeader {
    /// The header of a body whose sizes and checksum are not known yet.
    pub(super) fn new(kind: PayloadKind, records: u32, compression: Compression) -> Self {
        let (stored_size, plain_size, checksum) = (0, 0, Checksum(0));
        let version = PAYLOAD_VERSION;
        Self { stored_size, plain_size, checksum, records, version, kind, compression }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&self.stored_size.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.plain_size.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.checksum.0.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.records.to_be_bytes());
        bytes[28..30].copy_from_slice(&self.version.to_be_bytes());
        bytes[30] = self.kind.number();
        bytes[31] = self.compression.number();
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let [stored, plain, checksum, [r0, r1, r2, r3, v0, v1, kind, compression]] = words else {
            unreachable!("32 bytes are four times 8 bytes")
        };
        Self {
            stored_size: u64::from_be_bytes(*stored),
            plain_size: u64::from_be_bytes(*plain),
            checksum: Checksum(u64::from_be_bytes(*checksum)),
            records: u32::from_be_bytes([*r0, *r1, *r2, *r3]),
            version: u16::from_be_bytes([*v0, *v1]),
            kind: PayloadKind::from_number(*kind),
            compression: Compression::from_number(*compression),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prelude_reads_back_and_its_damage_is_named() {
        let prelude = Prelude { payloads: 4, file_type: FileType::Index };
        let good = prelude.encode();
        assert_eq!(Prelude::decode(&good).expect("a prelude"), prelude);

        let check = |at: usize, expected: &str| {
            let mut bad = good;
            bad[at] ^= 1;
            let err = Prelude::decode(&bad).expect_err("damaged");
            assert_eq!(format!("{err:?}"), expected, "byte {at}");
        };
        check(0, "NotAStone");
        check(3, "NotAStone");
        check(6, "DamagedPrelude");
        check(26, "DamagedPrelude");
        check(31, "UnsupportedVersion(0)");
    }

    #[test]
    fn an_unknown_number_is_kept() {
        for number in 0..=255 {
            assert_eq!(FileType::from_number(number).number(), number);
            assert_eq!(PayloadKind::from_number(number).number(), number);
            assert_eq!(Compression::from_number(number).number(), number);
        }
    }
}
