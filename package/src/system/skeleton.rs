//! The directories that every system root has, whatever is installed.

use cairn_store::tree::{Content, Leaf};
use cairn_store::{Attributes, Entry, Name, Result, Transaction, Tree, TreeId};

/// Name under which the skeleton claims its directories; no package can have
/// it.
pub(super) const OWNER: &str = ".skeleton";

/// Directories with their modes, as in hier(7) and file-hierarchy(7).
const DIRECTORIES: [(&str, u16); 13] = [
    ("boot", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
];

/// Directories below usr that the links of the root lead to.
const BELOW_USR: [&str; 5] = ["bin", "lib", "lib64", "sbin", "share"];

/// Links of the root, for everything that was built before /usr was merged.
const LINKS: [(&str, &str); 4] =
    [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin")];

/// Adds the root directory of a system in which nothing is installed.
pub fn put_skeleton(transaction: &mut Transaction) -> Result<TreeId> {
    let name = |text: &str| Name::new(text.as_bytes()).expect("the names of the tables are names");
    let mut entries = Vec::new();
    for (directory, mode) in DIRECTORIES {
        let tree = Tree::empty(Attributes::of_root(mode));
        entries.push((name(directory), transaction.put_subtree(tree)?));
    }
    for (link, target) in LINKS {
        let content = Content::Symlink(target.as_bytes().into());
        let leaf = Leaf { attributes: Attributes::of_root(0o777), content, link: None };
        entries.push((name(link), Entry::Leaf(leaf)));
    }
    let mut below_usr = Vec::new();
    for directory in BELOW_USR {
        let tree = Tree::empty(Attributes::implied_directory());
        below_usr.push((name(directory), transaction.put_subtree(tree)?));
    }
    let usr = Tree::new(Attributes::implied_directory(), below_usr);
    let usr = transaction.put_subtree(usr.expect("the table has no name twice"))?;
    entries.push((name("usr"), usr));
    let root = Tree::new(Attributes::implied_directory(), entries);
    transaction.put_tree(root.expect("the tables have no name twice"))
}
