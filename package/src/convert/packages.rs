//! An index of Debian packages as the metadata of stones, without the packages.
//!
//! It has what the `control` files say, and not what only the files tell:
//! licences, and providers such as sonames.

use std::collections::BTreeMap;

use super::control::{self, Paragraph};
use super::error::Problem;
use super::{Converter, describe};
use crate::metadata::{Location, Metadata};

impl Converter {
    /// The metadata of the packages of a Debian `Packages` file, by name; of
    /// several versions of one the newest.
    ///
    /// All are known to each other, beside [`Converter::known`]. Each has the
    /// place, hash and size of its Debian package as location.
    ///
    /// # Errors
    /// The first paragraph that is not one of a package.
    pub fn describe_index(&self, packages: &str) -> Result<Vec<Metadata>, Problem> {
        let paragraphs = control::parse(packages).map_err(Problem::Control)?;
        let mut converter = self.clone();
        for paragraph in &paragraphs {
            converter.known.extend(describe::names(paragraph)?);
        }
        let mut newest: BTreeMap<String, Metadata> = BTreeMap::new();
        for paragraph in &paragraphs {
            let mut metadata = describe::describe(paragraph, &converter)?.metadata;
            metadata.location = Some(location(paragraph)?);
            match newest.get(&metadata.name) {
                Some(other) if other.age() >= metadata.age() => {}
                _ => drop(newest.insert(metadata.name.clone(), metadata)),
            }
        }
        Ok(newest.into_values().collect())
    }
}

fn location(paragraph: &Paragraph) -> Result<Location, Problem> {
    let field = |name| paragraph.get(name).ok_or(Problem::MissingField(name));
    let size = field("Size")?;
    let invalid = |_| Problem::InvalidField { field: "Size", value: size.into() };
    Ok(Location {
        uri: field("Filename")?.into(),
        hash: field("SHA256")?.into(),
        size: size.parse().map_err(invalid)?,
        ..Location::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGES: &str = "\
Package: a
Version: 1
Architecture: amd64
Depends: none | b (>= 2), c
Filename: pool/a_1.deb
Size: 10
SHA256: 00

Package: b
Version: 2
Architecture: all
Provides: c
Filename: pool/b_2.deb
Size: 20
SHA256: 01

Package: a
Version: 2
Architecture: amd64
Filename: pool/a_2.deb
Size: 30
SHA256: 02
";

    #[test]
    fn the_newest_of_each_name_is_taken_and_all_know_each_other() {
        let converter = Converter::new("x86_64");
        let found = converter.describe_index(PACKAGES).expect("it is an index");
        let labels: Vec<String> = found.iter().map(Metadata::label).collect();
        assert_eq!(labels.len(), 2);
        assert_eq!(found[0].location.as_ref().map(|it| it.size), Some(30));
        let first = converter.describe_index(
            &PACKAGES.replace("Version: 2\nArchitecture: amd64", "Version: 0\nArchitecture: amd64"),
        );
        let first = first.expect("it is an index");
        let depends: Vec<String> = first[0].depends.iter().map(ToString::to_string).collect();
        assert_eq!(depends, ["b", "c"]);
        for field in ["Filename: pool/b_2.deb\n", "Size: 20\n", "SHA256: 01\n", "Version: 1\n"] {
            assert!(converter.describe_index(&PACKAGES.replace(field, "")).is_err(), "{field}");
        }
    }
}
