//! What the files of a project say of it: its name, what it is, its homepage and
//! its licence.

use std::path::Path;

use regex::Regex;
use serde_json::Value;

use super::readme;
use super::system::{System, read};

/// What the files of a project say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) name: Option<String>,
    pub(super) summary: Option<String>,
    pub(super) description: Option<String>,
    pub(super) homepage: Option<String>,
    /// An expression of SPDX.
    pub(super) license: Option<String>,
}

/// Reads what the files of a project say of it.
///
/// `name` is what the project is called, as far as its address tells.
pub(super) fn facts(root: &Path, system: System, name: &str) -> Facts {
    let facts = match system {
        System::Cargo => toml(root, "Cargo.toml").map(|it| cargo(&it)),
        System::Python => toml(root, "pyproject.toml").map(|it| python(&it)),
        System::PythonSetup => read(&root.join("setup.py")).map(|it| setup(&it)),
        System::PerlMakeMaker | System::PerlModuleBuild => {
            read(&root.join("META.json")).and_then(|it| perl(&it))
        }
        System::Go => read(&root.join("go.mod")).and_then(|it| go(&it)),
        System::CMake => read(&root.join("CMakeLists.txt")).map(|text| Facts {
            summary: cmake_project(&text, "DESCRIPTION"),
            homepage: cmake_project(&text, "HOMEPAGE_URL"),
            ..Facts::default()
        }),
        System::Autotools => {
            let text = ["configure.ac", "configure.in"].iter().find_map(|it| read(&root.join(it)));
            let homepage = text.as_deref().and_then(autoconf_url);
            Some(Facts { homepage, ..Facts::default() })
        }
        _ => None,
    };
    let mut facts = facts.unwrap_or_default();
    // What is packed with a project of Python was made from it.
    let packed = read(&root.join("PKG-INFO"));
    let field = |name: &str| {
        let mut lines = packed.as_deref()?.lines().take_while(|line| !line.is_empty());
        let (_, value) =
            lines.find_map(|it| it.split_once(": ").filter(|(key, _)| *key == name))?;
        Some(value.trim().to_owned())
    };
    facts.summary = field("Summary").or(facts.summary);
    facts.homepage = field("Home-page").or(facts.homepage);
    let (summary, description) = readme::read(root, facts.name.as_deref().unwrap_or(name));
    facts.summary = facts.summary.or(summary).map(|text| one_line(&text));
    facts.description = description;
    facts.homepage = facts.homepage.filter(|it| it.starts_with("http"));
    facts
}

/// The longest summary, in characters, unless it has no place to end before.
const MAX_SUMMARY: usize = 100;

fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.split(". ").next().unwrap_or_default();
    let short: String = line.chars().take(MAX_SUMMARY).collect();
    let line = if short.len() == line.len() {
        line
    } else {
        // What is said more of it begins there.
        let clauses = [", ", "; ", ": ", " that ", " which ", " with ", " and ", " for ", " to "];
        let end = clauses.iter().filter_map(|it| short.find(it)).filter(|at| *at > 25).min();
        &short[..end.or_else(|| short.rfind(' ')).unwrap_or(short.len())]
    };
    line.trim_end_matches(['.', ',', ':', ';']).to_owned()
}

pub(super) fn toml(root: &Path, name: &str) -> Option<toml::Table> {
    toml::from_str(&read(&root.join(name))?).ok()
}

