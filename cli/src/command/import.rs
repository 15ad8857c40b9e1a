//! `cairn import`: a state made from any tree.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_store::host::{ScanProgress, Unread};
use cairn_store::{
    ImportOptions, ImportProgress, Imported, IngestProgress, State, Tag, TreePath, import_directory,
};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::exclude::ExcludeArgs;
use crate::interrupt;
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::progress::{Phase, Progress, Unit};
use crate::units::{count, counted, duration, size};

/// Make a state from a directory
///
/// Everything is taken in: owners, modes, times, links, devices, extended
/// attributes, ACLs and capabilities. What has not changed since the last import
/// of the same directory is not read again. The new state does not become
/// current, unless --switch asks for it or there is no state yet.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory
    source: PathBuf,
    /// Say in the list of states what this is (default: the command)
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Make the new state the current one
    #[arg(long)]
    switch: bool,
    /// Give the new state this tag, which keeps it
    #[arg(long)]
    tag: Option<Tag>,
    #[command(flatten)]
    exclude: ExcludeArgs,
    /// Take in directories where other filesystems are mounted, but not what is
    /// in them
    #[arg(short = 'x', long)]
    one_file_system: bool,
    /// Read everything, also what was not changed since the last import
    #[arg(long)]
    no_cache: bool,
}

#[derive(Serialize)]
struct Done {
    state: u64,
    current: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    tree: String,
    entries: u64,
    bytes: u64,
    files_read: u64,
    bytes_read: u64,
    bytes_stored: u64,
    /// Files that somebody went on changing while they were read.
    unsettled: Vec<String>,
    seconds: f64,
    mounts: Mounts,
    #[serde(skip)]
    time: Duration,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store_or_new()?;
    let excluded = args.exclude.read()?;
    let leave_out = excluded.as_ref().map(|excluded| |path: &TreePath| excluded.matches(path));
    let command = format!("import {}", Escaped(args.source.as_os_str().as_encoded_bytes()));
    let begun = Instant::now();
    let options = ImportOptions {
        request: args.message.as_deref().unwrap_or(&command),
        parent: args.switch.then(|| store.refs().current).flatten(),
        switch: args.switch,
        leave_out: leave_out.as_ref().map(|it| it as &(dyn Fn(&TreePath) -> bool + Sync)),
        one_filesystem: args.one_file_system,
        afresh: args.no_cache,
    };
    interrupt::note()?;
    let phases = Phases::new(output.progress());
    let imported = import_directory(&store, &args.source, &options, &phases);
    drop(phases);
    let Imported { state, summary, read, stored, unsettled } =
        imported.map_err(interrupt::explain)?;
    if let Some(tag) = &args.tag {
        store.tag(tag.clone(), state.id)?;
    }
    let current = store.refs().current == Some(state.id);
    let mounts = Mounts::refresh(&store);
    let time = begun.elapsed();
    let shown = |path: &TreePath| Escaped(&path.to_bytes()).to_string();
    let State { id, tree, .. } = state;
    let done = Done {
        state: id.0,
        current,
        tag: args.tag.as_ref().map(ToString::to_string),
        tree: tree.to_string(),
        entries: summary.entries,
        bytes: summary.bytes,
        files_read: read.files,
        bytes_read: read.bytes,
        bytes_stored: stored,
        unsettled: unsettled.iter().map(shown).collect(),
        seconds: time.as_secs_f64(),
        mounts,
        time,
    };
    output.data(&done)?;
    done.mounts.check()
}

impl View for Done {
    fn show(&self, page: &mut Page) {
        for path in &self.unsettled {
            let text = format_args!("{path} changed all the time while it was read");
            page.marked_line(Style::Note, "unsettled: ", text);
        }
        self.mounts.show_failures(page);
        let is = if self.current { " is current" } else { "" };
        let entries = usize::try_from(self.entries).unwrap_or(usize::MAX);
        page.line(format_args!(
            "State {}{is}: {} ({}); {} files read ({}), {} stored ({}).",
            self.state,
            counted(entries, "entry"),
            size(self.bytes),
            count(self.files_read),
            size(self.bytes_read),
            size(self.bytes_stored),
            duration(self.time),
        ));
    }
}

/// Shows the phases of an import one after the other.
struct Phases {
    progress: Progress,
    current: Mutex<Option<Phase>>,
}

impl Phases {
    fn new(progress: Progress) -> Self {
        let phases = Self { progress, current: Mutex::default() };
        phases.begin("Looking at files", None, Unit::Pieces);
        phases
    }

    fn begin(&self, name: &str, total: Option<u64>, unit: Unit) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // The bar before it goes first.
        *current = None;
        *current = Some(self.progress.phase(name, total, unit));
    }

    fn count(&self, number: u64) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(phase) = &*current {
            phase.advance(number);
        }
    }
}

impl ScanProgress for Phases {
    fn found(&self, entries: u64) {
        self.count(entries);
    }

    fn is_cancelled(&self) -> bool {
        interrupt::has_come()
    }
}

impl IngestProgress for Phases {
    fn advance(&self, _: u64, bytes: u64) {
        self.count(bytes);
    }

    fn is_cancelled(&self) -> bool {
        interrupt::has_come()
    }
}

impl ImportProgress for Phases {
    fn read(&self, unread: Unread) {
        self.begin("Storing files", Some(unread.bytes), Unit::Bytes);
    }

    fn commit(&self) {
        self.begin("Committing", None, Unit::Pieces);
    }
}
