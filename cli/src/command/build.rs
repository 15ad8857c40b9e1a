//! `cairn build`: packages from recipes.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cairn_build::build::{self, Built, Observer, Part, Timing};
use cairn_build::fetch::FetchProgress;
use cairn_build::job::{Phase as BuildPhase, Stage};
use cairn_build::places::Places;
use cairn_build::recipe::Target;
use cairn_build::{Recipe, order, schedule, shell};
use cairn_package::apart::ApartRoot;
use cairn_package::plan;
use cairn_store::disk::directory_of;
use serde::Serialize;

use crate::build_root;
use crate::context::Context;
use crate::error::Error;
use crate::lines::Lines;
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};
use crate::progress::{Phase, Unit};
use crate::recipes::{self, MacroArgs};
use crate::units::{counted, duration, size};

/// Build packages from recipes
///
/// Upstreams are downloaded and compared with their hashes. What the recipe needs
/// is chosen from the repositories of the store, and is the root directory of the
/// build, which is read-only but for /mason. Scripts have no network unless the
/// recipe asks for it. Several recipes are built side by side, each after those
/// that it needs; after a failure no other one is begun.
///
/// When a script fails, everything stays as it is: `cairn build --shell` opens a
/// shell in there.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are options of a command line")]
pub(crate) struct Args {
    /// Recipes, or directories with a stone.yaml
    #[arg(value_name = "RECIPE", default_value = ".")]
    recipes: Vec<PathBuf>,
    /// Put the stones and manifests into this directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Put the stones into this directory, make it a repository, and add it to
    /// those of the store, so that the next build finds them
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    to: Option<PathBuf>,
    /// Open a shell where the recipe was built last
    #[arg(long, conflicts_with_all = ["to", "verify", "dry_run"])]
    shell: bool,
    /// Show what would be built with what, and build nothing
    #[arg(long)]
    dry_run: bool,
    /// Build so many recipes side by side where they do not need each other
    /// (default: half the number of processors)
    #[arg(long, value_name = "NUMBER")]
    parallel: Option<NonZeroUsize>,
    /// Run so many compilers side by side for each recipe (default: one a processor)
    #[arg(short, long, value_name = "NUMBER")]
    jobs: Option<NonZeroUsize>,
    /// Keep what was compiled with ccache, and use it again
    #[arg(short = 'c', long)]
    compiler_cache: bool,
    /// Leave the tests of programs out
    #[arg(long)]
    no_check: bool,
    /// Fail unless the packages are those of this manifest
    #[arg(long, value_name = "MANIFEST.bin")]
    verify: Option<PathBuf>,
    /// Which build of this release it is
    #[arg(short, long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    build_release: u64,
    /// Keep downloads and what is being built here (default: /var/cache/cairn for
    /// root, ~/.cache/cairn for others)
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    #[command(flatten)]
    macros: MacroArgs,
}

/// Everything that was built.
#[derive(Serialize)]
struct Done {
    recipes: Vec<OfRecipe>,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
}

