//! `cairn store info`: where the store is, what is in it, how much it takes.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cairn_fs::workspace;
use cairn_store::workspace::{LayerMarks, Record};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;
use crate::sys;
use crate::units;

/// Show what the store holds and how much space it takes
#[derive(clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
struct Info {
    path: String,
    states: usize,
    current: Option<u64>,
    tags: usize,
    /// Files of the current state as they would be unpacked.
    current_bytes: u64,
    /// The same, of all states.
    plain_bytes: u64,
    /// What packs, refs and index take on the disk.
    disk_bytes: u64,
    /// What writable workspaces take on the disk.
    workspace_bytes: u64,
    /// What the kernel reads by itself, expanded, takes on the disk.
    plain_file_bytes: u64,
    /// What damaged packs that were put aside take on the disk.
    quarantine_bytes: u64,
    /// What downloads and the memory of imports, which may be removed at any time, take on the
    /// disk.
    cache_bytes: u64,
    /// Whether this user could not look everywhere, so that what takes room is more.
    partial: bool,
}

pub(crate) fn run(_: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    // What modes and owners in a workspace forbid can be read in its namespace. Those that cannot
    // be read at all are others'.
    let workspaces = store.workspaces().unwrap_or_default();
    let is_own = |record: &Record| record.marks == LayerMarks::User && !sys::is_root();
    if let Some((name, record)) = workspaces.iter().find(|(_, record)| is_own(record)) {
        workspace::become_owner(name, record)?;
    }
    let refs = store.refs();
    let (mut current_bytes, mut plain_bytes) = (0, 0_u64);
    for state in refs.states.values() {
        let bytes = store.tree(state.tree)?.summary().bytes;
        plain_bytes = plain_bytes.saturating_add(bytes);
        if refs.current == Some(state.id) {
            current_bytes = bytes;
        }
    }
    let mut partial = false;
    let mut used = |path: &Path| used(path, &mut partial).map_err(Error::read(path));
    let mut part = |name| used(&store.path().join(name));
    let (workspace_bytes, plain_file_bytes) = (part("workspaces")?, part("plain")?);
    let (quarantine_bytes, cache_bytes) = (part("quarantine")?, part("cache")?);
    let apart = workspace_bytes + plain_file_bytes + quarantine_bytes + cache_bytes;
    let disk_bytes = used(store.path())?.saturating_sub(apart);
    output.data(&Info {
        path: store.path().display().to_string(),
        states: refs.states.len(),
        current: refs.current.map(|id| id.0),
        tags: refs.tags.len(),
        current_bytes,
        plain_bytes,
        disk_bytes,
        workspace_bytes,
        plain_file_bytes,
        quarantine_bytes,
        cache_bytes,
        partial,
    })
}

/// Bytes that the files below `path` take on the disk; what vanishes meanwhile
/// takes none. What this user may not look into is left out, and `partial` then.
fn used(path: &Path, partial: &mut bool) -> io::Result<u64> {
    let metadata = match path.symlink_metadata() {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(0),
        metadata => metadata?,
    };
    let mut bytes = metadata.blocks() * 512;
    if metadata.is_dir() {
        match path.read_dir() {
            Err(err) if err.kind() == io::ErrorKind::PermissionDenied => *partial = true,
            entries => {
                for entry in entries? {
                    bytes += used(&entry?.path(), partial)?;
                }
            }
        }
    }
    Ok(bytes)
}

impl View for Info {
    fn show(&self, page: &mut Page) {
        page.title(format_args!("Store {}", self.path));
        let current = self.current.map_or_else(|| "none".into(), |id| id.to_string());
        let share = match (self.disk_bytes * 100).checked_div(self.plain_bytes) {
            Some(percent) => format!(" ({percent} % of the files of all states)"),
            None => String::new(),
        };
        let parts = [
            ("Workspaces", self.workspace_bytes),
            ("Files for passthrough", self.plain_file_bytes),
            ("Damaged, in quarantine", self.quarantine_bytes),
            ("Cache", self.cache_bytes),
        ];
        let parts = parts.iter().filter(|(_, bytes)| *bytes > 0);
        let mut fields = vec![
            ("States", format!("{} (current: {current})", self.states)),
            ("Tags", self.tags.to_string()),
            ("Files of the current state", units::size(self.current_bytes)),
            ("Files of all states", units::size(self.plain_bytes)),
            ("On the disk", format!("{}{share}", units::size(self.disk_bytes))),
        ];
        fields.extend(parts.map(|(name, bytes)| (*name, units::size(*bytes))));
        page.fields(2, &fields);
        if self.partial {
            page.line("This user may not look into all directories, which are not counted.");
        }
    }
}
