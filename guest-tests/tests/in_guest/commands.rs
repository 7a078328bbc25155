//! Commands that succeed or fail by themselves: status, streams, folder, several guests, reports.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::fixture::Folder;

#[test]
fn status_streams_and_folder_are_those_of_the_command() {
    let folder = Folder::new();
    folder.write("from-host", "host");
    let script = "cat; cat from-host; echo error >&2; echo guest > from-guest; uname -r; pwd; exit 7";
    let run = folder.run(&["--", script], "typed\n");
    assert_eq!(run.status, Some(7));
    let lines: Vec<&str> = run.stdout.lines().collect();
    let share = folder.share();
    assert_eq!(lines[0], "typed");
    assert!(
        lines[1].starts_with("host7.") && lines[1].ends_with("-amd64"),
        "{}",
        lines[1]
    );
    assert_eq!((lines[2], lines.len()), (share.to_str().unwrap(), 3));
    assert!(run.stderr.lines().any(|line| line == "error"), "{}", run.stderr);
    assert!(run.stderr.contains("guest a: exit status 7 after "), "{}", run.stderr);

    let written = share.join("from-guest");
    assert_eq!(fs::read_to_string(&written).unwrap(), "guest\n");
    let owner = |path| fs::metadata(path).unwrap().uid();
    assert_eq!(owner(&written), owner(&share));
    assert!(
        folder.result("output-a.log").starts_with("typed\nhost"),
        "{}",
        folder.result("output-a.log")
    );
    assert!(folder.result("dmesg-a.log").contains("Linux version 7."));
    assert!(folder.result("vhost-nic.log").contains("nic-0"));
    assert!(!folder.has_result("junit.xml"));
}

/// The source tree and the images are root's here.
#[test]
fn another_user_runs_it_offline_and_owns_what_the_guest_writes() {
    const NOBODY: u32 = 65534;
    let folder = Folder::of_user(NOBODY);
    let run = folder.run(&["--", "id -un; echo guest > from-guest"], "");
    assert_eq!((run.status, run.stdout.as_str()), (Some(0), "root\n"));
    let written = fs::metadata(folder.share().join("from-guest")).unwrap();
    assert_eq!((written.uid(), written.len()), (NOBODY, 6));
}

#[test]
fn two_guests_run_perftest_between_them() {
    let folder = Folder::new();
    let perftest = "ib_write_bw -d $RDMA_DEVICE -x $GID_INDEX -F -n 100 -s 4096";
    let server = format!("b={perftest}");
    let client = format!("{perftest} $ADDRESS_B && ping -c 1 -W 5 $PEER && echo $GUEST of $GUESTS at $ADDRESS");
    let run = folder.run(
        &["--guests", "2", "--capture", "--trace", "--on", &server, "--", &client],
        "",
    );
    assert_eq!(run.status, Some(0));
    assert!(
        run.stdout.lines().any(|line| line.starts_with(" 4096       100 ")),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("b|  4096       100 "), "{}", run.stdout);
    assert!(run.stdout.ends_with("a of a b at 10.5.0.1\n"), "{}", run.stdout);
    assert!(folder.result("trace-vhost-nic.txt").contains("WQE to packet"));
    for name in [
        "capture.pcapng",
        "trace-vhost-nic.pftrace",
        "console-b.log",
        "output-b.log",
    ] {
        assert!(folder.has_result(name), "no {name}");
    }
    assert_eq!(folder.json("findings-vhost-nic.json"), serde_json::json!([]));
}

#[test]
fn every_guest_runs_the_command_and_the_first_failure_is_the_status() {
    let folder = Folder::new();
    let run = folder.run(
        &[
            "--guests",
            "3",
            "--each",
            "--",
            "echo I am $GUEST; [ $GUEST != c ] || exit 9",
        ],
        "",
    );
    assert_eq!(run.status, Some(9));
    for line in ["I am a", "b| I am b", "c| I am c"] {
        assert!(
            run.stdout.lines().any(|other| other == line),
            "no {line} in {}",
            run.stdout
        );
    }
}

#[test]
fn failed_tests_are_in_the_summary_and_in_junit() {
    let folder = Folder::new();
    folder.write(
        "tests.tap",
        "TAP version 13\n1..3\nok 1 one\nnot ok 2 two # exit=3\nok 3 three # SKIP no card\n",
    );
    let run = folder.run(&["--", "cat tests.tap"], "");
    assert_eq!(run.status, Some(1), "the command succeeds and a test does not");
    assert!(
        run.stderr.contains("guest a, KTAP: 1 passed, 1 failed, 1 skipped"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("failed: two: exit=3"), "{}", run.stderr);
    let junit = folder.result("junit.xml");
    let suites = r#"<testsuites name="in-guest" tests="3" skipped="1" failures="1" errors="0">"#;
    assert!(junit.contains(suites), "{junit}");
}
