//! `cairn reinstall`: files of packages as the packages have them.

use std::time::{Duration, Instant};

use cairn_package::plan::System;
use cairn_package::query::Deviation;
use cairn_package::restore::ChangedFile;
use cairn_package::trigger::Ran;
use serde::Serialize;

use crate::affected::Affected;
use crate::command::files::find;
use crate::context::Context;
use crate::error::Error;
use crate::escape::Escaped;
use crate::live::Live;
use crate::mounts::Mounts;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::transact::{Mode, Phases};
use crate::units::{counted, duration};

/// Put the files of packages back as the packages have them
///
/// Whatever was changed or removed of them since comes back, without a download: the
/// store has it. cairn check tells what differs; what the store itself has lost comes
/// back with cairn verify --repair.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names of installed packages
    #[arg(value_name = "PACKAGE", required = true)]
    packages: Vec<String>,
    #[command(flatten)]
    mode: Mode,
}

#[derive(Serialize)]
struct Restored {
    files: Vec<File>,
    /// The state that is current now.
    state: Option<u64>,
    seconds: f64,
    triggers: Vec<Ran>,
    mounts: Mounts,
    live: Live,
    #[serde(skip_serializing_if = "Option::is_none")]
    affected: Option<Affected>,
    #[serde(skip)]
    time: Duration,
    #[serde(skip)]
    is_done: bool,
}

#[derive(Serialize)]
struct File {
    package: String,
    path: String,
    what: &'static str,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let system = System::with_repositories(&store, context.repositories(&store), &[])?;
    for name in &args.packages {
        find(system.installed(), name)?;
    }
    let files = system.changed_files(&args.packages)?.into_iter().map(File::new).collect();
    let mut restored = Restored {
        files,
        state: system.base().map(|state| state.id.0),
        seconds: 0.0,
        triggers: Vec::new(),
        mounts: Mounts::default(),
        live: Live::default(),
        affected: None,
        time: Duration::ZERO,
        is_done: false,
    };
    if args.mode.is_dry_run() || restored.files.is_empty() {
        return output.data(&restored);
    }
    output.preview(&restored);
    output.confirm("\nContinue?")?;
    let begun = Instant::now();
    let phases = Phases::new(output);
    let triggers = context.triggers(args.mode.skips_triggers());
    let text = format!("reinstall {}", args.packages.join(" "));
    let applied = system.restore(&args.packages, &text, &triggers, &phases)?;
    drop(phases);
    restored.mounts = Mounts::refresh(&store);
    let old = system.base().map(|state| state.tree);
    restored.live = Live::run(&store, &restored.mounts, old, applied.state.tree, &triggers);
    restored.time = begun.elapsed();
    restored.seconds = restored.time.as_secs_f64();
    restored.state = Some(applied.state.id.0);
    restored.triggers = applied.ran;
    restored.is_done = true;
    if args.mode.lists_affected() {
        restored.affected = Some(Affected::find(&store)?);
    }
    output.data(&restored)?;
    restored.mounts.check()?;
    restored.live.check()
}

impl File {
    fn new(file: ChangedFile) -> Self {
        let what = match file.deviation {
            Deviation::Missing => "missing",
            Deviation::Changed | Deviation::Triggered => "changed",
            Deviation::Attributes => "mode or owner",
        };
        Self { package: file.package, path: Escaped(&file.path.to_bytes()).to_string(), what }
    }
}

impl View for Restored {
    fn show(&self, page: &mut Page) {
        let files = counted(self.files.len(), "file");
        match self.state {
            Some(state) if self.is_done => {
                self.mounts.show_failures(page);
                self.live.show_failures(page);
                let time = duration(self.time);
                page.line(format_args!("State {state} is current: {files} put back ({time})."));
            }
            _ if self.files.is_empty() => {
                page.line("Nothing to do: every file is as its package has it.");
            }
            _ => {
                page.title("Put back");
                for File { package, path, what } in &self.files {
                    page.marked_line(
                        Style::Note,
                        "  ",
                        format_args!("{path} of {package} ({what})"),
                    );
                }
                page.title(format_args!("{files} to put back"));
            }
        }
        if let Some(affected) = &self.affected {
            affected.show(page);
        }
    }
}
