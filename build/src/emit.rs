//! From analysed files to stones and manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufWriter, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_package::stone::{
    Builder, Encoding, Layout, ReadableManifest, ReadablePackage, Source, read_manifest,
    write_manifest,
};
use cairn_package::{Dependency, Metadata};
use cairn_store::{BlobKey, Timestamp};

use crate::analyse::{Analysis, Contents};
use crate::collect::FoundKind;
use crate::error::{Error, Result};
use crate::package::{Definition, Definitions};
use crate::recipe::Recipe;

/// What packages are told beside what their recipe says.
#[derive(Clone, Copy, Debug)]
pub struct Emission<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Its packages.
    pub definitions: &'a Definitions,
    /// For which machine they are.
    pub architecture: &'a str,
    /// Which build of this release it is; at least 1.
    pub build_release: u64,
    /// The latest time that a file may have, in seconds since 1970.
    pub epoch: u64,
    /// How many packages are made side by side.
    pub threads: NonZeroUsize,
}

/// A package that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// What it says of itself.
    pub metadata: Metadata,
    /// The stone.
    pub path: PathBuf,
    /// Length of the stone in bytes.
    pub size: u64,
    /// What it has.
    pub layout: Vec<Layout>,
}

impl Emission<'_> {
    /// Makes a stone of each package that has files, in `directory`, and
    /// returns them in the order of their names. Stones of the same name are
    /// replaced, each at once and as a whole.
    ///
    /// # Errors
    /// [`Error::NothingInstalled`], [`Error::Stone`], [`Error::Io`].
    pub fn stones(&self, analysis: &Analysis, directory: &Path) -> Result<Vec<Emitted>> {
        let packages: Vec<(&String, &Contents)> = analysis.packages.iter().collect();
        if packages.is_empty() {
            return Err(Error::NothingInstalled);
        }
        let names: BTreeSet<&str> = packages.iter().map(|(name, _)| name.as_str()).collect();
        // The largest first, so that nobody waits for it alone at the end.
        let mut order: Vec<usize> = (0..packages.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(size_of(packages[*at].1)));
        let next = AtomicUsize::new(0);
        let done = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.get().min(packages.len()) {
                scope.spawn(|| {
                    while let Some(at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let (name, contents) = packages[*at];
                        let definition = &self.definitions.packages[name];
                        let made = self.stone(definition, contents, &names, directory);
                        done.lock().unwrap_or_else(|err| err.into_inner()).insert(*at, made);
                    }
                });
            }
        });
        done.into_inner().unwrap_or_else(|err| err.into_inner()).into_values().collect()
    }

    /// What a package says of itself; `names` are all packages of the build.
    fn metadata(
        &self,
        definition: &Definition,
        contents: &Contents,
        names: &BTreeSet<&str>,
    ) -> Metadata {
        let Recipe { version, release, name, homepage, licenses, .. } = self.recipe;
        let mut depends = contents.depends.clone();
        depends.extend(definition.rundeps.iter().cloned());
        // What goes without saying cannot be about a package that is not made.
        let siblings = definition.template_rundeps.iter();
        depends.extend(siblings.filter(|it| names.contains(it.text.as_str())).cloned());
        depends.remove(&Dependency::on_package(definition.name.as_str()));
        Metadata {
            name: definition.name.clone(),
            version: version.clone(),
            release: *release,
            build_release: self.build_release,
            architecture: self.architecture.into(),
            summary: definition.summary.clone(),
            description: definition.description.clone(),
            source_id: name.clone(),
            homepage: homepage.clone(),
            licenses: licenses.iter().cloned().collect(),
            depends,
            provides: contents.provides.clone(),
            conflicts: definition.conflicts.clone(),
            ..Metadata::default()
        }
    }

    fn stone(
        &self,
        definition: &Definition,
        contents: &Contents,
        names: &BTreeSet<&str>,
        directory: &Path,
    ) -> Result<Emitted> {
        let metadata = self.metadata(definition, contents, names);
        let failed = |source| Error::Stone { package: definition.name.clone(), source };
        let path = directory.join(metadata.file_name());
        let mut builder = Builder::new(metadata);
        let seconds = i64::try_from(self.epoch).unwrap_or(i64::MAX);
        let latest = Timestamp::new(seconds, 0).expect("no nanoseconds");
        let mut layout: Vec<Layout> = Vec::with_capacity(contents.files.len());
        for file in &contents.files {
            let key = match &file.kind {
                FoundKind::File(_) => {
                    builder.add_source(Source::Path(file.source.clone())).map_err(failed)?.key
                }
                _ => BlobKey::of(b""),
            };
            layout.push(file.layout(key, latest));
        }
        unlink_lonely(&mut layout);
        builder.layout.clone_from(&layout);
        let size = write_stone(&builder, &path, directory, failed)?;
        Ok(Emitted { metadata: builder.metadata, path, size, layout })
    }

    /// Writes `manifest.<arch>.bin` and `manifest.<arch>.jsonc` into
    /// `directory`; returns the path of the first.
    ///
    /// # Errors
    /// [`Error::Manifest`], [`Error::Io`].
    pub fn manifests(&self, emitted: &[Emitted], directory: &Path) -> Result<PathBuf> {
        let path = directory.join(format!("manifest.{}.bin", self.architecture));
        let bytes = self.manifest(emitted, &path)?;
        fs::write(&path, bytes).map_err(Error::io(&path))?;

        let Recipe { name, version, release, .. } = self.recipe;
        let mut readable = ReadableManifest::new(name, version, *release);
        for package in listed(emitted) {
            let metadata = self.with_build_depends(&package.metadata);
            let mut entry = ReadablePackage::new(&metadata, &package.layout);
            entry.build_depends = self.build_depends().map(ToOwned::to_owned).collect();
            readable.packages.insert(metadata.name.clone(), entry);
        }
        let text = directory.join(format!("manifest.{}.jsonc", self.architecture));
        fs::write(&text, readable.to_text()).map_err(Error::io(&text))?;
        Ok(path)
    }

    fn manifest(&self, emitted: &[Emitted], path: &Path) -> Result<Vec<u8>> {
        let of = |package: &Emitted| self.with_build_depends(&package.metadata);
        let packages: Vec<Metadata> = emitted.iter().map(of).collect();
        let mut bytes = Vec::new();
        write_manifest(&packages, &mut bytes)
            .map_err(|source| Error::Manifest { path: path.into(), source })?;
        Ok(bytes)
    }

    /// Compares what was made with a manifest that was kept.
    ///
    /// # Errors
    /// [`Error::Differs`] with everything that differs, [`Error::Manifest`],
    /// [`Error::Io`].
    pub fn verify(&self, emitted: &[Emitted], kept: &Path) -> Result<()> {
        let bytes = fs::read(kept).map_err(Error::io(kept))?;
        if self.manifest(emitted, kept)? == bytes {
            return Ok(());
        }
        let failed = |source| Error::Manifest { path: kept.into(), source };
        let by_name = |packages: Vec<Metadata>| -> BTreeMap<String, Metadata> {
            packages.into_iter().map(|it| (it.name.clone(), it)).collect()
        };
        let kept_packages = by_name(read_manifest(std::io::Cursor::new(&bytes)).map_err(failed)?);
        let made = listed(emitted).map(|package| Metadata {
            build_release: 0,
            ..self.with_build_depends(&package.metadata)
        });
        let differences = differences(&kept_packages, &by_name(made.collect()));
        if differences.is_empty() {
            // The same things, written by another version of a tool.
            return Ok(());
        }
        Err(Error::Differs { path: kept.into(), differences })
    }

    fn build_depends(&self) -> impl Iterator<Item = &str> {
        let build = &self.recipe.build;
        build.builddeps.iter().chain(&build.checkdeps).map(|it| it.value.as_str())
    }

    fn with_build_depends(&self, metadata: &Metadata) -> Metadata {
        let build_depends = self.build_depends().filter_map(|text| text.parse().ok()).collect();
        Metadata { build_depends, ..metadata.clone() }
    }
}

