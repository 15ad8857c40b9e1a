//! Where something lies: on this machine, or at a server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use fluent_uri::{Uri, UriRef};
use serde::{Serialize, Serializer};

/// The usual name of an index.
pub(super) const INDEX: &str = "stone.index";

/// The address of a file or directory.
///
/// Invariant: an absolute URL of the scheme `file`, without a host, or `http`
/// or `https`, with one; no fragment.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(Uri<String>);

/// A text that cannot be a [`Url`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url}: {problem}")]
pub struct InvalidUrl {
    /// The text.
    pub url: String,
    /// Why it cannot.
    pub problem: &'static str,
}

impl Url {
    /// The address of a file or directory of this machine.
    ///
    /// # Errors
    /// The path is not absolute.
    pub fn of_path(path: &Path) -> Result<Self, InvalidUrl> {
        let invalid = |problem| InvalidUrl { url: path.display().to_string(), problem };
        if !path.is_absolute() {
            return Err(invalid("it must be an absolute path"));
        }
        let mut text = String::from("file://");
        escape(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()), &mut text);
        Uri::parse(text).map(Self).map_err(|_| invalid("it is not a path"))
    }

    fn checked(uri: Uri<String>) -> Result<Self, &'static str> {
        let host = uri.authority().map(|it| it.host()).unwrap_or_default();
        match uri.scheme().as_str() {
            // Empty and localhost are what RFC 8089 calls this machine.
            "file" if !host.is_empty() && host != "localhost" => {
                return Err("a file is on this machine: write file:/// and the path");
            }
            "file" if !uri.path().as_str().starts_with('/') => {
                return Err("it must be an absolute path");
            }
            "file" => {
                if uri.path().decode().to_bytes().contains(&0) {
                    return Err("it has a NUL");
                }
            }
            "http" | "https" if host.is_empty() => return Err("it names no host"),
            "http" | "https" => {}
            _ => return Err("only https://, http:// and file:// are supported"),
        }
        Ok(Self(uri.strip_fragment().to_owned()))
    }

    /// Where `reference` leads that stands in the file at this address.
    ///
    /// Characters that a URL cannot have, such as spaces, are escaped first:
    /// indices name files as they are.
    ///
    /// Rule: RFC 3986, section 5.
    pub(super) fn join(&self, reference: &str) -> Result<Self, &'static str> {
        let mut escaped = String::with_capacity(reference.len());
        for byte in reference.bytes() {
            match byte {
                0x21..=0x7e if !b"\"<>\\^`{|}".contains(&byte) => escaped.push(char::from(byte)),
                _ => escaped.push_str(&format!("%{byte:02X}")),
            }
        }
        let reference = UriRef::parse(escaped).map_err(|_| "it is not a URL")?;
        let joined = reference.resolve_against(&self.0).map_err(|_| "it is not a URL")?;
        Self::checked(joined)
    }

    /// The same with `path`, which needs no escapes, appended to its path.
    pub(super) fn below(&self, path: &str) -> Self {
        let slash = if self.0.path().as_str().ends_with('/') { "" } else { "/" };
        let text = format!("{}{slash}{path}", self.without_query());
        Self(Uri::parse(text).expect("a path without escapes makes no other URL"))
    }

    /// The index: the address itself if it ends in `.index`, else
    /// `stone.index` below it.
    pub(super) fn index(&self) -> Self {
        let is_index = self.0.path().as_str().ends_with(".index");
        if is_index { self.clone() } else { self.below(INDEX) }
    }

    /// The same with `suffix` at the end of its path.
    pub(super) fn with_suffix(&self, suffix: &str) -> Self {
        let query = self.0.query().map(|query| format!("?{query}")).unwrap_or_default();
        let text = format!("{}{suffix}{query}", self.without_query());
        Self(Uri::parse(text).expect("a suffix without escapes makes no other URL"))
    }

    fn without_query(&self) -> &str {
        self.0.as_str().split('?').next().unwrap_or_default()
    }

    /// The file, if it is one of this machine.
    #[must_use]
    pub fn local(&self) -> Option<PathBuf> {
        let is_file = self.0.scheme().as_str() == "file";
        let bytes = || self.0.path().decode().to_bytes().into_owned();
        is_file.then(|| {
            PathBuf::from(
                <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes()),
            )
        })
    }

    /// Whether what comes from there is encrypted, or never leaves the
    /// machine.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.0.scheme().as_str() != "http"
    }

    /// The whole address, with a password if it has one.
    pub(super) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The host, for people; empty for a file.
    pub(super) fn host(&self) -> &str {
        self.0.authority().map(|it| it.host()).unwrap_or_default()
    }
}

