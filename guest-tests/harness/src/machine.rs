//! What a guest runs on, and the process that is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::process::Process;
use crate::qmp::Qmp;
use crate::{qemu, uml};

/// What a guest's machine is made of.
#[derive(Debug)]
pub(crate) enum Machine {
    /// A PC that QEMU emulates.
    Qemu(qemu::Machine),
    /// A process that is a kernel.
    Uml(uml::Machine),
}

/// A machine that runs.
#[derive(Debug)]
pub(crate) struct Vm {
    /// The conversation with its agent. Before the process, so that it ends first.
    pub(crate) control: Arc<Control>,
    /// QEMU's monitor.
    pub(crate) qmp: Option<Arc<Qmp>>,
    /// QEMU, or the kernel itself.
    pub(crate) process: Arc<Process>,
    /// What connects a User Mode Linux guest's agent.
    pub(crate) _port: Option<uml::port::Port>,
}

impl Machine {
    /// The guest's name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Qemu(machine) => &machine.name,
            Self::Uml(machine) => &machine.name,
        }
    }

    /// Where the guest's console is logged.
    pub(crate) fn console(&self) -> PathBuf {
        console(self.logs(), self.name())
    }

    /// Where QEMU's messages are logged.
    pub(crate) fn qemu_log(&self) -> PathBuf {
        qemu_log(self.logs(), self.name())
    }

    /// Starts it and connects to it.
    pub(crate) fn start(&self) -> Result<Vm> {
        match self {
            Self::Qemu(machine) => machine.start(),
            Self::Uml(machine) => machine.start(),
        }
    }

    /// Connects to a running guest's agent again.
    pub(crate) fn reconnect(&self) -> Result<Control> {
        match self {
            Self::Qemu(machine) => machine.reconnect(),
            Self::Uml(_) => Err(Error::Unsupported("a User Mode Linux guest's line cannot be reopened")),
        }
    }

    fn logs(&self) -> &Path {
        match self {
            Self::Qemu(machine) => &machine.logs,
            Self::Uml(machine) => &machine.logs,
        }
    }
}

/// Where a guest's console is logged.
pub(crate) fn console(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("console-{name}.log"))
}

/// Where QEMU's messages are logged.
pub(crate) fn qemu_log(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("qemu-{name}.log"))
}
