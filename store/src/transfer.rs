//! States from one store to another: only what is missing goes, as it is stored.
//!
//! ```text
//! log ── walk ──> what is missing ── ranges of packs ──> cache/pull ── hash ── lock ──> publish
//! ```
//!
//! The store that takes is the one that works, whoever asked: the other one gives its log,
//! says in which packs objects lie, and gives bytes of packs. Nothing that it says is believed:
//! all that arrives is hashed as it lies on this disk, and the trees are walked from their roots
//! down to the last blob, before the states are published.
//!
//! Packs arrive at their own offsets in files with holes below cache/pull, so that an interrupted
//! pull goes on with the frames that are missing. Nothing is locked meanwhile but other pulls. The
//! writer's lock is taken for the last step, which looks again whether what the walk has found
//! here is still there.
//!
//! Format of what travels through a pipe: docs/transfer.md.

mod arrive;
mod links;
mod list;
mod local;
mod mirror;
pub mod pipe;
mod walk;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::error::{Error, Result};
use crate::hash::PackId;
use crate::lock::Lock;
use crate::log::Refs;
use crate::pack::ObjectId;
use crate::state::State;
use crate::store::Store;
use crate::transaction::{Draft, Standing};
use arrive::Arrivals;
pub use list::{check_format, decode_pack_list};
use mirror::Mirror;
use walk::{Needs, Walk};

/// A pack of a store that gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackAt {
    /// Its id.
    pub id: PackId,
    /// Bytes of the file.
    pub len: u64,
}

/// Bytes of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackRange {
    /// The pack.
    pub pack: PackId,
    /// Where it begins.
    pub from: u64,
    /// How many bytes.
    pub len: u64,
}

/// Takes bytes: of the range with this number, in order.
pub type TakeBytes<'a> = &'a mut dyn FnMut(usize, &[u8]) -> Result<()>;

/// A store that gives; nothing that it says is believed.
///
/// [`Error::MissingPack`] says that a pack has gone since it was named.
pub trait PullSource: Sync {
    /// What people call it.
    fn name(&self) -> String;
    /// The states, the current one and the tags.
    fn refs(&self) -> Result<Refs>;
    /// In which packs objects lie; `None` if it cannot tell, and [`Self::packs`] have to be read.
    fn locate(&self, objects: &[ObjectId]) -> Result<Option<Vec<Option<PackAt>>>>;
    /// All packs, the newest last.
    fn packs(&self) -> Result<Vec<PackAt>>;
    /// Gives `take` the bytes of all ranges, one after the other.
    fn read(&self, ranges: &[PackRange], take: TakeBytes<'_>) -> Result<()>;
    /// Whether parts of a pack can be read at the cost of those parts; else a pack is read
    /// whole, once.
    fn gives_parts(&self) -> Result<bool> {
        Ok(true)
    }
    /// So many bytes are about to be read.
    fn expect(&self, _bytes: u64) -> Result<()> {
        Ok(())
    }
}

/// What a pull is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPhase {
    /// Looking for what is missing; directories are counted.
    Compare,
    /// Bytes arrive, and are counted.
    Copy,
    /// What has arrived is hashed; its bytes on the disk are counted.
    Check,
}

/// Is told how far a pull has come; called from several threads.
pub trait PullProgress: Sync {
    /// A phase begins, with so much to do if that is known.
    fn begin(&self, phase: PullPhase, total: Option<u64>);
    /// So much more is done of the phase.
    fn advance(&self, count: u64);
    /// Whether to stop, which makes the pull fail with [`Error::Cancelled`]. What has arrived
    /// need not travel again.
    fn is_cancelled(&self) -> bool {
        false
    }
}

impl PullProgress for () {
    fn begin(&self, _: PullPhase, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
}

/// How much of a pull is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullExtent {
    /// All of it; the last state has this standing, those before come aside.
    Publish(Standing),
    /// What is missing is found out, and stays missing.
    Preview,
}

