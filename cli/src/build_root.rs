//! Build roots from the side of the command line: who enters them, and where
//! what was built is offered.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use cairn_build::enter::{Enter, Entered, Entry};
use cairn_build::fetch::{Download, FetchProgress};
use cairn_fs::{Event, Journal, Program};
use cairn_package::repository::{
    self, Config, DownloadProgress, Older, RepositoryName, Retry, Source, Url, index_directory,
};
use cairn_store::{StateId, Store};

use crate::context::Context;
use crate::error::Error;
use crate::output::Output;
use crate::progress::{Unit, retry_in_words};

/// The longest upstream in bytes.
const MAX_UPSTREAM: u64 = 16 << 30;

/// Gets files from servers.
pub(crate) struct Servers(pub repository::Network);

impl Download for Servers {
    fn download(
        &self,
        url: &str,
        to: &mut File,
        progress: &dyn FetchProgress,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let url: Url = url.parse()?;
        Ok(repository::download(&self.0, &url, to, MAX_UPSTREAM, &Told(progress))?)
    }
}

/// Tells a build how its downloads go on.
struct Told<'a>(&'a dyn FetchProgress);

impl DownloadProgress for Told<'_> {
    fn expect(&self, bytes: u64) {
        self.0.expect(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.0.advance(bytes);
    }

    fn lose(&self, bytes: u64) {
        self.0.lose(bytes);
    }

    fn retry(&self, retry: &Retry<'_>) {
        self.0.note(&retry_in_words(retry));
    }
}

/// Enters build roots through another process of this program, since one with
/// threads cannot be copied.
pub(crate) struct Helper {
    /// The store that has the build root.
    pub store: PathBuf,
}

struct Running {
    child: Child,
    output: Option<PipeReader>,
}

impl Enter for Helper {
    fn start(&self, entry: &Entry) -> io::Result<Box<dyn Entered>> {
        let (reader, writer) = io::pipe()?;
        let json = serde_json::to_string(entry).map_err(io::Error::from)?;
        let child = Command::new(std::env::current_exe()?)
            .arg("--store")
            .arg(&self.store)
            .args(["enter-build-root", &json])
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()?;
        Ok(Box::new(Running { child, output: Some(reader) }))
    }
}

impl Entered for Running {
    fn output(&mut self) -> Box<dyn Read + Send> {
        match self.output.take() {
            Some(output) => Box::new(output),
            None => Box::new(io::empty()),
        }
    }

    fn wait(&mut self) -> io::Result<i32> {
        let status = self.child.wait()?;
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After an error nobody waits for it.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs what `entry` says in its build root, in the place of this process.
pub(crate) fn enter(store: &Path, entry: &Entry) -> Result<ExitCode, Error> {
    let store = std::path::absolute(store).map_err(Error::read(store))?;
    let (program, arguments) = entry.command.split_first().expect("an entry has a command");
    let mut environment: Vec<_> =
        entry.environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
    // For the shell of a person; scripts set their own.
    environment.extend(std::env::var_os("TERM").map(|term| ("TERM".into(), term)));
    let program = Program {
        program: program.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        environment,
        stage: entry.stage.clone(),
        name: store.display().to_string(),
        run: Some(store.join("run")),
        binds: entry.binds.clone(),
        network: if entry.network { cairn_fs::Network::OfCaller } else { cairn_fs::Network::None },
        directory: entry.directory.clone().into(),
    };
    let journal: Journal = Arc::new(|event: &Event| {
        // The program goes on if nobody reads this.
        let _ = writeln!(io::stderr(), "cairn: {event}");
    });
    let state = StateId(entry.state);
    let code = cairn_fs::run(&program, journal, || Ok::<_, Error>((Store::open(&store)?, state)))?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Makes a directory of stones a repository of the store; returns its name.
pub(crate) fn offer(
    directory: &Path,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<String, Error> {
    let directory = directory.canonicalize().map_err(Error::read(directory))?;
    let phase = output.phase("Indexing stones", None, Unit::Pieces);
    index_directory(&directory, None, &phase)?;
    drop(phase);
    let store = context.store_or_new()?;
    let repositories = context.repositories(&store);
    let known = repositories.list()?;
    let is_it = |config: &&Config| {
        let Source::Direct { url } = &config.source else { return false };
        let index = directory.join("stone.index");
        url.local().is_some_and(|path| path == directory || path == index)
    };
    if let Some(config) = known.iter().find(is_it) {
        repositories.update(&config.name, Older::Refused, &())?;
        return Ok(config.name.to_string());
    }
    let free = |name: &RepositoryName| known.iter().all(|config| config.name != *name);
    let names = (0..).map(|number| match number {
        0 => "local".to_owned(),
        number => format!("local-{number}"),
    });
    let mut names = names.filter_map(|name| RepositoryName::new(&name).ok());
    let name = names.find(free).expect("there are many names");
    // What was built here is preferred to what others have built.
    let priority = known.iter().map(|config| config.priority).max().unwrap_or(0) + 10;
    let url = Url::of_path(&directory).map_err(repository::Error::from)?;
    let config = Config { priority, ..Config::new(name.clone(), Source::Direct { url }) };
    repositories.add(&config, &())?;
    output.status(format_args!("Repository {name} was added."));
    Ok(name.to_string())
}

/// The entry that another process of this program hands over.
pub(crate) fn entry_of(json: &str) -> Result<Entry, Error> {
    serde_json::from_str(json).map_err(Error::Json)
}
