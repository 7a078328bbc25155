//! JSON for people: tables and trees.

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::Value;

/// Returns the text of a value, empty or with a newline at its end: a table for an array of flat objects, a tree for
/// everything else.
pub fn text(value: &Value) -> String {
    match value {
        Value::Array(items) => match rows(items) {
            Some((header, rows)) => format!("{}\n", table(&header, rows)),
            None => tree(value),
        },
        Value::Object(_) => tree(value),
        scalar => format!("{}\n", plain(scalar)),
    }
}

/// Returns the names and the values of the fields of a list that has nothing but objects without further structure.
fn rows(items: &[Value]) -> Option<(Vec<&str>, Vec<Vec<String>>)> {
    let header: Vec<&str> = items.first()?.as_object()?.keys().map(String::as_str).collect();
    let row = |item: &Value| {
        let cells = header.iter().map(|name| &item[name]);
        let is_flat = item.is_object() && !cells.clone().any(|cell| cell.is_object() || cell.is_array());
        is_flat.then(|| cells.map(plain).collect())
    };
    let rows = items.iter().map(row).collect::<Option<_>>()?;
    Some((header, rows))
}

/// Returns a table without a newline at its end. Numbers are aligned to the right.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.into_iter().map(|cell| {
            let alignment = match cell.parse::<f64>() {
                Ok(_) => CellAlignment::Right,
                Err(_) => CellAlignment::Left,
            };
            Cell::new(cell).set_alignment(alignment)
        }));
    }
    table.trim_fmt()
}

/// Returns an indented tree. What has no fields is left out.
fn tree(value: &Value) -> String {
    let mut text = String::new();
    branch(value, 0, &mut text);
    text
}

fn branch(value: &Value, depth: usize, text: &mut String) {
    let mut line = |name: &str, value: &Value| {
        let indent = "  ".repeat(depth);
        match value {
            Value::Object(fields) if fields.is_empty() => {}
            Value::Array(items) if items.is_empty() => {}
            Value::Object(_) | Value::Array(_) => {
                text.push_str(&format!("{indent}{name}\n"));
                branch(value, depth + 1, text);
            }
            scalar => text.push_str(&format!("{indent}{name}: {}\n", plain(scalar))),
        }
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| line(name, value)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, value)| line(&index.to_string(), value)),
        _ => {}
    }
}

/// Returns a value without structure as text. Control characters come from guests, and do not get to a terminal.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().flat_map(visible).collect(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn visible(letter: char) -> impl Iterator<Item = char> {
    let escaped = letter.is_control().then(|| letter.escape_default());
    let itself = (!letter.is_control()).then_some(letter);
    escaped.into_iter().flatten().chain(itself)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_a_tree() {
        let value = json!({ "a": { "cqs": { "7": { "armed": true } }, "none": {} }, "b": [], "c": [1, "x\u{1b}"] });
        let expected = "a\n  cqs\n    7\n      armed: true\nc\n  0: 1\n  1: x\\u{1b}\n";
        assert_eq!(text(&value), expected);
        assert_eq!(text(&json!({})), "");
        assert_eq!(text(&json!(null)), "-\n");
    }

    #[test]
    fn a_list_of_flat_objects_is_a_table() {
        let value = json!([{ "port": "a", "age": 7 }, { "port": "bcd", "age": 300 }]);
        let text = text(&value);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [["age", "port"], ["7", "a"], ["300", "bcd"]]);
        assert!(text.ends_with("bcd\n"), "{text:?}");
    }
}
