//! What the last import of a directory saw, so that the next one reads only
//! what has changed since.
//!
//! A file of the cache tells, for each entry of a tree that a state has, which
//! inode it was and when that was changed last. What still has the same inode
//! and times has the same content, attributes and extended attributes: the
//! kernel sets the ctime, and nobody else can. Three rules keep this true:
//!
//! - What was changed shortly before the scan that saw it began, or later, is noted as
//!   unknown: a change within the same tick of the clock would not show ("racily
//!   clean" in git's documentation of its index).
//! - Stores through a shared mapping into a page that is dirty do not set the ctime.
//!   So all dirty pages are written back between the scan and reading
//!   ([`Scan::write_back`](super::Scan)). A file that was changed last before the scan began,
//!   and still has that ctime when it is read, had no page made dirty in between: all
//!   its pages are clean then, and the next store shows. Had there been one, its ctime would
//!   be too late for the first rule. That no page became dirty is known from the beginning of the
//!   scan on, not from the end of writing back.
//! - Entries of filesystems of which this is not known are always unknown.
//!
//! Format: docs/store.md, "Cache of imports".

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::status::{Kind, Status};
use crate::error::{Error, Result};
use crate::hash::{BlobKey, Checksum, TreeId};
use crate::name::Name;
use crate::state::StateId;
use crate::store::Store;
use crate::tree::{Attributes, Content, Entry, Leaf, Timestamp, Tree};

const MAGIC: &[u8; 8] = b"CRNSEEN2";
const HEADER_LEN: usize = MAGIC.len() + 8 + TreeId::LEN + 8;
const RECORD_LEN: usize = 20;

/// How long before it was read a file may have been changed without a doubt.
///
/// Clocks of filesystems tick at least every two seconds; that is FAT's.
const TICK: Duration = Duration::from_secs(2);

/// What an earlier import saw of a directory.
#[derive(Debug)]
pub struct Known {
    store: Store,
    state: StateId,
    tree: TreeId,
    records: Vec<u8>,
}

/// A directory of it, unread.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownPlace {
    tree: TreeId,
    /// Number of its record; that of its first entry follows.
    record: usize,
}

/// A directory of it.
#[derive(Debug)]
pub(super) struct KnownDirectory<'a> {
    known: &'a Known,
    tree: Arc<Tree>,
    /// That of the directory as it is now.
    filesystem: u64,
    own: usize,
    /// Numbers of the records of its entries.
    records: Vec<usize>,
}

/// What was seen of one entry; zeros where nothing may be concluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    inode: u64,
    ctime: Timestamp,
}

impl Known {
    /// What the last import of `root` saw; `None` when there was none, when its
    /// state is gone, or when what it has written is damaged.
    ///
    /// The caller has the writer's lock, so that the state stays.
    pub(crate) fn load(store: &Store, root: &Path) -> Option<Self> {
        let bytes = fs::read(path_of(store, root)).ok()?;
        let (header, records) = bytes.split_at_checked(HEADER_LEN)?;
        let rest = header.strip_prefix(MAGIC)?;
        let (checksum, rest) = rest.split_first_chunk()?;
        let (tree, count) = rest.split_first_chunk()?;
        let count = u64::from_le_bytes(*count.as_array()?);
        let tree = TreeId::from_bytes(*tree);
        if Checksum(u64::from_le_bytes(*checksum)) != Checksum::of(&bytes[MAGIC.len() + 8..])
            || usize::try_from(count).ok()?.checked_mul(RECORD_LEN)? != records.len()
        {
            return None;
        }
        // What a state reaches is there. What none reaches may be gone in part.
        let refs = store.refs();
        let state = refs.states.values().rev().find(|state| state.tree == tree)?.id;
        let summary = store.tree(tree).ok()?.summary();
        if summary.entries.checked_add(1)? != count {
            return None;
        }
        Some(Self { store: store.clone(), state, tree, records: records.to_vec() })
    }

    /// The state that it was imported to.
    #[must_use]
    pub fn state(&self) -> StateId {
        self.state
    }

    pub(super) fn root(&self) -> KnownPlace {
        KnownPlace { tree: self.tree, record: 0 }
    }

