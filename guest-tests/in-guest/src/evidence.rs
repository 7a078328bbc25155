//! Complaints of kernels and daemons, and reports of tests: what makes a run fail whose command succeeded.

use std::path::Path;

use anyhow::Result;
use guest_harness::Guest;

use crate::junit;
use crate::report::{self, Report, Verdict};
use crate::results;

/// Limit on the failed tests that are named.
const NAMED: usize = 20;

/// Complaints and reports besides the command's status.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Lines that say why the run fails.
    pub complaints: Vec<String>,
    reports: Vec<(String, Report)>,
}

impl Evidence {
    /// Looks for reports of tests in the output of a guest's command or in its kernel's log.
    pub fn search(&mut self, source: &str, output: &[u8]) {
        let found = report::find(output).into_iter();
        self.reports.extend(found.map(|report| (source.to_owned(), report)));
    }

    /// Adds a report.
    pub fn add(&mut self, source: &str, report: Report) {
        self.reports.push((source.to_owned(), report));
    }

    /// Adds the splats of a guest, each complete.
    pub fn add_splats(&mut self, guest: &Guest) {
        for splat in guest.splats() {
            self.complaints
                .push(format!("guest {} printed a kernel splat:\n{splat}", guest.name()));
        }
    }

    /// Writes the reports as JUnit XML; returns a line for each.
    pub fn report(&mut self, folder: &Path) -> Result<Vec<String>> {
        if self.reports.is_empty() {
            return Ok(Vec::new());
        }
        results::write(folder, "junit.xml", junit::xml(&self.reports)?)?;
        let mut lines = Vec::new();
        for (source, report) in &self.reports {
            let [passed, failed, skipped] = report.counts();
            let counts = format!("{passed} passed, {failed} failed, {skipped} skipped");
            lines.push(format!("{source}, {}: {counts}", report.format));
            let failures = report.cases.iter().filter_map(|case| match &case.verdict {
                Verdict::Failed(reason) => Some(line(&case.suite, &case.name, reason)),
                _ => None,
            });
            lines.extend(failures.take(NAMED));
            if failed > 0 {
                self.complaints.push(format!("tests of {source} that failed: {failed}"));
            }
        }
        Ok(lines)
    }
}

fn line(suite: &str, name: &str, reason: &str) -> String {
    let dot = if suite.is_empty() { "" } else { "." };
    let colon = if reason.is_empty() { "" } else { ": " };
    format!("failed: {suite}{dot}{name}{colon}{reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_named_counted_and_complained_about() {
        let folder = tempfile::tempdir().unwrap();
        let mut evidence = Evidence::default();
        evidence.search("guest a", b"TAP version 13\n1..2\nok 1 one\nnot ok 2 two # exit=1\n");
        evidence.search("guest b", b"no tests\n");
        let lines = evidence.report(folder.path()).unwrap();
        assert_eq!(
            lines,
            ["guest a, KTAP: 1 passed, 1 failed, 0 skipped", "failed: two: exit=1"]
        );
        assert_eq!(evidence.complaints, ["tests of guest a that failed: 1"]);
        assert!(folder.path().join("junit.xml").exists());
    }

    #[test]
    fn without_reports_there_is_no_xml() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Evidence::default().report(folder.path()).unwrap().is_empty());
        assert!(!folder.path().join("junit.xml").exists());
    }
}
