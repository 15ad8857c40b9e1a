//! Workspaces: a state below, and a layer above it that takes what is changed.
//!
//! The kernel's overlayfs puts the two together. The state is mounted as any
//! other, pinned and read-only, and taken out of sight as soon as the overlay has
//! it: from then on the overlay holds it, and the end of the overlay ends it.
//!
//! Rules and reasons: docs/workspaces.md.

mod below;
mod changes;
mod completion;
mod directory;
mod keep;
mod run;
mod snapshot;
mod user;

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cairn_store::workspace::{LayerMarks, Record, Workspace, layer_path};
use cairn_store::{StateId, Store, WorkspaceName};

use crate::error::{Error, Result};
use crate::event::Journal;
use crate::layer::overlay::{self, Layers};
use crate::mount::attach;
use crate::mount::attach::Unmount;
use crate::mount::idmap::Owners;
use crate::mount::mountinfo::{MountPoint, WORKSPACE};
use crate::mount::options::{Place, Trust};
use crate::mount::registration::{self, Registered, Registration};
use crate::mount::restrictions::Restrictions;
use crate::mount::target;
use crate::mount::{self, Running};
use crate::process::keeper::Keeper;
use crate::run::inside::{BELOW, STATE};
use crate::run::users::Users;
use crate::serve::filesystem::Filesystem;
use crate::serve::xattrs::Xattrs;
use crate::shape::Shape;
use crate::sys;
use below::Below;
use directory::{LOWER, failed};
use keep::Overlay;

pub use keep::resume;
pub use run::{Room, run};
use user::{Apart, Plan, Shown};

pub use changes::{Changes, changes};
pub use snapshot::{Becomes, Snapshot, snapshot};

/// How long a process may take to end that has a workspace and shows it no more.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes a workspace, which need not exist, so that no other process has it.
///
/// One whose mount or program has just ended is had by its processes for a moment more, and
/// waited for.
///
/// # Errors
/// [`cairn_store::Error::WorkspaceInUse`], at once if it is mounted or a program runs in it.
pub fn hold(store: &Store, name: &WorkspaceName) -> Result<Workspace> {
    let end = Instant::now() + PATIENCE;
    let run = store.path().join("run");
    let is_shown = |it: &Registration| it.workspace.as_deref() == Some(&name.to_string());
    loop {
        match store.lock_workspace(name) {
            Err(cairn_store::Error::WorkspaceInUse { .. })
                if Instant::now() < end && !registration::list(&run)?.iter().any(is_shown) =>
            {
                thread::sleep(Duration::from_millis(1));
            }
            result => return Ok(result?),
        }
    }
}

/// Gives the record of a workspace that this process has, and makes the workspace
/// if it does not exist: on the state `base`.
///
/// # Errors
/// [`Error::OtherBase`] when it exists and lies on another state.
pub fn open(workspace: &Workspace, base: Option<StateId>, store: &Store) -> Result<Record> {
    match workspace.record() {
        Err(cairn_store::Error::UnknownWorkspace(_)) => {}
        Err(err) => return Err(err.into()),
        Ok(record) => {
            let reference = record.reference().id;
            let is_other = base.is_some_and(|base| base != reference && base != record.base.id);
            if is_other {
                let name = workspace.name().clone();
                return Err(Error::OtherBase { name, base: reference });
            }
            return Ok(record);
        }
    }
    let base = match base {
        Some(base) => base,
        None => store.current()?.id,
    };
    let marks = overlay::usable_marks().map_err(|source| Error::Process { source })?;
    Ok(workspace.create(base, marks)?)
}