    /// Reads a directory; `None` when that fails, since all can be read anew.
    pub(super) fn read(&self, place: KnownPlace, now: &Status) -> Option<KnownDirectory<'_>> {
        let tree = self.store.tree(place.tree).ok()?;
        let mut next = place.record + 1;
        let records = tree.entries().iter().map(|(_, entry)| {
            let below = entry.as_directory().map_or(0, |subtree| subtree.summary.entries);
            let record = next;
            next = next.saturating_add(1).saturating_add(usize::try_from(below).unwrap_or(0));
            record
        });
        let records = records.collect();
        let filesystem = now.filesystem;
        Some(KnownDirectory { known: self, tree, filesystem, own: place.record, records })
    }

    fn record(&self, number: usize) -> Option<Seen> {
        let (records, _) = self.records.as_chunks::<RECORD_LEN>();
        let [i0, i1, i2, i3, i4, i5, i6, i7, s0, s1, s2, s3, s4, s5, s6, s7, nanoseconds @ ..] =
            *records.get(number)?;
        let inode = u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]);
        let seconds = i64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let ctime = Timestamp::new(seconds, u32::from_le_bytes(nanoseconds))?;
        Some(Seen { inode, ctime })
    }
}

impl KnownDirectory<'_> {
    /// The attributes of the directory itself, if it has not been changed.
    pub(super) fn attributes(&self, now: &Status) -> Option<Attributes> {
        let is_same = self.known.record(self.own)?.is_of(now) && now.kind == Kind::Directory;
        is_same.then(|| self.tree.attributes.clone())
    }

    /// What is known of the entry `name`, if it has not been changed. Nothing is of a file of
    /// another filesystem that is mounted on it.
    pub(super) fn leaf(&self, name: &Name, now: &Status) -> Option<&Leaf> {
        let at = self.tree.position(name)?;
        let leaf = self.tree.entries()[at].1.as_leaf()?;
        let is_same_kind = match (&leaf.content, now.kind) {
            (Content::File(blob), Kind::File) => blob.size == now.size,
            (Content::Symlink(_), Kind::Symlink)
            | (Content::Fifo, Kind::Fifo)
            | (Content::Socket, Kind::Socket) => true,
            (Content::CharDevice(known), Kind::CharDevice(device))
            | (Content::BlockDevice(known), Kind::BlockDevice(device)) => *known == device,
            _ => false,
        };
        let is_same = is_same_kind
            && now.filesystem == self.filesystem
            && leaf.attributes.mtime == now.mtime
            && self.known.record(self.records[at])?.is_of(now);
        is_same.then_some(leaf)
    }

    /// Where the directory `name` is.
    pub(super) fn below(&self, name: &Name) -> Option<KnownPlace> {
        let at = self.tree.position(name)?;
        let Entry::Directory(subtree) = &self.tree.entries()[at].1 else { return None };
        Some(KnownPlace { tree: subtree.id, record: self.records[at] })
    }
}

impl Seen {
    /// What is to be kept of an entry that was read after `begun`.
    pub(super) fn new(status: &Status, begun: SystemTime) -> Self {
        let settled = begun.checked_sub(TICK).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let is_settled = settled.is_some_and(|settled| {
            let seconds = i64::try_from(settled.as_secs()).unwrap_or(i64::MAX);
            Timestamp::new(seconds, settled.subsec_nanos())
                .is_some_and(|settled| status.ctime < settled)
        });
        if is_settled { Self { inode: status.inode, ctime: status.ctime } } else { Self::default() }
    }

    /// Whether something may be concluded from it.
    pub(super) fn is_known(self) -> bool {
        self.inode != 0
    }

    fn is_of(&self, now: &Status) -> bool {
        self.is_known() && self.inode == now.inode && self.ctime == now.ctime
    }

    fn push_to(self, records: &mut Vec<u8>) {
        records.extend_from_slice(&self.inode.to_le_bytes());
        records.extend_from_slice(&self.ctime.seconds().to_le_bytes());
        records.extend_from_slice(&self.ctime.nanoseconds().to_le_bytes());
    }
}

/// Keeps what an import of `root` has seen: of each entry of `tree`, a directory
/// before what lies in it, sorted by name.
pub(super) fn save(store: &Store, root: &Path, tree: TreeId, seen: &[Seen]) -> Result<()> {
    let mut rest = Vec::with_capacity(HEADER_LEN + seen.len() * RECORD_LEN);
    rest.extend_from_slice(tree.as_bytes());
    rest.extend_from_slice(&(seen.len() as u64).to_le_bytes());
    for seen in seen {
        seen.push_to(&mut rest);
    }
    let checksum = Checksum::of(&rest).0.to_le_bytes();
    let bytes = [&MAGIC[..], &checksum, &rest].concat();
    let path = path_of(store, root);
    let temporary = path.with_extension("new");
    // A cache: not synced, and whatever a power cut leaves of it is told by its
    // checksum.
    let directory = path.parent().map_or(Ok(()), fs::create_dir_all);
    directory
        .and_then(|()| fs::write(&temporary, bytes))
        .and_then(|()| fs::rename(&temporary, &path))
        .map_err(Error::io(path))
}

