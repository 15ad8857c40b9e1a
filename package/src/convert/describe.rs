//! What the `control` file of a Debian package says, as the metadata of a
//! stone.
//!
//! | Debian | stone |
//! |---|---|
//! | `Package`, `Version`, `Homepage` | name, version, homepage |
//! | `Version` | release and build release, see `version.rs` |
//! | `Architecture` | architecture |
//! | `Description` | summary and description |
//! | `Source`, else `Package` | source id |
//! | `Pre-Depends`, `Depends` | dependencies on names |
//! | `Provides` | providers of names |
//! | `Conflicts`, `Breaks` without a version | conflicts with names |
//!
//! Stones have no restrictions of versions. A dependency loses its own; a
//! conflict that has one is dropped as a whole, since it is about versions that
//! the set of packages at hand mostly has no longer.

use std::collections::BTreeSet;

use super::control::{self, Paragraph};
use super::error::Problem;
use super::relation::{self, Group};
use super::version::Age;
use super::{Converter, Missing};
use crate::dependency::Dependency;
use crate::metadata::Metadata;

/// The metadata without licences and analysed providers, which are in files,
/// and what did not fit in.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) metadata: Metadata,
    pub(super) unmet: Vec<String>,
    pub(super) ignored_conflicts: Vec<String>,
    pub(super) is_essential: bool,
}

/// Names of architectures: Debian's and that of stones.
const ARCHITECTURES: [(&str, &str); 10] = [
    ("amd64", "x86_64"),
    ("arm64", "aarch64"),
    ("armel", "arm"),
    ("armhf", "armv7"),
    ("i386", "x86"),
    ("loong64", "loongarch64"),
    ("mips64el", "mips64el"),
    ("ppc64el", "ppc64le"),
    ("riscv64", "riscv64"),
    ("s390x", "s390x"),
];

/// Reads a `control` file: one paragraph.
pub(super) fn read_control(bytes: &[u8]) -> Result<Paragraph, Problem> {
    // Some old packages write names in Latin-1.
    let text = String::from_utf8_lossy(bytes);
    let paragraphs = control::parse(&text).map_err(Problem::Control)?;
    <[Paragraph; 1]>::try_from(paragraphs).map(|[one]| one).map_err(|_| Problem::NoControl)
}

/// The package's own name and the names that it provides.
pub(super) fn names(control: &Paragraph) -> Result<Vec<String>, Problem> {
    let mut names = vec![name(control)?];
    let provided = relations(control, "Provides")?.into_iter();
    names.extend(provided.flat_map(|group| group.alternatives).map(|one| one.name));
    Ok(names)
}

/// Translates a `control` file.
pub(super) fn describe(control: &Paragraph, converter: &Converter) -> Result<Described, Problem> {
    let name = name(control)?;
    let version = required(control, "Version")?;
    let age = Age::of(version)?;
    let (summary, description) =
        control::description(control.get("Description").unwrap_or_default());
    let mut own_names = BTreeSet::from_iter(names(control)?);

    let mut depends = BTreeSet::new();
    let mut unmet = Vec::new();
    for field in ["Pre-Depends", "Depends"] {
        for group in relations(control, field)? {
            if group.alternatives.iter().any(|one| own_names.contains(&one.name)) {
                continue;
            }
            let known = group.alternatives.iter().find(|one| converter.known.has(&one.name));
            if known.is_none() && !unmet.contains(&group.text) {
                unmet.push(group.text.clone());
            }
            let fallback = match converter.missing {
                Missing::Keep => group.alternatives.first(),
                Missing::Drop => None,
            };
            depends.extend(known.or(fallback).map(|one| Dependency::on_package(&*one.name)));
        }
    }

    let own = control.get("Architecture");
    let mut conflicts = BTreeSet::new();
    let mut ignored_conflicts = Vec::new();
    for field in ["Conflicts", "Breaks"] {
        for Group { text, alternatives } in relations(control, field)? {
            match &alternatives[..] {
                // What provides a name itself conflicts with all others that
                // do; stones cannot say that.
                [one]
                    if !one.versioned
                        && !own_names.contains(&one.name)
                        // A system has packages of its own architecture alone.
                        && one.architecture.as_deref().is_none_or(|it| own == Some(it)) =>
                {
                    conflicts.insert(Dependency::on_package(&*one.name));
                }
                _ => ignored_conflicts.push(text),
            }
        }
    }

    own_names.remove(&name);
    let metadata = Metadata {
        version: version.into(),
        release: age.release,
        build_release: age.build_release,
        architecture: architecture(control, converter)?,
        summary,
        description,
        source_id: source(control).unwrap_or(&name).into(),
        homepage: control.get("Homepage").unwrap_or_default().into(),
        depends,
        provides: own_names.into_iter().map(Dependency::on_package).collect(),
        conflicts,
        name,
        ..Metadata::default()
    };
    let is_essential = control.get("Essential") == Some("yes");
    Ok(Described { metadata, unmet, ignored_conflicts, is_essential })
}

fn required<'a>(control: &'a Paragraph, field: &'static str) -> Result<&'a str, Problem> {
    control.get(field).filter(|value| !value.is_empty()).ok_or(Problem::MissingField(field))
}

