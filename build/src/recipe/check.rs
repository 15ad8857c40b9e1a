//! What a value of a recipe may be.

use cairn_package::Dependency;

use super::PathRule;
use crate::glob::Glob;
use crate::problem::{Problem, Span, nearest};
use crate::yaml::Reader;

/// The longest text of one line, in bytes.
pub(super) const MAX_LINE: usize = 1024;
/// The longest text, in bytes.
pub(super) const MAX_TEXT: usize = 256 << 10;

/// Whether a text can be the name of a package: letters, digits and `+-._`, the
/// first one a letter or digit, at most 128.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    begins && text.len() <= 128 && text.chars().all(allowed)
}

/// Whether a text can be the version of a package: it begins with a digit, and
/// has letters, digits and `+-._~` only, at most 128.
#[must_use]
pub fn is_version(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+-._~".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_digit());
    begins && text.len() <= 128 && text.chars().all(allowed)
}

/// Whether a text can be the name of a file in a directory of ours.
pub(super) fn is_file_name(text: &str) -> bool {
    let special = matches!(text, "" | "." | "..");
    !special && text.len() <= 255 && !text.contains(['/', '\0', '\n'])
}

/// Whether a text is a path that stays below where it begins.
pub(super) fn is_relative_path(text: &str) -> bool {
    text.len() <= 1024 && text.split('/').all(is_file_name)
}

/// Replaces what stands for definitions by something harmless, to check the
/// rest.
pub(super) fn without_definitions(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("%(") {
        out.push_str(&rest[..at]);
        match rest[at..].find(')') {
            Some(end) => {
                out.push('x');
                rest = &rest[at + end + 1..];
            }
            None => {
                rest = &rest[at..];
                break;
            }
        }
    }
    out.push_str(rest);
    out
}

/// A dependency, in which definitions may stand for anything.
pub(super) fn dependency(reader: &mut Reader, text: &str, span: Span) {
    let plain = without_definitions(text);
    if plain.len() > MAX_LINE {
        reader.error(span, "a dependency of this length is none");
        return;
    }
    let problem = match plain.parse::<Dependency>() {
        Ok(dependency) if dependency.text.contains(char::is_whitespace) => {
            Problem::error(span, format!("{text:?} is not a dependency: it has white space"))
                .hint("write each dependency as an item of its own")
        }
        Ok(_) => return,
        Err(err) => Problem::error(span, format!("not a dependency: {err}")),
    };
    let kinds: Vec<&str> = cairn_package::Kind::all().map(cairn_package::Kind::prefix).collect();
    let written = plain.split('(').next().unwrap_or_default();
    reader.push(match nearest(written, kinds.iter().copied()) {
        Some(meant) if plain.contains('(') && problem.hint.is_none() => {
            problem.hint(format!("did you mean {meant}(...)?"))
        }
        _ if problem.hint.is_none() => {
            problem.hint(format!("write a name or kind(text); kinds: {}", kinds.join(", ")))
        }
        _ => problem,
    });
}

/// A regular expression of the usual size.
pub(super) fn regex(reader: &mut Reader, text: &str, span: Span) {
    if let Err(err) = compile(text) {
        let text = err.to_string();
        let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        let reason = last.trim().trim_start_matches("error: ");
        reader.error(span, format!("not a regular expression: {reason}"));
    }
}

/// Compiles a regular expression of the usual size.
pub(crate) fn compile(text: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(text).size_limit(1 << 20).build()
}

/// A rule for paths, in which definitions may stand for anything.
pub(super) fn path_rule(reader: &mut Reader, rule: &PathRule, span: Span) {
    let glob = without_definitions(&rule.glob);
    let begins_with_definition = rule.glob.starts_with("%(");
    if !glob.starts_with('/') && !begins_with_definition && !glob.starts_with('*') {
        reader.push(
            Problem::error(span, format!("{:?} can match nothing: paths begin with /", rule.glob))
                .hint(format!("did you mean {:?}?", format!("/{}", rule.glob))),
        );
        return;
    }
    if glob.split('/').any(|part| matches!(part, "." | "..")) {
        reader.error(span, format!("{:?} can match nothing: it has \".\" or \"..\"", rule.glob));
        return;
    }
    if let Err(err) = Glob::new(&glob) {
        reader.error(span, format!("{:?} is not a pattern: {err}", rule.glob));
        return;
    }
    let below_usr = glob.starts_with("/usr") || !glob.starts_with('/');
    if !below_usr {
        reader.push(
            Problem::warning(span, format!("{:?} matches nothing that is packaged", rule.glob))
                .hint("only what is below /usr becomes part of a package"),
        );
    }
}

/// A licence: an SPDX expression of known identifiers.
pub(super) fn license(reader: &mut Reader, text: &str, span: Span) {
    let Err(err) = spdx::Expression::parse_mode(text, spdx::ParseMode::LAX) else { return };
    let problem =
        Problem::warning(span, format!("{text:?} is not a licence of SPDX: {}", err.reason));
    let ids = spdx::identifiers::LICENSES.iter().map(|license| license.name);
    reader.push(match nearest(text, ids) {
        Some(meant) => problem.hint(format!("did you mean {meant:?}?")),
        None => problem.hint("https://spdx.org/licenses lists them; LicenseRef-NAME is any other"),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_can_be_parts_of_file_names() {
        for text in ["nano", "gtk+", "libc++", "0ad", "a.b-c_d", "python-foo"] {
            assert!(is_name(text), "{text}");
        }
        for text in ["", "-x", ".x", "a/b", "a b", "ä", "a\n", &"x".repeat(129), "%(name)"] {
            assert!(!is_name(text), "{text:?}");
        }
        for text in ["1", "1.10", "8.7", "2024-01-02", "1.0~rc1", "1+git.abc"] {
            assert!(is_version(text), "{text}");
        }
        for text in ["", "v1", "1/2", "1 2", "1:2", "..", &"1".repeat(129)] {
            assert!(!is_version(text), "{text:?}");
        }
    }

    #[test]
    fn relative_paths_stay_below() {
        for text in ["a", "a/b", "a.b/..c", "x y"] {
            assert!(is_relative_path(text), "{text}");
        }
        for text in ["", "/a", "a//b", "..", "a/../b", "a/", "./a", "a\0b", "a\nb"] {
            assert!(!is_relative_path(text), "{text:?}");
        }
    }

    #[test]
    fn definitions_may_stand_for_anything() {
        assert_eq!(without_definitions("%(name)-devel"), "x-devel");
        assert_eq!(without_definitions("a%(b)c%(d)e%"), "axcxe%");
        assert_eq!(without_definitions("a%(b"), "a%(b");
    }
}
