//! The agent as a process on the host, driven frame by frame over a Unix socket.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use guest_agent::frame::{Decoder, Frame};
use guest_agent::{CHUNK, Exit, Hello, PutRequest, Reply, Request, SpawnRequest, WINDOW};

struct Agent {
    process: Child,
    directory: PathBuf,
}

impl Agent {
    fn start(name: &str) -> Self {
        let directory = env::temp_dir().join(format!("guest-agent-{name}-{}", process::id()));
        fs::create_dir_all(&directory).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_guest-agent"))
            .arg("--listen")
            .arg(directory.join("socket"))
            .spawn()
            .unwrap();
        Self { process, directory }
    }

    fn connect(&self) -> Link {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match UnixStream::connect(self.directory.join("socket")) {
                Ok(stream) => return Link::new(stream),
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                Err(error) => panic!("the agent does not listen: {error}"),
            }
        }
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

struct Link {
    stream: UnixStream,
    decoder: Decoder<Reply>,
    epoch: u32,
    hello: Hello,
}

impl Link {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut link = Self {
            stream,
            decoder: Decoder::new(),
            epoch: 0,
            hello: Hello::default(),
        };
        link.attach(u64::from(process::id()));
        link
    }

    fn attach(&mut self, nonce: u64) {
        self.epoch = 0;
        self.send(0, Request::Attach(nonce));
        loop {
            let frame = self.next();
            match frame.body {
                Reply::Hello(hello) if hello.nonce == nonce => {
                    self.epoch = frame.epoch;
                    self.hello = hello;
                    return;
                }
                _ => {}
            }
        }
    }

    fn send(&mut self, channel: u32, body: Request) {
        let frame = Frame {
            epoch: self.epoch,
            channel,
            body,
        };
        self.stream.write_all(&frame.encode()).unwrap();
    }

    fn shell(&mut self, channel: u32, script: &str, stdin: bool) {
        self.send(
            channel,
            Request::Spawn(SpawnRequest {
                argv: vec!["sh".into(), "-c".into(), script.into()],
                stdin,
                ..SpawnRequest::default()
            }),
        );
    }

    fn next(&mut self) -> Frame<Reply> {
        let mut buffer = [0; 65536];
        loop {
            if let Some(frame) = self.decoder.next_frame() {
                return frame.unwrap();
            }
            let count = self.stream.read(&mut buffer).expect("a reply in time");
            assert!(count > 0, "the agent closed the connection");
            self.decoder.push(&buffer[..count]);
        }
    }

    /// Waits for the given channels to end, giving credit as data arrives.
    fn finish(&mut self, channels: &[u32]) -> HashMap<u32, Outcome> {
        let mut outcomes: HashMap<u32, Outcome> =
            channels.iter().map(|channel| (*channel, Outcome::default())).collect();
        while outcomes.values().any(|outcome| outcome.end.is_none()) {
            let frame = self.next();
            let Some(outcome) = outcomes.get_mut(&frame.channel) else {
                continue;
            };
            let received = match frame.body {
                Reply::Stdout(data) | Reply::Data(data) => {
                    outcome.stdout.extend(&data);
                    data.len()
                }
                Reply::Stderr(data) => {
                    outcome.stderr.extend(&data);
                    data.len()
                }
                Reply::Started(_) | Reply::Credit(_) => 0,
                end => {
                    outcome.end = Some(end);
                    0
                }
            };
            if received > 0 {
                self.send(frame.channel, Request::Credit(received as u32));
            }
        }
        outcomes
    }

    fn finish_one(&mut self, channel: u32) -> Outcome {
        self.finish(&[channel]).remove(&channel).unwrap()
    }
}

#[derive(Debug, Default)]
struct Outcome {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    end: Option<Reply>,
}

fn exit(code: i32) -> Option<Reply> {
    Some(Reply::Exit(Exit::Code(code)))
}

#[test]
fn a_command_runs_with_its_streams_apart() {
    let agent = Agent::start("streams");
    let mut link = agent.connect();
    assert_eq!(link.hello.boot_id.len(), 36);
    link.send(
        1,
        Request::Spawn(SpawnRequest {
            argv: ["sh", "-c", "pwd; echo $GREETING >&2; exit 3"].map(String::from).into(),
            env: vec![("GREETING".into(), "hello".into())],
            cwd: Some("/usr".into()),
            stdin: false,
        }),
    );
    assert!(matches!(link.next().body, Reply::Started(_)));
    let outcome = link.finish_one(1);
    assert_eq!(outcome.stdout, b"/usr\n");
    assert_eq!(outcome.stderr, b"hello\n");
    assert_eq!(outcome.end, exit(3));
}

