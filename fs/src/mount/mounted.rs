//! A mount as its own threads see it: switched, asked, and told to end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::Session;

use crate::error::{Error, Result};
use crate::event::{Event, Journal};
use crate::mount::attach::Unmount;
use crate::mount::registration::Registered;
use crate::mount::unmounter::Unmounter;
use crate::process::control::{Live, Refreshed, Restarting, Settled, Status};
use crate::serve::counters::{Known, Stats};
use crate::serve::filesystem::Filesystem;
use crate::serve::fuse::Fuse;
use crate::serve::node::NodeId;
use crate::serve::notice::Notices;
use crate::serve::passthrough;
use crate::serve::switch::{Change, Switched};
use crate::shape::{Shape, Shown};
use crate::source::Source;

/// A mount as its own threads see it.
pub(crate) struct Mounted<S> {
    pub(crate) filesystem: Arc<Filesystem<S>>,
    /// Gone when the connection has ended.
    notices: Mutex<Option<Notices>>,
    registered: Mutex<Option<Registered>>,
    switching: Mutex<()>,
    pub(crate) journal: Journal,
    pub(crate) unmounter: Unmounter,
}

impl<S: Source> Mounted<S> {
    pub(crate) fn new(
        filesystem: Arc<Filesystem<S>>,
        session: &Session<Fuse<S>>,
        registered: Option<Registered>,
        journal: Journal,
        unmounter: Unmounter,
    ) -> Result<Self> {
        let notices = Notices::of(session).map_err(|source| Error::Session { source })?;
        Ok(Self {
            filesystem,
            notices: Mutex::new(Some(notices)),
            registered: Mutex::new(registered),
            switching: Mutex::new(()),
            journal,
            unmounter,
        })
    }
}

impl<S> Mounted<S> {
    pub(crate) fn notices(&self) -> MutexGuard<'_, Option<Notices>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held by whoever switches and tells the kernel.
    pub(crate) fn switching(&self) -> MutexGuard<'_, ()> {
        self.switching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn registered(&self) -> MutexGuard<'_, Option<Registered>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Source> Mounted<S> {
    /// Writes down what is shown and, if it comes to that, what will be.
    fn register(&self, next: Option<&Shown>) -> Result<()> {
        let mut trees = self.filesystem.roots();
        let state = match next {
            Some(next) => {
                trees.extend(
                    next.roots.iter().filter(|root| !trees.contains(root)).collect::<Vec<_>>(),
                );
                next.state
            }
            None => self.filesystem.view().state(),
        };
        let mut registered = self.registered();
        let Some(registered) = &mut *registered else { return Ok(()) };
        let was_kept = registered.keeper().is_some();
        registered.update(state, trees)?;
        if was_kept && registered.keeper().is_none() {
            (self.journal)(&Event::KeeperLost);
        }
        Ok(())
    }

    /// Tells the kernel what it must no longer believe, and notes what went wrong
    /// with a switch; returns how many names were told.
    pub(crate) fn tell(&self, switched: Switched) -> usize {
        for source in switched.unreadable {
            let what = "a directory that has changed".into();
            (self.journal)(&Event::Unreadable { what, source });
        }
        self.kept(switched.not_kept.map_or(Ok(()), Err));
        let Some(notices) = self.notices().clone() else { return 0 };
        let mut names = 0;
        for Change { directory, names: changed } in &switched.changes {
            // What the kernel has forgotten meanwhile it need not be told.
            if !self.filesystem.table().has_directory(*directory) {
                continue;
            }
            let told = changed.iter().map(|name| notices.forget_name(*directory, name));
            let told = told.chain([()].iter().map(|()| notices.look_anew(*directory)));
            for source in told.filter_map(io::Result::err) {
                // It is unmounted just now, and nothing is believed any more.
                if source.raw_os_error() != Some(libc::ENOTCONN) {
                    (self.journal)(&Event::NotTold { source });
                }
            }
            names += changed.len();
        }
        self.kept(self.filesystem.has_told());
        names
    }

    fn kept(&self, result: io::Result<()>) {
        if let Err(source) = result {
            (self.journal)(&Event::NotKept { source });
        }
    }
}

impl<S: Source> Live for Mounted<S> {
    fn refresh(&self) -> Result<Refreshed> {
        let _one_at_a_time = self.switching();
        let source = &self.filesystem.source;
        source.refresh()?;
        if let Shape::Pinned(id) = self.filesystem.shape {
            return Ok(Refreshed { state: Some(id), ..Refreshed::default() });
        }
        let mut next = Shown::of(self.filesystem.shape, &source.refs())?;
        loop {
            self.register(Some(&next))?;
            // What was still there after it had been registered stays.
            source.refresh()?;
            let again = Shown::of(self.filesystem.shape, &source.refs())?;
            if again.roots == next.roots {
                next = again;
                break;
            }
            next = again;
        }
        // Readers wait while the trees are compared, so the disk is asked
        // before for those that are new for certain.
        if let Some(main) = next.main {
            source.tree(main)?;
        }
        let switched = self.filesystem.switch(next);
        let directories = switched.changes.len();
        let names = self.tell(switched);
        self.register(None)?;
        Ok(Refreshed { state: self.filesystem.view().state(), directories, names })
    }

    fn status(&self) -> Status {
        Status { state: self.filesystem.view().state(), nodes: self.filesystem.table().len() }
    }

    fn stats(&self) -> Stats {
        let filesystem = &self.filesystem;
        let state = filesystem.view().state();
        let (nodes, opens) = {
            let table = filesystem.table();
            (table.len(), table.opens())
        };
        let (kept_awake, store) = (filesystem.awake.held(), filesystem.source.reads());
        let mut stats = filesystem.counters.stats(Known { state, nodes, opens, kept_awake, store });
        for slow in &mut stats.slowest {
            slow.path = filesystem.path_of(NodeId::from_kernel(slow.node));
        }
        stats
    }

    fn unmount(&self, how: Unmount) -> Result<()> {
        self.unmounter.unmount(how)
    }

    fn restart(&self, program: OwnedFd, asker: &UnixStream) -> Restarting {
        let registered = self.registered();
        let Some(keeper) = registered.as_ref().and_then(Registered::keeper) else {
            return Restarting::Refused("nobody keeps it while no process answers for it".into());
        };
        match keeper.restart(program.as_fd(), asker.as_fd()) {
            Ok(true) => Restarting::ByKeeper,
            Ok(false) => Restarting::BySupervisor,
            Err(err) => Restarting::Refused(format!("its keeper does not answer: {err}")),
        }
    }

    fn settle(&self) -> Result<()> {
        self.filesystem.settle();
        self.register(None)
    }

    fn settle_some(&self) -> Settled {
        if self.filesystem.settle_some() {
            return Settled::Partly;
        }
        if let Err(source) = self.register(None) {
            (self.journal)(&Event::NotRegistered { source });
        }
        let notices = self.notices().clone();
        if let Some(notices) = notices {
            passthrough::let_go_of_gone(&self.filesystem, &notices, &self.journal);
        }
        if self.filesystem.holds_old_roots() { Settled::ForNow } else { Settled::Wholly }
    }

    fn note(&self, event: &Event) {
        (self.journal)(event);
    }
}
