//! What a build root must have.

use std::collections::BTreeSet;

use cairn_package::{Dependency, InvalidDependency};

use crate::job::{Job, Settings};
use crate::macros::TargetMacros;
use crate::problem::Problem;
use crate::recipe::{Recipe, Toolchain};

/// Dependencies, the first of which that some package offers is taken.
pub type Alternatives = Vec<Dependency>;

/// Everything that the build root of a recipe must have: what every root has,
/// what its toolchain and options want, what the recipe says, and what its actions
/// need.
///
/// `foreign` are suffixes of archives that tools of the root have to unpack.
///
/// # Errors
/// A text of a recipe or of macros that is no dependency.
pub fn needs(
    recipe: &Recipe,
    macros: &[TargetMacros],
    jobs: &[Job],
    settings: &Settings,
    foreign: &[String],
) -> Result<Vec<Alternatives>, Problem> {
    let mut texts: BTreeSet<String> = BTreeSet::new();
    let mut add = |list: &Option<Vec<String>>| texts.extend(list.iter().flatten().cloned());
    for macros in macros {
        let root = &macros.root;
        add(&root.always);
        let (own, emul32) = match recipe.options.toolchain {
            Toolchain::Llvm => (&root.llvm, &root.emul32_llvm),
            Toolchain::Gnu => (&root.gnu, &root.emul32_gnu),
        };
        add(own);
        if macros.target.emul32 {
            add(emul32);
        }
        if recipe.options.mold {
            add(&root.mold);
        }
        if settings.cache {
            add(&root.cache);
            let runs_cargo = |job: &Job| job.dependencies.iter().any(|it| it == "binary(cargo)");
            if jobs.iter().any(runs_cargo) {
                add(&root.cache_cargo);
            }
        }
        for suffix in foreign {
            add(&root.archives.get(suffix).cloned());
        }
    }
    let mut needs = Vec::new();
    for text in &texts {
        needs.push(parse(text).map_err(|err| in_macros(&err))?);
    }
    for job in jobs {
        for text in &job.dependencies {
            needs.push(parse(text).map_err(|err| in_macros(&err))?);
        }
    }
    for macros in macros {
        let build = recipe.build_of(&macros.target);
        let checks: &[_] = if settings.check { &build.checkdeps } else { &[] };
        for text in build.builddeps.iter().chain(checks) {
            let parsed = parse(&text.value);
            needs.push(parsed.map_err(|err| Problem::error(text.span, err.to_string()))?);
        }
    }
    needs.sort();
    needs.dedup();
    Ok(needs)
}

fn in_macros(err: &InvalidDependency) -> Problem {
    Problem::error(Default::default(), format!("in the macros: {err}"))
}

/// `a | b`.
fn parse(text: &str) -> Result<Alternatives, InvalidDependency> {
    text.split('|').map(|one| one.trim().parse()).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::job;
    use crate::macros::Macros;
    use crate::recipe::Target;

    fn needed(more: &str, settings: &Settings) -> Vec<String> {
        let text = format!(
            "name: x\nversion: 1\nrelease: 1\nhomepage: https://x\nlicense: MIT\n\
             builddeps: [pkgconfig(zlib)]\ncheckdeps: [binary(valgrind)]\n\
             build: \"%make\"\ninstall: x\n{more}"
        );
        let recipe = Recipe::parse(&text).expect("a recipe").recipe;
        let macros = Macros::standard();
        let of = |target: &Target| macros.of_target(target).expect("a target");
        let macros: Vec<_> = recipe.targets("x86_64").iter().map(of).collect();
        let jobs = job::jobs(&recipe, &macros, settings).expect("jobs");
        let needs = needs(&recipe, &macros, &jobs, settings, &["rpm".into()]).expect("needs");
        let show =
            |it: &Alternatives| it.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
        needs.iter().map(show).collect()
    }

    #[test]
    fn a_root_has_what_recipe_actions_and_options_want() {
        let jobs = NonZeroUsize::MIN;
        let settings = Settings { jobs, cache: false, check: true, epoch: 0 };
        let has = |list: &[String], wanted: &str| list.iter().any(|it| it == wanted);
        let plain = needed("", &settings);
        for wanted in [
            "binary(bash)",
            "binary(make)",
            "pkgconfig(zlib)",
            "binary(valgrind)",
            "glibc-devel | libc6-dev",
            "binary(clang) | clang",
            "binary(bsdtar)",
        ] {
            assert!(has(&plain, wanted), "{wanted}: {plain:?}");
        }
        assert!(!has(&plain, "binary(gcc)") && !has(&plain, "binary(ccache)"));
        let gnu = needed("toolchain: gnu\nmold: true\nemul32: true\n", &settings);
        for wanted in ["binary(gcc)", "binary(mold)", "gcc-32bit | gcc-multilib"] {
            assert!(has(&gnu, wanted), "{wanted}: {gnu:?}");
        }
        assert!(!has(&gnu, "binary(clang) | clang"));
        let quick = Settings { cache: true, check: false, ..settings };
        let rust = needed("check: \"%cargo_test\"\n", &quick);
        assert!(has(&rust, "binary(sccache)"), "{rust:?}");
        let quick = needed("", &quick);
        assert!(has(&quick, "binary(ccache)") && !has(&quick, "binary(valgrind)"));
        assert!(!has(&quick, "binary(sccache)"), "{quick:?}");
    }
}
