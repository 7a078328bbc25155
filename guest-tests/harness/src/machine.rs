//! The two kinds of virtual machine a guest runs on.

use std::path::{Path, PathBuf};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::vm::{Vm, console_log, qemu_log};
use crate::{qemu, uml};

/// What a guest's machine is made of.
#[derive(Debug)]
pub(crate) enum Machine {
    /// A PC that QEMU emulates.
    Qemu(qemu::Machine),
    /// A process that is a kernel.
    Uml(uml::Machine),
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
        console_log(self.logs(), self.name())
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
