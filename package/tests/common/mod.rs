//! Stones made by hand, right or wrong in any way.

use cairn_store::Checksum;

/// A payload with the header that somebody chose.
#[derive(Clone, Debug)]
pub struct RawPayload {
    pub kind: u8,
    pub records: u32,
    pub compression: u8,
    pub plain_size: u64,
    pub body: Vec<u8>,
}

pub const META: u8 = 1;
pub const CONTENT: u8 = 2;
pub const LAYOUT: u8 = 3;
pub const INDEX: u8 = 4;

impl RawPayload {
    /// Without compression, and with a right size.
    pub fn plain(kind: u8, records: u32, body: Vec<u8>) -> Self {
        Self { kind, records, compression: 1, plain_size: body.len() as u64, body }
    }

    /// Frames that are said to hold `plain_size` bytes.
    pub fn frames(kind: u8, records: u32, plain_size: u64, body: Vec<u8>) -> Self {
        Self { kind, records, compression: 2, plain_size, body }
    }
}

/// A stone of these payloads, with right checksums.
pub fn stone(file_type: u8, payloads: &[RawPayload]) -> Vec<u8> {
    let mut out = b"\0mos".to_vec();
    out.extend(u16::try_from(payloads.len()).expect("few").to_be_bytes());
    out.extend([0, 0, 1, 0, 0, 2, 0, 0, 3, 0, 0, 4, 0, 0, 5, 0, 0, 6, 0, 0, 7]);
    out.extend([file_type, 0, 0, 0, 1]);
    for RawPayload { kind, records, compression, plain_size, body } in payloads {
        out.extend((body.len() as u64).to_be_bytes());
        out.extend(plain_size.to_be_bytes());
        out.extend(Checksum::of(body).0.to_be_bytes());
        out.extend(records.to_be_bytes());
        out.extend([0, 1, *kind, *compression]);
        out.extend(body);
    }
    out
}

/// One record of a Meta payload.
pub fn meta_record(tag: u16, kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u32::try_from(value.len()).expect("short").to_be_bytes();
    [&len[..], &tag.to_be_bytes(), &[kind, 0], value].concat()
}

/// All that a package must say of itself.
pub fn meta_records(name: &str) -> Vec<Vec<u8>> {
    let name = format!("{name}\0").into_bytes();
    let texts = [(1, &name[..]), (3, b"1\0"), (2, b"x\0"), (4, b"\0"), (5, b"\0"), (6, b"\0")];
    let mut records: Vec<Vec<u8>> =
        texts.iter().map(|(tag, text)| meta_record(*tag, 9, text)).collect();
    records.push(meta_record(7, 9, &name));
    records.push(meta_record(11, 8, &[0, 0, 0, 0, 0, 0, 0, 1]));
    records.push(meta_record(13, 8, &[0, 0, 0, 0, 0, 0, 0, 1]));
    records
}

/// A Meta payload of these records.
pub fn meta(records: &[Vec<u8>]) -> RawPayload {
    RawPayload::plain(META, u32::try_from(records.len()).expect("few"), records.concat())
}

/// One record of a Layout payload, owned by root.
pub fn layout_record(kind: u8, mode: u32, source: &[u8], target: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 8];
    out.extend(mode.to_be_bytes());
    out.extend([0; 4]);
    out.extend(u16::try_from(source.len()).expect("short").to_be_bytes());
    out.extend(u16::try_from(target.len()).expect("short").to_be_bytes());
    out.push(kind);
    out.extend([0; 11]);
    out.extend(source);
    out.extend(target);
    out
}

/// One record of an Index payload.
pub fn index_record(start: u64, end: u64, key: &[u8; 16]) -> Vec<u8> {
    [&start.to_be_bytes()[..], &end.to_be_bytes(), key].concat()
}
