//! Builds a recipe: upstreams, build root, phases, packages.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_fs::Bind;
use cairn_package::apart::ApartRoot;
use cairn_package::plan::Progress;
use cairn_package::repository::Repositories;
use cairn_store::Store;
use serde::Serialize;

use crate::analyse::{self, Analysis, Dropped};
use crate::collect::collect;
use crate::emit::{Emission, Emitted};
use crate::enter::{Act, Enter, Entry, Heard, driver, listen};
use crate::error::{Error, Result};
use crate::fetch::{self, Download, FetchProgress, Fetched};
use crate::guest;
use crate::job::{self, Job, Phase, Settings, Stage};
use crate::macros::{Expander, Macros, Piece, TargetMacros};
use crate::manpage;
use crate::needs::needs;
use crate::package::Definitions;
use crate::places::{Places, Work};
use crate::problem::Problem;
use crate::recipe::{Recipe, Target, Toolchain, Upstream};
use crate::root::{self, RootTree};
use crate::strip;

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
    run.warn_of(&analysis, &definitions);
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
struct Clock {
    begun: Instant,
    timings: Vec<Timing>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { begun: Instant::now(), timings: Vec::new() }
    }
}

impl Clock {
    fn lap(&mut self, what: &str) {
        self.add(what, self.begun.elapsed());
        self.begun = Instant::now();
    }

    fn add(&mut self, what: &str, time: Duration) {
        self.timings.push(Timing { what: what.into(), seconds: time.as_secs_f64() });
    }
}

/// The time of a recipe, so that its packages are the same whenever they are
/// built: that of its last change in git, else of the newest file in its first
/// upstream.
fn time_of(file: &Path, recipe: &Recipe, fetched: &[Fetched]) -> u64 {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
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

/// The middle of a build.
struct Run<'a> {
    request: &'a Request<'a>,
    recipe: &'a Recipe,
    root: &'a ApartRoot,
    work: &'a Work,
    enter: &'a dyn Enter,
    observer: &'a dyn Observer,
}

