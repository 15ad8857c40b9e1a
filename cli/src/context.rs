//! What all commands share: the options before and after them, and the place
//! of the store. The environment is read here and nowhere else.

use std::ffi::OsString;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cairn_fs::Event;
use cairn_fs::sandbox::Limits;
use cairn_package::repository::{Network, ProxyServer, Repositories};
use cairn_package::stone::ContentOptions;
use cairn_package::trigger::{RunOptions, Triggers};
use cairn_store::Store;

use crate::config::Config;
use crate::error::Error;
use crate::sys;

/// The options that every command takes.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Options {
    /// Use the store in this directory (default: $CAIRN_STORE, else
    /// /var/lib/cairn for root and ~/.local/share/cairn for others)
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Use the store of the system in this root: DIR/var/lib/cairn
    #[arg(short = 'D', long, global = true, value_name = "DIR", conflicts_with = "store")]
    pub directory: Option<PathBuf>,
    /// Keep indices and downloaded stones in this directory instead of the store
    #[arg(long, global = true, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Print data as one JSON document, and nothing for people
    #[arg(long, global = true)]
    pub json: bool,
    /// Answer every question with yes
    #[arg(short, long, global = true, alias = "yes-all")]
    pub yes: bool,
    /// Print data, warnings and errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print this much beside data; counts more than --quiet and --verbose
    #[arg(long, global = true, value_enum, value_name = "LEVEL")]
    pub log: Option<Level>,
    /// Use colours
    #[arg(long, global = true, value_enum, value_name = "WHEN")]
    pub color: Option<Color>,
    /// Print long lists at once, also on a terminal
    #[arg(long, global = true)]
    pub no_pager: bool,
    /// Print more
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// How much is printed on standard error. A question, and what it is about, always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Level {
    /// Nothing: the exit code tells
    Off,
    /// Errors
    Error,
    /// Warnings, too: the same as --quiet
    Warn,
    /// Progress and results, too: the usual
    Info,
    /// More, too: the same as --verbose
    Debug,
    /// The same as debug
    Trace,
}

impl Options {
    /// How much is printed beside data.
    pub(crate) fn level(&self) -> Level {
        self.log.unwrap_or(match (self.quiet, self.verbose) {
            (true, _) => Level::Warn,
            (_, true) => Level::Debug,
            _ => Level::Info,
        })
    }
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Color {
    /// On terminals, unless NO_COLOR is set
    #[default]
    Auto,
    /// Also in files and pipes
    Always,
    /// Not at all
    Never,
}

/// What a command is told beside its own arguments.
pub(crate) struct Context {
    options: Options,
    config: Config,
    /// What the program was called with, without its name.
    arguments: Vec<OsString>,
    temporary: PathBuf,
}

/// The name of the hidden command from which sandboxes are made.
pub(crate) const SANDBOX_HELPER: &str = "sandbox-helper";

/// Contents of packages up to this size are decompressed in memory.
const CONTENT_IN_MEMORY: u64 = 256 << 20;

impl Context {
    /// Keeps the options of the command line, and what files say beside them.
    pub(crate) fn new(options: Options, config: Config, arguments: Vec<OsString>) -> Self {
        Self { options, config, arguments, temporary: std::env::temp_dir() }
    }

    /// What the program was called with, without its name.
    pub(crate) fn arguments(&self) -> &[OsString] {
        &self.arguments
    }

    /// Begins the program anew with a name that begins with `@`, unless it has one:
    /// whoever ends all processes at shutdown leaves such a one alone, since the root
    /// of the system is served by it.
    ///
    /// Source: systemd.io/ROOT_STORAGE_DAEMONS.
    pub(crate) fn become_storage_daemon(&self) -> Result<(), Error> {
        let name = std::env::args_os().next().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(b"@") {
            return Ok(());
        }
        let mut marked = OsString::from("@");
        marked.push(Path::new(&name).file_name().unwrap_or_default());
        let mut again = Command::new("/proc/self/exe");
        let error = again.arg0(marked).args(&self.arguments).exec();
        Err(Error::Again(error))
    }

