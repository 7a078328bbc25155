//! The agent's port in a User Mode Linux guest: a virtio-serial port (virtio specification 5.3) over vhost-user; QEMU
//! guests have the same port over PCI. The kernel's own serial lines are unusable: once throttled they accept no more
//! input (line_throttle in arch/um/drivers/line.c).

mod backend;

use std::fs;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use rustix::net::Shutdown as SocketShutdown;
use vhost::vhost_user::Listener;
use vhost_user_backend::VhostUserDaemon;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::error::{Doing, Result};
use backend::Console;

/// Virtio device id of a console (virtio specification 5.3.1).
const VIRTIO_CONSOLE: u32 = 3;

/// Forwards data between one guest's port and a stream; dropping it stops the forwarding.
#[derive(Debug)]
pub(crate) struct SerialPort {
    path: PathBuf,
    listener: UnixListener,
    stream: UnixStream,
}

impl SerialPort {
    /// Listens at `path` and connects the port of the next guest to `stream`.
    pub(crate) fn serve(path: &Path, stream: UnixStream) -> Result<Self> {
        let doing = || format!("serve a port on {}", path.display());
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path).doing(doing)?;
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let console = Arc::new(Console::new(memory.clone(), stream.try_clone().doing(doing)?));
        let mut daemon = VhostUserDaemon::new("guest-port".to_owned(), Arc::clone(&console), memory)
            .map_err(|error| std::io::Error::other(error.to_string()))
            .doing(doing)?;
        let mut socket = Listener::from(listener.try_clone().doing(doing)?);
        thread::spawn(move || {
            thread::scope(|scope| {
                scope.spawn(|| console.feed());
                // Errors of the connection are ignored: the exit status of the guest's process is what counts.
                let _ = daemon.start(&mut socket).and_then(|()| daemon.wait());
                console.close();
            });
        });
        Ok(Self {
            path: path.to_owned(),
            listener,
            stream,
        })
    }

    /// Returns the kernel parameter that attaches the port.
    pub(crate) fn kernel_arg(&self) -> String {
        format!("virtio_uml.device={}:{VIRTIO_CONSOLE}", self.path.display())
    }
}

impl Drop for SerialPort {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let _ = rustix::net::shutdown(&self.listener, SocketShutdown::Both);
    }
}
