//! Everything below a directory, from different sources, to be compared.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use cairn_store::tree::{self, LinkGroup};
use cairn_store::{Content, Store, TreeId};

use crate::sys;

/// Entries by path; the root is the empty path, all others have no slash in
/// front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing(pub BTreeMap<Vec<u8>, Entry>);

/// What can be seen of one entry.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is, with what only this kind has.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Seconds and nanoseconds; directories of a composed root have no time of
    /// their own, so that theirs is left out here.
    pub mtime: Option<(i64, u32)>,
    /// For one of several hard links, the smallest path of all of them, and how
    /// many there are.
    pub links: Option<(Vec<u8>, u64)>,
    /// Extended attributes by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file: its length, and the BLAKE3 of its content.
    File { size: u64, digest: [u8; 32] },
    /// A symbolic link with its text.
    Symlink(Vec<u8>),
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Listing {
    /// Reads all that lies below `root`, with every byte of its files, as any
    /// program can see it. The root itself is in it.
    ///
    /// # Panics
    /// If something cannot be read, or two ways to look disagree.
    #[must_use]
    pub fn of_directory(root: &Path) -> Self {
        let mut listing = Self::default();
        let mut inodes = HashMap::new();
        listing.add_directory(root, &mut Vec::new(), &mut inodes);
        listing.name_groups(inodes.into_values());
        listing
    }

    fn add_directory(
        &mut self,
        directory: &Path,
        above: &mut Vec<u8>,
        inodes: &mut HashMap<(u64, u64), Vec<Vec<u8>>>,
    ) {
        self.0.insert(above.clone(), entry_at(directory));
        let len = above.len();
        for found in fs::read_dir(directory).unwrap() {
            let found = found.unwrap();
            let path = found.path();
            if len > 0 {
                above.push(b'/');
            }
            above.extend_from_slice(found.file_name().as_bytes());
            if found.file_type().unwrap().is_dir() {
                self.add_directory(&path, above, inodes);
            } else {
                let metadata = fs::symlink_metadata(&path).unwrap();
                assert_eq!(metadata.file_type(), found.file_type().unwrap(), "{}", path.display());
                if metadata.nlink() > 1 {
                    let inode = (metadata.dev(), metadata.ino());
                    inodes.entry(inode).or_default().push(above.clone());
                }
                self.0.insert(above.clone(), entry_at(&path));
            }
            above.truncate(len);
        }
    }

    /// Reads the same out of a store, without any mount.
    ///
    /// # Panics
    /// If something cannot be read, or does not have the content that the tree
    /// names.
    #[must_use]
    pub fn of_tree(store: &Store, tree: TreeId) -> Self {
        let mut listing = Self::default();
        let mut groups = HashMap::new();
        listing.add_tree(store, tree, &mut Vec::new(), &mut groups);
        listing.name_groups(groups.into_values());
        listing
    }

    fn add_tree(
        &mut self,
        store: &Store,
        id: TreeId,
        above: &mut Vec<u8>,
        groups: &mut HashMap<LinkGroup, Vec<Vec<u8>>>,
    ) {
        let tree = store.tree(id).unwrap();
        let directory = entry_of(&tree.attributes, Kind::Directory);
        self.0.insert(above.clone(), Entry { mtime: None, ..directory });
        let len = above.len();
        for (name, entry) in tree.entries() {
            if len > 0 {
                above.push(b'/');
            }
            above.extend_from_slice(name.as_bytes());
            match entry {
                tree::Entry::Directory(below) => self.add_tree(store, below.id, above, groups),
                tree::Entry::Leaf(leaf) => {
                    let mut entry = entry_of(&leaf.attributes, kind_of(store, &leaf.content));
                    if let Some(link) = &leaf.link {
                        groups.entry(link.group).or_default().push(above.clone());
                        // The path follows when all members are known.
                        entry.links = Some((Vec::new(), link.count.into()));
                    }
                    self.0.insert(above.clone(), entry);
                }
            }
            above.truncate(len);
        }
    }

    /// Names groups of hard links by their smallest path.
    fn name_groups(&mut self, groups: impl Iterator<Item = Vec<Vec<u8>>>) {
        for paths in groups {
            let first = paths.iter().min().expect("a group has a member").clone();
            for path in &paths {
                let entry = self.0.get_mut(path).expect("members were listed");
                let (name, _) = entry.links.as_mut().expect("members are linked");
                name.clone_from(&first);
            }
        }
    }

    /// One line for each path at which the two differ.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let shown = |entry: Option<&Entry>| entry.map_or("nothing".into(), |it| format!("{it:?}"));
        let mut paths: Vec<&Vec<u8>> = self.0.keys().chain(other.0.keys()).collect();
        paths.sort();
        paths.dedup();
        paths
            .into_iter()
            .map(|path| (path, self.0.get(path), other.0.get(path)))
            .filter(|(_, left, right)| left != right)
            .map(|(path, left, right)| {
                format!("/{}: {} != {}", path.escape_ascii(), shown(left), shown(right))
            })
            .collect()
    }

    /// Checks that both are equal.
    ///
    /// # Panics
    /// With the first differences if not.
    pub fn assert_same(&self, other: &Self, what: &str) {
        let found = self.differences(other);
        let shown = found.iter().take(30).map(String::as_str).collect::<Vec<_>>().join("\n");
        assert!(found.is_empty(), "{what}: {} differences\n{shown}", found.len());
    }
}