/// An absolute path, or a URL.
impl FromStr for Url {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        if text.starts_with('/') {
            return Self::of_path(Path::new(text));
        }
        let invalid = |problem| InvalidUrl { url: text.into(), problem };
        if !text.contains(':') {
            return Err(invalid("it must be a URL or an absolute path"));
        }
        let uri = Uri::parse(text.to_owned()).map_err(|_| invalid("it is not a URL"))?;
        Self::checked(uri.normalize()).map_err(invalid)
    }
}

/// Shows the address without a password.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.as_str();
        let Some(user) = self.0.authority().and_then(|it| it.userinfo()) else {
            return f.write_str(text);
        };
        let shown = match user.as_str().split_once(':') {
            Some((name, _)) => format!("{name}:***"),
            None => user.as_str().to_owned(),
        };
        f.write_str(&text.replacen(user.as_str(), &shown, 1))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Escapes everything that cannot stand in a path.
pub(super) fn escape(path: &[u8], to: &mut String) {
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=@".contains(&byte) {
            to.push(char::from(byte));
        } else {
            to.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect(text)
    }

    #[test]
    fn an_index_is_a_file_here_or_at_a_server() {
        for (text, index, local) in [
            ("/srv/stones", "file:///srv/stones/stone.index", Some("/srv/stones/stone.index")),
            ("/srv/a b%", "file:///srv/a%20b%25/stone.index", Some("/srv/a b%/stone.index")),
            ("file:///srv/a%20b/", "file:///srv/a%20b/stone.index", Some("/srv/a b/stone.index")),
            ("file:/srv/x.index", "file:/srv/x.index", Some("/srv/x.index")),
            ("file://localhost/srv/x.index", "file://localhost/srv/x.index", Some("/srv/x.index")),
            ("http://example.org", "http://example.org/stone.index", None),
            ("https://example.org/a/b.index", "https://example.org/a/b.index", None),
            ("HTTPS://Example.org:8443/a/?x=1", "https://example.org:8443/a/stone.index", None),
        ] {
            let found = url(text).index();
            assert_eq!(found.as_str(), index, "{text}");
            assert_eq!(found.local().as_deref(), local.map(Path::new), "{text}");
        }
        for text in [
            "",
            "srv/stones",
            "ftp://x/y",
            "file://%zz",
            "file://server/x",
            "file:x",
            "http://",
            "http:///x",
            "https:example.org",
            "http://exa mple.org/",
            "file:///a%00b",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_reference_leads_where_rfc_3986_says() {
        let base = url("http://a/b/c/stone.index");
        for (reference, expected) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("../g", "http://a/b/g"),
            ("../../../g", "http://a/g"),
            ("/g", "http://a/g"),
            ("//h/g", "http://h/g"),
            ("https://h/g", "https://h/g"),
            ("x y/\u{e4}+1:2", "http://a/b/c/x%20y/%C3%A4+1:2"),
            ("a%20b", "http://a/b/c/a%20b"),
        ] {
            assert_eq!(base.join(reference).expect(reference).as_str(), expected, "{reference}");
        }
        for reference in ["ftp://x/y", "http://", "a%zz", "http://h:x/"] {
            assert!(base.join(reference).is_err(), "{reference}");
        }
    }

    #[test]
    fn people_see_no_password() {
        let secret = url("https://user:secret@example.org/x");
        assert_eq!(secret.to_string(), "https://user:***@example.org/x");
        assert_eq!(format!("{secret:?}"), "https://user:***@example.org/x");
        assert_eq!(secret.as_str(), "https://user:secret@example.org/x");
        assert_eq!(url("http://user@h/").to_string(), "http://user@h/");
    }

    #[test]
    fn a_suffix_comes_before_a_query() {
        assert_eq!(
            url("http://h/x.index?a").with_suffix(".sig").as_str(),
            "http://h/x.index.sig?a"
        );
        assert_eq!(url("http://h/a/").below("b/c").as_str(), "http://h/a/b/c");
    }
}
