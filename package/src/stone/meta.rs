//! The Meta payload: what a package says of itself, as tagged values.

use std::collections::BTreeSet;

use cairn_store::Digest;

use super::bytes::{Cursor, Problem, records, without_nuls};
use super::error::{Error, Result};
use super::header::PayloadKind;
use super::package::Warning;
use crate::dependency::{Dependency, Kind};
use crate::metadata::{Location, Metadata};

const NAME: u16 = 1;
const ARCHITECTURE: u16 = 2;
const VERSION: u16 = 3;
const SUMMARY: u16 = 4;
const DESCRIPTION: u16 = 5;
const HOMEPAGE: u16 = 6;
const SOURCE_ID: u16 = 7;
const DEPENDS: u16 = 8;
const PROVIDES: u16 = 9;
const CONFLICTS: u16 = 10;
const RELEASE: u16 = 11;
const LICENSE: u16 = 12;
const BUILD_RELEASE: u16 = 13;
const PACKAGE_URI: u16 = 14;
const PACKAGE_HASH: u16 = 15;
const PACKAGE_SIZE: u16 = 16;
const BUILD_DEPENDS: u16 = 17;
/// Cairn's own, in indices alone, which other readers skip.
const PACKAGE_DIGEST: u16 = 0xc100;
const INSTALLED_SIZE: u16 = 0xc101;

const UINT64: u8 = 8;
const STRING: u8 = 9;
const DEPENDENCY: u8 = 10;
const PROVIDER: u8 = 11;

/// A value with its tag.
struct Record {
    tag: u16,
    value: Value,
}

enum Value {
    /// Of any width; signed ones are sign-extended and taken as unsigned.
    Integer(u64),
    Text(String),
    Dependency {
        kind: u8,
        text: String,
    },
    Provider {
        kind: u8,
        text: String,
    },
    Unknown,
}

fn decode_record(from: &mut Cursor<'_>) -> Result<Record, Problem> {
    let (len, tag, kind) = (from.u32()?, from.u16()?, from.u8()?);
    // Padding. The current reader of AerynOS ignores it as well.
    from.u8()?;
    let bytes = from.take(len.into())?;
    Ok(Record { tag, value: decode_value(kind, bytes)? })
}

fn decode_value(kind: u8, bytes: &[u8]) -> Result<Value, Problem> {
    if let 1..=UINT64 = kind {
        let integer = match (kind, bytes) {
            (1, &[a]) => i64::from(i8::from_be_bytes([a])).cast_unsigned(),
            (2, &[a]) => a.into(),
            (3, &[a, b]) => i64::from(i16::from_be_bytes([a, b])).cast_unsigned(),
            (4, &[a, b]) => u16::from_be_bytes([a, b]).into(),
            (5, &[a, b, c, d]) => i64::from(i32::from_be_bytes([a, b, c, d])).cast_unsigned(),
            (6, &[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]).into(),
            (7 | UINT64, &[a, b, c, d, e, f, g, h]) => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            // Other readers take the width from the kind or the length, and
            // would go on at different bytes.
            _ => return Err("the length of an integer does not fit its kind"),
        };
        return Ok(Value::Integer(integer));
    }
    Ok(match kind {
        STRING => Value::Text(decode_text(bytes)?),
        DEPENDENCY | PROVIDER => {
            let (&of, text) = bytes.split_first().ok_or("a dependency without a kind")?;
            let text = decode_text(text)?;
            if kind == DEPENDENCY {
                Value::Dependency { kind: of, text }
            } else {
                Value::Provider { kind: of, text }
            }
        }
        _ => Value::Unknown,
    })
}

fn decode_text(bytes: &[u8]) -> Result<String, Problem> {
    let text = without_nuls(bytes);
    if text.contains(&0) {
        return Err("a text with a NUL inside");
    }
    let text = str::from_utf8(text).map_err(|_| "a text that is not UTF-8")?;
    Ok(text.to_owned())
}