    /// The directory of the store that the command is about.
    ///
    /// # Errors
    /// - [`Error::NoStorePath`]: nothing names one, and there is no home directory
    ///   where it would be by default.
    /// - [`Error::ForeignStore`]: it belongs to another user.
    pub(crate) fn store_path(&self) -> Result<PathBuf, Error> {
        let variable = |name: &str| std::env::var_os(name);
        let of_root = self.options.directory.as_ref().map(|root| root.join("var/lib/cairn"));
        let option = self.options.store.clone().or(of_root);
        let configured = self.config.store.clone();
        let path = store_path(option, variable, configured, sys::is_root())?;
        check_owner(&path)?;
        Ok(path)
    }

    /// The store that the command is about, opened.
    pub(crate) fn store(&self) -> Result<Store, Error> {
        Ok(Store::open(&self.store_path()?)?)
    }

    /// The same; if there is none, an empty one is made.
    pub(crate) fn store_or_new(&self) -> Result<Store, Error> {
        let path = self.store_path()?;
        match Store::open(&path) {
            Err(cairn_store::Error::NotAStore { .. }) => Ok(Store::create(&path)?),
            opened => Ok(opened?),
        }
    }

    /// What is done about triggers.
    pub(crate) fn triggers(&self, skip: bool) -> Triggers {
        if skip {
            return Triggers::Skip;
        }
        // The program itself, also when another one has come in its place.
        let helper = vec!["/proc/self/exe".into(), SANDBOX_HELPER.into()];
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        Triggers::Run(RunOptions {
            helper,
            stage: self.temporary.clone(),
            limits: Limits::default(),
            variables: names.collect(),
            journal: Arc::new(|event: &Event| {
                // The trigger that meets it fails, and says so itself.
                let _ = writeln!(io::stderr(), "cairn: {event}");
            }),
        })
    }

    /// The repositories of a store, spoken to as the environment says.
    pub(crate) fn repositories(&self, store: &Store) -> Repositories {
        let repositories = Repositories::new(store.path(), self.network());
        match self.options.cache.as_ref().or(self.config.cache.as_ref()) {
            // Only a directory that was removed meanwhile keeps a path from being absolute.
            Some(cache) => repositories
                .with_cache(&std::path::absolute(cache).unwrap_or_else(|_| cache.clone())),
            None => repositories,
        }
    }

    /// How servers are spoken to, as the environment says.
    pub(crate) fn network(&self) -> Network {
        let variable = |name: &str| std::env::var(name).ok();
        let usual = Network::default();
        let connections = self.config.connections.map_or(usual.connections, Into::into);
        Network { proxy: proxy(variable), connections, ..usual }
    }

    /// What is run instead of ssh(1), as a command for the shell.
    #[expect(clippy::unused_self, reason = "the environment is a part of the context")]
    pub(crate) fn ssh(&self) -> Option<String> {
        std::env::var("CAIRN_SSH").ok().filter(|command| !command.trim().is_empty())
    }

    /// The password of a secret key, for signing where nobody is there to be
    /// asked.
    #[expect(clippy::unused_self, reason = "the environment is a part of the context")]
    pub(crate) fn key_password(&self) -> Option<String> {
        std::env::var("CAIRN_KEY_PASSWORD").ok()
    }

    /// The directory of the store as an absolute path, for another process.
    pub(crate) fn store_directory(&self) -> Result<PathBuf, Error> {
        let path = self.store_path()?;
        std::path::absolute(&path).map_err(Error::read(path))
    }

