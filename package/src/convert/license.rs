//! The licences of a Debian package, as SPDX names them.
//!
//! A package's `copyright` file may be machine-readable; its `License` fields
//! then hold short names, most of which have an SPDX identifier. What has none
//! becomes a `LicenseRef-`, which SPDX leaves to whoever writes it.
//!
//! Format: Debian's "Machine-readable debian/copyright file", version 1.0.

use std::collections::BTreeSet;

use super::control;

/// Short names of Debian that SPDX spells in another way than by case or by
/// the suffixes of the GNU licences.
const RENAMED: [(&str, &str); 22] = [
    ("apache-1", "Apache-1.0"),
    ("apache-2", "Apache-2.0"),
    ("artistic", "Artistic-1.0"),
    ("artistic-1", "Artistic-1.0"),
    ("artistic-2", "Artistic-2.0"),
    ("boost-1.0", "BSL-1.0"),
    ("bsd-2", "BSD-2-Clause"),
    ("bsd-2-clauses", "BSD-2-Clause"),
    ("bsd-3", "BSD-3-Clause"),
    ("bsd-3-clauses", "BSD-3-Clause"),
    ("bsd-4", "BSD-4-Clause"),
    ("cc0", "CC0-1.0"),
    ("cpl", "CPL-1.0"),
    ("expat", "MIT"),
    ("lppl-1.3c+", "LPPL-1.3c"),
    ("mpl-2", "MPL-2.0"),
    ("openldap-2.8", "OLDAP-2.8"),
    ("psf-2", "PSF-2.0"),
    ("psf-2.0.0", "PSF-2.0"),
    ("psfl-2", "PSF-2.0"),
    ("sil-ofl-1.1", "OFL-1.1"),
    ("zpl-2.0.0", "ZPL-2.0"),
];

/// SPDX identifiers that Debian uses as short names, up to case.
#[rustfmt::skip]
const SAME: [&str; 74] = [
    "0BSD", "AFL-2.0", "AFL-2.1", "AFL-3.0", "APSL-2.0", "Apache-1.0", "Apache-1.1", "Apache-2.0",
    "Artistic-1.0", "Artistic-2.0", "Beerware", "BSD-1-Clause", "BSD-2-Clause", "BSD-3-Clause",
    "BSD-4-Clause", "BSD-4-Clause-UC", "BSL-1.0", "bzip2-1.0.6", "CC-BY-2.0", "CC-BY-2.5",
    "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-2.0", "CC-BY-SA-2.5", "CC-BY-SA-3.0", "CC-BY-SA-4.0",
    "CC0-1.0", "CDDL-1.0", "CDDL-1.1", "CECILL-2.0", "CECILL-2.1", "CECILL-B", "CECILL-C",
    "CPL-1.0", "curl", "EPL-1.0", "EPL-2.0", "EUPL-1.1", "EUPL-1.2", "FSFAP", "FSFUL", "FSFULLR",
    "FTL", "HPND", "ICU", "IJG", "ISC", "LPPL-1.3c", "MIT", "MIT-0", "MPL-1.0", "MPL-1.1",
    "MPL-2.0", "MS-PL", "NCSA", "NTP", "OFL-1.1", "OpenSSL", "PHP-3.01", "PostgreSQL", "PSF-2.0",
    "Python-2.0", "Ruby", "SGI-B-2.0", "TCL", "Unicode-DFS-2015", "Unicode-DFS-2016", "Unlicense",
    "Vim", "W3C", "WTFPL", "X11", "ZPL-2.1", "Zlib",
];

/// The GNU licences and the versions that SPDX knows of each.
const GNU: [(&str, &[&str]); 4] = [
    ("agpl", &["1.0", "3.0"]),
    ("gfdl", &["1.1", "1.2", "1.3"]),
    ("gpl", &["1.0", "2.0", "3.0"]),
    ("lgpl", &["2.0", "2.1", "3.0"]),
];

/// Exceptions that have an SPDX identifier, by the words that Debian writes
/// between `with` and `exception`.
const EXCEPTIONS: [(&str, &str); 8] = [
    ("autoconf", "Autoconf-exception-2.0"),
    ("bison", "Bison-exception-2.2"),
    ("classpath", "Classpath-exception-2.0"),
    ("font", "Font-exception-2.0"),
    ("gcc", "GCC-exception-3.1"),
    ("libtool", "Libtool-exception"),
    ("linux", "Linux-syscall-note"),
    ("llvm", "LLVM-exception"),
];

/// The licences of a machine-readable `copyright` file; none if it is not one.
pub(super) fn of_copyright(text: &str) -> BTreeSet<String> {
    let Ok(paragraphs) = control::parse(text) else { return BTreeSet::new() };
    let is_readable = paragraphs.first().is_some_and(|first| {
        first.get("Format").is_some_and(|format| format.contains("copyright-format"))
    });
    if !is_readable {
        return BTreeSet::new();
    }
    let fields = paragraphs.iter().filter_map(|paragraph| paragraph.get("License"));
    let synopses = fields.filter_map(|field| field.lines().next());
    synopses.flat_map(terms).map(|term| identifier(&term)).collect()
}

/// `LicenseRef-debian-<source>`: says that the `copyright` file of that Debian
/// package has the licences as free text.
pub(super) fn unread(source: &str) -> String {
    reference(&format!("debian-{source}"))
}