#[derive(Serialize)]
struct OfRecipe {
    recipe: String,
    version: String,
    release: u64,
    packages: Vec<Package>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<String>,
    logs: String,
    root_packages: usize,
    timings: Vec<Timing>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Package {
    name: String,
    stone: String,
    bytes: u64,
    files: usize,
    depends: Vec<String>,
    provides: Vec<String>,
}

/// What would be built.
#[derive(Serialize)]
struct Planned(Vec<PlannedRecipe>);

#[derive(Serialize)]
struct PlannedRecipe {
    recipe: String,
    version: String,
    targets: Vec<String>,
    needs: Vec<String>,
}

/// A recipe that is to be built.
struct Wanted {
    file: PathBuf,
    text: String,
    recipe: Recipe,
}

pub(crate) fn run(
    args: &Args,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<ExitCode, Error> {
    let wanted = args.recipes.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let places = Places { cache: context.cache_path(args.cache_dir.clone())? };
    if args.shell {
        let [only] = wanted.as_slice() else { return Err(Error::OneRecipe) };
        let entry = shell::entry(&only.recipe, &places)?;
        return build_root::enter(&context.store_directory()?, &entry);
    }
    let needs = needs_of(&wanted)?;
    if args.dry_run {
        let macros = args.macros.load()?;
        let order = order::sort(&needs);
        let planned = order.iter().map(|at| plan_of(&wanted[*at], &macros, args));
        output.data(&Planned(planned.collect::<Result<_, Error>>()?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let begun = std::time::Instant::now();
    let processors = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let at_once = args.parallel.map_or(processors.get().div_ceil(2), NonZeroUsize::get);
    let at_once = NonZeroUsize::new(at_once.min(wanted.len())).unwrap_or(NonZeroUsize::MIN);
    let shared = processors.get().div_ceil(at_once.get());
    let set = Set {
        args,
        context,
        places: &places,
        jobs: args.jobs.or(NonZeroUsize::new(shared)).unwrap_or(NonZeroUsize::MIN),
        lines: &output.lines(),
        progress: output.progress(),
        is_crowded: at_once.get() > 1,
        turn: Mutex::default(),
    };
    let mut done = Done { recipes: Vec::new(), seconds: 0.0, repository: None };
    let ended = schedule::run(
        &needs,
        at_once,
        |at| set.build(&wanted[at]),
        |of_recipe| {
            if let Some(directory) = &args.to {
                let _turn = lock(&set.turn);
                done.repository = Some(build_root::offer(directory, context, output)?);
            }
            done.recipes.push(of_recipe);
            Ok(())
        },
    );
    if let Some((at, err)) = ended.failed {
        if wanted.len() > 1 {
            let built: Vec<&str> = done.recipes.iter().map(|it| it.recipe.as_str()).collect();
            let left: Vec<&str> = ended.left.iter().map(|at| &*wanted[*at].recipe.name).collect();
            let list = |names: &[&str]| match names {
                [] => "none".into(),
                names => names.join(", "),
            };
            output.status(format_args!("{} failed.", wanted[at].recipe.name));
            output.status(format_args!("Built: {}. Not begun: {}.", list(&built), list(&left)));
        }
        return Err(err);
    }
    done.seconds = begun.elapsed().as_secs_f64();
    output.data(&done)?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Wanted, Error> {
    let file = recipes::recipe_file(path);
    let text = cairn_build::recipe::read(&file)?;
    match Recipe::parse(&text) {
        Ok(checked) => Ok(Wanted { file, text, recipe: checked.recipe }),
        Err(problems) => {
            let problems = problems.iter().map(|problem| problem.located(&text)).collect();
            Err(cairn_build::Error::Recipe { path: file, problems }.into())
        }
    }
}

fn needs_of(wanted: &[Wanted]) -> Result<Vec<Vec<usize>>, Error> {
    let of = |it: &Wanted| {
        let directory = directory_of(&it.file);
        order::Node::new(&it.recipe, directory, std::env::consts::ARCH)
    };
    let nodes: Vec<order::Node> = wanted.iter().map(of).collect();
    Ok(order::needs(&nodes)?)
}

/// What the builds of several recipes share.
struct Set<'a> {
    args: &'a Args,
    context: &'a Context,
    places: &'a Places,
    jobs: NonZeroUsize,
    lines: &'a Lines,
    progress: crate::progress::Progress,
    /// Whether lines of several recipes come side by side.
    is_crowded: bool,
    /// Held by whoever writes to the store.
    turn: Mutex<()>,
}

impl Set<'_> {
    fn build(&self, wanted: &Wanted) -> Result<OfRecipe, Error> {
        let Self { args, context, .. } = self;
        let store = {
            let _turn = lock(&self.turn);
            context.store_or_new()?
        };
        let macros = args.macros.load()?;
        let to = args.to.as_ref().unwrap_or(&args.output);
        let failed = |source| Error::Write { path: to.clone(), source };
        std::fs::create_dir_all(to).map_err(failed)?;
        // The manifests of all recipes have the same name.
        let manifests = if args.to.is_some() || args.recipes.len() > 1 {
            to.join("manifests").join(&wanted.recipe.name)
        } else {
            to.clone()
        };
        std::fs::create_dir_all(&manifests).map_err(failed)?;
        let request = build::Request {
            file: &wanted.file,
            text: &wanted.text,
            macros: &macros,
            architecture: std::env::consts::ARCH,
            store: &store,
            repositories: context.repositories(&store),
            turn: &self.turn,
            places: self.places,
            jobs: self.jobs,
            cache: args.compiler_cache,
            check: !args.no_check,
            epoch: context.source_date_epoch(),
            build_release: args.build_release,
            output: to,
            manifests: &manifests,
            verify: args.verify.as_deref(),
            owner: crate::sys::user_and_group(),
        };
        let watcher = Watcher {
            lines: self.lines,
            progress: self.progress.clone(),
            name: wanted.recipe.name.clone(),
            is_crowded: self.is_crowded,
            current: Mutex::default(),
            warnings: Mutex::default(),
        };
        let enter = build_root::Helper { store: context.store_directory()? };
        let servers = build_root::Servers(context.network());
        let built = build::build(&request, &enter, &servers, &watcher);
        *lock(&watcher.current) = None;
        let warnings = watcher.warnings.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(OfRecipe::new(built?, warnings))
    }
}

fn plan_of(
    wanted: &Wanted,
    macros: &cairn_build::macros::Macros,
    args: &Args,
) -> Result<PlannedRecipe, Error> {
    let recipe = &wanted.recipe;
    let targets = recipe.targets(std::env::consts::ARCH);
    let of_target = |target: &Target| macros.of_target(target);
    let of_targets = targets.iter().map(of_target).collect::<Result<Vec<_>, _>>()?;
    let jobs = args.jobs.unwrap_or(NonZeroUsize::MIN);
    let (cache, check) = (args.compiler_cache, !args.no_check);
    let settings = cairn_build::job::Settings { jobs, cache, check, epoch: 0 };
    let located = |problems: Vec<cairn_build::problem::Problem>| cairn_build::Error::Recipe {
        path: wanted.file.clone(),
        problems: problems.iter().map(|problem| problem.located(&wanted.text)).collect(),
    };
    let jobs = cairn_build::job::jobs(recipe, &of_targets, &settings).map_err(located)?;
    let needs = cairn_build::needs::needs(recipe, &of_targets, &jobs, &settings, &[]);
    let needs = needs.map_err(|problem| located(vec![problem]))?;
    let words = |it: &Vec<cairn_package::Dependency>| {
        it.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
    };
    Ok(PlannedRecipe {
        recipe: recipe.name.clone(),
        version: recipe.version.clone(),
        targets: jobs
            .iter()
            .map(|job| match job.stage {
                Stage::Plain => job.target.to_string(),
                stage => format!("{} ({})", job.target, stage.name().to_lowercase()),
            })
            .collect(),
        needs: needs.iter().map(words).collect(),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows a build while it goes on.
struct Watcher<'a> {
    lines: &'a Lines,
    progress: crate::progress::Progress,
    name: String,
    is_crowded: bool,
    current: Mutex<Option<Phase>>,
    warnings: Mutex<Vec<String>>,
}

impl Watcher<'_> {
    fn show(&self, name: &str, total: Option<u64>, unit: Unit) {
        let mut current = lock(&self.current);
        // The bar before it goes first.
        *current = None;
        *current = Some(self.progress.phase(name, total, unit));
    }

    fn count(&self, number: u64) {
        if let Some(phase) = &*lock(&self.current) {
            phase.advance(number);
        }
    }
}

impl FetchProgress for Watcher<'_> {
    fn expect(&self, bytes: u64) {
        if let Some(phase) = &*lock(&self.current) {
            phase.expect_bytes(bytes);
        }
    }

    fn advance(&self, bytes: u64) {
        self.count(bytes);
    }

    fn lose(&self, bytes: u64) {
        if let Some(phase) = &*lock(&self.current) {
            phase.lose(bytes);
        }
    }

    fn note(&self, text: &str) {
        self.lines.line(Style::Note, "network", text);
    }
}

impl plan::Progress for Watcher<'_> {
    fn begin(&self, phase: plan::Phase, total: u64) {
        let (name, total, unit) = crate::transact::words_of(phase, total);
        self.show(name, total, unit);
    }

    fn advance(&self, count: u64) {
        self.count(count);
    }

    fn lose(&self, count: u64) {
        FetchProgress::lose(self, count);
    }
}

impl Observer for Watcher<'_> {
    fn part(&self, part: Part) {
        let (name, unit) = match part {
            Part::Fetch => ("Getting upstreams", Unit::Bytes),
            Part::Root => ("Choosing the build root", Unit::Pieces),
            Part::Unpack => ("Unpacking upstreams", Unit::Pieces),
            Part::Strip => ("Splitting debug information", Unit::Pieces),
            Part::Analyse => ("Analysing files", Unit::Pieces),
            Part::Emit => ("Making packages", Unit::Pieces),
        };
        self.show(name, None, unit);
    }

    fn root(&self, root: &ApartRoot) {
        let how = match (root.was_there, root.unpacked) {
            (true, _) => "was there".into(),
            (false, new) => format!("{} unpacked", counted(new, "package")),
        };
        let packages = counted(root.packages.len(), "package");
        let text = format!("build root of {packages}, {how}");
        self.lines.line(Style::Strong, &self.name, &text);
    }

    fn phase_begins(&self, target: &Target, stage: Stage, phase: BuildPhase) {
        *lock(&self.current) = None;
        let stage = match stage {
            Stage::Plain => String::new(),
            stage => format!(", stage {}", stage.name().to_lowercase()),
        };
        self.lines.line(Style::Strong, &self.name, &format!("{phase} for {target}{stage}"));
    }

    fn line(&self, phase: BuildPhase, line: &[u8]) {
        if self.is_crowded {
            self.lines.raw(&format!("{} {phase}", self.name), line);
        } else {
            self.lines.raw(phase.name(), line);
        }
    }

    fn phase_ended(&self, phase: BuildPhase, code: i32, time: Duration) {
        let (style, how) = match code {
            0 => (Style::Good, "done".to_owned()),
            code => (Style::Bad, format!("failed with exit code {code}")),
        };
        let text = format!("{phase} {how} ({})", duration(time));
        self.lines.line(style, &self.name, &text);
    }

    fn pause(&self, paused: bool) {
        self.lines.pause(paused);
    }

    fn warn(&self, warning: &str) {
        self.lines.line(Style::Note, "warning", warning);
        lock(&self.warnings).push(warning.into());
    }
}

impl OfRecipe {
    fn new(built: Built, warnings: Vec<String>) -> Self {
        let package = |it: &cairn_build::emit::Emitted| Package {
            name: it.metadata.name.clone(),
            stone: it.path.display().to_string(),
            bytes: it.size,
            files: it.layout.len(),
            depends: it.metadata.depends.iter().map(ToString::to_string).collect(),
            provides: it.metadata.provides.iter().map(ToString::to_string).collect(),
        };
        Self {
            packages: built.packages.iter().map(package).collect(),
            manifest: built.manifest.map(|path| path.display().to_string()),
            logs: built.logs.display().to_string(),
            root_packages: built.root_packages,
            timings: built.timings,
            recipe: built.recipe.name,
            version: built.recipe.version,
            release: built.recipe.release,
            warnings,
        }
    }
}

impl View for Done {
    fn show(&self, page: &mut Page) {
        for of in &self.recipes {
            page.title(format_args!("{} {}-{}", of.recipe, of.version, of.release));
            let row = |it: &Package| {
                vec![
                    Cell::new(&it.name).style(Style::Strong),
                    Cell::right(size(it.bytes)),
                    Cell::right(counted(it.files, "entry").replace("entrys", "entries")),
                    Cell::new(&it.stone).style(Style::Faint),
                ]
            };
            page.table(2, &of.packages.iter().map(row).collect::<Vec<_>>());
            let all: f64 = of.timings.iter().map(|it| it.seconds).sum();
            let row = |it: &Timing| {
                let share = if all > 0.0 { 100.0 * it.seconds / all } else { 0.0 };
                vec![
                    Cell::new(&it.what),
                    Cell::right(duration(Duration::from_secs_f64(it.seconds))),
                    Cell::right(format!("{share:.0} %")).style(Style::Faint),
                ]
            };
            page.table(2, &of.timings.iter().map(row).collect::<Vec<_>>());
            page.line(format_args!("  Logs: {}", of.logs));
        }
        if let Some(name) = &self.repository {
            page.line(format_args!("The repository {name} offers them."));
        }
    }
}

impl View for Planned {
    fn show(&self, page: &mut Page) {
        for PlannedRecipe { recipe, version, targets, needs } in &self.0 {
            page.title(format_args!("{recipe} {version}"));
            page.line(format_args!("  Targets: {}", targets.join(", ")));
            page.wrapped(2, "  Needs: ", &needs.join(", "));
        }
    }
}