    /// Where builds keep what they need, unless the command line says.
    ///
    /// # Errors
    /// [`Error::NoStorePath`]: there is no home directory.
    #[expect(clippy::unused_self, reason = "it belongs to what the command is told")]
    pub(crate) fn cache_path(&self, option: Option<PathBuf>) -> Result<PathBuf, Error> {
        let variable =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
        let home = || Some(variable("HOME")?.join(".cache"));
        let usual = || {
            if sys::is_root() {
                return Some(PathBuf::from("/var/cache/cairn"));
            }
            variable("XDG_CACHE_HOME").or_else(home).map(|it| it.join("cairn"))
        };
        let path = option.or_else(|| variable("CAIRN_CACHE")).or_else(usual);
        let path = path.ok_or(Error::NoStorePath)?;
        std::path::absolute(&path).map_err(Error::read(path))
    }

    /// The time of everything that is built, where somebody has set it
    /// (reproducible-builds.org, SOURCE_DATE_EPOCH).
    #[expect(clippy::unused_self, reason = "it belongs to what the command is told")]
    pub(crate) fn source_date_epoch(&self) -> Option<u64> {
        std::env::var("SOURCE_DATE_EPOCH").ok()?.parse().ok()
    }

    /// How contents of packages are decompressed outside of a store.
    pub(crate) fn content_options(&self) -> ContentOptions<'_> {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        ContentOptions { memory: CONTENT_IN_MEMORY, directory: &self.temporary, threads }
    }

    /// Whether data is to be printed as JSON.
    pub(crate) fn json(&self) -> bool {
        self.options.json
    }

    /// Whether the user wants to know more than usual.
    pub(crate) fn verbose(&self) -> bool {
        self.options.level() >= Level::Debug
    }
}

/// Checks that a store, if there is one, belongs to the user or to root.
///
/// Somebody else could put links in the place of its files, and lead whoever works on
/// it, root above all, to read or write what is elsewhere.
pub(crate) fn check_owner(path: &Path) -> Result<(), Error> {
    let owner = match std::fs::metadata(path) {
        Ok(data) => data.uid(),
        Err(_) => return Ok(()),
    };
    let (user, _) = sys::user_and_group();
    if owner != 0 && owner != user {
        return Err(Error::ForeignStore { path: path.into(), owner });
    }
    Ok(())
}

/// The proxy that the environment names, as curl and others read it.
fn proxy(variable: impl Fn(&str) -> Option<String>) -> Option<ProxyServer> {
    let named = |names: &[&str]| {
        names.iter().filter_map(|name| variable(name)).find(|value| !value.trim().is_empty())
    };
    // HTTP_PROXY in capitals is what a CGI program gets from its client.
    let url = named(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy"])?;
    let except = named(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
    let except = except.split(',').map(|host| host.trim().to_owned());
    Some(ProxyServer { url, except: except.filter(|host| !host.is_empty()).collect() })
}

/// Whether NO_COLOR asks for text without colours (no-color.org: set, and not
/// to the empty text).
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// The command that shows long text: what the environment names before what files name.
/// Nothing where none is wanted.
pub(crate) fn pager_command(config: &Config) -> Option<String> {
    let variable = |name| std::env::var(name).ok();
    let named = variable("CAIRN_PAGER").or_else(|| config.pager.clone());
    let pager = named.or_else(|| variable("PAGER")).unwrap_or_else(|| "less".into());
    let pager = pager.trim();
    // As git has it.
    (!pager.is_empty() && pager != "cat").then(|| pager.to_owned())
}

/// What a pager is told of how to show text, unless the user has told it: to end at once
/// if it fits, to show colours, and to leave the text there.
pub(crate) fn pager_variables() -> Vec<(&'static str, &'static str)> {
    let usual = [("LESS", "FRX"), ("LV", "-c")];
    usual.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect()
}

/// What the configuration files say; `CAIRN_CONFIG` names the one that counts alone.
pub(crate) fn configuration() -> Result<Config, Error> {
    match std::env::var_os("CAIRN_CONFIG") {
        Some(path) if path.is_empty() => Ok(Config::default()),
        Some(path) => Config::read(Path::new(&path)),
        None => Config::load(&configuration_directories()),
    }
}

/// What a program inside a state gets of the environment, beside the usual
/// places of programs and a home.
pub(crate) fn environment_inside() -> Vec<(OsString, OsString)> {
    let usual = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
    ];
    let passed = ["TERM", "COLORTERM", "LANG", "LC_ALL", "TZ", "NO_COLOR"];
    let usual = usual.map(|(name, value)| (name.into(), value.into()));
    let passed = passed.into_iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
    usual.into_iter().chain(passed).collect()
}

/// Where a distribution, the machine and the user configure Cairn, in the order
/// in which they count.
pub(crate) fn configuration_directories() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
    let home = || Some(variable("HOME")?.join(".config"));
    let own = variable("XDG_CONFIG_HOME").or_else(home).map(|it| it.join("cairn"));
    let usual = ["/usr/share/cairn", "/etc/cairn"].map(PathBuf::from);
    usual.into_iter().chain(own).collect()
}

