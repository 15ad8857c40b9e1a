//! What the address of an archive says: name, version, homepage.

use crate::recipe::{is_name, is_version};

/// What the address of an archive says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Of the package.
    pub name: String,
    /// Without a leading `v`.
    pub version: String,
    /// A web page, if the address tells one.
    pub homepage: Option<String>,
    /// Whether the files may know the name better.
    pub is_guess: bool,
}

/// Suffixes of archives, the longer ones first.
const SUFFIXES: [&str; 14] = [
    ".tar.bz2", ".tar.zst", ".tar.lz", ".tar.gz", ".tar.xz", ".tar.Z", ".tbz2", ".tgz", ".txz",
    ".tzst", ".crate", ".tar", ".zip", ".xpi",
];

/// Reads the address of an archive, or the path of a file.
#[must_use]
pub fn source_of(url: &str) -> Option<Source> {
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next()?;
    let (host, path) = rest.split_once('/').unwrap_or(("", rest));
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let file = parts.last()?;
    let stem = SUFFIXES.iter().find_map(|suffix| file.strip_suffix(suffix)).unwrap_or(file);
    if let (true, [owner, project, ..]) = (is_forge(host), parts.as_slice()) {
        let homepage = Some(format!("https://{host}/{owner}/{project}"));
        let project = project.trim_end_matches(".git");
        let version = version_of_tag(stem, project)?;
        let name = tidy(project)?;
        return Some(Source { name, version, homepage, is_guess: false });
    }
    // Debian's names of upstream archives: name_version.orig.tar.xz
    let debian = stem.strip_suffix(".orig").and_then(|stem| stem.split_once('_'));
    let (name, version) = match debian {
        Some((name, version)) => (name.to_owned(), without_repack(version)),
        None => split(stem)?,
    };
    let is_python = host.ends_with("pypi.org") || host.ends_with("pythonhosted.org");
    if is_python {
        let plain = name.replace(['_', '.'], "-").to_lowercase();
        let homepage = Some(format!("https://pypi.org/project/{plain}"));
        let name = tidy(&format!("python-{}", plain.trim_start_matches("python-")))?;
        return Some(Source { name, version, homepage, is_guess: false });
    }
    let is_perl = host.ends_with("cpan.org");
    if is_perl {
        let homepage = Some(format!("https://metacpan.org/dist/{name}"));
        let name = tidy(&format!("perl-{}", name.to_lowercase()))?;
        return Some(Source { name, version, homepage, is_guess: false });
    }
    let homepage = match host {
        host if host.ends_with("crates.io") => Some(format!("https://crates.io/crates/{name}")),
        "ftp.gnu.org" | "ftpmirror.gnu.org" => Some(format!("https://www.gnu.org/software/{name}")),
        _ => None,
    };
    Some(Source { name: tidy(&name)?, version, homepage, is_guess: debian.is_some() })
}

/// Whether the projects of a host have addresses of their owner and their name.
pub(super) fn is_forge(host: &str) -> bool {
    host == "github.com" || host == "codeberg.org" || host.contains("gitlab")
}

fn tidy(name: &str) -> Option<String> {
    let name = name.to_lowercase().replace(' ', "-");
    Some(name).filter(|name| is_name(name))
}

/// `v1.2`, `name-1.2`, `release-1_2`: the version.
fn version_of_tag(tag: &str, project: &str) -> Option<String> {
    let tag = tag.strip_prefix(project).map_or(tag, |rest| rest.trim_start_matches(['-', '_']));
    let at = tag.find(|c: char| c.is_ascii_digit())?;
    let before = &tag[..at];
    let is_word = before.chars().all(|c| c.is_ascii_alphabetic() || "-_.".contains(c));
    let version = tag[at..].replace('_', ".");
    (is_word && is_version(&version)).then_some(version)
}

/// `name-1.2.3`, `name_1.2`, `name1.2`: both parts.
fn split(stem: &str) -> Option<(String, String)> {
    let digit = |c: char| c.is_ascii_digit();
    for (at, c) in stem.char_indices().filter(|(_, c)| "-_".contains(*c)) {
        let rest = stem[at + c.len_utf8()..].trim_start_matches('v');
        if rest.starts_with(digit) && at > 0 && is_version(rest) {
            return Some((stem[..at].into(), rest.into()));
        }
    }
    let at = stem.find(digit).filter(|at| *at > 0)?;
    let version = &stem[at..];
    let name = stem[..at].trim_end_matches(['-', '_', '.']);
    (is_version(version) && !name.is_empty()).then(|| (name.into(), version.into()))
}

