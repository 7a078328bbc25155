//! The page with the results of sweeps.

use std::{env, fs};

use super::report::{Step, summary, table};
use crate::error::{Doing, Error, Result};
use crate::locate::workspace_dir;

/// The page, in the source tree.
const PAGE: &str = "docs/fault-sweep.md";

/// Compares a sweep with its section of `docs/fault-sweep.md`, which is between `<!-- sweep NAME -->` and the next
/// `<!-- end -->`. With the variable UPDATE, rewrites the section. Fails if something went badly that the section does
/// not have, as the order of occasions varies, but not what a driver does badly.
pub fn compare_with_page(name: &str, steps: &[Step]) -> Result<()> {
    let path = workspace_dir().join(PAGE);
    let page = fs::read_to_string(&path).doing(|| format!("read {}", path.display()))?;
    let (before, section, after) = split(&page, name)?;
    if env::var_os("UPDATE").is_some() {
        let page = format!("{before}\n{}.\n\n{}{after}", summary(steps), table(steps));
        return fs::write(&path, page).doing(|| format!("write {}", path.display()));
    }
    match steps.iter().find(|step| step.outcome.is_bad() && !has(section, step)) {
        None => Ok(()),
        Some(step) => Err(Error::Sweep(format!(
            "step {} ({}): {}, which {PAGE} does not have; log:\n{}",
            step.number,
            step.object,
            step.outcome.name(),
            step.log
        ))),
    }
}

/// Splits a page into what is up to the beginning of a section, the section, and what is from its end on.
fn split<'a>(page: &'a str, name: &str) -> Result<(&'a str, &'a str, &'a str)> {
    let absent = || Error::Sweep(format!("{PAGE} has no section {name:?}"));
    let mark = format!("<!-- sweep {name} -->\n");
    let begin = page.find(&mark).ok_or_else(absent)? + mark.len();
    let length = page[begin..].find("\n<!-- end -->").ok_or_else(absent)?;
    Ok((&page[..begin], &page[begin..begin + length], &page[begin + length..]))
}

/// Whether a section has the outcome of a step for the same object.
fn has(section: &str, step: &Step) -> bool {
    let head = format!("| `{}` |", step.object);
    let outcome = format!("{}: ", step.outcome.name());
    section
        .lines()
        .any(|row| row.starts_with(&head) && row.contains(&outcome))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::Outcome;

    const TEXT: &str = "# Title\n<!-- sweep a, b -->\nold\n\n| `EQE` |  |  | hung: 3 |\n\n<!-- end -->\nrest\n";

    #[test]
    fn a_section_is_between_its_marks() {
        let (before, section, after) = split(TEXT, "a, b").unwrap();
        assert_eq!(before, "# Title\n<!-- sweep a, b -->\n");
        assert_eq!(section, "old\n\n| `EQE` |  |  | hung: 3 |\n");
        assert_eq!(after, "\n<!-- end -->\nrest\n");
        assert!(split(TEXT, "b").is_err());
    }

    #[test]
    fn what_the_page_has_is_known() {
        let step = |object: &str, outcome| Step {
            number: 9,
            object: object.to_owned(),
            outcome,
            log: String::new(),
        };
        let (_, section, _) = split(TEXT, "a, b").unwrap();
        assert!(has(section, &step("EQE", Outcome::Hung)));
        assert!(!has(section, &step("EQE", Outcome::Splat)));
        assert!(!has(section, &step("CQE", Outcome::Hung)));
    }
}
