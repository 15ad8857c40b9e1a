//! Parsers of the crate `cairn-store`.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::LazyLock;

use cairn_store::archive::{ArchiveOptions, Image, Whiteouts, import_archives};
use cairn_store::export::{ArchiveNames, export_archive};
use cairn_store::tree::InvalidTree;
use cairn_store::{
    BlobKey, BlobRef, Checksum, Digest, GcOptions, Imported, PackId, Refs, Result, Standing,
    StateId, Store, Tree, TreeId,
};
use sha2::{Digest as _, Sha256};

use super::u32_at;

/// Runs `work` in a store of this thread, which is made anew now and then, since
/// each state that it gets makes it slower.
fn in_store<T>(work: impl FnOnce(&Store, &Path) -> T) -> T {
    struct Place {
        directory: tempfile::TempDir,
        store: Store,
        uses: usize,
    }
    thread_local!(static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) });
    PLACE.with_borrow_mut(|place| {
        if place.as_ref().is_none_or(|place| place.uses == 200) {
            let directory = super::temporary();
            let store = Store::create(&directory.path().join("store")).unwrap();
            *place = Some(Place { directory, store, uses: 0 });
        }
        let Place { directory, store, uses } = place.as_mut().expect("it was just made");
        *uses += 1;
        work(store, directory.path())
    })
}

/// The encoding of a directory and of its pages, each behind its length (u16, little-endian).
pub(super) fn tree(mut bytes: &[u8]) {
    let mut piece = || -> &[u8] {
        let Some((len, rest)) = bytes.split_first_chunk() else { return &[] };
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (piece, rest) = rest.split_at(len);
        bytes = rest;
        piece
    };
    let encoded = piece();
    let mut pages = Vec::new();
    let decoded = Tree::decode(encoded, |_| {
        pages.push(piece().to_vec());
        Ok::<_, InvalidTree>(pages[pages.len() - 1].clone())
    });
    let Ok(decoded) = decoded else { return };
    // What decodes encodes to the same bytes; the ids of pages follow from them.
    let again = decoded.encode();
    assert!(again.pages.iter().map(|(_, page)| page).eq(&pages), "other pages");
    assert!(again.bytes == encoded || !pages.is_empty(), "other bytes");
    assert_eq!(again.id, TreeId::of(&again.bytes));
    let mut pages = again.pages.into_iter();
    let same = Tree::decode(&again.bytes, |id| {
        let (of, page) = pages.next().expect("as many pages");
        assert_eq!(of, id);
        Ok::<_, InvalidTree>(page)
    });
    assert_eq!(same, Ok(decoded));
}

/// Where the tables of a pack begin, if its footer says something that can be.
fn tables_of(pack: &[u8]) -> Option<(usize, usize)> {
    let footer = pack.len().checked_sub(48)?;
    let objects = footer.checked_sub(u32_at(pack, footer + 4)?.checked_mul(65)?)?;
    let frames = objects.checked_sub(u32_at(pack, footer)?.checked_mul(16)?)?;
    Some((frames, objects))
}

/// Makes all checksums and the id of a pack right; returns the id.
fn seal(pack: &mut [u8]) -> Option<PackId> {
    let (frames_at, objects_at) = tables_of(pack)?;
    let footer = pack.len() - 48;
    let mut offset = 8_usize;
    for record in (frames_at..objects_at).step_by(16) {
        let end = offset.saturating_add(u32_at(pack, record)? & 0x7fff_ffff);
        if let Some(stored) = pack.get(offset..end) {
            let checksum = Checksum::of(stored).0.to_le_bytes();
            pack[record + 8..record + 16].copy_from_slice(&checksum);
        }
        offset = end;
    }
    let of = |bytes: &[u8]| Checksum::of(bytes).0.to_le_bytes();
    let (frames, objects) = (of(&pack[frames_at..objects_at]), of(&pack[objects_at..footer]));
    let tables = &pack[frames_at..footer];
    let is_dense = pack.ends_with(b"2KCAPNRC");
    let id = if is_dense { PackId::of_dense(tables) } else { PackId::of(tables) };
    pack[footer + 8..footer + 16].copy_from_slice(&frames);
    pack[footer + 16..footer + 24].copy_from_slice(&objects);
    pack[footer + 24..footer + 40].copy_from_slice(id.as_bytes());
    Some(id)
}

