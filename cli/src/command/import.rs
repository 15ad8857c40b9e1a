//! `cairn import`: a state made from any tree.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_store::archive::{ArchiveOptions, Compression, Image, Whiteouts, import_archives};
use cairn_store::host::{ScanProgress, Unread};
use cairn_store::{
    ImportOptions, ImportProgress, Imported, IngestProgress, Standing, State, Store, Tag, TreePath,
    import_directory,
};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::exclude::ExcludeArgs;
use crate::image::{ImagePlace, architecture};
use crate::interrupt;
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::progress::{Phase, Progress, Unit};
use crate::units::{counted, duration, size};

/// Make a state from a directory or a tar archive
///
/// Everything is taken in: owners, modes, times, links, devices, extended
/// attributes, ACLs and capabilities. What has not changed since the last import
/// of the same directory is not read again. The new state does not become
/// current, unless --switch asks for it or there is no state yet.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory; archive, plain or compressed with gzip, xz or zstd; - for an
    /// archive from standard input; oci:DIR[:NAME] for an image in an OCI layout
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
    /// Keys of extended headers that were not taken over, and how many entries have each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    ignored: BTreeMap<String, u64>,
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
    let is_stdin = args.source.as_os_str() == "-";
    let image = ImagePlace::new(&args.source);
    let is_archive = is_stdin || image.is_some() || args.source.is_file();
    if is_archive && args.only_for_directories() {
        return Err(Error::NotForArchives);
    }
    let imported = if let Some(place) = image {
        layers(&place, &store, &options, output)
    } else if is_archive {
        archive(args, &store, &options, output)
    } else {
        let phases = Phases::new(output.progress());
        import_directory(&store, &args.source, &options, &phases)
    };
    let Imported { state, summary, read, stored, unsettled, ignored } =
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
        ignored: ignored.iter().map(|(key, count)| (Escaped(key).to_string(), *count)).collect(),
        seconds: time.as_secs_f64(),
        mounts,
        time,
    };
    output.data(&done)?;
    done.mounts.check()
}

impl Args {
    fn only_for_directories(&self) -> bool {
        self.one_file_system || self.no_cache || self.exclude.is_given()
    }
}

/// More plain bytes than any system has: what says that it has more is there to
/// fill the disk.
const MOST: u64 = 1 << 40;

/// Imports an archive.
fn archive(
    args: &Args,
    store: &Store,
    options: &ImportOptions<'_>,
    output: &Output<'_>,
) -> cairn_store::Result<Imported> {
    let failed =
        |source| cairn_store::Error::Source { name: args.source.display().to_string(), source };
    let (from, total): (Box<dyn Read>, _) = if args.source.as_os_str() == "-" {
        // Not through the standard library's, which waits for whoever may ask a
        // question.
        let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        (Box::new(File::from(stdin)), None)
    } else {
        let file = File::open(&args.source).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        (Box::new(file), Some(len))
    };
    let phase = output.phase("Reading the archive", total, Unit::Bytes);
    let from = Watched { from, phase: &phase };
    let mut from = BufReader::with_capacity(256 << 10, from);
    let compression = Compression::of_magic(from.fill_buf().map_err(failed)?);
    let plain = compression.reader(from, MOST).map_err(failed)?;
    let options = archive_options(options);
    import_archives(store, [Ok(plain)], Whiteouts::None, &options, &Stoppable)
}

/// Imports an image.
fn layers(
    place: &ImagePlace,
    store: &Store,
    options: &ImportOptions<'_>,
    output: &Output<'_>,
) -> cairn_store::Result<Imported> {
    let image = Image::open(&place.layout, place.name.as_deref(), architecture())?;
    let phase = output.phase("Storing files", None, Unit::Bytes);
    let options = archive_options(options);
    let whiteouts = Whiteouts::Oci;
    import_archives(store, image.layers(MOST), whiteouts, &options, &Counted(&phase))
}

fn archive_options<'a>(options: &ImportOptions<'a>) -> ArchiveOptions<'a> {
    let standing = if options.switch { Standing::Current } else { Standing::Aside };
    ArchiveOptions { request: options.request, parent: options.parent, standing, holes: MOST }
}

/// Counts bytes as they are stored.
struct Counted<'a>(&'a Phase);

impl IngestProgress for Counted<'_> {
    fn advance(&self, _: u64, bytes: u64) {
        self.0.advance(bytes);
    }

    fn is_cancelled(&self) -> bool {
        interrupt::has_come()
    }
}

/// Counts what is read, and stops when a signal has come.
struct Watched<'a, R> {
    from: R,
    phase: &'a Phase,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = loop {
            if interrupt::has_come() {
                return Err(io::Error::other("it was interrupted"));
            }
            match self.from.read(buf) {
                // By the signal, perhaps.
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.phase.advance(len as u64);
        Ok(len)
    }
}

/// Progress that is counted elsewhere.
struct Stoppable;

impl IngestProgress for Stoppable {
    fn advance(&self, _: u64, _: u64) {}

    fn is_cancelled(&self) -> bool {
        interrupt::has_come()
    }
}

impl View for Done {
    fn show(&self, page: &mut Page) {
        for path in &self.unsettled {
            let text = format_args!("{path} changed all the time while it was read");
            page.marked_line(Style::Note, "unsettled: ", text);
        }
        for (key, number) in &self.ignored {
            let entries = counted(*number, "entry");
            let text = format_args!("{key} of {entries} means nothing here");
            page.marked_line(Style::Note, "ignored: ", text);
        }
        self.mounts.show_failures(page);
        let is = if self.current { " is current" } else { "" };
        page.line(format_args!(
            "State {}{is}: {} ({}); {} read ({}), {} stored ({}).",
            self.state,
            counted(self.entries, "entry"),
            size(self.bytes),
            counted(self.files_read, "file"),
            size(self.bytes_read),
            size(self.bytes_stored),
            duration(self.time),
        ));
    }
}

/// Shows the phases of an import one after the other.
pub(crate) struct Phases {
    progress: Progress,
    current: Mutex<Option<Phase>>,
}

impl Phases {
    /// Begins with the walk.
    pub(crate) fn new(progress: Progress) -> Self {
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
