//! `cairn repo add`: a repository that packages come from.

use cairn_package::repository::{Config, Repositories, RepositoryName};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;
use crate::units::counted;

/// Add a repository and read its index
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name for it
    name: RepositoryName,
    /// Where its index is: file:///directory, or a directory of this machine
    url: String,
    /// Of two repositories with the same package, the one with the larger
    /// priority wins
    #[arg(short, long, default_value_t = 0)]
    priority: u64,
}

#[derive(Serialize)]
struct Added {
    repository: Config,
    packages: usize,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let url = match args.url.contains("://") {
        true => args.url.clone(),
        // What is relative now must not depend on later working directories.
        false => std::fs::canonicalize(&args.url)
            .map_err(Error::read(&args.url))?
            .into_os_string()
            .into_string()
            .map_err(|url| Error::NotUtf8 { path: url.into() })?,
    };
    let (name, priority) = (args.name.clone(), args.priority);
    let repository = Config { name, url, priority, enabled: true };
    let store = context.store_or_new()?;
    let packages = Repositories::of(store.path()).add(&repository)?;
    output.data(&Added { repository, packages })
}

impl View for Added {
    fn show(&self, page: &mut Page) {
        let packages = counted(self.packages, "package");
        page.line(format_args!("Repository {} is added: {packages}.", self.repository.name));
    }
}
