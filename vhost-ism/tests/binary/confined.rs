//! The daemon in its sandbox and under a service manager.

use vhost_daemon::testing::{assert_confined, assert_needs_no_reader, assert_notifies};

use crate::PROGRAM;

#[test]
fn every_thread_is_in_the_sandbox() {
    let dir = tempfile::tempdir().unwrap();
    // Two filters of all threads, and those of the thread's kind.
    assert_confined(PROGRAM, dir.path(), &[("a", 4), ("log", 4), ("vhost-ism", 3)]);
}

#[test]
fn the_service_manager_is_notified() {
    assert_notifies(PROGRAM, tempfile::tempdir().unwrap().path());
}

#[test]
fn a_reader_of_the_log_that_stalls_stops_nothing() {
    assert_needs_no_reader(PROGRAM, tempfile::tempdir().unwrap().path());
}
