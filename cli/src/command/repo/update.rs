//! `cairn repo update`: the indices as the repositories have them now.

use cairn_package::repository::{Repositories, RepositoryName};
use serde::Serialize;

use crate::context::Context;
use crate::error::{Error, in_one_line};
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::progress::Unit;
use crate::units::counted;

/// Read the indices of repositories anew
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Repositories (default: all that are enabled)
    #[arg(value_name = "NAME")]
    names: Vec<RepositoryName>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Updates(Vec<Update>);

#[derive(Serialize)]
struct Update {
    repository: String,
    packages: Option<usize>,
    failure: Option<String>,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let repositories = Repositories::of(store.path());
    let mut names = args.names.clone();
    if names.is_empty() {
        let enabled = repositories.list()?.into_iter().filter(|config| config.enabled);
        names = enabled.map(|config| config.name).collect();
    }
    let phase = output.phase("Updating repositories", Some(names.len() as u64), Unit::Pieces);
    let updates = names.iter().map(|name| {
        let result = repositories.update(name);
        phase.advance(1);
        Update {
            repository: name.to_string(),
            failure: result.as_ref().err().map(|err| in_one_line(err)),
            packages: result.ok(),
        }
    });
    let updates: Vec<Update> = updates.collect();
    drop(phase);
    let failed = updates.iter().filter(|update| update.failure.is_some()).count();
    output.data(&Updates(updates))?;
    if failed > 0 { Err(Error::NotUpdated { failed, all: names.len() }) } else { Ok(()) }
}

impl View for Updates {
    fn show(&self, page: &mut Page) {
        for Update { repository, packages, failure } in &self.0 {
            match (packages, failure) {
                (Some(packages), _) => {
                    let packages = counted(*packages, "package");
                    page.line(format_args!("{repository}: {packages}"));
                }
                (None, failure) => {
                    let failure = failure.as_deref().unwrap_or_default();
                    page.marked_line(
                        Style::Bad,
                        "failed: ",
                        format_args!("{repository}: {failure}"),
                    );
                }
            }
        }
    }
}
