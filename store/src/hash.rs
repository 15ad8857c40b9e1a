//! The four kinds of hash, each a type of its own.
//!
//! | type | algorithm | what it may be used for |
//! |---|---|---|
//! | [`BlobKey`] | XXH3-128 | finding a blob; never proof that two contents are equal |
//! | [`Digest`] | BLAKE3-256 | proof of a blob's content |
//! | [`TreeId`] | BLAKE3-256, derived-key mode | proof of a directory and of all below it |
//! | [`Checksum`] | XXH3-64 | accidents on a disk or in a pipe |
//!
//! XXH3 is the hash of Yann Collet's xxHash 0.8 with seed 0 and the default
//! secret, written in its canonical, big-endian byte order.

use std::fmt;
use std::str::FromStr;

/// A text that is not the hexadecimal form of the wanted hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected} lower-case hexadecimal digits")]
pub struct InvalidHash {
    text: String,
    expected: usize,
}

macro_rules! hash_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length of the binary form in bytes.
            pub const LEN: usize = $len;

            /// Takes the binary form, as stored in files.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Gives the binary form, as stored in files.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidHash;

            fn from_str(text: &str) -> Result<Self, InvalidHash> {
                let invalid = || InvalidHash { text: text.into(), expected: 2 * $len };
                let digits = text.as_bytes();
                if digits.len() != 2 * $len {
                    return Err(invalid());
                }
                let mut bytes = [0; $len];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    let [high, low] = *pair else { return Err(invalid()) };
                    let nibble = |digit: u8| match digit {
                        b'0'..=b'9' => Some(digit - b'0'),
                        b'a'..=b'f' => Some(digit - b'a' + 10),
                        _ => None,
                    };
                    let (Some(high), Some(low)) = (nibble(high), nibble(low)) else {
                        return Err(invalid());
                    };
                    *byte = high << 4 | low;
                }
                Ok(Self(bytes))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hash_bytes! {
    /// XXH3-128 of a blob's bytes: its address in the store and in stones.
    BlobKey, 16
}
hash_bytes! {
    /// BLAKE3-256 of a blob's bytes: what proves them.
    Digest, 32
}
hash_bytes! {
    /// BLAKE3-256 of a tree's canonical encoding, in derived-key mode.
    ///
    /// Commits to every entry, attribute and byte below the directory.
    TreeId, 32
}
hash_bytes! {
    /// BLAKE3-256 of a page of a large directory, in derived-key mode.
    PageId, 32
}
hash_bytes! {
    /// First half of the BLAKE3-256 of a pack's table of contents.
    PackId, 16
}

impl BlobKey {
    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(bytes).to_be_bytes())
    }
}

impl Digest {
    /// Hashes `bytes`; equal to what `b3sum` prints.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl TreeId {
    /// Hashes the canonical encoding of a tree.
    #[must_use]
    pub fn of(encoded: &[u8]) -> Self {
        Self(blake3::derive_key("cairn 2026 tree v1", encoded))
    }
}

impl PageId {
    /// Hashes the encoding of a page.
    #[must_use]
    pub fn of(encoded: &[u8]) -> Self {
        Self(blake3::derive_key("cairn 2026 page v1", encoded))
    }
}

impl PackId {
    /// Hashes a pack's table of contents.
    #[must_use]
    pub fn of(table: &[u8]) -> Self {
        Self::under("cairn 2026 pack v1", table)
    }

    /// The same for a pack of version 2.
    #[must_use]
    pub fn of_dense(table: &[u8]) -> Self {
        Self::under("cairn 2026 pack v2", table)
    }

    fn under(context: &str, table: &[u8]) -> Self {
        let hash = blake3::derive_key(context, table);
        let (half, _) = hash.split_at(Self::LEN);
        Self(half.try_into().expect("a BLAKE3 hash has 32 bytes"))
    }
}

/// XXH3-64: catches accidents, proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checksum(pub u64);

impl Checksum {
    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(bytes))
    }
}

/// What names a blob, proves it and tells its size.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct BlobRef {
    /// Where to find it.
    pub key: BlobKey,
    /// What proves it.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

impl BlobRef {
    /// Names a blob whose bytes are in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = BlobHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }
}

/// Computes both hashes and the size of a blob in one pass over its bytes.
#[derive(Default)]
pub struct BlobHasher {
    key: xxhash_rust::xxh3::Xxh3Default,
    digest: blake3::Hasher,
    size: u64,
}

impl BlobHasher {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        // Both hashes see a piece while it is in the first-level cache.
        for piece in bytes.chunks(16 << 10) {
            self.key.update(piece);
            self.digest.update(piece);
        }
        self.size += bytes.len() as u64;
    }

    /// Names the blob that was hashed.
    #[must_use]
    pub fn finish(&self) -> BlobRef {
        BlobRef {
            key: BlobKey(self.key.digest128().to_be_bytes()),
            digest: Digest(*self.digest.finalize().as_bytes()),
            size: self.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_equal_the_published_vectors() {
        assert_eq!(BlobKey::of(b"").to_string(), "99aa06d3014798d86001c324468d497f");
        assert_eq!(
            BlobKey::of(b"#!/bin/sh\necho hi\n").to_string(),
            "38d6a0c73ce3aa28b9b26f0f4702a844"
        );
        assert_eq!(
            Digest::of(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        assert_eq!(Checksum::of(b"").0, 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn one_pass_gives_what_each_hash_gives() {
        let bytes: Vec<u8> = (0..100_000u32).map(|i| ((i * 31) >> 3).to_le_bytes()[0]).collect();
        let blob = BlobRef::of(&bytes);
        assert_eq!(blob.key, BlobKey::of(&bytes));
        assert_eq!(blob.digest, Digest::of(&bytes));
        assert_eq!(blob.size, 100_000);
    }

    #[test]
    fn the_text_form_reads_back_and_nothing_else_does() {
        let key = BlobKey::of(b"x");
        assert_eq!(key.to_string().parse(), Ok(key));
        for text in
            ["", "99", "99AA06D3014798D86001C324468D497F", "+9aa06d3014798d86001c324468d497"]
        {
            assert!(text.parse::<BlobKey>().is_err(), "{text}");
        }
    }
}
