//! Records of a daemon.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::process::Signal;
use vhost_daemon::testing::{Daemon, await_socket};

use crate::{PROGRAM, UAR_DOORBELL, VFIO_PCI_CONFIG_REGION_INDEX, read_ids};

#[test]
fn a_record_is_complete_after_a_signal_and_can_be_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, record] = ["a.sock", "b.sock", "a.record"].map(|name| dir.path().join(name));
    let guest = format!("path={},record={}", a.display(), record.display());
    let mut command = PROGRAM.command();
    command.args(["--guest", &guest]).arg("--socket-path").arg(&b);
    let daemon = Daemon::start(&mut command);
    await_socket(&a);
    let mut client = vfio_user::Client::new(&a).unwrap();
    assert_eq!(read_ids(&mut client), [0xb3, 0x15, 0x17, 0x10]);
    // Memory decoding, then a doorbell in a UAR that is not allocated.
    let command = [1 << 1, 0];
    client.region_write(VFIO_PCI_CONFIG_REGION_INDEX, 4, &command).unwrap();
    client.region_write(0, UAR_DOORBELL, &[0; 8]).unwrap();
    read_ids(&mut client);
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
    let mode = fs::metadata(&record).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let path = record.to_str().unwrap();
    let replay = |arguments: &[&str]| {
        let output = PROGRAM.run(&[&["replay", path], arguments].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let whole = "guest a, recorded by vhost-nic 0.1.0\n\
                 5 entries (4 register accesses, 0 commands), 0 memory reads, 0 frames in\n\
                 0 memory writes, 0 interrupts, 0 frames out\n\
                 finding stray_doorbell in entry 3: doorbell in UAR 16, which is not allocated\n\
                 all outputs are equal\n";
    assert_eq!(replay(&[]), (Some(0), whole.to_owned()));
    let (code, text) = replay(&["--until", "3"]);
    assert_eq!(code, Some(0));
    assert!(
        text.contains("\n3 entries (2 register accesses") && !text.contains("stray"),
        "{text}"
    );

    let [prefix, trace] = ["prefix.record", "t.pftrace"].map(|name| dir.path().join(name));
    let [prefix, trace] = [&prefix, &trace].map(|path| path.to_str().unwrap());
    let find = ["--find", "finding=stray_doorbell", "--output", prefix, "--trace", trace];
    let (code, text) = replay(&find);
    assert_eq!(code, Some(0));
    assert!(
        text.contains("\nshortest prefix that shows stray_doorbell: 4 entries\n"),
        "{text}"
    );
    assert!(
        text.contains(": write to BAR 0 at 0x10800: 0000000000000000\n"),
        "{text}"
    );
    assert!(text.contains("\n1 events in the trace, 0 lost\n"), "{text}");
    assert!(fs::metadata(trace).unwrap().len() > 0);
    let output = PROGRAM.run(&["replay", prefix]);
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("\n4 entries"));
    assert_eq!(replay(&["--find", "finding=stale_key"]).0, Some(1));
    assert_eq!(replay(&["--find", "finding=nothing"]).0, Some(2));

    fs::write(&record, &fs::read(&record).unwrap()[..200]).unwrap();
    let output = PROGRAM.run(&["replay", path]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("cannot replay") && error.contains("it is truncated"),
        "{error}"
    );
}

#[test]
fn a_record_has_neither_polling_nor_another_guest() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("a.record");
    let record = ["--record", record.to_str().unwrap()];
    let refused = |more: &[&str]| {
        let output = PROGRAM.run(&[&record[..], &["--socket-path", "a.sock"], more].concat());
        assert_eq!(output.status.code(), Some(1), "{more:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["--hot-period", "1"]).contains("a guest cannot be recorded with --hot-period"));
    assert!(refused(&["--socket-path", "b.sock"]).contains("--record is for a daemon with one guest"));
    let link = dir.path().join("link");
    symlink("elsewhere", &link).unwrap();
    let guest = format!("path={},record={}", dir.path().join("a.sock").display(), link.display());
    let output = PROGRAM.run(&["--guest", &guest]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("it is a symbolic link")
    );
}
