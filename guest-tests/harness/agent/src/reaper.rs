//! Starting and reaping processes, orphans included.

use std::collections::HashMap;
use std::process::{Child, Command};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, process, thread};

use guest_agent::Exit;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, wait, waitid};

use crate::channel::{Event, Mailbox};

/// Maximum time for killed processes to exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// Kills every process but this one, which must be process 1, and waits for their exit.
pub fn kill_all() -> io::Result<()> {
    if process::id() != 1 {
        return Err(io::Error::other("only process 1 of a guest may kill all others"));
    }
    let begin = Instant::now();
    // Process group 1 means every process, see kill(2). Repeated for processes that were just being started.
    while kill_process_group(Pid::INIT, Signal::KILL).is_ok() {
        // All orphans are children of process 1, and the reaper reaps them.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        if matches!(waitid(WaitId::All, look), Err(Errno::CHILD)) {
            break;
        }
        if begin.elapsed() > KILL_TIMEOUT {
            let message = format!("processes survived SIGKILL: {}", survivors().join(", "));
            return Err(io::Error::other(message));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Returns the names of all processes but this one and the kernel's own.
fn survivors() -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let is_program = fs::read_link(entry.path().join("exe")).is_ok();
        if is_program && entry.file_name() != "1" {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            names.push(format!("{} ({})", name.trim_end(), entry.file_name().to_string_lossy()));
        }
    }
    names
}

/// The running commands.
#[derive(Debug, Default)]
pub struct Children {
    running: Mutex<HashMap<Pid, Mailbox>>,
    spawned: Condvar,
}

impl Children {
    fn lock(&self) -> MutexGuard<'_, HashMap<Pid, Mailbox>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a command; posts its end to `mailbox`.
    pub fn spawn(&self, command: &mut Command, mailbox: Mailbox) -> io::Result<(Child, Pid)> {
        // Under the lock, so that the reaper can neither reap this child before it is registered nor take it from the
        // standard library, which waits itself for a child that failed to execute the program.
        let mut running = self.lock();
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        running.insert(pid, mailbox);
        self.spawned.notify_all();
        Ok((child, pid))
    }

    /// Signals the process group of a command if it still runs.
    pub fn signal(&self, pid: Pid, signal: Signal) -> io::Result<()> {
        let running = self.lock();
        if running.contains_key(&pid) {
            kill_process_group(pid, signal)?;
        }
        Ok(())
    }

    /// Reaps every child that has ended.
    fn reap(&self) {
        let mut running = self.lock();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => continue,
            };
            if let Some(mailbox) = running.remove(&pid) {
                mailbox.post(Event::Exited(exit));
            }
        }
    }

    /// Reaps children of this process as they end.
    pub fn reap_forever(&self) -> ! {
        loop {
            // Does not reap yet: that needs the lock.
            match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Ok(Some(_)) => self.reap(),
                Ok(None) | Err(Errno::INTR) => {}
                Err(_) => {
                    // No children, hence no orphans until the next command.
                    let running = self.lock();
                    drop(
                        self.spawned
                            .wait_while(running, |running| running.is_empty())
                            .unwrap_or_else(PoisonError::into_inner),
                    );
                }
            }
        }
    }
}
