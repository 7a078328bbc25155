//! The page of findings against the kinds that are declared.

use std::fmt::Write;
use std::fs::{self, File};
use std::path::Path;

use crate::finding::{KindInfo, Severity};

/// Compares the section `## heading` of the page at `path` with these kinds. With UPDATE set the section is written
/// first.
///
/// # Panics
///
/// Panics if the section differs.
#[track_caller]
pub fn assert_catalogue(path: &Path, heading: &str, kinds: &[KindInfo]) {
    let expected = section(heading, kinds);
    let lock = File::open(path).expect("the page exists");
    // Tests of other crates write other sections.
    lock.lock().expect("the page can be locked");
    let page = fs::read_to_string(path).expect("the page can be read");
    let title = format!("## {heading}\n");
    let start = page.find(&title).expect("the page has the section");
    let end = page[start..].find("\n\n## ").map_or(page.len(), |at| start + at + 1);
    if std::env::var_os("UPDATE").is_some() {
        let page = [&page[..start], &expected, &page[end..]].concat();
        fs::write(path, page).expect("the page can be written");
    } else {
        let current = &page[start..end];
        assert!(
            current == expected,
            "{} is out of date: UPDATE=1 rewrites it",
            path.display()
        );
    }
}

fn section(heading: &str, kinds: &[KindInfo]) -> String {
    let mut section =
        format!("## {heading}\n\n| finding | severity | rule | written in | answer |\n|---|---|---|---|---|\n");
    for kind in kinds {
        let severity = match kind.severity {
            Severity::Error => "error",
            Severity::Suspicion => "suspicion",
        };
        let KindInfo {
            name,
            rule,
            source,
            answer,
            ..
        } = kind;
        // Writing to a string cannot fail.
        let _ = writeln!(section, "| `{name}` | {severity} | {rule} | {source} | {answer} |");
    }
    section
}
