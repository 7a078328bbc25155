//! A guest of a testbed.

use std::fs::File;
use std::io::Cursor;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use guest_agent::Hello;
use rustix::process::{Pid, Signal};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::json;

use crate::artefacts::CommandLog;
use crate::command::{Cmd, DEFAULT_TIMEOUT, Job, Output};
use crate::console::Console;
use crate::control::Control;
use crate::deadline::Deadline;
use crate::diagnostics::Diagnostics;
use crate::error::{Doing, Error, Result};
use crate::link::{Link, setup_script};
use crate::machine::Machine;
use crate::process::Process;
use crate::qmp::Qmp;
use crate::sync::lock;
use crate::vm::Vm;

/// Limit on the time a guest takes to power off.
const POWER_OFF_TIMEOUT: Duration = Duration::from_secs(60);

/// Interval between power-off requests.
const POWER_OFF_RETRY: Duration = Duration::from_secs(3);

/// A guest: its machine and the processes that run it.
#[derive(Debug)]
pub struct Guest {
    index: usize,
    machine: Machine,
    links: Vec<Link>,
    boot_timeout: Duration,
    allowed_splats: Arc<Mutex<Vec<String>>>,
    diagnostics: Arc<Diagnostics>,
    vm: Mutex<Option<Vm>>,
}

impl Guest {
    pub(crate) fn new(
        index: usize,
        machine: Machine,
        links: Vec<Link>,
        boot_timeout: Duration,
        commands: Arc<CommandLog>,
        allowed_splats: Arc<Mutex<Vec<String>>>,
    ) -> Self {
        let diagnostics = Arc::new(Diagnostics::new(
            machine.name(),
            machine.console(),
            machine.qemu_log(),
            commands,
        ));
        Self {
            index,
            machine,
            links,
            boot_timeout,
            allowed_splats,
            diagnostics,
            vm: Mutex::new(None),
        }
    }

    /// Returns the name, which is also the host name.
    pub fn name(&self) -> &str {
        self.machine.name()
    }

    /// Returns the number within the testbed.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the console of the guest.
    pub fn console(&self) -> &Console {
        self.diagnostics.console()
    }

    /// Runs a bash script in the guest, for at most 60 seconds.
    pub fn run(&self, script: &str) -> Result<Output> {
        self.shell(script).run()
    }

    /// Starts a bash script in the guest and leaves it running.
    pub fn spawn(&self, script: &str) -> Result<Job> {
        self.shell(script).spawn()
    }

    /// Builds a command that runs a bash script.
    pub fn shell(&self, script: &str) -> Cmd {
        self.command(["bash", "-c", script])
    }

    /// Builds a command from a program and its arguments.
    pub fn command<S: Into<String>>(&self, argv: impl IntoIterator<Item = S>) -> Cmd {
        let argv = argv.into_iter().map(Into::into).collect();
        Cmd::new(self.control(), Arc::clone(&self.diagnostics), argv)
    }

    /// Copies a host file into the guest, with its permissions.
    pub fn put(&self, local: impl AsRef<Path>, path: &str) -> Result<()> {
        let local = local.as_ref();
        let doing = || format!("open {}", local.display());
        let file = File::open(local).doing(doing)?;
        let mode = file.metadata().doing(doing)?.permissions().mode() & 0o7777;
        self.logged(&format!("put {path}"), || {
            self.control()?.put(file, path, mode, DEFAULT_TIMEOUT)
        })
        .map(drop)
    }

    /// Writes a file in the guest.
    pub fn put_bytes(&self, content: &[u8], path: &str, mode: u32) -> Result<()> {
        self.logged(&format!("put {path}"), || {
            self.control()?.put(Cursor::new(content), path, mode, DEFAULT_TIMEOUT)
        })
        .map(drop)
    }

