//! What the metadata of a Python distribution says: its name, and what it
//! needs.
//!
//! Format: the core metadata specifications of PyPA; requirements as in
//! PEP 508, names as in PEP 503; `requires.txt` as setuptools documents it under
//! "The Internal Structure of Python Eggs".

use std::io::Read;

/// More of a file is not read.
const MAX_LEN: u64 = 1 << 20;

/// The normalised name of a distribution.
pub fn distribution(metadata: impl Read) -> Option<String> {
    let head = head(metadata)?;
    let name = fields(&head)
        .find_map(|(field, value)| field.eq_ignore_ascii_case("Name").then_some(value))?;
    normalised(name)
}

/// The normalised names of the distributions that it needs where `environment`
/// holds, without those of extras.
pub fn requirements(metadata: impl Read, environment: &Environment) -> Vec<String> {
    let Some(head) = head(metadata) else { return Vec::new() };
    let requires = fields(&head).filter(|(field, _)| field.eq_ignore_ascii_case("Requires-Dist"));
    let mut names: Vec<String> =
        requires.filter_map(|(_, value)| requirement(value, environment)).collect();
    names.sort();
    names.dedup();
    names
}

/// The same of the `requires.txt` of an egg, where setuptools before 68 has written what
/// `PKG-INFO` does not say. Its sections `[extra:marker]` have the extras and markers.
pub fn egg_requirements(requires: impl Read, environment: &Environment) -> Vec<String> {
    let Some(text) = head(requires) else { return Vec::new() };
    let mut holds = true;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let section = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
        if let Some(section) = section {
            let (extra, marker) = section.split_once(':').unwrap_or((section, ""));
            holds = extra.is_empty() && (marker.is_empty() || Marker::holds(marker, environment));
        } else if holds {
            names.extend(requirement(line, environment));
        }
    }
    names.sort();
    names.dedup();
    names
}

/// What markers are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Such as `3.12`.
    pub python_version: String,
    /// Such as `x86_64`.
    pub machine: String,
}

fn head(metadata: impl Read) -> Option<String> {
    let mut head = Vec::new();
    metadata.take(MAX_LEN).read_to_end(&mut head).ok()?;
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// The fields before the description.
fn fields(head: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = head.lines().take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_once(':')).map(|(field, value)| (field, value.trim()))
}

fn normalised(name: &str) -> Option<String> {
    let words = name.split(['-', '_', '.']).filter(|word| !word.is_empty());
    let name = words.collect::<Vec<_>>().join("-").to_lowercase();
    Some(name).filter(|name| !name.is_empty())
}

/// `name[extra] (>=1.0); marker`: the name, if the marker holds.
fn requirement(text: &str, environment: &Environment) -> Option<String> {
    let (text, marker) = text.split_once(';').unwrap_or((text, ""));
    if !marker.trim().is_empty() && !Marker::holds(marker, environment) {
        return None;
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
    normalised(text[..end.unwrap_or(text.len())].trim())
}

/// Evaluates a marker.
struct Marker<'a> {
    tokens: Vec<&'a str>,
    at: usize,
    environment: &'a Environment,
    depth: usize,
}

impl<'a> Marker<'a> {
    /// Whether it holds; one that cannot be read does, so that no requirement
    /// is lost.
    fn holds(text: &'a str, environment: &'a Environment) -> bool {
        let Some(tokens) = tokens(text) else { return true };
        let mut marker = Self { tokens, at: 0, environment, depth: 0 };
        let value = marker.or();
        value.filter(|_| marker.at == marker.tokens.len()).unwrap_or(true)
    }

    fn next(&mut self) -> Option<&'a str> {
        let token = self.tokens.get(self.at).copied();
        self.at += 1;
        token
    }

    fn take(&mut self, wanted: &str) -> bool {
        let is_it = self.tokens.get(self.at).is_some_and(|token| *token == wanted);
        self.at += usize::from(is_it);
        is_it
    }

    fn or(&mut self) -> Option<bool> {
        let mut value = self.and()?;
        while self.take("or") {
            // Both sides are read, whatever the first one is.
            value |= self.and()?;
        }
        Some(value)
    }

    fn and(&mut self) -> Option<bool> {
        let mut value = self.one()?;
        while self.take("and") {
            value &= self.one()?;
        }
        Some(value)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            self.depth += 1;
            if self.depth > 32 {
                return None;
            }
            let value = self.or()?;
            return self.take(")").then_some(value);
        }
        let left = self.next()?;
        let mut operator = self.next()?.to_owned();
        if operator == "not" {
            operator = format!("not {}", self.next()?);
        }
        let right = self.next()?;
        // Extras are not wanted by anybody here.
        if left == "extra" || right == "extra" {
            return Some(operator == "!=" || operator == "not in");
        }
        let (left, right, versions) =
            (self.value(left)?, self.value(right)?, is_version(left, right));
        Some(match operator.as_str() {
            "in" => right.contains(&left),
            "not in" => !right.contains(&left),
            operator if versions => compare_versions(&left, operator, &right)?,
            "==" | "===" => left == right,
            "!=" => left != right,
            "<" => left < right,
            "<=" => left <= right,
            ">" => left > right,
            ">=" => left >= right,
            _ => return None,
        })
    }

    fn value(&self, token: &str) -> Option<String> {
        if let Some(text) = token.strip_prefix(['"', '\'']) {
            return Some(text[..text.len() - 1].into());
        }
        let version = &self.environment.python_version;
        Some(match token {
            "python_version" => version.clone(),
            "python_full_version" | "implementation_version" => format!("{version}.0"),
            "os_name" => "posix".into(),
            "sys_platform" => "linux".into(),
            "platform_system" => "Linux".into(),
            "platform_machine" => self.environment.machine.clone(),
            "platform_python_implementation" => "CPython".into(),
            "implementation_name" => "cpython".into(),
            "platform_release" | "platform_version" => String::new(),
            _ => return None,
        })
    }
}

