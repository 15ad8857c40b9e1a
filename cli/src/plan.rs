//! What a transaction would do, as it is shown before it is done.

use std::collections::BTreeMap;

use cairn_package::model::{LocalContent, LocalFile};
use cairn_package::plan::{Action, Plan, Step};
use cairn_package::solve::{Candidate, Held};
use cairn_store::TreePath;
use serde::Serialize;

use crate::output::View;
use crate::page::{Cell, Page, Style};
use crate::units::{counted, size, size_change};

/// Packages that come, change and go, and those that cannot be upgraded.
#[derive(Serialize)]
pub(crate) struct PlanView<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    held: Vec<HeldView>,
    files: LocalChanges,
    /// Files of what is replaced that are not as their packages have them.
    changed: Vec<String>,
}

/// What changes of the files that no package brings.
#[derive(Default, Serialize)]
pub(crate) struct LocalChanges {
    written: Vec<String>,
    removed: Vec<String>,
}

impl LocalChanges {
    /// What turns `old` into `new`; files of the machine count as changed.
    pub(crate) fn between(
        old: &BTreeMap<TreePath, LocalFile>,
        new: &BTreeMap<TreePath, LocalFile>,
    ) -> Self {
        let shown = |path: &TreePath| path.to_string();
        let is_same = |path: &TreePath, file: &LocalFile| {
            old.get(path).is_some_and(|there| match (&there.content, &file.content) {
                // A link has no mode of its own.
                (LocalContent::Link(one), LocalContent::Link(other)) => one == other,
                (LocalContent::Bytes(one), LocalContent::Source(path)) => {
                    std::fs::read(path).is_ok_and(|other| *one == other)
                        && (there.mode, there.uid, there.gid) == (file.mode, file.uid, file.gid)
                }
                _ => there == file,
            })
        };
        let written = new.iter().filter(|(path, file)| !is_same(path, file));
        let removed = old.keys().filter(|path| !new.contains_key(*path));
        Self {
            written: written.map(|(path, _)| shown(path)).collect(),
            removed: removed.map(shown).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.written.is_empty() && self.removed.is_empty()
    }
}

#[derive(Serialize)]
struct HeldView {
    name: String,
    installed: String,
    available: String,
    cause: String,
}

impl<'a> PlanView<'a> {
    /// Shows `plan`.
    pub(crate) fn new(plan: &'a Plan, files: LocalChanges, changed: Vec<String>) -> Self {
        let held = plan.solution.held.iter().map(HeldView::new).collect();
        Self { plan, held, files, changed }
    }

    /// Whether nothing would be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.plan.steps.is_empty() && self.files.is_empty()
    }

    fn steps(&self, actions: &[Action]) -> impl Iterator<Item = &Step> {
        self.plan.steps.iter().filter(|step| actions.contains(&step.action))
    }
}

impl HeldView {
    fn new(held: &Held) -> Self {
        let version = |it: &Candidate| it.metadata.full_version();
        Self {
            name: held.installed.metadata.name.clone(),
            installed: version(&held.installed),
            available: version(&held.available),
            cause: held.cause.to_string(),
        }
    }
}

/// `2 packages installed, 1 upgraded`, in the words of `verb`.
pub(crate) fn summary(steps: &[Step], verb: impl Fn(Action) -> &'static str) -> String {
    use Action::{Downgrade, Install, Mark, Remove, Replace, Upgrade};
    let mut parts: Vec<String> = Vec::new();
    for action in [Install, Upgrade, Downgrade, Replace, Remove, Mark] {
        let number = steps.iter().filter(|step| step.action == action).count();
        if number > 0 {
            let packages =
                if parts.is_empty() { counted(number, "package") } else { number.to_string() };
            parts.push(format!("{packages} {}", verb(action)));
        }
    }
    parts.join(", ")
}

fn to_do(action: Action) -> &'static str {
    match action {
        Action::Install => "to install",
        Action::Upgrade => "to upgrade",
        Action::Downgrade => "to downgrade",
        Action::Replace => "to replace",
        Action::Remove => "to remove",
        Action::Mark => "to keep as asked for",
    }
}

impl View for PlanView<'_> {
    fn show(&self, page: &mut Page) {
        use Action::{Downgrade, Install, Mark, Remove, Replace, Upgrade};
        let (asked, needed): (Vec<&Step>, Vec<&Step>) =
            self.steps(&[Install]).partition(|step| step.reason.is_none());
        group(page, "Install", asked.into_iter().map(coming));
        group(page, "Install because others need them", needed.into_iter().map(coming));
        group(page, "Upgrade", self.steps(&[Upgrade]).map(replaced));
        group(page, "Downgrade", self.steps(&[Downgrade]).map(replaced));
        group(page, "Replace", self.steps(&[Replace]).map(replaced));
        group(page, "Remove", self.steps(&[Remove]).map(going));
        let marked = self.steps(&[Mark]).map(|step| vec![Cell::new(&step.name)]);
        group(page, "Keep as asked for", marked);
        let files = |paths: &[String], style| {
            paths.iter().map(|path| vec![Cell::new(path).style(style)]).collect::<Vec<_>>()
        };
        group(page, "Write", files(&self.files.written, Style::Good).into_iter());
        group(page, "Delete", files(&self.files.removed, Style::Bad).into_iter());
        group(page, "Changed by hand, and kept", files(&self.changed, Style::Note).into_iter());
        group(page, "Not upgraded", self.held.iter().map(HeldView::row));
        if self.is_empty() {
            page.title("Nothing to do.");
            return;
        }
        page.title(summary(&self.plan.steps, to_do));
        let Plan { download, stone_size, .. } = *self.plan;
        if download > 0 {
            page.line(format_args!("To download: {}", size(download)));
        }
        if stone_size > download {
            page.line(format_args!("Stones to read: {}", size(stone_size - download)));
        }
        page.line(format_args!("Size of the system: {}", change(self.plan.size_change)));
    }
}

