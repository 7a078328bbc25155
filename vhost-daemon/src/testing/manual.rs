//! Manual pages rendered from the command-line parser's own description.

use std::path::Path;

use clap::Command;

/// Compares the manual pages in a directory with those of `command` and its subcommands. The first ends with
/// `sections`: those that the parser cannot know. With UPDATE_MAN set the pages are written first.
///
/// # Panics
///
/// Panics if a page differs, or if there is a page of no command.
pub fn assert_up_to_date(mut command: Command, sections: &[u8], directory: &Path) {
    command.build();
    let mut pages = Vec::new();
    render(&command, sections, &mut pages);
    if std::env::var_os("UPDATE_MAN").is_some() {
        for (name, page) in &pages {
            std::fs::write(directory.join(name), page).expect("the manual page can be written");
        }
    }
    for (name, page) in &pages {
        let current = std::fs::read(directory.join(name)).unwrap_or_default();
        assert!(current == *page, "{name} is stale; regenerate it with UPDATE_MAN=1");
    }
    for entry in std::fs::read_dir(directory).expect("the manual pages are a directory") {
        let name = entry.expect("the directory can be read").file_name();
        let name = name.to_string_lossy();
        assert!(
            name.ends_with(".in") || pages.iter().any(|(page, _)| *page == name),
            "{name} is the page of no command"
        );
    }
}

fn render(command: &Command, sections: &[u8], pages: &mut Vec<(String, Vec<u8>)>) {
    let man = clap_mangen::Man::new(command.clone()).date("2026-11");
    let mut page = Vec::new();
    man.render(&mut page).expect("memory can be written");
    page.extend_from_slice(sections);
    pages.push((man.get_filename(), page));
    let shown = |command: &&Command| !command.is_hide_set() && command.get_name() != "help";
    for command in command.get_subcommands().filter(shown) {
        render(command, b"", pages);
    }
}