fn entry_at(path: &Path) -> Entry {
    let metadata = fs::symlink_metadata(path).unwrap();
    let file_type = metadata.file_type();
    let (major, minor) = sys::device_numbers(metadata.rdev());
    let kind = if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_symlink() {
        let text = fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec();
        assert_eq!(text.len() as u64, metadata.size(), "{}", path.display());
        Kind::Symlink(text)
    } else if file_type.is_char_device() {
        Kind::CharDevice(major, minor)
    } else if file_type.is_block_device() {
        Kind::BlockDevice(major, minor)
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_socket() {
        Kind::Socket
    } else {
        let mut hasher = blake3::Hasher::new();
        let read = std::io::copy(&mut File::open(path).unwrap(), &mut hasher);
        let read = read.unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        assert_eq!(read, metadata.size(), "{}", path.display());
        Kind::File { size: metadata.size(), digest: hasher.finalize().into() }
    };
    let is_directory = kind == Kind::Directory;
    let mtime = (metadata.mtime(), metadata.mtime_nsec().try_into().expect("it is below 10^9"));
    let is_linked = !is_directory && metadata.nlink() > 1;
    Entry {
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: (!is_directory).then_some(mtime),
        links: is_linked.then(|| (Vec::new(), metadata.nlink())),
        xattrs: sys::xattrs(path).unwrap().into_iter().collect(),
    }
}

fn entry_of(attributes: &cairn_store::Attributes, kind: Kind) -> Entry {
    let xattrs = attributes.xattrs.iter();
    Entry {
        kind,
        mode: attributes.mode.into(),
        uid: attributes.uid,
        gid: attributes.gid,
        mtime: Some((attributes.mtime.seconds(), attributes.mtime.nanoseconds())),
        links: None,
        xattrs: xattrs.map(|xattr| (xattr.name.to_vec(), xattr.value.to_vec())).collect(),
    }
}

fn kind_of(store: &Store, content: &Content) -> Kind {
    match content {
        Content::File(blob) => {
            let bytes = store.read(blob).unwrap();
            assert_eq!(bytes.len() as u64, blob.size);
            Kind::File { size: blob.size, digest: blake3::hash(&bytes).into() }
        }
        Content::Symlink(text) => Kind::Symlink(text.to_vec()),
        Content::CharDevice(device) => Kind::CharDevice(device.major, device.minor),
        Content::BlockDevice(device) => Kind::BlockDevice(device.major, device.minor),
        Content::Fifo => Kind::Fifo,
        Content::Socket => Kind::Socket,
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::File { size, digest } => {
                write!(f, "file of {size} bytes {:02x}{:02x}", digest[0], digest[1])?;
            }
            Kind::Symlink(text) => write!(f, "link to {}", text.escape_ascii())?,
            kind => write!(f, "{kind:?}")?,
        }
        write!(f, " {:04o} {}:{}", self.mode, self.uid, self.gid)?;
        if let Some((seconds, nanoseconds)) = self.mtime {
            write!(f, " {seconds}.{nanoseconds:09}")?;
        }
        if let Some((first, count)) = &self.links {
            write!(f, " one of {count} links of /{}", first.escape_ascii())?;
        }
        for (name, value) in &self.xattrs {
            write!(f, " {}={}", name.escape_ascii(), value.escape_ascii())?;
        }
        Ok(())
    }
}
