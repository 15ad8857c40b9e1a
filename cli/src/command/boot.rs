//! `cairn boot`: entries of boot loaders for the current state and older ones.

use std::path::PathBuf;

use cairn_package::boot::{Entry, File, Options, Place, Plan, Target, named_state, root_options};
use cairn_store::Store;
use serde::Serialize;

use crate::command::switch::{self, How};
use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};
use crate::units::size;

/// Where the kernel says how it was started.
const COMMAND_LINE: &str = "/proc/cmdline";

/// Where a machine has parts of command lines of its own.
const LOCAL: &str = "/etc/kernel/cmdline.d";

/// Offer states in the menu of the boot loader
///
/// The menu gets an entry for whatever is current, and one for each of a few older states,
/// with the kernels that they have: to choose one is to roll back before anything runs.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Status(Status),
    Sync(Args),
    Switch(Switch),
}

/// Show which entries there are to be, and whether they are written
#[derive(clap::Args)]
pub(crate) struct Status {
    #[command(flatten)]
    wish: Wish,
}

/// Write the entries, with what they need, and remove old ones
///
/// Only what changes is written, and what was interrupted can be begun anew: each entry
/// that is there names files that are there.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    wish: Wish,
    /// Show what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Make the state current that was chosen in the menu, if one was
///
/// Something for an initrd, before the root is mounted: reads what the kernel was started
/// with, in which cairn.state=STATE names a state.
#[derive(clap::Args)]
pub(crate) struct Switch {
    /// Read this file instead of /proc/cmdline
    #[arg(long, value_name = "FILE", default_value = COMMAND_LINE)]
    cmdline: PathBuf,
}

/// What the menu is to have.
#[derive(clap::Args)]
struct Wish {
    /// Directory on which the EFI system partition is mounted [default: /efi, /boot/efi or
    /// /boot]
    #[arg(long, value_name = "DIR")]
    esp: Option<PathBuf>,
    /// Directory of entries and kernels, if it is another one
    #[arg(long, value_name = "DIR")]
    boot: Option<PathBuf>,
    /// How many older states have entries
    #[arg(long, value_name = "N", default_value_t = 4)]
    older: usize,
    /// What each kernel is started with [default: root= of the filesystem with the store,
    /// and rw]
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
}

impl Wish {
    fn plan(&self, store: &Store) -> Result<(Place, Plan), Error> {
        let place = Place::find(self.esp.as_deref(), self.boot.as_deref())?;
        let machine = match &self.cmdline {
            Some(text) => text.clone(),
            None => root_options(store.path())?,
        };
        let local = LOCAL.into();
        let options = Options { place: place.clone(), older: self.older, machine, local };
        Ok((place, Plan::new(store, &options)?))
    }
}

/// What the menu has, or is to have.
#[derive(Serialize)]
struct Menu {
    esp: PathBuf,
    boot: PathBuf,
    entries: Vec<EntryView>,
    /// Files that are missing or outdated, or were.
    write: Vec<PathBuf>,
    /// What nothing names any more, or did.
    remove: Vec<PathBuf>,
    /// Whether the menu is as it is to be.
    synced: bool,
    #[serde(skip)]
    bytes: u64,
}

#[derive(Serialize)]
struct EntryView {
    file: String,
    title: String,
    state: u64,
    /// Whether it boots whatever is current then.
    current: bool,
    kernel: String,
    options: String,
}

impl From<&Entry> for EntryView {
    fn from(entry: &Entry) -> Self {
        Self {
            file: entry.name.clone(),
            title: entry.title.clone(),
            state: entry.state.id.0,
            current: entry.target == Target::Current,
            kernel: entry.kernel.version.clone(),
            options: entry.options.clone(),
        }
    }
}

impl Menu {
    fn new(place: Place, plan: &Plan, synced: bool) -> Self {
        let new = || plan.files.iter().filter(|file| file.is_new);
        Self {
            esp: place.esp,
            boot: place.boot,
            entries: plan.entries.iter().map(EntryView::from).collect(),
            write: new().map(|file| file.path.clone()).collect(),
            remove: plan.stale.clone(),
            synced,
            bytes: new().map(File::size).sum(),
        }
    }
}

impl View for Menu {
    fn show(&self, page: &mut Page) {
        let mut fields = vec![("Boot loader", self.esp.display().to_string())];
        if self.boot != self.esp {
            fields.push(("Entries", self.boot.display().to_string()));
        }
        page.fields(0, &fields);
        page.blank();
        let header =
            ["State", "Kernel", "Command line"].map(|it| Cell::new(it).style(Style::Strong));
        let mut rows = vec![header.to_vec()];
        for entry in &self.entries {
            let which = if entry.current { "current".into() } else { entry.state.to_string() };
            let options = Cell::new(&entry.options).style(Style::Faint);
            rows.push(vec![Cell::new(which), Cell::new(&entry.kernel), options]);
        }
        page.table(0, &rows);
        page.blank();
        let (written, removed) =
            if self.synced { ("written", "removed") } else { ("to be written", "to be removed") };
        for (paths, what) in [(&self.write, written), (&self.remove, removed)] {
            for path in paths {
                page.line(format_args!("{what}: {}", path.display()));
            }
        }
        let bytes = size(self.bytes);
        match (self.write.is_empty() && self.remove.is_empty(), self.synced) {
            (true, _) => page.line("The menu is as it is to be."),
            (false, true) => page.line(format_args!("Done, {bytes} written.")),
            (false, false) => page.line(format_args!("cairn boot sync writes {bytes}.")),
        }
    }
}

pub(crate) fn run(
    command: &Command,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    match command {
        Command::Status(Status { wish }) => sync(wish, true, context, output),
        Command::Sync(args) => sync(&args.wish, args.dry_run, context, output),
        Command::Switch(args) => switch_to_named(args, context, output),
    }
}

fn sync(
    wish: &Wish,
    only_look: bool,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let store = context.store()?;
    let (place, plan) = wish.plan(&store)?;
    if !only_look {
        plan.carry_out(&store)?;
    }
    output.data(&Menu::new(place, &plan, !only_look || plan.is_done()))
}

fn switch_to_named(args: &Switch, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let text = std::fs::read_to_string(&args.cmdline).map_err(Error::read(&args.cmdline))?;
    let Some(id) = named_state(&text)? else { return Ok(()) };
    let store = context.store()?;
    let target = store.state(id)?;
    switch::switch(&store, &target, How::default(), context, output)
}
