//! GoogleTest's output for a terminal (googletest/src/gtest.cc, `PrettyUnitTestResultPrinter`).

use std::time::Duration;

use super::{Case, Verdict};

/// Whether the text has a line of GoogleTest.
pub fn is_present(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("[==========] Running "))
}

/// Returns the tests of the text. A test that began and has no result crashed.
pub fn parse(text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut running: Option<(&str, String)> = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("[ RUN      ] ") {
            cases.extend(running.replace((name, String::new())).map(crashed));
            continue;
        }
        let verdict = match line.get(..13) {
            Some("[       OK ] ") => Verdict::Passed,
            Some("[  SKIPPED ] ") => Verdict::Skipped(String::new()),
            Some("[  FAILED  ] ") => Verdict::Failed(String::new()),
            _ => {
                if let Some((_, output)) = &mut running {
                    output.push_str(line);
                    output.push('\n');
                }
                continue;
            }
        };
        // The list of failures at the end has the same marks, without a test that runs.
        let Some((name, output)) = running.take() else { continue };
        let mut case = named(name, verdict);
        let reason = output.lines().next().unwrap_or_default().to_owned();
        match &mut case.verdict {
            Verdict::Failed(text) | Verdict::Skipped(text) => *text = reason,
            Verdict::Passed => {}
        }
        case.output = output;
        case.time = time(line);
        cases.push(case);
    }
    cases.extend(running.map(crashed));
    cases
}

fn named(name: &str, verdict: Verdict) -> Case {
    let (suite, name) = name.split_once('.').unwrap_or(("", name));
    Case::new(suite, name, verdict)
}

fn crashed((name, output): (&str, String)) -> Case {
    let mut case = named(name, Verdict::Failed("ended without a result".to_owned()));
    case.output = output;
    case
}

/// Returns the time in `(12 ms)` at the end of a line.
fn time(line: &str) -> Option<Duration> {
    let (_, time) = line.strip_suffix(" ms)")?.rsplit_once('(')?;
    time.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output of UCX's gtest, shortened.
    const OUTPUT: &str = "\
Note: Google Test filter = *rc*
[==========] Running 4 tests from 2 test suites.
[----------] Global test environment set-up.
[----------] 2 tests from rc_mlx5/uct_p2p_am_test
[ RUN      ] rc_mlx5/uct_p2p_am_test.am_sync/0
[       OK ] rc_mlx5/uct_p2p_am_test.am_sync/0 (12 ms)
[ RUN      ] rc_mlx5/uct_p2p_am_test.am_async/0
test/gtest/uct/test_p2p_am.cc:98: Failure
Expected equality of these values:
  1
  count
[  FAILED  ] rc_mlx5/uct_p2p_am_test.am_async/0, where GetParam() = rc_mlx5/mlx5_0:1 (7 ms)
[----------] 2 tests from rc_mlx5/uct_p2p_am_test (19 ms total)

[ RUN      ] dc/test.skips
[     SKIP ] (DC is not supported)
[  SKIPPED ] dc/test.skips (0 ms)
[ RUN      ] dc/test.crashes
";

    #[test]
    fn every_test_has_its_verdict_output_and_time() {
        assert!(is_present(OUTPUT));
        let cases = parse(OUTPUT);
        let verdicts: Vec<_> = cases
            .iter()
            .map(|case| (case.suite.as_str(), case.name.as_str(), &case.verdict))
            .collect();
        let failed = |reason: &str| Verdict::Failed(reason.to_owned());
        assert_eq!(
            verdicts,
            [
                ("rc_mlx5/uct_p2p_am_test", "am_sync/0", &Verdict::Passed),
                (
                    "rc_mlx5/uct_p2p_am_test",
                    "am_async/0",
                    &failed("test/gtest/uct/test_p2p_am.cc:98: Failure")
                ),
                (
                    "dc/test",
                    "skips",
                    &Verdict::Skipped("[     SKIP ] (DC is not supported)".to_owned())
                ),
                ("dc/test", "crashes", &failed("ended without a result")),
            ]
        );
        assert_eq!(cases[0].time, Some(Duration::from_millis(12)));
        assert!(cases[1].output.ends_with("  count\n"));
    }

    #[test]
    fn the_list_of_failures_at_the_end_does_not_count_again() {
        let text = "[==========] Running 1 test from 1 test suite.\n[ RUN      ] a.b\n[  FAILED  ] a.b (0 ms)\n\
                    [  PASSED  ] 0 tests.\n[  FAILED  ] 1 test, listed below:\n[  FAILED  ] a.b\n";
        assert_eq!(parse(text).len(), 1);
    }
}
