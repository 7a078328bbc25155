//! Comparison with golden files.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("nic/golden").join(name)
}

/// Asserts that `text` equals the golden file `name`. With GOLDEN=write, writes the file instead, to accept a change.
pub fn assert_same(name: &str, text: &str) {
    let path = path(name);
    if env::var("GOLDEN").is_ok_and(|value| value == "write") {
        fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("create the directory");
        fs::write(&path, text).expect("write the file");
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let differences: Vec<String> = diff(&expected, text);
    assert!(
        differences.is_empty(),
        "{} differs; GOLDEN=write updates it:\n{}",
        path.display(),
        differences.join("\n")
    );
}

/// Lines in only one of the texts: `-` marks `expected`, `+` marks `found`.
fn diff(expected: &str, found: &str) -> Vec<String> {
    let missing = |from: &str, of: &str, sign: char| -> Vec<String> {
        let others: Vec<&str> = of.lines().collect();
        let lines = from.lines().filter(|line| !others.contains(line));
        lines.map(|line| format!("{sign}{line}")).collect()
    };
    let mut differences = missing(expected, found, '-');
    differences.extend(missing(found, expected, '+'));
    if differences.is_empty() && expected != found {
        differences.push("the same lines in another order".to_owned());
    }
    differences
}

#[test]
fn differences_are_told_by_line() {
    assert!(diff("a\nb\n", "a\nb\n").is_empty());
    assert_eq!(diff("a\nb\n", "a\nc\n"), ["-b", "+c"]);
    assert_eq!(diff("a\nb\n", "b\na\n"), ["the same lines in another order"]);
}