impl Run<'_> {
    fn entry(&self, command: Vec<String>, directory: &str) -> Result<Entry> {
        let bind = |from: PathBuf, to: &str, writable: bool| Bind { from, to: to.into(), writable };
        let recipe = match self.request.file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let recipe = recipe.canonicalize().map_err(Error::io(recipe))?;
        let mut binds = vec![
            bind(recipe, &guest::below(guest::RECIPE), false),
            bind(self.work.at("sources"), &guest::below(guest::SOURCES), false),
            bind(self.work.at("build"), &guest::below(guest::BUILD), true),
            bind(self.work.at("install"), &guest::below(guest::INSTALL), true),
            bind(self.work.at("tmp"), "/tmp", true),
        ];
        if self.request.cache {
            let caches = self.request.places.caches()?.into_iter();
            binds.extend(caches.map(|(from, to)| bind(from, &to, true)));
        }
        Ok(Entry {
            state: self.root.state.id.0,
            command,
            environment: vec![
                ("HOME".into(), guest::below(guest::BUILD)),
                ("PATH".into(), "/usr/bin:/usr/sbin".into()),
            ],
            binds,
            network: self.recipe.options.networking,
            directory: directory.into(),
            stage: self.work.at("control/stage"),
        })
    }

    /// Where a script lies; `tmp` is bound to /tmp.
    fn write_script(&self, name: &str, text: &str) -> Result<String> {
        let directory = self.work.at("tmp/.cairn");
        fs::create_dir_all(&directory).map_err(Error::io(&directory))?;
        let path = directory.join(name);
        fs::write(&path, text).map_err(Error::io(&path))?;
        Ok(format!("{}/{name}", guest::CONTROL))
    }

    /// Lets the compilers of the toolchain be those of ccache, which looks for the
    /// real ones further on in PATH: not every ccache comes with such links.
    fn link_compilers(&self) -> Result<()> {
        let directory = self.work.at("tmp/.cairn/ccache");
        fs::create_dir_all(&directory).map_err(Error::io(&directory))?;
        let names: &[&str] = match self.recipe.options.toolchain {
            Toolchain::Llvm => &["clang", "clang++"],
            Toolchain::Gnu => &["gcc", "g++", "cc", "c++"],
        };
        for name in names {
            let path = directory.join(name);
            std::os::unix::fs::symlink("/usr/bin/ccache", &path).map_err(Error::io(&path))?;
        }
        Ok(())
    }

    /// What a shell in the build root knows: a function `a_NAME` of each action, a
    /// variable `d_NAME` of each definition; and how to enter it.
    fn write_shell_files(&self, expander: &Expander, jobs: &[Job]) -> Result<()> {
        let mut text = String::from("PS1='(build) \\w \\$ '\n");
        if let Some(step) = jobs.iter().flat_map(|job| &job.steps).next() {
            // It is for people: without the trace, and without the end at an error.
            text.push_str("set() { :; }\n");
            text.push_str(&step.prefix);
            text.push_str("\nunset -f set\n");
        }
        for name in expander.definitions.keys() {
            if let Ok(value) = expander.text(&format!("%({name})")) {
                text.push_str(&format!("d_{name}={}\n", strip::quote(&value)));
            }
        }
        for name in expander.actions.keys().filter(|name| *name != "scriptBase") {
            if let Ok(expanded) = expander.script(&format!("%{name}")) {
                // What is wrong with one of them concerns nobody who does not use it.
                let command = expanded.text();
                let command = command.trim_end();
                let takes_more =
                    !["fi", "done", "esac", "}"].iter().any(|it| command.ends_with(it));
                let command = if takes_more { format!("{command} \"$@\"") } else { command.into() };
                text.push_str(&format!("a_{name}() {{ eval {}; }}\n", strip::quote(&command)));
            }
        }
        let path = self.work.at("control/shellrc");
        fs::write(&path, text).map_err(Error::io(&path))?;
        let directory = jobs.last().map_or("/", |job| job.work_directory.as_str());
        let rc = format!("{}/shellrc", guest::CONTROL);
        let command = ["/usr/bin/bash", "--rcfile", &rc, "-i"].map(String::from).to_vec();
        let entry = self.entry(command, directory)?;
        let path = self.work.at("control/shell.json");
        let json = serde_json::to_vec_pretty(&entry).expect("texts and paths");
        fs::write(&path, json).map_err(Error::io(&path))
    }

    /// Runs all phases of a job.
    fn job(&self, job: &Job, fetched: &[Fetched], clock: &mut Clock) -> Result<()> {
        self.observer.part(Part::Unpack);
        let target = job.target.to_string();
        let relative = format!("build/{target}");
        self.work.empty(&relative)?;
        let pgo = self.work.at(&format!("build/{target}-pgo"));
        fs::create_dir_all(&pgo).map_err(Error::io(&pgo))?;
        let foreign = fetch::unpack_all(&self.recipe.upstreams, fetched, &self.work.at(&relative))?;
        let inside = guest::build_directory(&job.target);
        let mut acts = Vec::new();
        let shell_rc = self.work.at("control/shellrc");
        let shell_rc = fs::read_to_string(&shell_rc).map_err(Error::io(&shell_rc))?;
        let shell_rc = self.write_script("shellrc", &shell_rc)?;
        let mut number = 0;
        for (step, it) in job.steps.iter().enumerate() {
            if step == 0 && !foreign.is_empty() {
                let mut text = String::from("set -e -u\nPATH=/usr/bin:/bin\n");
                for archive in &foreign {
                    let to = format!("{inside}/{}", archive.unpack.as_deref().unwrap_or_default());
                    let from = format!("{}/{}", guest::below(guest::SOURCES), archive.name);
                    let (to, from) = (strip::quote(&to), strip::quote(&from));
                    text.push_str(&format!(
                        "mkdir -p {to}\nbsdtar -x -f {from} -C {to} --no-same-owner --strip-components {}\n",
                        archive.strip
                    ));
                }
                let path = self.write_script("unpack", &text)?;
                acts.push(Act::Script { step, path });
            }
            for piece in &it.pieces {
                match piece {
                    Piece::Breakpoint { goes_on } => {
                        acts.push(Act::Breakpoint { step, goes_on: *goes_on });
                    }
                    Piece::Text(text) if text.trim().is_empty() => {}
                    Piece::Text(text) => {
                        let script = format!("{}\n{text}\n", it.prefix);
                        let path = self.write_script(&format!("{number}-{}", it.phase), &script)?;
                        acts.push(Act::Script { step, path });
                        number += 1;
                    }
                }
            }
        }
        clock.lap(&format!("{target} unpack"));
        if acts.is_empty() {
            return Ok(());
        }
        let phases: Vec<Phase> = job.steps.iter().map(|step| step.phase).collect();
        self.drive(&acts, &shell_rc, Some(job), &phases, &inside, clock)?;
        Ok(())
    }

    /// Runs a driver with these acts; gives what was said outside of any log.
    fn drive(
        &self,
        acts: &[Act],
        shell_rc: &str,
        job: Option<&Job>,
        phases: &[Phase],
        directory: &str,
        clock: &mut Clock,
    ) -> Result<()> {
        let token = format!("{:016x}", token());
        let path = self.write_script("driver", &driver(acts, &token, shell_rc))?;
        let entry = self.entry(vec!["/usr/bin/bash".into(), path], directory)?;
        let mut entered = self.enter.start(&entry).map_err(|source| Error::Enter { source })?;
        let mut logs = Logs { directory: self.work.at("logs"), open: None, last: Vec::new() };
        let mut failed = None;
        let mut running = None;
        listen(entered.output(), &token, |heard| match heard {
            Heard::Begin(step) => {
                let (Some(job), Some(phase)) = (job, phases.get(step)) else { return };
                running = Some(*phase);
                logs.begin(job, *phase);
                self.observer.phase_begins(&job.target, job.stage, *phase);
            }
            Heard::Line(line) => {
                logs.line(&line);
                if let Some(phase) = running {
                    self.observer.line(phase, &line);
                }
            }
            Heard::End(step, code, time) => {
                running = None;
                let (Some(job), Some(phase)) = (job, phases.get(step)) else { return };
                let stage = match job.stage {
                    Stage::Plain => String::new(),
                    stage => format!(" ({})", stage.name().to_lowercase()),
                };
                clock.add(&format!("{} {phase}{stage}", job.target), time);
                self.observer.phase_ended(*phase, code, time);
                if code != 0 {
                    failed = Some((*phase, code));
                }
            }
            Heard::Pause(paused) => self.observer.pause(paused),
        });
        let code = entered.wait().map_err(|source| Error::Enter { source })?;
        clock.begun = Instant::now();
        match (failed, code) {
            (Some((phase, code)), _) => Err(Error::PhaseFailed {
                phase: phase.name(),
                code,
                log: logs.open.map(|(path, _)| path).unwrap_or_default(),
            }),
            (None, 0) => Ok(()),
            (None, code) => Err(Error::Interrupted {
                code,
                said: String::from_utf8_lossy(&logs.last).trim().to_owned(),
            }),
        }
    }

    /// Splits and strips the ELF files of the install root with tools of the
    /// build root.
    fn strip(&self) -> Result<()> {
        let files = collect(&self.work.at("install"), self.request.owner)?;
        let Some(script) = strip::script(&files, &self.recipe.options, self.request.jobs)? else {
            return Ok(());
        };
        let path = self.write_script("strip", &script)?;
        let entry = self.entry(vec!["/usr/bin/bash".into(), path], "/")?;
        let mut entered = self.enter.start(&entry).map_err(|source| Error::Enter { source })?;
        let mut said = Vec::new();
        listen(entered.output(), "", |heard| {
            if let Heard::Line(line) = heard {
                said.push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        let code = entered.wait().map_err(|source| Error::Enter { source })?;
        for line in &said {
            self.observer.warn(&format!("while stripping: {line}"));
        }
        if code == 0 { Ok(()) } else { Err(Error::Interrupted { code, said: said.join("; ") }) }
    }

    /// Tells of files and rules that have no effect.
    fn warn_of(&self, analysis: &Analysis, definitions: &Definitions) {
        let mut outside: BTreeMap<String, usize> = BTreeMap::new();
        for (path, reason) in &analysis.dropped {
            match reason {
                Dropped::OutsideOfUsr => {
                    let top = path.split('/').nth(1).unwrap_or_default();
                    *outside.entry(format!("/{top}")).or_default() += 1;
                }
                Dropped::Libtool => {}
                Dropped::NoPackage => {
                    self.observer.warn(&format!("{path} belongs to no package"));
                }
            }
        }
        for (top, count) in outside {
            self.observer.warn(&format!(
                "{count} of the installed files lie in {top} and are left out: packages have nothing outside of /usr"
            ));
        }
        for (glob, span) in definitions.unused_rules(&analysis.used_rules) {
            let problem = Problem::warning(span, format!("{glob:?} matches none of the files"));
            let located = problem.located(self.request.text);
            self.observer.warn(&format!("{}:{located}", self.request.file.display()));
        }
    }
}

/// A number that nobody else knows.
fn token() -> u64 {
    use std::hash::{BuildHasher, Hasher};

    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// What each phase says, in a file of its own.
struct Logs {
    directory: PathBuf,
    open: Option<(PathBuf, File)>,
    last: Vec<u8>,
}

impl Logs {
    fn begin(&mut self, job: &Job, phase: Phase) {
        let target = job.target.to_string().replace('/', "-");
        let stage = match job.stage {
            Stage::Plain => String::new(),
            stage => format!("-{}", stage.name().to_lowercase()),
        };
        let path = self.directory.join(format!("{target}{stage}-{phase}.log"));
        // A log that cannot be written is no reason to fail.
        self.open = File::create(&path).ok().map(|file| (path, file));
    }

    fn line(&mut self, line: &[u8]) {
        if !line.is_empty() {
            self.last = line.to_vec();
        }
        if let Some((_, file)) = &mut self.open {
            let _ = file.write_all(line).and_then(|()| file.write_all(b"\n"));
        }
    }
}

/// How the build root of a recipe that was built before is entered by people.
///
/// # Errors
/// [`Error::NotBuilt`]: it was never built, or has been cleaned away.
pub fn shell(recipe: &Recipe, places: &Places) -> Result<Entry> {
    let work = places.work_path(recipe);
    let path = work.join("control/shell.json");
    let not_built = || Error::NotBuilt { recipe: recipe.name.clone() };
    let bytes = fs::read(&path).map_err(|_| not_built())?;
    let mut entry: Entry = serde_json::from_slice(&bytes).map_err(|_| not_built())?;
    // The work directory is gone after a build that ended well.
    let inside = entry.directory.strip_prefix("/mason/").unwrap_or_default();
    if !work.join(inside).is_dir() {
        entry.directory = guest::below(guest::BUILD);
    }
    let rc = work.join("control/shellrc");
    let to = work.join("tmp/.cairn");
    fs::create_dir_all(&to).map_err(Error::io(&to))?;
    fs::copy(&rc, to.join("shellrc")).map_err(Error::io(&rc))?;
    Ok(entry)
}
