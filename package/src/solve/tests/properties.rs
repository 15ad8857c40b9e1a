//! What the solver promises, on random worlds and against a reference that
//! tries everything.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::reference::Reference;
use super::world::{World, request};
use crate::metadata::Metadata;
use crate::solve::lookup::Lookup;
use crate::solve::request::{choose, removed};
use crate::solve::{Candidate, Origin, Problem, Reason, Request, Solution};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Names, things on offer, and rarely something that nothing offers.
fn thing() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        6 => prop::sample::select(&NAMES[..]),
        5 => prop::sample::select(&["x", "y", "z", "binary(b)"][..]),
        1 => Just("nothing"),
    ]
}

fn things(most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(thing(), 0..=most).prop_map(|things| things.join(" "))
}

fn body() -> impl Strategy<Value = String> {
    let rarely = prop_oneof![2 => Just(String::new()), 1 => things(1)];
    (1..4_u32, things(2), things(2), rarely).prop_map(|(release, needs, offers, against)| {
        format!(":{release} needs {needs} offers {offers} against {against}")
    })
}

/// At most one build of each name.
fn packages() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::option::weighted(0.6, body()), NAMES.len()).prop_map(|bodies| {
        let named = NAMES.iter().zip(bodies);
        named.filter_map(|(name, body)| Some(format!("{name}{}", body?))).collect()
    })
}

fn world() -> impl Strategy<Value = World> {
    // Two repositories never have the very same package, so that it is plain
    // which one was taken.
    let few = packages().prop_map(|all| -> Vec<String> {
        all.into_iter().take(2).map(|text| format!("{text} offers more")).collect()
    });
    let file = prop::option::weighted(0.1, (prop::sample::select(&NAMES[..]), body()));
    let copies = prop::collection::vec(any::<prop::sample::Index>(), 0..2);
    let stars = prop::collection::vec(any::<bool>(), NAMES.len());
    (packages(), stars, packages(), few, 0..3_u64, file, copies).prop_map(
        |(installed, stars, mut main, more, priority, file, copies)| {
            for copy in copies {
                if !installed.is_empty() {
                    let copy = copy.get(&installed);
                    main.retain(|other| other[..1] != copy[..1]);
                    main.push(copy.clone());
                }
            }
            let star = |(text, star): (String, bool)| if star { format!("*{text}") } else { text };
            let installed = installed.into_iter().zip(stars).map(star).collect();
            let files = file.map(|(name, body)| format!("{name}{body}")).into_iter().collect();
            let repositories = vec![("main".into(), 1, main), ("more".into(), priority, more)];
            World { installed, repositories, files }
        },
    )
}

fn wish() -> impl Strategy<Value = Request> {
    let word = prop_oneof![
        6 => thing().prop_map(String::from),
        3 => thing().prop_map(|thing| format!("-{thing}")),
        1 => thing().prop_map(|thing| format!("^{thing}")),
        1 => thing().prop_map(|thing| format!("_{thing}")),
        2 => Just("^".to_string()),
    ];
    prop::collection::vec(word, 0..4).prop_map(|words| request(&words.join(" ")))
}

/// The bits that stand for these candidates.
fn bits<'c>(reference: &Reference, candidates: impl Iterator<Item = &'c Candidate>) -> u32 {
    let mut bits = 0;
    for candidate in candidates {
        let installed = matches!(candidate.origin, Origin::Installed { .. });
        let is_it = |it: &super::reference::One| {
            it.installed == installed && it.package == *candidate.metadata
        };
        let at = reference.all.iter().position(is_it).expect("the candidate is one of the world");
        bits |= 1 << at;
    }
    bits
}

fn check(world: &World, request: &Request) -> Result<(), TestCaseError> {
    let universe = world.universe();
    let answer = world.solve(request);
    let Some(reference) = Reference::new(world, request) else {
        prop_assert!(
            matches!(
                answer,
                Err(Problem::Unknown(_)
                    | Problem::NotInstalled(_)
                    | Problem::NothingOlder(_)
                    | Problem::Contradiction(_))
            ),
            "{answer:?}"
        );
        return Ok(());
    };
    let best = reference.best();
    let solution = match answer {
        Err(problem) => {
            prop_assert!(matches!(problem, Problem::Impossible(_)), "{problem:?}");
            prop_assert_eq!(best, None, "{}", problem);
            return Ok(());
        }
        Ok(solution) => solution,
    };
    let Some(best) = best else {
        return Err(TestCaseError::fail(format!("impossible, and yet {solution:?}")));
    };

    let gone = removed(&universe, request).expect("the request makes sense");
    let names = gone.iter().map(|&id| universe.name(id)).collect();
    let lookup = Lookup::new(&universe, names);
    let outcome = choose(&lookup, request, gone).expect("there is a solution");
    let chosen: Vec<Candidate> = outcome
        .chosen
        .iter()
        .map(|&id| universe.candidate(id).expect("in memory").clone())
        .collect();
    let chosen = bits(&reference, chosen.iter());
    prop_assert!(reference.is_valid(chosen));
    prop_assert_eq!(reference.cost(chosen), best);

    check_solution(&reference, request, &solution, chosen)
}