/// Where a supervisor wants to hear that the program is ready, as in
/// sd_notify(3).
pub(crate) fn notify_socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|value| !value.is_empty())
}

/// The descriptors that a supervisor has kept for this process, with their names, as
/// in sd_listen_fds(3). To be called once.
pub(crate) fn kept_descriptors() -> io::Result<Vec<(String, OwnedFd)>> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    let count = number("LISTEN_FDS").unwrap_or(0);
    names.zip(3..).take(count as usize).map(|(name, at)| Ok((name, sys::inherited(at)?))).collect()
}

fn store_path(
    option: Option<PathBuf>,
    variable: impl Fn(&str) -> Option<OsString>,
    configured: Option<PathBuf>,
    is_root: bool,
) -> Result<PathBuf, Error> {
    let named = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = option.or_else(|| named("CAIRN_STORE")).or(configured) {
        return Ok(path);
    }
    if is_root {
        return Ok("/var/lib/cairn".into());
    }
    // XDG Base Directory Specification: a relative path there is to be ignored.
    let data = named("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let home = || named("HOME").map(|home| home.join(".local/share"));
    let data = data.or_else(home).ok_or(Error::NoStorePath)?;
    Ok(data.join("cairn"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(option: Option<&str>, variables: &[(&str, &str)], is_root: bool) -> Option<PathBuf> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        };
        store_path(option.map(PathBuf::from), variable, None, is_root).ok()
    }

    #[test]
    fn a_proxy_is_named_by_the_environment() {
        let find = |variables: &[(&str, &str)]| {
            let known = |name: &str| variables.iter().find(|(it, _)| *it == name);
            proxy(|name| known(name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[("https_proxy", " "), ("HTTP_PROXY", "http://client:1")]), None);
        let found = find(&[("http_proxy", "http://p:1"), ("no_proxy", "a, .b ,")]).unwrap();
        let except = vec!["a".into(), ".b".into()];
        assert_eq!(found, ProxyServer { url: "http://p:1".into(), except });
    }

    #[test]
    fn the_store_is_where_the_nearest_word_says() {
        let variables = [("CAIRN_STORE", "/c"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
        let relative = [("CAIRN_STORE", ""), ("XDG_DATA_HOME", "x"), ("HOME", "/h")];
        assert_eq!(path(Some("o"), &variables, true), Some("o".into()));
        assert_eq!(path(None, &variables, true), Some("/c".into()));
        assert_eq!(path(None, &variables[1..], true), Some("/var/lib/cairn".into()));
        assert_eq!(path(None, &variables[1..], false), Some("/x/cairn".into()));
        assert_eq!(path(None, &relative, false), Some("/h/.local/share/cairn".into()));
        assert_eq!(path(None, &[], false), None);
        let configured = |variables: &[(&str, &str)]| {
            let known = |name: &str| variables.iter().find(|it| it.0 == name);
            let variable = |name: &str| known(name).map(|it| it.1.into());
            store_path(None, variable, Some("/f".into()), true).ok()
        };
        assert_eq!(configured(&[]), Some("/f".into()));
        assert_eq!(configured(&variables), Some("/c".into()));
    }
}
