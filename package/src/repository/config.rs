//! What is known of a repository: its name, where it is, how much it counts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Name of a repository.
///
/// Invariant: 1 to 64 letters, digits, `-`, `_` or `.` of ASCII, the first one a
/// letter or digit, so that it can be the name of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RepositoryName(String);

/// A text that cannot be a [`RepositoryName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot name a repository: use letters, digits, '-', '_' and '.'")]
pub struct InvalidName(String);

impl RepositoryName {
    /// Checks `text`; the only way to make a `RepositoryName`.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let fits = (1..=64).contains(&text.len());
        let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let allowed = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
        if fits && begins && text.chars().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName(text.into()))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepositoryName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

/// What is known of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// How it is called.
    pub name: RepositoryName,
    /// Where its index is: `file:///directory`, `file:///directory/stone.index`
    /// or an absolute path.
    pub url: String,
    /// The larger one wins.
    pub priority: u64,
    /// Whether its packages are offered.
    pub enabled: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    url: String,
    #[serde(default)]
    priority: u64,
    #[serde(default = "yes")]
    enabled: bool,
}

fn yes() -> bool {
    true
}

impl Config {
    /// Reads the file of a repository.
    pub fn parse(name: RepositoryName, text: &str) -> Result<Self, serde_yaml::Error> {
        let OnDisk { url, priority, enabled } = serde_yaml::from_str(text)?;
        Ok(Self { name, url, priority, enabled })
    }

    /// The file of the repository.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let Self { url, priority, enabled, .. } = self.clone();
        serde_yaml::to_string(&OnDisk { url, priority, enabled }).expect("it has no odd keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_a_file() {
        for text in ["", ".hidden", "a/b", "-x", "ä", "a b", &"x".repeat(65)] {
            assert!(RepositoryName::new(text).is_err(), "{text:?}");
        }
        for text in ["local", "debian-12.5", "a_b", "0"] {
            assert!(RepositoryName::new(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn a_configuration_reads_back_and_mistakes_are_errors() {
        let name = RepositoryName::new("local").unwrap();
        let url = "file:///srv/stones".into();
        let config = Config { name: name.clone(), url, priority: 7, enabled: false };
        assert_eq!(Config::parse(name.clone(), &config.to_yaml()).unwrap(), config);
        for text in ["", "url: [", "url: x\nprio: 7\n", "url: x\npriority: -1\n"] {
            assert!(Config::parse(name.clone(), text).is_err(), "{text:?}");
        }
        assert!(Config::parse(name, "url: /srv\n").unwrap().enabled);
    }
}
