//! Runs the scripts of a build in its root, and keeps what they say.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use cairn_fs::Bind;
use cairn_package::apart::ApartRoot;
use cairn_store::disk::directory_of;

use crate::build::{Clock, Observer, Part, Request};
use crate::collect::collect;
use crate::enter::{Act, Enter, Entry, Heard, driver, listen};
use crate::error::{Error, Result};
use crate::fetch::{self, Fetched};
use crate::guest;
use crate::job::{Job, Phase, Stage};
use crate::macros::Piece;
use crate::places::Work;
use crate::recipe::{Recipe, Toolchain};
use crate::strip;

/// The middle of a build.
pub(crate) struct Run<'a> {
    pub(crate) request: &'a Request<'a>,
    pub(crate) recipe: &'a Recipe,
    pub(crate) root: &'a ApartRoot,
    pub(crate) work: &'a Work,
    pub(crate) enter: &'a dyn Enter,
    pub(crate) observer: &'a dyn Observer,
}

impl Run<'_> {
    pub(crate) fn entry(&self, command: Vec<String>, directory: &str) -> Result<Entry> {
        let bind = |from: PathBuf, to: &str, writable: bool| Bind { from, to: to.into(), writable };
        let recipe = directory_of(self.request.file);
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
    pub(crate) fn write_script(&self, name: &str, text: &str) -> Result<String> {
        let directory = self.work.at("tmp/.cairn");
        fs::create_dir_all(&directory).map_err(Error::io(&directory))?;
        let path = directory.join(name);
        fs::write(&path, text).map_err(Error::io(&path))?;
        Ok(format!("{}/{name}", guest::CONTROL))
    }

    /// Lets the compilers of the toolchain be those of ccache, which looks for the
    /// real ones further on in PATH: not every ccache comes with such links.
    pub(crate) fn link_compilers(&self) -> Result<()> {
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

    /// Runs all phases of a job.
    pub(crate) fn job(&self, job: &Job, fetched: &[Fetched], clock: &mut Clock) -> Result<()> {
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
        self.drive(&acts, &shell_rc, job, &inside, clock)
    }

    /// Runs a driver with the acts of a job.
    fn drive(
        &self,
        acts: &[Act],
        shell_rc: &str,
        job: &Job,
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
                let Some(phase) = job.steps.get(step).map(|it| it.phase) else { return };
                running = Some(phase);
                logs.begin(job, phase);
                self.observer.phase_begins(&job.target, job.stage, phase);
            }
            Heard::Line(line) => {
                logs.line(&line);
                if let Some(phase) = running {
                    self.observer.line(phase, &line);
                }
            }
            Heard::End(step, code, time) => {
                running = None;
                let Some(phase) = job.steps.get(step).map(|it| it.phase) else { return };
                let stage = match job.stage {
                    Stage::Plain => String::new(),
                    stage => format!(" ({})", stage.name().to_lowercase()),
                };
                clock.add(&format!("{} {phase}{stage}", job.target), time);
                self.observer.phase_ended(phase, code, time);
                if code != 0 {
                    failed = Some((phase, code));
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
    pub(crate) fn strip(&self) -> Result<()> {
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
