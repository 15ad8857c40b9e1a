//! What has to hold of a store that is found after a power cut.

use std::fs;
use std::path::Path;

use cairn_tests::Ended;

use crate::operations::{Shown, World};

/// What was promised when the power went.
pub struct Promise<'a> {
    /// What may be shown: what was before the operation, or after it.
    pub shown: &'a [Shown],
    /// Whether a pack may be damaged: then it has to be repaired.
    pub is_damaged: bool,
    /// What is said to the program again if it was not done.
    pub again: Option<Vec<String>>,
    /// Whether the store is changed before it is verified, since looking heals.
    pub goes_on_first: bool,
}

/// Checks the store at `store`, with a collection and an installation.
///
/// # Errors
/// What is wrong.
pub fn check(world: &World, store: &Path, promise: &Promise<'_>) -> Result<(), String> {
    let ok = |words: &str| succeeded(words, &world.run(store, words));
    let sound = || {
        let verified = world.run(store, "verify");
        if verified.code() == Some(3) && promise.is_damaged {
            ok("verify --repair")?;
            return ok("verify");
        }
        succeeded("verify", &verified)
    };
    let shown = world.shown(store)?;
    if !promise.shown.contains(&shown) {
        return Err(format!("neither old nor new: {shown:?}, not one of {:?}", promise.shown));
    }
    world.check_workspace(store)?;
    if !promise.goes_on_first {
        sound()?;
    } else if promise.is_damaged {
        ok("verify --repair")?;
    }
    let shown = match &promise.again {
        Some(words) if shown == promise.shown[0] => {
            let again = world.command(store, words).output().map_err(|err| err.to_string())?;
            succeeded("said again", &again.into())?;
            world.shown(store)?
        }
        _ => shown,
    };
    // What nothing reaches goes, and nothing else.
    ok("gc --rewrite-below 100")?;
    if world.shown(store)? != shown {
        return Err("the collection has changed what there is".into());
    }
    world.check_workspace(store)?;
    ok("verify")?;
    ok("--yes install later")?;
    ok("verify")?;
    let again = world.run(store, "--json gc --rewrite-below 100");
    succeeded("gc", &again)?;
    if !again.stdout.contains("\"freed\": 0,") && !again.stdout.contains("\"freed\":0,") {
        return Err(format!("garbage stays after a collection: {}", again.stdout));
    }
    for directory in ["packs/new", "packs/gc"] {
        let left = fs::read_dir(store.join(directory)).map_or(0, Iterator::count);
        if left > 0 {
            return Err(format!("{left} files stay in {directory}"));
        }
    }
    Ok(())
}

fn succeeded(words: &str, ended: &Ended) -> Result<(), String> {
    if ended.code() == Some(0) {
        return Ok(());
    }
    Err(format!("{words}: {}: {}{}", ended.status, ended.stdout, ended.stderr))
}
