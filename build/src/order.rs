//! In which order recipes are built that need each other.

use std::collections::BTreeSet;
use std::path::Path;

use cairn_package::{Dependency, Kind};

use crate::error::{Error, Result};
use crate::recipe::Recipe;

/// What is known of a recipe before it is built.
#[derive(Clone, Debug)]
pub struct Node {
    name: String,
    offers: BTreeSet<Dependency>,
    needs: BTreeSet<Dependency>,
}

impl Node {
    /// What a recipe needs, and what its packages offer: their names, what the
    /// manifest says that is kept beside the recipe, and without one what usually
    /// is called like the recipe.
    #[must_use]
    pub fn new(recipe: &Recipe, directory: &Path, architecture: &str) -> Self {
        let expand = |text: &str| {
            text.replace("%(name)", &recipe.name).replace("%(version)", &recipe.version)
        };
        let name = &recipe.name;
        let mut offers: BTreeSet<Dependency> =
            ["", "-devel", "-libs", "-docs", "-32bit", "-32bit-devel", "-demos"]
                .map(|suffix| Dependency::on_package(format!("{name}{suffix}")))
                .into();
        for (package, _) in &recipe.packages {
            offers.insert(Dependency::on_package(expand(&package.value)));
        }
        let manifest = directory.join(format!("manifest.{architecture}.bin"));
        let listed = std::fs::File::open(manifest).ok();
        match listed.and_then(|file| cairn_package::stone::read_manifest(file).ok()) {
            Some(packages) => offers.extend(packages.into_iter().flat_map(|it| it.provides)),
            None => {
                let plain = name.trim_start_matches("lib");
                for text in [name.as_str(), plain, &format!("lib{plain}")] {
                    for kind in [
                        Kind::PkgConfig,
                        Kind::PkgConfig32,
                        Kind::Cmake,
                        Kind::Binary,
                        Kind::Python,
                    ] {
                        offers.insert(Dependency::new(kind, text));
                        offers.insert(Dependency::new(kind, text.to_uppercase()));
                    }
                }
                let python = plain.trim_start_matches("python-");
                offers.insert(Dependency::new(Kind::Python, python));
            }
        }
        let builds =
            std::iter::once(&recipe.build).chain(recipe.profiles.iter().map(|it| &it.build));
        let texts = builds.flat_map(|build| build.builddeps.iter().chain(&build.checkdeps));
        let needs = texts.filter_map(|text| expand(&text.value).parse().ok()).collect();
        Self { name: name.clone(), offers, needs }
    }
}

/// For each node the numbers of those that it needs.
///
/// # Errors
/// [`Error::Circle`] with the names of recipes that need each other.
pub fn needs(nodes: &[Node]) -> Result<Vec<Vec<usize>>> {
    let of = |at: usize| -> Vec<usize> {
        let wanted = |other: &usize| {
            *other != at && nodes[*other].offers.intersection(&nodes[at].needs).next().is_some()
        };
        (0..nodes.len()).filter(wanted).collect()
    };
    let needs: Vec<Vec<usize>> = (0..nodes.len()).map(of).collect();
    let sorted = sort(&needs);
    if sorted.len() < nodes.len() {
        let left = (0..nodes.len()).filter(|at| !sorted.contains(at));
        return Err(Error::Circle { names: left.map(|at| nodes[at].name.clone()).collect() });
    }
    Ok(needs)
}

/// The numbers of all that can be had, each after those that it needs; as they are
/// given where nothing speaks against it.
#[must_use]
pub fn sort(needs: &[Vec<usize>]) -> Vec<usize> {
    let mut done: Vec<usize> = Vec::with_capacity(needs.len());
    let ready = |done: &[usize]| {
        let is_ready =
            |at: &usize| !done.contains(at) && needs[*at].iter().all(|other| done.contains(other));
        (0..needs.len()).find(is_ready)
    };
    while let Some(next) = ready(&done) {
        done.push(next);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, needs: &str) -> Node {
        let text = format!(
            "name: {name}\nversion: 1\nrelease: 1\nhomepage: https://x\nlicense: MIT\n\
             builddeps: [{needs}]\ninstall: x\npackages: [\"%(name)-extra\": {{}}]\n"
        );
        let recipe = Recipe::parse(&text).expect("a recipe").recipe;
        Node::new(&recipe, Path::new("/nonexistent"), "x86_64")
    }

    #[test]
    fn what_is_needed_comes_first() {
        let nodes = [
            node("app", "pkgconfig(zlib), foo-extra"),
            node("libfoo", "cmake(ZLIB)"),
            node("zlib", "binary(make)"),
            node("foo", ""),
        ];
        assert_eq!(sort(&needs(&nodes).expect("an order")), [2, 1, 3, 0]);
    }

    #[test]
    fn a_circle_is_told() {
        let nodes = [node("a", "b-devel"), node("b", "a"), node("c", "")];
        let Err(Error::Circle { names }) = needs(&nodes) else { panic!("it is a circle") };
        assert_eq!(names, ["a", "b"]);
    }
}
