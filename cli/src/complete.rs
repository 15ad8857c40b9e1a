//! What a shell offers where the name of something stands: packages, states, tags,
//! repositories and workspaces, as the store has them at that moment.
//!
//! The script that a shell reads once runs the program again whenever somebody asks for
//! completions, with [`VARIABLE`] in its environment. Nothing is written and no server is
//! asked; what cannot be read is not offered.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use cairn_package::system::InstalledPackage;
use cairn_store::Store;
use clap::{Arg, Command, CommandFactory};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};

use crate::context::{self, Context, Options};
use crate::error::Error;

/// The variable that says which shell asks.
const VARIABLE: &str = "CAIRN_COMPLETE";

/// Commands for packages that are installed; the others are for those on offer.
const OF_INSTALLED: [&str; 9] =
    ["check", "downgrade", "files", "history", "rdepends", "reinstall", "remove", "upgrade", "why"];
/// Arguments that name a state.
const STATES: [&str; 6] = ["bad", "good", "new", "old", "state", "states"];

/// Answers a shell and ends the process, if one asks.
pub(crate) fn answer() {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// Writes what `shell` has to read once.
pub(crate) fn script(shell: &str) -> Result<Vec<u8>, Error> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let shell = shells.completer(shell).expect("it is one of those that can be named");
    shell
        .write_registration(VARIABLE, "cairn", "cairn", "cairn", &mut script)
        .map_err(Error::Output)?;
    if shell.is("zsh") {
        script.extend_from_slice(FIRST_IN_ZSH.as_bytes());
    }
    Ok(script)
}

/// zsh reads the script, as a function of this name, when it is asked for completions for
/// the first time: they would only come the second time.
const FIRST_IN_ZSH: &str =
    "if [[ $funcstack[1] == _cairn ]]; then _clap_dynamic_completer_cairn; fi\n";

/// The command line, in which arguments know what they can be.
fn command() -> Command {
    with_candidates(crate::Cli::command(), "")
}

fn with_candidates(command: Command, above: &str) -> Command {
    let name = command.get_name().to_owned();
    let of_installed = OF_INSTALLED.contains(&name.as_str());
    let above = above.to_owned();
    let command = command.mut_args(|arg| {
        let is = |value: &str| {
            arg.get_value_names().is_some_and(|names| names.iter().any(|it| it.as_str() == value))
        };
        match arg.get_id().as_str() {
            "packages" | "package" if of_installed => offering(arg, installed),
            "packages" | "package" if is("PACKAGE") => offering(arg, offered),
            "place" | "places" => offering(arg, states),
            id if STATES.contains(&id) => offering(arg, states),
            "tag" => offering(arg, tags),
            "name" | "names" if above == "repo" && name != "add" => offering(arg, repositories),
            "name" | "names" | "workspace" if above == "workspace" || name == "snapshot" => {
                offering(arg, workspaces)
            }
            "rw" => offering(arg, workspaces),
            _ => arg,
        }
    });
    command.mut_subcommands(|command| with_candidates(command, &name))
}

/// `arg`, for which `find` says what it can be.
fn offering(arg: Arg, find: fn(&Source, &str) -> Option<Names>) -> Arg {
    arg.add(ArgValueCompleter::new(move |begun: &OsStr| -> Vec<CompletionCandidate> {
        let Some(begun) = begun.to_str() else { return Vec::new() };
        let names = Source::new().and_then(|source| find(&source, begun)).unwrap_or_default();
        let fitting = names.into_iter().filter(|(name, _)| name.starts_with(begun));
        fitting
            .map(|(name, help)| CompletionCandidate::new(name).help(help.map(Into::into)))
            .collect()
    }))
}

/// Names, and a few words on each.
type Names = BTreeSet<(String, Option<String>)>;

/// The store that the command line is about.
struct Source {
    context: Context,
    store: Store,
}

impl Source {
    fn new() -> Option<Self> {
        let words: Vec<OsString> = std::env::args_os().collect();
        let value = |names: &[&str]| {
            let joined = |word: &OsString| {
                let (name, value) = word.to_str()?.split_once('=')?;
                names.contains(&name).then(|| value.into())
            };
            let rest = words.iter().skip_while(|word| !names.iter().any(|it| *word == it));
            // bash makes three words of an option with its value.
            let next = rest.skip(1).find(|word| *word != "=").map(Into::into);
            next.or_else(|| words.iter().find_map(joined))
        };
        let options = Options {
            store: value(&["--store"]),
            directory: value(&["--directory", "-D"]),
            cache: value(&["--cache"]),
            ..Options::default()
        };
        let context = Context::new(options, context::configuration().ok()?, Vec::new());
        let store = context.store().ok()?;
        Some(Self { context, store })
    }
}

fn installed(source: &Source, _: &str) -> Option<Names> {
    let state = source.store.current().ok()?;
    let packages = InstalledPackage::load_all(&source.store, state.packages).ok()?;
    let summary = |package: &InstalledPackage| Some(package.metadata.summary.clone());
    Some(packages.iter().map(|(name, package)| (name.to_string(), summary(package))).collect())
}

fn offered(source: &Source, begun: &str) -> Option<Names> {
    let mut names = Names::new();
    for catalog in source.context.repositories(&source.store).at_hand_now().ok()? {
        let all = (0..catalog.len()).map(|entry| catalog.name(entry));
        names.extend(all.filter(|it| it.starts_with(begun)).map(|it| (it.to_owned(), None)));
    }
    Some(names)
}

fn states(source: &Source, begun: &str) -> Option<Names> {
    let mut names = tags(source, begun)?;
    let states = source.store.refs().states.into_values();
    names.extend(states.map(|state| (state.id.to_string(), Some(state.request))));
    names.insert(("current".into(), None));
    Some(names)
}

fn tags(source: &Source, _: &str) -> Option<Names> {
    let tags = source.store.refs().tags.into_iter();
    Some(tags.map(|(tag, id)| (tag.to_string(), Some(format!("state {id}")))).collect())
}

fn repositories(source: &Source, _: &str) -> Option<Names> {
    let configs = source.context.repositories(&source.store).list().ok()?.into_iter();
    Some(configs.map(|config| (config.name.to_string(), Some(config.description))).collect())
}

fn workspaces(source: &Source, _: &str) -> Option<Names> {
    let names = source.store.workspaces().ok()?.into_iter();
    Some(names.map(|(name, _)| (name.to_string(), None)).collect())
}
