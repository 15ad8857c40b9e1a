//! What could have been meant by the name of a package that does not exist.

use cairn_package::repository::Repository;
use cairn_package::solve::{self, Installed, Request, Source, Universe};
use cairn_package::{Dependency, Error as PackageError, system};

use crate::error::Error;

/// Why `name`, which is not among `installed`, is none of them: the same that
/// `cairn remove` says.
pub(crate) fn not_installed(installed: &system::Installed, name: &str) -> Error {
    let remove = vec![Dependency::on_package(name)];
    let universe = universe(installed, &[]);
    match solve::solve(&universe, &Request { remove, ..Request::default() }) {
        Err(problem) => PackageError::Problem(problem).into(),
        // Another package provides something of this name.
        Ok(_) => Error::NotInstalled(name.into()),
    }
}

/// Why nothing is `wanted`: the same that `cairn install` says.
pub(crate) fn unknown(
    installed: &system::Installed,
    offered: &[Repository],
    wanted: &Dependency,
) -> Error {
    match solve::offers(&universe(installed, offered), std::slice::from_ref(wanted)) {
        Err(problem) => PackageError::Problem(problem).into(),
        Ok(_) => Error::UnknownPackage(wanted.to_string()),
    }
}

fn universe(installed: &system::Installed, offered: &[Repository]) -> Universe {
    let installed = installed.values().map(|package| Installed {
        metadata: package.metadata.clone(),
        explicit: package.explicit,
    });
    let sources = offered.iter().map(|repository| Source {
        name: repository.config.name.to_string(),
        priority: repository.config.priority,
        catalog: repository.catalog.clone(),
    });
    Universe::new(installed.collect(), sources.collect(), Vec::new())
}
