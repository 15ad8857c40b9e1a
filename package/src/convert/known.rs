//! Which packages exist beside those that are converted.

use std::collections::BTreeSet;

use crate::dependency::Kind;
use crate::metadata::Metadata;

/// Names that dependencies can be on: those of packages, and those that
/// packages provide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known(BTreeSet<String>);

impl Known {
    /// Adds the name of a package and the names that it provides, such as
    /// those of an index.
    pub fn add(&mut self, package: &Metadata) {
        self.0.insert(package.name.clone());
        let provided = package.provides.iter().filter(|provider| provider.kind == Kind::Name);
        self.0.extend(provided.map(|provider| provider.text.clone()));
    }

    /// Whether a dependency on this name can be satisfied.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// Collects names.
impl FromIterator<String> for Known {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

/// Adds names.
impl Extend<String> for Known {
    fn extend<I: IntoIterator<Item = String>>(&mut self, names: I) {
        self.0.extend(names);
    }
}
