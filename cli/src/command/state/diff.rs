//! `cairn state diff`: what differs between the trees of two states.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use cairn_package::system::{Installed, InstalledPackage};
use cairn_store::{Attributes, Content, Difference, Entry, State, TreePath, diff};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::place::StateName;
use crate::units;

/// Show which packages and files differ between two states
///
/// Of a directory that only one of them has, only the top is shown.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// State to begin with (default: the parent of the other)
    old: Option<StateName>,
    /// State to end with
    #[arg(default_value = "current")]
    new: StateName,
}

#[derive(Serialize)]
struct Differences {
    old: u64,
    new: u64,
    packages: Vec<PackageChange>,
    changes: Vec<Change>,
}

/// A package that only one state has, or that they have in different versions.
#[derive(Serialize)]
struct PackageChange {
    name: String,
    old: Option<String>,
    new: Option<String>,
}

/// A path that differs.
#[derive(Serialize)]
pub(crate) struct Change {
    path: String,
    pub(crate) change: Kind,
    /// Entries that come or go with it, when it is a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entries: Option<u64>,
    /// Bytes that come with it, less those that go.
    pub(crate) bytes: i64,
    /// What changed of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    what: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// It has come.
    Added,
    /// It has gone.
    Removed,
    /// It is otherwise.
    Changed,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let new = args.new.find(&store)?;
    let old = match &args.old {
        Some(name) => name.find(&store)?,
        None => store.state(new.parent.ok_or(Error::NoParent(new.id))?)?,
    };
    let mut changes = Vec::new();
    diff(&store, old.tree, new.tree, &mut |path, difference| {
        changes.push(Change::new(path, difference));
        ControlFlow::Continue(())
    })?;
    let number = |state: &State| state.id.0;
    let installed = |state: &State| InstalledPackage::load_all(&store, state.packages);
    let packages = package_changes(&installed(&old)?, &installed(&new)?);
    output.data(&Differences { old: number(&old), new: number(&new), packages, changes })
}

fn package_changes(old: &Installed, new: &Installed) -> Vec<PackageChange> {
    let version = |package: &InstalledPackage| package.metadata.full_version();
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let pairs = names.into_iter().map(|name| (name, old.get(name), new.get(name)));
    let changed = pairs.filter(|(_, old, new)| {
        old.map(|package| &package.metadata) != new.map(|package| &package.metadata)
    });
    let change = |(name, old, new): (&String, Option<_>, Option<_>)| PackageChange {
        name: name.clone(),
        old: old.map(version),
        new: new.map(version),
    };
    changed.map(change).collect()
}

impl Change {
    /// What a comparison says of `path`.
    pub(crate) fn new(path: &TreePath, difference: Difference<'_>) -> Self {
        let bytes = |entry: &Entry| i64::try_from(entry.summary().bytes).unwrap_or(i64::MAX);
        let entries = |entry: &Entry| Some(entry.as_directory()?.summary.entries);
        let (change, entries, bytes, what) = match difference {
            Difference::Added(new) => (Kind::Added, entries(new), bytes(new), vec![]),
            Difference::Removed(old) => (Kind::Removed, entries(old), -bytes(old), vec![]),
            Difference::Changed(old, new) => {
                (Kind::Changed, None, bytes(new) - bytes(old), what_changed(old, new))
            }
            Difference::Attributes(old, new) => {
                (Kind::Changed, None, 0, which_attributes_changed(old, new))
            }
        };
        Self { path: Escaped(&path.to_bytes()).to_string(), change, entries, bytes, what }
    }
}

fn what_changed(old: &Entry, new: &Entry) -> Vec<String> {
    let (Some(left), Some(right)) = (old.as_leaf(), new.as_leaf()) else {
        return vec![format!("{} -> {}", kind(old), kind(new))];
    };
    if kind(old) != kind(new) {
        return vec![format!("{} -> {}", kind(old), kind(new))];
    }
    let mut what = Vec::new();
    match (&left.content, &right.content) {
        (old, new) if old == new => {}
        (Content::Symlink(old), Content::Symlink(new)) => {
            what.push(format!("target {} -> {}", Escaped(old), Escaped(new)));
        }
        _ => what.push("content".into()),
    }
    if left.link != right.link {
        what.push("hard links".into());
    }
    what.extend(which_attributes_changed(&left.attributes, &right.attributes));
    what
}

