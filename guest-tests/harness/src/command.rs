//! Commands run in a guest.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_agent::{Exit, Request, SpawnRequest};

use crate::control::{Channel, ChannelState, Control, End};
use crate::deadline::Deadline;
use crate::diagnostics::Diagnostics;
use crate::error::{Error, Result};

/// Default limit on the run time of a command.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// Limit on the time a killed command takes to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(3);

/// Limit on the characters of each output stream in the command log.
const LOGGED_OUTPUT: usize = 4 * 1024;

const SIGKILL: i32 = 9;

/// A command to run, built by [`Guest::command`](crate::Guest::command).
#[derive(Debug)]
#[must_use = "a command does nothing until it is run or spawned"]
pub struct Cmd {
    control: Result<Arc<Control>>,
    diagnostics: Arc<Diagnostics>,
    request: SpawnRequest,
    called: Option<String>,
    input: Vec<u8>,
    timeout: Duration,
}

impl Cmd {
    /// Builds a command; an error in `control` is returned when it is run.
    pub(crate) fn new(control: Result<Arc<Control>>, diagnostics: Arc<Diagnostics>, argv: Vec<String>) -> Self {
        Self {
            control,
            diagnostics,
            request: SpawnRequest {
                argv,
                ..SpawnRequest::default()
            },
            called: None,
            input: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// Sets the time limit of [`Cmd::run`]; the default is 60 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the name used in messages and in the command log instead of the command's text.
    pub fn called(mut self, name: impl Into<String>) -> Self {
        self.called = Some(name.into());
        self
    }

    /// Adds an environment variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.env.push((name.into(), value.into()));
        self
    }

    /// Sets the working directory.
    pub fn cwd(mut self, directory: impl Into<String>) -> Self {
        self.request.cwd = Some(directory.into());
        self
    }

    /// Sets the standard input for [`Cmd::run`]. With [`Cmd::spawn`], standard input stays open as a pipe: see
    /// [`Job::write`].
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.request.stdin = true;
        self.input = bytes.into();
        self
    }

    /// Runs the command to its end. An exit status other than 0 is not an error: see [`Output::check`].
    pub fn run(self) -> Result<Output> {
        let (timeout, input) = (self.timeout, self.input.clone());
        let deadline = Deadline::after(timeout);
        let has_input = self.request.stdin;
        let job = self.start()?;
        if has_input {
            let what = format!("the input of `{}`", job.command);
            let fed = job.channel.send_data(&input, deadline, &what);
            // A timeout is reported below, with the output.
            if fed.is_ok() {
                job.close_stdin();
            }
        }
        job.finish(deadline, timeout)
    }

    /// Starts the command and leaves it running.
    pub fn spawn(self) -> Result<Job> {
        let input = self.input.clone();
        let job = self.start()?;
        if !input.is_empty() {
            job.write(&input)?;
        }
        Ok(job)
    }

    fn start(self) -> Result<Job> {
        let command = self.called.unwrap_or_else(|| describe(&self.request.argv));
        let begin = Instant::now();
        let channel = self
            .control
            .and_then(|control| control.spawn(&self.request))
            .map_err(|error| self.diagnostics.explain(error))?;
        Ok(Job {
            channel,
            diagnostics: self.diagnostics,
            command,
            begin,
            logged: false,
        })
    }
}

/// Returns the name of a command: its script if a shell runs one.
fn describe(argv: &[String]) -> String {
    match argv {
        [shell, flag, script] if shell.ends_with("sh") && flag == "-c" => script.clone(),
        _ => argv.join(" "),
    }
}

/// A started command; dropping it kills the command.
#[derive(Debug)]
pub struct Job {
    channel: Channel,
    diagnostics: Arc<Diagnostics>,
    command: String,
    begin: Instant,
    logged: bool,
}

impl Job {
    /// Waits for the command to end. After `timeout`, kills it and returns an error with its output so far.
    pub fn wait(self, timeout: Duration) -> Result<Output> {
        self.finish(Deadline::after(timeout), timeout)
    }

    /// Returns whether the command has ended.
    pub fn is_finished(&self) -> bool {
        self.channel.look(|state| state.end.is_some()).unwrap_or(true)
    }

