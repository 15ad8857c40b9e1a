//! What a recipe downloads.

use std::fmt;

use super::Spanned;
use super::check::{is_file_name, is_relative_path};
use crate::problem::{Problem, Span};
use crate::yaml::{Key, Node, Reader, Value};

/// Something that a recipe downloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// One file, usually an archive.
    Archive(Archive),
    /// A commit of a git repository.
    Git(Git),
}

/// A file that is downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// `https://`, `http://` or `file://`.
    pub url: Spanned<String>,
    /// What its bytes must hash to.
    pub hash: Spanned<Hash>,
    /// Its name beside the others; one component.
    pub name: String,
    /// The directory into which it is unpacked, relative to the directory of
    /// the build; none if it is not unpacked.
    pub unpack: Option<String>,
    /// How many leading components its entries lose.
    pub strip: u8,
}

/// A commit of a git repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Git {
    /// Without the `git|` that a recipe has before it.
    pub url: Spanned<String>,
    /// A commit, tag or branch.
    pub reference: Spanned<String>,
    /// The directory of the checkout, relative to the directory of the build.
    pub directory: String,
}

/// SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// The hash with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// 64 lower-case hexadecimal digits.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Upstream {
    /// The directory in which it lies when the build begins, if it has one.
    #[must_use]
    pub fn directory(&self) -> Option<&str> {
        match self {
            Self::Archive(archive) => archive.unpack.as_deref(),
            Self::Git(git) => Some(&git.directory),
        }
    }
}

/// Reads the items of `upstreams`.
pub(super) fn read_all(node: &Node, reader: &mut Reader) -> Vec<Upstream> {
    let mut upstreams: Vec<Upstream> = Vec::new();
    for item in reader.list(node, "upstreams") {
        let Some((key, value)) = reader.pair(item, "an upstream") else { continue };
        let Some(upstream) = read(key, value, reader) else { continue };
        let file = |it: &Upstream| match it {
            Upstream::Archive(archive) => Some(archive.name.clone()),
            Upstream::Git(_) => None,
        };
        let same = upstreams.iter().find(|it| file(it).is_some() && file(it) == file(&upstream));
        if let Some(first) = same {
            let name = file(&upstream).unwrap_or_default();
            let message = format!("two upstreams would be saved as {name:?}");
            let problem = Problem::error(key.span, message).hint("give one another name: rename");
            reader.push(problem.also(first.url().span, "the first one is here"));
        }
        upstreams.push(upstream);
    }
    upstreams
}

impl Upstream {
    /// Where it comes from.
    #[must_use]
    pub fn url(&self) -> &Spanned<String> {
        match self {
            Self::Archive(archive) => &archive.url,
            Self::Git(git) => &git.url,
        }
    }
}

const ARCHIVE_KEYS: &[&str] = &["hash", "rename", "unpack", "unpackdir", "stripdirs"];
const GIT_KEYS: &[&str] = &["ref", "clonedir"];

fn read(key: &Key, value: &Node, reader: &mut Reader) -> Option<Upstream> {
    match key.text.strip_prefix("git|") {
        Some(url) => {
            let before = key.text.len() - url.len();
            let span = Span::new(key.span.start + before, key.span.end);
            read_git(url, span, value, reader).map(Upstream::Git)
        }
        None => read_archive(&key.text, key.span, value, reader).map(Upstream::Archive),
    }
}

fn read_archive(url: &str, span: Span, value: &Node, reader: &mut Reader) -> Option<Archive> {
    let segment = check_url(url, span, &["https", "http", "file"], reader)?;
    let mut name = segment.to_owned();
    let mut unpack = true;
    let mut directory = None;
    let mut strip = 1;
    let mut hash = None;
    if let Value::Map(_) = value.value {
        let mut fields = reader.fields(value, "an upstream");
        match fields.take("hash") {
            Some(node) => hash = read_hash(node, reader),
            None => {
                let problem = Problem::error(span, "an upstream without a hash");
                reader.push(problem.hint("hash: the SHA-256 of the file; sha256sum computes it"));
            }
        }
        if let Some(node) = fields.take("rename")
            && let Some(text) = reader.text(node, "rename")
        {
            if is_file_name(text) {
                text.clone_into(&mut name);
            } else {
                reader.error(node.span, format!("{text:?} is not the name of a file"));
            }
        }
        if let Some(node) = fields.take("unpack") {
            unpack = reader.boolean(node, "unpack").unwrap_or(true);
        }
        if let Some(node) = fields.take("unpackdir")
            && let Some(text) = reader.text(node, "unpackdir")
        {
            let text = text.trim_end_matches('/');
            if is_relative_path(text) {
                directory = Some(text.to_owned());
            } else {
                let message = format!("unpackdir {text:?} leads out of the directory of the build");
                reader.push(Problem::error(node.span, message).hint("write a path without \"..\""));
            }
        }
        if let Some(node) = fields.take("stripdirs") {
            let number = reader.number(node, "stripdirs", (0, 255)).unwrap_or(1);
            strip = u8::try_from(number).unwrap_or(1);
        }
        for key in GIT_KEYS {
            if fields.take(key).is_some() {
                let problem = Problem::error(span, format!("an archive has no {key:?}"));
                reader.push(problem.hint("put git| before the URL of a git repository"));
            }
        }
        fields.finish(ARCHIVE_KEYS, reader);
    } else {
        hash = read_hash(value, reader);
    }
    if name.is_empty() {
        let problem = Problem::error(span, "the URL ends without the name of a file");
        reader.push(problem.hint("give it one: rename"));
    }
    let unpack = unpack.then(|| directory.unwrap_or_else(|| name.clone()));
    Some(Archive { url: Spanned::new(span, url.into()), hash: hash?, name, unpack, strip })
}

