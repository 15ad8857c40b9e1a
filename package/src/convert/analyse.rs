//! What the files of a package offer to other packages.
//!
//! The rules are those of [`crate::analyse`]; docs/convert.md, "Providers", has
//! them as a table. Nothing is added to the dependencies: Debian has computed
//! those already, from the same sonames, and names packages in them.

use std::collections::BTreeSet;

use cairn_store::name::Name;

use super::files::{BytesReader, Content, Files, Placed};
use crate::analyse;
use crate::dependency::{Dependency, Kind};

/// What the files offer, without the name of the package.
pub(super) fn providers(files: &Files) -> BTreeSet<Dependency> {
    let mut found = BTreeSet::new();
    for entry in &files.entries {
        let Some(path) = below_usr(entry) else { continue };
        analyse::of_name(&path, &mut found);
        if let Content::File(bytes) = &entry.content {
            of_bytes(&path, files.reader(bytes), &mut found);
        }
    }
    found
}

/// The names below `/usr`, if it is all UTF-8, as it is when it comes out of an
/// archive, and not a directory.
fn below_usr(entry: &Placed) -> Option<Vec<&str>> {
    let (top, names) = entry.path.names().split_first()?;
    let is_leaf = matches!(entry.content, Content::File(_) | Content::Symlink(_));
    let text = |name| str::from_utf8(Name::as_bytes(name)).ok();
    if top.as_bytes() == b"usr" && is_leaf { names.iter().map(text).collect() } else { None }
}

/// What the bytes of a regular file offer.
fn of_bytes(path: &[&str], bytes: BytesReader<'_>, found: &mut BTreeSet<Dependency>) {
    let Some(name) = path.last() else { return };
    if analyse::is_library_name(name) {
        if let Some(elf) = analyse::elf::read(bytes) {
            analyse::of_library(path, &elf, found);
        }
    } else if analyse::is_python_metadata(path)
        && let Some(text) = analyse::python_distribution(bytes)
    {
        found.insert(Dependency::new(Kind::Python, text));
    }
}