/// Of indices that do not tell the sizes of what is at servers.
fn change(bytes: Option<i64>) -> String {
    bytes.map_or_else(|| "not known yet".into(), size_change)
}

/// The same in a table.
fn change_cell(step: &Step) -> Cell {
    Cell::right(step.size_change.map_or_else(|| "?".into(), size_change))
}

fn group(page: &mut Page, title: &str, rows: impl Iterator<Item = Vec<Cell>>) {
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        page.title(title);
        page.table(2, &rows);
    }
}

fn coming(step: &Step) -> Vec<Cell> {
    let by_name = format!(" needs {}", step.name);
    let why = match (&step.reason, &step.repository) {
        // The name stands at the beginning of the line already.
        (Some(reason), _) => match reason.strip_suffix(&by_name) {
            Some(package) => format!("for {package}"),
            None => reason.clone(),
        },
        (None, Some(repository)) => format!("from {repository}"),
        (None, None) => "from a file".into(),
    };
    vec![
        Cell::new(&step.name).style(Style::Good),
        Cell::new(step.new.as_deref().unwrap_or_default()),
        change_cell(step),
        Cell::new(why).style(Style::Faint),
    ]
}

fn replaced(step: &Step) -> Vec<Cell> {
    let [old, new] = [&step.old, &step.new].map(|it| it.as_deref().unwrap_or_default());
    vec![
        Cell::new(&step.name).style(Style::Note),
        Cell::new(format_args!("{old} -> {new}")),
        change_cell(step),
    ]
}

fn going(step: &Step) -> Vec<Cell> {
    vec![
        Cell::new(&step.name).style(Style::Bad),
        Cell::new(step.old.as_deref().unwrap_or_default()),
        change_cell(step),
        Cell::new(step.reason.as_deref().unwrap_or_default()).style(Style::Faint),
    ]
}

impl HeldView {
    fn row(&self) -> Vec<Cell> {
        vec![
            Cell::new(&self.name).style(Style::Note),
            Cell::new(format_args!("{} -> {}", self.installed, self.available)),
            Cell::new(self.cause.lines().next().unwrap_or_default()).style(Style::Faint),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::page::Look;

    fn step(action: Action, name: &str, reason: Option<&str>) -> Step {
        let is_coming = !matches!(action, Action::Remove);
        Step {
            action,
            name: name.into(),
            old: (action != Action::Install).then(|| "1.0-1".into()),
            new: is_coming.then(|| "1.1-2".into()),
            repository: is_coming.then(|| "main".into()),
            download: if name == "nano" { 1 << 20 } else { 0 },
            stone_size: 1 << 20,
            size_change: (name != "nano").then_some(if is_coming { 5 << 20 } else { -(2 << 20) }),
            reason: reason.map(Into::into),
        }
    }

    fn shown(steps: Vec<Step>) -> String {
        let plan = Plan {
            request: "anything".into(),
            solution: cairn_package::solve::Solution::default(),
            download: steps.iter().map(|step| step.download).sum(),
            stone_size: steps.iter().map(|step| step.stone_size).sum(),
            size_change: steps.iter().map(|step| step.size_change).sum(),
            steps,
        };
        let mut page = Page::new(Look { width: Some(80), colors: false });
        PlanView::new(&plan, LocalChanges::default(), vec![]).show(&mut page);
        page.into_text()
    }

    #[test]
    fn a_plan_shows_what_comes_changes_and_goes_and_why() {
        let steps = vec![
            step(Action::Install, "bash", None),
            step(Action::Install, "libc", Some("bash needs soname(libc.so.6(x86_64))")),
            step(Action::Install, "tinfo", Some("bash needs tinfo")),
            step(Action::Upgrade, "nano", None),
            step(Action::Remove, "vi", Some("nothing needs it any more")),
            step(Action::Mark, "less", None),
        ];
        let expected = "\
Install
  bash  1.1-2  +5.0 MiB  from main

Install because others need them
  libc   1.1-2  +5.0 MiB  bash needs soname(libc.so.6(x86_64))
  tinfo  1.1-2  +5.0 MiB  for bash

Upgrade
  nano  1.0-1 -> 1.1-2  ?

Remove
  vi  1.0-1  -2.0 MiB  nothing needs it any more

Keep as asked for
  less

3 packages to install, 1 to upgrade, 1 to remove, 1 to keep as asked for
To download: 1.0 MiB
Stones to read: 5.0 MiB
Size of the system: not known yet
";
        assert_eq!(shown(steps), expected);
        assert_eq!(shown(vec![]), "Nothing to do.\n");
    }
}