/// The licences of an expression such as `GPL-2+ or Artistic, and Expat`.
fn terms(expression: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    for word in expression.split_inclusive([' ', '\t', ',']) {
        let plain = word.trim_end_matches([' ', '\t', ',']);
        let is_joint = ["and", "or", "and/or", "|"].iter().any(|j| plain.eq_ignore_ascii_case(j));
        let last = terms.last_mut().expect("there is always one");
        if !is_joint && !plain.is_empty() {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(plain);
        }
        if is_joint || word.contains(',') {
            terms.push(String::new());
        }
    }
    terms.retain(|term| !term.is_empty());
    terms
}

/// The SPDX name of one licence, perhaps with an exception.
fn identifier(term: &str) -> String {
    let lower = term.to_ascii_lowercase().replace("-with-", " with ");
    let Some((license, rest)) = lower.split_once(" with ") else {
        return known(&lower).unwrap_or_else(|| reference(term));
    };
    let exception = rest.split([' ', '-']).next().unwrap_or_default();
    let exception = EXCEPTIONS.iter().find(|row| row.0 == exception).map(|row| row.1);
    match (known(license), exception) {
        (Some(license), Some(exception)) => format!("{license} WITH {exception}"),
        _ => reference(term),
    }
}

/// The SPDX identifier of a short name in lower case.
fn known(name: &str) -> Option<String> {
    if let Some(row) = RENAMED.iter().find(|row| row.0 == name) {
        return Some(row.1.into());
    }
    if let Some(same) = SAME.iter().find(|same| same.eq_ignore_ascii_case(name)) {
        return Some((*same).into());
    }
    gnu(name)
}

/// `gpl-2+` is `GPL-2.0-or-later`, and so on for its family.
fn gnu(name: &str) -> Option<String> {
    let (family, rest) = name.split_once('-')?;
    let (_, versions) = GNU.iter().find(|row| row.0 == family)?;
    // GFDL-NIV: without invariant sections.
    let (invariants, rest) = match rest.strip_prefix("niv-") {
        Some(rest) if family == "gfdl" => ("-no-invariants", rest),
        _ => ("", rest),
    };
    let later = rest.strip_suffix('+').or_else(|| rest.strip_suffix("-or-later"));
    let number = later.or_else(|| rest.strip_suffix("-only")).unwrap_or(rest);
    let same = |version: &&&str| **version == number || version.strip_suffix(".0") == Some(number);
    let version = versions.iter().find(same)?;
    let suffix = if later.is_some() { "or-later" } else { "only" };
    Some(format!("{}-{version}{invariants}-{suffix}", family.to_ascii_uppercase()))
}

/// A name that SPDX leaves to us: letters, digits, dots and dashes.
fn reference(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let name: String = name.chars().map(allowed).collect();
    let words = name.split('-').filter(|word| !word.is_empty());
    format!("LicenseRef-{}", words.collect::<Vec<_>>().join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_become_identifiers() {
        let check = |name: &str, expected: &str| assert_eq!(identifier(name), expected, "{name}");
        check("GPL-2+", "GPL-2.0-or-later");
        check("GPL-2", "GPL-2.0-only");
        check("gpl-3.0+", "GPL-3.0-or-later");
        check("LGPL-2.1", "LGPL-2.1-only");
        check("LGPL-2", "LGPL-2.0-only");
        check("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later");
        check("Expat", "MIT");
        check("BSD-3-clause", "BSD-3-Clause");
        check("zlib", "Zlib");
        check("GPL-3+ with GCC exception", "GPL-3.0-or-later WITH GCC-exception-3.1");
        check("GPL-2+ with OpenSSL exception", "LicenseRef-GPL-2-with-OpenSSL-exception");
        check("Apache-2.0-with-LLVM-exception", "Apache-2.0 WITH LLVM-exception");
        check("GPL-9", "LicenseRef-GPL-9");
        check("public-domain", "LicenseRef-public-domain");
        check("_odd_  (name)/", "LicenseRef-odd-name");
    }

    #[test]
    fn expressions_are_taken_apart() {
        let check = |text: &str, expected: &[&str]| assert_eq!(terms(text), expected, "{text}");
        check("GPL-2+", &["GPL-2+"]);
        check("GPL-1+ or Artistic, and Expat", &["GPL-1+", "Artistic", "Expat"]);
        check("GPL-2+ with OpenSSL exception and ISC", &["GPL-2+ with OpenSSL exception", "ISC"]);
        check(" and/or ", &[]);
    }

    #[test]
    fn only_a_machine_readable_file_is_believed() {
        let readable = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
                        Files: *\nLicense: GPL-2+\n text\n\nFiles: a\nLicense: Expat or ISC\n";
        let found = of_copyright(readable).into_iter().collect::<Vec<_>>();
        assert_eq!(found, ["GPL-2.0-or-later", "ISC", "MIT"]);
        assert!(of_copyright("This is free.\n\nLicense: GPL-2\n").is_empty());
        assert!(of_copyright("License: GPL-2\n").is_empty());
    }

    #[test]
    fn every_identifier_of_the_tables_is_found_by_its_own_name() {
        for id in SAME {
            assert_eq!(identifier(id), id);
        }
        assert!(RENAMED.iter().all(|row| row.0 == row.0.to_ascii_lowercase()));
    }
}
