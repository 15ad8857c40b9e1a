//! `cairn log`: in which states something at a path changed.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use cairn_store::{Entry, Store, Subtree, TreeId, TreePath};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::output::{Output, View};
use crate::page::{Cell, Page};
use crate::units;

/// Show in which states a file or directory changed, the newest first
///
/// Symbolic links are not followed. A directory has changed if anything below it has.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Path in the states
    path: OsString,
}

#[derive(Serialize)]
struct History {
    path: String,
    changes: Vec<Change>,
}

#[derive(Serialize)]
struct Change {
    state: u64,
    created: String,
    change: Kind,
    /// Bytes of files at or below the path, afterwards.
    bytes: u64,
    request: String,
    #[serde(skip)]
    local_time: String,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Added,
    Changed,
    Removed,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let shown = Escaped(args.path.as_bytes()).to_string();
    let path = TreePath::new(args.path.as_bytes()).map_err(|_| Error::NotAPath(shown.clone()))?;
    let mut changes = Vec::new();
    let mut now: Option<Entry> = None;
    let mut above = Vec::new();
    for state in store.refs().states.values() {
        let before = now.clone();
        resolve_again(&store, state.tree, &path, &mut above, &mut now)?;
        let kind = match (&before, &now) {
            (left, right) if left == right => None,
            (None, _) => Some(Kind::Added),
            (Some(_), None) => Some(Kind::Removed),
            (Some(_), Some(_)) => Some(Kind::Changed),
        };
        let seconds = i64::try_from(state.time / 1_000_000_000).unwrap_or(i64::MAX);
        changes.extend(kind.map(|change| Change {
            state: state.id.0,
            created: units::utc_time(seconds),
            change,
            bytes: now.as_ref().map_or(0, |entry| entry.summary().bytes),
            request: state.request.clone(),
            local_time: units::local_time(seconds),
        }));
    }
    if changes.is_empty() {
        return Err(Error::InNoState(shown));
    }
    changes.reverse();
    output.list(&History { path: shown, changes })
}

/// Finds what lies at `path` of another state; `above` are the directories that lead to what
/// was `found` in the last one.
///
/// Costs a tree for each component up to the first directory that is the same.
fn resolve_again(
    store: &Store,
    root: TreeId,
    path: &TreePath,
    above: &mut Vec<TreeId>,
    found: &mut Option<Entry>,
) -> Result<(), Error> {
    let mut next = Entry::Directory(Subtree { id: root, summary: store.tree(root)?.summary() });
    for (depth, name) in path.names().iter().enumerate() {
        let Some(Subtree { id, .. }) = next.as_directory().copied() else {
            above.truncate(depth);
            *found = None;
            return Ok(());
        };
        match above.get_mut(depth) {
            Some(before) if *before == id => return Ok(()),
            Some(before) => *before = id,
            None => above.push(id),
        }
        let Some(below) = store.tree(id)?.get(name).cloned() else {
            above.truncate(depth + 1);
            *found = None;
            return Ok(());
        };
        next = below;
    }
    *found = Some(next);
    Ok(())
}

impl View for History {
    fn show(&self, page: &mut Page) {
        let head = ["State", "Created", "Change", "Size", "Request"];
        let mut rows = vec![
            head.iter()
                .map(|text| match *text {
                    "State" | "Size" => Cell::right(text),
                    _ => Cell::new(text),
                })
                .collect::<Vec<_>>(),
        ];
        for change in &self.changes {
            let kind = match change.change {
                Kind::Added => "added",
                Kind::Changed => "changed",
                Kind::Removed => "removed",
            };
            rows.push(vec![
                Cell::right(change.state),
                Cell::new(&change.local_time),
                Cell::new(kind),
                Cell::right(units::size(change.bytes)),
                Cell::new(&change.request),
            ]);
        }
        page.table(0, &rows);
    }
}
