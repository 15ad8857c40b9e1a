//! Which packages a recipe makes, and which files go into which.

use std::collections::{BTreeMap, BTreeSet};

use cairn_package::Dependency;
use regex::Regex;

use crate::collect::{Found, FoundKind};
use crate::glob::Glob;
use crate::macros::{Expander, TargetMacros};
use crate::problem::{Problem, Severity};
use crate::recipe::{self, PackagePart, PathKind, Recipe, Spanned, is_name};

/// A package that a recipe can make.
#[derive(Clone, Debug, Default)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// One line.
    pub summary: String,
    /// Some paragraphs.
    pub description: String,
    /// What the recipe says that it needs.
    pub rundeps: BTreeSet<Dependency>,
    /// The same where it comes from a template: it goes without saying, and
    /// only counts if there is such a package.
    pub template_rundeps: BTreeSet<Dependency>,
    /// What must not be installed beside it.
    pub conflicts: BTreeSet<Dependency>,
    rundeps_exclude: Vec<Regex>,
    provides_exclude: Vec<Regex>,
}

impl Definition {
    /// Whether something that analysis found is no dependency.
    #[must_use]
    pub fn excludes_dependency(&self, found: &Dependency) -> bool {
        excludes(&self.rundeps_exclude, found)
    }

    /// Whether something that analysis found is no provider.
    #[must_use]
    pub fn excludes_provider(&self, found: &Dependency) -> bool {
        excludes(&self.provides_exclude, found)
    }
}

fn excludes(patterns: &[Regex], found: &Dependency) -> bool {
    let text = format!("{}({})", found.kind.prefix(), found.text);
    patterns.iter().any(|pattern| pattern.is_match(&text))
}

/// The packages of a recipe and the rules by which files are theirs.
#[derive(Clone, Debug)]
pub struct Definitions {
    /// By name.
    pub packages: BTreeMap<String, Definition>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    written: String,
    exact: String,
    glob: Glob,
    below: Glob,
    kind: PathKind,
    package: String,
    /// Where it is in the recipe; none for rules of templates.
    place: Option<crate::problem::Span>,
}

impl Definitions {
    /// Puts together what templates and the recipe say of each package: later
    /// texts replace earlier ones, lists add up, and the recipe's own texts are
    /// those of packages that have none.
    ///
    /// # Errors
    /// Each text that cannot be expanded and each value that cannot be, at its
    /// place in the recipe.
    pub fn new(
        recipe: &Recipe,
        macros: &TargetMacros,
        expander: &Expander,
    ) -> Result<Self, Vec<Problem>> {
        let mut own = Self { packages: BTreeMap::new(), rules: Vec::new() };
        let mut problems = Vec::new();
        for (name, part) in &macros.packages {
            own.add(name, part, Origin::Template, expander, &mut problems);
        }
        let main = Spanned::new(Default::default(), recipe.name.clone());
        own.add(&main, &recipe.package, Origin::Recipe, expander, &mut problems);
        let texts = own.packages.get(&recipe.name).cloned().unwrap_or_default();
        for (name, part) in &recipe.packages {
            own.add(name, part, Origin::Recipe, expander, &mut problems);
        }
        for package in own.packages.values_mut() {
            if package.summary.is_empty() {
                package.summary.clone_from(&texts.summary);
            }
            if package.description.is_empty() {
                package.description.clone_from(&texts.description);
            }
        }
        problems.retain(|problem| problem.severity == Severity::Error);
        if problems.is_empty() { Ok(own) } else { Err(problems) }
    }

