//! A command in a guest: streams passed through and kept in a file, time limit, outcome.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use guest_harness::{Cmd, Exit, Guest, Job, Streamed};

/// Interval of the looks at the time limit and at the flag that ends a command.
const TICK: Duration = Duration::from_millis(200);

/// Limit on the time a killed command takes to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// Limit on the output that is searched for reports of tests.
const KEPT: usize = 64 << 20;

/// Limit on a line that is held back until it is whole.
const LINE_LIMIT: usize = 64 << 10;

/// End of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It ended by itself.
    Exit(Exit),
    /// It was killed at the time limit.
    TimeLimit,
    /// It was ended because the others had ended.
    Stopped,
    /// The guest was lost, with the reason.
    Lost(String),
}

impl Outcome {
    /// Returns the exit status, as a shell and timeout(1) have it.
    pub fn status(&self) -> u8 {
        match self {
            Self::Exit(Exit::Code(code)) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
            Self::Exit(Exit::Signal(number)) => u8::try_from(128 + (number & 0x7f)).unwrap_or(u8::MAX),
            Self::TimeLimit => 124,
            Self::Stopped => 0,
            Self::Lost(_) => 1,
        }
    }
}

/// Way in which the output of a command is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// As it is.
    Plain,
    /// With the name of the guest in front of every line.
    Prefixed,
    /// Not at all.
    Hidden,
}

/// A started command.
pub struct Program {
    job: Arc<Job>,
    log: File,
    shown: Shown,
    /// Name of the guest.
    guest: String,
}

/// Outcome and output of a command.
pub struct Ended {
    pub outcome: Outcome,
    /// Output of both streams, as it arrived.
    pub output: Vec<u8>,
    pub elapsed: Duration,
}

impl Program {
    /// Starts a command whose output is kept in `log`.
    pub fn start(guest: &Guest, command: Cmd, log: &Path, shown: Shown) -> Result<Self> {
        let log = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        Ok(Self {
            job: Arc::new(command.stdin("").spawn()?),
            log,
            shown,
            guest: guest.name().to_owned(),
        })
    }

    /// Passes standard input of this process on. The thread ends with the process, as a read cannot be interrupted.
    pub fn feed(&self) {
        let job = Arc::clone(&self.job);
        thread::spawn(move || {
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = io::stdin().lock().read(&mut bytes) {
                if job.write(&bytes[..count]).is_err() {
                    return;
                }
            }
            job.close_stdin();
        });
    }

    /// Gives the command no standard input.
    pub fn starve(&self) {
        self.job.close_stdin();
    }

    /// Returns whether the command has ended.
    pub fn is_finished(&self) -> bool {
        self.job.is_finished()
    }

    /// Shows the output until the command ends, or is ended by `stop` or the time limit.
    pub fn wait(mut self, limit: Duration, stop: &AtomicBool) -> Result<Ended> {
        let begin = Instant::now();
        let prefix = (self.shown == Shown::Prefixed).then(|| format!("{}| ", self.guest));
        let is_shown = self.shown != Shown::Hidden;
        let mut output = Vec::new();
        let mut lines = [Vec::new(), Vec::new()];
        let outcome = loop {
            match self.job.stream(TICK) {
                Ok(Streamed::Output { stdout, stderr }) => {
                    for (index, bytes) in [stdout, stderr].into_iter().enumerate() {
                        self.log
                            .write_all(&bytes)
                            .context("cannot write the command's output to the results")?;
                        output.extend_from_slice(&bytes[..bytes.len().min(KEPT.saturating_sub(output.len()))]);
                        if is_shown {
                            show(index == 1, prefix.as_deref(), &mut lines[index], &bytes, false);
                        }
                    }
                }
                Ok(Streamed::Ended(exit)) => break Outcome::Exit(exit),
                Ok(Streamed::Nothing) => {}
                Err(error) => break Outcome::Lost(first_line(&error.to_string())),
            }
            if begin.elapsed() >= limit {
                self.end();
                break Outcome::TimeLimit;
            }
            if stop.load(Ordering::Relaxed) {
                self.end();
                break Outcome::Stopped;
            }
        };
        for (index, line) in lines.iter_mut().enumerate() {
            show(index == 1, prefix.as_deref(), line, b"", true);
        }
        Ok(Ended {
            outcome,
            output,
            elapsed: begin.elapsed(),
        })
    }

    /// Ends the command and what it started.
    fn end(&self) {
        for signal in [SIGTERM, SIGKILL] {
            self.job.kill(signal);
            let begin = Instant::now();
            while begin.elapsed() < KILL_TIMEOUT {
                if self.job.is_finished() {
                    return;
                }
                thread::sleep(TICK);
            }
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Shows bytes, or with a prefix whole lines. A reader that is gone is no reason to end the command.
fn show(is_error: bool, prefix: Option<&str>, line: &mut Vec<u8>, bytes: &[u8], last: bool) {
    let shown = match prefix {
        None => bytes.to_vec(),
        Some(prefix) => whole_lines(prefix, line, bytes, last),
    };
    if shown.is_empty() {
        return;
    }
    let _ = if is_error {
        io::stderr().lock().write_all(&shown)
    } else {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&shown).and_then(|()| stdout.flush())
    };
}

/// Takes the whole lines out of `line` and `bytes`, with the prefix in front of each.
fn whole_lines(prefix: &str, line: &mut Vec<u8>, bytes: &[u8], last: bool) -> Vec<u8> {
    line.extend_from_slice(bytes);
    let mut end = line
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |index| index + 1);
    if end < line.len() && (last || line.len() - end > LINE_LIMIT) {
        line.push(b'\n');
        end = line.len();
    }
    let whole: Vec<u8> = line.drain(..end).collect();
    let mut shown = Vec::with_capacity(whole.len());
    for line in whole.split_inclusive(|byte| *byte == b'\n') {
        shown.extend_from_slice(prefix.as_bytes());
        shown.extend_from_slice(line);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_a_shell() {
        assert_eq!(Outcome::Exit(Exit::Code(7)).status(), 7);
        assert_eq!(Outcome::Exit(Exit::Code(0)).status(), 0);
        assert_eq!(Outcome::Exit(Exit::Signal(11)).status(), 139);
        assert_eq!(Outcome::TimeLimit.status(), 124);
    }

    #[test]
    fn prefixed_output_has_whole_lines() {
        let mut line = Vec::new();
        assert_eq!(whole_lines("b| ", &mut line, b"one\ntw", false), b"b| one\n");
        assert_eq!(whole_lines("b| ", &mut line, b"o\nthree", false), b"b| two\n");
        assert_eq!(whole_lines("b| ", &mut line, b"", true), b"b| three\n");
        assert_eq!(whole_lines("b| ", &mut line, b"", true), b"");
        let long = vec![b'x'; LINE_LIMIT + 1];
        assert_eq!(whole_lines("b| ", &mut line, &long, false).len(), long.len() + 4);
        assert!(line.is_empty());
    }
}