/// Mounts a workspace on `target`: when it returns, everything below `target`
/// can be read and changed. The process has the workspace until the mount ends.
///
/// Setuid programs and devices have no effect on the mount.
///
/// For an ordinary user `fusermount3` mounts it, for no other user to see; the process
/// must then have one thread.
///
/// `keeper` keeps it when this process dies, for [`resume`] in another one; not for an ordinary
/// user.
///
/// # Errors
/// [`Error::OtherNamespace`]; [`Error::Overlay`]; for ordinary users [`Error::Namespaces`],
/// [`Error::Enter`]. Nothing stays mounted or registered when it fails.
pub fn start(
    store: Store,
    workspace: Workspace,
    target: &Path,
    keeper: Option<&Keeper>,
    journal: Journal,
) -> Result<Running> {
    put_together(store, workspace, target, keeper, journal).inspect_err(|_| {
        // There is nothing left that somebody could take over.
        let _ = keeper.map(Keeper::abandon);
    })
}

fn put_together(
    store: Store,
    workspace: Workspace,
    target: &Path,
    keeper: Option<&Keeper>,
    journal: Journal,
) -> Result<Running> {
    let record = workspace.record()?;
    check_mountable(&workspace, &record)?;
    target::remove_dead(target, &journal)?;
    let target = target::check_target(target)?;
    target::check_store_is_outside(store.path(), &target)?;
    let (path, name) = (workspace.path(), workspace.name().clone());
    check_is_free(&workspace)?;
    let plan = Plan {
        layer: format!("layer-{}", record.layer),
        store: store.path().display().to_string(),
        name: format!("{WORKSPACE}{}", path.display()),
        workspace: path.clone(),
    };
    let lower_directory = lower_directory(&path)?;
    // Before anything is read, since there are threads from then on.
    let is_root = sys::effective_user().0 == 0;
    let apart = if is_root { None } else { Some(Apart::begin(&plan)?) };
    directory::remove_other_layers(&path, &record)?;
    directory::prepare_layer(&path, &record, &store.tree(record.base.tree)?.attributes)?;

    let run = store.path().join("run");
    let shape = Shape::Pinned(record.base.id);
    let mut registered = Registered::new(
        &run,
        Registration {
            workspace: Some(name.to_string()),
            ..Registration::new(&target, shape, Some(record.base.id), record.trees().collect())
        },
    )?;
    // What a program in it has changed may have its content in what completed it; not in the layer
    // of an ordinary user, where the kernel makes no such marks, and which may hold what cannot be
    // read outside of a namespace.
    let is_completed = record.marks == LayerMarks::Trusted
        && run::was_run_in(&path, &record)
        && snapshot::read_layer(&store, &name, &record, &())?
            .is_some_and(|layer| layer.layer.takes_from_below);
    let base = record.base.clone();
    let below = if is_completed { Below::completed(store, base)? } else { Below::new(store, base) };
    let mut filesystem = Filesystem::new(below, shape)?;
    filesystem.xattrs = Xattrs::BelowOverlay(overlay::prefix(record.marks));
    let filesystem = Arc::new(filesystem);
    let both = [STATE, BELOW].map(|name| format!("{LOWER}/{name}"));
    let lower = if is_completed { both.join(":") } else { LOWER.into() };
    if let Some(apart) = apart {
        return apart
            .show(&plan, Shown { filesystem, registered, lower, workspace, target, journal });
    }
    if let Some(keeper) = keeper {
        keep::begin(&mut registered.0, &workspace, keeper)?;
    }
    let place = Place {
        passthrough: false,
        power_save: false,
        owners: &Owners::Fixed,
        target: lower_directory.clone(),
        name: &plan.store,
        restrictions: Restrictions::default().and(Trust::Inspect),
        binds: &[],
    };
    // If anything fails from here on, dropping it unmounts.
    let mut running = mount::serve(filesystem.clone(), place, Some(registered), journal)?;

    let lower = &[lower.as_str()];
    let layers = Layers { lower, layer: &plan.layer, marks: record.marks };
    layers
        .mount_from(&path, &plan.name, &target, Trust::Inspect)
        .map_err(|source| Error::Overlay { layer: layer_path(&path, record.layer), source })?;
    let device = target::device_of(&target)?;
    let is_it = |mount: &MountPoint| mount.is_ours();
    attach::detach(&lower_directory, Unmount::WhenUnused, is_it).inspect_err(|_| {
        // The error to report is the first one.
        let _ = attach::detach(&target, Unmount::WhenUnused, is_it);
    })?;
    if let Some(keeper) = keeper {
        let shown = Overlay::new(&workspace, &record, &filesystem.source, (&target, device));
        shown.leave(keeper)?;
    }
    running.show_workspace(workspace, target, device);
    Ok(running)
}

