//! What people find who enter the build root of a recipe: `cairn build --shell`.

use std::fs;

use crate::enter::Entry;
use crate::error::{Error, Result};
use crate::guest;
use crate::job::Job;
use crate::macros::Expander;
use crate::places::Places;
use crate::recipe::Recipe;
use crate::run::Run;
use crate::strip;

impl Run<'_> {
    /// What a shell in the build root knows: a function `a_NAME` of each action, a
    /// variable `d_NAME` of each definition; and how to enter it.
    pub(crate) fn write_shell_files(&self, expander: &Expander, jobs: &[Job]) -> Result<()> {
        let mut text = String::from("PS1='(build) \\w \\$ '\n");
        if let Some(step) = jobs.iter().flat_map(|job| &job.steps).next() {
            // It is for people: without the trace, and without the end at an error.
            text.push_str("set() { :; }\n");
            text.push_str(&step.prefix);
            text.push_str("\nunset -f set\n");
        }
        for name in expander.definitions.keys() {
            if let Ok(value) = expander.text(&format!("%({name})")) {
                text.push_str(&format!("d_{name}={}\n", strip::quote(&value)));
            }
        }
        for name in expander.actions.keys().filter(|name| *name != "scriptBase") {
            if let Ok(expanded) = expander.script(&format!("%{name}")) {
                // What is wrong with one of them concerns nobody who does not use it.
                let command = expanded.text();
                let command = command.trim_end();
                let takes_more =
                    !["fi", "done", "esac", "}"].iter().any(|it| command.ends_with(it));
                let command = if takes_more { format!("{command} \"$@\"") } else { command.into() };
                text.push_str(&format!("a_{name}() {{ eval {}; }}\n", strip::quote(&command)));
            }
        }
        let path = self.work.at("control/shellrc");
        fs::write(&path, text).map_err(Error::io(&path))?;
        let directory = jobs.last().map_or("/", |job| job.work_directory.as_str());
        let rc = format!("{}/shellrc", guest::CONTROL);
        let command = ["/usr/bin/bash", "--rcfile", &rc, "-i"].map(String::from).to_vec();
        let entry = self.entry(command, directory)?;
        let path = self.work.at("control/shell.json");
        let json = serde_json::to_vec_pretty(&entry).expect("texts and paths");
        fs::write(&path, json).map_err(Error::io(&path))
    }
}

/// How the build root of a recipe that was built before is entered by people.
///
/// # Errors
/// [`Error::NotBuilt`]: it was never built, or has been cleaned away.
pub fn entry(recipe: &Recipe, places: &Places) -> Result<Entry> {
    let work = places.work_path(recipe);
    let path = work.join("control/shell.json");
    let not_built = || Error::NotBuilt { recipe: recipe.name.clone() };
    let bytes = fs::read(&path).map_err(|_| not_built())?;
    let mut entry: Entry = serde_json::from_slice(&bytes).map_err(|_| not_built())?;
    // The work directory is gone after a build that ended well.
    let inside = entry.directory.strip_prefix("/mason/").unwrap_or_default();
    if !work.join(inside).is_dir() {
        entry.directory = guest::below(guest::BUILD);
    }
    let rc = work.join("control/shellrc");
    let to = work.join("tmp/.cairn");
    fs::create_dir_all(&to).map_err(Error::io(&to))?;
    fs::copy(&rc, to.join("shellrc")).map_err(Error::io(&rc))?;
    Ok(entry)
}