/// Reads the `count` records of a Meta payload, and adds to `warnings` what
/// they have that is odd.
pub(crate) fn decode(count: u32, plain: &[u8], warnings: &mut Vec<Warning>) -> Result<Metadata> {
    let mut texts: [Option<String>; 10] = Default::default();
    let mut numbers: [Option<u64>; 4] = Default::default();
    let mut metadata = Metadata::default();
    for record in records(PayloadKind::Meta, count, plain, decode_record) {
        let Record { tag, value } = record?;
        match (tag, value) {
            (LICENSE, Value::Text(text)) => {
                metadata.licenses.insert(text);
            }
            (tag, Value::Text(text)) => {
                if let Some(at) = TEXTS.iter().position(|row| row.0 == tag) {
                    keep_first(&mut texts[at], text, TEXTS[at].1, warnings);
                }
            }
            (tag, Value::Integer(number)) => {
                if let Some(at) = NUMBERS.iter().position(|row| row.0 == tag) {
                    keep_first(&mut numbers[at], number, NUMBERS[at].1, warnings);
                }
            }
            (tag @ (DEPENDS | BUILD_DEPENDS), Value::Dependency { kind, text })
            | (tag @ (PROVIDES | CONFLICTS), Value::Provider { kind, text }) => {
                let Some(kind) = Kind::from_number(kind) else {
                    warnings.push(Warning::UnknownDependency { kind, text });
                    continue;
                };
                let set = match tag {
                    DEPENDS => &mut metadata.depends,
                    BUILD_DEPENDS => &mut metadata.build_depends,
                    PROVIDES => &mut metadata.provides,
                    _ => &mut metadata.conflicts,
                };
                set.insert(Dependency { kind, text });
            }
            // Tags to come, and values that their tags do not have.
            _ => {}
        }
    }

    let [name, version, architecture, summary, description, source, homepage, uri, hash, digest] =
        texts;
    let [release, build_release, size, installed_size] = numbers;
    let package = name.clone().unwrap_or_default();
    let lacks = |field| Error::MissingField { package: package.clone(), field };
    metadata.name = name.ok_or_else(|| lacks("name"))?;
    metadata.version = version.ok_or_else(|| lacks("version"))?;
    metadata.release = release.ok_or_else(|| lacks("release"))?;
    metadata.build_release = build_release.ok_or_else(|| lacks("build release"))?;
    metadata.architecture = architecture.ok_or_else(|| lacks("architecture"))?;
    metadata.summary = summary.ok_or_else(|| lacks("summary"))?;
    metadata.description = description.ok_or_else(|| lacks("description"))?;
    metadata.source_id = source.ok_or_else(|| lacks("source"))?;
    metadata.homepage = homepage.ok_or_else(|| lacks("homepage"))?;
    metadata.location = match (uri, hash, size) {
        (None, None, None) => None,
        (uri, hash, size) => Some(Location {
            uri: uri.ok_or_else(|| lacks("URI"))?,
            hash: hash.ok_or_else(|| lacks("hash"))?,
            size: size.ok_or_else(|| lacks("size"))?,
            digest: digest.map(|digest| read_digest(&package, digest)).transpose()?,
            installed_size,
        }),
    };
    // Its own name is implied, so that it makes no difference whether it is
    // written.
    metadata.provides.remove(&Dependency::on_package(metadata.name.as_str()));
    check(&metadata)?;
    Ok(metadata)
}

fn read_digest(package: &str, text: String) -> Result<Digest> {
    let invalid = |_| {
        let (package, field) = (package.into(), "BLAKE3");
        Error::InvalidField { package, field, text: text.clone() }
    };
    text.parse().map_err(invalid)
}

const TEXTS: [(u16, &str); 10] = [
    (NAME, "name"),
    (VERSION, "version"),
    (ARCHITECTURE, "architecture"),
    (SUMMARY, "summary"),
    (DESCRIPTION, "description"),
    (SOURCE_ID, "source"),
    (HOMEPAGE, "homepage"),
    (PACKAGE_URI, "URI"),
    (PACKAGE_HASH, "hash"),
    (PACKAGE_DIGEST, "BLAKE3"),
];

const NUMBERS: [(u16, &str); 4] = [
    (RELEASE, "release"),
    (BUILD_RELEASE, "build release"),
    (PACKAGE_SIZE, "size"),
    (INSTALLED_SIZE, "installed size"),
];

fn keep_first<T>(slot: &mut Option<T>, value: T, field: &'static str, warnings: &mut Vec<Warning>) {
    match slot {
        Some(_) => warnings.push(Warning::RepeatedField(field)),
        None => *slot = Some(value),
    }
}