    /// Sends a signal to the process group of the command.
    pub fn kill(&self, signal: i32) {
        self.channel.send(Request::Signal(signal));
    }

    /// Returns the process id in the guest.
    pub fn pid(&self, timeout: Duration) -> Result<u32> {
        let deadline = Deadline::after(timeout);
        let what = || format!("`{}` to start", self.command);
        self.channel
            .wait(deadline, |state| {
                if let Some(pid) = state.pid {
                    return Some(Ok(pid));
                }
                state.end.clone().map(|end| Err(self.failure(end)))
            })
            .unwrap_or_else(|| Err(deadline.missed(what())))
            .map_err(|error| self.diagnostics.explain(error))
    }

    /// Returns the next output line without its newline; `None` at the end of the output.
    pub fn read_line(&self, timeout: Duration) -> Result<Option<String>> {
        let deadline = Deadline::after(timeout);
        let what = || format!("a line from `{}`", self.command);
        self.channel
            .wait(deadline, |state| match (next_line(state), &state.end) {
                (Some(line), _) => Some(Ok(Some(line))),
                (None, Some(End::Exit(_))) => Some(Ok(rest(state))),
                (None, Some(end)) => Some(Err(self.failure(end.clone()))),
                (None, None) => None,
            })
            .unwrap_or_else(|| Err(deadline.missed(what())))
            .map_err(|error| self.diagnostics.explain(error))
    }

    /// Returns the output since the last read, at least one byte; `None` at the end of the output.
    pub fn read_output(&self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = Deadline::after(timeout);
        let what = || format!("output from `{}`", self.command);
        self.channel
            .wait(deadline, |state| {
                let fresh = state.stdout[state.lines_at..].to_vec();
                state.lines_at = state.stdout.len();
                match (fresh.is_empty(), &state.end) {
                    (false, _) => Some(Ok(Some(fresh))),
                    (true, Some(End::Exit(_))) => Some(Ok(None)),
                    (true, Some(end)) => Some(Err(self.failure(end.clone()))),
                    (true, None) => None,
                }
            })
            .unwrap_or_else(|| Err(deadline.missed(what())))
            .map_err(|error| self.diagnostics.explain(error))
    }

    /// Takes the output of both streams since the last call, waiting for some; later, [`Job::peek`] and [`Job::wait`]
    /// have the rest only. For commands with more output than is kept.
    pub fn stream(&self, timeout: Duration) -> Result<Streamed> {
        let taken = self.channel.wait(Deadline::after(timeout), |state| {
            let [stdout, stderr] = [&mut state.stdout, &mut state.stderr].map(std::mem::take);
            state.lines_at = 0;
            match (stdout.is_empty() && stderr.is_empty(), &state.end) {
                (false, _) => Some(Ok(Streamed::Output { stdout, stderr })),
                (true, Some(End::Exit(exit))) => Some(Ok(Streamed::Ended(*exit))),
                (true, Some(end)) => Some(Err(self.failure(end.clone()))),
                (true, None) => None,
            }
        });
        taken
            .unwrap_or(Ok(Streamed::Nothing))
            .map_err(|error| self.diagnostics.explain(error))
    }

    /// Reads lines until one contains `text`, and returns it.
    pub fn wait_line(&self, text: &str, timeout: Duration) -> Result<String> {
        let deadline = Deadline::after(timeout);
        loop {
            let left = deadline.left().unwrap_or(Duration::ZERO);
            match self.read_line(left)? {
                Some(line) if line.contains(text) => return Ok(line),
                Some(_) => {}
                None => {
                    let error = Error::Lost {
                        what: format!("waiting for \"{text}\" from `{}`", self.command),
                        why: format!("it has ended\n{}", self.peek().1),
                    };
                    return Err(self.diagnostics.explain(error));
                }
            }
        }
    }

