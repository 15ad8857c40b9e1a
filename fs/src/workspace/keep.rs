//! A workspace whose process has died goes on in another one.
//!
//! The overlay belongs to the kernel, and stays. The mount of the state below goes on like any
//! other ([`crate::takeover`]); beside what that takes, a successor needs the lock of the
//! workspace, what lies below the layer, and where the overlay is.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use cairn_store::workspace::{LayerMarks, Record, Workspace};
use cairn_store::{Store, WorkspaceName};
use serde::{Deserialize, Serialize};

use super::below::{Below, Saved};
use crate::error::{Error, Result};
use crate::event::Journal;
use crate::layer::overlay;
use crate::mount::Running;
use crate::mount::registration::Registered;
use crate::process::keeper::{Keeper, Kept, OVERLAY, WORKSPACE};
use crate::process::takeover;
use crate::serve::xattrs::Xattrs;
use crate::sys;

/// What a successor has to know of a workspace that is mounted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Overlay {
    workspace: String,
    marks: LayerMarks,
    below: Saved,
    /// Where it is mounted, as bytes.
    target: Vec<u8>,
    device: (u32, u32),
}

/// Lets `keeper` keep a workspace from others, before it is mounted.
pub(super) fn begin(
    registered: &mut Registered,
    workspace: &Workspace,
    keeper: &Keeper,
) -> Result<()> {
    registered
        .keep_with(keeper.clone())
        .and_then(|()| keeper.keep(WORKSPACE, workspace.as_fd()))
        .map_err(|source| Error::Keeper { source })
}

impl Overlay {
    pub(super) fn new(
        workspace: &Workspace,
        record: &Record,
        below: &Below,
        (target, device): (&Path, (u32, u32)),
    ) -> Self {
        Self {
            workspace: workspace.name().to_string(),
            marks: record.marks,
            below: below.save(),
            target: target.as_os_str().as_bytes().into(),
            device,
        }
    }

    /// Leaves it with the keeper: from here on it has a successor.
    pub(super) fn leave(&self, keeper: &Keeper) -> Result<()> {
        let attempt = || {
            let mut file = sys::file_in_memory()?;
            file.write_all(&serde_json::to_vec(self)?)?;
            keeper.keep(OVERLAY, file.as_fd())
        };
        attempt().map_err(|source| Error::Keeper { source })
    }

    fn read(mut file: File) -> io::Result<Self> {
        // Where it was read to by another successor.
        file.rewind()?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// Takes over the mount of a workspace whose process has died, and returns when it is answered
/// again. `kept` is what `keeper` kept of it.
///
/// # Errors
/// [`Error::Keeper`] when something is missing or was left by another version; the mount is
/// then as it was.
pub fn resume(store: Store, mut kept: Kept, keeper: &Keeper, journal: Journal) -> Result<Running> {
    let failed = |source| Error::Keeper { source };
    let missing = || failed(io::ErrorKind::NotFound.into());
    let lock = kept.take(WORKSPACE).ok_or_else(missing)?;
    let Some(overlay) = kept.take(OVERLAY) else {
        // It has died before anybody was told of the mount: its end ends that.
        keeper.abandon().map_err(failed)?;
        return Err(missing());
    };
    let overlay = Overlay::read(overlay.into()).map_err(failed)?;
    let name = WorkspaceName::new(&overlay.workspace)
        .map_err(|err| failed(io::Error::new(io::ErrorKind::InvalidData, err)))?;
    let workspace = store.resume_workspace(&name, lock)?;
    let below = Below::resume(store, overlay.below)?;
    let xattrs = Xattrs::BelowOverlay(overlay::prefix(overlay.marks));
    let mut running = takeover::resume_with(below, xattrs, kept, keeper, journal)?;
    let target = PathBuf::from(OsString::from_vec(overlay.target));
    running.show_workspace(workspace, target, overlay.device);
    Ok(running)
}
