//! The rules of the solver once more, by trying everything.
//!
//! It shares no code with the solver but the metadata: sets of packages are
//! bits of a number, and each rule is checked as it is written.

use std::collections::BTreeSet;

use super::world::{World, package};
use crate::dependency::{Dependency, Kind};
use crate::metadata::Metadata;
use crate::solve::{Downgrade, Request, Upgrade};

/// A candidate of the world.
pub(super) struct One {
    pub(super) package: Metadata,
    pub(super) installed: bool,
    pub(super) explicit: bool,
    file: bool,
    priority: u64,
}

/// A request in a world, spelled out.
pub(super) struct Reference {
    pub(super) all: Vec<One>,
    removed: BTreeSet<String>,
    asked: Vec<Vec<usize>>,
    /// Installed package and what it would become.
    targets: Vec<(usize, usize)>,
    /// Names of what cannot stay without what is removed.
    lost: BTreeSet<String>,
    /// A request that only removes brings nothing new, and leaves what was
    /// broken before as it is.
    only_removes: bool,
}

/// What is given up, most important first.
pub(super) type Cost = [usize; 5];

impl Reference {
    /// `None` if the request makes no sense.
    pub(super) fn new(world: &World, request: &Request) -> Option<Self> {
        let mut all: Vec<One> = Vec::new();
        for text in &world.installed {
            let package = package(text.trim_start_matches('*'));
            let explicit = text.starts_with('*');
            all.push(One { package, installed: true, explicit, file: false, priority: 0 });
        }
        let files = world.files.iter().map(|text| (text, true, 0));
        let others = world.repositories.iter();
        let others =
            others.flat_map(|(_, priority, all)| all.iter().map(|it| (it, false, *priority)));
        for (text, file, priority) in files.chain(others) {
            let package = package(text);
            all.push(One { package, installed: false, explicit: false, file, priority });
        }

        let installed =
            |name: &str| all.iter().position(|it| it.installed && it.package.name == name);
        let mut removed = BTreeSet::new();
        for wanted in &request.remove {
            let fits = |it: &&One| match wanted.kind {
                Kind::Name => it.package.name == wanted.text,
                _ => it.package.offers(wanted),
            };
            let names: Vec<String> = all
                .iter()
                .filter(|it| it.installed)
                .filter(fits)
                .map(|it| it.package.name.clone())
                .collect();
            if names.is_empty() {
                return None;
            }
            removed.extend(names);
        }

        let mut targets = Vec::new();
        let names: Vec<String> = match &request.upgrade {
            Upgrade::None => Vec::new(),
            Upgrade::All => all
                .iter()
                .map(|it| it.package.name.clone())
                .filter(|name| !removed.contains(name))
                .collect(),
            Upgrade::Only(names) => names.clone(),
        };
        for (at, it) in all.iter().enumerate().filter(|(_, it)| it.installed) {
            let builds = (0..all.len()).filter(|&other| {
                !all[other].installed && all[other].package.name == it.package.name
            });
            let best = builds.max_by_key(|&other| {
                let other = &all[other];
                (
                    other.file,
                    other.priority,
                    other.package.age(),
                    std::cmp::Reverse(hash(&other.package)),
                )
            });
            if let Some(best) = best.filter(|&best| {
                names.contains(&it.package.name) && hash(&all[best].package) != hash(&it.package)
            }) {
                targets.push((at, best));
            }
        }
        if let Upgrade::Only(names) = &request.upgrade
            && names.iter().any(|name| installed(name).is_none() || removed.contains(name))
        {
            return None;
        }

        let usable = |&at: &usize| {
            let it = &all[at];
            let is_copy = !it.installed
                && installed(&it.package.name)
                    .is_some_and(|old| hash(&all[old].package) == hash(&it.package));
            !removed.contains(&it.package.name) && !is_copy
        };
        let mut asked = Vec::new();
        for wanted in &request.install {
            let offering: Vec<usize> =
                (0..all.len()).filter(|&at| all[at].package.offers(wanted)).collect();
            let files: Vec<usize> = offering
                .iter()
                .copied()
                .filter(|&at| all[at].file)
                .map(|at| {
                    installed(&all[at].package.name)
                        .filter(|&old| hash(&all[old].package) == hash(&all[at].package))
                        .unwrap_or(at)
                })
                .filter(|&at| !removed.contains(&all[at].package.name))
                .collect();
            let named: Vec<usize> = offering
                .iter()
                .copied()
                .filter(usable)
                .filter(|&at| wanted.kind == Kind::Name && all[at].package.name == wanted.text)
                .collect();
            let is_file_meant = offering.iter().any(|&at| all[at].file);
            let meant = if is_file_meant {
                files
            } else if named.is_empty() {
                offering.into_iter().filter(usable).collect()
            } else {
                named
            };
            if meant.is_empty() {
                return None;
            }
            asked.push(meant);
        }

        // What must become older is asked for, and nothing else will do.
        for Downgrade { name, version } in &request.downgrade {
            let at = installed(name).filter(|_| !removed.contains(name))?;
            let age = all[at].package.age();
            let is_older = |&other: &usize| {
                let it = &all[other];
                let is_meant =
                    version.as_ref().is_none_or(|version| *version == it.package.version);
                let is_other = !it.installed && !it.file && is_meant;
                is_other && it.package.name == *name && it.package.age() < age
            };
            let target = (0..all.len()).filter(is_older).max_by_key(|&other| {
                let it = &all[other];
                (it.package.age(), it.priority, std::cmp::Reverse(hash(&it.package)))
            });
            asked.push(vec![target?]);
        }

        let mut lost = BTreeSet::new();
        loop {
            let here: Vec<&One> = all
                .iter()
                .filter(|it| {
                    it.installed
                        && !removed.contains(&it.package.name)
                        && !lost.contains(&it.package.name)
                })
                .collect();
            let before = lost.len();
            for it in &here {
                // What was missing before is not the fault of the removal.
                let had = |wanted: &Dependency| {
                    all.iter().any(|other| other.installed && other.package.offers(wanted))
                };
                let has =
                    |wanted: &Dependency| here.iter().any(|other| other.package.offers(wanted));
                if it.package.depends.iter().any(|wanted| had(wanted) && !has(wanted)) {
                    lost.insert(it.package.name.clone());
                }
            }
            if lost.len() == before {
                break;
            }
        }
        let only_removes = asked.is_empty() && targets.is_empty();
        Some(Self { all, removed, asked, targets, lost, only_removes })
    }

