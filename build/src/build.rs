//! Builds a recipe: upstreams, build root, phases, packages.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_package::apart::ApartRoot;
use cairn_package::plan::Progress;
use cairn_package::repository::Repositories;
use cairn_store::Store;
use cairn_store::disk::directory_of;
use serde::Serialize;

use crate::analyse::{self, Analysis, Dropped};
use crate::collect::collect;
use crate::emit::{Emission, Emitted};
use crate::enter::Enter;
use crate::error::{Error, Result};
use crate::fetch::{self, Download, FetchProgress, Fetched};
use crate::job::{self, Phase, Settings, Stage};
use crate::macros::{Macros, TargetMacros};
use crate::manpage;
use crate::needs::needs;
use crate::package::Definitions;
use crate::places::Places;
use crate::problem::Problem;
use crate::recipe::{Recipe, Target, Upstream};
use crate::root::{self, RootTree};
use crate::run::Run;

/// Everything that a build is told.
#[derive(Debug)]
pub struct Request<'a> {
    /// The file of the recipe.
    pub file: &'a Path,
    /// Its text.
    pub text: &'a str,
    /// What its macros mean.
    pub macros: &'a Macros,
    /// The machine for which it is built, which is this one.
    pub architecture: &'a str,
    /// Where repositories are configured and build roots are made.
    pub store: &'a Store,
    /// The repositories of the store.
    pub repositories: Repositories,
    /// Held while the store is written to, which one can do at a time.
    pub turn: &'a Mutex<()>,
    /// Where builds keep what they need.
    pub places: &'a Places,
    /// How much runs side by side.
    pub jobs: NonZeroUsize,
    /// Whether compilers keep what they have compiled.
    pub cache: bool,
    /// Whether programs are tested.
    pub check: bool,
    /// The time of everything, if it is to be another than that of the recipe.
    pub epoch: Option<u64>,
    /// Which build of this release it is.
    pub build_release: u64,
    /// Where the stones go.
    pub output: &'a Path,
    /// Where the manifests go.
    pub manifests: &'a Path,
    /// A manifest that the packages must be those of.
    pub verify: Option<&'a Path>,
    /// The user and group of this process.
    pub owner: (u32, u32),
}

/// Is told how a build goes on.
pub trait Observer: FetchProgress + Progress {
    /// A part of the build begins that has no output of its own.
    fn part(&self, part: Part);
    /// The build root is there.
    fn root(&self, root: &ApartRoot);
    /// A phase of a job begins.
    fn phase_begins(&self, target: &Target, stage: Stage, phase: Phase);
    /// A phase has said something.
    fn line(&self, phase: Phase, line: &[u8]);
    /// A phase has ended.
    fn phase_ended(&self, phase: Phase, code: i32, time: Duration);
    /// Somebody has the terminal, or gives it back.
    fn pause(&self, _paused: bool) {}
    /// Something that the packager should look at.
    fn warn(&self, warning: &str);
}

/// A part of a build that has no script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "they are steps of a build")]
pub enum Part {
    Fetch,
    Root,
    Unpack,
    Strip,
    Analyse,
    Emit,
}

/// How long something took.
#[derive(Clone, Debug, Serialize)]
pub struct Timing {
    /// What: a part, or `target phase`.
    pub what: String,
    /// How long.
    pub seconds: f64,
}

/// A build that has ended well.
#[derive(Debug)]
pub struct Built {
    /// The recipe.
    pub recipe: Recipe,
    /// The packages, by name.
    pub packages: Vec<Emitted>,
    /// The manifest.
    pub manifest: Option<PathBuf>,
    /// Where the logs are.
    pub logs: PathBuf,
    /// How long each part took.
    pub timings: Vec<Timing>,
    /// Packages of the build root.
    pub root_packages: usize,
}

