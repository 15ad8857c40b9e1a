//! Runs a program in a workspace, or in one that goes away with it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cairn_store::workspace::{LayerMarks, Record, Workspace, layer_path};
use cairn_store::{State, StateId, Store, TreeId};

use super::below::Below;
use super::{check_is_free, check_usable, directory};
use crate::error::{Error, Result};
use crate::event::Journal;
use crate::layer::overlay;
use crate::mount::registration::{Registered, Registration};
use crate::run::inside::Writable;
use crate::run::{Opened, Program, run_with};
use crate::serve::filesystem::Filesystem;
use crate::serve::xattrs::Xattrs;
use crate::shape::Shape;

/// Where what a program writes goes.
#[derive(Debug)]
pub enum Room {
    /// Into memory, above this state; it goes with the program.
    ThrowAway(StateId),
    /// Into a workspace, which the process has.
    Workspace(Workspace),
}

/// A file of a layer that says that programs have run in the workspace, which
/// completes what lies below it.
const WAS_RUN_IN: &str = "completed";

/// Runs a program in a workspace and waits for its end, like [`crate::run`]. All of
/// the root directory can be changed, and what is changed stays in the workspace:
/// not in /tmp, /run and /dev, which are in memory.
///
/// What usr/share/defaults/etc has and /etc has not shines through, as does what a
/// name service needs, and becomes a part of the workspace when it is changed.
///
/// # Errors
/// Those of [`crate::run`]; [`Error::OtherNamespace`].
pub fn run(program: &Program, room: &Room, store: &Path, journal: Journal) -> Result<i32> {
    let (writable, record) = match room {
        Room::ThrowAway(_) => {
            let marks = overlay::usable_marks().map_err(|source| Error::Process { source })?;
            (Writable { layer: None, marks }, None)
        }
        Room::Workspace(workspace) => {
            let record = workspace.record()?;
            check_usable(workspace.name(), &record)?;
            check_is_free(workspace)?;
            let layer = layer_path(&workspace.path(), record.layer);
            (Writable { layer: Some(layer), marks: record.marks }, Some(record))
        }
    };
    let marks = writable.marks;
    let open = || -> Result<Opened<Below>> {
        let store = Store::open(store)?;
        match (room, record) {
            (Room::Workspace(workspace), Some(record)) => {
                directory::remove_other_layers(&workspace.path(), &record)?;
                let root = store.tree(record.base.tree)?;
                directory::prepare_layer(&workspace.path(), &record, &root.attributes)?;
                note_run(&workspace.path(), &record)?;
                let trees = record.trees().collect();
                let name = Some(workspace.name().to_string());
                open(program, store, record.base, trees, name, marks)
            }
            (Room::ThrowAway(id), _) => {
                let state = store.state(*id)?;
                let trees = vec![state.tree];
                let opened = open(program, store.clone(), state, trees, None, marks)?;
                // Was it still there when gc was told of it?
                store.refresh()?;
                store.state(*id)?;
                Ok(opened)
            }
            (Room::Workspace(_), None) => unreachable!("its record was read above"),
        }
    };
    run_with(program, Some(&writable), journal, open)
}

fn open(
    program: &Program,
    store: Store,
    state: State,
    trees: Vec<TreeId>,
    workspace: Option<String>,
    marks: LayerMarks,
) -> Result<Opened<Below>> {
    let id = state.id;
    let mut filesystem = Filesystem::new(Below::completed(store, state)?, Shape::Pinned(id))?;
    filesystem.xattrs = Xattrs::BelowOverlay(overlay::prefix(marks));
    let shape = Shape::Pinned(id);
    let registration =
        Registration { workspace, ..Registration::new(Path::new("/"), shape, Some(id), trees) };
    let registered = program.run.as_ref().map(|run| Registered::new(run, registration));
    // There is nothing to ask of it, so nobody listens.
    let registered = registered.transpose()?.map(|(registered, _)| registered);
    Ok(Opened { filesystem: Arc::new(filesystem), registered })
}

fn note_run(workspace: &Path, record: &Record) -> Result<()> {
    let path = layer_path(workspace, record.layer).join(WAS_RUN_IN);
    fs::write(&path, "").map_err(directory::failed(&path))
}

/// Whether programs have run in a workspace since its layer is there.
pub(crate) fn was_run_in(workspace: &Path, record: &Record) -> bool {
    layer_path(workspace, record.layer).join(WAS_RUN_IN).exists()
}
