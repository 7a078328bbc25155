//! Medians of each commit measured on this machine, to compare a change with earlier commits.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use guest_harness::{cache_dir, workspace_dir};
use serde::{Deserialize, Serialize};

/// Medians of each variant, in the order of the table.
pub type Medians = Vec<f64>;

/// The measurements of one commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    commit: String,
    rounds: usize,
    medians: BTreeMap<String, Medians>,
}

/// State of the working tree.
struct Position {
    /// HEAD and its ancestors, newest first.
    commits: Vec<String>,
    /// Whether files differ from HEAD.
    changed: bool,
}

impl Position {
    fn find() -> Result<Self> {
        let log = git(&["rev-list", "HEAD"])?;
        Ok(Self {
            commits: log.lines().map(str::to_owned).collect(),
            changed: !git(&["status", "--porcelain", "--untracked-files=no"])?
                .trim()
                .is_empty(),
        })
    }
}

fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(workspace_dir())
        .args(arguments)
        .output()
        .context("cannot run git")?;
    ensure!(
        output.status.success(),
        "git {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Earlier records of a benchmark, and the one being measured.
pub struct History {
    path: PathBuf,
    records: Vec<Record>,
    earlier: Option<Record>,
    /// `None` if the figures belong to no commit.
    now: Option<Record>,
    /// Reason for the absence of `now`.
    excuse: String,
}

impl History {
    /// Reads the records of a benchmark.
    pub fn open(benchmark: &str, rounds: usize) -> Result<Self> {
        let path = cache_dir().join("bench").join(format!("{benchmark}.json"));
        let records: Vec<Record> = match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| format!("{} is not valid JSON", path.display()))?
            }
            Err(_) => Vec::new(),
        };
        let (commits, excuse) = match Position::find() {
            Ok(position) if position.changed => (position.commits, "files differ from the last commit".to_owned()),
            Ok(position) => (position.commits, String::new()),
            Err(error) => (Vec::new(), format!("{error:#}")),
        };
        let now = excuse.is_empty().then(|| Record {
            commit: commits[0].clone(),
            rounds,
            medians: BTreeMap::new(),
        });
        // A changed tree is compared with HEAD, an unchanged one with the commits before HEAD.
        let before = if now.is_some() { &commits[1..] } else { &commits[..] };
        let earlier = nearest(before, &records).cloned();
        Ok(Self {
            path,
            records,
            earlier,
            now,
            excuse,
        })
    }

    /// Returns the abbreviated id of the commit to compare with.
    pub fn earlier(&self) -> Option<&str> {
        let commit = &self.earlier.as_ref()?.commit;
        Some(commit.get(..7).unwrap_or(commit))
    }

    /// Medians of one series at the earlier commit.
    pub fn earlier_medians(&self, series: &str) -> Option<&Medians> {
        self.earlier.as_ref()?.medians.get(series)
    }

    /// Adds a series to the record being measured.
    pub fn add(&mut self, series: &str, medians: Medians) {
        if let Some(now) = &mut self.now {
            now.medians.insert(series.to_owned(), medians);
        }
    }

    /// Saves the record, replacing an older one of the same commit, and prints the outcome.
    pub fn close(mut self) -> Result<()> {
        match &self.earlier {
            Some(Record { commit, rounds, .. }) => println!("Commit {commit} was measured before (--rounds {rounds})."),
            None => println!("No earlier commit was measured on this machine."),
        }
        let Some(now) = self.now else {
            println!("These figures are not kept: {}.", self.excuse);
            return Ok(());
        };
        println!(
            "These figures are kept for commit {} in {}.",
            now.commit,
            self.path.display()
        );
        self.records.retain(|record| record.commit != now.commit);
        self.records.push(now);
        let text = serde_json::to_vec_pretty(&self.records)?;
        let directory = self.path.parent().context("the history file has no directory")?;
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(&self.path, text))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Returns the record of the first of `commits` that has one.
fn nearest<'a>(commits: &[String], records: &'a [Record]) -> Option<&'a Record> {
    commits
        .iter()
        .find_map(|commit| records.iter().find(|record| record.commit == *commit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_commit_that_was_measured_is_found() {
        let record = |commit: &str| Record {
            commit: commit.to_owned(),
            rounds: 3,
            medians: BTreeMap::new(),
        };
        let records = ["c", "x", "d"].map(record);
        let commits = ["a", "b", "c", "d"].map(str::to_owned);
        assert_eq!(nearest(&commits, &records).unwrap().commit, "c");
        assert_eq!(nearest(&commits[3..], &records).unwrap().commit, "d");
        assert_eq!(nearest(&commits[..2], &records), None);
    }
}
