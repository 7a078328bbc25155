//! Outcomes of programs, and the page that has them.

use std::path::Path;
use std::{env, fs};

use guest_harness::Result;

/// The page.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/interop.md");

/// A difference between the two that is not a fault of the NIC: the program, whether its client is at the NIC, and the
/// reason for the page.
pub type Difference = (&'static str, bool, &'static str);

/// Outcome of a program with its client at the NIC, and at software RoCE.
#[derive(Debug)]
pub struct Outcome {
    program: String,
    results: [std::result::Result<(), String>; 2],
}

impl Outcome {
    pub fn of(program: &str, results: [Result<()>; 2]) -> Self {
        let results = results.map(|result| result.map_err(|error| error.to_string()));
        for (place, result) in ["the NIC", "rxe"].iter().zip(&results) {
            match result {
                Ok(()) => eprintln!("{program}, from {place}: pass"),
                Err(error) => eprintln!("{program}, from {place}: {error}"),
            }
        }
        Self {
            program: program.to_owned(),
            results,
        }
    }
}

/// Returns the outcomes as a table. Panics if a program failed without a known difference, or passed in spite of one.
pub fn table_of(outcomes: &[Outcome], known: &[Difference]) -> String {
    let (mut table, mut wrong) = (
        String::from("\n| program | from the NIC | from rxe |\n|---|---|---|\n"),
        Vec::new(),
    );
    for Outcome { program, results } in outcomes {
        let cells = [true, false].map(|nic| {
            let reason = known.iter().find(|(name, at_nic, _)| name == program && *at_nic == nic);
            let result = &results[usize::from(!nic)];
            if result.is_ok() == reason.is_some() {
                wrong.push(format!("{program}: {result:?}, known: {reason:?}"));
            }
            reason.map_or("pass", |(_, _, reason)| reason)
        });
        table += &format!("| `{program}` | {} | {} |\n", cells[0], cells[1]);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    table
}

/// Compares outcomes with a section of the page, which is between `<!-- interop NAME -->` and the next `<!-- end -->`;
/// with the variable UPDATE, rewrites the section. Panics where [`table_of`] does.
pub fn compare_with_page(section: &str, outcomes: &[Outcome], known: &[Difference]) {
    let table = table_of(outcomes, known);
    let page = fs::read_to_string(PAGE).unwrap_or_else(|error| panic!("{PAGE}: {error}"));
    let mark = format!("<!-- interop {section} -->\n");
    let (before, rest) = page.split_once(&mark).expect("the page has the section");
    let (old, after) = rest.split_once("\n<!-- end -->").expect("the section has an end");
    if env::var_os("UPDATE").is_some() {
        let page = format!("{before}{mark}{table}\n<!-- end -->{after}");
        return fs::write(Path::new(PAGE), page).unwrap_or_else(|error| panic!("{PAGE}: {error}"));
    }
    assert_eq!(old.trim(), table.trim(), "{PAGE} is out of date: UPDATE=1 rewrites it");
}
