//! Whether everything that the states need is there and undamaged.

mod tables;
mod walk;

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::hash::{BlobHasher, BlobRef, PackId, PageId, TreeId};
use crate::hold::Holder;
use crate::index::Index;
use crate::pack::{Location, ObjectId, Pack};
use crate::state::{State, StateId};
use crate::store::Store;
use crate::tree::{Entry, Listed};
use crate::workspace::WorkspaceName;
pub(crate) use tables::Tables;
use walk::Walk;

/// Is told how far a verification has come; called from several threads.
pub trait VerifyProgress: Sync {
    /// There are so many packs to verify.
    fn begin(&self, packs: u64);
    /// One more pack was verified.
    fn advance(&self);
}

impl VerifyProgress for () {
    fn begin(&self, _: u64) {}
    fn advance(&self) {}
}

/// Something that is damaged or missing, and what it touches.
#[derive(Debug)]
pub struct Damage {
    /// What is wrong.
    pub error: Error,
    /// Paths that cannot be read because of it, with the first that has them; each path
    /// once. Paths of the tree of packages begin with `packages:`.
    pub paths: Vec<(Holding, String)>,
    /// How many more paths there are.
    pub more: u64,
    /// All that need what is wrong: the first and the last of states with numbers in a row, and
    /// each workspace and mount by itself. Nothing for what only the store itself needs.
    pub needed_by: Vec<RangeInclusive<Holding>>,
}

impl Damage {
    /// Damage of the store itself.
    fn of_store(error: Error) -> Self {
        Self { error, paths: Vec::new(), more: 0, needed_by: Vec::new() }
    }
}

/// What keeps trees in a store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holding {
    /// A state.
    State(StateId),
    /// A workspace whose base is no state any more.
    Workspace(WorkspaceName),
    /// A running mount that shows what is no state any more, by the name of its
    /// [`Holder`].
    Mount(String),
}

/// What a verification found.
#[derive(Debug, Default)]
pub struct Report {
    /// Packs that were read.
    pub packs: u64,
    /// Objects that were hashed.
    pub objects: u64,
    /// Plain bytes that were hashed.
    pub bytes: u64,
    /// States whose trees were walked.
    pub states: u64,
    /// All damage; none if it is empty.
    pub damage: Vec<Damage>,
}

impl Store {
    /// Hashes every object of every pack anew, in parallel, walks the trees of every
    /// state, workspace and running mount, and compares the index with the packs. Looks into
    /// each directory once; those with damage are told at each of their paths.
    ///
    /// Does not stop at damage; the errors returned are those that keep it from
    /// going on at all. gc may run meanwhile.
    pub fn verify(&self, progress: &dyn VerifyProgress) -> Result<Report> {
        let mut report = Report::default();
        let mut tables = Tables::default();
        // Before the packs are read, so that what they need lies in those.
        let others = self.others(&mut report)?;
        self.scan(progress, |scan| {
            tables.note(&scan);
            report.count(scan);
        })?;
        let inner = self.inner();
        // Before anybody looks something up, who would have a damaged index made anew.
        let index = inner.index()?;
        let wrong = tables.wrong_entries(inner, &index)?.len();
        let states: Vec<StateId> = self.refs().states.keys().copied().collect();
        let unindexed = report.walk(self, &states, &others, &tables)?;
        report.add_lost_records(self, &states, &tables)?;
        report.add_wrong(&index, wrong + unindexed);
        Ok(report)
    }

    /// What keeps trees beside states, with their roots; what of it is damaged is reported.
    fn others(&self, report: &mut Report) -> Result<Vec<(Holding, Roots)>> {
        let mut others = Vec::new();
        match self.workspaces() {
            Err(error) if error.is_damage() => {
                report.damage.push(Damage::of_store(error));
            }
            workspaces => {
                for (name, record) in workspaces? {
                    let roots = record.states().flat_map(roots_of).collect();
                    others.push((Holding::Workspace(name), roots));
                }
            }
        }
        let run = self.path().join("run");
        for holder in Holder::list(&run)? {
            let roots = holder.trees(&run)?.into_iter().map(|tree| (tree, "")).collect();
            others.push((Holding::Mount(holder.name), roots));
        }
        Ok(others)
    }

