//! `cairn run`: a program inside a state.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use cairn_fs::{Event, Journal, Network, Program};
use cairn_store::Store;

use crate::context::{self, Context};
use crate::error::Error;
use crate::place::StateName;

/// Run a program inside a state
///
/// The state is its root directory. It is read-only; what the program writes to
/// /etc, /var, /tmp and /run is in memory and gone afterwards. The exit code is
/// that of the program, or 128 and the number of the signal that ended it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run it inside this state
    #[arg(long, default_value = "current")]
    state: StateName,
    /// The program and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<ExitCode, Error> {
    // Nothing of the store stays open: a database does not survive the copy of
    // this process from which the program is started.
    let (path, state) = {
        let store = context.store()?;
        let path = std::path::absolute(store.path()).map_err(Error::read(store.path()))?;
        (path, args.state.find(&store)?.id)
    };
    let (program, arguments) = args.command.split_first().expect("clap wants one word at least");
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
    let code = cairn_fs::run(&program, journal, || Ok::<_, Error>((Store::open(&path)?, state)))?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
