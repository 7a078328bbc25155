//! Child processes that cannot outlive the test process.
//!
//! Every child requests SIGKILL on the death of its parent (PR_SET_PDEATHSIG, prctl(2)). For the kernel, the parent is
//! the *thread* that started the child, so one thread, which lives as long as the process, starts all children.

use std::fs::{self, File};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use std::{io, process, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, Signal, getppid, kill_process, pidfd_open, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::deadline::Deadline;
use crate::error::{Doing, Error, Result};
use crate::interrupt;
use crate::sync::lock;

/// A child process; dropping it kills the child.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    pidfd: OwnedFd,
    child: Arc<Mutex<Child>>,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `log`; the child inherits the file descriptors in `inherit`.
    pub(crate) fn spawn(name: &str, mut command: Command, log: &Path, inherit: Vec<OwnedFd>) -> Result<Self> {
        let open_log = || {
            File::options()
                .create(true)
                .append(true)
                .open(log)
                .doing(|| format!("open {}", log.display()))
        };
        command
            .stdin(Stdio::null())
            .stdout(open_log()?)
            .stderr(open_log()?)
            // Ctrl-C must reach the test process only, which ends the children in order.
            .process_group(0);
        let parent = Pid::from_raw(process::id().cast_signed());
        let adopt = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the request took effect.
            if getppid() != parent {
                return Err(Errno::SRCH.into());
            }
            for fd in &inherit {
                fcntl_setfd(fd, FdFlags::empty())?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure only makes system calls of three kinds; it neither allocates nor
        // takes a lock.
        unsafe { command.pre_exec(adopt) };
        let child = spawn_from_thread(command).doing(|| format!("start {name}"))?;
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).doing(|| format!("watch {name}"));
        let child = Arc::new(Mutex::new(child));
        interrupt::remember_child(&child);
        let pidfd = match pidfd {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let mut child = lock(&child);
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        Ok(Self {
            name: name.to_owned(),
            pid,
            pidfd,
            child,
            log: log.to_owned(),
        })
    }

    /// Returns the name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Returns the log file of its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Returns the exit status, if the process has ended.
    pub fn status(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().ok().flatten()
    }

    /// Fails if the process has ended.
    pub fn check(&self) -> Result<()> {
        match self.status() {
            None => Ok(()),
            Some(status) => Err(Error::Ended {
                name: self.name.clone(),
                status,
                log: tail(&self.log, 30),
            }),
        }
    }

    /// Waits for the process to end.
    pub fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Deadline::after(timeout);
        loop {
            if let Some(status) = self.status() {
                return Ok(status);
            }
            let Some(left) = deadline.left() else {
                return Err(deadline.missed(format!("{} to end", self.name)));
            };
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            let left = Timespec::try_from(left).ok();
            match poll(&mut fds, left.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    return Err(Error::Io {
                        doing: format!("wait for {} to end", self.name),
                        source: error.into(),
                    });
                }
            }
        }
    }

    /// Sends a signal unless the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut child = lock(&self.child);
        // Under the lock, and not reaped: the id still belongs to this process.
        if let Ok(None) = child.try_wait() {
            kill_process(self.pid, signal).doing(|| format!("signal {}", self.name))?;
        }
        Ok(())
    }

    /// Pins the process to a host processor, modulo their number.
    pub(crate) fn pin(&self, processor: usize) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(processor % thread::available_parallelism().map_or(1, usize::from));
        sched_setaffinity(Some(self.pid), &set).doing(|| format!("pin {} to a processor", self.name))
    }

    /// Kills the process and waits for its end.
    pub fn kill(&self) -> ExitStatus {
        let mut child = lock(&self.child);
        let _ = child.kill();
        child.wait().unwrap_or(ExitStatus::from_raw(9))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a command from the thread that starts all children.
fn spawn_from_thread(command: Command) -> io::Result<Child> {
    type SpawnRequest = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<SpawnRequest>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<SpawnRequest>();
        thread::spawn(move || {
            for (mut command, reply) in requests {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (reply, outcome) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts children is gone");
    lock(spawner).send((command, reply)).map_err(|_| gone())?;
    outcome.recv().map_err(|_| gone())?
}

/// Returns the last lines of a file.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let skip = text.lines().count().saturating_sub(lines);
    let mut tail = String::new();
    for line in text.lines().skip(skip) {
        tail.push_str(line.trim_end());
        tail.push('\n');
    }
    tail
}

/// Returns the number of a descriptor, which is the same in a child that inherits it.
pub(crate) fn number(fd: &OwnedFd) -> RawFd {
    std::os::fd::AsRawFd::as_raw_fd(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (Process, PathBuf) {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("guest-tests-process-{}-{number}", process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        (Process::spawn("the shell", command, &log, Vec::new()).unwrap(), log)
    }

    #[test]
    fn the_end_is_seen_with_the_log() {
        let (process, log) = shell("echo last words >&2; exit 3");
        let status = process.wait(Duration::from_secs(10)).unwrap();
        assert_eq!(status.code(), Some(3));
        let error = process.check().unwrap_err().to_string();
        assert!(error.contains("last words"), "{error}");
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn waiting_has_an_end_and_dropping_kills() {
        let (process, log) = shell("sleep 1000");
        let error = process.wait(Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("the shell to end"), "{error}");
        let proc = format!("/proc/{}", process.pid());
        assert!(Path::new(&proc).exists());
        drop(process);
        assert!(!Path::new(&proc).exists());
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn children_outlive_the_thread_that_asked_for_them() {
        let (process, log) = thread::spawn(|| shell("sleep 1000")).join().unwrap();
        assert!(process.wait(Duration::from_millis(100)).is_err());
        drop(process);
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn descriptors_are_inherited() {
        let (mut reader, writer) = io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let log = std::env::temp_dir().join(format!("guest-tests-inherit-{}", process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo hello >&{}", number(&writer))]);
        let process = Process::spawn("the shell", command, &log, vec![writer]).unwrap();
        let mut text = [0; 6];
        io::Read::read_exact(&mut reader, &mut text).unwrap();
        assert_eq!(&text, b"hello\n");
        process.wait(Duration::from_secs(10)).unwrap();
        fs::remove_file(log).unwrap();
    }
}
