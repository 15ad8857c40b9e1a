//! What is built: each target, in each of its stages, phase by phase, as
//! scripts for the shell.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroUsize;

use serde::Serialize;

use crate::guest;
use crate::macros::{Expanded, Expander, Flags, Language, Piece, TargetMacros};
use crate::problem::Problem;
use crate::recipe::{BuildPart, Recipe, Script, Target, Toolchain};

/// A part of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "they are the keys of a recipe")]
pub enum Phase {
    Setup,
    Build,
    Install,
    Check,
    Workload,
}

impl Phase {
    /// The key in a recipe.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Build => "build",
            Self::Install => "install",
            Self::Check => "check",
            Self::Workload => "workload",
        }
    }

    /// The script of a recipe.
    fn script(self, build: &BuildPart) -> Option<&Script> {
        match self {
            Self::Setup => build.setup.as_ref(),
            Self::Build => build.build.as_ref(),
            Self::Install => build.install.as_ref(),
            Self::Check => build.check.as_ref(),
            Self::Workload => build.workload.as_ref(),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far a profile-guided optimisation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// There is none.
    Plain,
    /// The program counts what it does.
    One,
    /// It counts once more, with contexts.
    Two,
    /// It is optimised for what was counted.
    Use,
}

impl Stage {
    /// What scripts see as `PGO_STAGE`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "NONE",
            Self::One => "ONE",
            Self::Two => "TWO",
            Self::Use => "USE",
        }
    }

    fn phases(self) -> &'static [Phase] {
        match self {
            Self::Plain | Self::Use => &[Phase::Setup, Phase::Build, Phase::Install, Phase::Check],
            Self::One | Self::Two => &[Phase::Setup, Phase::Build, Phase::Workload],
        }
    }

    fn tuning_groups(self, recipe: &Recipe) -> Vec<&'static str> {
        let mut groups = match self {
            Self::Plain => vec![],
            Self::One => vec!["pgostage1"],
            Self::Two => vec!["pgostage2"],
            Self::Use => vec!["pgouse"],
        };
        if recipe.options.samplepgo && self == Self::Use {
            groups.push("pgosample");
        }
        groups
    }
}

/// What a build is told beside its recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How much runs side by side.
    pub jobs: NonZeroUsize,
    /// Whether compilers keep what they have compiled.
    pub cache: bool,
    /// Whether programs are tested.
    pub check: bool,
    /// The time of everything, in seconds since 1970.
    pub epoch: u64,
}

/// One target in one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// What is built for.
    pub target: Target,
    /// How far its optimisation is.
    pub stage: Stage,
    /// What runs, in this order.
    pub steps: Vec<Step>,
    /// Where scripts begin, seen from inside.
    pub work_directory: String,
    /// What the actions of the scripts need, as they say it.
    pub dependencies: BTreeSet<String>,
}

/// One phase of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which one.
    pub phase: Phase,
    /// What runs before each piece.
    pub prefix: String,
    /// Its script, cut at breakpoints.
    pub pieces: Vec<Piece>,
}

/// All jobs of a recipe for some targets, in order.
///
/// # Errors
/// Every script that cannot be expanded, and tuning that does not exist, each
/// at its place in the recipe.
pub fn jobs(
    recipe: &Recipe,
    macros: &[TargetMacros],
    settings: &Settings,
) -> Result<Vec<Job>, Vec<Problem>> {
    let mut jobs = Vec::new();
    let mut problems = Vec::new();
    for macros in macros {
        let build = recipe.build_of(&macros.target);
        let stages: &[Stage] = match &build.workload {
            None => &[Stage::Plain],
            Some(_) if recipe.options.cspgo && recipe.options.toolchain == Toolchain::Llvm => {
                &[Stage::One, Stage::Two, Stage::Use]
            }
            Some(_) => &[Stage::One, Stage::Use],
        };
        for stage in stages {
            match job(recipe, &build, macros, *stage, settings) {
                Ok(job) => jobs.push(job),
                Err(new) => {
                    // Each stage meets the same mistakes.
                    problems.extend(
                        new.into_iter().filter(|it| !problems.contains(it)).collect::<Vec<_>>(),
                    );
                }
            }
        }
    }
    if problems.is_empty() { Ok(jobs) } else { Err(problems) }
}

