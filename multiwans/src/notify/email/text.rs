//! A document as plain text.

use super::document::{Block, Document, plain};

/// The text, lines ending in `\n`.
pub(super) fn render(document: &Document) -> String {
    let mut text = String::new();
    for block in &document.blocks {
        if !text.is_empty() {
            text.push('\n');
        }
        match block {
            Block::Facts { title, rows } => {
                heading(&mut text, title);
                let width = rows.iter().map(|(name, _)| length(name)).max().unwrap_or(0);
                for (name, values) in rows {
                    for (index, value) in values.iter().enumerate() {
                        let name = if index == 0 { format!("{name}:") } else { String::new() };
                        line(&mut text, &format!("{name:<0$}  {1}", width + 1, plain(value)));
                    }
                }
            }
            Block::Log { title, lines } => {
                heading(&mut text, title);
                for entry in lines {
                    let word = entry.weight.word();
                    line(&mut text, &format!("{}  {word}{}", entry.time, plain(&entry.text)));
                }
            }
            Block::Table { title, head, rows } => {
                heading(&mut text, title);
                table(&mut text, head, rows);
            }
            Block::Footer(lines) => lines.iter().for_each(|footer| line(&mut text, &plain(footer))),
        }
    }
    text
}

fn heading(text: &mut String, title: &str) {
    let title = plain(title);
    line(text, &title);
    line(text, &"=".repeat(length(&title)));
}

fn table(text: &mut String, head: &[&str], rows: &[Vec<String>]) {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head)
        .chain(rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()))
        .collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| length(cell)).max();
    for row in &rows {
        let cells =
            row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column).unwrap_or(0)));
        line(text, &cells.collect::<Vec<_>>().join("  "));
    }
}

fn line(text: &mut String, content: &str) {
    text.push_str(content.trim_end());
    text.push('\n');
}

fn length(text: &str) -> usize {
    text.chars().count()
}
