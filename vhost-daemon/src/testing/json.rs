//! The fields of a JSON document against the page that describes them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Returns the path of every value in `document` that is neither object nor array, as in `guests[].port.sent`. Keys of
/// maps from numbers are all `<number>`.
pub fn paths(document: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, path: &str, paths: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
                    let name = if is_number { "<number>" } else { name };
                    let separator = if path.is_empty() { "" } else { "." };
                    walk(value, &format!("{path}{separator}{name}"), paths);
                }
            }
            Value::Array(items) => {
                for item in items {
                    walk(item, &format!("{path}[]"), paths);
                }
            }
            _ => {
                paths.insert(path.to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(document, "", &mut found);
    found
}

/// Checks that every value in `document` has a table row in the section `## heading` of the page at `path`: one that
/// begins with the value's path between backticks.
///
/// # Panics
///
/// Panics with the names of the values that have none.
#[track_caller]
pub fn assert_documented(document: &Value, path: &Path, heading: &str) {
    let page = fs::read_to_string(path).expect("the page can be read");
    let section = page
        .split("\n## ")
        .find(|section| section.lines().next() == Some(heading))
        .unwrap_or_else(|| panic!("{} has no section {heading:?}", path.display()));
    let rows: BTreeSet<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(path, _)| path)
        .collect();
    let missing: Vec<String> = paths(document)
        .into_iter()
        .filter(|path| !rows.contains(path.as_str()))
        .collect();
    assert!(missing.is_empty(), "{} lacks rows for {missing:#?}", path.display());
}

/// Checks that every key of `document` is in snake_case.
///
/// # Panics
///
/// Panics with the path of a key that is not.
#[track_caller]
pub fn assert_snake_case(document: &Value) {
    for path in paths(document) {
        let plain =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '[' | ']' | '<' | '>');
        assert!(path.chars().all(plain), "{path} is not in snake_case");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_leaf_has_a_path() {
        let document = json!({ "a": 1, "b": [{ "c": null }, { "d": [2, 3] }], "e": [], "f": { "7": { "g": 4 } } });
        assert_eq!(
            paths(&document).into_iter().collect::<Vec<_>>(),
            ["a", "b[].c", "b[].d[]", "f.<number>.g"]
        );
    }

    #[test]
    #[should_panic(expected = "b[].c")]
    fn a_value_without_a_row_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let page = dir.path().join("stats.md");
        fs::write(&page, "# Page\n\n## one\n\n| `a` | x |\n\n## two\n\n| `b[].c` | y |\n").unwrap();
        assert_documented(&json!({ "a": 1 }), &page, "one");
        assert_documented(&json!({ "a": 1, "b": [{ "c": 2 }] }), &page, "one");
    }

    #[test]
    #[should_panic(expected = "aB is not in snake_case")]
    fn camel_case_is_found() {
        assert_snake_case(&json!({ "aB": 1 }));
    }
}