fn read_git(url: &str, span: Span, value: &Node, reader: &mut Reader) -> Option<Git> {
    let segment = check_url(url, span, &["https", "http", "file", "ssh", "git"], reader)?;
    let mut directory = segment.to_owned();
    let mut reference = None;
    if let Value::Map(_) = value.value {
        let mut fields = reader.fields(value, "an upstream");
        match fields.take("ref") {
            Some(node) => reference = read_reference(node, reader),
            None => {
                let problem = Problem::error(span, "a git repository without a ref");
                reader.push(problem.hint("ref: a commit, tag or branch"));
            }
        }
        if let Some(node) = fields.take("clonedir")
            && let Some(text) = reader.text(node, "clonedir")
        {
            if is_relative_path(text) {
                text.clone_into(&mut directory);
            } else {
                let message = format!("clonedir {text:?} leads out of the directory of the build");
                reader.error(node.span, message);
            }
        }
        for key in ARCHIVE_KEYS {
            if fields.take(key).is_some() {
                let problem = Problem::error(span, format!("a git repository has no {key:?}"));
                reader.push(problem.hint(format!("known here: {}", GIT_KEYS.join(", "))));
            }
        }
        fields.finish(GIT_KEYS, reader);
    } else {
        reference = read_reference(value, reader);
    }
    if directory.is_empty() {
        let problem = Problem::error(span, "the URL ends without the name of a directory");
        reader.push(problem.hint("give it one: clonedir"));
    }
    Some(Git { url: Spanned::new(span, url.into()), reference: reference?, directory })
}

fn read_hash(node: &Node, reader: &mut Reader) -> Option<Spanned<Hash>> {
    let text = reader.text(node, "hash")?;
    match Hash::parse(text) {
        Some(hash) => Some(Spanned::new(node.span, hash)),
        None => {
            let problem = Problem::error(node.span, format!("{text:?} is not a SHA-256"));
            reader.push(problem.hint("64 hexadecimal digits; sha256sum FILE computes them"));
            None
        }
    }
}

/// A reference is an argument of git, so that it must not look like an option.
fn read_reference(node: &Node, reader: &mut Reader) -> Option<Spanned<String>> {
    let text = reader.text(node, "ref")?;
    let allowed = |c: char| c.is_ascii_graphic() && !"~^:?*[\\".contains(c);
    let is_one = !text.starts_with('-') && !text.contains("..") && text.chars().all(allowed);
    if is_one && text.len() <= 255 {
        return Some(Spanned::new(node.span, text.into()));
    }
    reader.error(node.span, format!("{text:?} is not a commit, tag or branch"));
    None
}

/// Checks a URL, and gives its last segment.
fn check_url<'u>(
    url: &'u str,
    span: Span,
    schemes: &[&str],
    reader: &mut Reader,
) -> Option<&'u str> {
    let known = schemes.join("://, ");
    let Some((scheme, rest)) = url.split_once("://") else {
        let problem = Problem::error(span, format!("{url:?} is not a URL"));
        reader.push(problem.hint(format!("write it with its scheme: {known}://")));
        return None;
    };
    if !schemes.contains(&scheme) {
        let problem = Problem::error(span, format!("nothing can be downloaded by {scheme}://"));
        reader.push(problem.hint(format!("known: {known}://")));
        return None;
    }
    let allowed = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
    if !url.chars().all(allowed) || url.len() > 2048 {
        let problem = Problem::error(span, format!("{url:?} is not a URL"));
        reader.push(problem.hint("write other characters than those of URLs as %XX"));
        return None;
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if (host.is_empty() && scheme != "file") || (!host.is_empty() && scheme == "file") {
        let message = if scheme == "file" {
            "a URL of a file has three slashes: file:///path"
        } else {
            "the URL has no host"
        };
        reader.error(span, message);
        return None;
    }
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let segment = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if matches!(segment, "." | "..") {
        reader.error(span, "the URL ends without the name of a file");
        return None;
    }
    Some(segment)
}
