//! Execution of a command: pipes, flow control, exit.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};

use guest_agent::{CHUNK, Exit, Reply, SpawnRequest, WINDOW};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{ioctl_fionbio, ioctl_fionread};
use rustix::process::{Pid, Signal};
use std::os::unix::process::CommandExt;

use crate::channel::{Channel, Event, Inbox, Mailbox};
use crate::reaper::Children;

/// Search path if `/init` set none; the harness's own tools come last.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/host";

/// Runs a command to completion.
pub fn run(request: &SpawnRequest, channel: Channel, inbox: Inbox, mailbox: Mailbox, children: &Children) {
    let job = match Job::start(request, mailbox, children) {
        Ok(job) => job,
        Err(error) => {
            let program = request.argv.first().map_or("nothing", String::as_str);
            channel.finish(Reply::Error(format!("cannot run {program}: {error}")));
            return;
        }
    };
    channel.send(Reply::Started(job.pid.as_raw_nonzero().get().cast_unsigned()));
    job.serve(channel, &inbox, children);
}

struct Job {
    pid: Pid,
    stdin: Option<ChildStdin>,
    /// Bytes not yet written to standard input.
    pending: VecDeque<u8>,
    /// Whether standard input ends after `pending`.
    ended: bool,
    stdout: Option<Output<ChildStdout>>,
    stderr: Option<Output<ChildStderr>>,
    /// Output bytes that may be sent.
    credit: usize,
    exit: Option<Exit>,
}

/// The reading end of a pipe.
struct Output<P> {
    pipe: P,
    /// Once the command has ended: bytes of its output still in the pipe. Later output is from processes it left
    /// behind, which may run forever.
    left: Option<usize>,
}

/// Result of one read of a pipe.
enum ReadResult {
    Bytes(Vec<u8>),
    NothingYet,
    Done,
}

impl Job {
    fn start(request: &SpawnRequest, mailbox: Mailbox, children: &Children) -> io::Result<Self> {
        let (program, arguments) = request
            .argv
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the command line is empty"))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(if request.stdin { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A separate process group, so that a signal reaches all processes a shell has started.
            .process_group(0);
        if std::env::var_os("PATH").is_none() || std::process::id() == 1 {
            command.env("PATH", DEFAULT_PATH);
        }
        command.envs(request.env.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &request.cwd {
            command.current_dir(directory);
        }
        let (mut child, pid) = children.spawn(&mut command, mailbox)?;
        let job = Self {
            pid,
            stdin: child.stdin.take(),
            pending: VecDeque::new(),
            ended: false,
            stdout: child.stdout.take().map(Output::new),
            stderr: child.stderr.take().map(Output::new),
            credit: WINDOW as usize,
            exit: None,
        };
        for pipe in [
            job.stdin.as_ref().map(AsFd::as_fd),
            job.stdout.as_ref().map(|output| output.pipe.as_fd()),
            job.stderr.as_ref().map(|output| output.pipe.as_fd()),
        ]
        .into_iter()
        .flatten()
        {
            ioctl_fionbio(pipe, true)?;
        }
        Ok(job)
    }

    fn serve(mut self, channel: Channel, inbox: &Inbox, children: &Children) {
        loop {
            inbox.acknowledge();
            while let Some(event) = inbox.try_next() {
                if matches!(event, Event::Cancel) {
                    let _ = children.signal(self.pid, Signal::KILL);
                    return;
                }
                self.handle(event, &channel, children);
            }
            self.feed(&channel);
            self.credit -= forward(&mut self.stdout, self.credit, |data| {
                channel.send(Reply::Stdout(data));
            });
            self.credit -= forward(&mut self.stderr, self.credit, |data| {
                channel.send(Reply::Stderr(data));
            });
            if let Some(exit) = self.exit
                && is_drained(&self.stdout)
                && is_drained(&self.stderr)
            {
                channel.finish(Reply::Exit(exit));
                break;
            }
            self.wait(inbox);
        }
        discard(
            self.stdout.map(|output| output.pipe),
            self.stderr.map(|output| output.pipe),
        );
    }

    fn handle(&mut self, event: Event, channel: &Channel, children: &Children) {
        match event {
            Event::Data(data) if self.stdin.is_some() => self.pending.extend(data),
            Event::Data(data) => channel.send(Reply::Credit(data.len() as u32)),
            Event::End => self.ended = true,
            Event::Credit(bytes) => self.credit = self.credit.saturating_add(bytes as usize),
            Event::Signal(number) => {
                let sent = match Signal::from_named_raw(number) {
                    Some(signal) => children.signal(self.pid, signal),
                    None => Err(io::Error::new(io::ErrorKind::InvalidInput, "no such signal")),
                };
                if let Err(error) = sent {
                    complain!("cannot send signal {number} to {:?}: {error}", self.pid);
                }
            }
            Event::Exited(exit) => {
                self.exit = Some(exit);
                if let Some(output) = &mut self.stdout {
                    output.note_exit();
                }
                if let Some(output) = &mut self.stderr {
                    output.note_exit();
                }
            }
            Event::Cancel => {}
        }
    }

    /// Writes as much to standard input as it accepts.
    fn feed(&mut self, channel: &Channel) {
        let Some(stdin) = &mut self.stdin else {
            return;
        };
        let mut consumed = 0;
        let broken = loop {
            let (piece, _) = self.pending.as_slices();
            if piece.is_empty() {
                break false;
            }
            match stdin.write(piece) {
                Ok(count) => {
                    self.pending.drain(..count);
                    consumed += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
        };
        if broken {
            consumed += self.pending.len();
            self.pending.clear();
        }
        if broken || (self.ended && self.pending.is_empty()) {
            self.stdin = None;
        }
        if consumed > 0 {
            channel.send(Reply::Credit(consumed as u32));
        }
    }

    /// Waits for an event, or until a pipe is ready.
    fn wait(&self, inbox: &Inbox) {
        let mut fds = vec![PollFd::from_borrowed_fd(inbox.wake(), PollFlags::IN)];
        if self.credit > 0 {
            let outputs = [
                self.stdout.as_ref().map(|output| output.pipe.as_fd()),
                self.stderr.as_ref().map(|output| output.pipe.as_fd()),
            ];
            fds.extend(
                outputs
                    .into_iter()
                    .flatten()
                    .map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN)),
            );
        }
        if let Some(stdin) = &self.stdin
            && !self.pending.is_empty()
        {
            fds.push(PollFd::new(stdin, PollFlags::OUT));
        }
        let _ = poll(&mut fds, None);
    }
}

impl<P: Read + AsFd> Output<P> {
    fn new(pipe: P) -> Self {
        Self { pipe, left: None }
    }

