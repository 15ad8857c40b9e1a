//! Packs and trees, read as docs/store.md tells and with nothing of the code that it
//! tells of: offsets by hand, and a panic where the bytes are not as written there.

use std::collections::BTreeMap;

use cairn_store::tree::{Content, Device, Entry, HardLink, Leaf, LinkGroup, Subtree, Summary};
use cairn_store::tree::{Timestamp, Tree, Xattr};
use cairn_store::{Attributes, BlobKey, BlobRef, Digest, Name, TreeId};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Objects by kind and hash.
pub type Objects = BTreeMap<(u8, [u8; 32]), Vec<u8>>;

pub const BLOB: u8 = 1;
pub const TREE: u8 = 2;
pub const STATE: u8 = 3;
pub const PAGE: u8 = 4;

/// A number of 2, 4 or 8 bytes, the lowest first.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn length(bytes: &[u8]) -> usize {
    usize::try_from(number(bytes)).unwrap()
}

/// "Packs": adds the objects of one to `objects`, and returns its id as in its name,
/// and how many of its frames are raw.
pub fn read_pack(bytes: &[u8], objects: &mut Objects) -> (String, usize) {
    let is_dense = &bytes[..8] == b"CRNPACK2";
    assert!(is_dense || &bytes[..8] == b"CRNPACK1");
    let (body, footer) = bytes.split_at(bytes.len() - 48);
    assert_eq!(&footer[40..], if is_dense { b"2KCAPNRC" } else { b"1KCAPNRC" });
    let (frame_count, object_count) = (length(&footer[..4]), length(&footer[4..8]));
    let objects_at = body.len() - 65 * object_count;
    let frames_at = objects_at - 16 * frame_count;
    let (frame_table, object_table) = (&body[frames_at..objects_at], &body[objects_at..]);
    assert_eq!(number(&footer[8..16]), xxh3_64(frame_table));
    assert_eq!(number(&footer[16..24]), xxh3_64(object_table));
    let context = if is_dense { "cairn 2026 pack v2" } else { "cairn 2026 pack v1" };
    let id = blake3::derive_key(context, &body[frames_at..]);
    assert_eq!(&footer[24..40], &id[..16]);

    let (mut at, mut frames, mut raw) = (8, Vec::new(), 0);
    for record in frame_table.chunks(16) {
        let is_raw = number(&record[..4]) >> 31 == 1;
        let stored_len = length(&record[..4]) & 0x7fff_ffff;
        let plain_len = length(&record[4..8]);
        let stored = &bytes[at..at + stored_len];
        assert_eq!(number(&record[8..16]), xxh3_64(stored));
        let plain = if is_raw { stored.to_vec() } else { zstd::decode_all(stored).unwrap() };
        let most = if is_dense { 4_194_304 } else { 131_072 };
        assert!(plain.len() == plain_len && plain_len <= most);
        // The plain bytes where compression would have saved less than a 32nd.
        assert!(is_raw || stored_len < plain_len - plain_len / 32);
        frames.push(plain);
        at += stored_len;
        raw += usize::from(is_raw);
    }
    assert_eq!(at, frames_at, "frames lie without gaps, and the tables behind them");

    for record in object_table.chunks(65) {
        let (kind, hash) = (record[0], <[u8; 32]>::try_from(&record[1..33]).unwrap());
        let (frame, offset) = (length(&record[49..53]), length(&record[53..57]));
        let len = length(&record[57..65]);
        // What a dense pack cuts, it cuts as long as the first frame is.
        let full_len = if is_dense { frames[frame].len().max(131_072) } else { 131_072 };
        let object = if len <= full_len {
            frames[frame][offset..offset + len].to_vec()
        } else {
            assert_eq!(offset, 0, "a long object begins a frame");
            let pieces = &frames[frame..frame + len.div_ceil(full_len)];
            let (last, full) = pieces.split_last().unwrap();
            assert!(full.iter().all(|piece| piece.len() == full_len));
            assert_eq!(full.len() * full_len + last.len(), len, "it shares no frame");
            pieces.concat()
        };
        let mut key = [0; 16];
        let expected = match kind {
            BLOB => {
                key = xxh3_128(&object).to_be_bytes();
                *blake3::hash(&object).as_bytes()
            }
            TREE => blake3::derive_key("cairn 2026 tree v1", &object),
            STATE => blake3::derive_key("cairn 2026 state v1", &object),
            PAGE => blake3::derive_key("cairn 2026 page v1", &object),
            _ => panic!("an object of kind {kind}"),
        };
        assert_eq!((hash, &record[33..49]), (expected, &key[..]));
        if kind == BLOB && len >= 1 << 20 && !is_dense {
            assert_eq!(object_count, 1, "a large blob has a pack of its own");
        }
        assert!(objects.insert((kind, hash), object).is_none(), "an object lies twice");
    }
    let id = id[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    (id, raw)
}

/// "Trees": the directory of this id.
pub fn read_tree(objects: &Objects, id: &[u8; 32]) -> Tree {
    let mut bytes = &objects[&(TREE, *id)][..];
    let attributes = take_attributes(&mut bytes);
    let count = length(take(&mut bytes, 4));
    let mut entries = Vec::new();
    if count < 256 {
        entries.extend((0..count).map(|_| take_entry(&mut bytes)));
    } else {
        while !bytes.is_empty() {
            let page = take(&mut bytes, 32).try_into().unwrap();
            let in_page = length(take(&mut bytes, 4));
            let mut page = &objects[&(PAGE, page)][..];
            for at in 1..=in_page {
                let (name, entry) = take_entry(&mut page);
                let ends = xxh3_64(&name).is_multiple_of(32) || entries.len() + 1 == count;
                assert_eq!(ends, at == in_page, "a page that ends with {name}");
                entries.push((name, entry));
            }
            assert!(page.is_empty() && in_page > 0);
        }
        assert_eq!(entries.len(), count);
    }
    assert!(bytes.is_empty() && entries.is_sorted_by(|(left, _), (right, _)| left < right));
    Tree::new(attributes, entries).unwrap()
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(len);
    *bytes = rest;
    taken
}

fn take_attributes(bytes: &mut &[u8]) -> Attributes {
    let fixed = take(bytes, 24);
    let seconds = i64::from_le_bytes(fixed[10..18].try_into().unwrap());
    let xattrs = (0..length(&fixed[22..24])).map(|_| {
        let len = length(take(bytes, 1));
        let name = take(bytes, len).into();
        let len = length(take(bytes, 4));
        Xattr { name, value: take(bytes, len).into() }
    });
    let xattrs: Vec<Xattr> = xattrs.collect();
    assert!(xattrs.is_sorted_by(|left, right| left.name < right.name));
    let word = |at: usize| u32::try_from(number(&fixed[at..at + 4])).unwrap();
    Attributes {
        mode: u16::try_from(number(&fixed[..2])).unwrap(),
        uid: word(2),
        gid: word(6),
        mtime: Timestamp::new(seconds, word(18)).unwrap(),
        xattrs,
    }
}

fn take_entry(bytes: &mut &[u8]) -> (Name, Entry) {
    let len = length(take(bytes, 1));
    let name = Name::new(take(bytes, len)).unwrap();
    let kind = take(bytes, 1)[0];
    if kind == 1 {
        let id = TreeId::from_bytes(take(bytes, 32).try_into().unwrap());
        let [entries, size, linked] = [(); 3].map(|()| number(take(bytes, 8)));
        let summary = Summary { entries, bytes: size, linked };
        return (name, Entry::Directory(Subtree { id, summary }));
    }
    let attributes = take_attributes(bytes);
    let link = (kind & 0x80 != 0).then(|| HardLink {
        group: LinkGroup(take(bytes, 16).try_into().unwrap()),
        count: u32::try_from(number(take(bytes, 4))).unwrap(),
    });
    let mut device = || {
        let [major, minor] = [(); 2].map(|()| u32::try_from(number(take(bytes, 4))).unwrap());
        Device { major, minor }
    };
    let content = match kind & 0x7f {
        2 => Content::File(BlobRef {
            key: BlobKey::from_bytes(take(bytes, 16).try_into().unwrap()),
            digest: Digest::from_bytes(take(bytes, 32).try_into().unwrap()),
            size: number(take(bytes, 8)),
        }),
        3 => {
            let len = length(take(bytes, 2));
            Content::Symlink(take(bytes, len).into())
        }
        4 => Content::CharDevice(device()),
        5 => Content::BlockDevice(device()),
        6 => Content::Fifo,
        7 => Content::Socket,
        _ => panic!("an entry of kind {kind:#x}"),
    };
    (name, Entry::Leaf(Leaf { attributes, content, link }))
}
