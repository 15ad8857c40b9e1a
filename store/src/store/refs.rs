//! Changes of states and tags that make no new object: one record of refs/log each.

use super::Store;
use crate::error::{Error, Result};
use crate::log::Change;
use crate::state::{State, StateId, Tag};

impl Store {
    /// Makes an existing state the current one.
    ///
    /// Costs one record of refs/log, whatever the two states hold.
    pub fn switch(&self, id: StateId) -> Result<State> {
        let _lock = self.inner.lock()?;
        let state = self.state(id)?;
        self.inner.append(vec![Change::Current(id)])?;
        Ok(state)
    }

    /// Gives a state a name that keeps it; an existing tag moves.
    pub fn tag(&self, tag: Tag, id: StateId) -> Result<()> {
        let _lock = self.inner.lock()?;
        self.state(id)?;
        self.inner.append(vec![Change::Tag(tag, id)])
    }

    /// Removes a tag.
    pub fn untag(&self, tag: &Tag) -> Result<()> {
        let _lock = self.inner.lock()?;
        if !self.inner.log().refs.tags.contains_key(tag) {
            return Err(Error::UnknownTag(tag.clone()));
        }
        self.inner.append(vec![Change::Untag(tag.clone())])
    }

    /// Removes states, all or none; what only they hold is left to gc.
    ///
    /// # Errors
    /// [`Error::StateIsCurrent`] and [`Error::StateIsTagged`] protect what is
    /// in use.
    pub fn remove_states(&self, ids: &[StateId]) -> Result<()> {
        let _lock = self.inner.lock()?;
        let refs = self.inner.log().refs;
        let mut changes = Vec::new();
        for id in ids {
            if !refs.states.contains_key(id) {
                return Err(Error::UnknownState(*id));
            }
            if refs.current == Some(*id) {
                return Err(Error::StateIsCurrent(*id));
            }
            if let Some((tag, _)) = refs.tags.iter().find(|(_, tagged)| *tagged == id) {
                return Err(Error::StateIsTagged { state: *id, tag: tag.clone() });
            }
            if !changes.contains(&Change::Remove(*id)) {
                changes.push(Change::Remove(*id));
            }
        }
        match self.inner.append(changes.clone()) {
            // Room is what they are removed for.
            Err(err) if err.is_full() => {
                self.inner.give_up_index()?;
                self.inner.give_up_cache()?;
                self.inner.append(changes)
            }
            result => result,
        }
    }
}
