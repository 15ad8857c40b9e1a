//! Mounts that follow what a command has changed.

use std::time::Duration;

use cairn_fs::{Shape, control};
use cairn_store::Store;
use serde::Serialize;

use crate::error::{Error, in_one_line};
use crate::page::{Page, Style};

/// So long a mount may take to show a new state. One that takes longer is
/// stuck, and waiting for it would only stick the command as well.
const DEADLINE: Duration = Duration::from_secs(10);

/// What the mounts of a store say of a change.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Mounts(Vec<MountView>);

#[derive(Debug, Serialize)]
struct MountView {
    target: String,
    #[serde(skip)]
    is_live_root: bool,
    /// Why it does not show the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

impl Mounts {
    /// Lets all mounts of `store` that follow look at it anew. When this
    /// returns, they show what was committed before, or say why not.
    pub(crate) fn refresh(store: &Store) -> Self {
        let run = store.path().join("run");
        match control::refresh_all(&run, DEADLINE) {
            Ok(mounts) => {
                let views = mounts.into_iter().map(|(mount, result)| MountView {
                    is_live_root: mount.shape == Shape::Follow,
                    target: mount.target,
                    failure: result.err().map(|err| in_one_line(&err)),
                });
                Self(views.collect())
            }
            Err(err) => {
                let (target, failure) = ("all".into(), Some(in_one_line(&err)));
                Self(vec![MountView { target, is_live_root: false, failure }])
            }
        }
    }

    /// Lets all mounts of `store` do what switches have left to do: before gc, which keeps
    /// what they hold.
    pub(crate) fn settle(store: &Store) {
        // It keeps more where that cannot be.
        let _ = control::settle_all(&store.path().join("run"), DEADLINE);
    }

    /// Where the current state is shown as a live root by now.
    pub(crate) fn live_roots(&self) -> impl Iterator<Item = &str> {
        let shown = self.0.iter().filter(|mount| mount.is_live_root && mount.failure.is_none());
        shown.map(|mount| mount.target.as_str())
    }

    /// Tells of mounts that do not show the change.
    pub(crate) fn show_failures(&self, page: &mut Page) {
        for MountView { target, failure, .. } in &self.0 {
            if let Some(failure) = failure {
                page.marked_line(Style::Bad, "not shown: ", format_args!("{target}: {failure}"));
            }
        }
    }

    /// An error if some do not show the change.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let failed = self.0.iter().filter(|mount| mount.failure.is_some()).count();
        if failed > 0 { Err(Error::NotShown { failed }) } else { Ok(()) }
    }
}
