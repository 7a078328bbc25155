//! `top` on a terminal.

use vhost_daemon::testing::{Daemon, Program, assert_top, await_socket};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_vhost-nic"));

#[test]
fn top_shows_a_table_and_leaves_the_terminal_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut command = PROGRAM.command();
    for (option, name) in [
        ("--socket-path", "a.sock"),
        ("--socket-path", "b.sock"),
        ("--control-socket", "control.sock"),
    ] {
        command.arg(option).arg(path(name));
    }
    let daemon = Daemon::start(&mut command);
    await_socket(&path("control.sock"));
    assert_top(PROGRAM, daemon, &path("control.sock"), ["guest", "Gb/s"]);
}
