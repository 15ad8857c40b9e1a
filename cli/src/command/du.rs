//! `cairn du`: how much room states take.

use cairn_store::{Entry, State, Store, TreeId, TreePath};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::output::{Output, View};
use crate::page::{Cell, Page};
use crate::place::StateName;
use crate::progress::Unit;
use crate::units::{count, size};

/// Show how much room states take, alone and together
///
/// Sizes are those of the files, before compression. What removing states gives back is
/// told by cairn state prune --dry-run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// States to show, with their largest directories (default: all, without)
    states: Vec<StateName>,
    /// How many directories to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
}

#[derive(Serialize)]
struct Usage {
    states: Vec<StateUsage>,
    /// Bytes of the files of all states, as if each had its own.
    plain_bytes: u64,
    /// The same, each content once.
    unique_bytes: u64,
    /// Bytes of all packs.
    stored_bytes: u64,
    /// Stored bytes for each byte that they hold.
    compression: f64,
}

#[derive(Serialize)]
struct StateUsage {
    state: u64,
    entries: u64,
    /// Bytes of its files.
    bytes: u64,
    /// Bytes of contents that only it needs.
    exclusive_bytes: u64,
    /// Contents and directories that only it needs.
    exclusive_objects: u64,
    /// Bytes of contents that other states need as well.
    shared_bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    largest: Vec<Directory>,
}

#[derive(Serialize)]
struct Directory {
    path: String,
    entries: u64,
    bytes: u64,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let mut named = Vec::new();
    for name in &args.states {
        named.push(name.find(&store)?.id);
    }
    let phase = output.phase("Reading directories", None, Unit::Pieces);
    let usage = store.usage()?;
    drop(phase);
    let mut plain_bytes = 0_u64;
    let mut states = Vec::new();
    for (id, of_state) in &usage.states {
        let state: State = store.state(*id)?;
        let summary = store.tree(state.tree)?.summary();
        plain_bytes = plain_bytes.saturating_add(summary.bytes);
        if !named.is_empty() && !named.contains(id) {
            continue;
        }
        let largest =
            if named.is_empty() { Vec::new() } else { largest(&store, &state, args.top)? };
        states.push(StateUsage {
            state: id.0,
            entries: summary.entries,
            bytes: summary.bytes,
            exclusive_bytes: of_state.exclusive.bytes,
            exclusive_objects: of_state.exclusive.objects,
            shared_bytes: of_state.all.bytes - of_state.exclusive.bytes,
            largest,
        });
    }
    let compression = match usage.packed {
        0 => 1.0,
        packed => usage.stored as f64 / packed as f64,
    };
    output.list(&Usage {
        states,
        plain_bytes,
        unique_bytes: usage.unique.bytes,
        stored_bytes: usage.stored,
        compression,
    })
}

/// The directories of the three uppermost levels that have the most bytes.
fn largest(store: &Store, state: &State, top: usize) -> Result<Vec<Directory>, Error> {
    let mut found = Vec::new();
    gather(store, state.tree, &mut TreePath::root(), &mut found)?;
    found.sort_by(|left: &Directory, right| {
        right.bytes.cmp(&left.bytes).then_with(|| left.path.cmp(&right.path))
    });
    found.truncate(top);
    Ok(found)
}

/// Adds the directories below one, down to the third level.
fn gather(
    store: &Store,
    id: TreeId,
    path: &mut TreePath,
    found: &mut Vec<Directory>,
) -> Result<(), Error> {
    for (name, entry) in store.tree(id)?.entries() {
        let Entry::Directory(subtree) = entry else { continue };
        path.push(name.clone());
        found.push(Directory {
            path: Escaped(&path.to_bytes()).to_string(),
            entries: subtree.summary.entries,
            bytes: subtree.summary.bytes,
        });
        if path.names().len() < 3 {
            gather(store, subtree.id, path, found)?;
        }
        path.pop();
    }
    Ok(())
}

impl View for Usage {
    fn show(&self, page: &mut Page) {
        let head = ["State", "Entries", "Size", "Only here", "Shared"];
        let mut rows = vec![head.map(Cell::right).to_vec()];
        for state in &self.states {
            rows.push(vec![
                Cell::right(state.state),
                Cell::right(count(state.entries)),
                Cell::right(size(state.bytes)),
                Cell::right(size(state.exclusive_bytes)),
                Cell::right(size(state.shared_bytes)),
            ]);
        }
        page.table(0, &rows);
        for state in self.states.iter().filter(|state| !state.largest.is_empty()) {
            page.title(format_args!("Largest directories of state {}", state.state));
            let rows: Vec<Vec<Cell>> = state
                .largest
                .iter()
                .map(|directory| {
                    vec![
                        Cell::right(size(directory.bytes)),
                        Cell::right(count(directory.entries)),
                        Cell::new(&directory.path),
                    ]
                })
                .collect();
            page.table(2, &rows);
        }
        page.blank();
        page.fields(
            0,
            &[
                ("Files of all states", size(self.plain_bytes)),
                ("Each content once", size(self.unique_bytes)),
                (
                    "In packs",
                    format!(
                        "{} (compressed to {:.0} %)",
                        size(self.stored_bytes),
                        self.compression * 100.0
                    ),
                ),
            ],
        );
    }
}
