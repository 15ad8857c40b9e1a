//! `cairn run`: a program inside a state.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::sync::Arc;

use cairn_fs::workspace::{self, Room};
use cairn_fs::{Event, Journal, Network, Program};
use cairn_store::{Store, WorkspaceName};

use crate::context::{self, Context};
use crate::error::Error;
use crate::escape::Escaped;
use crate::place::StateName;

/// Run a program inside a state
///
/// The state (a number, a tag or `current`) is its root directory. It is read-only;
/// what the program writes to /etc, /var, /tmp and /run is in memory and gone
/// afterwards. With --rw all of it can be changed: in a workspace, which keeps what
/// was changed, or without a name in memory. The exit code is that of the program, or 128 and the number of the
/// signal that ended it.
#[derive(clap::Args)]
#[command(override_usage = "cairn run [OPTIONS] [--rw [NAME]] [[STATE] --] COMMAND...")]
pub(crate) struct Args {
    /// Run it inside this state (default: the current one, or that of the
    /// workspace); the same as STATE -- before the command
    #[arg(long)]
    state: Option<StateName>,
    /// Let it change everything: in the workspace NAME, which is made if there is
    /// none, or where nothing is kept; write -- before the command
    #[arg(long, value_name = "NAME", num_args = 0..=1)]
    #[allow(clippy::option_option, reason = "an option with an optional value")]
    rw: Option<Option<WorkspaceName>>,
    /// The program and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

impl Args {
    /// The state that is asked for, and the command. A word before the first `--` is
    /// a state, unless it is a program behind another `--`.
    fn split(&self, arguments: &[OsString]) -> Result<(Option<StateName>, &[OsString]), Error> {
        let command = &self.command[..];
        let before = arguments.len().checked_sub(command.len() + 1).map(|at| &arguments[at]);
        let is_escaped = before.is_some_and(|word| word == "--");
        let (word, command) = match command {
            [word, dashes, command @ ..] if dashes == "--" && !is_escaped => (word, command),
            _ => return Ok((self.state.clone(), command)),
        };
        if self.state.is_some() || command.is_empty() {
            return Err(Error::StateTwice(Escaped(word.as_bytes()).to_string()));
        }
        let state = word.to_str().and_then(|word| word.parse().ok());
        match state {
            Some(state) => Ok((Some(state), command)),
            None => Err(Error::NotAState(Escaped(word.as_bytes()).to_string())),
        }
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<ExitCode, Error> {
    let (state, command) = args.split(context.arguments())?;
    // Nothing of the store stays open: a database does not survive the copy of
    // this process from which the program is started.
    let store = context.store()?;
    let path = std::path::absolute(store.path()).map_err(Error::read(store.path()))?;
    let state = state.map(|state| state.find(&store)).transpose()?;
    let state = state.map(|state| state.id);
    let current = || state.map_or_else(|| Ok(store.current()?.id), Ok::<_, Error>);
    let (program, arguments) = command.split_first().expect("one word at least");
    let program = Program {
        program: program.clone(),
        arguments: arguments.to_vec(),
        environment: context::environment_inside(),
        stage: std::env::temp_dir(),
        name: path.display().to_string(),
        run: Some(path.join("run")),
        binds: Vec::new(),
        network: Network::OfCaller,
        directory: "/".into(),
    };
    let journal: Journal = Arc::new(|event: &Event| {
        // The program goes on if nobody reads this.
        let _ = writeln!(io::stderr(), "cairn: {event}");
    });
    let code = match &args.rw {
        None => {
            let state = current()?;
            cairn_fs::run(&program, journal, || Ok::<_, Error>((Store::open(&path)?, state)))?
        }
        Some(None) => workspace::run(&program, &Room::ThrowAway(current()?), &path, journal)?,
        Some(Some(name)) => {
            let held = workspace::hold(&store, name)?;
            workspace::open(&held, state, &store)?;
            workspace::run(&program, &Room::Workspace(held), &path, journal)?
        }
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
