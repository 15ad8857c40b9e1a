//! What lies below the layer of a workspace: one state for ever, as a source of
//! its own, also when the store no longer lists the state.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_store::{BlobRef, Refs, Result, State, Tree, TreeId};

use crate::source::Source;

/// A source that knows one state.
#[derive(Debug)]
pub(crate) struct Below<S> {
    source: S,
    state: State,
}

impl<S> Below<S> {
    pub(crate) fn new(source: S, state: State) -> Self {
        Self { source, state }
    }
}

impl<S: Source> Source for Below<S> {
    fn tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        self.source.tree(id)
    }

    fn read_at(&self, blob: &BlobRef, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.source.read_at(blob, offset, buf)
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
        self.source.refresh()
    }
}