    /// Reads a file of the guest.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        self.logged(&format!("get {path}"), || self.control()?.get(path, DEFAULT_TIMEOUT))
    }

    /// Reads a text file of the guest, without leading and trailing white space.
    pub fn read(&self, path: &str) -> Result<String> {
        let content = self.get(path)?;
        Ok(String::from_utf8_lossy(&content).trim().to_owned())
    }

    /// Returns the greeting of the guest's agent; its boot id differs after every boot.
    pub fn hello(&self) -> Result<Hello> {
        self.explained(self.control()?.wait_boot(None, self.boot_timeout))
    }

    /// Returns the IPv4 address of this guest on the link to `peer`.
    ///
    /// # Panics
    ///
    /// If there is no such link.
    pub fn addr(&self, peer: usize) -> Ipv4Addr {
        self.link(peer).address(self.index)
    }

    /// Returns the IPv6 address of this guest on the link to `peer`.
    ///
    /// # Panics
    ///
    /// If there is no such link.
    pub fn addr_v6(&self, peer: usize) -> Ipv6Addr {
        self.link(peer).address_v6(self.index)
    }

    /// Returns the name of this guest's interface on the link to `peer`.
    ///
    /// # Panics
    ///
    /// If there is no such link.
    pub fn interface(&self, peer: usize) -> String {
        self.link(peer).interface()
    }

    fn link(&self, peer: usize) -> &Link {
        self.links
            .iter()
            .find(|link| link.peer_of(self.index) == peer)
            .unwrap_or_else(|| {
                panic!(
                    "guest {} has no link to guest number {peer}; does the testbed have a mesh?",
                    self.name()
                )
            })
    }

    /// Resets the machine and waits until the guest is up again. For a User Mode Linux guest, same as
    /// [`Guest::restart`].
    pub fn reset(&self) -> Result<()> {
        if self.is_uml() {
            return self.restart();
        }
        let control = self.control()?;
        let boot = self.hello()?.boot_id;
        self.logged("system reset", || {
            self.qmp()?.execute("system_reset", json!({}))?;
            control.wait_boot(Some(&boot), self.boot_timeout)?;
            self.bring_links_up()
        })
    }

    /// Pins the virtual processors to host processors, beginning with `first`. For measurements: two that poll for each
    /// other on one host processor wait for its scheduler.
    pub fn pin(&self, first: usize) -> Result<()> {
        if self.is_uml() {
            return self.process()?.pin(first);
        }
        let processors = self.qmp()?.execute("query-cpus-fast", json!({}))?;
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = processors
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|cpu| cpu["thread-id"].as_i64());
        for (index, thread) in threads.enumerate() {
            let mut set = CpuSet::new();
            set.set((first + index) % count);
            let pid = i32::try_from(thread).ok().and_then(Pid::from_raw);
            sched_setaffinity(pid, &set).doing(|| format!("pin guest {} to a processor", self.name()))?;
        }
        Ok(())
    }

    /// Kills the guest's process, like a crash.
    pub fn kill(&self) -> Result<()> {
        let vm = lock(&self.vm).take();
        let vm = vm.ok_or_else(|| Error::NotRunning(self.name().to_owned()))?;
        vm.process.kill();
        Ok(())
    }

    /// Kills the process if it is running, starts a new one and waits until the guest is up.
    pub fn restart(&self) -> Result<()> {
        self.logged("restart", || {
            let _ = self.kill();
            self.start()?;
            self.wait_up()
        })
    }

    /// Reopens the connection to the guest's agent; all running commands are lost.
    pub fn reconnect(&self) -> Result<()> {
        self.logged("reconnect", || {
            self.control()?.close();
            let control = Arc::new(self.machine.reconnect()?);
            self.running(|vm| vm.control = Arc::clone(&control))?;
            control.wait_boot(None, self.boot_timeout).map(drop)
        })
    }

    /// Pauses the guest's processors and devices.
    pub fn pause(&self) -> Result<()> {
        if self.is_uml() {
            return self.explained(self.process()?.signal(Signal::STOP));
        }
        self.explained(self.qmp()?.execute("stop", json!({})).map(drop))
    }

    /// Resumes the guest after [`Guest::pause`].
    pub fn resume(&self) -> Result<()> {
        if self.is_uml() {
            return self.explained(self.process()?.signal(Signal::CONT));
        }
        self.explained(self.qmp()?.execute("cont", json!({})).map(drop))
    }

    /// Returns whether this is a User Mode Linux guest.
    pub fn is_uml(&self) -> bool {
        matches!(self.machine, Machine::Uml(_))
    }

    /// Returns whether the guest's process is running.
    pub fn is_running(&self) -> bool {
        self.process().is_ok_and(|process| process.status().is_none())
    }

    /// Returns QEMU's monitor.
    pub fn qmp(&self) -> Result<Arc<Qmp>> {
        self.running(|vm| vm.qmp.clone())?
            .ok_or(Error::Unsupported("a User Mode Linux guest has no monitor"))
    }

    /// Returns the guest's process: QEMU, or a User Mode Linux kernel.
    pub fn process(&self) -> Result<Arc<Process>> {
        self.running(|vm| Arc::clone(&vm.process))
    }

    /// Returns the connection to the guest's agent.
    pub fn control(&self) -> Result<Arc<Control>> {
        self.running(|vm| Arc::clone(&vm.control))
    }

    /// Returns the kernel splats on the console, except those the testbed tolerates.
    pub fn splats(&self) -> Vec<String> {
        self.console().splats(&lock(&self.allowed_splats))
    }

    /// Starts the guest's process.
    pub(crate) fn start(&self) -> Result<()> {
        let vm = self.explained(self.machine.start())?;
        self.diagnostics.set_process(Arc::clone(&vm.process));
        *lock(&self.vm) = Some(vm);
        Ok(())
    }

    /// Waits for the guest's agent and brings up the links.
    pub(crate) fn wait_up(&self) -> Result<()> {
        let booted = || {
            self.wait_first_boot()?;
            self.bring_links_up()
        };
        self.logged("boot", booted).map_err(|error| {
            // If the process has ended, that is the cause.
            let ended = self.process().and_then(|process| process.check());
            ended.err().map_or(error, |ended| self.diagnostics.explain(ended))
        })
    }

    /// Waits for the guest's agent, resetting a silent QEMU guest once. About one boot in 80 on a busy host hangs under
    /// software emulation, 0.2 s into the kernel and before any device under test is touched; the log records the
    /// reset.
    fn wait_first_boot(&self) -> Result<()> {
        let patience = self.boot_timeout / 2;
        match self.control()?.wait_boot(None, patience) {
            Err(Error::Timeout { .. }) if self.is_running() && !self.is_uml() => {
                eprintln!(
                    "guest {}: silent for {patience:?} after its start, resetting it",
                    self.name()
                );
                self.logged("reset of a silent guest", || {
                    self.qmp()?.execute("system_reset", json!({})).map(drop)
                })?;
                self.control()?.wait_boot(None, patience).map(drop)
            }
            result => result.map(drop),
        }
    }

    fn bring_links_up(&self) -> Result<()> {
        if self.links.is_empty() {
            return Ok(());
        }
        let script = setup_script(self.index, self.links.iter());
        let command = self.shell(&script).called("bring up the links");
        command.run()?.check().map(drop)
    }

    /// Kills all processes in the guest, if it is running.
    pub(crate) fn kill_all(&self) -> Result<()> {
        let Ok(process) = self.process() else {
            return Ok(());
        };
        self.logged("kill all processes", || {
            process.check()?;
            self.resume()?;
            let control = self.control()?;
            control.wait_boot(None, self.boot_timeout)?;
            control.kill_all(DEFAULT_TIMEOUT)
        })
    }

    /// Powers the guest off, if it is running.
    pub(crate) fn power_off(&self) -> Result<()> {
        let Ok(process) = self.process() else {
            return Ok(());
        };
        self.logged("power off", || {
            process.check()?;
            self.resume()?;
            let control = self.control()?;
            let deadline = Deadline::after(POWER_OFF_TIMEOUT);
            // The guest may be rebooting and miss the first request.
            loop {
                let left = deadline.left().unwrap_or_default();
                let asked = control.wait_boot(None, left).and_then(|_| control.power_off());
                if asked.is_err() && process.status().is_none() {
                    return asked;
                }
                match process.wait(left.min(POWER_OFF_RETRY)) {
                    Err(Error::Timeout { .. }) if deadline.left().is_some() => {}
                    Err(Error::Timeout { .. }) => return Err(deadline.missed("the guest to power off")),
                    ended => return ended.map(drop),
                }
            }
        })?;
        lock(&self.vm).take();
        Ok(())
    }

    /// Fails if there were splats or protocol errors.
    pub(crate) fn check(&self) -> Result<()> {
        let splats = self.splats();
        if !splats.is_empty() {
            return Err(Error::Splats {
                guest: self.name().to_owned(),
                splats: splats.join("\n\n"),
            });
        }
        let reports = self.control().map(|control| control.reports());
        match reports.unwrap_or_default().into_iter().next() {
            None => Ok(()),
            Some(report) => Err(self.diagnostics.explain(Error::Agent(report))),
        }
    }

    fn running<R>(&self, get: impl FnOnce(&mut Vm) -> R) -> Result<R> {
        lock(&self.vm)
            .as_mut()
            .map(get)
            .ok_or_else(|| Error::NotRunning(self.name().to_owned()))
    }

    fn explained<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.diagnostics.explain(error))
    }

    fn logged<T>(&self, what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let begin = Instant::now();
        let result = act();
        let outcome = match &result {
            Ok(_) => "done".to_owned(),
            Err(error) => error.to_string(),
        };
        self.diagnostics
            .commands()
            .add(self.name(), what, &outcome, begin.elapsed(), "");
        self.explained(result)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // The process must end here even if a handle to it or a job of the guest is still held.
        if let Some(vm) = lock(&self.vm).take() {
            vm.process.kill();
        }
    }
}