fn job(
    recipe: &Recipe,
    build: &BuildPart,
    macros: &TargetMacros,
    stage: Stage,
    settings: &Settings,
) -> Result<Job, Vec<Problem>> {
    let expander = expander(recipe, macros, stage, settings).map_err(|problem| vec![problem])?;
    let (mut problems, mut dependencies) = (Vec::new(), BTreeSet::new());
    let mut expand = |script: &Script| match expander.script(&script.text) {
        Ok(expanded) => {
            dependencies.extend(expanded.dependencies.iter().cloned());
            expanded
        }
        Err(err) => {
            problems.push(err.problem(script));
            Expanded::default()
        }
    };
    let mut prefix = expand(&Script::new("%scriptBase\n")).text();
    if let Some(environment) = &build.environment {
        prefix.push_str(&expand(environment).text());
        prefix.push('\n');
    }
    let mut steps = Vec::new();
    for phase in stage.phases() {
        let Some(script) = phase.script(build) else { continue };
        let mut pieces = expand(script).pieces;
        if *phase == Phase::Workload
            && let Some(merge) = merge_profiles(stage, recipe.options.toolchain)
        {
            pieces.push(Piece::Text("\n".into()));
            pieces.extend(expand(&Script::new(merge)).pieces);
        }
        if *phase != Phase::Check || settings.check {
            steps.push(Step { phase: *phase, prefix: prefix.clone(), pieces });
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let work_directory = guest::work_directory(recipe, &macros.target);
    Ok(Job { target: macros.target.clone(), stage, steps, work_directory, dependencies })
}

/// What turns the profiles of a training into one; gcc needs nothing.
fn merge_profiles(stage: Stage, toolchain: Toolchain) -> Option<&'static str> {
    match (stage, toolchain) {
        (Stage::One, Toolchain::Llvm) => Some("%llvm_merge_s1\n"),
        (Stage::Two, Toolchain::Llvm) => Some("%llvm_merge_s2\n"),
        _ => None,
    }
}

/// Knows what every name means for a target in a stage.
///
/// # Errors
/// Tuning that does not exist.
pub fn expander(
    recipe: &Recipe,
    macros: &TargetMacros,
    stage: Stage,
    settings: &Settings,
) -> Result<Expander, Problem> {
    let toolchain = recipe.options.toolchain;
    let groups = stage.tuning_groups(recipe);
    let flags = macros.flags(&recipe.tuning, &groups, toolchain).map_err(|(number, err)| {
        match number.and_then(|number| recipe.tuning.get(number)) {
            Some(wish) => err.problem(wish),
            None => Problem::error(crate::problem::Span::default(), err.to_string()),
        }
    })?;
    let mut expander = Expander {
        actions: macros.actions.clone(),
        definitions: macros.definitions.clone(),
        values: values(recipe, macros, stage, settings),
    };
    // Flags may use definitions, and are values themselves.
    let flags = flag_values(recipe, &flags, &expander)?;
    expander.values.extend(flags);
    Ok(expander)
}

fn flag_values(
    recipe: &Recipe,
    flags: &Flags,
    expander: &Expander,
) -> Result<Vec<(String, String)>, Problem> {
    let mut values = Vec::new();
    for (name, language) in [
        ("cflags", Language::C),
        ("cxxflags", Language::Cxx),
        ("fflags", Language::Fortran),
        ("dflags", Language::D),
        ("goflags", Language::Go),
        ("ldflags", Language::Ld),
        ("rustflags", Language::Rust),
        ("valaflags", Language::Vala),
    ] {
        let mut text = expander.text(flags.of(language)).map_err(|err| {
            Problem::error(crate::problem::Span::default(), format!("in the flags: {err}"))
        })?;
        if recipe.options.mold {
            match language {
                Language::C | Language::Cxx => text.push_str(" -fuse-ld=mold"),
                Language::Rust => text.push_str(" -C link-arg=-fuse-ld=mold"),
                _ => {}
            }
        }
        values.push((name.to_owned(), text));
    }
    Ok(values)
}

fn values(
    recipe: &Recipe,
    macros: &TargetMacros,
    stage: Stage,
    settings: &Settings,
) -> std::collections::BTreeMap<String, String> {
    let tools = Tools::of(recipe.options.toolchain, recipe.options.mold);
    let path = if settings.cache {
        format!("{}:/usr/lib/ccache/bin:/usr/lib/ccache:/usr/bin:/bin", guest::cached_compilers())
    } else {
        "/usr/bin:/bin".to_owned()
    };
    let cache = |directory: &str| {
        if settings.cache { guest::below(directory) } else { String::new() }
    };
    let texts = [
        ("name", recipe.name.clone()),
        ("version", recipe.version.clone()),
        ("release", recipe.release.to_string()),
        ("jobs", settings.jobs.to_string()),
        ("pkgdir", guest::below("recipe/pkg")),
        ("sourcedir", guest::below(guest::SOURCES)),
        ("installroot", guest::below(guest::INSTALL)),
        ("buildroot", guest::build_directory(&macros.target)),
        ("workdir", guest::work_directory(recipe, &macros.target)),
        ("compiler_cache", guest::below("ccache")),
        ("scompiler_cache", guest::below("sccache")),
        ("compiler_go_cache", cache("gocache")),
        ("compiler_go_mod_cache", cache("gomodcache")),
        ("compiler_cargo_cache", cache("cargocache")),
        ("compiler_zig_cache", cache("zigcache")),
        ("rustc_wrapper", if settings.cache { "sccache".into() } else { String::new() }),
        ("sourcedateepoch", settings.epoch.to_string()),
        ("pgo_stage", stage.name().into()),
        ("pgo_dir", guest::pgo_directory(&macros.target)),
        ("compiler_path", path),
    ];
    let texts = texts.into_iter().map(|(name, text)| (name.to_owned(), text));
    let tools = tools.values().map(|(name, text)| (name.to_owned(), text.to_owned()));
    texts.chain(tools).collect()
}

/// The programs of a toolchain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tools([(&'static str, &'static str); 14]);

impl Tools {
    pub(crate) fn of(toolchain: Toolchain, mold: bool) -> Self {
        let ld = match (mold, toolchain) {
            (true, _) => "ld.mold",
            (false, Toolchain::Llvm) => "ld.lld",
            (false, Toolchain::Gnu) => "ld.bfd",
        };
        Self(match toolchain {
            Toolchain::Llvm => [
                ("compiler_c", "clang"),
                ("compiler_cxx", "clang++"),
                ("compiler_cpp", "clang-cpp"),
                ("compiler_objc", "clang"),
                ("compiler_objcxx", "clang++"),
                ("compiler_objcpp", "clang-cpp"),
                ("compiler_objcxxcpp", "clang-cpp"),
                ("compiler_d", "ldc2"),
                ("compiler_ar", "llvm-ar"),
                ("compiler_ld", ld),
                ("compiler_nm", "llvm-nm"),
                ("compiler_objcopy", "llvm-objcopy"),
                ("compiler_ranlib", "llvm-ranlib"),
                ("compiler_strip", "llvm-strip"),
            ],
            Toolchain::Gnu => [
                ("compiler_c", "gcc"),
                ("compiler_cxx", "g++"),
                ("compiler_cpp", "gcc -E"),
                ("compiler_objc", "gcc"),
                ("compiler_objcxx", "g++"),
                ("compiler_objcpp", "gcc -E"),
                ("compiler_objcxxcpp", "g++ -E"),
                ("compiler_d", "ldc2"),
                ("compiler_ar", "gcc-ar"),
                ("compiler_ld", ld),
                ("compiler_nm", "gcc-nm"),
                ("compiler_objcopy", "objcopy"),
                ("compiler_ranlib", "gcc-ranlib"),
                ("compiler_strip", "strip"),
            ],
        })
    }

    fn values(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.0.into_iter()
    }

    /// The program with this name of a value, without `compiler_`.
    pub(crate) fn get(&self, name: &str) -> &'static str {
        let found = self.0.iter().find(|(own, _)| own.strip_prefix("compiler_") == Some(name));
        found.map_or("", |(_, program)| program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::macros::Macros;

    const RECIPE: &str = "\
name: demo
version: 1.2
release: 1
homepage: https://example.org
license: MIT
upstreams:
    - https://example.org/data.bin:
        hash: 1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        unpack: false
    - https://example.org/demo-1.2.tar.xz: 1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
environment: |
    export DEMO=%(version)
setup: |
    %configure
build: |
    %make
install: |
    %make_install
check: |
    %make check
";

    fn settings() -> Settings {
        let jobs = NonZeroUsize::new(3).expect("some");
        Settings { jobs, cache: false, check: true, epoch: 1_700_000_000 }
    }

    fn jobs_of(text: &str, settings: &Settings) -> Result<Vec<Job>, Vec<Problem>> {
        let recipe = Recipe::parse(text).expect("a recipe").recipe;
        let macros = Macros::standard();
        let of = |target: &Target| macros.of_target(target).expect("a target");
        let macros: Vec<_> = recipe.targets("x86_64").iter().map(of).collect();
        jobs(&recipe, &macros, settings)
    }

    fn shown(jobs: &[Job]) -> Vec<String> {
        let steps = |job: &Job| {
            job.steps.iter().map(|step| step.phase.name()).collect::<Vec<_>>().join(" ")
        };
        jobs.iter()
            .map(|job| format!("{} {}: {}", job.target, job.stage.name(), steps(job)))
            .collect()
    }

    #[test]
    fn a_job_has_the_scripts_of_its_phases() {
        let jobs = jobs_of(RECIPE, &settings()).expect("jobs");
        assert_eq!(shown(&jobs), ["x86_64 NONE: setup build install check"]);
        let job = &jobs[0];
        assert_eq!(job.work_directory, "/mason/build/x86_64/demo-1.2.tar.xz");
        let build = &job.steps[1];
        assert!(build.prefix.contains("SOURCE_DATE_EPOCH=\"1700000000\""), "{}", build.prefix);
        assert!(build.prefix.trim_end().ends_with("export DEMO=1.2"), "{}", build.prefix);
        assert!(build.prefix.contains("cd \"/mason/build/x86_64/demo-1.2.tar.xz\""));
        assert!(!build.prefix.contains("%("), "{}", build.prefix);
        let [Piece::Text(text)] = build.pieces.as_slice() else { panic!("{:?}", build.pieces) };
        assert_eq!(text.trim(), "make VERBOSE=1 V=1 --jobs=\"3\"");
        assert!(job.dependencies.contains("binary(make)"));
        assert!(job.dependencies.contains("binary(dash)"));
    }

    #[test]
    fn tests_can_be_left_out() {
        let settings = Settings { check: false, ..settings() };
        let jobs = jobs_of(RECIPE, &settings).expect("jobs");
        assert_eq!(shown(&jobs), ["x86_64 NONE: setup build install"]);
    }

    #[test]
    fn a_workload_trains_once_or_twice() {
        let with = |more: &str| {
            let text = format!("{RECIPE}workload: |\n    ./demo{more}\n");
            jobs_of(&text, &settings()).expect("jobs")
        };
        let jobs = with("");
        assert_eq!(
            shown(&jobs),
            ["x86_64 ONE: setup build workload", "x86_64 USE: setup build install check"]
        );
        let workload = Expanded { pieces: jobs[0].steps[2].pieces.clone(), ..Expanded::default() };
        assert!(workload.text().contains("./demo\n\nllvm-profdata merge"), "{}", workload.text());
        assert!(jobs[0].steps[0].prefix.contains("-fprofile-generate=/mason/build/x86_64-pgo/IR"));
        assert!(jobs[1].steps[0].prefix.contains("-fprofile-use=/mason/build/x86_64-pgo/combined"));
        let stages = |jobs: &[Job]| jobs.iter().map(|job| job.stage).collect::<Vec<_>>();
        let llvm = with("\ncspgo: true");
        assert_eq!(stages(&llvm), [Stage::One, Stage::Two, Stage::Use]);
        let gnu = with("\ncspgo: true\ntoolchain: gnu");
        assert_eq!(stages(&gnu), [Stage::One, Stage::Use]);
        assert!(gnu[0].steps[0].prefix.contains("-fprofile-generate=/mason/build/x86_64-pgo "));
    }

    #[test]
    fn the_emulation_comes_first() {
        let text =
            format!("{RECIPE}emul32: true\nprofiles:\n    - emul32:\n        check: \"true\"\n");
        let jobs = jobs_of(&text, &settings()).expect("jobs");
        assert_eq!(
            shown(&jobs),
            [
                "emul32/x86_64 NONE: setup build install check",
                "x86_64 NONE: setup build install check"
            ]
        );
        assert!(jobs[0].steps[0].prefix.contains("CC=\"clang -m32\""));
        assert_eq!(jobs[0].work_directory, "/mason/build/emul32/x86_64/demo-1.2.tar.xz");
    }

    #[test]
    fn mistakes_in_scripts_and_tuning_are_told_at_their_place() {
        let text = RECIPE.replace("%make\n", "%mkae\n    date +%Y\n").replace("%configure", "%(x");
        let problems = jobs_of(&text, &settings()).expect_err("mistakes");
        let shown: Vec<String> = problems.iter().map(|it| it.located(&text).to_string()).collect();
        assert_eq!(problems.len(), 2, "{shown:?}");
        assert!(shown[0].starts_with("14:5: error: \"%(\" has no \")\""), "{}", shown[0]);
        assert!(shown[1].starts_with("16:5: error: there is no action %mkae"), "{}", shown[1]);
        let text = format!("{RECIPE}tuning:\n    - lto: fat\n");
        let problems = jobs_of(&text, &settings()).expect_err("a mistake");
        let shown = problems[0].located(&text).to_string();
        assert!(
            shown.starts_with("22:7: error: the tuning group \"lto\" has no choice"),
            "{shown}"
        );
    }
}
