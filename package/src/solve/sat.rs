//! One question to the SAT solver: is there a set of packages in which every
//! dependency is met, nothing conflicts, and each job has a candidate?

use std::collections::{BTreeMap, BTreeSet, HashMap};

use resolvo::conflict::{Conflict, ConflictCause, ConflictEdge, ConflictNode};
use resolvo::{Problem, Requirement, SolvableId, Solver, UnsolvableOrCancelled};

use super::lookup::{Choice, Lookup};
use super::provider::Provider;
use super::universe::Id;
use crate::catalog;
use crate::dependency::Dependency;

/// What becomes of the packages that are installed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Base<'c, 'u> {
    /// All of them stay as they are. They meet dependencies and rule out what
    /// conflicts with them, and are not looked at any further, so that a
    /// question costs as much as what is new.
    ///
    /// Holds what the installed packages conflict with.
    Fixed(&'c HashMap<&'u Dependency, Vec<Id>>),
    /// Each is a candidate like any other.
    Free,
}

/// The answer to a question.
#[derive(Debug)]
pub(super) enum Answer {
    /// There is such a set: what is in it, without the fixed packages.
    Possible(BTreeSet<Id>),
    /// There is none.
    Clash(Clash),
}

/// Why there is no set of packages: parts of the question that already have
/// no answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Clash {
    /// The jobs that take part.
    pub(super) jobs: BTreeSet<usize>,
    /// The dependencies that take part, and who has them.
    pub(super) needs: BTreeMap<Id, BTreeSet<Dependency>>,
    /// Pairs that cannot be together, each in both orders.
    pub(super) rivals: BTreeMap<Id, BTreeSet<Id>>,
}

/// Asks for a set of packages that has a candidate of each job.
///
/// Of the candidates of a job or a dependency, the first one that works is
/// taken; what is decided first is not decided again unless it proves wrong.
pub(super) fn ask<'u>(
    lookup: &Lookup<'u>,
    base: Base<'_, 'u>,
    jobs: &[Choice],
) -> Result<Answer, catalog::Error> {
    let provider = Provider::new(lookup, base);
    let mut requirements = Vec::with_capacity(jobs.len());
    for job in jobs {
        requirements.push(Requirement::Union(provider.job(job)?).into());
    }
    let mut solver = Solver::new(provider);
    let answer = solver.solve(Problem::new().requirements(requirements));
    if let Some(failure) = solver.provider().take_failure() {
        return Err(failure);
    }
    match answer {
        Ok(chosen) => Ok(Answer::Possible(chosen.into_iter().map(id).collect())),
        Err(UnsolvableOrCancelled::Unsolvable(conflict)) => {
            Ok(Answer::Clash(clash(&solver, &conflict, jobs.len())))
        }
        Err(UnsolvableOrCancelled::Cancelled(_)) => {
            unreachable!("the provider cancels after a failure only")
        }
    }
}

fn id(solvable: SolvableId) -> Id {
    Id(solvable.into_raw())
}

/// Puts what the solver says into the words of packages.
fn clash(solver: &Solver<Provider<'_, '_>>, conflict: &Conflict, jobs: usize) -> Clash {
    let graph = conflict.graph(solver).graph;
    let mut clash = Clash::default();
    for edge in graph.edge_indices() {
        let (from, to) = graph.edge_endpoints(edge).expect("the edge is one of the graph");
        match (graph[from], graph[edge], graph[to]) {
            (ConflictNode::Root, ConflictEdge::Requires(Requirement::Union(union)), _) => {
                // The jobs are the first unions that the provider is told of.
                clash.jobs.extend(Some(union.0 as usize).filter(|&job| job < jobs));
            }
            (
                ConflictNode::Solvable(from),
                ConflictEdge::Requires(Requirement::Union(union)),
                _,
            ) => {
                let dependency = solver.provider().dependency(union).cloned();
                clash.needs.entry(id(from)).or_default().extend(dependency);
            }
            (
                ConflictNode::Solvable(one),
                ConflictEdge::Conflict(
                    ConflictCause::Constrains(_) | ConflictCause::ForbidMultipleInstances,
                ),
                ConflictNode::Solvable(other),
            ) => {
                clash.rivals.entry(id(one)).or_default().insert(id(other));
                clash.rivals.entry(id(other)).or_default().insert(id(one));
            }
            _ => {}
        }
    }
    clash
}
