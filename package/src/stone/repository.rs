//! Files of metadata alone: the index of a repository, and the manifest of a
//! build.

use std::collections::BTreeSet;
use std::io::{Read, Seek, Write};
use std::num::NonZeroUsize;
use std::thread;

use super::encode::{Encoding, Table};
use super::error::{Error, Result};
use super::header::{FileType, PayloadKind, Prelude};
use super::reader::Reader;
use super::{meta, parallel};
use crate::metadata::Metadata;

/// Reads the index of a repository, in the order of the file. Each package has
/// a location, and no two have one name.
///
/// # Errors
/// Those of [`Reader::new`] and [`Reader::table`], and the fields of a package
/// that are missing or impossible.
pub fn read_index<R: Read + Seek>(from: R) -> Result<Vec<Metadata>> {
    let packages = read_all(from, FileType::Index)?;
    packages.iter().try_for_each(has_location)?;
    Ok(packages)
}

/// Writes the index of a repository, sorted by name.
///
/// # Errors
/// - [`Error::RepeatedPackage`], [`Error::MissingField`]: two packages have one
///   name, or one has no location.
/// - [`Error::TooMany`]: over 65,535 packages.
/// - [`Error::InvalidField`], [`Error::Write`].
pub fn write_index<W: Write>(packages: &[Metadata], to: W) -> Result<()> {
    packages.iter().try_for_each(has_location)?;
    write_all(packages.iter().collect(), FileType::Index, to)
}

/// Reads a build manifest (`manifest.<arch>.bin`), in the order of the file.
///
/// # Errors
/// As for [`read_index`].
pub fn read_manifest<R: Read + Seek>(from: R) -> Result<Vec<Metadata>> {
    read_all(from, FileType::Manifest)
}

/// Writes a build manifest, sorted by name, with build releases of 0 and
/// without the packages of debug information (`-dbginfo`).
///
/// # Errors
/// As for [`write_index`].
pub fn write_manifest<W: Write>(packages: &[Metadata], to: W) -> Result<()> {
    let listed = packages.iter().filter(|package| !package.name.ends_with("-dbginfo"));
    let of_manifest =
        |package: &Metadata| Metadata { build_release: 0, location: None, ..package.clone() };
    let listed: Vec<Metadata> = listed.map(of_manifest).collect();
    write_all(listed.iter().collect(), FileType::Manifest, to)
}

fn has_location(package: &Metadata) -> Result<()> {
    if package.location.is_some() {
        return Ok(());
    }
    Err(Error::MissingField { package: package.name.clone(), field: "location" })
}

fn read_all<R: Read + Seek>(from: R, file_type: FileType) -> Result<Vec<Metadata>> {
    let mut reader = Reader::new(from)?;
    reader.expect(file_type)?;
    let mut packages: Vec<Metadata> = Vec::new();
    for payload in reader.payloads().to_vec() {
        if payload.header.kind == PayloadKind::Meta {
            let plain = reader.table(&payload)?;
            packages.push(meta::decode(payload.header.records, &plain, &mut Vec::new())?);
        }
    }
    let mut names = BTreeSet::new();
    match packages.iter().find(|package| !names.insert(&package.name)) {
        Some(repeated) => Err(Error::RepeatedPackage(repeated.name.clone())),
        None => Ok(packages),
    }
}

fn write_all<W: Write>(mut packages: Vec<&Metadata>, file_type: FileType, mut to: W) -> Result<()> {
    packages.sort_by_key(|package| &package.name);
    if let Some(pair) = packages.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(Error::RepeatedPackage(pair[0].name.clone()));
    }
    let count = packages.len();
    let payloads = u16::try_from(count).map_err(|_| Error::TooMany { what: "packages", count })?;
    to.write_all(&Prelude { payloads, file_type }.encode()).map_err(Error::Write)?;
    let encode = |package: &Metadata| {
        let (records, plain) = meta::encode(package)?;
        Table { kind: PayloadKind::Meta, records, plain }.encode(Encoding::Canonical)
    };
    let mut packages = packages.into_iter();
    parallel::in_order(
        thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        || Ok(packages.next()),
        encode,
        |payload| to.write_all(&payload?).map_err(Error::Write),
    )
}
