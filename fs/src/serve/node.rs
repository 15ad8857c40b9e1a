//! Which number a file or a directory has on a mount.
//!
//! Numbers are computed, never handed out: they are the same after a remount
//! and in another process. A file's follows from its path within the state's
//! tree (of hard links: from their group) and from everything that stat(2),
//! readlink(2) and getxattr(2) tell of it, so that the same file of two states
//! shares its pages, and two paths share a number only if they are one file.
//! A directory's follows from its path on the mount: the kernel allows a
//! directory one place, and across a live switch it stays the same directory.

use cairn_store::tree::{Content, LinkGroup};
use cairn_store::{Leaf, Name};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Number of a file or directory, at the same time its `st_ino`.
///
/// Below 2^56: overlayfs needs the upper bits to tell its layers apart. Aligned to four
/// bytes, so that nothing is left empty in the tables of what the kernel knows.
#[repr(Rust, packed(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

const MASK: u64 = (1 << 56) - 1;

// The seeds keep numbers of different kinds apart.
const DIRECTORY: u64 = 1;
const PATH: u64 = 2;
const LEAF: u64 = 3;
const LINKED_LEAF: u64 = 4;

impl NodeId {
    /// The root of the mount, as the kernel has it (`FUSE_ROOT_ID`).
    pub const ROOT: Self = Self(1);

    /// Takes what the kernel sent, which may be no number of ours.
    #[must_use]
    pub const fn from_kernel(raw: u64) -> Self {
        Self(raw)
    }

    /// The number as the kernel gets it.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number to try when another node has this one.
    #[must_use]
    pub(crate) const fn next(self) -> Self {
        Self::folded(self.0.wrapping_add(1))
    }

    /// Directory `name` in the directory `parent`.
    pub(crate) fn of_directory(parent: Self, name: &Name) -> Self {
        let mut bytes = Vec::with_capacity(8 + name.len());
        bytes.extend_from_slice(&parent.0.to_le_bytes());
        bytes.extend_from_slice(name);
        Self::folded(xxh3_64_with_seed(&bytes, DIRECTORY))
    }

    /// `leaf`, as `name` in the directory at `path` of its state's tree.
    pub(crate) fn of_leaf(path: PathHash, name: &Name, leaf: &Leaf) -> Self {
        let mut bytes = Vec::with_capacity(256);
        let seed = match leaf.link {
            Some(link) => {
                let LinkGroup(group) = link.group;
                bytes.extend_from_slice(&group);
                bytes.extend_from_slice(&link.count.to_le_bytes());
                LINKED_LEAF
            }
            None => {
                bytes.extend_from_slice(&path.child(name).0.to_le_bytes());
                LEAF
            }
        };
        let attributes = &leaf.attributes;
        bytes.extend_from_slice(&attributes.mode.to_le_bytes());
        bytes.extend_from_slice(&attributes.uid.to_le_bytes());
        bytes.extend_from_slice(&attributes.gid.to_le_bytes());
        bytes.extend_from_slice(&attributes.mtime.seconds().to_le_bytes());
        bytes.extend_from_slice(&attributes.mtime.nanoseconds().to_le_bytes());
        let mut put = |part: &[u8]| {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        };
        for xattr in &attributes.xattrs {
            put(&xattr.name);
            put(&xattr.value);
        }
        let kind = match &leaf.content {
            Content::File(blob) => {
                put(blob.digest.as_bytes());
                1
            }
            Content::Symlink(target) => {
                put(target);
                2
            }
            Content::CharDevice(device) | Content::BlockDevice(device) => {
                put(&device.major.to_le_bytes());
                put(&device.minor.to_le_bytes());
                if matches!(leaf.content, Content::CharDevice(_)) { 3 } else { 4 }
            }
            Content::Fifo => 5,
            Content::Socket => 6,
        };
        bytes.push(kind);
        Self::folded(xxh3_64_with_seed(&bytes, seed))
    }

