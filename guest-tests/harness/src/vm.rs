//! A running virtual machine, and where its logs are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::control::Control;
use crate::process::Process;
use crate::qmp::Qmp;
use crate::serial_port::SerialPort;

/// A running virtual machine.
#[derive(Debug)]
pub(crate) struct Vm {
    /// Connection to the agent. Declared before the process, so that it is dropped first.
    pub(crate) control: Arc<Control>,
    /// QEMU's monitor, if QEMU runs the guest.
    pub(crate) qmp: Option<Arc<Qmp>>,
    /// QEMU, or the User Mode Linux kernel.
    pub(crate) process: Arc<Process>,
    /// Transport to the agent in a User Mode Linux guest.
    pub(crate) _port: Option<SerialPort>,
}

/// Returns the log file of a guest's console.
pub(crate) fn console_log(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("console-{name}.log"))
}

/// Returns the log file of QEMU's messages.
pub(crate) fn qemu_log(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("qemu-{name}.log"))
}
