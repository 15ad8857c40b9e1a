//! Models in YAML.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cairn_store::{Tag, TreePath};
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use super::{LocalContent, LocalFile, Model, Problem};
use crate::repository::{Config, RepositoryName};

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repositories: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    packages: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<String, FileOnDisk>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    tags: BTreeSet<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileOnDisk {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// Hexadecimal digits, for what is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    /// Octal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    /// `user:group`, both as numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

/// `0644`, which YAML takes for a number, or `"0644"`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Mode {
    Text(String),
    Number(u32),
}

pub(super) fn parse(text: &str, directory: &Path) -> Result<Model, Problem> {
    let OnDisk { repositories, packages, files, tags } =
        serde_yaml::from_str(text).map_err(Problem::Yaml)?;
    let repositories = repositories.map(|all| {
        let repository = |(name, value): (String, Value)| repository(&name, &value);
        all.into_iter().map(repository).collect::<Result<Vec<_>, _>>()
    });
    let mut model = Model { repositories: repositories.transpose()?, ..Model::default() };
    for package in packages {
        model.packages.insert(package.parse()?);
    }
    for (path, file) in files {
        let (path, file) = file.check(path, directory)?;
        model.files.insert(path, file);
    }
    for tag in tags {
        model.tags.insert(Tag::new(&tag)?);
    }
    Ok(model)
}

/// A repository of this name, written as in its own file.
pub(super) fn repository(name: &str, value: &Value) -> Result<Config, Problem> {
    let failed = |problem: String| Problem::Repository { name: name.into(), problem };
    let text = serde_yaml::to_string(value).map_err(|err| failed(err.to_string()))?;
    Config::parse(RepositoryName::new(name)?, &text).map_err(|err| failed(err.to_string()))
}

impl FileOnDisk {
    fn check(self, path: String, directory: &Path) -> Result<(TreePath, LocalFile), Problem> {
        let failed = |problem: &str| Problem::File { path: path.clone(), problem: problem.into() };
        let tree_path = TreePath::new(path.as_bytes()).map_err(|err| failed(&err.to_string()))?;
        if !path.starts_with('/') || tree_path.names().is_empty() {
            return Err(failed("its path has to begin with a slash"));
        }
        let content = match (self.content, self.bytes, self.source, self.link) {
            (Some(text), None, None, None) => LocalContent::Bytes(text.into_bytes()),
            (None, Some(digits), None, None) => LocalContent::Bytes(
                from_hex(&digits).ok_or_else(|| failed("`bytes` are not hexadecimal digits"))?,
            ),
            (None, None, Some(source), None) => LocalContent::Source(directory.join(source)),
            (None, None, None, Some(text)) => {
                let fits = (1..4096).contains(&text.len()) && !text.contains('\0');
                if !fits {
                    return Err(failed("no link can have this text"));
                }
                LocalContent::Link(text)
            }
            _ => return Err(failed("it has to have one of content, bytes, source and link")),
        };
        let mode = match &self.mode {
            None => 0o644,
            Some(Mode::Text(digits)) => u16::from_str_radix(digits, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777)
                .ok_or_else(|| failed("its mode is not of octal digits"))?,
            // YAML 1.1 reads 0644 as octal, 1.2 as decimal: the digits are what was
            // meant.
            Some(Mode::Number(number)) => u16::from_str_radix(&number.to_string(), 8)
                .ok()
                .filter(|mode| *mode <= 0o7777)
                .ok_or_else(|| failed("write its mode in quotes, such as \"0644\""))?,
        };
        let (uid, gid) = match self.owner.as_deref() {
            None => (0, 0),
            Some(owner) => owner
                .split_once(':')
                .and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)))
                .ok_or_else(|| failed("its owner is not USER:GROUP, both as numbers"))?,
        };
        Ok((tree_path, LocalFile { content, mode, uid, gid }))
    }

    fn new(file: &LocalFile) -> std::io::Result<Self> {
        let mut on_disk = Self::default();
        let text = |bytes: Vec<u8>, on_disk: &mut Self| match String::from_utf8(bytes) {
            Ok(text) => on_disk.content = Some(text),
            Err(err) => on_disk.bytes = Some(to_hex(err.as_bytes())),
        };
        match &file.content {
            LocalContent::Bytes(bytes) => text(bytes.clone(), &mut on_disk),
            LocalContent::Source(path) => text(std::fs::read(path)?, &mut on_disk),
            LocalContent::Link(text) => on_disk.link = Some(text.clone()),
        }
        let is_link = matches!(file.content, LocalContent::Link(_));
        if file.mode != 0o644 && !is_link {
            on_disk.mode = Some(Mode::Text(format!("{:04o}", file.mode)));
        }
        if (file.uid, file.gid) != (0, 0) {
            on_disk.owner = Some(format!("{}:{}", file.uid, file.gid));
        }
        Ok(on_disk)
    }
}