    /// Does the same to what these states need, and reads nothing else: their records are
    /// not looked for.
    ///
    /// # Errors
    /// [`Error::UnknownState`] for a state that is not there.
    pub fn verify_states(
        &self,
        states: &[StateId],
        progress: &dyn VerifyProgress,
    ) -> Result<Report> {
        let inner = self.inner();
        // What a cache holds would hide damage on the disk.
        inner.forget_all();
        let index = inner.index()?;
        let (mut report, mut tables) = (Report::default(), Tables::default());
        let (mut asked, mut wrong) = (HashSet::new(), 0);
        // Again for what gc moves meanwhile, which then lies in other packs.
        loop {
            let packs = inner.list_packs()?;
            // What is looked up from here on is no older than this list.
            inner.drop_view();
            let needed = self.needed(states, &mut asked)?;
            if needed.is_empty() {
                break;
            }
            let ids: Vec<PackId> = needed.keys().copied().collect();
            progress.begin(ids.len() as u64);
            let each = Mutex::new(|scan: PackScan| {
                tables.note(&scan);
                let here = needed.get(&scan.id).into_iter().flatten();
                wrong += here.filter(|(object, at)| tables.compare(**object, at)).count();
                report.count(scan);
            });
            self.scan_packs(&ids, Some(&needed), progress, &each);
            if inner.list_packs()? == packs {
                break;
            }
        }
        report.packs = tables.packs();
        let unindexed = report.walk(self, states, &[], &tables)?;
        report.add_wrong(&index, wrong + unindexed);
        Ok(report)
    }

    /// What states need, as far as their directories can be read, by the pack that it lies
    /// in according to the index; without what was `asked` for before.
    fn needed(
        &self,
        states: &[StateId],
        asked: &mut HashSet<(ObjectId, Location)>,
    ) -> Result<Needed> {
        let mut needed = Needed::new();
        let mut seen = HashSet::new();
        let mut stack = Vec::new();
        for id in states {
            let state = self.state(*id)?;
            stack.extend([state.tree, state.packages]);
        }
        let inner = self.inner();
        let mut need = |object| {
            let is_new = seen.insert(object);
            if is_new {
                let at = inner.with_index(|index| index.location_of(object))?;
                if let Some(at) = at.filter(|at| asked.insert((object, *at))) {
                    needed.entry(at.pack).or_default().insert(object, at);
                }
            }
            Ok::<_, Error>(is_new)
        };
        while let Some(id) = stack.pop() {
            if !need(ObjectId::Tree(id))? {
                continue;
            }
            // What cannot be read is met again by the walk, which tells it.
            let Ok(listed) = inner.listed(id) else { continue };
            let mut entries = Vec::new();
            match listed {
                Listed::Entries(all) => entries = all,
                Listed::Pages(pages) => {
                    for (page, _) in pages {
                        if need(ObjectId::Page(page))? {
                            entries.extend(inner.page_entries(page).unwrap_or_default());
                        }
                    }
                }
            }
            for (_, entry) in entries {
                match entry {
                    Entry::Directory(subtree) => stack.push(subtree.id),
                    Entry::Leaf(leaf) => {
                        if let Some(blob) = leaf.blob() {
                            need(ObjectId::Blob(blob.key, blob.digest))?;
                        }
                    }
                }
            }
        }
        Ok(needed)
    }

    /// Hashes what is in the packs, in parallel, and gives `each` what was found in
    /// one after the other. Packs that gc removes meanwhile are passed over, and those
    /// that it makes are read as well.
    pub(crate) fn scan(
        &self,
        progress: &dyn VerifyProgress,
        each: impl FnMut(PackScan) + Send,
    ) -> Result<()> {
        let each = Mutex::new(each);
        let mut known = HashSet::new();
        loop {
            let mut packs = self.inner().list_packs()?;
            packs.retain(|id| known.insert(*id));
            if packs.is_empty() {
                return Ok(());
            }
            progress.begin(known.len() as u64);
            self.scan_packs(&packs, None, progress, &each);
        }
    }