fn name(control: &Paragraph) -> Result<String, Problem> {
    let (field, value) = ("Package", required(control, "Package")?);
    if relation::is_package_name(value) {
        Ok(value.into())
    } else {
        Err(Problem::InvalidField { field, value: value.into() })
    }
}

/// The source package, without the version that may follow it.
fn source(control: &Paragraph) -> Option<&str> {
    let value = control.get("Source")?;
    value.split([' ', '(']).next().filter(|name| relation::is_package_name(name))
}

fn architecture(control: &Paragraph, converter: &Converter) -> Result<String, Problem> {
    let (field, value) = ("Architecture", required(control, "Architecture")?);
    if value == "all" {
        return Ok(converter.architecture.clone());
    }
    match ARCHITECTURES.iter().find(|row| row.0 == value) {
        Some(row) => Ok(row.1.into()),
        None => Err(Problem::InvalidField { field, value: value.into() }),
    }
}

fn relations(control: &Paragraph, field: &'static str) -> Result<Vec<Group>, Problem> {
    let groups = relation::parse(control.get(field).unwrap_or_default());
    groups.map_err(|value| Problem::InvalidField { field, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Known;

    const CONTROL: &str = "\
Package: nano
Source: nano-editor (7.2-1)
Version: 7.2-1+deb12u1
Architecture: amd64
Pre-Depends: libc6 (>= 2.34)
Depends: zlib1g (>= 1:1.2) | libz-ng, gone | default-editor | libtinfo6,
 editor, missing (>= 2) | absent
Provides: editor, nano-tiny (= 1.0)
Conflicts: pico, editor, alpine-pico (<= 2.00)
Breaks: nano-udeb, pico:i386, jove:amd64, joe:any
Replaces: pico
Essential: yes
Homepage: https://www.nano-editor.org/
Description: small, friendly text editor
 GNU nano.
";

    fn converter(known: &[&str], missing: Missing) -> Converter {
        let mut converter = Converter::new("x86_64");
        converter.known = Known::from_iter(known.iter().map(ToString::to_string));
        converter.missing = missing;
        converter
    }

    fn described(text: &str, converter: &Converter) -> Result<Described, Problem> {
        describe(&read_control(text.as_bytes())?, converter)
    }

    fn texts(set: &BTreeSet<Dependency>) -> Vec<String> {
        set.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn fields_become_metadata() {
        let converter = converter(&["libc6", "libtinfo6", "zlib1g"], Missing::Keep);
        let Described { metadata, unmet, ignored_conflicts, is_essential } =
            described(CONTROL, &converter).expect("a control file");
        assert_eq!(metadata.name, "nano");
        assert_eq!(metadata.version, "7.2-1+deb12u1");
        assert_eq!(metadata.architecture, "x86_64");
        assert_eq!(metadata.source_id, "nano-editor");
        assert_eq!(metadata.summary, "small, friendly text editor");
        assert_eq!(metadata.description, "GNU nano.");
        assert_eq!(metadata.homepage, "https://www.nano-editor.org/");
        assert_eq!(texts(&metadata.depends), ["libc6", "libtinfo6", "missing", "zlib1g"]);
        assert_eq!(texts(&metadata.provides), ["editor", "nano-tiny"]);
        assert_eq!(texts(&metadata.conflicts), ["joe", "jove", "nano-udeb", "pico"]);
        assert_eq!(unmet, ["missing (>= 2) | absent"]);
        assert_eq!(ignored_conflicts, ["editor", "alpine-pico (<= 2.00)", "pico:i386"]);
        assert!(is_essential);
    }

    #[test]
    fn what_nobody_offers_is_dropped_only_on_demand() {
        let known = &["libc6", "zlib1g", "default-editor"];
        let kept = described(CONTROL, &converter(known, Missing::Keep)).expect("described");
        assert_eq!(texts(&kept.metadata.depends), ["default-editor", "libc6", "missing", "zlib1g"]);
        let dropped = described(CONTROL, &converter(known, Missing::Drop)).expect("described");
        assert_eq!(texts(&dropped.metadata.depends), ["default-editor", "libc6", "zlib1g"]);
        assert_eq!(dropped.unmet, kept.unmet);
    }

    #[test]
    fn a_field_that_cannot_be_is_named() {
        let check = |from: &str, to: &str, expected: &str| {
            let text = CONTROL.replacen(from, to, 1);
            let problem = described(&text, &Converter::new("x86_64")).expect_err(expected);
            assert!(problem.to_string().contains(expected), "{problem}, not {expected}");
        };
        check("Package: nano\n", "", "no field Package");
        check("Package: nano", "Package: ../nano", "\"../nano\" as Package");
        check("Version: 7.2-1+deb12u1", "Version:", "no field Version");
        check("7.2-1+deb12u1", "7/2", "\"7/2\" is not a Debian version");
        check("amd64", "pdp11", "\"pdp11\" as Architecture");
        check("editor, missing", "a b, missing", "\"a b\" as Depends");
        check("Package: nano", "Package: nano\n\nPackage: nano", "no control file");
    }

    #[test]
    fn a_package_of_all_architectures_takes_that_of_the_run() {
        let text = CONTROL.replacen("amd64", "all", 1);
        let described = described(&text, &Converter::new("aarch64")).expect("described");
        assert_eq!(described.metadata.architecture, "aarch64");
    }
}
