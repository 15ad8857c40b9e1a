//! `cairn upgrade`: packages follow the repositories.

use std::path::PathBuf;

use cairn_package::Dependency;
use cairn_package::solve::{Request, Upgrade};
use cairn_package::system::InstalledPackage;
use cairn_store::Store;

use super::apply;
use super::repo::update_first;
use crate::context::Context;
use crate::error::Error;
use crate::output::Output;
use crate::transact::{Mode, To, transact};

/// Upgrade packages to what the repositories have
///
/// What cannot be upgraded now stays as it is, and the plan says why.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names (default: all packages)
    #[arg(value_name = "PACKAGE")]
    packages: Vec<String>,
    /// Read the indices of all repositories before
    #[arg(short, long)]
    update: bool,
    /// Make the system what this file says, as cairn apply does
    #[arg(long, value_name = "FILE", conflicts_with = "packages")]
    import: Option<PathBuf>,
    #[command(flatten)]
    to: To,
    #[command(flatten)]
    mode: Mode,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    if args.update {
        let store = context.store()?;
        update_first(&context.repositories(&store), output)?;
    }
    if let Some(model) = &args.import {
        return apply::apply(model, &args.to, &args.mode, context, output);
    }
    let mut text = vec!["upgrade"];
    text.extend(args.packages.iter().map(String::as_str));
    let upgrade = match args.packages.as_slice() {
        [] => Upgrade::All,
        names => Upgrade::Only(names.to_vec()),
    };
    let mut request = Request { upgrade, ..Request::default() };
    if args.to.is_elsewhere() {
        request = everything_asked_for(&context.store()?)?;
    }
    transact(&request, &text.join(" "), &[], &args.to, &args.mode, context, output)
}

/// Asks an empty system for what the current one was asked for.
fn everything_asked_for(store: &Store) -> Result<Request, Error> {
    let installed = InstalledPackage::load_all(store, store.current()?.packages)?;
    let explicit = installed.values().filter(|package| package.explicit);
    let install = explicit.map(|it| Dependency::on_package(it.metadata.name.as_str())).collect();
    Ok(Request { install, ..Request::default() })
}
