//! The sandbox, in processes of its own: the test binary again, with one test that enters it and acts.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use vhost_daemon::isolate;
use vhost_daemon::sandbox::{EXIT_CODE, FileAccess, Sandbox, ThreadKind, confine, enter};

/// Name of the action, of the restriction, and the directory, in the environment.
const ACTION: &str = "SANDBOX_TEST_ACTION";
const SANDBOX: &str = "SANDBOX_TEST_SANDBOX";
const DIRECTORY: &str = "SANDBOX_TEST_DIRECTORY";

/// Runs an action in the sandbox of a process of its own.
fn run(action: &str, sandbox: &str, directory: &Path) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "act", "--ignored", "--nocapture", "--quiet"])
        .env(ACTION, action)
        .env(SANDBOX, sandbox)
        .env(DIRECTORY, directory)
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap()
}

/// Makes a system call with arguments of 0.
fn call(number: libc::c_long) {
    // SAFETY: none of the calls does anything with these arguments.
    unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
}

/// Acts on a thread of a kind, in the sandbox, and writes what it has found.
#[test]
#[ignore = "a process of the other tests"]
fn act() {
    let Ok(action) = std::env::var(ACTION) else { return };
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let sandbox = match std::env::var(SANDBOX).as_deref() {
        Ok("none") => Sandbox::None,
        _ => Sandbox::On,
    };
    let user = action.strip_prefix("user ").map(|user| user.parse().unwrap());
    // Shows the thread that reads it; it cannot be opened later.
    let status = File::open("/proc/self/task")
        .map(|_| "/proc/thread-self/status")
        .unwrap();
    let mut files = FileAccess::default();
    files.remove_socket(&directory.join("sockets/s"));
    files.write_beneath(&directory.join("outputs"));
    files.read(&directory.join("plan"));
    files.rotate(&directory.join("dumps"));
    let mut own = File::open(status).unwrap();
    if let Err(error) = enter(sandbox, user, &files) {
        println!("{error}: {}", io::Error::last_os_error());
        return;
    }
    let acting = thread::Builder::new()
        .name("a".to_owned())
        .spawn(move || match action.as_str() {
            "nothing" => {}
            "socket" => drop(TcpListener::bind("127.0.0.1:0")),
            "program" => drop(Command::new("/bin/true").status()),
            "process" => call(libc::SYS_clone),
            "signal" => drop(kill_process(Pid::from_raw(1).unwrap(), Signal::CONT)),
            "ptrace" => call(libc::SYS_ptrace),
            "io_uring" => call(libc::SYS_io_uring_setup),
            "process_vm" => call(libc::SYS_process_vm_readv),
            "code" => {
                let (exec, flags) = (
                    libc::PROT_READ | libc::PROT_EXEC,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                );
                // SAFETY: a new mapping that nothing uses.
                unsafe { libc::mmap(std::ptr::null_mut(), 4096, exec, flags, -1, 0) };
            }
            "process of a worker" => {
                confine(ThreadKind::Worker);
                call(libc::SYS_clone);
            }
            "thread of a worker" => {
                confine(ThreadKind::Worker);
                let _ = thread::Builder::new().spawn(|| ());
            }
            "accept of a vring worker" => {
                confine(ThreadKind::VringWorker);
                call(libc::SYS_accept4);
            }
            "thread of an attachment" => {
                confine(ThreadKind::Attachment);
                thread::spawn(|| println!("a thread")).join().unwrap();
            }
            "panic of a worker" => {
                confine(ThreadKind::Worker);
                let none: Option<()> = isolate("the test", || panic!("on purpose"));
                println!("{none:?}");
            }
            "file of a worker" => {
                confine(ThreadKind::Worker);
                println!("{}", File::create(directory.join("outputs/x")).unwrap_err().kind());
            }
            "files" => act_on_files(&directory),
            _ => {}
        });
    acting.unwrap().join().unwrap();
    let mut text = String::new();
    own.read_to_string(&mut text).unwrap();
    let fields = [
        "Uid",
        "Gid",
        "Groups",
        "CapPrm",
        "CapEff",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    ];
    for line in text
        .lines()
        .filter(|line| fields.iter().any(|field| line.starts_with(&format!("{field}:"))))
    {
        println!("{}", line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}

fn act_on_files(directory: &Path) {
    let say = |what: &str, result: io::Result<()>| println!("{what}: {:?}", result.map_err(|error| error.kind()));
    say("remove a socket", fs::remove_file(directory.join("sockets/s")));
    say("remove another file", fs::remove_file(directory.join("outputs/old")));
    say("make an output", fs::write(directory.join("outputs/new"), "x"));
    say("replace an output", fs::write(directory.join("outputs/old"), "x"));
    say("read an output", fs::read(directory.join("outputs/old")).map(drop));
    say("make a file", fs::write(directory.join("sockets/new"), "x"));
    say("read the plan", fs::read(directory.join("plan")).map(drop));
    say("read a file", fs::read("/etc/passwd").map(drop));
    say("make a dump", fs::write(directory.join("dumps/a.part"), "x"));
    let [unfinished, dump] = ["dumps/a.part", "dumps/a"].map(|name| directory.join(name));
    let renamed = renameat_with(CWD, unfinished, CWD, dump, RenameFlags::NOREPLACE);
    say("rename a dump", renamed.map_err(io::Error::from));
    say("list dumps", fs::read_dir(directory.join("dumps")).map(drop));
    say("list outputs", fs::read_dir(directory.join("outputs")).map(drop));
}

fn stdout(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    // Around it is the text of the test harness.
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("running ") && *line != ".");
    let lines: Vec<&str> = lines.filter(|line| !line.starts_with("test result: ")).collect();
    lines.join("\n")
}

#[test]
fn a_forbidden_call_ends_the_process_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    for (action, line) in [
        ("socket", "thread \"a\" must not call socket (41)"),
        ("signal", "thread \"a\" must not call kill (62)"),
        ("ptrace", "thread \"a\" must not call ptrace (101)"),
        ("io_uring", "thread \"a\" must not call io_uring_setup (425)"),
        ("process_vm", "thread \"a\" must not call process_vm_readv (310)"),
        (
            "process",
            "thread \"a\" must not call clone (56), except for threads of the process (CLONE_THREAD)",
        ),
        (
            "code",
            "thread \"a\" must not call mmap (9), except for mappings that are not executable",
        ),
        ("process of a worker", "thread \"a\" (worker) must not call clone (56)"),
        (
            "accept of a vring worker",
            "thread \"a\" (vring worker) must not call accept4 (288)",
        ),
    ] {
        let output = run(action, "on", directory.path());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text, format!("error: sandbox: {line}\n"), "{action}");
        assert_eq!((output.status.code(), EXIT_CODE), (Some(159), 159), "{action}");
    }
}