fn path_of(store: &Store, root: &Path) -> PathBuf {
    let name = BlobKey::of(root.as_os_str().as_bytes());
    store.path().join("cache/imports").join(name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::Draft;

    fn seen(inode: u64, seconds: i64, nanoseconds: u32) -> Seen {
        Seen { inode, ctime: Timestamp::new(seconds, nanoseconds).unwrap() }
    }

    /// A store with a state of two directories and two pipes, and what was seen of it.
    fn imported() -> (tempfile::TempDir, Store, TreeId, [Seen; 4]) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        let mut transaction = store.begin().unwrap();
        let attributes = Attributes::of_root(0o755);
        let pipe = || {
            let content = Content::Fifo;
            Entry::Leaf(Leaf { attributes: Attributes::of_root(0o600), content, link: None })
        };
        let name = |text: &[u8]| Name::new(text).unwrap();
        let below = Tree::new(attributes.clone(), vec![(name(b"pipe"), pipe())]).unwrap();
        let below = transaction.put_subtree(below).unwrap();
        let entries = vec![(name(b"a"), below), (name(b"b"), pipe())];
        let tree = transaction.put_tree(Tree::new(attributes, entries).unwrap()).unwrap();
        let draft = Draft { parent: None, request: "import".into(), tree, packages: tree };
        transaction.commit(draft).unwrap();
        let all = [
            seen(2, 1_793_000_000, 1),
            seen(u64::MAX, -1, 999_999_999),
            seen(0, 0, 0),
            seen(5, 9, 8),
        ];
        (directory, store, tree, all)
    }

    /// What an earlier version has written is read, is as docs/store.md tells, and is
    /// what is written today. `UPDATE_GOLDEN=1` keeps that.
    #[test]
    fn the_format_is_the_one_that_is_kept() {
        let root = Path::new("/some/where");
        let (_directory, store, tree, all) = imported();
        save(&store, root, tree, &all).unwrap();
        let path = path_of(&store, root);
        let key = xxhash_rust::xxh3::xxh3_128(b"/some/where");
        assert_eq!(path, store.path().join(format!("cache/imports/{key:032x}")));
        let written = fs::read(&path).unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/imported-2");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &written).unwrap();
        }
        let kept = fs::read(&golden).unwrap();
        assert!(written == kept, "{} is another format", golden.display());

        assert_eq!(kept.len(), 8 + 8 + 32 + 8 + 4 * 20);
        assert_eq!(&kept[..8], b"CRNSEEN2");
        assert_eq!(kept[8..16], xxhash_rust::xxh3::xxh3_64(&kept[16..]).to_le_bytes());
        assert_eq!(&kept[16..48], tree.as_bytes());
        assert_eq!(kept[48..56], 4_u64.to_le_bytes());
        let second = &kept[56 + 20..56 + 40];
        assert_eq!(second[..8], u64::MAX.to_le_bytes());
        assert_eq!(second[8..16], (-1_i64).to_le_bytes());
        assert_eq!(second[16..], 999_999_999_u32.to_le_bytes());

        fs::write(&path, &kept).unwrap();
        let known = Known::load(&store, root).unwrap();
        assert_eq!((known.state, known.tree), (StateId(1), tree));
        let read: Vec<_> = (0..5).map(|at| known.record(at)).collect();
        let expected: Vec<_> = all.into_iter().map(Some).chain([None]).collect();
        assert_eq!(read, expected);
        let directory = super::super::HostDirectory::open(Path::new("/")).unwrap();
        let top = known.read(known.root(), &directory.own_status().unwrap()).unwrap();
        assert_eq!((top.own, &top.records[..]), (0, &[1, 3][..]));
    }

    #[test]
    fn a_cache_that_is_damaged_or_of_an_earlier_version_is_as_none() {
        let root = Path::new("/some/where");
        let (_directory, store, tree, all) = imported();
        save(&store, root, tree, &all).unwrap();
        let path = path_of(&store, root);
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert!(Known::load(&store, root).is_none(), "byte {at}");
        }
        for len in 0..bytes.len() {
            fs::write(&path, &bytes[..len]).unwrap();
            assert!(Known::load(&store, root).is_none(), "{len} bytes");
        }
        // It was written without regard to mappings.
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/imported-1");
        fs::copy(golden, &path).unwrap();
        assert!(Known::load(&store, root).is_none());
        fs::write(&path, &bytes).unwrap();
        assert!(Known::load(&store, root).is_some());
    }
}
