//! Manual pages made from the command line's own description.

use std::path::Path;

use clap::Command;

/// Renders the page of `command`, followed by `further`: what the command line cannot know. With UPDATE_MAN set it is written
/// to `path`.
///
/// # Panics
/// When the page at `path` is another one.
pub fn assert_up_to_date(command: Command, further: &[u8], path: &Path) {
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .date("2026-11")
        .render(&mut page)
        .expect("memory can be written");
    page.extend_from_slice(further);
    if std::env::var_os("UPDATE_MAN").is_some() {
        std::fs::write(path, &page).expect("the manual page can be written");
    }
    let current = std::fs::read(path).unwrap_or_default();
    assert!(
        current == page,
        "{} is stale; regenerate it with UPDATE_MAN=1.",
        path.display()
    );
}
