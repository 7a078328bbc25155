//! QEMU guests: the command line and the process.
//!
//! The command line is built here because it is the testbed's specification of the machine: each option has a reason,
//! and a wrapper library would hide them.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::control::Control;
use crate::error::{Doing, Result};
use crate::image::{Accel, Image};
use crate::process::{Process, number};
use crate::qmp::Qmp;
use crate::vm::{Vm, console_log, qemu_log};

/// Configuration of a QEMU guest.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Name of the guest.
    pub(crate) name: String,
    /// Image to boot.
    pub(crate) image: Arc<Image>,
    /// Number of virtual processors.
    pub(crate) processors: u32,
    /// Memory, in MiB.
    pub(crate) memory_mib: u32,
    /// Additional kernel parameters.
    pub(crate) kernel_args: Vec<String>,
    /// Arguments for links, devices under test and others.
    pub(crate) device_args: Vec<String>,
    /// Directory that the guest sees as `/host`.
    pub(crate) share: PathBuf,
    /// Directory for logs.
    pub(crate) logs: PathBuf,
    /// Directory for sockets.
    pub(crate) sockets: PathBuf,
}

impl Machine {
    /// Starts QEMU and connects to its monitor and to the agent's port.
    pub(crate) fn start(&self) -> Result<Vm> {
        // QEMU inherits listening sockets, so connecting need not wait for QEMU to create them.
        let (control_fd, control) = self.listen("control")?;
        let (qmp_fd, qmp) = self.listen("qmp")?;
        let mut command = Command::new(&self.image.qemu);
        command.args(self.arguments(number(&control_fd), number(&qmp_fd)));
        let process = Process::spawn(
            &format!("QEMU of guest {}", self.name),
            command,
            &qemu_log(&self.logs, &self.name),
            vec![control_fd, qmp_fd],
        )?;
        let qmp_trace = self.logs.join(format!("qmp-{}.log", self.name));
        let started = Control::new(control).and_then(|control| {
            let control = Arc::new(control);
            let reset = Arc::downgrade(&control);
            let on_guest_reset = move || reset.upgrade().iter().for_each(|control| control.rebooted());
            Ok((Qmp::new(qmp, &qmp_trace, on_guest_reset)?, control))
        });
        match started {
            Ok((qmp, control)) => Ok(Vm {
                control,
                qmp: Some(Arc::new(qmp)),
                process: Arc::new(process),
                _port: None,
            }),
            Err(error) => {
                // If QEMU has ended, its log explains more than a closed monitor.
                let _ = process.wait(std::time::Duration::from_millis(500));
                process.check()?;
                Err(error)
            }
        }
    }

    /// Opens a new connection to a running guest's agent.
    pub(crate) fn reconnect(&self) -> Result<Control> {
        Control::new(connect(&self.socket("control"))?)
    }

    fn socket(&self, what: &str) -> PathBuf {
        self.sockets.join(format!("{}-{what}", self.name))
    }

    /// Creates a listening socket for QEMU and connects to it.
    fn listen(&self, what: &str) -> Result<(OwnedFd, UnixStream)> {
        let path = self.socket(what);
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).doing(|| format!("bind {}", path.display()))?;
        Ok((listener.into(), connect(&path)?))
    }

    fn arguments(&self, control_fd: i32, qmp_fd: i32) -> Vec<String> {
        let mut args = Arguments::default();
        args.flag("-nodefaults");
        args.flag("-no-user-config");
        args.option("-display", "none");
        args.option("-name", format!("{},debug-threads=on", self.name));

        args.option("-machine", "q35,memory-backend=memory");
        args.option(
            "-cpu",
            match self.image.accel {
                // Software emulation executes `rep movsb` byte by byte. Without the two features that recommend it, the
                // kernel copies in words (arch/x86/lib/copy_user_64.S, memcpy_64.S), which is several times faster.
                Accel::Tcg => "max,-erms,-fsrm",
                Accel::Kvm => "max",
            },
        );
        args.option(
            "-accel",
            match self.image.accel {
                Accel::Tcg => "tcg,thread=multi",
                Accel::Kvm => "kvm",
            },
        );
        args.option("-smp", smp(self.processors));
        args.option("-m", format!("{}M", self.memory_mib));
        args.option(
            "-object",
            format!("memory-backend-memfd,id=memory,size={}M,share=on", self.memory_mib),
        );

        args.option("-kernel", self.image.kernel.display().to_string());
        if let Some(initrd) = &self.image.initrd {
            args.option("-initrd", initrd.display().to_string());
        }
        args.option("-append", self.kernel_command_line());
        for (id, image) in [("root", &self.image.rootfs), ("modules", &self.image.modules)] {
            // The images are never written, but User Mode Linux takes a lock for reading that QEMU takes for a
            // writer's.
            let how = "if=none,format=raw,readonly=on,file.locking=off";
            args.option("-drive", format!("{how},id={id},file={}", escape(image)));
            args.option("-device", format!("virtio-blk-pci,drive={id}"));
        }
        args.option(
            "-fsdev",
            format!(
                "local,id=host,security_model=none,readonly=on,path={}",
                escape(&self.share)
            ),
        );
        args.option("-device", "virtio-9p-pci,fsdev=host,mount_tag=host");

        args.option(
            "-chardev",
            format!(
                "file,id=console,append=on,path={}",
                escape(&console_log(&self.logs, &self.name))
            ),
        );
        args.option("-serial", "chardev:console");
        args.option("-chardev", format!("socket,id=qmp,server=on,wait=off,fd={qmp_fd}"));
        args.option("-object", "monitor-qmp,id=monitor,chardev=qmp");
        args.option(
            "-chardev",
            format!("socket,id=control,server=on,wait=off,fd={control_fd}"),
        );
        args.option("-device", "virtio-serial-pci");
        args.option(
            "-device",
            format!("virtserialport,chardev=control,name={}", guest_agent::PORT_NAME),
        );
        args.option("-object", "rng-builtin,id=rng");
        args.option("-device", "virtio-rng-pci,rng=rng");
        args.0.extend(self.device_args.iter().cloned());
        args.0
    }

    fn kernel_command_line(&self) -> String {
        // `quiet` alone would keep warnings, and so most splats, off the console. The timer check takes a host that is
        // slow for a moment for broken hardware and panics.
        let mut line = format!(
            "root=/dev/vda ro init=/init console=ttyS0 panic=-1 no_timer_check quiet loglevel=5 guest.name={}",
            self.name
        );
        for arg in &self.kernel_args {
            line.push(' ');
            line.push_str(arg);
        }
        line
    }
}

fn connect(path: &Path) -> Result<UnixStream> {
    UnixStream::connect(path).doing(|| format!("connect to {}", path.display()))
}

/// Returns the value of `-smp`. With only one *possible* processor, QEMU's translator turns locked instructions into
/// plain ones, which are not atomic for other processes that share the guest's memory.
fn smp(processors: u32) -> String {
    if processors == 1 {
        "1,maxcpus=2".to_owned()
    } else {
        processors.to_string()
    }
}

/// Escapes a path for a property list, in which a comma is doubled.
pub(crate) fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.to_owned());
    }

    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(name.to_owned());
        self.0.push(value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_processor_is_still_one_of_two() {
        assert_eq!(smp(1), "1,maxcpus=2");
        assert_eq!(smp(2), "2");
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(escape(Path::new("/a,b/c")), "/a,,b/c");
    }
}
