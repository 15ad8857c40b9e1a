//! `cairn apply`: the system becomes what a file says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cairn_package::model::Model;
use cairn_package::repository::{Config, Older, Repositories, RepositoryName};
use cairn_store::disk::directory_of;
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Page, Style};
use crate::transact::{Mode, To, transact_model};

/// Make the system just what a file says
///
/// The file lists repositories, packages, local files and tags; what it does not
/// list goes. Files that end in .kdl are system models of moss.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model: system.yaml, or system-model.kdl
    #[arg(value_name = "FILE")]
    model: PathBuf,
    #[command(flatten)]
    to: To,
    #[command(flatten)]
    mode: Mode,
}

/// What changes of the repositories before all else.
#[derive(Default, Serialize)]
struct RepositoryChanges {
    added: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
}

/// Reads a model.
pub(crate) fn read(path: &Path) -> Result<Model, Error> {
    let text = std::fs::read(path).map_err(Error::read(path))?;
    let failed = |source| Error::Model { path: path.into(), source };
    let text =
        String::from_utf8(text).map_err(|_| failed(cairn_package::model::Problem::NotUtf8))?;
    let is_kdl = path.extension().is_some_and(|extension| extension == "kdl");
    let directory = directory_of(path);
    let model = if is_kdl { Model::from_kdl(&text) } else { Model::from_yaml(&text, directory) };
    model.map_err(failed)
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    apply(&args.model, &args.to, &args.mode, context, output)
}

/// Makes the system, or a directory, what the file `path` says.
pub(crate) fn apply(
    path: &Path,
    to: &To,
    mode: &Mode,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let model = read(path)?;
    let store = if mode.is_dry_run() { context.store()? } else { context.store_or_new()? };
    let wanted = model.repositories.as_deref();
    let changes = wanted
        .map(|wanted| RepositoryChanges::between(&context.repositories(&store), wanted))
        .transpose()?;
    if let (Some(changes), Some(wanted)) = (&changes, wanted)
        && !changes.is_empty()
    {
        output.preview(changes);
        if mode.is_dry_run() {
            return Err(Error::OtherRepositories);
        }
        output.confirm("\nChange the repositories?")?;
        changes.make(&context.repositories(&store), wanted)?;
    }
    let text = format!("apply {}", path.display());
    transact_model(&model, &text, &store, to, mode, context, output)
}

impl RepositoryChanges {
    fn between(repositories: &Repositories, wanted: &[Config]) -> Result<Self, Error> {
        let present = repositories.list()?;
        let by_name = |all: &[Config]| -> BTreeMap<String, Config> {
            all.iter().map(|config| (config.name.to_string(), config.clone())).collect()
        };
        let (present, wanted) = (by_name(&present), by_name(wanted));
        let mut changes = Self::default();
        for (name, config) in &wanted {
            match present.get(name) {
                None => changes.added.push(name.clone()),
                Some(there) if there != config => changes.changed.push(name.clone()),
                Some(_) => {}
            }
        }
        let gone = present.into_keys().filter(|name| !wanted.contains_key(name));
        changes.removed.extend(gone);
        Ok(changes)
    }

    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    fn make(&self, repositories: &Repositories, wanted: &[Config]) -> Result<(), Error> {
        let find = |name: &String| wanted.iter().find(|config| config.name.as_str() == name);
        for config in self.added.iter().filter_map(find) {
            repositories.add(config, &())?;
        }
        for config in self.changed.iter().filter_map(find) {
            repositories.set(config, &())?;
            repositories.update(&config.name, Older::Refused, &())?;
        }
        for name in &self.removed {
            if let Ok(name) = RepositoryName::new(name) {
                repositories.remove(&name)?;
            }
        }
        Ok(())
    }
}

impl View for RepositoryChanges {
    fn show(&self, page: &mut Page) {
        page.title("Repositories");
        for name in &self.added {
            page.marked_line(Style::Good, "  + ", name);
        }
        for name in &self.changed {
            page.marked_line(Style::Note, "  ~ ", name);
        }
        for name in &self.removed {
            page.marked_line(Style::Bad, "  - ", name);
        }
    }
}