/// The solution is what was chosen without what nobody needs.
fn check_solution(
    reference: &Reference,
    request: &Request,
    solution: &Solution,
    chosen: u32,
) -> Result<(), TestCaseError> {
    let left = bits(reference, solution.packages.iter().map(|it| &it.candidate));
    prop_assert!(reference.is_valid(left));
    prop_assert_eq!(left & !chosen, 0);
    let names: Vec<&str> =
        solution.packages.iter().map(|it| it.candidate.metadata.name.as_str()).collect();
    prop_assert!(names.is_sorted());

    let before = reference.installed();
    let was = |name: &str| reference.all.iter().find(|it| it.installed && it.package.name == name);
    let explicit_before =
        reference.all.iter().filter(|it| it.explicit).map(|it| it.package.name.as_str());
    let needed_before = reference.needed(before, explicit_before);
    let is_explicit: BTreeSet<&str> = solution
        .packages
        .iter()
        .filter(|it| it.explicit)
        .map(|it| it.candidate.metadata.name.as_str())
        .collect();

    // Who was asked for stays so; what stays is needed, or was not before, or
    // is there because it was to become older.
    let orphan = |name: &&str| was(name).is_some() && !needed_before.contains(name);
    let is_older = |name: &&str| request.downgrade.iter().any(|it| it.name == *name);
    let is_root = |name: &&str| is_explicit.contains(name) || orphan(name) || is_older(name);
    let roots = names.iter().copied().filter(is_root);
    let needed = reference.needed(left, roots);
    for package in &solution.packages {
        let name = package.candidate.metadata.name.as_str();
        prop_assert!(package.explicit || !was(name).is_some_and(|it| it.explicit), "{name}");
        prop_assert!(needed.contains(name), "{name} is needed by nobody");
    }
    for install in &solution.installs {
        let bit = bits(reference, std::iter::once(&install.new));
        let name = install.new.metadata.name.as_str();
        prop_assert!(was(name).is_none());
        let is_idle = !is_explicit.contains(name) && reference.is_valid(left & !bit);
        prop_assert!(!is_idle, "{name} is not needed");
        prop_assert_eq!(install.needed_by.is_some(), !is_explicit.contains(name));
    }
    // Two installed packages that conflicted before may both go, one for the
    // sake of the other, and that one because nobody needs it.
    let was_sound = reference.is_sound(before);
    for removal in solution.removals.iter().filter(|_| was_sound) {
        let name = removal.old.metadata.name.as_str();
        let was_chosen = reference.members(chosen).any(|it| it.package.name == name);
        prop_assert_eq!(removal.reason == Reason::Unneeded, was_chosen, "{:?}", removal);
    }

    // The lists are the difference between before and after.
    let mut after: BTreeSet<String> =
        reference.members(before).map(|it| text(&it.package)).collect();
    for old in solution
        .removals
        .iter()
        .map(|it| &it.old)
        .chain(solution.replacements.iter().map(|it| &it.old))
    {
        let was_there = after.remove(&text(&old.metadata));
        prop_assert!(was_there);
    }
    for new in solution
        .installs
        .iter()
        .map(|it| &it.new)
        .chain(solution.replacements.iter().map(|it| &it.new))
    {
        let is_new = after.insert(text(&new.metadata));
        prop_assert!(is_new);
    }
    let packages: BTreeSet<String> = reference.members(left).map(|it| text(&it.package)).collect();
    prop_assert_eq!(after, packages);
    Ok(())
}

fn text(package: &Metadata) -> String {
    format!("{package:?}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_solution_is_found_when_there_is_one_and_gives_up_least((world, request) in (world(), wish())) {
        check(&world, &request)?;
    }

    #[test]
    fn the_order_of_what_is_listed_makes_no_difference((world, request) in (world(), wish())) {
        let mut other = world.clone();
        other.installed.reverse();
        other.files.reverse();
        other.repositories.reverse();
        other.repositories.iter_mut().for_each(|repository| repository.2.reverse());
        let (one, other) = (world.solve(&request), other.solve(&request));
        prop_assert_eq!(format!("{one:?}"), format!("{other:?}"));
    }
}
