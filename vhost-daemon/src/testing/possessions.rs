//! Descriptors, threads and memory of a process, for tests of leaks.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, getpid};

/// Time without a change after which a process counts as settled.
const SETTLED: Duration = Duration::from_millis(50);

/// Descriptors by kind, threads, and mapped bytes of memfds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Possessions {
    /// Number of open descriptors by the kind of their target, such as `socket`.
    pub descriptors: BTreeMap<String, usize>,
    /// Number of threads.
    pub threads: usize,
    /// Mapped bytes of memfds.
    pub memfd_bytes: u64,
}

impl Possessions {
    /// Returns those of this process, once they no longer change: threads that watch a stopped device, for example, end
    /// a little later.
    pub fn own() -> Self {
        Self::of(getpid())
    }

    /// Returns those of a process, once they no longer change.
    pub fn of(process: Pid) -> Self {
        let mut seen = Self::now(process);
        loop {
            thread::sleep(SETTLED);
            let before = std::mem::replace(&mut seen, Self::now(process));
            if seen == before {
                return seen;
            }
        }
    }

    fn now(process: Pid) -> Self {
        let directory = PathBuf::from(format!("/proc/{}", process.as_raw_nonzero()));
        let entries = |name| fs::read_dir(directory.join(name)).expect("the process lives");
        let mut descriptors = BTreeMap::new();
        for entry in entries("fd").flatten() {
            // That of this directory is gone by now.
            let Ok(target) = fs::read_link(entry.path()) else {
                continue;
            };
            let target = target.to_string_lossy().into_owned();
            let kind = target.split([':', '[', ' ']).next().unwrap_or_default().to_owned();
            *descriptors.entry(kind).or_default() += 1;
        }
        let maps = fs::read_to_string(directory.join("maps")).expect("the process lives");
        Self {
            descriptors,
            threads: entries("task").count(),
            memfd_bytes: maps.lines().filter(|line| line.contains("memfd:")).map(length).sum(),
        }
    }
}

/// Bytes of a mapping (proc_pid_maps(5)).
fn length(line: &str) -> u64 {
    let number = |text| u64::from_str_radix(text, 16).expect("it is an address");
    let range = line.split(' ').next().and_then(|range| range.split_once('-'));
    let (start, end) = range.expect("a line begins with a range");
    number(end) - number(start)
}
