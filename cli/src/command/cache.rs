//! `cairn cache`: what is kept to save time.

use std::collections::BTreeSet;

use cairn_package::plan::System;
use cairn_package::repository::Cleaned;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;
use crate::units::{counted, size};

/// Manage downloaded stones
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Clean(Clean),
}

/// Remove downloaded stones
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
    output.data(&repositories.clean(|hash| !kept.contains(hash))?)
}

impl View for Cleaned {
    fn show(&self, page: &mut Page) {
        let Self { stones, bytes, busy } = *self;
        page.line(format_args!("{} removed: {}", counted(stones, "file"), size(bytes)));
        if busy > 0 {
            page.line(format_args!("{} being downloaded, not removed", counted(busy, "file")));
        }
    }
}
