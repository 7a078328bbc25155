//! Records of a daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use vhost_daemon::testing::Daemon;
use vhost_ism::abi::{Status, Token};

use crate::common::TestGuest;
use crate::{PROGRAM, meet};

#[test]
fn a_record_is_complete_after_a_signal_and_can_be_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, record] = ["a.sock", "b.sock", "ism.record"].map(|name| dir.path().join(name));
    let mut command = PROGRAM.command();
    command.arg("--socket-path").arg(&a).arg("--socket-path").arg(&b);
    let daemon = Daemon::start(command.arg("--record").arg(&record));
    let (mut a, mut b) = meet(&a, &b);
    assert_eq!(b.detach(Token(7.into())), Err(Status::NoEnt));
    a.query_gid(b.gid()).unwrap();
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
    [a, b].into_iter().for_each(TestGuest::kill);
    assert_eq!(fs::metadata(&record).unwrap().permissions().mode() & 0o777, 0o600);

    let path = record.to_str().unwrap();
    let replay = |arguments: &[&str]| {
        let output = PROGRAM.run(&[&["replay", path], arguments].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = replay(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("guests a, b, recorded by vhost-ism 0.1.0\n"), "{text}");
    // A query at each start, ALLOC_FOR_PEER, ATTACH, DETACH, another query.
    assert!(
        text.contains(" kicks), 6 requests, 1 doorbells\n6 answers, 4 maps and unmaps, 1 events, "),
        "{text}"
    );
    assert!(text.contains(": b: virtqueue 0: "), "{text}");
    assert!(text.ends_with("\nall outputs are equal\n"), "{text}");

    let [prefix, trace] = ["prefix.record", "t.pftrace"].map(|name| dir.path().join(name));
    let [prefix, trace] = [&prefix, &trace].map(|path| path.to_str().unwrap());
    let (code, text) = replay(&["--find", "finding=unknown_token", "--output", prefix, "--trace", trace]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("\nshortest prefix that shows unknown_token: "), "{text}");
    assert!(text.contains(", 5 requests, 1 doorbells\n"), "{text}");
    assert!(text.contains(" events in the trace, 0 lost\n"), "{text}");
    assert!(fs::metadata(trace).unwrap().len() > 0);
    let output = PROGRAM.run(&["replay", prefix]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains(", 5 requests, "), "{text}");
    assert_eq!(replay(&["--find", "finding=dmb_left"]).0, Some(1));
    assert_eq!(replay(&["--find", "finding=nothing"]).0, Some(2));
}