#[test]
fn a_forbidden_call_with_all_signals_blocked_ends_the_process_as_well() {
    let directory = tempfile::tempdir().unwrap();
    // The C library blocks them to start processes and threads.
    for action in ["program", "thread of a worker"] {
        let output = run(action, "on", directory.path());
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{action}: {output:?}");
        assert!(output.stderr.is_empty(), "{action}: {output:?}");
    }
}

#[test]
fn without_the_sandbox_nothing_is_forbidden() {
    let directory = tempfile::tempdir().unwrap();
    for action in ["socket", "io_uring", "program", "code", "thread of a worker"] {
        let output = run(action, "none", directory.path());
        assert!(output.status.success(), "{action}: {output:?}");
        let text = stdout(&output);
        assert!(text.contains("NoNewPrivs: 0") && text.ends_with("Seccomp: 0"), "{text}");
    }
}

#[test]
fn the_process_has_no_capabilities() {
    let directory = tempfile::tempdir().unwrap();
    let text = stdout(&run("nothing", "on", directory.path()));
    let none =
        "CapPrm: 0000000000000000\nCapEff: 0000000000000000\nCapAmb: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2";
    assert!(text.ends_with(none), "{text}");
}

#[test]
fn the_process_becomes_another_user() {
    let directory = tempfile::tempdir().unwrap();
    let text = stdout(&run("user 65534:65533", "on", directory.path()));
    if geteuid().is_root() {
        let user = "Uid: 65534 65534 65534 65534\nGid: 65533 65533 65533 65533\nGroups: 65533\n";
        assert!(text.starts_with(user), "{text}");
    } else {
        assert!(text.starts_with("cannot become the user of --user: "), "{text}");
    }
}

#[test]
fn threads_are_started_and_panics_isolated() {
    let directory = tempfile::tempdir().unwrap();
    let text = stdout(&run("thread of an attachment", "on", directory.path()));
    assert!(text.starts_with("a thread\n"), "{text}");
    // The backtrace looks for files, which it must not have.
    let output = run("panic of a worker", "on", directory.path());
    let text = stdout(&output);
    assert!(text.starts_with("None\n"), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("on purpose\nstack backtrace:\n"), "{text}");
}

#[test]
fn files_are_those_of_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for name in ["sockets", "outputs", "dumps"] {
        fs::create_dir(path.join(name)).unwrap();
    }
    drop(UnixListener::bind(path.join("sockets/s")).unwrap());
    fs::write(path.join("outputs/old"), "old").unwrap();
    fs::write(path.join("plan"), "plan").unwrap();
    let text = stdout(&run("files", "on", path));
    let found: Vec<&str> = text.lines().take(12).collect();
    let expected = [
        "remove a socket: Ok(())",
        "remove another file: Err(PermissionDenied)",
        "make an output: Ok(())",
        "replace an output: Ok(())",
        "read an output: Err(PermissionDenied)",
        "make a file: Err(PermissionDenied)",
        "read the plan: Ok(())",
        "read a file: Err(PermissionDenied)",
        "make a dump: Ok(())",
        "rename a dump: Ok(())",
        "list dumps: Ok(())",
        "list outputs: Err(PermissionDenied)",
    ];
    assert_eq!(found, expected);
    assert_eq!(fs::metadata(path.join("outputs/old")).unwrap().size(), 1);
    let text = stdout(&run("file of a worker", "on", path));
    assert!(text.starts_with("permission denied\n"), "{text}");
}
