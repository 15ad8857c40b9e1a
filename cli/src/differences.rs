//! What differs between two trees, found and told.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;

use cairn_store::{
    Attributes, BlobRef, Content, Difference, Entry, Leaf, TreeId, TreePath, TreeReader, diff,
    resolve,
};
use serde::Serialize;
use similar::TextDiff;

use crate::error::Error;
use crate::escape::Escaped;
use crate::page::{Cell, Page, Style};
use crate::units;

/// What is told of what differs.
#[derive(clap::Args)]
pub(crate) struct What {
    /// Show only what differs at or below this path
    pub(crate) path: Option<OsString>,
    /// Show sums by directory instead of files
    #[arg(long)]
    stat: bool,
    /// Show how the lines of text files differ
    #[arg(short, long, conflicts_with = "stat")]
    patch: bool,
}

/// Reads the file that lies at a path.
type ReadFile<'a> = dyn Fn(&TreePath, &BlobRef) -> Result<Vec<u8>, Error> + 'a;

/// One of two trees that are compared.
pub(crate) struct Side<'a> {
    /// What people call it.
    pub(crate) name: String,
    pub(crate) tree: TreeId,
    pub(crate) content: &'a ReadFile<'a>,
}

/// All that differs.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Changes {
    changes: Vec<Change>,
    #[serde(skip)]
    stat: bool,
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
    /// How its lines changed, as in diff(1) with -u.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
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

impl What {
    /// Compares an old tree with a new one.
    pub(crate) fn compare(
        &self,
        trees: &dyn TreeReader,
        sides: &[Side<'_>; 2],
    ) -> Result<Changes, Error> {
        let patch = self.patch;
        let mut walk = Walk { trees, sides, patch, changes: Vec::new(), failed: None };
        match &self.path {
            None => walk.between(&TreePath::root(), sides[0].tree, sides[1].tree)?,
            Some(path) => {
                let not_a_path = || Error::NotAPath(Escaped(path.as_bytes()).to_string());
                let path = TreePath::new(path.as_bytes()).map_err(|_| not_a_path())?;
                walk.at(&path)?;
            }
        }
        match walk.failed {
            Some(err) => Err(err),
            None => Ok(Changes { changes: walk.changes, stat: self.stat }),
        }
    }
}

/// Gathers what differs.
struct Walk<'a> {
    trees: &'a dyn TreeReader,
    sides: &'a [Side<'a>; 2],
    patch: bool,
    changes: Vec<Change>,
    /// Why a patch could not be made.
    failed: Option<Error>,
}

impl Walk<'_> {
    /// Compares two directories that lie at `top`.
    fn between(&mut self, top: &TreePath, old: TreeId, new: TreeId) -> Result<(), Error> {
        let trees = self.trees;
        diff(&trees, old, new, &mut |path, difference| {
            let path: TreePath = top.names().iter().chain(path.names()).cloned().collect();
            self.add(&path, difference);
            match self.failed {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            }
        })?;
        Ok(())
    }

    /// Compares what lies at `path` of both.
    fn at(&mut self, path: &TreePath) -> Result<(), Error> {
        let [old, new] = self.sides;
        let before = resolve(&self.trees, old.tree, path)?;
        let after = resolve(&self.trees, new.tree, path)?;
        match (&before, &after) {
            (Some(Entry::Directory(old)), Some(Entry::Directory(new))) => {
                self.between(path, old.id, new.id)?;
            }
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) => self.add(path, Difference::Changed(old, new)),
            (Some(old), None) => self.add(path, Difference::Removed(old)),
            (None, Some(new)) => self.add(path, Difference::Added(new)),
            (None, None) => {
                let path = Escaped(&path.to_bytes()).to_string();
                return Err(Error::InNeither {
                    path,
                    names: [&old.name, &new.name].map(Clone::clone),
                });
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &TreePath, difference: Difference<'_>) {
        if self.patch
            && let Err(err) = self.add_patched(path, difference)
        {
            self.failed = Some(err);
        } else if !self.patch {
            self.changes.push(Change::new(path, difference));
        }
    }

    /// Adds a difference with its lines, and each of those below it.
    fn add_patched(&mut self, path: &TreePath, difference: Difference<'_>) -> Result<(), Error> {
        let mut change = Change::new(path, difference);
        change.patch = self.patch(path, difference)?;
        let below = match difference {
            Difference::Added(entry) | Difference::Removed(entry) => entry.as_directory(),
            Difference::Changed(..) | Difference::Attributes(..) => None,
        };
        let Some(below) = below else {
            self.changes.push(change);
            return Ok(());
        };
        // What comes and goes with it is told of what lies in it.
        (change.entries, change.bytes) = (None, 0);
        let is_added = change.change == Kind::Added;
        self.changes.push(change);
        for (name, entry) in self.trees.read_tree(below.id)?.entries() {
            let of_entry = if is_added { Difference::Added } else { Difference::Removed };
            self.add_patched(&path.join(name), of_entry(entry))?;
        }
        Ok(())
    }

    /// How the lines of a file differ; nothing if its content does not, and a line that says
    /// that it does where there are no lines.
    fn patch(&self, path: &TreePath, difference: Difference<'_>) -> Result<Option<String>, Error> {
        let (old, new) = match difference {
            Difference::Added(new) => (None, new.as_leaf()),
            Difference::Removed(old) => (old.as_leaf(), None),
            Difference::Changed(old, new) => (old.as_leaf(), new.as_leaf()),
            Difference::Attributes(..) => return Ok(None),
        };
        let blobs = [old, new].map(|leaf| leaf.and_then(Leaf::blob));
        if blobs[0] == blobs[1] {
            return Ok(None);
        }
        let shown = Escaped(&path.to_bytes()).to_string();
        let name = |side: char, leaf: Option<&Leaf>| match leaf {
            Some(_) => format!("{side}{shown}"),
            None => "/dev/null".into(),
        };
        let (before, after) = (name('a', old), name('b', new));
        if blobs.iter().flatten().any(|blob| blob.size > LONGEST_TEXT) {
            return Ok(Some(format!("Files {before} and {after} of more than 4 MiB differ\n")));
        }
        let text = |side: usize| text(&self.sides[side], path, blobs[side]);
        let (Some(left), Some(right)) = (text(0)?, text(1)?) else {
            return Ok(Some(format!("Binary files {before} and {after} differ\n")));
        };
        let lines = TextDiff::from_lines(&left, &right);
        let text = lines.unified_diff().header(&before, &after).to_string();
        Ok((!text.is_empty()).then_some(text))
    }
}

