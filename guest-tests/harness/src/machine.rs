//! The two kinds of virtual machine a guest runs on.

use std::path::{Path, PathBuf};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::vm::{Vm, console_log, qemu_log};
use crate::{qemu, uml};

/// Configuration of a guest's machine.
#[derive(Debug)]
pub(crate) enum Machine {
    /// A PC emulated by QEMU.
    Qemu(qemu::Machine),
    /// A User Mode Linux kernel, which is a process of the host.
    Uml(uml::Machine),
}

impl Machine {
    /// Returns the name of the guest.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Qemu(machine) => &machine.name,
            Self::Uml(machine) => &machine.name,
        }
    }

    /// Returns the log file of the console.
    pub(crate) fn console(&self) -> PathBuf {
        console_log(self.logs(), self.name())
    }

    /// Returns the log file of QEMU's messages.
    pub(crate) fn qemu_log(&self) -> PathBuf {
        qemu_log(self.logs(), self.name())
    }

    /// Starts the machine and connects to it.
    pub(crate) fn start(&self) -> Result<Vm> {
        match self {
            Self::Qemu(machine) => machine.start(),
            Self::Uml(machine) => machine.start(),
        }
    }

    /// Opens a new connection to a running guest's agent.
    pub(crate) fn reconnect(&self) -> Result<Control> {
        match self {
            Self::Qemu(machine) => machine.reconnect(),
            Self::Uml(_) => Err(Error::Unsupported(
                "the port of a User Mode Linux guest cannot be reopened",
            )),
        }
    }

    fn logs(&self) -> &Path {
        match self {
            Self::Qemu(machine) => &machine.logs,
            Self::Uml(machine) => &machine.logs,
        }
    }
}
