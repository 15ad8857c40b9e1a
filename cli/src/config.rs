//! The configuration file: what options would say each time.
//!
//! Keys and places: docs/configuration.md. A file that cannot be understood is an error,
//! since what it was to say would be missed without a word.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::context::Color;
use crate::error::Error;
use crate::sys;

/// What files say; a later one counts more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The directory of the store.
    pub store: Option<PathBuf>,
    /// Where indices and downloaded stones are kept.
    pub cache: Option<PathBuf>,
    /// When to use colours.
    pub color: Option<Color>,
    /// The command that shows what is longer than the terminal; an empty one is none.
    pub pager: Option<String>,
    /// How many stones come at the same time.
    pub connections: Option<NonZeroUsize>,
}

impl Config {
    /// Reads `config.yaml` and `config.d/*.yaml` of each of `directories`, in this order.
    ///
    /// # Errors
    /// [`Error::Config`] with the file that is wrong.
    pub(crate) fn load(directories: &[PathBuf]) -> Result<Self, Error> {
        let mut config = Self::default();
        for directory in directories {
            let mut files = vec![directory.join("config.yaml")];
            let more = directory.join("config.d");
            match fs::read_dir(&more) {
                Ok(entries) => {
                    let mut paths: Vec<PathBuf> = entries
                        .map(|entry| entry.map(|entry| entry.path()))
                        .collect::<Result<_, _>>()
                        .map_err(Error::read(&more))?;
                    paths.retain(|path| path.extension().is_some_and(|it| it == "yaml"));
                    paths.sort();
                    files.extend(paths);
                }
                Err(err) if is_missing(&err) => {}
                Err(err) => return Err(Error::read(&more)(err)),
            }
            for file in files {
                config = config.or_before(Self::read(&file)?);
            }
        }
        Ok(config)
    }

    /// Reads one file; one that does not exist says nothing.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = match fs::read_to_string(path) {
            Err(err) if is_missing(&err) => return Ok(Self::default()),
            read => read.map_err(Error::read(path))?,
        };
        // Whoever can write it chooses the store and a program: nobody but the user and
        // root may do that.
        let owner = fs::metadata(path).map_err(Error::read(path))?.uid();
        if owner != 0 && owner != sys::user_and_group().0 {
            let problem = format!("it belongs to user {owner}");
            return Err(Error::Config { path: path.into(), problem });
        }
        if text.lines().all(|line| line.trim().is_empty() || line.starts_with('#')) {
            return Ok(Self::default());
        }
        let failed =
            |err: serde_yaml::Error| Error::Config { path: path.into(), problem: err.to_string() };
        let config: Self = serde_yaml::from_str(&text).map_err(failed)?;
        // Where it is read from must not change what it says.
        for named in [&config.store, &config.cache].into_iter().flatten() {
            if !named.is_absolute() {
                let problem = format!("{} is not an absolute path", named.display());
                return Err(Error::Config { path: path.into(), problem });
            }
        }
        Ok(config)
    }

    /// What both say; where `later` says something, that counts.
    fn or_before(self, later: Self) -> Self {
        Self {
            store: later.store.or(self.store),
            cache: later.cache.or(self.cache),
            color: later.color.or(self.color),
            pager: later.pager.or(self.pager),
            connections: later.connections.or(self.connections),
        }
    }
}

fn is_missing(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_files_count_more_and_say_only_what_they_say() {
        let home = tempfile::tempdir().unwrap();
        let [vendor, own] = ["vendor", "own"].map(|name| home.path().join(name));
        fs::create_dir_all(own.join("config.d")).unwrap();
        fs::create_dir(&vendor).unwrap();
        fs::write(vendor.join("config.yaml"), "store: /a\npager: more\ncolor: never\n").unwrap();
        fs::write(own.join("config.yaml"), "# nothing\n").unwrap();
        fs::write(own.join("config.d/20.yaml"), "store: /c\nconnections: 3\n").unwrap();
        fs::write(own.join("config.d/10.yaml"), "store: /b\npager: ''\n").unwrap();
        fs::write(own.join("config.d/30.bak"), "nonsense").unwrap();
        let config = Config::load(&[vendor, own, home.path().join("none")]).unwrap();
        let expected = Config {
            store: Some("/c".into()),
            cache: None,
            color: Some(Color::Never),
            pager: Some(String::new()),
            connections: NonZeroUsize::new(3),
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn what_cannot_be_meant_is_an_error_that_names_the_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config.yaml");
        for text in ["stroe: /a\n", "connections: 0\n", "color: green\n", "store: a\n", "- a\n"] {
            fs::write(&path, text).unwrap();
            let Err(err) = Config::read(&path) else { panic!("{text:?} was taken") };
            assert!(err.to_string().contains("config.yaml"), "{err}");
        }
    }
}
