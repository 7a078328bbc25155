//! The byte stream to the harness, which the harness may close and reopen at any time.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, thread};

use guest_agent::PORT_NAME;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Polling interval where the kernel has no event to wait for.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Connection to the harness.
pub enum Port {
    /// A virtio-serial port.
    Serial(File),
    /// A Unix socket, one connection at a time.
    Socket {
        listener: UnixListener,
        current: Mutex<Option<UnixStream>>,
        changed: Condvar,
    },
}

impl Port {
    /// Waits until the harness's virtio-serial port exists and can be opened.
    pub fn wait_for_serial() -> Self {
        let mut reported = false;
        loop {
            let error = match find_serial() {
                Ok(Some(path)) => match File::options().read(true).write(true).open(&path) {
                    Ok(file) => return Self::Serial(file),
                    Err(error) => Some(error),
                },
                Ok(None) => None,
                Err(error) => Some(error),
            };
            if let Some(error) = error
                && !reported
            {
                complain!("no port named {PORT_NAME} yet: {error}");
                reported = true;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Listens on a Unix socket at `path`.
    pub fn listen(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::Socket {
            listener: UnixListener::bind(path)?,
            current: Mutex::new(None),
            changed: Condvar::new(),
        })
    }

    /// Reads bytes. Returns 0 when the connection has ended; the next call waits for a new one.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Serial(file) => {
                let count = (&*file).read(buffer)?;
                if count == 0 {
                    wait_while_hung_up(file);
                }
                Ok(count)
            }
            Self::Socket {
                listener,
                current,
                changed,
            } => {
                let lock = || current.lock().unwrap_or_else(PoisonError::into_inner);
                let connected = lock().as_ref().map(UnixStream::try_clone).transpose()?;
                let mut stream = match connected {
                    Some(stream) => stream,
                    None => {
                        let (stream, _) = listener.accept()?;
                        *lock() = Some(stream.try_clone()?);
                        changed.notify_all();
                        stream
                    }
                };
                let count = stream.read(buffer).unwrap_or(0);
                if count == 0 {
                    *lock() = None;
                }
                Ok(count)
            }
        }
    }

    /// Writes all of `bytes`; waits for a connection if there is none.
    pub fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Serial(file) => (&*file).write_all(bytes),
            Self::Socket { current, changed, .. } => {
                let guard = current.lock().unwrap_or_else(PoisonError::into_inner);
                let guard = changed
                    .wait_while(guard, |stream| stream.is_none())
                    .unwrap_or_else(PoisonError::into_inner);
                let Some(stream) = guard.as_ref() else {
                    return Ok(());
                };
                let mut stream = stream.try_clone()?;
                drop(guard);
                stream.write_all(bytes)
            }
        }
    }
}

/// Finds the device node of the port named [`PORT_NAME`].
fn find_serial() -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        // The name appears some time after the port itself.
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == PORT_NAME {
            return Ok(Some(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

/// Polls until the other end is open: until then every read returns end of file immediately.
fn wait_while_hung_up(file: &File) {
    loop {
        let mut fds = [PollFd::new(file, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().contains(PollFlags::HUP) {
            return;
        }
        thread::sleep(POLL_INTERVAL);
    }
}
