//! `cairn install`: packages come into the system.

use std::path::PathBuf;

use cairn_package::Dependency;
use cairn_package::solve::Request;
use cairn_package::stone::Package;

use crate::context::Context;
use crate::error::Error;
use crate::output::Output;
use crate::transact::{Mode, To, transact};

/// Install packages
///
/// The result is a new state, which becomes the current one.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names, providers such as 'binary(nano)', or stones (./nano.stone)
    #[arg(value_name = "PACKAGE", required = true)]
    packages: Vec<String>,
    #[command(flatten)]
    to: To,
    #[command(flatten)]
    mode: Mode,
}

pub(crate) fn run(args: &Args, context: &Context, output: &mut Output<'_>) -> Result<(), Error> {
    let mut request = Request::default();
    let mut stones = Vec::new();
    for package in &args.packages {
        if package.contains('/') || package.ends_with(".stone") {
            let path = PathBuf::from(package);
            let failed = |source| Error::Stone { path: path.clone(), source };
            let metadata = Package::open(&path).map_err(failed)?.metadata;
            request.install.push(Dependency::on_package(metadata.name));
            stones.push(path);
        } else {
            request.install.push(package.parse()?);
        }
    }
    let text = format!("install {}", args.packages.join(" "));
    transact(&request, &text, &stones, &args.to, &args.mode, context, output)
}