    /// Hashes these packs in parallel; only what is wanted of them, if that is given.
    fn scan_packs(
        &self,
        packs: &[PackId],
        wanted: Option<&Needed>,
        progress: &dyn VerifyProgress,
        each: &Mutex<impl FnMut(PackScan) + Send>,
    ) {
        let next = AtomicUsize::new(0);
        let workers = std::thread::available_parallelism().map_or(1, Into::into);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(id) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Some(scan) = self.scan_pack(*id, wanted.and_then(|it| it.get(id))) {
                            each.lock().unwrap_or_else(PoisonError::into_inner)(scan);
                        }
                        progress.advance();
                    }
                });
            }
        });
    }

    fn scan_pack(
        &self,
        id: PackId,
        wanted: Option<&HashMap<ObjectId, Location>>,
    ) -> Option<PackScan> {
        let mut scan = PackScan { id, ..PackScan::default() };
        let inner = self.inner();
        // Opened anew: what a cache holds would hide damage on the disk.
        let opened =
            Pack::open(&inner.pack_path(id), id).and_then(|pack| Ok((pack.objects()?, pack)));
        let (mut objects, pack) = match opened {
            Ok(opened) => opened,
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return None;
            }
            Err(err) => {
                scan.damage.push(err);
                return Some(scan);
            }
        };
        if let Some(wanted) = wanted {
            objects.retain(|(object, at)| wanted.get(object) == Some(at));
        }
        let mut frames = Frames { pack: &pack, last: None };
        let mut damaged_frames = HashSet::new();
        let mut touched = HashSet::new();
        for (object, location) in objects {
            let err = match frames.check(object, &location, &mut touched) {
                Ok(()) => {
                    scan.sound.push((object, location));
                    continue;
                }
                Err(err) => err,
            };
            scan.lost.push(object);
            match err {
                Error::DamagedFrame { frame, .. } if !damaged_frames.insert(frame) => {}
                err => scan.damage.push(err),
            }
        }
        if wanted.is_some() {
            return Some(scan);
        }
        // A frame that no object lies in is checked as well.
        for frame in (0..pack.frame_count()).filter(|frame| !touched.contains(frame)) {
            scan.damage.extend(pack.frame(frame).err());
        }
        Some(scan)
    }
}

/// Roots of trees, with what paths in them begin with.
type Roots = Vec<(TreeId, &'static str)>;

fn roots_of(state: &State) -> Roots {
    vec![(state.tree, ""), (state.packages, "packages:")]
}

/// Puts states whose numbers are in a row together.
fn in_a_row(holdings: impl Iterator<Item = Holding>) -> Vec<RangeInclusive<Holding>> {
    let mut runs: Vec<RangeInclusive<Holding>> = Vec::new();
    for holding in holdings {
        let goes_on = |run: &RangeInclusive<Holding>| match (run.end(), &holding) {
            (Holding::State(last), Holding::State(next)) => last.0.checked_add(1) == Some(next.0),
            _ => false,
        };
        match runs.last_mut().filter(|run| goes_on(run)) {
            Some(run) => *run = run.start().clone()..=holding,
            None => runs.push(holding.clone()..=holding),
        }
    }
    runs
}

impl Holding {
    /// Whether it is still there, as far as that can be told; states are not removed in
    /// the view of the store that is verified.
    fn is_there(&self, store: &Store) -> bool {
        match self {
            Self::State(_) => true,
            Self::Workspace(name) => {
                !matches!(store.workspace(name), Err(Error::UnknownWorkspace(_)))
            }
            Self::Mount(name) => Holder::list(&store.path().join("run"))
                .map_or(true, |holders| holders.iter().any(|holder| holder.name == *name)),
        }
    }
}

/// Objects with where they lie, by their pack.
type Needed = HashMap<PackId, HashMap<ObjectId, Location>>;

/// What was found in a pack.
#[derive(Debug)]
pub(crate) struct PackScan {
    pub(crate) id: PackId,
    pub(crate) sound: Vec<(ObjectId, Location)>,
    /// Objects that it should have; unknown if its table cannot be read.
    pub(crate) lost: Vec<ObjectId>,
    pub(crate) damage: Vec<Error>,
}

impl Default for PackScan {
    fn default() -> Self {
        let id = PackId::from_bytes([0; PackId::LEN]);
        Self { id, sound: Vec::new(), lost: Vec::new(), damage: Vec::new() }
    }
}

impl Report {
    /// Counts what was found in a pack.
    fn count(&mut self, scan: PackScan) {
        self.packs += 1;
        self.objects += scan.sound.len() as u64;
        self.bytes += scan.sound.iter().map(|(_, at)| at.len).sum::<u64>();
        let damage = scan.damage.into_iter();
        self.damage.extend(damage.map(Damage::of_store));
    }

    /// Adds states of which no pack has the record.
    fn add_lost_records(
        &mut self,
        store: &Store,
        states: &[StateId],
        tables: &Tables,
    ) -> Result<()> {
        let states = states.iter().map(|id| store.state(*id));
        let states = states.collect::<Result<Vec<State>>>()?;
        let lost: Vec<&State> =
            states.iter().filter(|state| !tables.has(state.record().0)).collect();
        if lost.is_empty() {
            return Ok(());
        }
        // That of a state which was removed meanwhile may have been collected.
        store.refresh()?;
        let refs = store.refs();
        for state in lost.into_iter().filter(|state| refs.states.contains_key(&state.id)) {
            let error = Error::MissingRecord { state: state.id };
            self.damage.push(Damage::of_store(error));
        }
        Ok(())
    }

    /// Walks states and whatever else keeps trees, and adds what they lack; returns how much
    /// of that lies in the packs, and only the index does not know it.
    fn walk(
        &mut self,
        store: &Store,
        states: &[StateId],
        others: &[(Holding, Roots)],
        tables: &Tables,
    ) -> Result<usize> {
        let mut walk = Walk::new(store, tables);
        let mut holdings = Vec::new();
        for id in states {
            holdings.push(Holding::State(*id));
            walk.roots(&Holding::State(*id), &roots_of(&store.state(*id)?));
            self.states += 1;
        }
        for (holding, roots) in others {
            holdings.push(holding.clone());
            walk.roots(holding, roots);
        }
        let unread = walk.take_unread();
        self.damage.extend(unread.map(Damage::of_store));
        let mut unindexed = 0;
        for (object, mut paths) in walk.finish() {
            // What ended meanwhile may have been collected.
            let told = paths.kept.len();
            paths.kept.retain(|(holding, _)| holding.is_there(store));
            if told > 0 && paths.kept.is_empty() && paths.more == 0 {
                continue;
            }
            let at = store.inner().with_index(|index| index.location_of(object))?;
            unindexed += usize::from(tables.has(object) && at.is_none());
            let error = match object {
                ObjectId::Blob(key, _) => Error::MissingBlob { key },
                ObjectId::Tree(id) => Error::MissingTree { id },
                ObjectId::Page(id) => Error::MissingPage { id },
                ObjectId::State(_) => continue,
            };
            let needed_by = in_a_row(paths.needed_by.iter().map(|number| holdings[number].clone()))
                .into_iter()
                .filter(|run| run.start().is_there(store))
                .collect();
            self.damage.push(Damage { error, paths: paths.kept, more: paths.more, needed_by });
        }
        Ok(unindexed)
    }

    fn add_wrong(&mut self, index: &Index, entries: usize) {
        // What cannot be read may be less than an entry of an object.
        let entries = entries.max(usize::from(index.is_damaged()));
        if entries > 0 {
            let error = Error::WrongIndex { path: index.path().into(), entries: entries as u64 };
            self.damage.push(Damage::of_store(error));
        }
    }
}

/// Reads the frames of a pack, the latest of which is kept.
struct Frames<'a> {
    pack: &'a Pack,
    last: Option<(u32, Vec<u8>)>,
}

