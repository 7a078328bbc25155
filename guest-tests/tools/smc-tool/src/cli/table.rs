//! Tables for people to read.

use comfy_table::Table;
use comfy_table::presets::NOTHING;

/// Creates a table with these headings and no borders.
pub(super) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(headings);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Renders the table with a final newline and no trailing blanks.
pub(super) fn text(table: &Table) -> String {
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = table(&["A", "LONG"]);
        table.add_row(["xyz", "1"]);
        assert_eq!(text(&table), "A    LONG\nxyz  1\n");
    }
}
