//! The stones of a plan: from servers, or from where they lie.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Phase, Progress, System};
use crate::repository::{DownloadProgress, Retry};
use crate::solve::{Candidate, Origin};
use crate::stone::ProvedStone;
use crate::{Result, repository};

impl System {
    /// The stones of `candidates`, verified: those at servers are downloaded,
    /// and then those that are on this machine are hashed, each in parallel.
    pub fn fetch(
        &self,
        candidates: &[&Candidate],
        progress: &dyn Progress,
    ) -> Result<Vec<ProvedStone>> {
        let mut stones = vec![None; candidates.len()];
        let mut remote = Vec::new();
        let mut local = Vec::new();
        let mut download = 0;
        for (at, candidate) in candidates.iter().enumerate() {
            match (&candidate.origin, self.at_hand(candidate)?) {
                (Origin::Repository { name, .. }, at_hand) => {
                    let repository = self.repository(name)?;
                    let of = if at_hand.is_some() { &mut local } else { &mut remote };
                    of.push((at, repository, &*candidate.metadata));
                    let size = candidate.metadata.location.as_ref().map_or(0, |it| it.size);
                    download += if at_hand.is_some() { 0 } else { size };
                }
                (Origin::File | Origin::Installed { .. }, _) => {
                    let found = self.files.iter().find(|(_, it)| *it == candidate.metadata);
                    stones[at] = found.map(|(stone, _)| stone.clone());
                }
            }
        }
        let repositories = &self.repositories;
        if !remote.is_empty() {
            progress.begin(Phase::Download, download);
            let connections = self.repositories.network().connections;
            for (at, path) in in_parallel(connections, &remote, |(at, repository, package)| {
                let path = repositories.fetch(repository, package, &Downloading(progress));
                path.map(|path| (*at, path))
            })? {
                stones[at] = Some(path);
            }
        }
        // A phase without work is none.
        if !local.is_empty() {
            progress.begin(Phase::Verify, local.len() as u64);
        }
        let cores = std::thread::available_parallelism().map_or(1, Into::into);
        for (at, path) in in_parallel(cores, &local, |(at, repository, package)| {
            let path = repositories.fetch(repository, package, &());
            progress.advance(1);
            path.map(|path| (*at, path))
        })? {
            stones[at] = Some(path);
        }
        Ok(stones.into_iter().map(|path| path.expect("each was in one of the lists")).collect())
    }
}

/// Does `work` for all of `items` on so many threads; after an error nothing
/// new is begun.
fn in_parallel<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R, repository::Error> + Sync,
) -> Result<Vec<R>, repository::Error> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Ok(Vec::with_capacity(items.len())));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = work(item);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&mut *done, result) {
                        (Ok(all), Ok(one)) => all.push(one),
                        (Ok(_), Err(err)) => {
                            *done = Err(err);
                            next.store(items.len(), Ordering::Relaxed);
                        }
                        (Err(_), _) => {}
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

struct Downloading<'a>(&'a dyn Progress);

impl DownloadProgress for Downloading<'_> {
    fn advance(&self, bytes: u64) {
        self.0.advance(bytes);
    }

    fn lose(&self, bytes: u64) {
        self.0.lose(bytes);
    }

    fn retry(&self, retry: &Retry<'_>) {
        self.0.retry(retry);
    }
}
