//! One entry in the menu of a boot loader.

use cairn_store::{State, StateId};

use super::kernel::{Kernel, OsRelease};

/// What is booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Whatever is current then.
    Current,
    /// This state, which becomes the current one.
    State(StateId),
}

/// One entry: a kernel with what is booted by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is booted.
    pub target: Target,
    /// The state whose kernel it is.
    pub state: State,
    /// The kernel.
    pub kernel: Kernel,
    /// The name of its file, without the directory.
    pub name: String,
    /// What people read in the menu.
    pub title: String,
    /// The command line of the kernel.
    pub options: String,
}

/// How the names of all files of Cairn below `loader/entries` begin.
pub(super) const PREFIX: &str = "cairn-";

/// The word of a command line that names a state.
pub(super) const STATE: &str = "cairn.state=";

impl Entry {
    /// The entry that boots `target` by `kernel`, which `state` has.
    ///
    /// `machine` is what all command lines of the machine have.
    pub(super) fn new(
        target: Target,
        state: &State,
        system: &OsRelease,
        kernel: Kernel,
        machine: &str,
    ) -> Self {
        let OsRelease { id, name } = system;
        let version = &kernel.version;
        let mut options: Vec<String> = vec![machine.into()];
        let (which, what) = match target {
            Target::Current => ("current".into(), String::new()),
            Target::State(state_id) => {
                options.push(format!("{STATE}{state_id}"));
                // Zeros, so that menus that order names have the newest at one end.
                (format!("{:08}", state_id.0), format!(", state {state_id}: {}", state.request))
            }
        };
        options.extend(kernel.options.iter().cloned());
        options.retain(|option| !option.is_empty());
        Self {
            target,
            name: format!("{PREFIX}{id}-{which}-{version}.conf"),
            title: line(&format!("{name} ({version}){what}")),
            options: line(&options.join(" ")),
            state: state.clone(),
            kernel,
        }
    }

    /// The text of its file; `paths` are those of the kernel and its initial file systems,
    /// as the boot loader sees them.
    pub(super) fn text(&self, system: &OsRelease, image: &str, initrds: &[String]) -> String {
        let mut text = format!("title {}\n", self.title);
        // Entries of a system stand together, with what is current on top: of the same
        // version, that with the greater name comes first.
        text += &format!("sort-key cairn-{}\n", system.id);
        text += &format!("version {}\n", self.kernel.version);
        text += &format!("linux {image}\n");
        for initrd in initrds {
            text += &format!("initrd {initrd}\n");
        }
        text + &format!("options {}\n", self.options)
    }
}

/// Text as it can stand in one line: each run of spaces and control characters is a space.
pub(super) fn line(text: &str) -> String {
    text.split(|char: char| char.is_whitespace() || char.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
