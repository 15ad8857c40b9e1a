//! Small worlds, written as text.

use std::sync::Arc;

use crate::catalog::Catalog;
use crate::dependency::Dependency;
use crate::metadata::{Location, Metadata};
use crate::solve::{
    Candidate, Direction, Installed, Problem, Reason, Request, Solution, Source, Universe, Upgrade,
    solve,
};

/// Reads a package: `name:release`, and what it `needs`, `offers` and is
/// `against`. The whole text stands in for the hash.
pub(super) fn package(text: &str) -> Metadata {
    let mut words = text.split_whitespace();
    let (name, release) = words.next().and_then(|word| word.split_once(':')).expect("name:release");
    let mut package = Metadata {
        name: name.into(),
        version: release.into(),
        release: release.parse().expect("a number"),
        location: Some(Location { hash: text.into(), size: 1, ..Location::default() }),
        ..Metadata::default()
    };
    let mut set = &mut package.depends;
    for word in words {
        match word {
            "needs" => set = &mut package.depends,
            "offers" => set = &mut package.provides,
            "against" => set = &mut package.conflicts,
            _ => drop(set.insert(word.parse().expect("a dependency"))),
        }
    }
    package
}

/// What there is: one package a line.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    /// Those that begin with `*` are there because somebody asked for them.
    pub(super) installed: Vec<String>,
    /// Name and priority of each repository, and its packages.
    pub(super) repositories: Vec<(String, u64, Vec<String>)>,
    pub(super) files: Vec<String>,
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.trim().to_string()).filter(|line| !line.is_empty()).collect()
}

impl World {
    pub(super) fn new(installed: &str, repository: &str) -> Self {
        Self { installed: lines(installed), ..Self::default() }.and("main", 0, repository)
    }

    pub(super) fn and(mut self, name: &str, priority: u64, packages: &str) -> Self {
        self.repositories.push((name.into(), priority, lines(packages)));
        self
    }

    pub(super) fn files(mut self, packages: &str) -> Self {
        self.files = lines(packages);
        self
    }

    pub(super) fn universe(&self) -> Universe {
        let read = |text: &String| Arc::new(package(text.trim_start_matches('*')));
        let installed = self
            .installed
            .iter()
            .map(|text| Installed { metadata: read(text), explicit: text.starts_with('*') });
        let repositories = self.repositories.iter().map(|(name, priority, packages)| Source {
            name: name.clone(),
            priority: *priority,
            catalog: Arc::new(Catalog::new(packages.iter().map(read))),
        });
        Universe::new(
            installed.collect(),
            repositories.collect(),
            self.files.iter().map(read).collect(),
        )
    }

    pub(super) fn solve(&self, request: &Request) -> Result<Solution, Problem> {
        solve(&self.universe(), request)
    }
}

/// Reads a request: words are to be installed, or with `-` removed, with `^`
/// upgraded, with `_` downgraded; `^` alone upgrades all.
pub(super) fn request(text: &str) -> Request {
    let mut request = Request::default();
    for word in text.split_whitespace() {
        let dependency = |word: &str| word.parse::<Dependency>().expect("a dependency");
        if word == "^" {
            request.upgrade = Upgrade::All;
        } else if let Some(name) = word.strip_prefix('^') {
            match &mut request.upgrade {
                Upgrade::Only(names) => names.push(name.into()),
                upgrade => *upgrade = Upgrade::Only(vec![name.into()]),
            }
        } else if let Some(name) = word.strip_prefix('_') {
            request.downgrade.push(name.into());
        } else if let Some(word) = word.strip_prefix('-') {
            request.remove.push(dependency(word));
        } else {
            request.install.push(dependency(word));
        }
    }
    request
}

/// Writes what changes, one line for each package.
pub(super) fn written(solution: &Solution) -> Vec<String> {
    let called = |it: &Candidate| format!("{}:{}", it.metadata.name, it.metadata.release);
    let mut lines = Vec::new();
    for install in &solution.installs {
        let by = install.needed_by.as_ref().map(|need| format!(" for {}", need.package));
        lines.push(format!("+ {}{}", called(&install.new), by.unwrap_or_default()));
    }
    for replacement in &solution.replacements {
        let sign = match replacement.direction {
            Direction::Upgrade => "up",
            Direction::Downgrade => "down",
            Direction::Sideways => "to",
        };
        lines.push(format!("{} {sign} {}", called(&replacement.old), called(&replacement.new)));
    }
    for removal in &solution.removals {
        let reason = match &removal.reason {
            Reason::Asked => "asked".into(),
            Reason::Needs(dependency) => format!("needs {dependency}"),
            Reason::Conflicts(name) => format!("against {name}"),
            Reason::Unneeded => "unneeded".into(),
        };
        lines.push(format!("- {} {reason}", called(&removal.old)));
    }
    lines.extend(solution.marked.iter().map(|it| format!("* {}", called(it))));
    lines.extend(
        solution.held.iter().map(|it| format!("= {}: {}", called(&it.installed), it.cause)),
    );
    lines
}