pub(super) fn write(model: &Model) -> std::io::Result<String> {
    let repositories = model.repositories.as_ref().map(|all| {
        let value = |config: &Config| {
            let yaml = config.to_yaml();
            let value = serde_yaml::from_str(&yaml).expect("it was just written");
            (config.name.to_string(), value)
        };
        all.iter().map(value).collect()
    });
    let mut files = BTreeMap::new();
    for (path, file) in &model.files {
        let path = String::from_utf8(path.to_bytes()).map_err(std::io::Error::other)?;
        files.insert(path, FileOnDisk::new(file)?);
    }
    let on_disk = OnDisk {
        repositories,
        packages: model.packages.iter().map(ToString::to_string).collect(),
        files,
        tags: model.tags.iter().map(ToString::to_string).collect(),
    };
    Ok(serde_yaml::to_string(&on_disk).expect("it has no odd keys"))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
repositories:
  local:
    url: file:///srv/stones
    priority: 7
packages:
  - nano
  - binary(python3)
files:
  /etc/hostname:
    content: "box\n"
  /usr/local/bin/tool:
    source: tool.sh
    mode: "0755"
    owner: 1:2
  /etc/localtime:
    link: /usr/share/zoneinfo/UTC
  /etc/raw:
    bytes: 00ff
    mode: 0600
tags: [stable]
"#;

    #[test]
    fn a_model_is_read_and_reads_back() {
        let model = parse(TEXT, Path::new("/models")).unwrap();
        assert_eq!(model.repositories.as_ref().unwrap()[0].priority, 7);
        let packages: Vec<String> = model.packages.iter().map(ToString::to_string).collect();
        assert_eq!(packages, ["binary(python3)", "nano"]);
        let file = |path: &str| &model.files[&TreePath::new(path.as_bytes()).unwrap()];
        let tool = file("/usr/local/bin/tool");
        assert_eq!(tool.content, LocalContent::Source("/models/tool.sh".into()));
        assert_eq!((tool.mode, tool.uid, tool.gid), (0o755, 1, 2));
        assert_eq!(file("/etc/raw").mode, 0o600);
        assert_eq!(file("/etc/raw").content, LocalContent::Bytes(vec![0, 255]));
        let mut whole = model.clone();
        let bytes = LocalContent::Bytes(b"#!/bin/sh\n".to_vec());
        whole.files.values_mut().filter(|it| it.uid == 1).for_each(|it| it.content = bytes.clone());
        assert_eq!(parse(&whole.to_yaml().unwrap(), Path::new("/")).unwrap(), whole);
        let empty = parse("packages: []", Path::new("/")).unwrap();
        assert_eq!(empty, Model::default());
    }

    #[test]
    fn mistakes_are_errors_that_name_what_is_wrong() {
        let check = |from: &str, to: &str, expected: &str| {
            let text = TEXT.replacen(from, to, 1);
            assert_ne!(text, TEXT, "{from}");
            let problem = parse(&text, Path::new("/")).expect_err(to);
            let source = std::error::Error::source(&problem).map(ToString::to_string);
            let said = format!("{problem}: {}", source.unwrap_or_default());
            assert!(said.contains(expected), "{said}");
        };
        check("packages:", "package:", "unknown field `package`");
        check("url:", "uri:", "the repository local");
        check("local:", "lo/cal:", "cannot name a repository");
        check("binary(", "bin(", "not a kind");
        check("/etc/hostname", "etc/hostname", "begin with a slash");
        check("/etc/hostname", "/etc/../x", "not a path");
        check("00ff", "0ff", "not hexadecimal");
        check("content:", "text:", "unknown field `text`");
        check("    content: \"box\\n\"\n", "    mode: \"0644\"\n", "one of content");
        check("\"0755\"", "\"0855\"", "octal");
        check("1:2", "root:root", "USER:GROUP");
        check("[stable]", "[\"5\"]", "cannot be a tag");
    }
}
