//! What lies below the layer of a workspace: one state for ever, as a source of
//! its own, also when the store no longer lists the state.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_store::{BlobRef, Reads, Refs, Result, State, Store, Tree, TreeId};
use serde::{Deserialize, Serialize};

use super::completion::{Completion, Noted};
use crate::source::Source;

/// What another process needs to have the same below a layer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Saved {
    state: State,
    completion: Option<Noted>,
}

/// A source that knows one state, and perhaps what completes it.
#[derive(Debug)]
pub(crate) struct Below {
    store: Store,
    /// With the tree that is to be shown.
    state: State,
    completion: Option<Completion>,
}

impl Below {
    /// The state alone.
    pub(crate) fn new(store: Store, state: State) -> Self {
        Self { store, state, completion: None }
    }

    /// The state and what completes it, in two directories.
    pub(crate) fn completed(store: Store, state: State) -> Result<Self> {
        let mut completion = Completion::new(&store, state.tree)?;
        let tree = completion.beside(&store, state.tree)?;
        Ok(Self { store, state: State { tree, ..state }, completion: Some(completion) })
    }
}

impl Below {
    /// What [`Below::resume`] asks for.
    pub(crate) fn save(&self) -> Saved {
        let completion = self.completion.as_ref().map(Completion::note);
        Saved { state: self.state.clone(), completion }
    }

    /// The same as in the process that saved it.
    pub(crate) fn resume(store: Store, saved: Saved) -> Result<Self> {
        let completion = saved.completion.map(Completion::of).transpose()?;
        Ok(Self { store, state: saved.state, completion })
    }
}

impl Source for Below {
    fn tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        let own = self.completion.as_ref().and_then(|completion| completion.tree(id));
        own.map_or_else(|| self.store.tree(id), |tree| Ok(tree.clone()))
    }

    fn read_at(&self, blob: &BlobRef, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let own = self.completion.as_ref().and_then(|completion| completion.content(blob.key));
        let Some(bytes) = own else { return self.store.read_at(blob, offset, buf) };
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
        let rest = rest.unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn refs(&self) -> Refs {
        let state = self.state.clone();
        Refs {
            current: None,
            newest: state.id,
            states: BTreeMap::from([(state.id, state)]),
            tags: BTreeMap::new(),
        }
    }

    fn refresh(&self) -> Result<()> {
        self.store.refresh()
    }

    fn wants_to_read_ahead(&self) -> bool {
        self.store.wants_to_read_ahead()
    }

    fn read_ahead(&self) {
        self.store.read_ahead();
    }

    fn reads(&self) -> Reads {
        self.store.reads()
    }
}
