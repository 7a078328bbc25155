//! Threads of a daemon in its sandbox.

use std::fs;

use rustix::process::Pid;

/// Returns the names of a process's threads, each with the number of its filters of system calls, in order.
///
/// # Panics
///
/// Panics if a thread has a capability, or could get one by a program.
#[track_caller]
pub fn filters_of_threads(pid: Pid) -> Vec<(String, u32)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    // A thread may end meanwhile.
    let states = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let mut threads: Vec<(String, u32)> = states
        .map(|status| {
            let field = |name: &str| {
                let line = status
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
                line.unwrap_or_else(|| panic!("no {name} in {status}"))
            };
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(field(set), "0000000000000000", "{set} in {status}");
            }
            assert_eq!(field("NoNewPrivs"), "1", "{status}");
            let filters = field("Seccomp_filters").parse().expect("it is a number");
            (field("Name").to_owned(), filters)
        })
        .collect();
    threads.sort();
    threads
}