/// Builds a recipe.
///
/// # Errors
/// Those of all parts; [`Error::PhaseFailed`] when a script fails. What is in
/// the work directory then stays, to be looked at.
pub fn build(
    request: &Request<'_>,
    enter: &dyn Enter,
    download: &dyn Download,
    observer: &dyn Observer,
) -> Result<Built> {
    let located = |problems: Vec<Problem>| Error::Recipe {
        path: request.file.into(),
        problems: problems.iter().map(|it| it.located(request.text)).collect(),
    };
    let checked = Recipe::parse(request.text).map_err(located)?;
    for warning in &checked.warnings {
        observer.warn(&format!("{}:{}", request.file.display(), warning.located(request.text)));
    }
    let recipe = checked.recipe;
    let of = |target: &Target| request.macros.of_target(target);
    let targets = recipe.targets(request.architecture);
    let macros = targets.iter().map(of).collect::<Result<Vec<TargetMacros>, _>>()?;
    let native = match macros.last() {
        Some(native) => native,
        None => {
            let message = format!("the recipe is not for {}", request.architecture);
            return Err(located(vec![Problem::error(Default::default(), message)]));
        }
    };
    let mut clock = Clock::default();
    let work = request.places.work(&recipe)?;

    // What is wrong with scripts is told before anything is downloaded.
    let draft =
        Settings { jobs: request.jobs, cache: request.cache, check: request.check, epoch: 0 };
    job::jobs(&recipe, &macros, &draft).map_err(located)?;
    let expander = job::expander(&recipe, native, Stage::Plain, &draft);
    let expander = expander.map_err(|problem| located(vec![problem]))?;
    let definitions = Definitions::new(&recipe, native, &expander).map_err(located)?;

    observer.part(Part::Fetch);
    let fetched = fetch::fetch_all(&recipe.upstreams, request.places, download, observer)?;
    fetch::lay_out(&recipe.upstreams, &fetched, &work)?;
    clock.lap("fetch");
    let epoch = match request.epoch {
        Some(epoch) => epoch,
        None => time_of(request.file, &recipe, &fetched),
    };
    let settings = Settings { epoch, ..draft };
    let jobs = job::jobs(&recipe, &macros, &settings).map_err(located)?;

    observer.part(Part::Root);
    let foreign = foreign_suffixes(&recipe.upstreams, &fetched)?;
    let needs = needs(&recipe, &macros, &jobs, &settings, &foreign);
    let needs = needs.map_err(|problem| located(vec![problem]))?;
    let purpose = format!("build root of {} {}", recipe.name, recipe.version);
    let turn = request.turn.lock().unwrap_or_else(PoisonError::into_inner);
    let root = root::make(request.store, request.repositories.clone(), &needs, &purpose, observer)?;
    drop(turn);
    observer.root(&root);
    clock.lap("build root");

    work.empty("install")?;
    work.empty("logs")?;
    work.empty("tmp")?;
    let run = Run { request, recipe: &recipe, root: &root, work: &work, enter, observer };
    if request.cache {
        run.link_compilers()?;
    }
    run.write_shell_files(&expander, &jobs)?;
    for job in &jobs {
        run.job(job, &fetched, &mut clock)?;
    }

    observer.part(Part::Strip);
    let install = work.at("install");
    if recipe.options.compressman {
        manpage::compress(&collect(&install, request.owner)?)?;
    }
    run.strip()?;
    clock.lap("strip");

    observer.part(Part::Analyse);
    let files = collect(&install, request.owner)?;
    let tree = RootTree { from: request.store, tree: root.state.tree };
    let analysis = analyse::analyse(files, &definitions, &recipe.options, &tree)?;
    warn_of(&analysis, &definitions, request, observer);
    clock.lap("analyse");

    observer.part(Part::Emit);
    let emission = Emission {
        recipe: &recipe,
        definitions: &definitions,
        architecture: request.architecture,
        build_release: request.build_release,
        epoch,
        threads: request.jobs,
    };
    let packages = emission.stones(&analysis, request.output)?;
    let manifest = match request.verify {
        Some(kept) => {
            emission.verify(&packages, kept)?;
            None
        }
        None => Some(emission.manifests(&packages, request.manifests)?),
    };
    clock.lap("emit");

    // What was built is in the stones now; the logs stay.
    for name in ["build", "install", "tmp"] {
        work.empty(name)?;
    }
    Ok(Built {
        packages,
        manifest,
        logs: work.at("logs"),
        timings: clock.timings,
        root_packages: root.packages.len(),
        recipe,
    })
}