/// Refuses what would lead out of a directory as a part of a file's name, and
/// a hash that is none.
fn check(metadata: &Metadata) -> Result<()> {
    let invalid = |field, text: &str| Error::InvalidField {
        package: metadata.name.clone(),
        field,
        text: text.into(),
    };
    for (field, text) in [
        ("name", &metadata.name),
        ("version", &metadata.version),
        ("architecture", &metadata.architecture),
    ] {
        if text.contains('/') {
            return Err(invalid(field, text));
        }
    }
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    match &metadata.location {
        Some(Location { hash, .. }) if hash.len() != 64 || !hash.as_bytes().iter().all(digit) => {
            Err(invalid("hash", hash))
        }
        _ => Ok(()),
    }
}

/// Writes the records of a Meta payload in the order of the tools of AerynOS.
///
/// Returns how many there are, and their bytes.
pub(crate) fn encode(metadata: &Metadata) -> Result<(u32, Vec<u8>)> {
    check(metadata)?;
    let mut to = Encoder { package: &metadata.name, records: 0, plain: Vec::new() };
    to.text(NAME, "name", &metadata.name)?;
    to.text(VERSION, "version", &metadata.version)?;
    to.number(RELEASE, metadata.release);
    to.number(BUILD_RELEASE, metadata.build_release);
    to.text(ARCHITECTURE, "architecture", &metadata.architecture)?;
    to.text(SUMMARY, "summary", &metadata.summary)?;
    to.text(DESCRIPTION, "description", &metadata.description)?;
    to.text(SOURCE_ID, "source", &metadata.source_id)?;
    to.text(HOMEPAGE, "homepage", &metadata.homepage)?;
    if let Some(Location { uri, hash, size, digest, installed_size }) = &metadata.location {
        to.text(PACKAGE_URI, "URI", uri)?;
        to.text(PACKAGE_HASH, "hash", hash)?;
        to.number(PACKAGE_SIZE, *size);
        if let Some(digest) = digest {
            to.text(PACKAGE_DIGEST, "BLAKE3", &digest.to_string())?;
        }
        if let Some(size) = installed_size {
            to.number(INSTALLED_SIZE, *size);
        }
    }
    for license in &metadata.licenses {
        to.text(LICENSE, "license", license)?;
    }
    to.dependencies(DEPENDS, DEPENDENCY, "dependency", &metadata.depends)?;
    to.dependencies(PROVIDES, PROVIDER, "provider", &metadata.provides)?;
    to.dependencies(CONFLICTS, PROVIDER, "conflict", &metadata.conflicts)?;

    let mut build_depends: Vec<&Dependency> = metadata.build_depends.iter().collect();
    build_depends.sort_by_cached_key(|dependency| dependency.to_string());
    for dependency in build_depends {
        to.dependency(BUILD_DEPENDS, DEPENDENCY, "build dependency", dependency)?;
    }
    Ok((to.records, to.plain))
}

struct Encoder<'a> {
    package: &'a str,
    records: u32,
    plain: Vec<u8>,
}