    /// Whether every rule holds for the packages of these bits.
    pub(super) fn is_valid(&self, bits: u32) -> bool {
        if self.only_removes {
            return bits & !self.installed() == 0;
        }
        let names: BTreeSet<&str> = self.members(bits).map(|it| it.package.name.as_str()).collect();
        let is_asked = |job: &Vec<usize>| job.iter().any(|&at| bits >> at & 1 == 1);
        let must_stay = |it: &&One| {
            let name = &it.package.name;
            it.installed && it.explicit && !self.removed.contains(name) && !self.lost.contains(name)
        };
        self.is_sound(bits)
            && self.asked.iter().all(is_asked)
            && self.removed.iter().all(|name| !names.contains(name.as_str()))
            && self.all.iter().filter(must_stay).all(|it| names.contains(it.package.name.as_str()))
    }

    /// Whether the packages of these bits go together and lack nothing.
    pub(super) fn is_sound(&self, bits: u32) -> bool {
        let here: Vec<&Metadata> = self.members(bits).map(|it| &it.package).collect();
        let names: BTreeSet<&str> = here.iter().map(|it| it.name.as_str()).collect();
        let is_fine = |it: &&Metadata| {
            let met = |wanted| here.iter().any(|other| other.offers(wanted));
            let clashes =
                |conflict| here.iter().any(|other| other.name != it.name && other.offers(conflict));
            it.depends.iter().all(met) && !it.conflicts.iter().any(clashes)
        };
        names.len() == here.len() && here.iter().all(is_fine)
    }

