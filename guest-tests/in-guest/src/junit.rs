//! Reports as JUnit XML.

use anyhow::Result;
use quick_junit::{NonSuccessKind, Report as Document, TestCase, TestCaseStatus, TestSuite};

use crate::report::{Case, Report, Verdict};

/// Returns the XML of reports, each under the name of where it comes from.
pub fn xml(reports: &[(String, Report)]) -> Result<String> {
    let mut document = Document::new("in-guest");
    for (source, report) in reports {
        let mut suite = TestSuite::new(format!("{source} ({})", report.format));
        suite.add_test_cases(report.cases.iter().map(|case| test_case(source, case)));
        document.add_test_suite(suite);
    }
    Ok(document.to_string()?)
}

fn test_case(source: &str, case: &Case) -> TestCase {
    let status = match &case.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Skipped(reason) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason.clone());
            status
        }
        Verdict::Failed(reason) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(reason.clone());
            status
        }
    };
    let mut test = TestCase::new(case.name.clone(), status);
    test.set_classname(if case.suite.is_empty() { source } else { &case.suite });
    if let Some(time) = case.time {
        test.set_time(time);
    }
    if !case.output.is_empty() {
        test.set_system_out(case.output.clone());
    }
    test
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report;

    #[test]
    fn verdicts_reasons_and_output_are_in_the_xml() {
        let output = b"TAP version 13\n1..3\nok 1 a\n# <why> & what\nnot ok 2 b # exit=1\nok 3 c # SKIP none\n";
        let reports: Vec<_> = report::find(output)
            .into_iter()
            .map(|report| ("guest a".to_owned(), report))
            .collect();
        let xml = xml(&reports).unwrap();
        for part in [
            r#"<testsuites name="in-guest" tests="3" skipped="1" failures="1" errors="0">"#,
            r#"<testsuite name="guest a (KTAP)" tests="3" skipped="1" errors="0" failures="1">"#,
            r#"<testcase name="b" classname="guest a">"#,
            r#"<failure message="exit=1"/>"#,
            r#"<skipped message="none"/>"#,
            "<system-out>&lt;why&gt; &amp; what\n</system-out>",
        ] {
            assert!(xml.contains(part), "no {part} in\n{xml}");
        }
    }
}
