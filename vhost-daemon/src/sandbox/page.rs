//! The tables of docs/sandbox.md against those of the filters.

use std::fmt::Write;
use std::fs;

use syscalls::Sysno;

use super::filter::LIMITS;
use super::system_calls::{DENIED, GROUPS, ThreadKind};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sandbox.md");
const HEADING: &str = "## System calls\n";

fn code<'a>(calls: impl IntoIterator<Item = &'a Sysno>) -> String {
    let calls: Vec<String> = calls.into_iter().map(|call| format!("`{call}`")).collect();
    calls.join(", ")
}

fn section() -> String {
    let mut page = format!("{HEADING}\n| threads | may use |\n|---|---|\n");
    for kind in ThreadKind::ALL {
        let groups: Vec<&str> = kind.groups().iter().map(|group| group.name).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| **{}**: {} | {} |",
            kind.name(),
            kind.threads(),
            groups.join(", ")
        );
    }
    page += "\n| group | purpose | system calls |\n|---|---|---|\n";
    for group in GROUPS {
        let _ = writeln!(page, "| {} | {} | {} |", group.name, group.purpose, code(group.calls));
    }
    page += "\n| system call | limit |\n|---|---|\n";
    for limit in &LIMITS {
        let _ = writeln!(page, "| `{}` | {} |", limit.call, limit.text);
    }
    let _ = writeln!(
        page,
        "| `clone3` | fails with ENOSYS, so that the C library takes `clone` |\n| {} | fail with EACCES in threads \
         without files |",
        code(DENIED)
    );
    page
}

#[test]
fn the_page_has_the_tables_of_the_filters() {
    let page = fs::read_to_string(PAGE).unwrap();
    let prose = &page[..page.find(HEADING).unwrap()];
    let expected = [prose, &section()].concat();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(PAGE, &expected).unwrap();
    } else {
        assert!(page == expected, "{PAGE} is out of date: UPDATE=1 rewrites it");
    }
}