fn kind(entry: &Entry) -> &'static str {
    match entry.as_leaf().map(|leaf| &leaf.content) {
        None => "directory",
        Some(Content::File(_)) => "file",
        Some(Content::Symlink(_)) => "symlink",
        Some(Content::CharDevice(_)) => "character device",
        Some(Content::BlockDevice(_)) => "block device",
        Some(Content::Fifo) => "fifo",
        Some(Content::Socket) => "socket",
    }
}

fn which_attributes_changed(old: &Attributes, new: &Attributes) -> Vec<String> {
    let mut what = Vec::new();
    if old.mode != new.mode {
        what.push(format!("mode {:04o} -> {:04o}", old.mode, new.mode));
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        what.push(format!("owner {}:{} -> {}:{}", old.uid, old.gid, new.uid, new.gid));
    }
    if old.xattrs != new.xattrs {
        what.push("extended attributes".into());
    }
    if old.mtime != new.mtime {
        what.push("time".into());
    }
    what
}

impl View for Differences {
    fn show(&self, page: &mut Page) {
        for package in &self.packages {
            let name = &package.name;
            match (&package.old, &package.new) {
                (Some(old), Some(new)) => {
                    page.marked_line(Style::Note, "~ ", format_args!("{name} {old} -> {new}"));
                }
                (Some(old), None) => {
                    page.marked_line(Style::Bad, "- ", format_args!("{name} {old}"));
                }
                (None, new) => {
                    let new = new.as_deref().unwrap_or_default();
                    page.marked_line(Style::Good, "+ ", format_args!("{name} {new}"));
                }
            }
        }
        if !self.packages.is_empty() {
            page.blank();
        }
        show_changes(page, &self.changes, &format!("State {} to state {}", self.old, self.new));
    }
}

/// Writes one line a change, and what they come to in sum after `heading`.
pub(crate) fn show_changes(page: &mut Page, changes: &[Change], heading: &str) {
    for change in changes {
        let (style, sign) = match change.change {
            Kind::Added => (Style::Good, "+ "),
            Kind::Removed => (Style::Bad, "- "),
            Kind::Changed => (Style::Note, "~ "),
        };
        let mut line = change.path.clone();
        if let Some(entries) = change.entries {
            let size = units::size(change.bytes.unsigned_abs());
            line.push_str(&format!("/  ({} below, {size})", units::count(entries)));
        }
        if !change.what.is_empty() {
            line.push_str(&format!("  ({})", change.what.join(", ")));
        }
        page.marked_line(style, sign, line);
    }
    let number = |kind| changes.iter().filter(|change| change.change == kind).count();
    let bytes = changes.iter().fold(0_i64, |sum, change| sum.saturating_add(change.bytes));
    if !changes.is_empty() {
        page.blank();
    }
    page.line(format_args!(
        "{heading}: {} added, {} changed, {} removed, {}",
        number(Kind::Added),
        number(Kind::Changed),
        number(Kind::Removed),
        units::size_change(bytes),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_store::{BlobRef, Leaf};

    fn file(bytes: &[u8], mode: u16) -> Entry {
        Entry::Leaf(Leaf {
            attributes: Attributes::of_root(mode),
            content: Content::File(BlobRef::of(bytes)),
            link: None,
        })
    }

    #[test]
    fn a_change_says_what_changed() {
        let directory = Entry::Directory(cairn_store::Subtree {
            id: cairn_store::TreeId::of(b""),
            summary: cairn_store::Summary { entries: 3, bytes: 10, linked: 0 },
        });
        let path = TreePath::new(b"/usr/bin/x").unwrap();
        let (old, new) = (file(b"old", 0o755), file(b"longer", 0o4755));
        let check = |difference, bytes, entries, what: &[&str]| {
            let change = Change::new(&path, difference);
            assert_eq!((change.bytes, change.entries), (bytes, entries), "{what:?}");
            assert_eq!(change.what, what);
        };
        check(Difference::Added(&old), 3, None, &[]);
        check(Difference::Removed(&directory), -10, Some(3), &[]);
        check(Difference::Changed(&old, &new), 3, None, &["content", "mode 0755 -> 4755"]);
        check(Difference::Changed(&directory, &old), -7, None, &["directory -> file"]);
    }
}
