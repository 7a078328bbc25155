//! Command lines.

use std::fs;
use std::path::Path;

use crate::PROGRAM;

#[test]
fn capabilities() {
    let output = PROGRAM.run(&["--print-capabilities"]);
    assert!(output.status.success());
    assert!(output.stderr.is_empty());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["type"].is_string(), "{json}");
    assert!(json["features"].is_array(), "{json}");
}

#[test]
fn help_and_version() {
    for flag in ["--help", "--version"] {
        let output = PROGRAM.run(&[flag]);
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("vhost-ism") || flag == "--help");
    }
}

#[test]
fn bad_command_lines() {
    // Refused by the parser.
    for args in [
        &[][..],
        &["--no-such-flag"],
        &["--socket-dir", "/tmp"],
        &["--guests", "2"],
        &["--socket-path", "x", "--chid", "0x1234"],
        &["--socket-path", "x", "--chid", "0xffff"],
        &["--socket-path", "x", "--region-size", "lots"],
        &["--socket-path", "x", "--max-dmbs", "-1"],
        &["--socket-path", "x", "--print-capabilities"],
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
    // Refused by the daemon: in one line, and nothing is left behind.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "kept").unwrap();
    let (file, free) = (file.to_str().unwrap(), dir.path().join("free"));
    let free = free.to_str().unwrap();
    for args in [
        &["--socket-path", free, "--region-size", "100M"][..],
        &["--socket-path", free, "--region-size", "4M"],
        &["--socket-path", free, "--region-size", "1G"],
        &["--socket-path", free, "--max-dmb-size", "3M"],
        &["--socket-path", free, "--max-dmb-size", "8K"],
        &["--socket-path", free, "--max-dmb-size", "128M"],
        &["--socket-path", free, "--max-maps", "0"],
        &["--socket-path", free, "--max-maps", "200"],
        &["--socket-path", "/no/such/directory/a.sock"],
        &["--socket-path", free, "--socket-path", free],
        &["--socket-path", free, "--socket-path", file],
        &["--socket-path", free, "--stats-socket", file],
        &["--socket-path", free, "--fd", "1"],
        &["--socket-path", free, "--fd", "77"],
        &["--socket-dir", file, "--guests", "1"],
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
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "kept");
}