fn listed(emitted: &[Emitted]) -> impl Iterator<Item = &Emitted> {
    emitted.iter().filter(|package| !package.metadata.name.ends_with("-dbginfo"))
}

fn size_of(contents: &Contents) -> u64 {
    let size = |kind: &FoundKind| if let FoundKind::File(size) = kind { *size } else { 0 };
    contents.files.iter().map(|file| size(&file.kind)).sum()
}

/// Hard links whose others went into another package are plain files.
fn unlink_lonely(layout: &mut [Layout]) {
    let mut members: BTreeMap<u32, u32> = BTreeMap::new();
    for link in layout.iter().filter_map(|entry| entry.extra.link) {
        *members.entry(link).or_default() += 1;
    }
    for entry in layout {
        entry.extra.link = entry.extra.link.filter(|link| members[link] > 1);
    }
}

/// Writes a stone under a temporary name, and gives it its own at the end;
/// returns its length.
fn write_stone(
    builder: &Builder,
    path: &Path,
    directory: &Path,
    failed: impl Fn(cairn_package::stone::Error) -> Error,
) -> Result<u64> {
    let mut file = tempfile::Builder::new()
        .prefix(".build-")
        .suffix(".part")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(Error::io(directory))?;
    let mut buffered = BufWriter::with_capacity(128 << 10, file.as_file_mut());
    builder.write(Encoding::Canonical, &mut buffered).map_err(failed)?;
    buffered.flush().map_err(Error::io(path))?;
    drop(buffered);
    file.as_file().sync_all().map_err(Error::io(path))?;
    let size = file.as_file().metadata().map_err(Error::io(path))?.len();
    file.persist(path).map_err(|err| Error::io(path)(err.error))?;
    Ok(size)
}

