//! A running virtual machine, and where its logs are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::control::Control;
use crate::process::Process;
use crate::qmp::Qmp;
use crate::serial_port::SerialPort;

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
    pub(crate) _port: Option<SerialPort>,
}

/// Where a guest's console is logged.
pub(crate) fn console_log(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("console-{name}.log"))
}

/// Where QEMU's messages are logged.
pub(crate) fn qemu_log(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("qemu-{name}.log"))
}
