//! The solver on the whole index of Debian, against an independent solver.
//!
//! `CAIRN_SOLVER_SAMPLE` is how many packages are tried; 2,000 take some
//! minutes.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use batsat::{BasicSolver, Lit, SolverInterface, lbool};
use cairn_package::convert::Converter;
use cairn_package::solve::{
    Cause, Explanation, Installed, Obstacle, Problem, Request, Solution, Standing, Subject,
    Trouble, Universe, solve,
};
use cairn_package::{Catalog, Dependency, Metadata};
use cairn_tests::{Need, Random, real};

/// All packages of the index, and who offers what.
struct Index {
    packages: Vec<Arc<Metadata>>,
    by_name: HashMap<String, usize>,
    offering: HashMap<Dependency, Vec<usize>>,
    catalog: Arc<Catalog>,
}

impl Index {
    fn read() -> Option<Self> {
        if !Need::all(&[Need::Debian]) {
            return None;
        }
        let text = real::index();
        let converter = Converter { threads: NonZeroUsize::MIN, ..Converter::new("x86_64") };
        let packages = converter.describe_index(&text).unwrap();
        assert!(packages.len() > 30_000, "{} packages are no whole index", packages.len());
        let packages: Vec<Arc<Metadata>> = packages.into_iter().map(Arc::new).collect();
        let mut offering: HashMap<Dependency, Vec<usize>> = HashMap::new();
        let mut by_name = HashMap::new();
        for (at, package) in packages.iter().enumerate() {
            by_name.insert(package.name.clone(), at);
            offering.entry(Dependency::on_package(&*package.name)).or_default().push(at);
            for provided in &package.provides {
                offering.entry(provided.clone()).or_default().push(at);
            }
        }
        let catalog = Arc::new(Catalog::new(packages.iter().cloned()));
        Some(Self { packages, by_name, offering, catalog })
    }

    fn offering(&self, wanted: &Dependency) -> &[usize] {
        self.offering.get(wanted).map_or(&[], Vec::as_slice)
    }

    /// Whether `one` conflicts with `other`, or that one with it.
    fn conflict(&self, one: usize, other: usize) -> bool {
        let against = |one: usize, other: usize| {
            let other = &self.packages[other];
            self.packages[one].conflicts.iter().any(|it| other.offers(it))
        };
        one != other && (against(one, other) || against(other, one))
    }

    fn universe(&self, installed: &[Installed]) -> Universe {
        let source = cairn_package::solve::Source {
            name: "debian".into(),
            priority: 0,
            catalog: Arc::clone(&self.catalog),
        };
        Universe::new(installed.to_vec(), vec![source], Vec::new())
    }
}

/// The rules as clauses, for a solver that shares nothing with Cairn's.
struct Reference {
    solver: BasicSolver,
    is_there: Vec<Lit>,
}

impl Reference {
    fn new(index: &Index) -> Self {
        let mut solver = BasicSolver::default();
        let is_there: Vec<Lit> =
            index.packages.iter().map(|_| Lit::new(solver.new_var_default(), true)).collect();
        for (at, package) in index.packages.iter().enumerate() {
            for wanted in &package.depends {
                let mut clause = vec![!is_there[at]];
                clause.extend(index.offering(wanted).iter().map(|&it| is_there[it]));
                solver.add_clause_reuse(&mut clause);
            }
            for conflict in &package.conflicts {
                for &other in index.offering(conflict).iter().filter(|&&other| other != at) {
                    solver.add_clause_reuse(&mut vec![!is_there[at], !is_there[other]]);
                }
            }
        }
        Self { solver, is_there }
    }

    /// Whether these packages can be there together, with whatever else.
    fn is_possible(&mut self, packages: impl IntoIterator<Item = usize>) -> bool {
        let wanted: Vec<Lit> = packages.into_iter().map(|at| self.is_there[at]).collect();
        self.solver.solve_limited(&wanted) == lbool::TRUE
    }
}

/// Every dependency is met, nothing conflicts, and no name is there twice.
fn assert_sound(index: &Index, solution: &Solution, wanted: &str) {
    let there: BTreeSet<usize> =
        solution.packages.iter().map(|it| index.by_name[&it.candidate.metadata.name]).collect();
    assert_eq!(there.len(), solution.packages.len(), "{wanted}");
    assert!(there.contains(&index.by_name[wanted]), "{wanted}");
    for &at in &there {
        let package = &index.packages[at];
        for need in &package.depends {
            let is_met = index.offering(need).iter().any(|it| there.contains(it));
            assert!(is_met, "{wanted}: {} needs {need}", package.name);
        }
        for conflict in &package.conflicts {
            let rival =
                index.offering(conflict).iter().find(|&&it| it != at && there.contains(&it));
            assert!(rival.is_none(), "{wanted}: {} against {conflict}", package.name);
        }
    }
}

/// Each sentence of an explanation is true.
fn assert_true(index: &Index, explanations: &[Explanation], wanted: &str) {
    assert!(!explanations.is_empty(), "{wanted}");
    for Explanation { subject, cause } in explanations {
        match subject {
            Subject::Asked(asked) => assert_cause(index, asked, cause),
            Subject::Installed(name) => assert_cause(index, &Dependency::on_package(name), cause),
        }
    }
}

