//! Many Debian packages as stones, side by side.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};

use crossbeam::channel::unbounded;

use super::deb::Deb;
use super::describe;
use super::error::{Error, Problem};
use super::{Converter, Outcome, file_name};

/// Learns how far a conversion is. The calls come from several threads.
pub trait Progress: Sync {
    /// The conversion of so many packages begins, which have so many bytes
    /// together.
    fn begin(&self, packages: usize, bytes: u64);

    /// So many more bytes are done. The sum of all calls is what
    /// [`Self::begin`] was told, also when packages fail.
    fn advance(&self, bytes: u64);

    /// One package is done.
    fn finish(&self, deb: &Path, result: &Result<Outcome, Error>);
}

/// Nobody wants to know.
impl Progress for () {
    fn begin(&self, _: usize, _: u64) {}
    fn advance(&self, _: u64) {}
    fn finish(&self, _: &Path, _: &Result<Outcome, Error>) {}
}

/// What is known of a package before the conversion.
struct Survey {
    names: Vec<String>,
    file_name: String,
    size: u64,
}

impl Converter {
    /// Converts packages that may depend on each other into stones in the
    /// directory `to`, on [`Converter::threads`] threads.
    ///
    /// All of `debs` are known to each other, beside [`Converter::known`]. The
    /// results are in the order of `debs`. A package that fails does not keep
    /// the others from being converted. Neither the number of threads nor what
    /// is in `to` already makes a difference to any stone.
    ///
    /// # Errors
    /// As [`Converter::convert`], and [`Problem::SameStone`] for a package that
    /// would replace the stone of one before it in `debs`.
    pub fn convert_all(
        &self,
        debs: &[PathBuf],
        to: &Path,
        progress: &dyn Progress,
    ) -> Vec<Result<Outcome, Error>> {
        let surveys = in_parallel(self.threads, debs.iter().collect(), |deb| self.survey(deb));
        let mut single = Self { threads: NonZeroUsize::MIN, ..self.clone() };
        single.known.extend(surveys.iter().flatten().flat_map(|survey| survey.names.clone()));

        let mut first: HashMap<String, &Path> = HashMap::new();
        let mut jobs = Vec::new();
        for (number, (deb, survey)) in debs.iter().zip(surveys).enumerate() {
            let job = survey.and_then(|survey| match first.get(&survey.file_name) {
                Some(other) => Err(Problem::SameStone((*other).into())),
                None => {
                    first.insert(survey.file_name, deb);
                    Ok(survey.size)
                }
            });
            jobs.push((number, deb, job));
        }
        progress.begin(debs.len(), jobs.iter().flat_map(|(_, _, job)| job).sum());
        // The longest first, so that none of them is left over at the end.
        jobs.sort_by_key(|(number, _, job)| (Reverse(*job.as_ref().unwrap_or(&0)), *number));

        let mut results = in_parallel(self.threads, jobs, |(number, deb, job)| {
            let result = job.and_then(|size| {
                let counted = Counted { progress, left: AtomicU64::new(size) };
                let result =
                    Deb::open(deb).and_then(|deb| single.convert_opened(&deb, to, &counted));
                progress.advance(counted.left.into_inner());
                result
            });
            let result = result.map_err(|problem| Error { deb: deb.clone(), problem });
            progress.finish(deb, &result);
            (number, result)
        });
        results.sort_by_key(|(number, _)| *number);
        results.into_iter().map(|(_, result)| result).collect()
    }

    fn survey(&self, deb: &Path) -> Result<Survey, Problem> {
        let deb = Deb::open(deb)?;
        let names = describe::names(&deb.control)?;
        let file_name = file_name(&describe::describe(&deb.control, self)?.metadata);
        Ok(Survey { names, file_name, size: deb.size })
    }
}

/// Passes on no more bytes than a package has.
struct Counted<'a> {
    progress: &'a dyn Progress,
    left: AtomicU64,
}

impl super::deb::Observer for Counted<'_> {
    fn read(&self, bytes: u64) {
        // One thread reads a package, so that nothing changes in between.
        let bytes = bytes.min(self.left.load(Ordering::Relaxed));
        self.left.fetch_sub(bytes, Ordering::Relaxed);
        self.progress.advance(bytes);
    }
}

/// Does `work` for each item; the results are in the order of the items.
fn in_parallel<I: Send, O: Send>(
    threads: NonZeroUsize,
    items: Vec<I>,
    work: impl Fn(I) -> O + Sync,
) -> Vec<O> {
    let (queue, jobs) = unbounded();
    items.into_iter().enumerate().for_each(|job| queue.send(job).expect("the queue is open"));
    drop(queue);
    let worker = || jobs.iter().map(|(number, item)| (number, work(item))).collect::<Vec<_>>();
    let mut results: Vec<(usize, O)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.get()).map(|_| scope.spawn(worker)).collect();
        let results = workers.into_iter().map(ScopedJoinHandle::join);
        // A panic of a worker goes on in this thread.
        results.flat_map(|results| results.unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}