    /// Writes to standard input, which [`Cmd::stdin`] must have made a pipe.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        let what = format!("the input of `{}`", self.command);
        self.channel
            .send_data(bytes, Deadline::after(DEFAULT_TIMEOUT), &what)
            .map_err(|error| self.diagnostics.explain(error))
    }

    /// Closes standard input.
    pub fn close_stdin(&self) {
        self.channel.send(Request::End);
    }

    /// Returns standard output and standard error so far.
    pub fn peek(&self) -> (String, String) {
        self.channel.look(|state| text(state)).unwrap_or_default()
    }

    fn finish(mut self, deadline: Deadline, after: Duration) -> Result<Output> {
        let ended = |state: &mut ChannelState| {
            let end = state.end.clone()?;
            let (stdout, stderr) = text(state);
            Some((end, stdout, stderr))
        };
        let Some((end, stdout, stderr)) = self.channel.wait(deadline, ended) else {
            self.kill(SIGKILL);
            // The last output may explain the timeout.
            self.channel.wait(Deadline::after(KILL_TIMEOUT), ended);
            let (stdout, stderr) = self.peek();
            self.log("timed out", &stdout, &stderr);
            let error = Error::CommandTimeout {
                command: self.command.clone(),
                after,
                stdout,
                stderr,
            };
            return Err(self.diagnostics.explain(error));
        };
        match end {
            End::Exit(status) => {
                self.log(&status.to_string(), &stdout, &stderr);
                Ok(Output {
                    guest: self.diagnostics.name().to_owned(),
                    command: self.command.clone(),
                    status,
                    stdout,
                    stderr,
                    elapsed: self.begin.elapsed(),
                })
            }
            end => {
                let error = self.failure(end);
                self.log(&error.to_string(), &stdout, &stderr);
                Err(self.diagnostics.explain(error))
            }
        }
    }

    fn failure(&self, end: End) -> Error {
        match end {
            End::Refused(reason) => Error::Agent(reason),
            End::Lost(why) => Error::Lost {
                what: format!("`{}`", self.command),
                why,
            },
            End::Exit(exit) => Error::Agent(format!("`{}` has ended: {exit}", self.command)),
            End::Done(_) => Error::Agent("the guest answered a command as a file transfer".to_owned()),
        }
    }

    fn log(&mut self, outcome: &str, stdout: &str, stderr: &str) {
        if !std::mem::replace(&mut self.logged, true) {
            let mut output = format!("{}{}", clip(stdout), clip(stderr));
            output.truncate(output.trim_end().len());
            self.diagnostics.commands().add(
                self.diagnostics.name(),
                &self.command,
                outcome,
                self.begin.elapsed(),
                &output,
            );
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let (stdout, stderr) = self.peek();
        self.log("no longer awaited", &stdout, &stderr);
    }
}

/// Result of one [`Job::stream`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Streamed {
    /// Output, at least one byte.
    Output {
        /// Standard output.
        stdout: Vec<u8>,
        /// Standard error.
        stderr: Vec<u8>,
    },
    /// The command has ended, and all its output was taken.
    Ended(Exit),
    /// Neither output nor an end within the time.
    Nothing,
}

fn clip(text: &str) -> &str {
    match text.char_indices().nth(LOGGED_OUTPUT) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

fn text(state: &ChannelState) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&state.stdout), text(&state.stderr))
}

fn next_line(state: &mut ChannelState) -> Option<String> {
    let rest = &state.stdout[state.lines_at..];
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let line = String::from_utf8_lossy(&rest[..end]).into_owned();
    state.lines_at += end + 1;
    Some(line)
}

/// Takes an unterminated last line.
fn rest(state: &mut ChannelState) -> Option<String> {
    let rest = &state.stdout[state.lines_at..];
    let line = (!rest.is_empty()).then(|| String::from_utf8_lossy(rest).into_owned());
    state.lines_at = state.stdout.len();
    line
}

/// Output and exit status of a command.
#[derive(Debug, Clone)]
pub struct Output {
    /// Name of the guest.
    pub guest: String,
    /// Name of the command, see [`Cmd::called`].
    pub command: String,
    /// Exit status.
    pub status: Exit,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Run time.
    pub elapsed: Duration,
}

impl Output {
    /// Returns whether the exit status is 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Returns an error with all output unless the exit status is 0.
    pub fn check(self) -> Result<Self> {
        if self.success() {
            return Ok(self);
        }
        Err(Error::Command {
            guest: self.guest,
            command: self.command,
            exit: self.status,
            stdout: self.stdout,
            stderr: self.stderr,
        })
    }

    /// Returns standard output without leading and trailing white space.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: `{}`: {}\n{}{}",
            self.guest, self.command, self.status, self.stdout, self.stderr
        )
    }
}