#[test]
fn a_missing_program_is_an_error_and_frees_the_channel() {
    let agent = Agent::start("missing");
    let mut link = agent.connect();
    for _ in 0..3 {
        link.send(
            1,
            Request::Spawn(SpawnRequest {
                argv: vec!["/no/such/program".into()],
                ..SpawnRequest::default()
            }),
        );
        let outcome = link.finish_one(1);
        assert!(matches!(outcome.end, Some(Reply::Error(reason)) if reason.contains("/no/such/program")));
    }
    link.send(1, Request::Spawn(SpawnRequest::default()));
    assert!(matches!(link.finish_one(1).end, Some(Reply::Error(_))));
    link.shell(1, "exit 4", false);
    assert_eq!(link.finish_one(1).end, exit(4));
}

#[test]
fn standard_input_arrives_whole_under_flow_control() {
    let agent = Agent::start("stdin");
    let mut link = agent.connect();
    link.shell(1, "cat", true);
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut at, mut credit, mut received) = (0, WINDOW as usize, Vec::<u8>::new());
    loop {
        while at < sent.len() && credit > 0 {
            let end = sent.len().min(at + credit.min(CHUNK));
            credit -= end - at;
            link.send(1, Request::Data(sent[at..end].to_vec()));
            at = end;
            if at == sent.len() {
                link.send(1, Request::End);
            }
        }
        match link.next().body {
            Reply::Credit(bytes) => credit += bytes as usize,
            Reply::Stdout(data) => {
                received.extend(&data);
                link.send(1, Request::Credit(data.len() as u32));
            }
            Reply::Exit(exit) => {
                assert_eq!(exit, Exit::Code(0));
                break;
            }
            Reply::Started(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(received == sent);
}

#[test]
fn a_command_that_takes_no_input_does_not_stop_the_sender() {
    let agent = Agent::start("deaf");
    let mut link = agent.connect();
    link.shell(1, "exec 0<&-; sleep 0.3", true);
    for _ in 0..4 {
        link.send(1, Request::Data(vec![1; CHUNK]));
    }
    assert_eq!(link.finish_one(1).end, exit(0));
}

#[test]
fn a_command_without_credit_holds_up_no_other() {
    let agent = Agent::start("chatty");
    let mut link = agent.connect();
    link.shell(1, "exec yes", false);
    let mut received = 0;
    while received < WINDOW as usize {
        if let Reply::Stdout(data) = link.next().body {
            received += data.len();
        }
    }
    assert_eq!(received, WINDOW as usize, "no more than the window");
    link.shell(2, "echo still here", false);
    let outcome = link.finish_one(2);
    assert_eq!(outcome.stdout, b"still here\n");
    link.send(1, Request::Signal(15));
    link.send(1, Request::Credit(1 << 20));
    assert_eq!(link.finish_one(1).end, Some(Reply::Exit(Exit::Signal(15))));
}

#[test]
fn commands_run_side_by_side() {
    let agent = Agent::start("parallel");
    let mut link = agent.connect();
    let channels: Vec<u32> = (1..=20).collect();
    let begin = Instant::now();
    for channel in &channels {
        link.shell(*channel, &format!("sleep 0.5; echo {channel}"), false);
    }
    let outcomes = link.finish(&channels);
    assert!(begin.elapsed() < Duration::from_secs(5));
    for channel in channels {
        assert_eq!(outcomes[&channel].stdout, format!("{channel}\n").as_bytes());
    }
}

#[test]
fn the_end_is_reported_after_all_output_and_despite_what_stays_behind() {
    let agent = Agent::start("left-behind");
    let mut link = agent.connect();
    for round in 0..20 {
        link.shell(1, "sleep 5 & head -c 200000 /dev/zero", false);
        let begin = Instant::now();
        let outcome = link.finish_one(1);
        assert_eq!(outcome.stdout.len(), 200_000, "round {round}");
        assert_eq!(outcome.end, exit(0));
        assert!(begin.elapsed() < Duration::from_secs(4));
    }
}

#[test]
fn a_writer_left_behind_does_not_delay_the_end() {
    let agent = Agent::start("writer");
    let mut link = agent.connect();
    let script = "yes & echo $! >&2; sleep 0.1; exit 6";
    link.shell(1, script, false);
    let outcome = link.finish_one(1);
    assert_eq!(outcome.end, exit(6));
    let writer = String::from_utf8(outcome.stderr).unwrap();
    link.shell(1, &format!("kill {writer}"), false);
    assert_eq!(link.finish_one(1).end, exit(0), "the writer still runs");
}

#[test]
fn signals_reach_the_whole_group() {
    let agent = Agent::start("group");
    let mut link = agent.connect();
    link.shell(1, "sleep 1000 | sleep 1000", false);
    assert!(matches!(link.next().body, Reply::Started(_)));
    thread::sleep(Duration::from_millis(200));
    link.send(1, Request::Signal(9));
    assert_eq!(link.finish_one(1).end, Some(Reply::Exit(Exit::Signal(9))));
    link.send(1, Request::Signal(9));
}

#[test]
fn files_go_both_ways() {
    let agent = Agent::start("files");
    let mut link = agent.connect();
    let path = agent.path("file");
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    link.send(
        1,
        Request::Put(PutRequest {
            path: path.clone(),
            mode: 0o750,
        }),
    );
    let mut credit = WINDOW as usize;
    for piece in content.chunks(CHUNK) {
        while credit < piece.len() {
            if let Reply::Credit(bytes) = link.next().body {
                credit += bytes as usize;
            }
        }
        credit -= piece.len();
        link.send(1, Request::Data(piece.to_vec()));
    }
    link.send(1, Request::End);
    let outcome = link.finish_one(1);
    assert_eq!(outcome.end, Some(Reply::Done(content.len() as u64)));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o750);

    link.send(1, Request::Get(path));
    let outcome = link.finish_one(1);
    assert!(outcome.stdout == content);

    link.send(1, Request::Get("/proc/version".into()));
    assert!(!link.finish_one(1).stdout.is_empty());
    link.send(1, Request::Get("/no/such/file".into()));
    assert!(matches!(link.finish_one(1).end, Some(Reply::Error(_))));
    link.send(
        1,
        Request::Put(PutRequest {
            path: "/no/such/directory/file".into(),
            mode: 0o644,
        }),
    );
    assert!(matches!(link.finish_one(1).end, Some(Reply::Error(_))));
}

#[test]
fn garbage_is_reported_and_survived() {
    let agent = Agent::start("garbage");
    let mut link = agent.connect();
    let noise: Vec<u8> = (0..10_000_u32).map(|n| (n * n % 255) as u8).collect();
    link.stream.write_all(&noise).unwrap();
    link.shell(1, "echo alive", false);
    let report = link.next();
    assert!(matches!(report.body, Reply::Error(reason) if reason.contains("skipped")));
    assert_eq!(link.finish_one(1).stdout, b"alive\n");
}

#[test]
fn only_process_1_ends_everything() {
    let agent = Agent::start("kill-all");
    let mut link = agent.connect();
    link.send(1, Request::KillAll);
    assert!(matches!(link.finish_one(1).end, Some(Reply::Error(_))));
    link.send(2, Request::PowerOff);
    assert!(matches!(link.next().body, Reply::Error(_)));
}

#[test]
fn a_channel_in_use_is_refused() {
    let agent = Agent::start("in-use");
    let mut link = agent.connect();
    link.shell(1, "sleep 1", false);
    assert!(matches!(link.next().body, Reply::Started(_)));
    link.shell(1, "true", false);
    assert!(matches!(link.next().body, Reply::Error(_)));
    link.shell(0, "true", false);
    assert!(matches!(link.next().body, Reply::Error(_)));
}

#[test]
fn a_new_session_ends_the_old_one_and_ignores_its_frames() {
    let agent = Agent::start("sessions");
    let marker = agent.path("marker");
    let mut link = agent.connect();
    link.shell(1, "sleep 1000", false);
    let Reply::Started(pid) = link.next().body else {
        panic!("not started");
    };
    let old = link.epoch;
    // Leave in the middle of a frame.
    link.stream.write_all(b"gTf1 and then").unwrap();
    drop(link);

    let mut link = agent.connect();
    assert_ne!(link.epoch, old);
    let new = std::mem::replace(&mut link.epoch, old);
    link.shell(2, &format!("touch {marker}"), false);
    link.epoch = new;
    link.shell(1, "echo new", false);
    assert_eq!(link.finish_one(1).stdout, b"new\n");
    assert!(!Path::new(&marker).exists());
    let deadline = Instant::now() + Duration::from_secs(5);
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(Instant::now() < deadline, "the old session's command still runs");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn orphans_are_reaped() {
    let agent = Agent::start("orphans");
    let mut link = agent.connect();
    link.shell(1, "for i in 1 2 3; do (sh -c 'sleep 0.05' &) ; done", false);
    assert_eq!(link.finish_one(1).end, exit(0));
    let deadline = Instant::now() + Duration::from_secs(5);
    let children = format!("/proc/{0}/task/{0}/children", agent.process.id());
    loop {
        // Any thread may be the new parent of an orphan; zombies are searched by parent.
        link.shell(
            1,
            &format!("ps -o stat= --ppid {} | grep -c Z", agent.process.id()),
            false,
        );
        let zombies = link.finish_one(1).stdout;
        if zombies == b"0\n" && fs::read_to_string(&children).is_ok() {
            break;
        }
        assert!(Instant::now() < deadline, "zombies remain");
    }
}