    fn add(
        &mut self,
        name: &Spanned<String>,
        part: &PackagePart,
        origin: Origin,
        expander: &Expander,
        problems: &mut Vec<Problem>,
    ) {
        let mut expand = |text: &Spanned<String>| match expander.text(&text.value) {
            Ok(expanded) => Some(expanded),
            Err(err) => {
                problems.push(Problem::error(text.span, err.to_string()));
                None
            }
        };
        let Some(full) = expand(name) else { return };
        let package = self.packages.entry(full.clone()).or_default();
        package.name.clone_from(&full);
        if let Some(text) = part.summary.as_ref().and_then(&mut expand) {
            package.summary = text;
        }
        if let Some(text) = part.description.as_ref().and_then(&mut expand) {
            package.description = text.trim().to_owned();
        }
        let mut expanded = |list: &[Spanned<String>]| -> Vec<Spanned<String>> {
            let one = |it: &Spanned<String>| Some(Spanned::new(it.span, expand(it)?));
            list.iter().filter_map(one).collect()
        };
        let (rundeps, conflicts) = (expanded(&part.rundeps), expanded(&part.conflicts));
        let globs: Vec<Spanned<String>> =
            part.paths.iter().map(|it| Spanned::new(it.span, it.value.glob.clone())).collect();
        let globs: Vec<Option<String>> = globs.iter().map(&mut expand).collect();
        if !is_name(&full) {
            problems.push(Problem::error(name.span, format!("{full:?} cannot name a package")));
        }
        let mut parse = |list: Vec<Spanned<String>>, to: &mut BTreeSet<Dependency>| {
            for text in list {
                match text.value.parse() {
                    Ok(dependency) => _ = to.insert(dependency),
                    Err(err) => problems.push(Problem::error(text.span, format!("{err}"))),
                }
            }
        };
        let rundeps_to = match origin {
            Origin::Template => &mut package.template_rundeps,
            Origin::Recipe => &mut package.rundeps,
        };
        parse(rundeps, rundeps_to);
        parse(conflicts, &mut package.conflicts);
        for (texts, patterns) in [
            (&part.rundeps_exclude, &mut package.rundeps_exclude),
            (&part.provides_exclude, &mut package.provides_exclude),
        ] {
            for text in texts {
                match recipe::compile(&text.value) {
                    Ok(regex) => patterns.push(regex),
                    Err(err) => problems.push(Problem::error(text.span, err.to_string())),
                }
            }
        }
        for (rule, glob) in part.paths.iter().zip(globs) {
            let Some(written) = glob else { continue };
            let compiled = Glob::new(&written).and_then(|glob| {
                let below = Glob::new(&format!("{}/**", written.trim_end_matches('/')))?;
                Ok((glob, below))
            });
            match compiled {
                Ok((glob, below)) => self.rules.push(Rule {
                    exact: written.clone(),
                    written,
                    glob,
                    below,
                    kind: rule.value.kind,
                    package: full.clone(),
                    place: (origin == Origin::Recipe).then_some(rule.span),
                }),
                Err(err) => problems.push(Problem::error(rule.span, err.to_string())),
            }
        }
    }

    /// The package of a file, and the number of the rule that says so: the last
    /// one that matches.
    #[must_use]
    pub fn package_of(&self, file: &Found) -> Option<(&str, usize)> {
        let mut rules = self.rules.iter().enumerate().rev();
        let (number, rule) = rules.find(|(_, rule)| rule.matches(&file.text, file))?;
        Some((&rule.package, number))
    }