/// Puts a pack with right checksums into a store that lives as long as `work`.
fn with_pack(bytes: &[u8], work: impl FnOnce(&Store, &[u8])) {
    let mut pack = bytes.to_vec();
    let id = seal(&mut pack).unwrap_or(PackId::from_bytes([0; 16]));
    in_store(|store, _| {
        let path = store.path().join(format!("packs/{id}.pack"));
        fs::write(&path, &pack).unwrap();
        work(store, &pack);
        fs::remove_file(path).unwrap();
    });
}

/// A pack that is verified: every frame and object is read, and the tables compared.
pub(super) fn pack(bytes: &[u8]) {
    with_pack(bytes, |store, pack| {
        let report = store.verify(&()).expect("damage is no error");
        assert!(report.damage.iter().all(|damage| damage.error.is_damage()), "{report:?}");
        let has_unknown = !report.damage.is_empty();
        assert!(has_unknown || tables_of(pack).is_some(), "no pack, and no damage");
    });
}

/// A pack that comes to a small store, which has a state: the index learns of it, what it
/// says it holds is read, and it is collected.
pub(super) fn index(bytes: &[u8]) {
    let mut pack = bytes.to_vec();
    let Some(id) = seal(&mut pack) else { return };
    let (_, objects_at) = tables_of(&pack).expect("it was sealed");
    in_store(|store, _| {
        let packs = store.path().join("packs");
        for entry in fs::read_dir(&packs).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
        if store.refs().states.is_empty() {
            fs::write(store.path().join("refs/log"), &GOLDEN.log).unwrap();
            store.refresh().unwrap();
        }
        for (name, bytes) in &GOLDEN.packs {
            fs::write(packs.join(name), bytes).unwrap();
        }
        fs::write(packs.join(format!("{id}.pack")), &pack).unwrap();
        store.rebuild_index().expect("damage is no error");
        // It may have replaced what the state needs.
        let was_sound = is_sound(store);
        for record in pack[objects_at..pack.len() - 48].chunks_exact(65).take(32) {
            let digest = Digest::from_bytes(record[1..33].try_into().expect("32 bytes"));
            let key = BlobKey::from_bytes(record[33..49].try_into().expect("16 bytes"));
            let size = u64::from_le_bytes(record[57..].try_into().expect("8 bytes"));
            let blob = BlobRef { key, digest, size };
            match store.read(&blob) {
                Ok(bytes) => assert_eq!(Digest::of(&bytes), digest),
                Err(err) => assert!(err.is_damage(), "{err}"),
            }
            for offset in [0, 1, size / 2, size.saturating_sub(1), size, u64::MAX] {
                let read = store.read_at(&blob, offset, &mut [0; 100]);
                assert!(read.as_ref().is_ok_and(|len| *len <= 100) || read.is_err());
            }
            if let Err(err) = store.tree(TreeId::from_bytes(*digest.as_bytes())) {
                assert!(err.is_damage(), "{err}");
            }
        }
        match store.gc(GcOptions { rewrite_below: 100 }, &()) {
            Ok(_) => assert!(!was_sound || is_sound(store), "a collection took what is needed"),
            Err(err) => assert!(err.is_damage() && !was_sound, "{err}"),
        }
    });
}

/// Whether all that the states need can be read.
fn is_sound(store: &Store) -> bool {
    let ids: Vec<_> = store.refs().states.keys().copied().collect();
    store.verify_states(&ids, &()).expect("damage is no error").damage.is_empty()
}

/// The log and the packs of the store that is kept of the format's first version.
struct Golden {
    log: Vec<u8>,
    packs: Vec<(OsString, Vec<u8>)>,
}

static GOLDEN: LazyLock<Golden> = LazyLock::new(|| {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/tests/golden/store-1");
    let packs = fs::read_dir(store.join("packs")).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name(), fs::read(entry.path()).unwrap())
    });
    Golden { log: fs::read(store.join("refs/log")).unwrap(), packs: packs.collect() }
});

