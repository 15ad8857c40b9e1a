//! The program `cairn`: words in, words out.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "comments of arguments are their help, as people read it in a terminal"
)]

mod affected;
mod build_root;
mod command;
mod complete;
mod config;
mod context;
mod differences;
mod error;
mod escape;
mod exclude;
mod helper;
mod image;
mod interrupt;
mod key;
mod lines;
mod live;
mod mounts;
mod output;
mod page;
mod pager;
mod place;
mod plan;
mod progress;
mod recipes;
mod remote;
mod sys;
mod transact;
mod units;
mod unknown;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

/// Content-addressed system roots that are mounted, switched and rolled back
///
/// Packages go into a store that holds each file once. Every change of the
/// system is a numbered state in it, and every state can be mounted.
#[derive(Parser)]
#[command(name = "cairn", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: command::Command,
    #[command(flatten)]
    options: context::Options,
}

fn main() -> ExitCode {
    complete::answer();
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    let arguments: Vec<OsString> = words.collect();
    let is_helper = helper::is_helper(&program);
    let command_line = if is_helper {
        match helper::call(arguments.iter().cloned()) {
            helper::Call::Mount(words) => [vec!["cairn".into()], words].concat(),
            helper::Call::Fake => return ExitCode::SUCCESS,
            helper::Call::Unknown(what) => {
                eprintln!("mount.fuse.cairn: cannot understand {}", what.to_string_lossy());
                eprintln!("usage: mount.fuse.cairn STORE DIR [-sfnv] [-o OPTIONS]");
                return helper::USAGE.into();
            }
        }
    } else {
        words::expand(std::iter::once(program).chain(arguments.iter().cloned()))
    };
    let cli = Cli::parse_from(command_line);
    let (config, wrong) = match context::configuration() {
        Ok(config) => (config, None),
        Err(error) => (config::Config::default(), Some(error)),
    };
    let mut output = output::Output::standard(&cli.options, &config);
    if is_helper {
        // mount(8) says nothing when all is well.
        output.close();
    }
    let context = context::Context::new(cli.options, config, arguments);
    let done = match wrong {
        Some(error) => Err(error),
        None => cli.command.run(&context, &mut output),
    };
    done.unwrap_or_else(|error| {
        output.failure(&error);
        if is_helper { helper::FAILED.into() } else { error.exit_code() }
    })
}