fn assert_cause(index: &Index, wanted: &Dependency, cause: &Cause) {
    match cause {
        Cause::Nothing => assert!(index.offering(wanted).is_empty(), "{wanted} is provided"),
        Cause::OnlyRemoved(_) => panic!("nothing is removed"),
        Cause::Obstacles(obstacles) => {
            let named: HashSet<usize> = obstacles.iter().map(|it| find(index, it)).collect();
            let able: HashSet<usize> = index.offering(wanted).iter().copied().collect();
            assert!(named.is_subset(&able), "not all of these provide {wanted}");
            for Obstacle { package, trouble } in obstacles {
                let at = index.by_name[name_of(package)];
                match trouble {
                    Trouble::Needs { dependency, cause } => {
                        let needs = index.packages[at].depends.contains(dependency);
                        assert!(needs, "{package} does not need {dependency}");
                        assert_cause(index, dependency, cause);
                    }
                    Trouble::Conflicts { with, standing } => {
                        let other = index.by_name[name_of(with)];
                        assert!(index.conflict(at, other), "{package} and {with}");
                        if let Standing::NeededBy(by) = standing {
                            let by = &index.packages[index.by_name[by]];
                            let needs =
                                by.depends.iter().any(|it| index.packages[other].offers(it));
                            assert!(needs, "{} does not need {with}", by.name);
                        }
                    }
                    Trouble::Replaces { .. } => panic!("there is one version of everything"),
                    Trouble::Elsewhere => {}
                }
            }
        }
    }
}

fn find(index: &Index, obstacle: &Obstacle) -> usize {
    index.by_name[name_of(&obstacle.package)]
}

/// A label has the version behind the name.
fn name_of(label: &str) -> &str {
    label.split(' ').next().unwrap()
}

fn request(name: &str) -> Request {
    Request { install: vec![Dependency::on_package(name)], ..Request::default() }
}

#[test]
fn every_package_of_debian_installs_or_is_refused_for_a_true_reason() {
    let Some(index) = Index::read() else { return };
    let mut reference = Reference::new(&index);
    let empty = index.universe(&[]);

    // A system of some size, on which the same packages are tried.
    let base = solve(
        &empty,
        &Request {
            install: ["bash", "coreutils", "systemd", "exim4", "git", "nginx", "python3", "vim"]
                .map(Dependency::on_package)
                .into(),
            ..Request::default()
        },
    );
    let base: Vec<Installed> = base
        .unwrap()
        .packages
        .into_iter()
        .map(|it| Installed { metadata: it.candidate.metadata, explicit: it.explicit })
        .collect();
    let base_at: Vec<usize> = base.iter().map(|it| index.by_name[&it.metadata.name]).collect();
    assert!(reference.is_possible(base_at.iter().copied()));
    let system = index.universe(&base);

    let sample = std::env::var("CAIRN_SOLVER_SAMPLE").ok().and_then(|it| it.parse().ok());
    let sample: usize = sample.unwrap_or(150);
    let mut random = Random(0x5eed_cafe);
    let (mut refused, mut changing, mut impossible) = (0, 0, 0);
    for _ in 0..sample {
        let at = random.below(index.packages.len());
        let name = index.packages[at].name.clone();
        match solve(&empty, &request(&name)) {
            Ok(solution) => {
                assert_sound(&index, &solution, &name);
                assert!(reference.is_possible([at]), "{name}");
            }
            Err(Problem::Impossible(explanations)) => {
                refused += 1;
                assert!(!reference.is_possible([at]), "{name} can be installed");
                assert_true(&index, &explanations, &name);
            }
            Err(other) => panic!("{name}: {other}"),
        }
        match solve(&system, &request(&name)) {
            Ok(solution) => {
                assert_sound(&index, &solution, &name);
                let keeps_all = solution.removals.is_empty() && solution.replacements.is_empty();
                let could = reference.is_possible(base_at.iter().copied().chain([at]));
                // What was asked for is never taken away.
                for removal in &solution.removals {
                    let old = base.iter().find(|it| it.metadata.name == removal.old.metadata.name);
                    assert!(!old.unwrap().explicit, "{name} removes {}", removal.old.metadata.name);
                }
                changing += usize::from(!keeps_all);
                assert_eq!(keeps_all, could, "{name} removes only what it must");
            }
            Err(Problem::Impossible(explanations)) => {
                impossible += 1;
                let explicit = base.iter().filter(|it| it.explicit);
                let explicit = explicit.map(|it| index.by_name[&it.metadata.name]);
                assert!(!reference.is_possible(explicit.chain([at])), "{name} can be added");
                assert_true(&index, &explanations, &name);
            }
            Err(other) => panic!("{name}: {other}"),
        }
    }
    println!(
        "{sample} of {} packages: {refused} refused; on {} installed: {changing} remove others, \
         {impossible} impossible",
        index.packages.len(),
        base.len()
    );
    // Else the sample says nothing of refusals.
    assert!(sample < 2_000 || refused + impossible > 0);

    for (wrong, right) in [("nanno", "nano"), ("firefox-ers", "firefox-esr"), ("Bash", "bash")] {
        let Err(Problem::Unknown(unknown)) = solve(&empty, &request(wrong)) else {
            panic!("{wrong} is unknown");
        };
        assert!(unknown[0].similar.iter().any(|it| it == right), "{wrong}: {unknown:?}");
    }
}
