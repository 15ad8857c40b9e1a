//! The build root: packages, and what a build finds beside them.

use std::collections::BTreeMap;

use cairn_package::apart::{Apart, ApartRoot};
use cairn_package::plan::Progress;
use cairn_package::repository::Repositories;
use cairn_store::tree::{Content, Leaf};
use cairn_store::{
    Attributes, Edit, Entry, Store, Transaction, TreeId, TreePath, TreeReader, edit, resolve,
};

use crate::analyse::BuildRoot;
use crate::error::Result;
use crate::guest;
use crate::needs::Alternatives;

/// Grows when the same packages become another root than before.
const REVISION: u32 = 2;

/// Names that programs expect and that nobody's package has: elsewhere they are
/// made when packages are installed. The first program that is there is taken.
const LINKS: [(&str, &[&str]); 8] = [
    ("usr/bin/awk", &["gawk", "mawk", "original-awk"]),
    ("usr/bin/c++", &["g++", "clang++"]),
    ("usr/bin/c99", &["c99-gcc", "gcc"]),
    ("usr/bin/cc", &["gcc", "clang"]),
    ("usr/bin/lex", &["flex"]),
    ("usr/bin/pkg-config", &["pkgconf"]),
    ("usr/bin/sh", &["dash", "bash"]),
    ("usr/bin/yacc", &["bison.yacc", "byacc"]),
];

/// Directories below /usr that programs expect below / too, where they are at all.
const MERGED: [&str; 2] = ["lib32", "libx32"];

/// Chooses the packages of a build root and makes it. If the same packages were a
/// build root before, that is taken, which costs next to nothing.
///
/// # Errors
/// [`crate::Error::Packages`]: something is not offered by any package, or the
/// packages do not go together.
pub fn make(
    store: &Store,
    repositories: Repositories,
    needs: &[Alternatives],
    purpose: &str,
    progress: &dyn Progress,
) -> Result<ApartRoot> {
    let apart = Apart::read(store, repositories)?;
    let mut wanted = Vec::with_capacity(needs.len());
    for alternatives in needs {
        wanted.push(apart.first_known(alternatives)?.clone());
    }
    wanted.sort();
    wanted.dedup();
    let packages = apart.select(wanted)?;
    let mark = format!("build root {REVISION}");
    Ok(apart.compose(&packages, &mark, purpose, furnish, progress)?)
}

/// Adds the directories that a build finds everywhere, and the links of
/// [`LINKS`].
fn furnish(transaction: &mut Transaction, tree: TreeId) -> cairn_package::Result<TreeId> {
    let path = |text: &str| TreePath::new(text.as_bytes()).expect("a path of the tables");
    let mut edits: BTreeMap<TreePath, Edit> = BTreeMap::new();
    let names = [guest::RECIPE, guest::SOURCES, guest::BUILD, guest::INSTALL];
    for name in names.iter().chain(&guest::CACHES) {
        let directory = Edit::Directory(Attributes::implied_directory());
        edits.insert(path(&guest::below(name)), directory);
    }
    let has = |transaction: &Transaction, text: &str| {
        resolve(transaction, tree, &path(text)).map(|it| it.is_some())
    };
    let link_to = |target: &str| {
        let content = Content::Symlink(target.as_bytes().into());
        Edit::Leaf(Leaf { attributes: Attributes::of_root(0o777), content, link: None })
    };
    for name in MERGED {
        let target = format!("usr/{name}");
        if has(transaction, &target)? && !has(transaction, name)? {
            edits.insert(path(name), link_to(&target));
        }
    }
    for (link, programs) in LINKS {
        if has(transaction, link)? {
            continue;
        }
        let directory = link.rsplit_once('/').map_or("", |(directory, _)| directory);
        for program in programs {
            if has(transaction, &format!("{directory}/{program}"))? {
                edits.insert(path(link), link_to(program));
                break;
            }
        }
    }
    Ok(edit(transaction, tree, &edits)?)
}

/// A build root in a store.
#[derive(Debug)]
pub struct RootTree<'a, T> {
    /// Where it is read from.
    pub from: &'a T,
    /// Its root directory.
    pub tree: TreeId,
}

impl<T: TreeReader> BuildRoot for RootTree<'_, T> {
    fn has(&self, path: &str) -> bool {
        self.leaf(path).is_some()
    }

    fn link(&self, path: &str) -> Option<String> {
        match self.leaf(path)?.content {
            Content::Symlink(text) => String::from_utf8(text.into()).ok(),
            _ => None,
        }
    }
}

impl<T: TreeReader> RootTree<'_, T> {
    fn leaf(&self, path: &str) -> Option<Leaf> {
        let path = TreePath::new(path.as_bytes()).ok()?;
        // Damage is found where the file is used.
        match resolve(self.from, self.tree, &path).ok().flatten()? {
            Entry::Leaf(leaf) => Some(leaf),
            _ => None,
        }
    }
}
