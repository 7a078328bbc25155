//! pytest's output for a terminal, with and without `-v`, and that of Python's unittest with `-v`.
//!
//! Without `-v`, pytest names only the tests that did not pass; those that did are counted by file.

use super::{Case, Verdict};

/// Whether the text has the first line of pytest, or the last ones of unittest.
pub fn is_present(text: &str) -> bool {
    is_pytest(text) || is_unittest(text)
}

fn is_pytest(text: &str) -> bool {
    text.lines().any(|line| is_title(line, "test session starts"))
}

fn is_unittest(text: &str) -> bool {
    let mut lines = text.lines();
    lines.any(|line| line.starts_with("Ran ") && line.contains(" test")) && lines.any(is_unittest_end)
}

fn is_unittest_end(line: &str) -> bool {
    line == "OK" || line.starts_with("OK (") || line.starts_with("FAILED (")
}

fn is_title(line: &str, title: &str) -> bool {
    line.starts_with("===") && line.ends_with("===") && line.trim_matches('=').trim() == title
}

/// Returns the tests of the text.
pub fn parse(text: &str) -> Vec<Case> {
    if is_pytest(text) { pytest(text) } else { unittest(text) }
}

fn pytest(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some((name, verdict)) = verbose(line) {
            put(&mut cases, case(name, verdict));
        } else if let Some((file, letters)) = dots(line) {
            let before = cases.iter().filter(|case| case.suite == file).count();
            let passed = letters.bytes().enumerate().filter(|(_, letter)| b".X".contains(letter));
            cases.extend(
                passed.map(|(index, _)| Case::new(file, &format!("test {}", before + index + 1), Verdict::Passed)),
            );
        } else if let Some((name, reason, word)) = summary(line) {
            let verdict = if word == "SKIPPED" || word == "XFAIL" {
                Verdict::Skipped(reason.to_owned())
            } else {
                Verdict::Failed(reason.to_owned())
            };
            put(&mut cases, case(name, verdict));
        }
    }
    cases
}

/// Adds a test; the list at the end has the reasons of tests that are there already.
fn put(cases: &mut Vec<Case>, case: Case) {
    match cases
        .iter_mut()
        .find(|other| other.suite == case.suite && other.name == case.name)
    {
        Some(other) => other.verdict = case.verdict,
        None => cases.push(case),
    }
}

fn case(name: &str, verdict: Verdict) -> Case {
    let (suite, name) = name.split_once("::").unwrap_or(("", name));
    Case::new(suite, name, verdict)
}

/// Verdicts of a test.
const WORDS: [&str; 6] = ["PASSED", "XPASS", "SKIPPED", "XFAIL", "FAILED", "ERROR"];

/// Returns test and verdict of `tests/test_qp.py::QPTest::test_create PASSED [ 12%]`.
fn verbose(line: &str) -> Option<(&str, Verdict)> {
    let line = line
        .rsplit_once('[')
        .filter(|(_, end)| end.ends_with("%]"))
        .map_or(line, |(line, _)| line);
    let line = line.trim_end();
    // Parameters in the name may have spaces.
    let (name, word, reason) = WORDS.iter().find_map(|word| {
        let (name, rest) = line.split_once(&format!(" {word}"))?;
        let ends = rest.is_empty() || rest.starts_with(' ');
        (ends && name.contains("::")).then_some((name, *word, rest))
    })?;
    let reason = reason.trim().trim_start_matches('(').trim_end_matches(')').to_owned();
    let verdict = match word {
        "PASSED" | "XPASS" => Verdict::Passed,
        "SKIPPED" | "XFAIL" => Verdict::Skipped(reason),
        _ => Verdict::Failed(reason),
    };
    Some((name, verdict))
}

/// Returns file and letters of `tests/test_qp.py ..sF.  [ 40%]`.
fn dots(line: &str) -> Option<(&str, &str)> {
    let (file, rest) = line.split_once(' ')?;
    let letters = rest.split('[').next()?.trim();
    let known = !letters.is_empty() && letters.bytes().all(|letter| b".FEsxX".contains(&letter));
    (file.ends_with(".py") && known).then_some((file, letters))
}

/// Returns test, reason and verdict of `FAILED tests/test_qp.py::QPTest::test_create - OSError: ...`.
fn summary(line: &str) -> Option<(&str, &str, &str)> {
    let (word, rest) = line.split_once(' ')?;
    if !["FAILED", "ERROR", "XFAIL", "SKIPPED"].contains(&word) {
        return None;
    }
    if word == "SKIPPED" {
        // SKIPPED [2] tests/test_qp.py:40: no device
        let (_, rest) = rest.strip_prefix('[')?.split_once("] ")?;
        let (place, reason) = rest.split_once(": ").unwrap_or((rest, ""));
        return Some((place, reason, word));
    }
    let (name, reason) = rest.split_once(" - ").unwrap_or((rest, ""));
    (name.contains(".py")).then_some((name, reason, word))
}