    /// The rules of the recipe that none of these numbers is of, with their
    /// places.
    #[must_use]
    pub fn unused_rules(&self, used: &BTreeSet<usize>) -> Vec<(String, crate::problem::Span)> {
        let unused = self.rules.iter().enumerate().filter(|(number, _)| !used.contains(number));
        unused.filter_map(|(_, rule)| Some((rule.written.clone(), rule.place?))).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Template,
    Recipe,
}

impl Rule {
    fn matches(&self, path: &str, file: &Found) -> bool {
        let is_kind = match self.kind {
            PathKind::Any => true,
            PathKind::Exe => matches!(file.kind, FoundKind::File(_)) && file.mode & 0o111 != 0,
            PathKind::Symlink => matches!(file.kind, FoundKind::Symlink(_)),
            PathKind::Special => matches!(file.kind, FoundKind::Special(_)),
        };
        is_kind && (path == self.exact || self.glob.matches(path) || self.below.matches(path))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::num::NonZeroUsize;

    use cairn_store::{Timestamp, TreePath};

    use super::*;
    use crate::job::{self, Settings, Stage};
    use crate::macros::Macros;
    use crate::recipe::Target;

    pub(crate) fn definitions(text: &str) -> (Recipe, Definitions) {
        let recipe = Recipe::parse(text).expect("a recipe").recipe;
        let macros = Macros::standard().of_target(&Target::native("x86_64")).expect("a target");
        let settings = Settings { jobs: NonZeroUsize::MIN, cache: false, check: true, epoch: 0 };
        let expander = job::expander(&recipe, &macros, Stage::Plain, &settings).expect("flags");
        let definitions = Definitions::new(&recipe, &macros, &expander).expect("packages");
        (recipe, definitions)
    }

    fn file(path: &str, kind: FoundKind, mode: u16) -> Found {
        Found {
            path: TreePath::new(path.as_bytes()).expect("a path"),
            text: path.into(),
            source: path.into(),
            kind,
            mode,
            owner: (0, 0),
            time: Timestamp::default(),
            link: None,
        }
    }

    const HEAD: &str = "\
name: demo
version: 1
release: 1
homepage: https://example.org
license: MIT
summary: The demo
description: All of it.
install: x
";

    #[test]
    fn files_go_where_the_last_rule_says() {
        let text = format!(
            "{HEAD}{}",
            r#"paths:
    - /usr/share/gtk-doc/keep
packages:
    - "%(name)-libs":
        paths:
            - /usr/lib/lib*.so.*
    - "%(name)-tools":
        paths:
            - /usr/bin/*-tool: exe
            - /usr/bin/alias: symlink
            - "%(libdir)/demo/node": special
"#
        );
        let (_, definitions) = definitions(&text);
        let check = |path: &str, kind: &FoundKind, mode, expected: &str| {
            let file = file(path, kind.clone(), mode);
            let (package, _) = definitions.package_of(&file).expect("some package");
            assert_eq!(package, expected, "{path}");
        };
        let plain = FoundKind::File(0);
        for (path, expected) in [
            ("/usr/bin/demo", "demo"),
            ("/usr/include", "demo-devel"),
            ("/usr/include/a/b.h", "demo-devel"),
            ("/usr/lib/libdemo.so", "demo-devel"),
            ("/usr/lib/libdemo.so.1", "demo-libs"),
            ("/usr/lib/libdemo.a", "demo-devel"),
            ("/usr/lib/demo/plugin.so", "demo"),
            ("/usr/lib/demo/libplugin.so", "demo"),
            ("/usr/lib/libdemo/libplugin.so", "demo-devel"),
            ("/usr/lib/pkgconfig/demo.pc", "demo-devel"),
            ("/usr/lib/cmake/demo/demoConfig.cmake", "demo-devel"),
            ("/usr/share/man/man1/demo.1", "demo"),
            ("/usr/share/man/man3/demo.3", "demo-devel"),
            ("/usr/share/gtk-doc/html/x", "demo-docs"),
            ("/usr/share/gtk-doc/keep/x", "demo"),
            ("/usr/lib/debug/.build-id/ab/c.debug", "demo-dbginfo"),
            ("/usr/lib32/libdemo.so.1", "demo-32bit"),
            ("/usr/lib32/libdemo.so", "demo-32bit-devel"),
            ("/usr/lib32/debug/x", "demo-32bit-dbginfo"),
            ("/usr/share/vala/vapi/demo.vapi", "demo-devel"),
            ("/usr/lib/qt6/mkspecs/x", "demo-devel"),
            ("/usr/lib/qt6/examples/x", "demo-demos"),
            ("/usr/share/doc/qt6/demo.qch", "demo-devel"),
            ("/opt/demo", "demo"),
        ] {
            check(path, &plain, 0o644, expected);
        }
        let link = FoundKind::Symlink((*b"x").into());
        let node = FoundKind::Special(cairn_package::stone::LayoutContent::Fifo);
        check("/usr/bin/a-tool", &plain, 0o755, "demo-tools");
        check("/usr/bin/a-tool", &plain, 0o644, "demo");
        check("/usr/bin/a-tool", &link, 0o777, "demo");
        check("/usr/bin/alias", &link, 0o777, "demo-tools");
        check("/usr/bin/alias", &plain, 0o755, "demo");
        check("/usr/lib/demo/node", &node, 0o644, "demo-tools");
        check("/usr/lib/demo/node", &plain, 0o644, "demo");
    }

    #[test]
    fn rules_that_nothing_matches_are_known() {
        let text = format!("{HEAD}paths: [/usr/a, /usr/b]\n");
        let (_, definitions) = definitions(&text);
        let (_, used) =
            definitions.package_of(&file("/usr/a", FoundKind::File(0), 0o644)).expect("a package");
        let unused = definitions.unused_rules(&BTreeSet::from([used]));
        assert_eq!(unused.iter().map(|it| it.0.as_str()).collect::<Vec<_>>(), ["/usr/b"]);
        assert_eq!(&text[unused[0].1.start..unused[0].1.end], "/usr/b");
    }

    #[test]
    fn a_package_is_what_all_its_definitions_say() {
        let text = format!(
            "{HEAD}{}",
            r#"rundeps: [a, "%(name)-data"]
packages:
    - "%(name)-devel":
        rundeps: ["b"]
        rundeps-exclude: [^soname]
        conflicts: [old]
    - demo:
        rundeps: [c]
        conflicts: [other]
    - "%(name)-data":
        summary: Data of %(name)
"#
        );
        let (_, definitions) = definitions(&text);
        let texts = |set: &BTreeSet<Dependency>| {
            set.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let of = |name: &str| definitions.packages[name].clone();
        let devel = of("demo-devel");
        // What only adds to a template keeps its texts.
        assert_eq!(devel.summary, "Development files of demo");
        assert_eq!(
            (texts(&devel.rundeps), texts(&devel.template_rundeps)),
            ("b".into(), "demo".into())
        );
        let soname = Dependency::new(cairn_package::Kind::Soname, "libc.so.6(x86_64)");
        assert!(devel.excludes_dependency(&soname) && !devel.excludes_provider(&soname));
        let main = of("demo");
        assert_eq!(
            (texts(&main.rundeps), texts(&main.conflicts)),
            ("a c demo-data".into(), "other".into())
        );
        assert_eq!(main.summary, "The demo");
        let data = of("demo-data");
        assert_eq!(
            (data.summary.as_str(), data.description.as_str()),
            ("Data of demo", "All of it.")
        );
    }
}