fn is_version(left: &str, right: &str) -> bool {
    let names = ["python_version", "python_full_version", "implementation_version"];
    names.contains(&left) || names.contains(&right)
}

fn compare_versions(left: &str, operator: &str, right: &str) -> Option<bool> {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        text.trim_end_matches(".*").split('.').map(|part| part.parse().ok()).collect()
    };
    let is_prefix = right.ends_with(".*");
    let (mut left, mut right) = (numbers(left)?, numbers(right)?);
    if is_prefix {
        left.truncate(right.len());
    }
    let len = left.len().max(right.len());
    left.resize(len, 0);
    right.resize(len, 0);
    Some(match operator {
        "==" | "===" => left == right,
        "!=" => left != right,
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        ">=" | "~=" => left >= right,
        _ => return None,
    })
}

/// Words, quoted texts with their quotes, parentheses and operators.
fn tokens(text: &str) -> Option<Vec<&str>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let len = match first {
            '(' | ')' => 1,
            '"' | '\'' => 2 + rest[1..].find(first)?,
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            c if "<>=!~".contains(c) => rest.find(|c| !"<>=!~".contains(c)).unwrap_or(rest.len()),
            _ => return None,
        };
        tokens.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        Environment { python_version: "3.11".into(), machine: "x86_64".into() }
    }

    #[test]
    fn requirements_are_those_whose_marker_holds() {
        let check = |text: &str, expected: Option<&str>| {
            let found = requirement(text, &environment());
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check("requests", Some("requests"));
        check("Foo_Bar.baz (>=1.0,<2)", Some("foo-bar-baz"));
        check("requests[socks]>=2", Some("requests"));
        check("x @ https://example.org/x.zip", Some("x"));
        check("tomli; python_version < '3.11'", None);
        check("tomli; python_version < \"3.12\"", Some("tomli"));
        check("a; python_version >= '3.9' and sys_platform == 'win32'", None);
        check("a; python_version >= '3.9' and sys_platform != 'win32'", Some("a"));
        check("a; sys_platform == 'win32' or os_name == 'posix'", Some("a"));
        check("a; (sys_platform == 'win32' or os_name == 'nt') and python_version > '2'", None);
        check("pytest; extra == 'test'", None);
        check("pytest; python_version > '3' and extra == \"test\"", None);
        check("a; python_version == '3.*'", Some("a"));
        check("a; platform_machine in 'x86_64 aarch64'", Some("a"));
        check("a; platform_machine not in 'x86_64 aarch64'", None);
        check("a; python_full_version >= '3.11.0'", Some("a"));
        check("a; 'linux' == sys_platform", Some("a"));
        // What cannot be read is kept.
        check("a; what is this", Some("a"));
        check("a; python_version <", Some("a"));
        check("a; 'open", Some("a"));
        check(&format!("a; {}", "(".repeat(1000)), Some("a"));
        check("; os_name == 'posix'", None);
    }

    #[test]
    fn requirements_come_from_the_head_alone() {
        let text =
            "Name: x\nRequires-Dist: b\nRequires-Dist: A\nRequires-Dist: a\n\nRequires-Dist: c\n";
        assert_eq!(requirements(text.as_bytes(), &environment()), ["a", "b"]);
    }

    #[test]
    fn requirements_of_eggs_are_those_of_no_extra_whose_marker_holds() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(egg_requirements(text.as_bytes(), &environment()), expected, "{text}");
        };
        check("MarkupSafe>=2.0\n\n[i18n]\nBabel>=2.7\n", &["markupsafe"]);
        check("b\na\na[x]>=1\n", &["a", "b"]);
        check("[:python_version < '3.8']\nno\n[:sys_platform == 'linux']\nyes\n", &["yes"]);
        check("[test:sys_platform == 'linux']\nno\n", &[]);
        check("[\n[]\nx\n]\n", &["x"]);
        check("", &[]);
    }

    #[test]
    fn python_names_are_normalised() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(distribution(text.as_bytes()).as_deref(), expected, "{text}");
        };
        check("Metadata-Version: 2.1\nName: Foo__bar.Baz\nVersion: 1\n", Some("foo-bar-baz"));
        check("Version: 1\n\nName: hidden\n", None);
        check("Name: ._\n", None);
    }
}
