//! Tests in a network namespace of their own. guest-tests includes this file, too.

use std::env;
use std::process::Command;

/// Set in the namespace.
const INSIDE: &str = "VHOST_TEST_NAMESPACE";

/// Runs the test of this name in a network namespace, as its root. Returns true there.
pub fn in_namespace(test: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--net", "--"])
        .arg(env::current_exe().expect("the test"));
    command
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .env(INSIDE, "1");
    let output = command.output().expect("unshare runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    println!("{text}\n{errors}");
    assert!(
        output.status.success() && text.contains("1 passed"),
        "it failed in the namespace"
    );
    false
}

/// Runs a command of iproute2.
pub fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .expect("iproute2");
    assert!(status.success(), "ip {arguments}");
}