/// One line for each thing that differs.
fn differences(
    kept: &BTreeMap<String, Metadata>,
    made: &BTreeMap<String, Metadata>,
) -> Vec<String> {
    let mut lines = Vec::new();
    let names: BTreeSet<&String> = kept.keys().chain(made.keys()).collect();
    for name in names {
        let (old, new) = match (kept.get(name), made.get(name)) {
            (Some(old), Some(new)) => (old, new),
            (Some(_), None) => {
                lines.push(format!("{name} was not made"));
                continue;
            }
            _ => {
                lines.push(format!("{name} is new"));
                continue;
            }
        };
        let texts = [
            ("version", &old.version, &new.version),
            ("architecture", &old.architecture, &new.architecture),
            ("summary", &old.summary, &new.summary),
            ("description", &old.description, &new.description),
            ("homepage", &old.homepage, &new.homepage),
            ("source", &old.source_id, &new.source_id),
        ];
        for (what, old, new) in texts.into_iter().filter(|(_, old, new)| old != new) {
            lines.push(format!("{name}: the {what} is {new:?}, not {old:?}"));
        }
        if old.release != new.release {
            lines.push(format!("{name}: the release is {}, not {}", new.release, old.release));
        }
        if old.licenses != new.licenses {
            lines.push(format!(
                "{name}: the licences are {:?}, not {:?}",
                new.licenses, old.licenses
            ));
        }
        for (what, old, new) in [
            ("needs", &old.depends, &new.depends),
            ("offers", &old.provides, &new.provides),
            ("conflicts with", &old.conflicts, &new.conflicts),
            ("needs for its build", &old.build_depends, &new.build_depends),
        ] {
            lines.extend(new.difference(old).map(|it| format!("{name}: now {what} {it}")));
            lines.extend(old.difference(new).map(|it| format!("{name}: no longer {what} {it}")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use cairn_package::stone::Package;

    use super::*;
    use crate::analyse::analyse;
    use crate::collect::collect;
    use crate::package::tests::definitions;

    const RECIPE: &str = "\
name: demo
version: 1.0
release: 7
homepage: https://example.org
license: [MIT, Zlib]
summary: s
description: d
builddeps: [pkgconfig(zlib), make]
checkdeps: [binary(valgrind)]
rundeps: [binary(bash)]
conflicts: [old]
install: x
";

    fn built(recipe: &str, more: &[&str], directory: &Path) -> Result<Vec<Emitted>> {
        let root = tempfile::tempdir().expect("a directory");
        let files = ["usr/bin/demo", "usr/include/demo.h", "usr/lib/debug/x.debug"];
        for path in files.iter().chain(more) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(&path, "bytes").expect("a file");
        }
        let demo = root.path().join("usr/bin/demo");
        fs::hard_link(&demo, root.path().join("usr/bin/demo2")).expect("a link");
        // In another package it is a file of its own.
        fs::hard_link(&demo, root.path().join("usr/include/copy.h")).expect("a link");
        with_emission(recipe, |emission| {
            let (recipe, definitions) = (emission.recipe, emission.definitions);
            let files = collect(root.path(), (0, 0)).expect("a list");
            let analysis = analyse(files, definitions, &recipe.options, &()).expect("an analysis");
            emission.stones(&analysis, directory)
        })
    }

    fn with_emission<T>(recipe: &str, run: impl FnOnce(&Emission<'_>) -> T) -> T {
        let (recipe, definitions) = definitions(recipe);
        run(&Emission {
            recipe: &recipe,
            definitions: &definitions,
            architecture: "x86_64",
            build_release: 1,
            epoch: 1_700_000_000,
            threads: NonZeroUsize::new(2).expect("two"),
        })
    }

    #[test]
    fn stones_say_what_recipe_and_analysis_say() {
        let directory = tempfile::tempdir().expect("a directory");
        let emitted = built(RECIPE, &[], directory.path()).expect("stones");
        let names: Vec<String> = emitted.iter().map(|it| it.metadata.name.clone()).collect();
        assert_eq!(names, ["demo", "demo-dbginfo", "demo-devel"]);
        let path = directory.path().join("demo-1.0-7-1-x86_64.stone");
        let package = Package::open(&path).expect("a stone");
        assert_eq!(package.metadata, emitted[0].metadata);
        let texts = |set: &BTreeSet<Dependency>| {
            set.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(texts(&package.metadata.depends), "binary(bash)");
        assert_eq!(texts(&package.metadata.provides), "binary(demo) binary(demo2)");
        assert_eq!(texts(&package.metadata.conflicts), "old");
        assert_eq!(package.metadata.licenses, ["MIT", "Zlib"].map(String::from).into());
        assert_eq!(texts(&emitted[2].metadata.depends), "demo");
        let links: Vec<_> = package.layout.iter().map(|entry| entry.extra.link).collect();
        assert_eq!(links.len(), 2);
        assert!(links[0].is_some() && links[0] == links[1]);
        // Files that the build has just written have the time of the release.
        let time = Timestamp::new(1_700_000_000, 0);
        assert!(package.layout.iter().all(|entry| entry.extra.mtime == time));
        assert!(emitted[2].layout.iter().all(|entry| entry.extra.link.is_none()));
    }

    #[test]
    fn a_package_needs_no_sibling_that_is_not_made() {
        let directory = tempfile::tempdir().expect("a directory");
        let recipe = format!("{RECIPE}packages: [demo-tools: {{paths: [/usr/bin]}}]\n");
        let emitted = built(&recipe, &[], directory.path()).expect("stones");
        let names: Vec<&str> = emitted.iter().map(|it| it.metadata.name.as_str()).collect();
        assert_eq!(names, ["demo-dbginfo", "demo-devel", "demo-tools"]);
        assert!(emitted[1].metadata.depends.is_empty(), "{:?}", emitted[1].metadata.depends);
    }

    #[test]
    fn the_same_files_make_the_same_stones() {
        let bytes = |_: u32| {
            let directory = tempfile::tempdir().expect("a directory");
            let emitted = built(RECIPE, &["usr/share/x"], directory.path()).expect("stones");
            emitted.iter().map(|it| fs::read(&it.path).expect("a stone")).collect::<Vec<_>>()
        };
        assert_eq!(bytes(1), bytes(2));
    }

    #[test]
    fn a_build_is_compared_with_its_manifest() {
        let directory = tempfile::tempdir().expect("a directory");
        let emitted = built(RECIPE, &[], directory.path()).expect("stones");
        let manifest = with_emission(RECIPE, |emission| {
            let path = emission.manifests(&emitted, directory.path()).expect("manifests");
            emission.verify(&emitted, &path).expect("the same");
            path
        });
        let listed = read_manifest(fs::File::open(&manifest).expect("a file")).expect("a manifest");
        let names: Vec<&str> = listed.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["demo", "demo-devel"]);
        assert!(listed.iter().all(|it| it.build_release == 0 && it.build_depends.len() == 3));
        let text = fs::read_to_string(manifest.with_extension("jsonc")).expect("a text");
        let readable = ReadableManifest::parse(&text).expect("a manifest");
        assert_eq!(readable.packages["demo"].files.len(), 2);
        assert_eq!(readable.packages["demo"].build_depends.len(), 3);

        let changed = RECIPE.replace("binary(bash)", "binary(zsh)").replace("[old]", "[]");
        let other = tempfile::tempdir().expect("a directory");
        let emitted = built(&changed, &["usr/sbin/new"], other.path()).expect("stones");
        let err = with_emission(&changed, |emission| emission.verify(&emitted, &manifest));
        let Err(Error::Differs { differences, .. }) = err else { panic!("{err:?}") };
        assert_eq!(
            differences,
            [
                "demo: now needs binary(zsh)",
                "demo: no longer needs binary(bash)",
                "demo: now offers sysbinary(new)",
                "demo: no longer conflicts with old",
            ]
        );
    }

    #[test]
    fn a_recipe_that_installs_nothing_makes_nothing() {
        with_emission(RECIPE, |emission| {
            let directory = tempfile::tempdir().expect("a directory");
            let err = emission.stones(&Analysis::default(), directory.path());
            assert!(matches!(err, Err(Error::NothingInstalled)), "{err:?}");
        });
    }
}
