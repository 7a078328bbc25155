//! The daemon's binary: arguments, sockets, exit.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// VFIO_PCI_CONFIG_REGION_INDEX (linux/vfio.h).
const VFIO_PCI_CONFIG_REGION_INDEX: u32 = 7;
/// Time limit for everything the daemon does.
const LONG: Duration = Duration::from_secs(20);

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-nic"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    command().args(args).output().unwrap()
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "{what}: not after {LONG:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A running daemon, killed when dropped.
struct Daemon(Child);

impl Daemon {
    fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Sends a signal. Returns the exit code and the time until exit.
    fn end(mut self, signal: Signal) -> (Option<i32>, Duration) {
        let start = Instant::now();
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        let mut status = None;
        eventually("the daemon to exit", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap().code(), start.elapsed())
    }

    /// Waits for it to fail. Returns the exit code and stderr.
    fn fail(mut self) -> (Option<i32>, String) {
        let mut text = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.0.wait().unwrap().code(), text)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the socket listens: the file appears a little earlier.
fn await_socket(path: &Path) {
    let path = path.to_str().unwrap();
    eventually("a listener on the socket", || {
        let sockets = fs::read_to_string("/proc/net/unix").unwrap();
        sockets.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // __SO_ACCEPTCON
            fields.get(3) == Some(&"00010000") && fields.last() == Some(&path)
        })
    });
}

fn read_stats(path: &Path) -> serde_json::Value {
    let mut text = String::new();
    UnixStream::connect(path).unwrap().read_to_string(&mut text).unwrap();
    assert!(text.ends_with('\n'));
    serde_json::from_str(&text).unwrap()
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn capabilities() {
    let output = run(&["--print-capabilities"]);
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
    let daemon = Daemon::start(command().arg("--socket-path").arg(&path).args(zeroed));
    await_socket(&path);
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
}

#[test]
fn help_and_version() {
    for flag in ["--help", "--version"] {
        let output = run(&[flag]);
        assert!(output.status.success());
        assert!(
            String::from_utf8(output.stdout).unwrap().contains("vhost-nic"),
            "{flag}"
        );
    }
}

#[test]
fn a_signal_ends_it_and_its_sockets_are_gone() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, stats] = ["a.sock", "b.sock", "stats.sock"].map(|name| dir.path().join(name));
        let daemon = Daemon::start(
            command()
                .arg("--socket-path")
                .arg(&a)
                .args(["--guest", &format!("path={},attach=vhost-user", b.display())])
                .arg("--stats-socket")
                .arg(&stats),
        );
        await_socket(&stats);
        await_socket(&a);
        await_socket(&b);
        let shown = read_stats(&stats);
        assert_eq!(shown["guests"][0]["guest"], "a");
        assert_eq!(shown["guests"][0]["mac"], "52:54:00:00:c5:01");
        assert_eq!(shown["guests"][1]["mac"], "52:54:00:00:c5:02");
        for guest in shown["guests"].as_array().unwrap() {
            assert!(guest["objects"].is_object(), "{guest}");
            assert_eq!(guest["pages"], 0, "{guest}");
        }
        assert_eq!(shown["switch"]["ports"].as_array().unwrap().len(), 2);
        let (code, took) = daemon.end(signal);
        assert_eq!(code, Some(0), "{signal:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(is_empty(dir.path()));
    }
}

/// Reads the start of configuration space over vfio-user, as a VMM does.
fn read_ids(client: &mut vfio_user::Client) -> [u8; 4] {
    let mut ids = [0; 4];
    client.region_read(VFIO_PCI_CONFIG_REGION_INDEX, 0, &mut ids).unwrap();
    ids
}

#[test]
fn vmms_come_and_go_and_the_daemon_ends_before_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, stats] = ["a.sock", "b.sock", "stats.sock"].map(|name| dir.path().join(name));
    let daemon = Daemon::start(
        command()
            .arg("--socket-path")
            .arg(&a)
            .args(["--guest", &format!("path={},id=connectx-7", b.display())])
            .arg("--stats-socket")
            .arg(&stats),
    );
    await_socket(&stats);
    let mut other = vfio_user::Client::new(&b).unwrap();
    for round in 1..=5 {
        let mut client = vfio_user::Client::new(&a).unwrap();
        // Mellanox, ConnectX-5.
        assert_eq!(read_ids(&mut client), [0xb3, 0x15, 0x17, 0x10]);
        let seen = read_stats(&stats);
        assert_eq!(seen["guests"][0]["attachment"]["vfio-user"]["connections"], round);
        client.shutdown().unwrap();
    }
    assert_eq!(read_ids(&mut other), [0xb3, 0x15, 0x21, 0x10]);
    let (code, took) = daemon.end(Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(is_empty(dir.path()));
}

#[test]
fn an_inherited_socket_is_left_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let (path, own) = (dir.path().join("inherited.sock"), dir.path().join("own.sock"));
    let listener = UnixListener::bind(&path).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let daemon = Daemon::start(
        command()
            .args(["--fd", &listener.as_raw_fd().to_string()])
            .arg("--socket-path")
            .arg(&own),
    );
    drop(listener);
    await_socket(&own);
    UnixStream::connect(&path).unwrap();
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
    assert!(path.exists(), "the daemon removed a socket that was passed in");
    assert!(!own.exists());
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    drop(UnixListener::bind(&path).unwrap());
    let daemon = Daemon::start(command().arg("--socket-path").arg(&path));
    eventually("the stale socket to be replaced", || UnixStream::connect(&path).is_ok());
    let (code, text) = Daemon::start(command().arg("--socket-path").arg(&path)).fail();
    assert_eq!(code, Some(1));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(path.exists());
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
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
        &["--fd", "three"],
        &["--fd", "-1"],
        &["x.sock"],
    ] {
        let output = run(args);
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
        &[
            "--socket-path",
            free,
            "--capture",
            capture,
            "--zero-capability",
            "no_such_capability",
        ],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(!text.contains("panicked"), "{args:?}: {text}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!Path::new(free).exists(), "{args:?}");
        assert!(!Path::new(capture).exists(), "{args:?}");
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "kept");
}
