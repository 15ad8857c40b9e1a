//! `cairn repo update`: the indices as the repositories have them now.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use cairn_package::repository::{
    DownloadProgress, Error as RepositoryError, Older, Repositories, RepositoryName, Update,
};
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
    /// Take over a signed index that is older than the one before; name the
    /// repositories
    #[arg(long, requires = "names")]
    allow_older: bool,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Updates(Vec<Updated>);

#[derive(Serialize)]
struct Updated {
    repository: String,
    packages: Option<usize>,
    changed: bool,
    failure: Option<String>,
    help: Option<Cow<'static, str>>,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let store = context.store()?;
    let older = if args.allow_older { Older::Allowed } else { Older::Refused };
    let updates = Updates(update(&context.repositories(&store), &args.names, older, output)?);
    let failed = updates.0.iter().filter(|update| update.failure.is_some()).count();
    let all = updates.0.len();
    output.data(&updates)?;
    if failed > 0 { Err(Error::NotUpdated { failed, all }) } else { Ok(()) }
}

/// Updates repositories, all that are enabled if none is named, before another
/// command goes on. Failures are told of as warnings.
pub(crate) fn update_first(
    repositories: &Repositories,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    for Updated { repository, failure, .. } in update(repositories, &[], Older::Refused, output)? {
        if let Some(failure) = failure {
            output.warning(format_args!(
                "{repository} is not updated, and what was known of it stays in use: {failure}"
            ));
        }
    }
    Ok(())
}

fn update(
    repositories: &Repositories,
    names: &[RepositoryName],
    older: Older,
    output: &mut Output<'_>,
) -> Result<Vec<Updated>, Error> {
    let mut names = names.to_vec();
    if names.is_empty() {
        let enabled = repositories.list()?.into_iter().filter(|config| config.enabled);
        names = enabled.map(|config| config.name).collect();
    }
    let phase = output.phase("Updating repositories", Some(0), Unit::Bytes);
    let results = in_parallel(repositories, &names, older, &phase);
    drop(phase);
    let told = names.iter().zip(results).map(|(name, result)| Updated {
        repository: name.to_string(),
        packages: result.as_ref().ok().map(|update| update.packages),
        changed: result.as_ref().is_ok_and(|update| update.changed),
        failure: result.as_ref().err().map(|err| in_one_line(err)),
        help: result.err().and_then(|err| Error::Repository(err).failure().help),
    });
    Ok(told.collect())
}

/// A result for each name; servers are asked at the same time.
fn in_parallel(
    repositories: &Repositories,
    names: &[RepositoryName],
    older: Older,
    progress: &dyn DownloadProgress,
) -> Vec<Result<Update, RepositoryError>> {
    let todo = Mutex::new(names.iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..repositories.network().connections.clamp(1, names.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let next = todo.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((at, name)) = next else { break };
                    let result = repositories.update(name, older, progress);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

impl View for Updates {
    fn show(&self, page: &mut Page) {
        for Updated { repository, packages, changed, failure, help } in &self.0 {
            if let Some(packages) = packages {
                let packages = counted(*packages, "package");
                let unchanged = if *changed { "" } else { ", unchanged" };
                page.line(format_args!("{repository}: {packages}{unchanged}"));
            }
            if let Some(failure) = failure {
                page.marked_line(Style::Bad, "failed: ", format_args!("{repository}: {failure}"));
            }
            if let Some(help) = help {
                page.marked_line(Style::Note, "  help: ", format_args!("{help}"));
            }
        }
    }
}