/// refs/log. Each line gets its checksum, and the one of the line before.
pub(super) fn log(bytes: &[u8]) {
    let mut log = Vec::new();
    let mut previous = Checksum::of(b"");
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        let whole = text.strip_suffix('\n').and_then(|text| text.split_once(' '));
        let Some((_, json)) = whole else {
            log.extend_from_slice(line);
            continue;
        };
        let json = json.replacen("@", &format!("{:016x}", previous.0), 1);
        previous = Checksum::of(json.as_bytes());
        log.extend_from_slice(format!("{:016x} {json}\n", previous.0).as_bytes());
    }
    match Refs::of_log("a store", &log) {
        Ok(refs) => {
            let is_there = |id: &StateId| refs.states.contains_key(id);
            assert!(refs.current.iter().all(is_there) && refs.tags.values().all(is_there));
            assert!(refs.states.keys().all(|id| *id <= refs.newest));
        }
        Err(err) => assert!(err.is_damage(), "{err}"),
    }
    let _ = Refs::of_log("a store", bytes);
}

const OPTIONS: ArchiveOptions<'_> =
    ArchiveOptions { request: "", parent: None, standing: Standing::Apart, holes: 16 << 20 };

fn import<'a>(
    store: &Store,
    layers: impl IntoIterator<Item = Result<Box<dyn Read + 'a>>>,
    whiteouts: Whiteouts,
) -> Result<Imported> {
    import_archives(store, layers, whiteouts, &OPTIONS, &())
}

fn layer<'a>(bytes: &'a [u8]) -> Result<Box<dyn Read + 'a>> {
    Ok(Box::new(bytes))
}

/// A tar archive that becomes a state; what is exported of it becomes the same.
pub(super) fn tar(bytes: &[u8]) {
    in_store(|store, _| {
        let Ok(imported) = import(store, [layer(bytes)], Whiteouts::None) else { return };
        let tree = imported.state.tree;
        let mut archive = Vec::new();
        export_archive(store, tree, ArchiveNames::Dotted, &mut archive, &()).unwrap();
        let again = import(store, [layer(&archive[..])], Whiteouts::None).unwrap();
        let archive_of = |tree| {
            let mut archive = Vec::new();
            export_archive(store, tree, ArchiveNames::Dotted, &mut archive, &()).unwrap();
            archive
        };
        assert!(archive_of(again.state.tree) == archive, "exported otherwise");
    });
}

/// What lies between the parts of a layout.
const CUT: &[u8] = b"\n----\n";

/// An OCI layout: its `oci-layout`, its blobs, its `index.json`. In all of them `@0@` is the
/// digest of the first blob, and so on.
pub(super) fn oci(bytes: &[u8]) {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(CUT.len()).position(|window| window == CUT) {
        parts.push(&rest[..at]);
        rest = &rest[at + CUT.len()..];
        if parts.len() > 16 {
            return;
        }
    }
    let Some((layout, blobs)) = parts.split_first() else { return };
    in_store(|store, directory| {
        let path = directory.join("layout");
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        fs::write(path.join("oci-layout"), layout).unwrap();
        let mut digests: Vec<String> = Vec::new();
        let resolve = |part: &[u8], digests: &[String]| -> Vec<u8> {
            let Ok(text) = std::str::from_utf8(part) else { return part.to_vec() };
            let mut text = text.to_owned();
            for (at, digest) in digests.iter().enumerate() {
                text = text.replace(&format!("@{at}@"), digest);
            }
            text.into_bytes()
        };
        for blob in blobs {
            let blob = resolve(blob, &digests);
            let hash = Sha256::digest(&blob);
            let digest: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            fs::write(path.join("blobs/sha256").join(&digest), blob).unwrap();
            digests.push(digest);
        }
        fs::write(path.join("index.json"), resolve(rest, &digests)).unwrap();
        let Ok(image) = Image::open(&path, None, "amd64") else { return };
        let first = import(store, image.layers(16 << 20), Whiteouts::Oci);
        let second = import(store, image.layers(16 << 20), Whiteouts::Oci);
        let tree_of = |imported: Result<Imported>| imported.ok().map(|it| it.state.tree);
        assert_eq!(tree_of(first), tree_of(second), "one image, two trees");
    });
}
