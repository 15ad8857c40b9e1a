//! `cairn repo set`, `enable` and `disable`: other settings of a repository.

use cairn_package::repository::{Config, RepositoryName};
use serde::Serialize;

use super::add::{reading, warn_of_forgery};
use super::settings::{self, Settings};
use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;

/// Change the settings of a repository
///
/// If that leads to another index, or wants other signatures, the index is
/// read first; when it is not good, nothing changes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the repository
    name: RepositoryName,
    /// Where its index is
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// Believe indices without a signature again
    #[arg(long, conflicts_with = "keys")]
    no_key: bool,
    /// Forget all mirrors
    #[arg(long, conflicts_with = "mirrors")]
    no_mirror: bool,
}

#[derive(Serialize)]
struct Changed {
    repository: Config,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    change(&args.name, context, output, |config| {
        if let Some(url) = &args.url {
            config.source = args.settings.source(settings::url(url)?);
        }
        if args.no_key {
            config.keys.clear();
        }
        if args.no_mirror {
            config.mirrors.clear();
        }
        args.settings.apply(config)
    })
}

fn change(
    name: &RepositoryName,
    context: &Context,
    output: &mut Output<'_>,
    change: impl FnOnce(&mut Config) -> Result<(), Error>,
) -> Result<(), Error> {
    let store = context.store()?;
    let repositories = context.repositories(&store);
    let mut repository = repositories.get(name)?;
    change(&mut repository)?;
    repositories.set(&repository, reading(&repository, output).as_ref())?;
    warn_of_forgery(&repository, output);
    output.data(&Changed { repository })
}

impl View for Changed {
    fn show(&self, page: &mut Page) {
        let Config { name, enabled, .. } = &self.repository;
        let disabled = if *enabled { "" } else { " It is disabled." };
        page.line(format_args!("The settings of {name} are saved.{disabled}"));
    }
}

/// Repositories to switch on or off.
#[derive(clap::Args)]
pub(crate) struct Names {
    /// Names of repositories
    #[arg(value_name = "NAME", required = true)]
    names: Vec<RepositoryName>,
}

#[derive(Serialize)]
struct Switched {
    repositories: Vec<String>,
    enabled: bool,
}

/// Offers the packages of repositories, or does not any more.
pub(crate) fn switch(
    args: &Names,
    enabled: bool,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let store = context.store()?;
    let repositories = context.repositories(&store);
    // All names are looked at before the first one is changed.
    let configs = args.names.iter().map(|name| repositories.get(name));
    for config in configs.collect::<Result<Vec<_>, _>>()? {
        repositories.set(&Config { enabled, ..config }, &())?;
    }
    let names = args.names.iter().map(ToString::to_string).collect();
    output.data(&Switched { repositories: names, enabled })
}

impl View for Switched {
    fn show(&self, page: &mut Page) {
        let word = if self.enabled { "enabled" } else { "disabled" };
        for name in &self.repositories {
            page.line(format_args!("Repository {name} is {word}."));
        }
    }
}
