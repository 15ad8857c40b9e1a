//! What is known of a repository: its name, where it is, whom it is believed,
//! how much it counts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::root_index::{Identifier, Snapshot};
use super::signature::PublicKey;
use super::url::Url;

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
    /// Where its index is.
    #[serde(flatten)]
    pub source: Source,
    /// Other places that have the same files, to be tried when the first one
    /// fails; each stands for the URL of the source.
    pub mirrors: Vec<Url>,
    /// For people.
    pub description: String,
    /// The larger one wins.
    pub priority: u64,
    /// Whether its packages are offered.
    pub enabled: bool,
    /// If there is any, only indices that one of them signed are believed.
    pub keys: Vec<PublicKey>,
}

/// Where the index of a repository is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Source {
    /// At a fixed place.
    Direct {
        /// The index, or the directory that has it as `stone.index`.
        url: Url,
    },
    /// Where the root index of a distribution says.
    Root {
        /// The directory of all channels.
        base: Url,
        /// Which of them.
        channel: Identifier,
        /// What of its history.
        version: Snapshot,
        /// Such as `x86_64`.
        architecture: Identifier,
    },
}

impl Source {
    /// An index, or the directory that has it.
    #[must_use]
    pub fn direct(url: Url) -> Self {
        Self::Direct { url }
    }

    /// The URL that mirrors stand for.
    #[must_use]
    pub fn url(&self) -> &Url {
        match self {
            Self::Direct { url } | Self::Root { base: url, .. } => url,
        }
    }

    /// The same at another place.
    pub(super) fn at(&self, url: &Url) -> Self {
        let mut source = self.clone();
        match &mut source {
            Self::Direct { url: here } | Self::Root { base: here, .. } => *here = url.clone(),
        }
        source
    }
}

/// Two are equal if they lead to the same packages; with passwords.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct { url } => f.write_str(url.as_str()),
            Self::Root { base, channel, version, architecture } => {
                write!(f, "{} {channel} {version} {architecture}", base.as_str())
            }
        }
    }
}

/// The file that keeps a [`Config`]; texts are checked when it is read.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    architecture: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mirrors: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(default)]
    priority: u64,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<String>,
}

fn yes() -> bool {
    true
}

/// A file that does not have the form of a configuration.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line names its fields")]
pub enum InvalidConfig {
    /// It is not YAML of this form.
    #[error(transparent)]
    Yaml(#[from] serde_yaml::Error),
    /// One of its values cannot be.
    #[error("{field}: {problem}")]
    Field { field: &'static str, problem: String },
    /// It has both forms of a source, or none, or a part of one.
    #[error("it must have either a url, or a base and a version")]
    Source,
}

impl Config {
    /// An enabled repository without keys and mirrors, of priority 0.
    #[must_use]
    pub fn new(name: RepositoryName, source: Source) -> Self {
        let (mirrors, keys, description) = Default::default();
        Self { name, source, mirrors, description, priority: 0, enabled: true, keys }
    }

    /// Whether only signed indices are believed.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whether nothing protects what comes from there: neither a key, nor
    /// encryption on the way.
    #[must_use]
    pub fn is_open_to_forgery(&self) -> bool {
        !self.is_pinned() && !self.places().all(|source| source.url().is_private())
    }

    /// Whether its files come from a server.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.places().any(|source| source.url().local().is_none())
    }

    /// The source and its mirrors, in the order in which they are tried.
    pub(super) fn places(&self) -> impl Iterator<Item = Source> {
        let mirrors = self.mirrors.iter().map(|url| self.source.at(url));
        std::iter::once(self.source.clone()).chain(mirrors)
    }

    /// Reads the file of a repository.
    pub fn parse(name: RepositoryName, text: &str) -> Result<Self, InvalidConfig> {
        let file: OnDisk = serde_yaml::from_str(text)?;
        let source = match (file.url, file.base, file.version) {
            (Some(url), None, None) if file.channel.is_none() && file.architecture.is_none() => {
                Source::Direct { url: read("url", &url)? }
            }
            (None, Some(base), Some(version)) => Source::Root {
                base: read("base", &base)?,
                channel: read("channel", file.channel.as_deref().unwrap_or(CHANNEL))?,
                version: read("version", &version)?,
                architecture: read(
                    "architecture",
                    file.architecture.as_deref().unwrap_or(ARCHITECTURE),
                )?,
            },
            _ => return Err(InvalidConfig::Source),
        };
        let mirrors = file.mirrors.iter().map(|url| read("mirrors", url));
        let keys = file.keys.iter().map(|key| read("keys", key));
        Ok(Self {
            name,
            source,
            mirrors: mirrors.collect::<Result<_, _>>()?,
            description: file.description,
            priority: file.priority,
            enabled: file.enabled,
            keys: keys.collect::<Result<_, _>>()?,
        })
    }

    /// The file of the repository.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let Self { source, mirrors, description, priority, enabled, keys, .. } = self;
        let mut file = OnDisk {
            mirrors: mirrors.iter().map(|url| url.as_str().into()).collect(),
            description: description.clone(),
            priority: *priority,
            enabled: *enabled,
            keys: keys.iter().map(ToString::to_string).collect(),
            ..OnDisk::default()
        };
        match source {
            Source::Direct { url } => file.url = Some(url.as_str().into()),
            Source::Root { base, channel, version, architecture } => {
                file.base = Some(base.as_str().into());
                file.channel = Some(channel.to_string());
                file.version = Some(version.to_string());
                file.architecture = Some(architecture.to_string());
            }
        }
        serde_yaml::to_string(&file).expect("it has no odd keys")
    }
}

