//! Threads of a daemon in its sandbox.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal};

use super::{Daemon, Program, await_socket, eventually, is_empty};

/// Starts a daemon in an empty directory, and asserts the names of its threads, in order, each with the number of its
/// filters of system calls.
///
/// # Panics
///
/// Panics if there are other threads or filters, if a thread keeps a capability or could get one by a program, or if
/// the daemon does not end as it should.
#[track_caller]
pub fn assert_confined(program: Program, directory: &Path, threads: &[(&str, u32)]) {
    let path = directory.join("a.sock");
    let daemon = Daemon::start(program.command().arg("--socket-path").arg(&path));
    await_socket(&path);
    let expected: Vec<(String, u32)> = threads
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect();
    eventually("each thread has its filters", || {
        filters_of_threads(daemon.pid()).as_ref() == Some(&expected)
    });
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
    assert!(is_empty(directory));
}

/// Names of a process's threads in order, each with the number of its filters of system calls. `None` while a thread
/// has a capability or could get one by a program: the sockets exist before the sandbox does.
fn filters_of_threads(pid: Pid) -> Option<Vec<(String, u32)>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    // A thread may end meanwhile.
    let states = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let mut threads = states.map(|status| filters_of(&status)).collect::<Option<Vec<_>>>()?;
    threads.sort();
    Some(threads)
}

fn filters_of(status: &str) -> Option<(String, u32)> {
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("no {name} in {status}"))
    };
    let sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"];
    let confined = sets.iter().all(|set| field(set) == "0000000000000000") && field("NoNewPrivs") == "1";
    let filters = field("Seccomp_filters").parse().expect("it is a number");
    confined.then(|| (field("Name").to_owned(), filters))
}
