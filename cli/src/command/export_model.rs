//! `cairn export-model`: a file that makes a system what a state is.

use std::io::Write;
use std::path::PathBuf;

use cairn_package::model::Model;
use cairn_package::system::InstalledPackage;
use cairn_package::{Dependency, plan};

use crate::context::Context;
use crate::error::Error;
use crate::output::Output;
use crate::place::StateName;

/// Write a file that makes a system what a state is
///
/// cairn apply reads it. Repositories are those of the store now.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number or tag of the state
    #[arg(default_value = "current")]
    state: StateName,
    /// Write a system model of moss, which has no local files and tags
    #[arg(long)]
    kdl: bool,
    /// Write into this file (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    if context.json() {
        return Err(Error::NoJson { command: "cairn export-model" });
    }
    let store = context.store()?;
    let state = args.state.find(&store)?;
    let installed = InstalledPackage::load_all(&store, state.packages)?;
    let explicit = installed.values().filter(|package| package.explicit);
    let refs = store.refs();
    let tags = refs.tags.iter().filter(|(_, id)| **id == state.id);
    let model = Model {
        repositories: Some(context.repositories(&store).list()?),
        packages: explicit.map(|it| Dependency::on_package(it.metadata.name.as_str())).collect(),
        files: plan::local_files_of(&store, &state)?,
        tags: tags.map(|(tag, _)| tag.clone()).collect(),
    };
    let text = if args.kdl { model.to_kdl() } else { model.to_yaml().map_err(Error::Output)? };
    match &args.output {
        None => {
            output.bytes(text.as_bytes())?;
        }
        Some(path) => {
            let failed = |source| Error::Write { path: path.clone(), source };
            let mut file = std::fs::File::create(path).map_err(failed)?;
            file.write_all(text.as_bytes()).map_err(failed)?;
            output.status(format_args!("{} has the model of state {}.", path.display(), state.id));
        }
    }
    Ok(())
}