    fn note_exit(&mut self) {
        self.left = Some(ioctl_fionread(&self.pipe).map_or(0, |count| count as usize));
    }

    fn read(&mut self, limit: usize) -> ReadResult {
        let mut buffer = vec![0; limit.min(CHUNK).min(self.left.unwrap_or(CHUNK))];
        loop {
            return match self.pipe.read(&mut buffer) {
                Ok(0) => ReadResult::Done,
                Ok(count) => {
                    buffer.truncate(count);
                    self.left = self.left.map(|left| left - count);
                    ReadResult::Bytes(buffer)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ReadResult::NothingYet,
                Err(_) => ReadResult::Done,
            };
        }
    }
}

/// Returns whether all output of the command itself has been read.
fn is_drained<P>(output: &Option<Output<P>>) -> bool {
    output.as_ref().is_none_or(|output| output.left == Some(0))
}

/// Sends the contents of a pipe, at most `credit` bytes; returns the number of bytes sent.
fn forward<P: Read + AsFd>(output: &mut Option<Output<P>>, credit: usize, mut send: impl FnMut(Vec<u8>)) -> usize {
    let mut sent = 0;
    while let Some(pipe) = output
        && sent < credit
        && pipe.left != Some(0)
    {
        match pipe.read(credit - sent) {
            ReadResult::Bytes(data) => {
                sent += data.len();
                send(data);
            }
            ReadResult::NothingYet => break,
            ReadResult::Done => *output = None,
        }
    }
    sent
}

/// Keeps draining the pipes for processes the command left behind, which would otherwise block or get SIGPIPE.
fn discard(mut stdout: Option<ChildStdout>, mut stderr: Option<ChildStderr>) {
    fn step<P: Read>(pipe: &mut Option<P>) {
        let mut buffer = [0; 4096];
        while let Some(open) = pipe {
            match open.read(&mut buffer) {
                Ok(0) => *pipe = None,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => *pipe = None,
            }
        }
    }
    loop {
        step(&mut stdout);
        step(&mut stderr);
        let pipes: [Option<BorrowedFd<'_>>; 2] = [stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
        let mut fds: Vec<PollFd<'_>> = pipes
            .into_iter()
            .flatten()
            .map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN))
            .collect();
        if fds.is_empty() {
            return;
        }
        let _ = poll(&mut fds, None);
    }
}