/// Becomes, for the rest of this process, the user that a program in the workspace
/// is root for: in a user namespace in which the layer of an ordinary user looks as
/// it does inside, and can be read whatever its modes forbid. Does nothing for the
/// workspaces of root.
///
/// # Errors
/// [`Error::Threads`]; [`Error::Namespaces`]; [`Error::OtherNamespace`] when it is the workspace of another
/// user.
pub fn become_owner(name: &WorkspaceName, record: &Record) -> Result<()> {
    let failed = |source| Error::Process { source };
    if record.marks == LayerMarks::User && sys::effective_user().0 != 0 {
        if !sys::is_alone().map_err(failed)? {
            return Err(Error::Threads);
        }
        if let Some(users) = Users::all().map_err(failed)? {
            sys::own_users().map_err(|source| Error::Namespaces { source })?;
            users.map().map_err(|failure| failure.into_error("".as_ref()))?;
        }
    }
    check_usable(name, record)
}

/// Takes away what has been changed in a workspace that this process has, and
/// puts it on the state `base`, or on the one that its changes are told against.
pub fn reset(workspace: &Workspace, base: Option<StateId>) -> Result<Record> {
    let record = workspace.record()?;
    check_is_free(workspace)?;
    let record = workspace.rebase(base.unwrap_or(record.reference().id))?;
    directory::remove_other_layers(&workspace.path(), &record)?;
    Ok(record)
}

/// Takes away a workspace that this process has, with all that has been changed
/// in it.
pub fn discard(workspace: &Workspace) -> Result<()> {
    workspace.record()?;
    check_is_free(workspace)?;
    workspace.remove()?;
    directory::remove_all(&workspace.path())
}

/// The empty directory on which the state below is mounted.
fn lower_directory(workspace: &Path) -> Result<PathBuf> {
    let lower = workspace.join(LOWER);
    match fs::create_dir(&lower) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
        result => result.map_err(failed(&lower))?,
    }
    // Left behind by a process that was killed before the overlay had it.
    match attach::detach(&lower, Unmount::WhenUnused, MountPoint::is_ours) {
        Err(Error::NotMounted { .. }) => Ok(lower),
        result => result.map(|()| lower),
    }
}

/// Checks that this process may mount the workspace.
///
/// # Errors
/// [`Error::OtherNamespace`].
pub fn check_mountable(workspace: &Workspace, record: &Record) -> Result<()> {
    check_usable(workspace.name(), record)
}

/// Checks that this process may read and write the workspace's layer.
fn check_usable(name: &WorkspaceName, record: &Record) -> Result<()> {
    let usable = overlay::usable_marks().map_err(|source| Error::Process { source })?;
    if usable != record.marks {
        return Err(Error::OtherNamespace {
            name: name.clone(),
            by_user: record.marks == LayerMarks::User,
        });
    }
    Ok(())
}

/// Refuses while an overlay of the workspace is still mounted whose process was
/// killed: what is written through it would be lost with the layer.
fn check_is_free(workspace: &Workspace) -> Result<()> {
    let path = workspace.path();
    let mounts = MountPoint::all().map_err(|source| Error::Process { source })?;
    match mounts.iter().find(|mount| mount.workspace() == Some(path.as_os_str().as_bytes())) {
        Some(mount) => Err(Error::StillMounted {
            name: workspace.name().clone(),
            target: mount.target.clone(),
        }),
        None => Ok(()),
    }
}
