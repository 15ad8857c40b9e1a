//! The program `cairn`: words in, words out.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "comments of arguments are their help, as people read it in a terminal"
)]

mod affected;
mod build_root;
mod command;
mod context;
mod error;
mod escape;
mod exclude;
mod image;
mod interrupt;
mod key;
mod lines;
mod live;
mod mounts;
mod output;
mod page;
mod place;
mod plan;
mod progress;
mod recipes;
mod remote;
mod sys;
mod transact;
mod units;
mod words;

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
    let cli = Cli::parse_from(words::expand(std::env::args_os()));
    let mut output = output::Output::standard(&cli.options);
    let context = context::Context::new(cli.options);
    match cli.command.run(&context, &mut output) {
        Ok(code) => code,
        Err(error) => {
            output.failure(&error);
            error.exit_code()
        }
    }
}