    pub(super) fn cost(&self, bits: u32) -> Cost {
        let mut cost = [0; 5];
        if self.only_removes {
            let stays = |it: &One| {
                let name = &it.package.name;
                it.installed && !self.removed.contains(name) && !self.lost.contains(name)
            };
            let differs = |(at, it): &(usize, &One)| (bits >> at & 1 == 1) != stays(it);
            return [self.all.iter().enumerate().filter(differs).count(), 0, 0, 0, 0];
        }
        let has = |at: usize| bits >> at & 1 == 1;
        let spare = self.spare();
        for (at, it) in self.all.iter().enumerate() {
            if !it.installed || self.removed.contains(&it.package.name) {
                continue;
            }
            let target = self.targets.iter().find(|row| row.0 == at).map(|row| row.1);
            let is_gone = !self.members(bits).any(|other| other.package.name == it.package.name);
            let is_spare = spare.contains(it.package.name.as_str());
            if is_gone {
                cost[if it.explicit {
                    0
                } else if is_spare {
                    3
                } else {
                    1
                }] += 1;
            }
            let missed = usize::from(target.is_some_and(|target| !has(target)));
            cost[if is_spare { 4 } else { 2 }] += missed;
            cost[4] += usize::from(!has(at) && !target.is_some_and(has));
        }
        cost
    }

    /// The names of what is needed now and by nobody once all upgrades are
    /// made.
    fn spare(&self) -> BTreeSet<&str> {
        let explicit =
            || self.all.iter().filter(|it| it.explicit).map(|it| it.package.name.as_str());
        let now = self.needed(self.installed(), explicit());
        let becomes = |at| self.targets.iter().find(|row| row.0 == at).map_or(at, |row| row.1);
        let stays = |&at: &usize| {
            self.all[at].installed && !self.removed.contains(&self.all[at].package.name)
        };
        let then = (0..self.all.len()).filter(stays).map(|at| 1 << becomes(at)).sum();
        let staying =
            || (0..self.all.len()).filter(stays).map(|at| self.all[at].package.name.as_str());
        let roots =
            staying().filter(|name| explicit().any(|it| it == *name) || !now.contains(name));
        let needed = self.needed(then, roots);
        staying().filter(|name| now.contains(name) && !needed.contains(name)).collect()
    }

    /// The least cost of a valid set, if there is one.
    pub(super) fn best(&self) -> Option<Cost> {
        (0..1_u32 << self.all.len())
            .filter(|&bits| self.is_valid(bits))
            .map(|bits| self.cost(bits))
            .min()
    }

    /// The names of what the packages of these bits need, directly or not,
    /// beginning with `roots`.
    pub(super) fn needed<'s>(
        &'s self,
        bits: u32,
        roots: impl Iterator<Item = &'s str>,
    ) -> BTreeSet<&'s str> {
        let mut names: BTreeSet<&str> = roots.collect();
        loop {
            let before = names.len();
            for it in self.members(bits) {
                let is_wanted = |other: &One| {
                    names.contains(other.package.name.as_str())
                        && other.package.depends.iter().any(|wanted| it.package.offers(wanted))
                };
                if self.members(bits).any(is_wanted) {
                    names.insert(&it.package.name);
                }
            }
            if names.len() == before {
                return names;
            }
        }
    }

    /// The bits of what is installed.
    pub(super) fn installed(&self) -> u32 {
        (0..self.all.len()).filter(|&at| self.all[at].installed).map(|at| 1 << at).sum()
    }

    pub(super) fn members(&self, bits: u32) -> impl Iterator<Item = &One> {
        self.all.iter().enumerate().filter(move |(at, _)| bits >> at & 1 == 1).map(|row| row.1)
    }
}

fn hash(package: &Metadata) -> &str {
    &package.location.as_ref().expect("packages of a world have one").hash
}
