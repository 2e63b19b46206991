//! The layout of all reports: tables that leave out columns if they would be too wide, since a name that is broken into
//! lines is unreadable.

use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

/// A line below the header and one below the last row.
const STYLE: TableStyle = TableStyle::new().header_separator(LINE).bottom_border(LINE);
const LINE: LineStyle = LineStyle::none().fill('─').junction('─');

/// A column of a report.
pub(crate) struct Column {
    title: &'static str,
    is_number: bool,
    /// The position among the columns that may be left out; lower ones are left out first.
    dispensable: Option<usize>,
}

impl Column {
    pub(crate) const fn text(title: &'static str) -> Self {
        Self { title, is_number: false, dispensable: None }
    }

    pub(crate) const fn number(title: &'static str) -> Self {
        Self { title, is_number: true, dispensable: None }
    }

    /// The same column, left out at this position.
    pub(crate) const fn dispensable(self, place: usize) -> Self {
        Self { dispensable: Some(place), ..self }
    }
}

/// Writes a table of at most the width that the formatter asks for (100 characters by default), if leaving out columns
/// can achieve that.
pub(crate) fn write_table(f: &mut fmt::Formatter<'_>, columns: &[Column], rows: &[Vec<String>]) -> fmt::Result {
    let width = f.width().unwrap_or(100);
    let mut dispensable: Vec<usize> = (0..columns.len()).filter(|at| columns[*at].dispensable.is_some()).collect();
    dispensable.sort_by_key(|at| columns[*at].dispensable);
    let mut left_out = dispensable.iter();
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    loop {
        let table = table(columns, rows, &kept);
        let is_narrow = table.lines().all(|line| line.chars().count() <= width);
        match left_out.next() {
            Some(column) if !is_narrow => kept.retain(|at| at != column),
            _ => return write!(f, "{table}"),
        }
    }
}

fn table(columns: &[Column], rows: &[Vec<String>], kept: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(kept.iter().map(|at| columns[*at].title));
    for row in rows {
        table.add_row(kept.iter().map(|at| row[*at].as_str()));
    }
    for (column, at) in table.column_iter_mut().zip(kept) {
        column.set_padding((0, 1));
        if columns[*at].is_number {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The sizes of a tensor as text.
pub(crate) fn shape_text(shape: &[usize]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("×")
}

/// A number of bytes in the largest decimal unit in which it is at least 1.
pub(crate) fn human_bytes(bytes: usize) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}