/// Measures one part after the other.
pub(crate) struct Clock {
    pub(crate) begun: Instant,
    timings: Vec<Timing>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { begun: Instant::now(), timings: Vec::new() }
    }
}

impl Clock {
    pub(crate) fn lap(&mut self, what: &str) {
        self.add(what, self.begun.elapsed());
        self.begun = Instant::now();
    }

    pub(crate) fn add(&mut self, what: &str, time: Duration) {
        self.timings.push(Timing { what: what.into(), seconds: time.as_secs_f64() });
    }
}

/// The time of a recipe, so that its packages are the same whenever they are
/// built: that of its last change in git, else of the newest file in its first
/// upstream.
fn time_of(file: &Path, recipe: &Recipe, fetched: &[Fetched]) -> u64 {
    let directory = directory_of(file);
    let committed = std::process::Command::new("git")
        .args(["log", "-1", "--format=%at", "--"])
        .arg(file.file_name().unwrap_or_default())
        .current_dir(directory)
        .stdin(std::process::Stdio::null())
        .output()
        .ok()
        .and_then(|output| String::from_utf8_lossy(&output.stdout).trim().parse().ok());
    let of_upstream = || {
        let pairs = recipe.upstreams.iter().zip(fetched);
        pairs
            .filter_map(|(upstream, fetched)| match upstream {
                Upstream::Archive(_) => crate::archive::newest(&fetched.path),
                Upstream::Git(_) => None,
            })
            .next()
    };
    // Without a time of its own, that of the first day of a good year.
    committed.or_else(of_upstream).unwrap_or(1_577_836_800)
}

/// Suffixes of archives that nothing here can unpack.
fn foreign_suffixes(upstreams: &[Upstream], fetched: &[Fetched]) -> Result<Vec<String>> {
    let mut suffixes = Vec::new();
    for (upstream, fetched) in upstreams.iter().zip(fetched) {
        let Upstream::Archive(archive) = upstream else { continue };
        let kind = crate::archive::kind_of(&fetched.path).map_err(Error::io(&fetched.path))?;
        if archive.unpack.is_some() && kind.is_none() {
            suffixes.extend(archive.name.rsplit_once('.').map(|(_, suffix)| suffix.to_owned()));
        }
    }
    Ok(suffixes)
}

/// Tells of files and rules that have no effect.
fn warn_of(
    analysis: &Analysis,
    definitions: &Definitions,
    request: &Request<'_>,
    observer: &dyn Observer,
) {
    let mut outside: BTreeMap<String, usize> = BTreeMap::new();
    for (path, reason) in &analysis.dropped {
        match reason {
            Dropped::OutsideOfUsr => {
                let top = path.split('/').nth(1).unwrap_or_default();
                *outside.entry(format!("/{top}")).or_default() += 1;
            }
            Dropped::Libtool => {}
            Dropped::NoPackage => {
                observer.warn(&format!("{path} belongs to no package"));
            }
        }
    }
    for (top, count) in outside {
        observer.warn(&format!(
            "{count} of the installed files lie in {top} and are left out: packages have nothing outside of /usr"
        ));
    }
    for (glob, span) in definitions.unused_rules(&analysis.used_rules) {
        let problem = Problem::warning(span, format!("{glob:?} matches none of the files"));
        let located = problem.located(request.text);
        observer.warn(&format!("{}:{located}", request.file.display()));
    }
}
