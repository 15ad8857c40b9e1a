//! What does a request cost in an index of 60,000 packages, with 2,000 of them
//! installed?
//!
//! The packages are made up with the shapes of real ones: a library has a
//! soname and a package for development with a pkg-config file, whatever is
//! linked needs some sonames, popular ones far more often than others, and some
//! things are offered by several packages that conflict with each other.

use std::collections::BTreeSet;
use std::sync::Arc;

use cairn_benches::{Random, median, report};
use cairn_package::solve::{Installed, Request, Solution, Source, Universe, Upgrade, solve};
use cairn_package::{Catalog, Dependency, Kind, Location, Metadata};

const PACKAGES: u64 = 60_000;
const INSTALLED: usize = 2_000;

fn soname(number: u64) -> Dependency {
    Dependency::new(Kind::Soname, format!("liblibrary{number:05}.so.1(x86_64)"))
}

/// A number below `limit`; small ones come up far more often.
fn popular(random: &mut Random, limit: u64) -> u64 {
    let limit = random.below(limit) + 1;
    let limit = random.below(limit) + 1;
    random.below(limit)
}

/// Package `number`; of each six, two are a library and what is needed to
/// build with it. A package needs only what has a smaller number, but for rare
/// circles.
fn package(number: u64, release: u64) -> Metadata {
    let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let group = number / 6;
    let mut depends = BTreeSet::new();
    let mut provides = BTreeSet::new();
    let mut conflicts = BTreeSet::new();
    let linked = if number < 60 { random.below(3) } else { 3 + random.below(12) };
    for _ in 0..linked.min(group) {
        depends.insert(soname(popular(&mut random, group)));
    }
    let name = match number % 6 {
        0 => {
            provides.insert(soname(group));
            provides.insert(Dependency::new(Kind::Cmake, format!("Library{group:05}")));
            format!("library{group:05}")
        }
        1 => {
            depends = BTreeSet::from([Dependency::on_package(format!("library{group:05}"))]);
            for _ in 0..random.below(6).min(group) {
                let other = popular(&mut random, group);
                depends.insert(Dependency::new(Kind::PkgConfig, format!("library{other:05}")));
            }
            provides.insert(Dependency::new(Kind::PkgConfig, format!("library{group:05}")));
            format!("library{group:05}-devel")
        }
        kind => {
            for at in 0..random.below(8) {
                provides.insert(Dependency::new(Kind::Binary, format!("tool{number:05}-{at}")));
            }
            if random.below(20) == 0 && group > 0 {
                depends.insert(Dependency::on_package(format!("service{:03}", group % 200)));
            }
            if random.below(30) == 0 {
                let service = Dependency::on_package(format!("service{:03}", random.below(200)));
                provides.insert(service.clone());
                conflicts.insert(service);
            }
            format!("program{number:05}-{kind}")
        }
    };
    Metadata {
        version: format!("{}.{}", 1 + number % 9, number % 31),
        release,
        build_release: 1,
        architecture: "x86_64".into(),
        summary: format!("{name} does one thing well"),
        description: "A text of some lines that says what the package is for. ".repeat(8),
        source_id: format!("source{group:05}"),
        homepage: format!("https://example.org/{name}"),
        licenses: BTreeSet::from(["MPL-2.0".into()]),
        location: Some(Location {
            uri: format!("pool/{name}-{release}.stone"),
            hash: format!("{:064x}", number << 16 | release),
            size: 1 + number,
            ..Location::default()
        }),
        name,
        depends,
        provides,
        conflicts,
        build_depends: BTreeSet::new(),
    }
}

fn universe(installed: &[Installed], repository: &[Arc<Metadata>]) -> Universe {
    let catalog = Catalog::new(repository.iter().cloned());
    let source = Source { name: "main".into(), priority: 0, catalog: catalog.into() };
    Universe::new(installed.to_vec(), vec![source], Vec::new())
}

fn names(names: impl IntoIterator<Item = String>) -> Vec<Dependency> {
    names.into_iter().map(Dependency::on_package).collect()
}

/// A system of about [`INSTALLED`] packages: programs, and what they need.
fn system(repository: &[Arc<Metadata>]) -> Vec<Installed> {
    let empty = universe(&[], repository);
    let mut random = Random(7);
    let mut request = Request::default();
    let mut installed = Vec::new();
    while installed.len() < INSTALLED {
        for _ in 0..20 {
            let at = usize::try_from(random.below(PACKAGES)).expect("it is small");
            request.install.extend(names([repository[at].name.clone()]));
        }
        match solve(&empty, &request) {
            Ok(Solution { packages, .. }) => {
                let installed_as = |it: cairn_package::solve::Package| Installed {
                    metadata: it.candidate.metadata,
                    explicit: it.explicit,
                };
                installed = packages.into_iter().map(installed_as).collect();
            }
            Err(_) => request.install.truncate(request.install.len() - 20),
        }
    }
    installed
}

#[expect(clippy::print_stdout, reason = "printing results is what a benchmark does")]
fn main() {
    let repository: Vec<Arc<Metadata>> =
        (0..PACKAGES).map(|number| Arc::new(package(number, 1))).collect();
    // One in ten packages has a new release.
    let newer: Vec<Arc<Metadata>> = (0..PACKAGES)
        .map(|number| Arc::new(package(number, if number % 10 == 3 { 2 } else { 1 })))
        .collect();
    let installed = system(&repository);
    println!("{} packages installed", installed.len());

    report(
        "universe of 60,000 packages in memory",
        median(5, || drop(universe(&installed, &repository))),
    );
    report("universe of 2,000 installed packages", median(9, || drop(universe(&installed, &[]))));

    let there: BTreeSet<&str> = installed.iter().map(|it| it.metadata.name.as_str()).collect();
    let missing: Vec<&Arc<Metadata>> =
        newer.iter().filter(|package| !there.contains(package.name.as_str())).collect();
    let small = missing.iter().find(|it| it.depends.len() < 4).expect("some need little");
    let large = missing.iter().rev().find(|it| it.depends.len() > 12).expect("some need much");
    let hundred = missing.iter().step_by(missing.len() / 100).map(|it| it.name.clone());
    let explicit = installed.iter().find(|it| it.explicit).expect("some were asked for");
    let requests = [
        ("install one small package", names([small.name.clone()]), vec![], Upgrade::None),
        ("install one large package", names([large.name.clone()]), vec![], Upgrade::None),
        ("install 100 packages", names(hundred), vec![], Upgrade::None),
        ("remove one package", vec![], names([explicit.metadata.name.clone()]), Upgrade::None),
        ("upgrade everything", vec![], vec![], Upgrade::All),
        ("ask for what does not exist", names(["progran".into()]), vec![], Upgrade::None),
    ];
    for (name, install, remove, upgrade) in requests {
        let request = Request { install, remove, upgrade, ..Request::default() };
        // Each run begins with packages that nobody has looked at.
        let mut universes: Vec<Universe> = (0..6).map(|_| universe(&installed, &newer)).collect();
        let mut result = None;
        let time = median(5, || {
            let universe = universes.pop().expect("one for each run");
            result = Some(solve(&universe, &request));
        });
        report(&format!("{name}, 2,000 installed of 60,000"), time);
        match result.expect("it ran") {
            Ok(it) => println!(
                "    {} new, {} replaced, {} removed, {} held back",
                it.installs.len(),
                it.replacements.len(),
                it.removals.len(),
                it.held.len()
            ),
            Err(problem) => {
                println!("    {}", problem.to_string().lines().next().unwrap_or_default())
            }
        }
    }
}