/// What the specification assumes where nothing is said.
pub const CHANNEL: &str = "main";
/// What the specification assumes where nothing is said.
pub const ARCHITECTURE: &str = "x86_64";

fn read<T: FromStr<Err: fmt::Display>>(
    field: &'static str,
    text: &str,
) -> Result<T, InvalidConfig> {
    text.parse()
        .map_err(|problem: T::Err| InvalidConfig::Field { field, problem: problem.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

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
        let parse = |text: &str| Config::parse(name.clone(), text);
        let direct = Source::direct("https://user:secret@example.org/x".parse().unwrap());
        let root = Source::Root {
            base: "file:///srv".parse().unwrap(),
            channel: "main".parse().unwrap(),
            version: "tag/q3".parse().unwrap(),
            architecture: "aarch64".parse().unwrap(),
        };
        for source in [direct, root] {
            let config = Config {
                mirrors: vec!["http://mirror.example.org/".parse().unwrap()],
                description: "all that: we build".into(),
                priority: 7,
                enabled: false,
                keys: vec![KEY.parse().unwrap()],
                ..Config::new(name.clone(), source)
            };
            assert_eq!(parse(&config.to_yaml()).unwrap(), config);
        }
        for text in [
            "",
            "url: [",
            "url: x\n",
            "url: /srv\nprio: 7\n",
            "url: /srv\npriority: -1\n",
            "url: /srv\nbase: /srv\nversion: tag/x\n",
            "url: /srv\nchannel: main\n",
            "base: /srv\n",
            "base: /srv\nversion: x\n",
            "base: /srv\nversion: tag/../x\n",
            "url: /srv\nkeys: [x]\n",
            "url: /srv\nmirrors: [x]\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(
            parse("url: /srv\n").unwrap(),
            Config::new(name.clone(), Source::direct("/srv".parse().unwrap()))
        );
        let Source::Root { channel, architecture, .. } =
            parse("base: /srv\nversion: stream/x\n").unwrap().source
        else {
            panic!("it is the root-index form");
        };
        assert_eq!(
            (channel.to_string(), architecture.to_string()),
            ("main".into(), "x86_64".into())
        );
    }

    #[test]
    fn only_what_is_neither_signed_nor_encrypted_is_open_to_forgery() {
        let name = RepositoryName::new("local").unwrap();
        let check = |text: &str, expected: bool| {
            let config = Config::parse(name.clone(), text).unwrap();
            assert_eq!(config.is_open_to_forgery(), expected, "{text}");
        };
        check("url: /srv\n", false);
        check("url: https://example.org/\n", false);
        check("url: http://example.org/\n", true);
        check("url: https://example.org/\nmirrors: ['http://example.org/']\n", true);
        check(&format!("url: http://example.org/\nkeys: [{KEY}]\n"), false);
    }
}
