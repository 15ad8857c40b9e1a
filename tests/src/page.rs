//! Tables of Markdown pages, for tests that do what a page says.

use std::fs;
use std::path::Path;

/// A table of a page.
#[derive(Clone, Debug)]
pub struct Table {
    /// The heading that it stands below.
    pub heading: String,
    /// What its columns are called.
    pub columns: Vec<String>,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// A row of a table, with as many cells as the table has columns.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which line of the page it is, from 1.
    pub line: usize,
    /// Its cells, without the marks of code.
    pub cells: Vec<String>,
}

/// The tables of a page below docs/, in their order.
///
/// # Panics
/// If the page cannot be read, or a row has too few or too many cells.
#[must_use]
pub fn tables(page: &str) -> Vec<Table> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    let (mut tables, mut heading, mut is_inside) = (Vec::<Table>::new(), "", false);
    for (line, number) in text.lines().zip(1..) {
        if let Some(title) = line.strip_prefix('#') {
            heading = title.trim_start_matches('#').trim();
        }
        let Some(cells) = cells(line) else {
            is_inside = false;
            continue;
        };
        match tables.last_mut() {
            Some(table) if is_inside => {
                let is_rule = cells.iter().all(|cell| cell.starts_with("--"));
                let count = table.columns.len();
                assert_eq!(cells.len(), count, "docs/{page}:{number}: it has {count} columns");
                if !is_rule {
                    table.rows.push(Row { line: number, cells });
                }
            }
            _ => {
                let heading = heading.into();
                tables.push(Table { heading, columns: cells, rows: Vec::new() });
                is_inside = true;
            }
        }
    }
    tables
}

/// The cells of a line, if it is one of a table; `\|` is no border.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.trim_end().strip_suffix('|')?;
    let hidden = inner.replace("\\|", "\0");
    Some(hidden.split('|').map(|cell| cell.trim().replace('\0', "|").replace('`', "")).collect())
}
