//! Command lines.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use vhost_daemon::testing::{Daemon, await_socket};

use crate::PROGRAM;

#[test]
fn capabilities() {
    let output = PROGRAM.run(&["--print-capabilities"]);
    assert!(output.status.success());
    assert!(output.stderr.is_empty());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["type"].is_string(), "{json}");
    assert!(json["features"].is_array(), "{json}");
    // Each of them can be zeroed.
    let names = json["device"]["capabilities"].as_array().unwrap();
    assert!(names.len() > 50, "{json}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let zeroed = names
        .iter()
        .flat_map(|name| ["--zero-capability", name.as_str().unwrap()]);
    let daemon = Daemon::start(PROGRAM.command().arg("--socket-path").arg(&path).args(zeroed));
    await_socket(&path);
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
}

#[test]
fn help_and_version() {
    for flag in ["--help", "--version"] {
        let output = PROGRAM.run(&[flag]);
        assert!(output.status.success());
        assert!(
            String::from_utf8(output.stdout).unwrap().contains("vhost-nic"),
            "{flag}"
        );
    }
}

#[test]
fn bad_command_lines() {
    // Refused by the parser.
    for args in [
        &[][..],
        &["--no-such-flag"],
        &["--guest", "attach=vfio-user"],
        &["--guest", "path=a,mac=ff:ff:ff:ff:ff:ff"],
        &["--guest", "path=a,id=e1000"],
        &["--guest", "path=a,vectors=0"],
        &["--socket-path", "x", "--print-capabilities"],
        &["--socket-path", "x", "--capture-port", "x"],
        &["--socket-path", "x", "--capture-commands"],
        &["--fd", "three"],
        &["--fd", "-1"],
        &["x.sock"],
    ] {
        let output = PROGRAM.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("error: "), "{args:?}: {text}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    // Refused by the daemon, in one line and without leftovers.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "kept").unwrap();
    let (file, free) = (file.to_str().unwrap(), dir.path().join("free"));
    let free = free.to_str().unwrap();
    let capture = dir.path().join("frames.pcapng");
    let capture = capture.to_str().unwrap();
    let [link, fifo] = ["link", "fifo"].map(|name| dir.path().join(name));
    symlink(file, &link).unwrap();
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let [link, fifo] = [&link, &fifo].map(|path| path.to_str().unwrap());
    let guest = format!("path={free}");
    for args in [
        &["--socket-path", "/no/such/directory/a.sock"][..],
        &["--socket-path", free, "--socket-path", free],
        &["--socket-path", free, "--guest", &guest],
        &["--guest", &guest, "--guest", "path=other,mac=52:54:00:00:c5:01"],
        &["--socket-path", free, "--socket-path", file],
        &["--socket-path", free, "--stats-socket", file],
        &["--socket-path", free, "--fd", "1"],
        &["--socket-path", free, "--fd", "77"],
        &["--socket-path", free, "--zero-capability", "no_such_capability"],
        &["--socket-path", free, "--capture", "/no/such/directory/frames.pcapng"],
        &["--socket-path", free, "--capture", link],
        &["--socket-path", free, "--capture", fifo],
        &["--socket-path", free, "--capture", "/dev/null"],
        &["--socket-path", free, "--capture", capture, "--capture-port", "other"],
        &[
            "--socket-path",
            free,
            "--capture",
            capture,
            "--zero-capability",
            "no_such_capability",
        ],
    ] {
        let output = PROGRAM.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(
            text.starts_with("error: ") && !text.ends_with(".\n"),
            "{args:?}: {text}"
        );
        assert!(!text.contains("panicked"), "{args:?}: {text}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!Path::new(free).exists(), "{args:?}");
        assert!(!Path::new(capture).exists(), "{args:?}");
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "kept");
}