/// `1.2+dfsg1`, `1.2.dfsg`: `1.2`.
fn without_repack(version: &str) -> String {
    let marks = ["+dfsg", ".dfsg", "~dfsg", "+ds", "+repack", ".repack", "+debian"];
    let end = marks.iter().filter_map(|mark| version.find(mark)).min();
    version[..end.unwrap_or(version.len())].into()
}

/// The directory of an address, for want of a better page.
pub(super) fn directory_of(url: &str) -> String {
    url.rsplit_once('/').map_or(url, |(directory, _)| directory).into()
}

/// The address of another version of the same archive: the version is replaced
/// wherever it stands, and the first two numbers of it where they stand alone as a
/// directory.
#[must_use]
pub fn next_url(url: &str, old: &str, new: &str) -> Option<String> {
    let series = |version: &str| -> Option<String> {
        let mut numbers = version.split('.');
        let (first, second) = (numbers.next()?, numbers.next()?);
        Some(format!("{first}.{second}"))
    };
    let replaced: Vec<String> = url
        .split('/')
        .map(|part| {
            let plain = part.strip_prefix('v').unwrap_or(part);
            let prefix = &part[..part.len() - plain.len()];
            match (series(old), series(new)) {
                (Some(old_series), Some(new_series)) if plain == old_series && plain != old => {
                    format!("{prefix}{new_series}")
                }
                _ => part.replace(old, new).replace(&old.replace('.', "_"), &new.replace('.', "_")),
            }
        })
        .collect();
    let replaced = replaced.join("/");
    (replaced != url).then_some(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_tell_names_and_versions() {
        let check = |url: &str, name: &str, version: &str| {
            let source = source_of(url).unwrap_or_else(|| panic!("{url}"));
            assert_eq!((source.name.as_str(), source.version.as_str()), (name, version), "{url}");
        };
        check("https://www.nano-editor.org/dist/v8/nano-8.7.tar.xz", "nano", "8.7");
        check("https://zlib.net/zlib-1.3.1.tar.gz", "zlib", "1.3.1");
        check("https://github.com/fmtlib/fmt/archive/refs/tags/11.0.2.tar.gz", "fmt", "11.0.2");
        check("https://github.com/a/B/releases/download/v1.2/B-1.2.tar.xz", "b", "1.2");
        check("https://github.com/a/curl/archive/curl-8_1_0.tar.gz", "curl", "8.1.0");
        check(
            "https://gitlab.gnome.org/GNOME/glib/-/archive/2.80.0/glib-2.80.0.tar.gz",
            "glib",
            "2.80.0",
        );
        check(
            "https://files.pythonhosted.org/packages/x/y/Foo_Bar-1.0.tar.gz",
            "python-foo-bar",
            "1.0",
        );
        check(
            "https://cpan.metacpan.org/authors/id/X/XY/Foo-Bar-1.02.tar.gz",
            "perl-foo-bar",
            "1.02",
        );
        check("https://static.crates.io/crates/ripgrep/ripgrep-14.1.0.crate", "ripgrep", "14.1.0");
        check("file:///src/zlib_1.2.13.dfsg.orig.tar.bz2", "zlib", "1.2.13");
        check("file:///src/fmtlib_9.1.0+ds1.orig.tar.gz", "fmtlib", "9.1.0");
        check("https://x.org/tcl8.6.14-src.tar.gz", "tcl", "8.6.14-src");
        check("https://x.org/a-b-2024-01-02.tgz", "a-b", "2024-01-02");
        for url in ["https://x.org/", "https://x.org/latest.tar.gz", "https://x.org/1.0.tar.gz"] {
            assert_eq!(source_of(url), None, "{url}");
        }
    }

    #[test]
    fn the_address_of_the_next_version_is_guessed() {
        let check = |url: &str, old: &str, new: &str, expected: Option<&str>| {
            assert_eq!(next_url(url, old, new).as_deref(), expected, "{url}");
        };
        check("https://x/a-1.2.tar.gz", "1.2", "1.3", Some("https://x/a-1.3.tar.gz"));
        let gnome = "https://x/glib/2.80/glib-2.80.1.tar.xz";
        check(gnome, "2.80.1", "2.82.0", Some("https://x/glib/2.82/glib-2.82.0.tar.xz"));
        check("https://x/v1.2.3/a.tar.gz", "1.2.3", "1.3.0", Some("https://x/v1.3.0/a.tar.gz"));
        check("https://x/curl-8_1_0.tgz", "8.1.0", "8.2.0", Some("https://x/curl-8_2_0.tgz"));
        check("https://x/latest.tgz", "1", "2", None);
    }
}
