//! `cairn recipe macros`: what scripts can use.

use cairn_build::macros::TargetMacros;
use cairn_build::recipe::{Target, TargetPattern};
use serde::Serialize;

use crate::error::Error;
use crate::output::{Output, View};
use crate::page::{Cell, Page, Style};
use crate::recipes::MacroArgs;

/// List actions, definitions and tuning groups, or explain one
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Explain this one
    name: Option<String>,
    /// What they are for this target, such as x86_64 or emul32/x86_64
    #[arg(long, default_value = std::env::consts::ARCH)]
    target: TargetPattern,
    #[command(flatten)]
    macros: MacroArgs,
}

#[derive(Serialize)]
struct List {
    target: String,
    actions: Vec<Action>,
    definitions: Vec<Definition>,
    tuning: Vec<Group>,
}

#[derive(Serialize)]
struct Action {
    name: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    example: Option<String>,
    command: String,
    dependencies: Vec<String>,
}

#[derive(Serialize)]
struct Definition {
    name: String,
    text: String,
}

#[derive(Serialize)]
struct Group {
    name: String,
    choices: Vec<String>,
    default: bool,
}

/// What is known of one name.
#[derive(Serialize)]
struct Explained(List);

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Error> {
    let native = std::env::consts::ARCH;
    let target = match &args.target {
        TargetPattern::Exactly(target) => target.clone(),
        TargetPattern::Native => Target::native(native),
        TargetPattern::Emul32 => Target::emul32(native),
    };
    let list = List::new(&args.macros.load()?.of_target(&target)?);
    let Some(name) = &args.name else { return output.list(&list) };
    let plain = name.trim_start_matches('%').trim_matches(['(', ')']);
    let List { target, mut actions, mut definitions, mut tuning } = list;
    actions.retain(|action| action.name == plain);
    definitions.retain(|definition| definition.name == plain);
    tuning.retain(|group| group.name == plain);
    if actions.is_empty() && definitions.is_empty() && tuning.is_empty() {
        return Err(Error::NoSuchMacro(name.clone()));
    }
    output.list(&Explained(List { target, actions, definitions, tuning }))
}

impl List {
    fn new(macros: &TargetMacros) -> Self {
        let action = |(name, action): (&String, &cairn_build::macros::Action)| Action {
            name: name.clone(),
            description: action.description.clone(),
            example: action.example.clone(),
            command: action.command.clone(),
            dependencies: action.dependencies.clone(),
        };
        let definition = |(name, text): (&String, &String)| Definition {
            name: name.clone(),
            text: text.clone(),
        };
        let group = |(name, choices, default): (&str, Vec<&str>, bool)| Group {
            name: name.into(),
            choices: choices.into_iter().map(Into::into).collect(),
            default,
        };
        Self {
            target: macros.target.to_string(),
            actions: macros.actions.iter().map(action).collect(),
            definitions: macros.definitions.iter().map(definition).collect(),
            tuning: macros.tuning_groups().map(group).collect(),
        }
    }
}

impl View for List {
    fn show(&self, page: &mut Page) {
        let name = |text: String| Cell::new(text).style(Style::Strong);
        page.title("Actions");
        let row = |it: &Action| vec![name(format!("%{}", it.name)), Cell::new(&it.description)];
        page.table(2, &self.actions.iter().map(row).collect::<Vec<_>>());
        page.title("Definitions");
        let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        let row =
            |it: &Definition| vec![name(format!("%({})", it.name)), Cell::new(first(&it.text))];
        page.table(2, &self.definitions.iter().map(row).collect::<Vec<_>>());
        page.title("Tuning groups");
        let row = |it: &Group| {
            let default = if it.default { "on by default" } else { "" };
            vec![name(it.name.clone()), Cell::new(default), Cell::new(it.choices.join(", "))]
        };
        page.table(2, &self.tuning.iter().map(row).collect::<Vec<_>>());
    }
}

impl View for Explained {
    fn show(&self, page: &mut Page) {
        let lines = |page: &mut Page, text: &str| {
            for line in text.trim_end().lines() {
                page.line(format_args!("    {line}"));
            }
        };
        for action in &self.0.actions {
            page.title(format_args!("%{}", action.name));
            page.line(&action.description);
            if let Some(example) = &action.example {
                page.line("Example:");
                lines(page, example);
            }
            page.line("Stands for:");
            lines(page, &action.command);
            if !action.dependencies.is_empty() {
                page.line(format_args!("Needs: {}", action.dependencies.join(", ")));
            }
        }
        for definition in &self.0.definitions {
            page.title(format_args!("%({})", definition.name));
            page.line(format_args!("Stands for, on {}:", self.0.target));
            lines(page, &definition.text);
        }
        for group in &self.0.tuning {
            page.title(format_args!("The tuning group {}", group.name));
            page.line(if group.default { "On by default." } else { "Off by default." });
            if !group.choices.is_empty() {
                page.line(format_args!("Choices: {}", group.choices.join(", ")));
            }
        }
    }
}
