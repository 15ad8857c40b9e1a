//! Checks a recipe as a whole: its form, and what its macros mean.

use std::num::NonZeroUsize;

use crate::glob::Glob;
use crate::job::{self, Settings, Stage};
use crate::macros::{Expander, Macros};
use crate::problem::{Problem, Severity};
use crate::recipe::{PackagePart, Recipe, Spanned, Target, is_name};

/// Everything that is wrong with the text of a recipe, in the order of the
/// file; it can be built if there are only warnings.
#[must_use]
pub fn check(text: &str, macros: &Macros, architecture: &str) -> Vec<Problem> {
    let (recipe, mut problems) = match Recipe::parse(text) {
        Err(problems) => return problems,
        Ok(checked) => (checked.recipe, checked.warnings),
    };
    problems.extend(check_macros(&recipe, macros, architecture));
    problems.sort_by_key(|problem| (problem.span.start, problem.severity));
    problems.dedup();
    problems
}

fn check_macros(recipe: &Recipe, macros: &Macros, architecture: &str) -> Vec<Problem> {
    let settings = Settings { jobs: NonZeroUsize::MIN, cache: false, check: true, epoch: 0 };
    let of = |target: &Target| macros.of_target(target);
    let targets: Result<Vec<_>, _> = recipe.targets(architecture).iter().map(of).collect();
    let targets = match targets {
        Ok(targets) => targets,
        Err(err) => return vec![Problem::error(Default::default(), err.to_string())],
    };
    let mut problems = match job::jobs(recipe, &targets, &settings) {
        Ok(_) => Vec::new(),
        Err(problems) => problems,
    };
    if let Some(native) = targets.last()
        && let Ok(expander) = job::expander(recipe, native, Stage::Plain, &settings)
    {
        check_packages(recipe, &expander, &mut problems);
    }
    problems
}

fn check_packages(recipe: &Recipe, expander: &Expander, problems: &mut Vec<Problem>) {
    check_package(&recipe.package, expander, problems);
    for (name, part) in &recipe.packages {
        if let Some(text) = expand(name, expander, problems)
            && !is_name(&text)
        {
            problems.push(Problem::error(name.span, format!("{text:?} cannot name a package")));
        }
        check_package(part, expander, problems);
    }
}

fn check_package(part: &PackagePart, expander: &Expander, problems: &mut Vec<Problem>) {
    for text in part.summary.iter().chain(&part.description) {
        expand(text, expander, problems);
    }
    for text in part.rundeps.iter().chain(&part.conflicts) {
        if let Some(text_now) = expand(text, expander, problems)
            && let Err(err) = text_now.parse::<cairn_package::Dependency>()
        {
            problems.push(Problem::error(text.span, err.to_string()));
        }
    }
    for rule in &part.paths {
        let glob = Spanned::new(rule.span, rule.value.glob.clone());
        if let Some(text) = expand(&glob, expander, problems)
            && let Err(err) = Glob::new(&text)
        {
            let message = format!("{text:?} is not a pattern: {err}");
            problems.push(Problem::error(rule.span, message));
        }
    }
}

fn expand(
    text: &Spanned<String>,
    expander: &Expander,
    problems: &mut Vec<Problem>,
) -> Option<String> {
    match expander.text(&text.value) {
        Ok(expanded) => Some(expanded),
        Err(err) => {
            let problem = Problem::error(text.span, err.to_string());
            problems.push(match err.hint() {
                Some(hint) => problem.hint(hint),
                None => problem,
            });
            None
        }
    }
}

/// Whether a recipe with these problems can be built.
#[must_use]
pub fn is_usable(problems: &[Problem]) -> bool {
    problems.iter().all(|problem| problem.severity == Severity::Warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macros_of_all_texts_are_checked() {
        let text = "\
name: demo
version: 1.2
release: 1
homepage: https://example.org
license: MIT
summary: 100% %(nmae)
rundeps:
    - \"%(none)\"
paths:
    - \"%(datdir)/x\"
install: |
    %make_instal
packages:
    - \"%(naem)-x\":
        description: 50% of it
";
        let problems = check(text, &Macros::standard(), "x86_64");
        let shown: Vec<String> = problems
            .iter()
            .map(|problem| {
                let located = problem.located(text);
                format!("{} {}", located.place.line, located.message)
            })
            .collect();
        assert_eq!(
            shown,
            [
                "6 there is no definition %(nmae)",
                "8 there is no definition %(none)",
                "10 there is no definition %(datdir)",
                "12 there is no action %make_instal",
                "14 there is no definition %(naem)",
            ]
        );
        assert!(!is_usable(&problems));
    }
}