/// The content of a text file, and nothing where there is no file; `None` for what is
/// no text.
fn text(side: &Side<'_>, path: &TreePath, blob: Option<&BlobRef>) -> Result<Option<String>, Error> {
    let Some(blob) = blob else { return Ok(Some(String::new())) };
    let bytes = (side.content)(path, blob)?;
    let is_text = !bytes.contains(&0);
    Ok(is_text.then(|| String::from_utf8(bytes).ok()).flatten())
}

/// Bytes of the longest file whose lines are compared.
const LONGEST_TEXT: u64 = 4 << 20;

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
        let path = Escaped(&path.to_bytes()).to_string();
        Self { path, change, entries, bytes, what, patch: None }
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

/// What an entry is, in a word.
pub(crate) fn kind(entry: &Entry) -> &'static str {
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

impl Changes {
    /// Writes them, and what they come to in sum after `heading`.
    pub(crate) fn show(&self, page: &mut Page, heading: &str) {
        if self.stat {
            self.show_sums(page);
        } else {
            self.show_each(page);
        }
        self.show_totals(page, heading);
    }

    /// One line for each directory of the second level.
    fn show_sums(&self, page: &mut Page) {
        let mut sums: BTreeMap<String, ([usize; 3], i64)> = BTreeMap::new();
        for change in &self.changes {
            let parts: Vec<&str> = change.path.split('/').take(4).collect();
            let depth = parts.len().saturating_sub(1).clamp(1, 3);
            let (counts, bytes) = sums.entry(parts[..depth].join("/")).or_default();
            counts[change.change as usize] += 1;
            *bytes = bytes.saturating_add(change.bytes);
        }
        let head = ["Directory", "Added", "Removed", "Changed", "Size"];
        let mut rows = vec![
            head.iter()
                .enumerate()
                .map(|(at, text)| if at == 0 { Cell::new(text) } else { Cell::right(text) })
                .collect::<Vec<_>>(),
        ];
        for (directory, (counts, bytes)) in sums {
            let name = if directory.is_empty() { "/".into() } else { directory };
            let mut row = vec![Cell::new(name)];
            row.extend(counts.map(Cell::right));
            row.push(Cell::right(units::size_change(bytes)));
            rows.push(row);
        }
        page.table(0, &rows);
    }

    /// One line a change, with its patch if there is one.
    fn show_each(&self, page: &mut Page) {
        for change in &self.changes {
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
            for line in change.patch.iter().flat_map(|patch| patch.lines()) {
                match line.as_bytes().first() {
                    Some(b'+') => page.styled_line(Style::Good, line),
                    Some(b'-') => page.styled_line(Style::Bad, line),
                    Some(b'@') => page.styled_line(Style::Note, line),
                    _ => page.line(line),
                }
            }
        }
    }

    /// What they come to in sum.
    fn show_totals(&self, page: &mut Page, heading: &str) {
        let changes = &self.changes;
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
