//! Output of results.

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Text for people to read.
    Text,
    /// One line of JSON.
    Json,
}

/// Prints a result: as one line of JSON, or as lines of `name: value`.
pub(super) fn report(format: Format, report: &impl Serialize) -> anyhow::Result<()> {
    let text = match format {
        Format::Json => serde_json::to_string(report)? + "\n",
        Format::Text => {
            let mut text = String::new();
            flatten(&mut text, "", &serde_json::to_value(report)?);
            text
        }
    };
    print(&text)
}

/// Prints text.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_bytes()).context("standard output")
}

fn flatten(text: &mut String, name: &str, value: &Value) {
    let inner = |key: &str| {
        if name.is_empty() {
            key.to_owned()
        } else {
            format!("{name}.{key}")
        }
    };
    match value {
        Value::Null => {}
        // The complete state of a socket is too much for text.
        Value::Object(_) if name == "connection.socket" => {}
        Value::Object(fields) => fields.iter().for_each(|(key, value)| flatten(text, &inner(key), value)),
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| flatten(text, &inner(&index.to_string()), value));
        }
        Value::String(value) => *text += &format!("{name}: {value}\n"),
        Value::Number(number) if number.is_f64() => {
            *text += &format!("{name}: {:.3}\n", number.as_f64().unwrap_or_default());
        }
        other => *text += &format!("{name}: {other}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_values_become_lines() {
        let value = serde_json::json!({ "a": 1, "b": { "c": "x", "d": null }, "e": [true], "f": 1.23456 });
        let mut text = String::new();
        flatten(&mut text, "", &value);
        assert_eq!(text, "a: 1\nb.c: x\ne.0: true\nf: 1.235\n");
    }
}
