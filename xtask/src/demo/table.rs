//! A table for people, in columns as wide as they need.

use std::iter;

/// The rows under their heads, each column as wide as its widest cell. The first row is the head.
pub(super) fn render(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
    let (head, body) = rows.split_at(rows.len().min(1));
    let lines = head.iter().chain(iter::once(&rule)).chain(body).map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let table = render(&[row(["what", "seen"]), row(["a", "10.0.1.2"]), row(["longer", "-"])]);
        assert_eq!(table, "what    seen\n------  --------\na       10.0.1.2\nlonger  -");
    }
}
