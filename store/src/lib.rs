//! Blobs, packs, trees, states, transactions.
//!
//! Knows files and hashes, nothing about packages.

pub mod hash;
pub mod name;
pub mod tree;

pub use hash::{BlobHasher, BlobKey, BlobRef, Checksum, Digest, PackId, TreeId};
pub use name::{InvalidName, InvalidPath, Name, TreePath};
pub use tree::{Attributes, Content, Entry, Leaf, Subtree, Summary, Timestamp, Tree, Xattr};
