//! Cairn's own payloads, which other readers skip: the BLAKE3 of each unique
//! file, and what the layout cannot say of an entry.
//!
//! Format: docs/stone.md, "Cairn's payloads".

use cairn_store::tree::Device;
use cairn_store::{Digest, Timestamp, Xattr};

use super::bytes::{Cursor, Problem};
use super::layout::Extra;

const MTIME: u8 = 1;
const XATTRS: u8 = 2;
const LINK: u8 = 4;
const DEVICE: u8 = 8;

/// Reads a record of the Digests payload.
pub(super) fn decode_digest(from: &mut Cursor<'_>) -> Result<Digest, Problem> {
    from.array().map(Digest::from_bytes)
}

impl Extra {
    /// Reads a record of the Extras payload.
    pub(super) fn decode(from: &mut Cursor<'_>) -> Result<Self, Problem> {
        let flags = from.u8()?;
        if flags & !(MTIME | XATTRS | LINK | DEVICE) != 0 {
            return Err("it has parts unknown here");
        }
        let has = |flag| flags & flag != 0;
        let mut extra = Self::default();
        if has(MTIME) {
            let mtime = Timestamp::new(from.i64()?, from.u32()?);
            extra.mtime = Some(mtime.ok_or("a second of a billion nanoseconds or more")?);
        }
        if has(XATTRS) {
            for _ in 0..from.u16()? {
                let name_len = from.u8()?;
                let name = from.take(name_len.into())?.into();
                let value_len = from.u32()?;
                let value = from.take(value_len.into())?.into();
                extra.xattrs.push(Xattr { name, value });
            }
        }
        if has(LINK) {
            extra.link = Some(from.u32()?);
        }
        if has(DEVICE) {
            extra.device = Some(Device { major: from.u32()?, minor: from.u32()? });
        }
        Ok(extra)
    }

    /// Writes a record of the Extras payload; the entry must have been checked.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), Problem> {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.push(
            flag(self.mtime.is_some(), MTIME)
                | flag(!self.xattrs.is_empty(), XATTRS)
                | flag(self.link.is_some(), LINK)
                | flag(self.device.is_some(), DEVICE),
        );
        if let Some(mtime) = self.mtime {
            out.extend_from_slice(&mtime.seconds().to_be_bytes());
            out.extend_from_slice(&mtime.nanoseconds().to_be_bytes());
        }
        if !self.xattrs.is_empty() {
            let too_many = "it has too many extended attributes";
            let count = u16::try_from(self.xattrs.len()).map_err(|_| too_many)?;
            out.extend_from_slice(&count.to_be_bytes());
            for Xattr { name, value } in &self.xattrs {
                out.push(u8::try_from(name.len()).map_err(|_| too_many)?);
                out.extend_from_slice(name);
                let len = u32::try_from(value.len()).map_err(|_| too_many)?;
                out.extend_from_slice(&len.to_be_bytes());
                out.extend_from_slice(value);
            }
        }
        if let Some(link) = self.link {
            out.extend_from_slice(&link.to_be_bytes());
        }
        if let Some(Device { major, minor }) = self.device {
            out.extend_from_slice(&major.to_be_bytes());
            out.extend_from_slice(&minor.to_be_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_documentation() {
        let extra = Extra {
            mtime: Timestamp::new(-2, 3),
            xattrs: vec![Xattr { name: (*b"user.a").into(), value: (*b"bc").into() }],
            link: Some(5),
            device: Some(Device { major: 8, minor: 1 }),
        };
        let expected = [
            &[0x0f][..],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 3],
            &[0, 1, 6],
            b"user.a",
            &[0, 0, 0, 2],
            b"bc",
            &[0, 0, 0, 5],
            &[0, 0, 0, 8, 0, 0, 0, 1],
        ]
        .concat();
        let mut bytes = Vec::new();
        extra.encode(&mut bytes).expect("small");
        assert_eq!(bytes, expected);
        assert_eq!(Extra::decode(&mut Cursor::new(&bytes)), Ok(extra));
        for len in 0..bytes.len() {
            assert!(Extra::decode(&mut Cursor::new(&bytes[..len])).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn parts_to_come_and_impossible_times_are_refused() {
        for flags in 16..=255 {
            assert!(Extra::decode(&mut Cursor::new(&[flags; 64])).is_err(), "flags {flags}");
        }
        let mut bytes = vec![MTIME];
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&1_000_000_000u32.to_be_bytes());
        assert!(Extra::decode(&mut Cursor::new(&bytes)).is_err());
    }
}
