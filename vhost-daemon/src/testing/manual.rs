//! Manual pages rendered from the command-line parser's own description.

use std::path::Path;

use clap::Command;

/// Compares the manual page at `path` with the page of `command`, followed by `sections`: those that the parser cannot
/// know. With UPDATE_MAN set the page is written first.
///
/// # Panics
///
/// Panics if the page at `path` differs.
pub fn assert_up_to_date(command: Command, sections: &[u8], path: &Path) {
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .date("2026-11")
        .render(&mut page)
        .expect("memory can be written");
    page.extend_from_slice(sections);
    if std::env::var_os("UPDATE_MAN").is_some() {
        std::fs::write(path, &page).expect("the manual page can be written");
    }
    let current = std::fs::read(path).unwrap_or_default();
    assert!(
        current == page,
        "{} is stale; regenerate it with UPDATE_MAN=1",
        path.display()
    );
}
