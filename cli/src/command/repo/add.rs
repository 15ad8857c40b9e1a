//! `cairn repo add`: a repository that packages come from.

use cairn_package::repository::{Config, DownloadProgress, RepositoryName};
use serde::Serialize;

use super::settings::{self, Settings};
use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;
use crate::progress::Unit;
use crate::units::counted;

/// Add a repository and read its index
///
/// A repository at a server should be pinned to the key that its owner signs
/// it with: --key. Without, whoever answers for the server is believed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name for it
    name: RepositoryName,
    /// Where its index is: https://host/directory, file:///directory, or a
    /// directory of this machine
    url: String,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Serialize)]
struct Added {
    repository: Config,
    packages: usize,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let source = args.settings.source(settings::url(&args.url)?);
    let mut repository = Config::new(args.name.clone(), source);
    args.settings.apply(&mut repository)?;
    let store = context.store_or_new()?;
    let packages = {
        let phase = reading(&repository, output);
        context.repositories(&store).add(&repository, phase.as_ref())?
    };
    warn_of_forgery(&repository, output);
    output.data(&Added { repository, packages })
}

/// Shows how an index comes in, if it comes from a server.
pub(super) fn reading(config: &Config, output: &Output<'_>) -> Box<dyn DownloadProgress> {
    if config.is_remote() {
        Box::new(output.phase("Reading the index", Some(0), Unit::Bytes))
    } else {
        Box::new(())
    }
}

/// Nothing tells packages of the owner from those of anybody on the way.
pub(super) fn warn_of_forgery(config: &Config, output: &mut Output<'_>) {
    if config.is_open_to_forgery() {
        let name = &config.name;
        output.warning(format_args!(
            "{name} is neither signed nor encrypted: anybody on the way can change its packages; \
             use https://, or --key"
        ));
    }
}

impl View for Added {
    fn show(&self, page: &mut Page) {
        let packages = counted(self.packages, "package");
        page.line(format_args!("Repository {} is added: {packages}.", self.repository.name));
    }
}
