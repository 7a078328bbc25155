//! The log of a daemon, in a process of its own: the test binary again, with one test that logs.

use std::process::Command;
use std::thread;

use anyhow::bail;
use vhost_daemon::{Capabilities, CommonArgs, isolate, log_by_thread, log_to_stderr, run};

const CHILD: &str = "LOG_TEST_CHILD";

#[test]
#[ignore = "a process of the other test"]
fn log() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    log_to_stderr();
    run(&CommonArgs::default(), Capabilities::default, || {
        log_by_thread()?;
        let worker = thread::Builder::new().name("a".to_owned());
        let worker = worker.spawn(|| isolate("a: the worker", || panic!("on purpose")))?;
        assert!(worker.join().is_ok());
        bail!("the end")
    });
}

#[test]
fn a_panic_and_the_error_at_the_end_are_lines_of_the_log() {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "log", "--ignored", "--nocapture", "--quiet"]);
    let child = child.env(CHILD, "").env_remove("RUST_LOG").env("RUST_BACKTRACE", "1");
    let text = String::from_utf8(child.output().unwrap().stderr).unwrap();
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part:?} in {text}"));
    let places = [
        at("ERROR vhost_daemon::log_queue] thread \"a\" panicked at vhost-daemon/tests/log.rs:"),
        at("on purpose\n"),
        at("log::log::"),
        at("a: the worker panicked\n"),
        at("error: the end\n"),
    ];
    assert!(places.is_sorted(), "{text}");
}
