//! The page with the results of sweeps.

use std::{env, fs};

use super::report::{Step, summary, table};
use crate::error::{Doing, Error, Result};
use crate::locate::workspace_dir;

/// The page, in the source tree.
const PAGE: &str = "docs/fault-sweep.md";

/// Compares a sweep with its section of `docs/fault-sweep.md`, which is between `<!-- sweep NAME -->` and the next
/// `<!-- end -->`. With the variable UPDATE, rewrites the section. Fails if an object has more steps with a bad outcome
/// than the section. The order of occasions varies, but not what a driver does badly. `counted` is for workloads whose
/// occasions are the same in each run: of others, the section only has to have the outcome of the object.
pub fn compare_with_page(name: &str, steps: &[Step], counted: bool) -> Result<()> {
    let path = workspace_dir().join(PAGE);
    let page = fs::read_to_string(&path).doing(|| format!("read {}", path.display()))?;
    let (before, section, after) = split(&page, name)?;
    if env::var_os("UPDATE").is_some() {
        let page = format!("{before}\n{}.\n\n{}{after}", summary(steps), table(steps));
        return fs::write(&path, page).doing(|| format!("write {}", path.display()));
    }
    match first_beyond(section, steps, counted) {
        None => Ok(()),
        Some(step) => Err(Error::Sweep(format!(
            "step {} ({}): {}, which {PAGE} does not have, or fewer times; log:\n{}",
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

/// Returns the first step with a bad outcome that its object does not have in the section or, if they are counted, has
/// more often than there.
fn first_beyond<'a>(section: &str, steps: &'a [Step], counted: bool) -> Option<&'a Step> {
    steps.iter().enumerate().find_map(|(index, step)| {
        let alike = |other: &&Step| (&other.object, other.outcome) == (&step.object, step.outcome);
        let so_far = steps[..=index].iter().filter(alike).count();
        let expected = count(section, step);
        let beyond = if counted { so_far > expected } else { expected == 0 };
        (step.outcome.is_bad() && beyond).then_some(step)
    })
}

/// Number of steps that a section has with the object and the bad outcome of this one.
fn count(section: &str, step: &Step) -> usize {
    let head = format!("| `{}` |", step.object);
    let outcome = format!("{}: ", step.outcome.name());
    let row = section.lines().find(|row| row.starts_with(&head));
    let others = row.and_then(|row| row.trim_end_matches([' ', '|']).rsplit('|').next());
    let numbers = others
        .into_iter()
        .flat_map(|cell| cell.split("; "))
        .find_map(|list| list.trim().strip_prefix(&outcome));
    let ranges = numbers.into_iter().flat_map(|list| list.split(", "));
    ranges.map(length).sum()
}

/// Number of steps in `first–last`, or 1 in `number`.
fn length(range: &str) -> usize {
    let number = |text: &str| text.parse::<usize>().ok();
    match range.split_once('–').map(|(first, last)| (number(first), number(last))) {
        Some((Some(first), Some(last))) => (last + 1).saturating_sub(first),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::Outcome;

    const TEXT: &str =
        "# Title\n<!-- sweep a, b -->\nold\n\n| `EQE` | 1 |  | hung: 3, 5–7; splat: 9 |\n\n<!-- end -->\nrest\n";

    #[test]
    fn a_section_is_between_its_marks() {
        let (before, section, after) = split(TEXT, "a, b").unwrap();
        assert_eq!(before, "# Title\n<!-- sweep a, b -->\n");
        assert_eq!(section, "old\n\n| `EQE` | 1 |  | hung: 3, 5–7; splat: 9 |\n");
        assert_eq!(after, "\n<!-- end -->\nrest\n");
        assert!(split(TEXT, "b").is_err());
    }

    #[test]
    fn what_the_page_has_is_known_as_often_as_there() {
        let step = |object: &str, outcome| Step {
            number: 9,
            object: object.to_owned(),
            outcome,
            log: String::new(),
        };
        let (_, section, _) = split(TEXT, "a, b").unwrap();
        let mut steps = vec![step("EQE", Outcome::Hung); 4];
        steps.extend([step("EQE", Outcome::Splat), step("CQE", Outcome::Recovered)]);
        assert_eq!(first_beyond(section, &steps, true), None);
        for (beyond, only_counted) in [
            (step("EQE", Outcome::Hung), true),
            (step("EQE", Outcome::Splat), true),
            (step("EQE", Outcome::Broken), false),
            (step("CQE", Outcome::Hung), false),
        ] {
            let steps = [&steps[..], std::slice::from_ref(&beyond)].concat();
            assert_eq!(first_beyond(section, &steps, true), Some(&beyond));
            let uncounted = (!only_counted).then_some(&beyond);
            assert_eq!(first_beyond(section, &steps, false), uncounted);
        }
    }
}
