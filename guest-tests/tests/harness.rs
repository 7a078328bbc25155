//! The harness itself: two guests with a link, no device under test.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use guest_harness::{Exit, Guest, Result, Testbed, noise};

const SOON: Duration = Duration::from_secs(20);

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn two_guests_do_as_they_are_told() -> Result<()> {
    let testbed = Testbed::builder("harness").guests(2).mesh().start()?;
    let (a, b) = (testbed.guest(0), testbed.guest(1));
    streams_and_statuses(a)?;
    signals_and_timeouts(a)?;
    lines_and_input(a)?;
    files(a)?;
    many_at_once(a)?;
    links(a, b)?;
    pausing(a, b)?;
    reconnecting(a)?;
    rebooting(a, b)?;
    killing(a, b)?;
    testbed.allow_splat("sysrq triggered crash");
    testbed.finish()
}

fn streams_and_statuses(a: &Guest) -> Result<()> {
    let out = a.run("echo out; echo err >&2; exit 3")?;
    assert_eq!(out.status, Exit::Code(3));
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out\n", "err\n"));
    let error = out.check().unwrap_err().to_string();
    for part in ["guest a", "exit status 3", "out\n", "err\n"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(a.run("hostname")?.check()?.text(), "a");
    assert_eq!(a.hello()?.hostname, "a");
    assert_eq!(a.run("uname -r")?.text(), a.hello()?.release);
    let out = a
        .command(["printenv", "GREETING"])
        .env("GREETING", "hello there")
        .run()?;
    assert_eq!(out.text(), "hello there");
    assert_eq!(a.command(["pwd"]).cwd("/proc").run()?.text(), "/proc");
    let error = a.command(["no-such-program"]).run().unwrap_err();
    assert!(error.to_string().contains("no-such-program"), "{error}");
    // A background process does not delay the end of its shell.
    assert!(a.run("sleep 30 & exit 0")?.elapsed < Duration::from_secs(10));
    Ok(())
}

fn signals_and_timeouts(a: &Guest) -> Result<()> {
    let job = a.spawn("sleep 1000 | sleep 1000")?;
    job.pid(SOON)?;
    job.kill(15);
    assert_eq!(job.wait(SOON)?.status, Exit::Signal(15));

    let begin = Instant::now();
    let error = a
        .shell("echo before; exec sleep 1000")
        .timeout(Duration::from_secs(1))
        .run()
        .unwrap_err()
        .to_string();
    assert!(begin.elapsed() < Duration::from_secs(8));
    assert!(error.contains("after 1s") && error.contains("before"), "{error}");
    assert!(!a.run("pgrep -x sleep -a | grep 1000")?.success());
    Ok(())
}

fn lines_and_input(a: &Guest) -> Result<()> {
    let job = a.spawn("echo one; sleep 0.2; echo two; printf three")?;
    for line in ["one", "two", "three"] {
        assert_eq!(job.read_line(SOON)?.as_deref(), Some(line));
    }
    assert_eq!(job.read_line(SOON)?, None);
    assert!(job.wait(SOON)?.success());

    let input = noise(3_000_000);
    let out = a.command(["sha1sum"]).stdin(input.clone()).run()?.check()?;
    let expected = sha1sum(&input);
    assert_eq!(out.text(), expected);

    let job = a.shell("read line; echo \"got $line\"; cat").stdin("").spawn()?;
    job.write(b"this\n")?;
    assert_eq!(job.wait_line("got", SOON)?, "got this");
    job.close_stdin();
    assert!(job.wait(SOON)?.success());
    Ok(())
}

fn sha1sum(bytes: &[u8]) -> String {
    let path = env::temp_dir().join(format!("guest-tests-sha1-{}", process::id()));
    fs::write(&path, bytes).unwrap();
    let input = fs::File::open(&path).unwrap();
    let output = Command::new("sha1sum").stdin(input).output().unwrap();
    fs::remove_file(path).unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn files(a: &Guest) -> Result<()> {
    let content = noise(10 * 1024 * 1024);
    let begin = Instant::now();
    a.put_bytes(&content, "/tmp/noise", 0o600)?;
    let put = begin.elapsed();
    let begin = Instant::now();
    let back = a.get("/tmp/noise")?;
    eprintln!("10 MiB in {put:?}, out in {:?}", begin.elapsed());
    assert_eq!(hash(&back), hash(&content));
    let out = a.run("stat -c %a /tmp/noise; sha1sum < /tmp/noise")?;
    assert_eq!(out.text(), format!("600\n{}", sha1sum(&content)));
    a.put(env::current_exe().unwrap(), "/tmp/program")?;
    assert!(a.run("test -x /tmp/program && rm /tmp/program /tmp/noise")?.success());
    assert!(a.read("/proc/version")?.starts_with("Linux version"));
    assert!(a.get("/no/such/file").is_err());
    assert!(a.put_bytes(b"", "/no/such/directory/file", 0o644).is_err());
    Ok(())
}

fn many_at_once(a: &Guest) -> Result<()> {
    let begin = Instant::now();
    let chatty = a.spawn("exec yes")?;
    let jobs = (0..20)
        .map(|number| a.spawn(&format!("sleep 1; echo {number}")))
        .collect::<Result<Vec<_>>>()?;
    for (number, job) in jobs.into_iter().enumerate() {
        assert_eq!(job.wait(SOON)?.text(), number.to_string());
    }
    assert!(begin.elapsed() < Duration::from_secs(15));
    chatty.kill(9);
    let out = chatty.wait(SOON)?;
    assert_eq!(out.status, Exit::Signal(9));
    assert!(out.stdout.starts_with("y\ny\n"));
    Ok(())
}

fn links(a: &Guest, b: &Guest) -> Result<()> {
    for (from, to) in [(a, b), (b, a)] {
        let addresses = [to.addr(from.index()).to_string(), to.addr_v6(from.index()).to_string()];
        for address in addresses {
            from.run(&format!("ping -c 2 -i 0.2 -W 2 {address}"))?.check()?;
        }
    }
    let state = a.run(&format!("ip -br addr show dev {}", a.interface(1)))?;
    assert!(state.stdout.contains(&a.addr(1).to_string()), "{state}");
    Ok(())
}

fn pausing(a: &Guest, b: &Guest) -> Result<()> {
    let ping = format!("ping -c 1 -W 1 {}", a.addr(1));
    a.pause()?;
    assert!(!b.run(&ping)?.success());
    let timeout = a.shell("true").timeout(Duration::from_millis(500)).run();
    assert!(timeout.is_err());
    a.resume()?;
    b.run(&ping)?.check()?;
    a.run("true")?.check().map(drop)
}

fn reconnecting(a: &Guest) -> Result<()> {
    let boot = a.hello()?.boot_id;
    let jobs = [a.spawn("exec yes")?, a.spawn("sleep 1000")?];
    jobs[0].read_line(SOON)?;
    for _ in 0..5 {
        a.reconnect()?;
        assert_eq!(a.hello()?.boot_id, boot);
    }
    for job in jobs {
        let error = job.wait(SOON).unwrap_err().to_string();
        assert!(error.contains("closed"), "{error}");
    }
    assert_eq!(a.run("echo still here")?.check()?.text(), "still here");
    let left = a.run("pgrep -x yes; pgrep -x sleep -a | grep 1000")?;
    assert_eq!(left.text(), "", "{left}");
    Ok(())
}

fn rebooting(a: &Guest, b: &Guest) -> Result<()> {
    let before = a.hello()?.boot_id;
    let job = a.spawn("sleep 1000")?;
    job.pid(SOON)?;
    let chatty = a.spawn("exec yes")?;
    chatty.read_line(SOON)?;
    let begin = Instant::now();
    a.reset()?;
    eprintln!("reset took {:?}", begin.elapsed());
    assert_ne!(a.hello()?.boot_id, before);
    let error = job.wait(SOON).unwrap_err().to_string();
    assert!(error.contains("rebooted"), "{error}");
    b.run(&format!("ping -c 1 -W 2 {}", a.addr(1)))?.check()?;

    // A reboot by the guest itself, here on a panic, is detected as well.
    let before = a.hello()?.boot_id;
    let error = a.run("echo c > /proc/sysrq-trigger").unwrap_err();
    assert!(error.to_string().contains("rebooted"), "{error}");
    a.control()?.wait_boot(Some(&before), Duration::from_secs(60))?;
    let splats = a.splats();
    assert!(splats.iter().any(|splat| splat.contains("Kernel panic")), "{splats:?}");
    Ok(())
}

fn killing(a: &Guest, b: &Guest) -> Result<()> {
    let pid = a.process()?.pid();
    a.kill()?;
    assert!(!is_running(pid));
    assert!(!a.is_running());
    assert!(a.run("true").is_err());
    assert!(b.run("true")?.success());
    let begin = Instant::now();
    a.restart()?;
    eprintln!("restart took {:?}", begin.elapsed());
    b.run(&format!("ping -c 1 -W 2 {}", a.addr(1)))?.check().map(drop)
}

#[test]
fn splats_fail_a_test_unless_allowed() -> Result<()> {
    let testbed = Testbed::builder("splats").start()?;
    let kmsg = |text: &str| testbed.guest(0).run(&format!("echo '<4>{text}' > /dev/kmsg"));
    kmsg("BUG: what a test expects")?.check()?;
    let console = testbed.guest(0).console();
    console.wait_for("what a test expects", SOON)?;
    assert_eq!(testbed.guest(0).splats().len(), 1);
    testbed.allow_splat("what a test expects");
    assert!(testbed.guest(0).splats().is_empty());
    let logs = testbed.logs().to_owned();
    assert!(
        fs::read_to_string(logs.join("commands.log"))
            .unwrap()
            .contains("/dev/kmsg")
    );
    testbed.finish()?;
    assert!(!logs.exists());

    let testbed = Testbed::builder("splats").start()?;
    testbed
        .guest(0)
        .run("echo '<4>WARNING: what no test expects' > /dev/kmsg")?;
    let logs = testbed.logs().to_owned();
    let error = testbed.finish().unwrap_err().to_string();
    assert!(error.contains("what no test expects"), "{error}");
    assert!(logs.join("console-a.log").exists());
    fs::remove_dir_all(logs).unwrap();
    Ok(())
}

/// Environment variable with the mode of a child started by [`nothing_survives_the_test_process`].
const CHILD: &str = "GUEST_TESTS_HARNESS_CHILD";

/// Body of the child process; does nothing otherwise.
#[test]
#[ignore = "a part of nothing_survives_the_test_process"]
fn child() {
    let Ok(mode) = env::var(CHILD) else {
        return;
    };
    let testbed = Testbed::builder("harness-child").guests(2).mesh().start().unwrap();
    for guest in testbed.guests() {
        println!("pid {}", guest.process().unwrap().pid());
    }
    println!("logs {}", testbed.logs().display());
    println!("share {}", testbed.share().display());
    println!("up");
    if mode == "panic" {
        panic!("on purpose");
    }
    thread::sleep(Duration::from_secs(1000));
}

#[test]
fn nothing_survives_the_test_process() {
    let mut left_over: Option<PathBuf> = None;
    for mode in ["SIGKILL", "panic", "SIGINT", "SIGTERM"] {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(CHILD, mode)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        let mut values = Vec::new();
        for line in lines.by_ref() {
            let line = line.unwrap();
            if line == "up" {
                break;
            }
            if let Some((_, value)) = line.split_once(' ') {
                values.push(value.to_owned());
            }
        }
        let pids: Vec<u32> = values.iter().filter_map(|value| value.parse().ok()).collect();
        assert_eq!(pids.len(), 2, "{values:?}");
        if mode.starts_with("SIG") {
            let flag = format!("-{mode}");
            Command::new("kill")
                .args([&flag, &child.id().to_string()])
                .status()
                .unwrap();
        }
        assert!(!child.wait().unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(5);
        while pids.iter().any(|pid| is_running(*pid)) {
            assert!(Instant::now() < deadline, "after {mode}, QEMU still runs");
            thread::sleep(Duration::from_millis(10));
        }
        let (logs, share) = (
            Path::new(&values[values.len() - 2]),
            Path::new(&values[values.len() - 1]),
        );
        assert!(logs.join("console-a.log").exists(), "{logs:?}");
        fs::remove_dir_all(logs).unwrap();
        // After SIGKILL nothing is removed; the next testbed does it.
        assert_eq!(share.exists(), mode == "SIGKILL", "after {mode}");
        assert!(!left_over.is_some_and(|share| share.exists()), "after {mode}");
        left_over = Some(share.to_owned());
    }
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie counts as ended: its parent may reap it late.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
