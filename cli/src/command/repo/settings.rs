//! The options that say where a repository is and whom it is believed.

use std::fs;
use std::path::PathBuf;

use cairn_package::repository::{
    ARCHITECTURE, CHANNEL, Config, Identifier, PublicKey, Snapshot, Source, Url,
};

use crate::error::Error;

/// What may be said of a repository when it is added, and changed later.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// Of two repositories with the same package, the one with the larger
    /// priority wins (default: 0)
    #[arg(short, long, value_name = "NUMBER")]
    priority: Option<u64>,
    /// Believe only indices that this key signed: the key, or its file; may be
    /// given several times
    #[arg(short, long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// Another place with the same files, for when the first one fails; may be
    /// given several times
    #[arg(short, long = "mirror", value_name = "URL")]
    mirrors: Vec<String>,
    /// A few words on what it is
    #[arg(short = 'c', long = "comment", value_name = "TEXT")]
    description: Option<String>,
    /// Take the index that a root index at the URL leads to:
    /// version=stream/ID, tag/ID or history/ID, and channel=main,
    /// arch=x86_64
    #[arg(long, value_name = "WHICH", value_parser = root_index)]
    root_index: Option<RootIndex>,
}

/// What `--root-index` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RootIndex {
    channel: Identifier,
    version: Snapshot,
    architecture: Identifier,
}

fn root_index(text: &str) -> Result<RootIndex, String> {
    let mut channel = CHANNEL.parse().expect("it is a word");
    let mut architecture = ARCHITECTURE.parse().expect("it is a word");
    let mut version = None;
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or("write name=value,name=value")?;
        let read = |err: &dyn std::fmt::Display| err.to_string();
        match name {
            "channel" => channel = value.parse().map_err(|err| read(&err))?,
            "version" => version = Some(value.parse().map_err(|err| read(&err))?),
            "arch" => architecture = value.parse().map_err(|err| read(&err))?,
            _ => return Err(format!("{name:?} is none of channel, version and arch")),
        }
    }
    let version = version.ok_or("it needs a version, such as version=stream/main")?;
    Ok(RootIndex { channel, version, architecture })
}

/// An address; what is relative now must not depend on later working
/// directories.
pub(crate) fn url(text: &str) -> Result<Url, Error> {
    let url = match text.contains("://") || text.starts_with("file:") {
        true => text.parse(),
        false => Url::of_path(&fs::canonicalize(text).map_err(Error::read(text))?),
    };
    url.map_err(|err| Error::Repository(err.into()))
}

/// A key, or the file of one.
pub(crate) fn public_key(text: &str) -> Result<PublicKey, Error> {
    let failed = |source| Error::Key { text: text.into(), source };
    match text.parse() {
        Ok(key) => Ok(key),
        Err(problem) => match fs::read_to_string(text) {
            Ok(file) => file.parse().map_err(failed),
            // It looks like a path, so that what is wrong is that.
            Err(err) if text.contains(['/', '.']) => Err(Error::read(PathBuf::from(text))(err)),
            Err(_) => Err(failed(problem)),
        },
    }
}

impl Settings {
    /// The source that `url` is together with the options.
    pub(crate) fn source(&self, url: Url) -> Source {
        match self.root_index.clone() {
            None => Source::direct(url),
            Some(RootIndex { channel, version, architecture }) => {
                Source::Root { base: url, channel, version, architecture }
            }
        }
    }

    /// Changes what the options say, and nothing else.
    pub(crate) fn apply(&self, config: &mut Config) -> Result<(), Error> {
        if let Some(priority) = self.priority {
            config.priority = priority;
        }
        if let Some(description) = &self.description {
            config.description.clone_from(description);
        }
        if !self.keys.is_empty() {
            config.keys = self.keys.iter().map(|key| public_key(key)).collect::<Result<_, _>>()?;
        }
        if !self.mirrors.is_empty() {
            config.mirrors = self.mirrors.iter().map(|text| url(text)).collect::<Result<_, _>>()?;
        }
        if self.root_index.is_some() {
            config.source = self.source(config.source.url().clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_index_is_named_as_in_moss() {
        let found = root_index("channel=extra,version=stream/daily,arch=aarch64").unwrap();
        assert_eq!(found.channel.to_string(), "extra");
        assert_eq!(found.version.to_string(), "stream/daily");
        assert_eq!(found.architecture.to_string(), "aarch64");
        let found = root_index("version=tag/q1").unwrap();
        assert_eq!(
            (found.channel.to_string(), found.architecture.to_string()),
            ("main".into(), "x86_64".into())
        );
        for text in ["", "channel=main", "version=q1", "version=tag/q1,x=y", "version"] {
            assert!(root_index(text).is_err(), "{text:?}");
        }
    }
}