/// What a pull has done about one state.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The state there.
    pub theirs: State,
    /// The state here; `None` after a preview of one that is not there yet.
    pub state: Option<State>,
    /// Whether it was there before.
    pub was_there: bool,
    /// Objects that were missing.
    pub objects: u64,
    /// Their plain bytes.
    pub bytes: u64,
    /// Bytes that have arrived, or would.
    pub transferred: u64,
    /// Bytes by which the store has grown.
    pub stored: u64,
}

/// How often it is begun anew because gc has taken meanwhile, here or there, what it relied on.
const ATTEMPTS: usize = 5;

/// What interrupted pulls had left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Leftovers {
    /// Files that were removed.
    pub files: usize,
    /// What the disk got back.
    pub bytes: u64,
    /// Whether a pull is at work: then nothing was removed.
    pub busy: bool,
}

impl Store {
    /// Removes what interrupted pulls have left, with which the next one would go on.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clean_pulls(&self) -> Result<Leftovers> {
        let _puller = match Lock::take_puller(self.path()) {
            Err(Error::Locked { .. }) => {
                return Ok(Leftovers { busy: true, ..Leftovers::default() });
            }
            lock => lock?,
        };
        let directory = self.path().join(mirror::DIRECTORY);
        let mut left = Leftovers::default();
        let entries = match fs::read_dir(&directory) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(left),
            entries => entries.map_err(Error::io(&directory))?,
        };
        for entry in entries {
            let path = entry.map_err(Error::io(&directory))?.path();
            // They have holes.
            left.bytes += fs::metadata(&path).map_err(Error::io(&path))?.blocks() * 512;
            self.inner().disk.remove(&path).map_err(Error::io(&path))?;
            left.files += 1;
        }
        Ok(left)
    }

    /// Takes `states` of another store, each with all that it needs and this one lacks: all of
    /// a state, or nothing. Each gets a number of its own; its parent is what this store has of
    /// the parent there.
    ///
    /// A state with the same root and packages that is here already is not taken again. Costs the
    /// directories that the two stores do not have in common, and what is missing, which takes
    /// room twice where a pack is not taken whole.
    ///
    /// # Errors
    /// - [`Error::DamagedSource`]: what has arrived is not what its hash names, or is incomplete.
    /// - [`Error::Remote`]: it does not arrive; what has arrived is kept for the next pull.
    /// - [`Error::SourceChanged`]: packs go there again and again meanwhile.
    /// - [`Error::Collision`]: this store has another content under the same key.
    /// - [`Error::Locked`] when another process pulls, or changes the store in the end.
    /// - [`Error::Cancelled`].
    pub fn pull(
        &self,
        source: &dyn PullSource,
        states: &[State],
        extent: PullExtent,
        progress: &dyn PullProgress,
    ) -> Result<Vec<Pulled>> {
        let _puller = Lock::take_puller(self.path())?;
        let mut theirs = source.refs()?;
        let mirror = Mirror::new(self, source, progress)?;
        let mut done = Vec::with_capacity(states.len());
        for (at, state) in states.iter().enumerate() {
            let extent = match extent {
                PullExtent::Publish(_) if at + 1 < states.len() => {
                    PullExtent::Publish(Standing::Aside)
                }
                extent => extent,
            };
            self.refresh()?;
            let mut attempts = 1;
            let pulled = loop {
                match self.pull_one(&mirror, state, &theirs, extent) {
                    Err(Error::SourceChanged { .. }) if attempts < ATTEMPTS => attempts += 1,
                    result => break result?,
                }
                mirror.look_again();
                theirs = source.refs()?;
                if same_as(state, &theirs).is_none() {
                    let text = format!("state {} has been removed there meanwhile", state.id);
                    return Err(Error::Remote { name: source.name(), source: text.into() });
                }
            };
            done.push(pulled);
        }
        if extent != PullExtent::Preview {
            mirror.clear()?;
        }
        Ok(done)
    }

    fn pull_one(
        &self,
        mirror: &Mirror<'_>,
        theirs: &State,
        their_refs: &Refs,
        extent: PullExtent,
    ) -> Result<Pulled> {
        for _ in 0..ATTEMPTS {
            let refs = self.refs();
            if let Some(there) = same_as(theirs, &refs) {
                if extent == PullExtent::Publish(Standing::Current)
                    && refs.current != Some(there.id)
                {
                    self.switch(there.id)?;
                }
                return Ok(Pulled::there(theirs, there.clone()));
            }
            let parent = theirs.parent.and_then(|id| their_refs.states.get(&id));
            let parent = parent.and_then(|parent| {
                let mut ours = refs.states.values().rev();
                ours.find(|ours| ours.tree == parent.tree)
            });
            let current = || refs.states.get(&refs.current?);
            let newest = || refs.states.values().next_back();
            let base = parent.or_else(current).or_else(newest);
            let needs = Walk::run(self, mirror, theirs, base)?;
            let mut pulled = Pulled {
                theirs: theirs.clone(),
                state: None,
                was_there: false,
                objects: needs.objects,
                bytes: needs.bytes,
                transferred: 0,
                stored: 0,
            };
            let arrivals = mirror.arrivals(&needs)?;
            pulled.transferred = mirror.transferred() + arrivals.missing;
            if extent == PullExtent::Preview {
                return Ok(pulled);
            }
            let PullExtent::Publish(standing) = extent else { continue };
            let draft = Draft {
                parent: parent.map(|parent| parent.id),
                request: theirs.request.clone(),
                tree: theirs.tree,
                packages: theirs.packages,
            };
            if let Some((state, stored)) = self.take(mirror, &needs, arrivals, draft, standing)? {
                pulled.state = Some(state);
                pulled.stored = stored;
                pulled.transferred = mirror.transferred();
                return Ok(pulled);
            }
            self.refresh()?;
        }
        Err(Error::Source {
            name: self.path().display().to_string(),
            source: io::Error::other("objects are collected again and again meanwhile"),
        })
    }

    /// Lets arrive what is missing, and publishes; `None` if something else that was there is
    /// gone meanwhile.
    fn take(
        &self,
        mirror: &Mirror<'_>,
        needs: &Needs,
        arrivals: Arrivals,
        draft: Draft,
        standing: Standing,
    ) -> Result<Option<(State, u64)>> {
        let packs = mirror.receive(arrivals)?;
        let mut transaction = self.begin_when_free()?;
        let index = transaction.index();
        let refs = self.refs();
        if needs.base.is_some_and(|base| !refs.states.contains_key(&base)) {
            return Ok(None);
        }
        for object in &needs.relied {
            if index.with(|index| index.location_of(*object))?.is_none() {
                return Ok(None);
            }
        }
        for (object, _) in packs.iter().flat_map(|pack| &pack.objects) {
            let ObjectId::Blob(key, offered) = *object else { continue };
            match index.with(|index| index.blob(key))? {
                Some((stored, _)) if stored != offered => {
                    return Err(Error::Collision { key, stored, offered });
                }
                _ => {}
            }
        }
        packs.into_iter().for_each(|pack| transaction.add_pack(pack));
        let stored = transaction.packed_len();
        let state = transaction.publish(draft, standing)?;
        Ok(Some((state, stored)))
    }
}

/// The newest state that is the same in all but its number.
fn same_as<'a>(theirs: &State, refs: &'a Refs) -> Option<&'a State> {
    let is_same = |ours: &&State| (ours.tree, ours.packages) == (theirs.tree, theirs.packages);
    refs.states.values().rev().find(is_same)
}

impl Pulled {
    fn there(theirs: &State, ours: State) -> Self {
        Self {
            theirs: theirs.clone(),
            state: Some(ours),
            was_there: true,
            objects: 0,
            bytes: 0,
            transferred: 0,
            stored: 0,
        }
    }
}
