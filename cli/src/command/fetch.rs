//! `cairn fetch`: stones without installing them.

use std::path::PathBuf;

use cairn_package::Dependency;
use cairn_package::plan::System;
use cairn_package::repository;
use cairn_package::solve::Candidate;
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;
use crate::transact::{Phases, warn_of_expired};

/// Download the stones of packages, and install nothing
///
/// Each is verified, and gets its usual name.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names, or providers such as 'binary(nano)'
    #[arg(value_name = "PACKAGE", required = true)]
    packages: Vec<Dependency>,
    /// Directory for the stones
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output_dir: PathBuf,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Fetched(Vec<Stone>);

#[derive(Serialize)]
struct Stone {
    name: String,
    version: String,
    path: PathBuf,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let system = System::with_repositories(&store, context.repositories(&store), &[])?;
    warn_of_expired(&system, output);
    let candidates = system.offers(&args.packages)?;
    std::fs::create_dir_all(&args.output_dir)
        .map_err(|source| Error::Write { path: args.output_dir.clone(), source })?;
    let phases = Phases::new(output);
    let stones = system.fetch(&candidates.iter().collect::<Vec<_>>(), &phases)?;
    drop(phases);
    let mut fetched = Vec::new();
    for (Candidate { metadata, .. }, stone) in candidates.iter().zip(stones) {
        // The colon of a version from Debian would make a scheme out of the
        // name, where that stands in an index.
        let path = args.output_dir.join(metadata.file_name().replace(':', "_"));
        repository::copy(&stone, &path)?;
        fetched.push(Stone { name: metadata.name.clone(), version: metadata.full_version(), path });
    }
    output.data(&Fetched(fetched))
}

impl View for Fetched {
    fn show(&self, page: &mut Page) {
        for stone in &self.0 {
            page.line(stone.path.display());
        }
    }
}