/// `test_create (tests.test_qp.QPTest.test_create)`, perhaps the test's doc string on the next line, then ` ... ok`.
fn unittest(text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut before = "";
    for line in text.lines() {
        let verdict = line.rsplit_once(" ... ").and_then(|(head, word)| {
            let verdict = match word {
                "ok" | "unexpected success" => Verdict::Passed,
                "FAIL" | "ERROR" => Verdict::Failed(String::new()),
                "expected failure" => Verdict::Skipped(word.to_owned()),
                _ => Verdict::Skipped(word.strip_prefix("skipped ")?.trim_matches(['\'', '"']).to_owned()),
            };
            Some((head, verdict))
        });
        if let Some((head, verdict)) = verdict {
            let named = [head, before].into_iter().find_map(unittest_name);
            let (suite, name) = named.unwrap_or(("", head));
            cases.push(Case::new(suite, name, verdict));
        }
        before = line;
    }
    cases
}

/// Returns class and name of `test_create (tests.test_qp.QPTest.test_create)`.
fn unittest_name(line: &str) -> Option<(&str, &str)> {
    let (name, class) = line.split_once(" (")?;
    let class = class.strip_suffix(')')?;
    let class = class
        .strip_suffix(name)
        .and_then(|class| class.strip_suffix('.'))
        .unwrap_or(class);
    (!name.contains(' ')).then_some((class, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(cases: &[Case]) -> Vec<(&str, &str, &Verdict)> {
        let of = |case: &'_ Case| -> (String, String) { (case.suite.clone(), case.name.clone()) };
        assert!(cases.iter().map(of).all(|(_, name)| !name.is_empty()));
        cases
            .iter()
            .map(|case| (case.suite.as_str(), case.name.as_str(), &case.verdict))
            .collect()
    }

    fn failed(reason: &str) -> Verdict {
        Verdict::Failed(reason.to_owned())
    }

    fn skipped(reason: &str) -> Verdict {
        Verdict::Skipped(reason.to_owned())
    }

    #[test]
    fn verbose_pytest_with_reasons_from_the_end() {
        let text = "\
============================= test session starts ==============================
platform linux -- Python 3.13.5, pytest-8.3.5, pluggy-1.5.0 -- /usr/bin/python3
collected 4 items

tests/test_qp.py::QPTest::test_create PASSED                             [ 25%]
tests/test_qp.py::QPTest::test_modify FAILED                             [ 50%]
tests/test_qp.py::QPTest::test_raw SKIPPED (no device)                   [ 75%]
tests/test_qp.py::test_value[a b] PASSED                                 [100%]

=========================== short test summary info ============================
FAILED tests/test_qp.py::QPTest::test_modify - OSError: [Errno 22] Invalid argument
==================== 1 failed, 2 passed, 1 skipped in 0.05s ====================
";
        assert!(is_present(text));
        let cases = parse(text);
        assert_eq!(
            verdicts(&cases)[..3],
            [
                ("tests/test_qp.py", "QPTest::test_create", &Verdict::Passed),
                (
                    "tests/test_qp.py",
                    "QPTest::test_modify",
                    &failed("OSError: [Errno 22] Invalid argument")
                ),
                ("tests/test_qp.py", "QPTest::test_raw", &skipped("no device")),
            ]
        );
        assert_eq!(cases.len(), 4);
    }

    #[test]
    fn quiet_pytest_counts_what_passed() {
        let text = "\
============================= test session starts ==============================
collected 4 items

test_a.py ..F                                                            [ 75%]
test_b.py s                                                              [100%]

=================================== FAILURES ===================================
=========================== short test summary info ============================
SKIPPED [1] test_b.py:3: no device
FAILED test_a.py::test_three - assert 1 == 2
==================== 1 failed, 2 passed, 1 skipped in 0.05s ====================
";
        assert_eq!(
            verdicts(&parse(text)),
            [
                ("test_a.py", "test 1", &Verdict::Passed),
                ("test_a.py", "test 2", &Verdict::Passed),
                ("", "test_b.py:3", &skipped("no device")),
                ("test_a.py", "test_three", &failed("assert 1 == 2")),
            ]
        );
    }

    /// rdma-core's suite, as tests/run_tests.py -v prints it.
    #[test]
    fn unittest_with_doc_strings() {
        let text = "\
test_create_ah (tests.test_addr.AHTest.test_create_ah)
Test ibv_create_ah. ... ok
test_dm (tests.test_mr.DMTest.test_dm) ... skipped 'No device memory'
test_cq (tests.test_cq.CQTest.test_cq) ... FAIL

======================================================================
FAIL: test_cq (tests.test_cq.CQTest.test_cq)
----------------------------------------------------------------------
Ran 3 tests in 0.010s

FAILED (failures=1, skipped=1)
";
        assert!(is_present(text));
        assert_eq!(
            verdicts(&parse(text)),
            [
                ("tests.test_addr.AHTest", "test_create_ah", &Verdict::Passed),
                ("tests.test_mr.DMTest", "test_dm", &skipped("No device memory")),
                ("tests.test_cq.CQTest", "test_cq", &failed("")),
            ]
        );
    }
}
