//! A document as HTML: one table after another with styles inline, which is what mail readers understand.

use super::document::{Block, Document, Weight, plain};

const CELL: &str = "padding:2px 12px 2px 0;text-align:left;vertical-align:top";

/// The whole page.
pub(super) fn render(document: &Document) -> String {
    let mut html = String::from(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"></head>\n\
         <body style=\"font-family:sans-serif;font-size:14px;color:#222\">\n",
    );
    for block in &document.blocks {
        match block {
            Block::Facts { title, rows } => {
                heading(&mut html, title);
                html += "<table style=\"border-collapse:collapse\">\n";
                for (name, values) in rows {
                    let values: Vec<String> = values.iter().map(|value| escaped(value)).collect();
                    html += &format!(
                        "<tr><th style=\"{CELL}\">{}</th><td style=\"{CELL}\">{}</td></tr>\n",
                        escaped(name),
                        values.join("<br>")
                    );
                }
                html += "</table>\n";
            }
            Block::Log { title, lines } => {
                heading(&mut html, title);
                html += "<table style=\"border-collapse:collapse\">\n";
                for line in lines {
                    let colour = colour(line.weight);
                    html += &format!(
                        "<tr><td style=\"{CELL};white-space:nowrap\">{}</td>\
                         <td style=\"{CELL};color:{colour}\">{}{}</td></tr>\n",
                        escaped(&line.time),
                        line.weight.word(),
                        escaped(&line.text)
                    );
                }
                html += "</table>\n";
            }
            Block::Table { title, head, rows } => {
                heading(&mut html, title);
                html += "<table style=\"border-collapse:collapse\">\n<tr>";
                for cell in head {
                    html +=
                        &format!("<th style=\"{CELL};border-bottom:1px solid #999\">{}</th>", escaped(cell));
                }
                html += "</tr>\n";
                for row in rows {
                    html += "<tr>";
                    for cell in row {
                        html += &format!("<td style=\"{CELL}\">{}</td>", escaped(cell));
                    }
                    html += "</tr>\n";
                }
                html += "</table>\n";
            }
            Block::Footer(lines) => {
                let lines: Vec<String> = lines.iter().map(|line| escaped(line)).collect();
                html += &format!("<p style=\"color:#666\">{}</p>\n", lines.join("<br>"));
            }
        }
    }
    html + "</body></html>\n"
}

fn heading(html: &mut String, title: &str) {
    *html += &format!("<h3 style=\"margin:16px 0 4px\">{}</h3>\n", escaped(title));
}

fn colour(weight: Weight) -> &'static str {
    match weight {
        Weight::Error => "#b00020",
        Weight::Warning => "#8a5a00",
        Weight::Info => "#222",
    }
}

/// What the configuration or a server says is text, whatever it looks like.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn markup_is_text() {
        assert_eq!(escaped("<b a=\"1\">R&D</b>\u{7}"), "&lt;b a=&quot;1&quot;&gt;R&amp;D&lt;/b&gt;\u{fffd}");
    }
}
