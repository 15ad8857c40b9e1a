//! `cairn cache`: what is kept to save time.

use std::collections::BTreeSet;

use cairn_package::plan::System;
use cairn_package::repository::Cleaned;
use cairn_store::transfer::Leftovers;
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;
use crate::units::{counted, size};

/// Manage what was downloaded
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Clean(Clean),
}

/// Remove downloaded stones, and what interrupted pulls have left
///
/// They are downloaded again when they are needed. The store has its own copy
/// of everything that is installed.
#[derive(clap::Args)]
pub(crate) struct Clean {
    /// Keep the stones of what is installed and of what repositories offer
    #[arg(long)]
    unused: bool,
}

pub(crate) fn run(
    command: &Command,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let Command::Clean(args) = command;
    let store = context.store()?;
    let repositories = context.repositories(&store);
    let mut kept = BTreeSet::new();
    if args.unused {
        let system = System::with_repositories(&store, repositories.clone(), &[])?;
        let installed = system.installed().values().map(|package| package.metadata.hash());
        kept.extend(installed.flatten().map(str::to_owned));
        for repository in system.offered() {
            for package in repository.catalog.iter() {
                let package = package.map_err(|err| Error::Repository(err.into()))?;
                kept.extend(package.hash().map(str::to_owned));
            }
        }
    }
    let stones = repositories.clean(|hash| !kept.contains(hash))?;
    // With --unused what a pull goes on with stays.
    let pulls = if args.unused { Leftovers::default() } else { store.clean_pulls()? };
    output.data(&Done { stones, pulls })
}

/// What a cleaning removed.
#[derive(Serialize)]
struct Done {
    #[serde(flatten)]
    stones: Cleaned,
    pulls: Leftovers,
}

impl View for Done {
    fn show(&self, page: &mut Page) {
        let Cleaned { stones, bytes, busy } = self.stones;
        page.line(format_args!("{} removed: {}", counted(stones, "file"), size(bytes)));
        let Leftovers { files, bytes, busy: is_pulling } = self.pulls;
        if files > 0 {
            let what = counted(files, "file");
            page.line(format_args!("{what} of interrupted pulls removed: {}", size(bytes)));
        }
        if is_pulling {
            page.line(format_args!("states are being pulled: what has arrived stays"));
        }
        if busy > 0 {
            page.line(format_args!("{} being downloaded, not removed", counted(busy, "file")));
        }
    }
}
