//! User Mode Linux guests: the kernel is a process of the host, on the same root file system as the QEMU guests. They
//! boot in less than a second and run at native speed, but have only vhost-user devices and one processor.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::{env, fs};

use serde::Deserialize;

use crate::control::Control;
use crate::error::{Doing, Error, Result};
use crate::locate::{cache_dir, existing};
use crate::process::Process;
use crate::serial_port::SerialPort;
use crate::vm::{Vm, console_log};

/// A User Mode Linux kernel with its initramfs and root file system.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct UmlImage {
    /// The kernel, a host executable.
    pub kernel: PathBuf,
    /// Kernel release, as printed by `uname -r`.
    pub kernel_release: String,
    /// Initramfs.
    pub initrd: PathBuf,
    /// Root file system image.
    pub rootfs: PathBuf,
    /// Virtio device id of PCI over virtio in this kernel.
    pub virtio_pci_id: u32,
}

impl UmlImage {
    /// Loads the image built by `images/build`: `.cache/image-uml.json` or the file named by GUEST_IMAGE_UML.
    pub fn load() -> Result<Self> {
        let hint = "build it with `images/build`";
        let path = env::var_os("GUEST_IMAGE_UML").map_or_else(|| cache_dir().join("image-uml.json"), PathBuf::from);
        let path = existing("the description of the User Mode Linux image", path, hint)?;
        let text = fs::read(&path).doing(|| format!("read {}", path.display()))?;
        let mut image: Self = serde_json::from_slice(&text).map_err(|error| Error::Malformed {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let base = path.parent().unwrap_or(Path::new("."));
        for (what, file) in [
            ("the User Mode Linux kernel", &mut image.kernel),
            ("its initial file system", &mut image.initrd),
            ("the root file system", &mut image.rootfs),
        ] {
            *file = existing(what, base.join(&*file), hint)?;
        }
        Ok(image)
    }
}

/// Configuration of a User Mode Linux guest.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Name of the guest.
    pub(crate) name: String,
    /// Image to boot.
    pub(crate) image: Arc<UmlImage>,
    /// Memory, in MiB.
    pub(crate) memory_mib: u32,
    /// Additional kernel parameters.
    pub(crate) kernel_args: Vec<String>,
    /// vhost-user sockets of PCI functions.
    pub(crate) pci: Vec<PathBuf>,
    /// Directory that the guest sees as `/host`.
    pub(crate) share: PathBuf,
    /// Directory for logs.
    pub(crate) logs: PathBuf,
    /// Directory for sockets and the kernel's own files.
    pub(crate) sockets: PathBuf,
}

impl Machine {
    /// Starts the kernel and serves its port.
    pub(crate) fn start(&self) -> Result<Vm> {
        let (ours, theirs) = UnixStream::pair().doing(|| "make a socket pair".to_owned())?;
        let port = SerialPort::serve(&self.sockets.join(format!("{}-port", self.name)), theirs)?;
        let mut command = Command::new(&self.image.kernel);
        command.args(self.arguments(&port));
        let process = Process::spawn(
            &format!("the kernel of guest {}", self.name),
            command,
            &console_log(&self.logs, &self.name),
            Vec::new(),
        )?;
        Ok(Vm {
            control: Arc::new(Control::new(ours)?),
            qmp: None,
            process: Arc::new(process),
            _port: Some(port),
        })
    }

    fn arguments(&self, port: &SerialPort) -> Vec<String> {
        let mut args = vec![
            format!("mem={}M", self.memory_mib),
            format!("initrd={}", self.image.initrd.display()),
            // Read-only and not locked, as other guests use the same image.
            format!("ubd0rc={}", self.image.rootfs.display()),
            "con=null".to_owned(),
            "con0=null,fd:1".to_owned(),
            "console=tty0".to_owned(),
            port.kernel_arg(),
            format!("guest.name={}", self.name),
            format!("guest.share={}", self.share.display()),
            // The default is a directory in the user's home.
            format!("uml_dir={}/", self.sockets.display()),
            format!("umid={}", self.name),
            "panic=-1".to_owned(),
            // On a busy host a device may take longer to answer than the 40 ms after which the driver gives up and
            // frees a buffer that the device still uses.
            "virtio_pcidev.max_delay_us=10000000".to_owned(),
        ];
        let id = self.image.virtio_pci_id;
        args.extend(
            self.pci
                .iter()
                .map(|socket| format!("virtio_uml.device={}:{id}", socket.display())),
        );
        args.extend(self.kernel_args.iter().cloned());
        args
    }
}