    /// The number in a form for hash tables, which tell places apart by the lowest and the
    /// topmost bits; the topmost are 0 in a number.
    pub(crate) const fn spread(self) -> u64 {
        self.get().wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Makes a number out of a hash: 0 means "none" to the kernel, 1 the root.
    const fn folded(hash: u64) -> Self {
        match hash & MASK {
            id @ (0 | 1) => Self(id + 2),
            id => Self(id),
        }
    }
}

/// Hash of a directory's path within the tree of its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathHash(u64);

impl PathHash {
    /// The root of a state's tree.
    pub(crate) const ROOT: Self = Self(0);

    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// The hash of which [`PathHash::get`] gave this.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The path of `name` in this directory.
    pub(crate) fn child(self, name: &Name) -> Self {
        Self(xxh3_64_with_seed(name, self.0 ^ PATH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_store::tree::{Device, HardLink};
    use cairn_store::{Attributes, BlobRef, Timestamp, Xattr};
    use std::collections::HashSet;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn file(bytes: &[u8]) -> Leaf {
        let content = Content::File(BlobRef::of(bytes));
        Leaf { attributes: Attributes::of_root(0o644), content, link: None }
    }

    #[test]
    fn whatever_can_be_seen_of_a_file_changes_its_number() {
        let plain = file(b"text");
        let mut variants = vec![plain.clone(), file(b"other")];
        let mut vary = |change: &dyn Fn(&mut Leaf)| {
            let mut leaf = plain.clone();
            change(&mut leaf);
            variants.push(leaf);
        };
        vary(&|leaf| leaf.attributes.mode = 0o4644);
        vary(&|leaf| leaf.attributes.uid = 1);
        vary(&|leaf| leaf.attributes.gid = 1);
        vary(&|leaf| leaf.attributes.mtime = Timestamp::new(0, 1).unwrap());
        vary(&|leaf| leaf.attributes.mtime = Timestamp::new(1, 0).unwrap());
        for (key, value) in [("user.a", "bc"), ("user.ab", "c")] {
            let xattr = Xattr { name: key.as_bytes().into(), value: value.as_bytes().into() };
            vary(&|leaf| leaf.attributes.xattrs = vec![xattr.clone()]);
        }
        for count in [2, 3] {
            vary(&|leaf| leaf.link = Some(HardLink { group: LinkGroup([0; 16]), count }));
        }
        vary(&|leaf| leaf.link = Some(HardLink { group: LinkGroup([1; 16]), count: 2 }));
        let device = Device { major: 1, minor: 3 };
        for content in [
            Content::Symlink(b"text"[..].into()),
            Content::CharDevice(device),
            Content::BlockDevice(device),
            Content::Fifo,
            Content::Socket,
        ] {
            vary(&|leaf| leaf.content = content.clone());
        }
        let numbers: HashSet<NodeId> =
            variants.iter().map(|leaf| NodeId::of_leaf(PathHash::ROOT, &name("a"), leaf)).collect();
        assert_eq!(numbers.len(), variants.len());
    }

    #[test]
    fn two_paths_share_a_number_only_as_hard_links() {
        let (mut leaf, usr) = (file(b"text"), PathHash::ROOT.child(&name("usr")));
        let number = |leaf: &Leaf, path, text| NodeId::of_leaf(path, &name(text), leaf);
        let of_path = number(&leaf, PathHash::ROOT, "a");
        assert_ne!(of_path, number(&leaf, PathHash::ROOT, "b"));
        assert_ne!(of_path, number(&leaf, usr, "a"));
        leaf.link = Some(HardLink { group: LinkGroup::of(b"/a"), count: 2 });
        assert_eq!(number(&leaf, PathHash::ROOT, "a"), number(&leaf, usr, "b"));
    }

    #[test]
    fn no_number_is_reserved_or_too_large() {
        for hash in [0, 1, 2, MASK, MASK + 1, MASK + 2, u64::MAX] {
            let id = NodeId::folded(hash).get();
            assert!((2..=MASK).contains(&id), "{hash:x} became {id:x}");
        }
        assert_eq!(NodeId(MASK).next().get(), 2);
    }
}