impl Frames<'_> {
    fn frame(&mut self, number: u32) -> Result<&[u8]> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != number) {
            self.last = Some((number, self.pack.frame(number)?));
        }
        Ok(self.last.as_ref().map_or(&[], |(_, bytes)| bytes))
    }

    /// Hashes an object anew.
    fn check(
        &mut self,
        object: ObjectId,
        location: &Location,
        touched: &mut HashSet<u32>,
    ) -> Result<()> {
        let mut blob = BlobHasher::default();
        let mut gathered = Vec::new();
        let (mut number, mut from) = (location.frame, location.offset as usize);
        let mut rest = location.len;
        loop {
            touched.insert(number);
            let (pack, frame) = (location.pack, number);
            let bytes = self.frame(number)?;
            let short = Error::DamagedFrame { pack, frame, problem: "an object exceeds it" };
            let bytes = bytes.get(from..).ok_or(short)?;
            let len = bytes.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            match object {
                ObjectId::Blob(..) => blob.update(&bytes[..len]),
                ObjectId::Tree(_) | ObjectId::Page(_) | ObjectId::State(_) => {
                    gathered.extend_from_slice(&bytes[..len])
                }
            }
            rest -= len as u64;
            if rest == 0 {
                break;
            }
            if len == 0 {
                let problem = "an object exceeds it";
                return Err(Error::DamagedFrame { pack, frame, problem });
            }
            (number, from) = (number.saturating_add(1), 0);
        }
        match object {
            ObjectId::Blob(key, digest) => {
                let expected = BlobRef { key, digest, size: location.len };
                if blob.finish() != expected {
                    return Err(Error::DamagedBlob { key });
                }
            }
            ObjectId::Tree(id) => {
                if TreeId::of(&gathered) != id {
                    return Err(Error::DamagedTree { id });
                }
            }
            ObjectId::Page(id) => {
                if PageId::of(&gathered) != id {
                    return Err(Error::DamagedPage { id });
                }
            }
            ObjectId::State(digest) => {
                if State::digest(&gathered) != digest {
                    let path = location.pack.to_string().into();
                    let problem = "the record of its state differs from its hash";
                    return Err(Error::DamagedPack { path, problem });
                }
            }
        }
        Ok(())
    }
}
