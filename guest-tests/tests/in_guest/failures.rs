//! Failures of runs: splats, panics, the time limit, missing files.

use std::process::Command;

use guest_harness::program;

use crate::fixture::Folder;

#[test]
fn a_splat_fails_a_command_that_succeeds_and_is_shown() {
    let folder = Folder::new();
    let warning = "WARNING: CPU: 0 PID: 1 at drivers/x.c:1 f+0x1/0x2";
    let run = folder.run(&["--", &format!("echo '<4>{warning}' > /dev/kmsg")], "");
    assert_eq!(run.status, Some(1));
    assert!(
        run.stderr.contains("error: guest a printed a kernel splat:\n["),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains(warning), "{}", run.stderr);
}

#[test]
fn a_command_that_fails_keeps_its_status_beside_a_splat() {
    let folder = Folder::new();
    let run = folder.run(&["--", "echo '<4>BUG: of a test' > /dev/kmsg; exit 42"], "");
    assert_eq!(run.status, Some(42));
    assert!(run.stderr.contains("BUG: of a test"), "{}", run.stderr);
}

#[test]
fn a_kernel_that_panics_ends_the_run() {
    let folder = Folder::new();
    let run = folder.run(&["--", "echo c > /proc/sysrq-trigger; sleep 60"], "");
    assert_eq!(run.status, Some(1));
    assert!(
        run.stderr.contains("`the command` was cut off: the guest has rebooted"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("sysrq_handle_crash"), "{}", run.stderr);
}

#[test]
fn a_command_ends_at_the_time_limit() {
    let folder = Folder::new();
    let run = folder.run(&["--timeout", "2s", "--", "echo begun; sleep 600"], "");
    assert_eq!((run.status, run.stdout.as_str()), (Some(124), "begun\n"));
    assert!(
        run.stderr.contains("error: guest a: ended at the time limit of 2s"),
        "{}",
        run.stderr
    );
}

#[test]
#[ignore = "long: a boot of its own"]
fn a_full_disk_is_one_line() {
    let folder = Folder::new();
    // Room for the logs, not for the output.
    let script = "mount -t tmpfs -o size=1M tmpfs . && cd \"$PWD\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "bash", "-ec", script, "bash"]);
    command
        .arg(program("in-guest").unwrap())
        .args(["--results", "results", "--"]);
    command.arg("yes | head -c 4M").current_dir(folder.share());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(0), "{text}");
    let full: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("No space left on device"))
        .collect();
    assert_eq!(
        full,
        ["error: cannot write the command's output to the results: No space left on device (os error 28)"],
        "{text}"
    );
}

#[test]
fn what_is_missing_is_one_line() {
    let folder = Folder::new();
    for (words, line) in [
        (
            &["--share", "/no/such", "--", "true"][..],
            "error: cannot share /no/such: No such file or directory (os error 2)",
        ),
        (
            &["--kernel", "/no/such", "--", "true"],
            "error: there is no kernel /no/such: it is neither a file nor one of own, debug, 6.1, 6.12, 7.x",
        ),
        (
            &["--on", "b=true", "--", "true"],
            "error: --on names guest b, but there are 1 guests; see --guests",
        ),
        (
            &["--on", "a=true", "--", "true"],
            "error: --on names guest a: it is one of b, c and d, as the command runs in a",
        ),
    ] {
        let mut command = Command::new(program("in-guest").unwrap());
        let output = command.args(words).current_dir(folder.share()).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{words:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim_end(), line, "{words:?}");
    }
}