/// The text that is at the end of this path of keys.
fn text_at(table: &toml::Table, keys: &[&str]) -> Option<String> {
    let (last, tables) = keys.split_last()?;
    let table = tables.iter().try_fold(table, |table, key| table.get(*key)?.as_table())?;
    let text = table.get(*last)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn cargo(table: &toml::Table) -> Facts {
    let of = |key| text_at(table, &["package", key]);
    Facts {
        name: of("name"),
        summary: of("description"),
        homepage: of("homepage").or_else(|| of("repository")),
        license: of("license").and_then(|it| expression(&it)),
        ..Facts::default()
    }
}

fn python(table: &toml::Table) -> Facts {
    let of = |key| {
        text_at(table, &["project", key]).or_else(|| text_at(table, &["tool", "poetry", key]))
    };
    let urls = table.get("project").and_then(|it| it.get("urls")).and_then(toml::Value::as_table);
    let url = |name: &str| {
        let (_, url) = urls?.iter().find(|(key, _)| key.to_lowercase() == name)?;
        url.as_str().map(ToOwned::to_owned)
    };
    let pages = ["homepage", "home", "documentation", "repository", "source", "source code"];
    let license = of("license").or_else(|| text_at(table, &["project", "license", "text"]));
    Facts {
        name: of("name"),
        summary: of("description"),
        homepage: pages.iter().find_map(|it| url(it)).or_else(|| of("homepage")),
        license: license.and_then(|it| expression(&it)),
        ..Facts::default()
    }
}

fn setup(text: &str) -> Facts {
    Facts {
        summary: python_keyword(text, "description"),
        homepage: python_keyword(text, "url"),
        license: python_keyword(text, "license").and_then(|it| expression(&it)),
        ..Facts::default()
    }
}

/// A text that a call of Python has as an argument of this name.
fn python_keyword(text: &str, name: &str) -> Option<String> {
    let calls = Regex::new(&format!(r#"(?m)^\s+{name}\s*=\s*(?:"([^"\\\n]+)"|'([^'\\\n]+)')"#));
    let found = calls.expect("the names are fixed").captures(text)?;
    found.get(1).or(found.get(2)).map(|it| it.as_str().to_owned())
}

/// What CPAN calls licences, as far as the names say which they are.
const CPAN_LICENSES: [(&str, &str); 8] = [
    ("apache_2_0", "Apache-2.0"),
    ("artistic_2", "Artistic-2.0"),
    ("gpl_2", "GPL-2.0-only"),
    ("gpl_3", "GPL-3.0-only"),
    ("lgpl_2_1", "LGPL-2.1-only"),
    ("lgpl_3_0", "LGPL-3.0-only"),
    ("mit", "MIT"),
    ("perl_5", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
];

/// The `META.json` of a distribution of CPAN.
fn perl(text: &str) -> Option<Facts> {
    let meta: Value = serde_json::from_str(text).ok()?;
    let of = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let name = of(&meta["name"])?;
    let resources = &meta["resources"];
    let own = of(&resources["homepage"]).or_else(|| of(&resources["repository"]["web"]));
    let licenses = meta["license"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let known = |name: &str| CPAN_LICENSES.iter().find(|(it, _)| *it == name).map(|(_, id)| *id);
    let mut licenses = licenses.map(known);
    Some(Facts {
        name: Some(format!("perl-{}", name.to_lowercase())),
        summary: of(&meta["abstract"]).map(capitalised),
        homepage: own.or_else(|| Some(format!("https://metacpan.org/dist/{name}"))),
        license: licenses.next().flatten().filter(|_| licenses.next().is_none()).map(Into::into),
        ..Facts::default()
    })
}

/// The path of a module of Go is nearly always an address as well.
fn go(text: &str) -> Option<Facts> {
    let module = text.lines().find_map(|line| line.trim().strip_prefix("module "))?;
    let module = module.split_whitespace().next()?.trim_matches('"');
    let is_major = |part: &str| {
        part.strip_prefix('v').is_some_and(|it| it.chars().all(|c| c.is_ascii_digit()))
    };
    let parts: Vec<&str> = module.split('/').filter(|part| !is_major(part)).collect();
    let is_address = parts.len() > 1 && parts[0].contains('.');
    Some(Facts {
        name: parts.last().map(|it| it.to_lowercase()),
        homepage: is_address.then(|| format!("https://{}", parts.join("/"))),
        ..Facts::default()
    })
}

pub(super) fn capitalised(text: String) -> String {
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return text };
    first.to_uppercase().chain(letters).collect()
}

/// What a manifest says of the licence, if it is an expression of SPDX, or one of
/// the form that crates had before.
fn expression(text: &str) -> Option<String> {
    let text = text.trim().replace('/', " OR ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    spdx::Expression::parse(&text).ok().map(|_| text)
}

fn cmake_project(text: &str, key: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let begin = lower.find("project(")? + 8;
    let end = begin + text.get(begin..)?.find(')')?;
    let inner = text.get(begin..end)?;
    let rest = &inner[inner.find(key)? + key.len()..];
    let mut quoted = rest.trim_start().strip_prefix('"')?.split('"');
    quoted.next().map(ToOwned::to_owned).filter(|text| !text.is_empty())
}

/// The last argument of AC_INIT, if it is an address.
fn autoconf_url(text: &str) -> Option<String> {
    let begin = text.find("AC_INIT(")? + 8;
    let inner = &text[begin..begin + text[begin..].find(')')?];
    let last = inner.rsplit(',').next()?.trim().trim_matches(['[', ']']).trim();
    last.starts_with("http").then(|| last.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn of(system: System, files: &[(&str, &str)]) -> Facts {
        let root = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            fs::write(root.path().join(name), text).expect("a file");
        }
        facts(root.path(), system, "x")
    }

    fn check(found: Option<&str>, expected: &str) {
        assert_eq!(found, (!expected.is_empty()).then_some(expected));
    }

    fn check_all(found: &Facts, name: &str, summary: &str, homepage: &str, license: &str) {
        check(found.name.as_deref(), name);
        check(found.summary.as_deref(), summary);
        check(found.homepage.as_deref(), homepage);
        check(found.license.as_deref(), license);
    }

    #[test]
    fn manifests_say_what_a_project_is() {
        let cargo = "[dependencies]\nname = 'no'\n[package]\nname = \"rg\"\nlicense = \"MIT/Apache-2.0\"\n\
                     description = \"\"\"\nSearches\nthe directory.\n\"\"\"\nrepository = 'https://x.org/rg'\n";
        let found = of(System::Cargo, &[("Cargo.toml", cargo)]);
        check_all(&found, "rg", "Searches the directory", "https://x.org/rg", "MIT OR Apache-2.0");

        let python = "[project]\nname = 'toml'\ndescription = 'For TOML'\nlicense = {file = 'x'}\n\
                      urls.Source = 'https://x.org/s'\nurls.\"Homepage\" = 'https://x.org'\n";
        let found = of(System::Python, &[("pyproject.toml", python)]);
        check_all(&found, "toml", "For TOML", "https://x.org", "");
        let poetry = "[tool.poetry]\nname = 'p'\ndescription = 'A poem'\nlicense = 'MIT'\n";
        let found = of(System::Python, &[("pyproject.toml", poetry)]);
        check_all(&found, "p", "A poem", "", "MIT");

        let meta =
            r#"{"name": "Module-Runtime", "abstract": "runtime modules", "license": ["perl_5"]}"#;
        let found = of(System::PerlMakeMaker, &[("META.json", meta)]);
        let (page, license) =
            ("https://metacpan.org/dist/Module-Runtime", "Artistic-1.0-Perl OR GPL-1.0-or-later");
        check_all(&found, "perl-module-runtime", "Runtime modules", page, license);

        let module = "// x\nmodule github.com/Joho/godotenv/v2\n\ngo 1.12\n";
        let found = of(System::Go, &[("go.mod", module)]);
        check_all(&found, "godotenv", "", "https://github.com/Joho/godotenv", "");
        let found = of(System::Go, &[("go.mod", "module app\n")]);
        check_all(&found, "app", "", "", "");
    }

    #[test]
    fn what_is_no_manifest_says_nothing() {
        for text in ["", "[", "package = 1\n", "[package]\nname = 1\n", "\u{0}", "{}"] {
            let files = ["Cargo.toml", "pyproject.toml", "META.json", "go.mod", "setup.py"];
            let files = files.map(|name| (name, text));
            for system in [System::Cargo, System::Python, System::PerlMakeMaker, System::Go] {
                assert_eq!(of(system, &files), Facts::default(), "{system:?} {text:?}");
            }
        }
    }

    #[test]
    fn python_projects_say_it_in_what_is_packed_with_them() {
        let setup = "setup(\n    name='toml',\n    description=\"Python Library\",\n    url='https://x.org',\n)\n";
        let found = of(System::PythonSetup, &[("setup.py", setup)]);
        check_all(&found, "", "Python Library", "https://x.org", "");
        let packed = ("PKG-INFO", "Name: toml\nSummary: For TOML\n\nSummary: no\n");
        let found = of(System::PythonSetup, &[("setup.py", setup), packed]);
        check(found.summary.as_deref(), "For TOML");
    }

    #[test]
    fn calls_say_what_a_project_is() {
        let cmake = "Project(X VERSION 1 DESCRIPTION \"An X\" LANGUAGES C)";
        check(cmake_project(cmake, "DESCRIPTION").as_deref(), "An X");
        let ac = "AC_INIT([x], [1], [bugs@x.org], [x], [https://x.org/])";
        check(autoconf_url(ac).as_deref(), "https://x.org/");
    }

    #[test]
    fn a_summary_ends_where_more_is_said() {
        assert_eq!(one_line("A  b.\nc. "), "A b");
        assert_eq!(one_line("Does what it says:"), "Does what it says");
        let long = "JSON-C implements a reference counting object model that allows you to easily construct \
                    JSON objects in C and output them";
        assert_eq!(one_line(long), "JSON-C implements a reference counting object model");
        let endless = "word ".repeat(60);
        let short = one_line(&endless);
        assert!(short.len() < MAX_SUMMARY && short.ends_with("word"), "{short}");
        assert_eq!(one_line(&"\u{e9}".repeat(300)).chars().count(), MAX_SUMMARY);
    }
}
