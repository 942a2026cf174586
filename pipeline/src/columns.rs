//! Tables for people: columns two spaces apart, each as wide as its widest cell.

use comfy_table::{CellAlignment, Table, presets};

/// Where columns of whole numbers stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    Left,
    Right,
}

/// Rows of as many cells each, the header first.
pub(crate) fn columns<R>(rows: &[R], numbers: Numbers) -> String
where
    R: AsRef<[String]>,
{
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.add_rows(rows.iter().map(|row| row.as_ref().iter().map(String::as_str)));
    let is_number = |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        let is_right = numbers == Numbers::Right && rows.len() > 1;
        if is_right && rows.iter().skip(1).all(|row| is_number(&row.as_ref()[index])) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows = [["rule", "firing"], ["cpu", "7"], ["größer", "1000"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows, Numbers::Right), "rule    firing\ncpu          7\ngrößer    1000");
        assert_eq!(columns(&rows, Numbers::Left), "rule    firing\ncpu     7\ngrößer  1000");
        assert_eq!(columns(&rows[..1], Numbers::Right), "rule  firing");
    }
}