impl Encoder<'_> {
    fn record(&mut self, tag: u16, kind: u8, value: &[&[u8]]) -> Option<()> {
        let len = value.iter().map(|part| part.len()).sum::<usize>();
        self.plain.extend_from_slice(&u32::try_from(len).ok()?.to_be_bytes());
        self.plain.extend_from_slice(&tag.to_be_bytes());
        self.plain.extend_from_slice(&[kind, 0]);
        value.iter().for_each(|part| self.plain.extend_from_slice(part));
        self.records = self.records.checked_add(1)?;
        Some(())
    }

    fn number(&mut self, tag: u16, number: u64) {
        self.record(tag, UINT64, &[&number.to_be_bytes()]).expect("there are three numbers");
    }

    fn text(&mut self, tag: u16, field: &'static str, text: &str) -> Result<()> {
        self.without_nul(field, text)?;
        self.record(tag, STRING, &[text.as_bytes(), b"\0"])
            .ok_or_else(|| self.invalid(field, "over 4 GiB"))
    }

    fn dependencies(
        &mut self,
        tag: u16,
        kind: u8,
        field: &'static str,
        set: &BTreeSet<Dependency>,
    ) -> Result<()> {
        let own_name = Dependency::on_package(self.package);
        let implied = |dependency: &&Dependency| tag == PROVIDES && **dependency == own_name;
        let mut sorted: Vec<&Dependency> = set.iter().filter(|it| !implied(it)).collect();
        // The closing parenthesis takes part in the order of the tools of
        // AerynOS: `soname(a(x))` comes before `soname(a)`.
        sorted.sort_by_cached_key(|it| (it.kind, format!("{})", it.text)));
        sorted.into_iter().try_for_each(|it| self.dependency(tag, kind, field, it))
    }

    fn dependency(
        &mut self,
        tag: u16,
        kind: u8,
        field: &'static str,
        dependency: &Dependency,
    ) -> Result<()> {
        let Dependency { kind: of, text } = dependency;
        self.without_nul(field, text)?;
        self.record(tag, kind, &[&[of.number()], text.as_bytes(), b"\0"])
            .ok_or_else(|| self.invalid(field, "over 4 GiB"))
    }

    fn without_nul(&self, field: &'static str, text: &str) -> Result<()> {
        if text.contains('\0') { Err(self.invalid(field, text)) } else { Ok(()) }
    }

    fn invalid(&self, field: &'static str, text: &str) -> Error {
        Error::InvalidField { package: self.package.into(), field, text: text.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: u8, bytes: &[u8]) -> Option<u64> {
        match decode_value(kind, bytes) {
            Ok(Value::Integer(number)) => Some(number),
            _ => None,
        }
    }

    #[test]
    fn integers_of_each_kind_have_their_own_width() {
        let check = |kind, bytes: &[u8], expected| {
            assert_eq!(value(kind, bytes), expected, "kind {kind}, {bytes:?}");
        };
        check(1, &[0xff], Some(u64::MAX));
        check(2, &[0xff], Some(255));
        check(3, &[0xff, 0xfe], Some(u64::MAX - 1));
        check(4, &[1, 0], Some(256));
        check(5, &[0x80, 0, 0, 0], Some(0xffff_ffff_8000_0000));
        check(6, &[0x80, 0, 0, 0], Some(0x8000_0000));
        check(7, &[0xff; 8], Some(u64::MAX));
        check(8, &[0, 0, 0, 0, 0, 0, 1, 1], Some(257));
        for kind in 1..=8 {
            check(kind, &[0; 3], None);
            check(kind, &[], None);
        }
    }

    #[test]
    fn texts_may_lack_their_nul_or_have_many() {
        for bytes in [&b"text"[..], b"text\0", b"text\0\0\0"] {
            assert_eq!(decode_text(bytes), Ok("text".into()));
        }
        assert!(decode_text(b"te\0xt\0").is_err());
        assert!(decode_text(b"\xff").is_err());
        assert!(decode_value(DEPENDENCY, b"").is_err());
    }

    #[test]
    fn records_are_in_the_order_of_the_tools_of_aerynos() {
        let soname = |text| Dependency::new(Kind::Soname, text);
        let own = Dependency::on_package("own");
        let metadata = Metadata {
            name: "own".into(),
            provides: [soname("a"), soname("a(x)"), Dependency::on_package("x"), own].into(),
            depends: [Dependency::new(Kind::PkgConfig32, "a"), Dependency::on_package("z")].into(),
            build_depends: [soname("a"), Dependency::on_package("z"), Dependency::on_package("b")]
                .into(),
            ..Metadata::default()
        };
        let (count, plain) = encode(&metadata).expect("small");
        let all = records(PayloadKind::Meta, count, &plain, decode_record);
        let found: Vec<(u16, u8, String)> = all
            .map(|record| record.expect("as written"))
            .filter_map(|record| match record.value {
                Value::Dependency { kind, text } | Value::Provider { kind, text } => {
                    Some((record.tag, kind, text))
                }
                _ => None,
            })
            .collect();
        let expected = [
            (DEPENDS, 0, "z"),
            (DEPENDS, 8, "a"),
            (PROVIDES, 0, "x"),
            (PROVIDES, 1, "a(x)"),
            (PROVIDES, 1, "a"),
            (BUILD_DEPENDS, 0, "b"),
            (BUILD_DEPENDS, 1, "a"),
            (BUILD_DEPENDS, 0, "z"),
        ];
        assert_eq!(found, expected.map(|(tag, kind, text)| (tag, kind, text.to_owned())));
    }
}
