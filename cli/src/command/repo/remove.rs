//! `cairn repo remove`: no more packages from there.

use cairn_package::repository::RepositoryName;
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::Page;

/// Remove a repository; what was installed from it stays
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the repository
    name: RepositoryName,
}

#[derive(Serialize)]
struct Removed {
    removed: String,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    context.repositories(&store).remove(&args.name)?;
    output.data(&Removed { removed: args.name.to_string() })
}

impl View for Removed {
    fn show(&self, page: &mut Page) {
        page.line(format_args!("Repository {} is removed.", self.removed));
    }
}
