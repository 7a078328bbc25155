//! Starting processes and burying them, orphans included.

use std::collections::HashMap;
use std::process::{Child, Command};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, process, thread};

use guest_agent::Exit;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, wait, waitid};

use crate::channel::{Event, Mailbox};

/// How long killed processes may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// Kills every process but this one, which must be process 1, and waits until they are gone.
pub fn kill_all() -> io::Result<()> {
    if process::id() != 1 {
        return Err(io::Error::other("only process 1 of a guest may kill all others"));
    }
    let begin = Instant::now();
    // The process group that has number 1 stands for every process, see kill(2). Repeated for those that were just being started.
    while kill_process_group(Pid::INIT, Signal::KILL).is_ok() {
        // All orphans are children of process 1, and the reaper buries them.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        if matches!(waitid(WaitId::All, look), Err(Errno::CHILD)) {
            break;
        }
        if begin.elapsed() > KILL_TIMEOUT {
            let message = format!("these processes do not die: {}", survivors().join(", "));
            return Err(io::Error::other(message));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The names of all processes but this one and the kernel's own.
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

/// The commands that run.
#[derive(Debug, Default)]
pub struct Children {
    running: Mutex<HashMap<Pid, Mailbox>>,
    spawned: Condvar,
}

impl Children {
    fn lock(&self) -> MutexGuard<'_, HashMap<Pid, Mailbox>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a command; its end is posted to `mailbox`.
    pub fn spawn(&self, command: &mut Command, mailbox: Mailbox) -> io::Result<(Child, Pid)> {
        // Under the lock, so that the reaper can neither bury this child before it is known nor take it from under the standard
        // library, which waits itself for a child that failed to execute the program.
        let mut running = self.lock();
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        running.insert(pid, mailbox);
        self.spawned.notify_all();
        Ok((child, pid))
    }

    /// Signals the process group of a command that still runs.
    pub fn signal(&self, pid: Pid, signal: Signal) -> io::Result<()> {
        let running = self.lock();
        if running.contains_key(&pid) {
            kill_process_group(pid, signal)?;
        }
        Ok(())
    }

    /// Waits for every child that has ended.
    fn bury(&self) {
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

    /// Buries every child of this process.
    pub fn reap_forever(&self) -> ! {
        loop {
            // Only look: whether it may be taken is known under the lock.
            match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Ok(Some(_)) => self.bury(),
                Ok(None) | Err(Errno::INTR) => {}
                Err(_) => {
                    // No children, so there can be no orphans either until the next command.
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
