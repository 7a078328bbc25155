//! Results of tests in the output of a command: KTAP, TAP, GoogleTest and pytest.

use std::time::Duration;

mod gtest;
mod ktap;
mod pytest;

/// Result of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// With the reason, which may be empty.
    Skipped(String),
    /// With the first line of the reason, which may be empty.
    Failed(String),
}

/// A test and its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Names of the suites around it, outermost first, separated by dots; may be empty.
    pub suite: String,
    pub name: String,
    pub verdict: Verdict,
    /// Output of the test, if the format shows where it belongs.
    pub output: String,
    pub time: Option<Duration>,
}

impl Case {
    fn new(suite: &str, name: &str, verdict: Verdict) -> Self {
        Self {
            suite: suite.to_owned(),
            name: name.to_owned(),
            verdict,
            output: String::new(),
            time: None,
        }
    }
}

/// Tests of one command or kernel log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Name of the format.
    pub format: &'static str,
    pub cases: Vec<Case>,
}

impl Report {
    /// Returns the numbers of tests passed, failed and skipped.
    pub fn counts(&self) -> [usize; 3] {
        let count = |of: fn(&Verdict) -> bool| self.cases.iter().filter(|case| of(&case.verdict)).count();
        [
            count(|verdict| *verdict == Verdict::Passed),
            count(|verdict| matches!(verdict, Verdict::Failed(_))),
            count(|verdict| matches!(verdict, Verdict::Skipped(_))),
        ]
    }
}

/// A parser of one format, with its name and the mark of its presence.
type Format = (&'static str, fn(&str) -> bool, fn(&str) -> Vec<Case>);

const FORMATS: [Format; 3] = [
    ("gtest", gtest::is_present, gtest::parse),
    ("pytest", pytest::is_present, pytest::parse),
    ("KTAP", ktap::is_present, ktap::parse),
];

/// Finds the reports in an output; each format is looked for.
pub fn find(output: &[u8]) -> Vec<Report> {
    let text = plain(&String::from_utf8_lossy(output));
    FORMATS
        .iter()
        .filter(|(_, is_present, _)| is_present(&text))
        .map(|(format, _, parse)| Report {
            format,
            cases: parse(&text),
        })
        .filter(|report| !report.cases.is_empty())
        .collect()
}

/// Removes carriage returns and the sequences that colour a terminal (ECMA-48, 5.4).
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\r' => {}
            '\u{1b}' if letters.peek() == Some(&'[') => {
                letters.next();
                for letter in letters.by_ref() {
                    if ('@'..='~').contains(&letter) {
                        break;
                    }
                }
            }
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_without_tests_has_no_report() {
        assert_eq!(find(b"hello\nok then\nnot okay\n1..2 buckle my shoe\n"), []);
    }

    #[test]
    fn colours_and_carriage_returns_hide_nothing() {
        let reports = find(b"TAP version 13\r\n1..1\r\n\x1b[32mok 1 - one\x1b[0m\r\n");
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].cases, [Case::new("", "one", Verdict::Passed)]);
    }

    #[test]
    fn counts_are_of_passed_failed_skipped() {
        let report = find(b"TAP version 13\n1..4\nok 1 a\nnot ok 2 b\nok 3 c # SKIP no\nok 4 d\n");
        assert_eq!(report[0].counts(), [2, 1, 1]);
    }
}
